use super::{Held, Random, ask, authorization, besiege, may_open, post, reset, status};
use crate::support::{Daemon, Setup, sh, stubborn};

/// A request up to where its end would be.
const BEGUN: &str = "GET /api/program HTTP/1.1\r\nHost: localhost\r\n";

#[test]
fn a_thousand_half_open_requests_keep_nobody_out() {
    if !may_open(2_000) {
        return;
    }
    let daemon = Daemon::start();
    besiege(
        &daemon,
        || Held::open(&daemon, 1_000, BEGUN),
        |held| held.tend(b""),
    );
}

#[test]
fn five_thousand_idle_connections_keep_nobody_out() {
    if !may_open(8_000) {
        return;
    }
    let daemon = Daemon::start();
    besiege(
        &daemon,
        || Held::open(&daemon, 5_000, ""),
        |held| held.tend(b""),
    );
}

#[test]
fn headers_that_come_byte_by_byte_keep_nobody_out() {
    let daemon = Setup::new().key("api", "request_timeout", "\"1s\"").start();
    besiege(
        &daemon,
        || Held::open(&daemon, 200, format!("{BEGUN}X: ")),
        |held| held.tend(b"x"),
    );
}

#[test]
fn headers_without_end_are_refused_and_cost_no_memory() {
    let daemon = Daemon::start();
    let endless = format!("{BEGUN}X: {}", "x".repeat(1 << 20));
    besiege(
        &daemon,
        || (),
        |()| {
            // 0: the daemon may have stopped to read before its answer was read.
            let status = status(&daemon, &endless);
            assert!([0, 431].contains(&status), "{status}");
        },
    );
}

#[test]
fn empty_lines_without_end_are_refused_and_keep_nobody_out() {
    let daemon = Daemon::start();
    let lines = b"\r\n".repeat(1 << 20);
    besiege(
        &daemon,
        || (),
        |()| {
            let status = status(&daemon, &lines);
            assert!([0, 431].contains(&status), "{status}");
        },
    );
}

#[test]
fn connections_that_never_pause_leave_turns_to_new_ones() {
    let daemon = Daemon::start();
    let glued = format!("{BEGUN}\r\n").repeat(500);
    besiege(
        &daemon,
        || Held::open(&daemon, 300, ""),
        |held| held.tend(glued.as_bytes()),
    );
}

#[test]
fn resets_at_every_stage_hurt_nobody() {
    let daemon = Daemon::start();
    let body = r#"{"username":"admin","password":"wrong"}"#;
    let whole = post("/api/auth/login", "", body.len()) + body;
    besiege(
        &daemon,
        || 0,
        |length| {
            reset(daemon.sent(&whole[..*length]));
            *length = (*length + 1) % (whole.len() + 1);
        },
    );
}

#[test]
fn random_bytes_hurt_nobody() {
    let daemon = Daemon::start();
    besiege(
        &daemon,
        || Random(0x9e37_79b9_7f4a_7c15),
        |random| {
            let begin = ["", "GET ", "GET / HTTP/1.1\r\n", BEGUN][random.next() as usize % 4];
            let noise = random.bytes(random.0 as usize % 3000);
            let status = status(&daemon, [begin.as_bytes(), &noise, b"\r\n\r\n"].concat());
            assert!([0, 400, 401, 408, 431, 505].contains(&status), "{status}");
        },
    );
}

#[test]
fn clients_that_read_no_answers_keep_nobody_out() {
    let daemon = Setup::new().key("api", "max_connections", 32).start();
    let glued = format!("{BEGUN}\r\n").repeat(200);
    besiege(
        &daemon,
        || Held::open(&daemon, 64, ""),
        |held| {
            // As much of it as there is room for; the answers stay where they are.
            let at = held.next % 64;
            held.next += 1;
            let stream = &mut held.streams[at];
            stream.set_nonblocking(true).unwrap();
            let sent = std::io::Write::write(stream, glued.as_bytes());
            if sent.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock) {
                held.streams[at] = held.another();
            }
        },
    );
}

#[test]
fn clients_that_read_no_logs_cost_little_memory() {
    let daemon = Daemon::start();
    let writer = daemon
        .create(&sh(
            "writer",
            "i=0; while [ $i -lt 10000 ]; do echo a line of a long log; i=$((i+1)); done; echo end",
        ))
        .started();
    writer.says("end");
    let logs = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        writer.path("/logs?lines=10000"),
        authorization(&daemon)
    );
    besiege(
        &daemon,
        || Held::open(&daemon, 40, logs.clone()),
        |_| {
            // Another search, or word that too many wait.
            let one = logs.replace("10000", "1");
            let status = status(&daemon, one);
            assert!([0, 200, 503].contains(&status), "{status}");
        },
    );
}

#[test]
fn connections_that_wait_for_a_stop_are_kept_and_others_served() {
    let daemon = Setup::new().key("api", "max_connections", 32).start();
    // So many may wait for one program.
    let slow = ["one", "two"].map(|name| {
        let program = daemon
            .create(&stubborn(name).with("stop_timeout", "10m"))
            .started();
        program.says("ready");
        program
    });
    let mut waiting = Vec::new();
    for program in &slow {
        let stop = post(&program.path("/stop"), &authorization(&daemon), 0);
        waiting.extend((0..6).map(|_| daemon.sent(&stop)));
        program.reaches("stopping");
    }
    besiege(
        &daemon,
        || Held::open(&daemon, 100, ""),
        |held| held.tend(b""),
    );
    for program in &slow {
        ask(&daemon, "POST", &program.path("/stop?force=true"));
    }
    for connection in &mut waiting {
        connection.reply().ok(200);
    }
}
