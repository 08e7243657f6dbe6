use crate::support::{Daemon, Follower, Program, Setup, WebSocket, json, sh, until};

/// How much more memory a daemon may have after a slow client than before: it is the kernel that keeps what was sent.
const MORE_KIB: u64 = 4 * 1024;
/// Bytes of the lines that [`flood`] writes: far more than all buffers between the program and a client can hold.
const FLOOD_BYTES: u64 = 50_000_000;

/// A program that writes as much, in lines of 100 bytes with their numbers.
fn flood(daemon: &Daemon) -> Program<'_> {
    let script = format!("exec seq -f '%099.0f' 1 {}", FLOOD_BYTES / 100);
    daemon.create(&sh("flood", &script))
}

fn small_logs() -> Daemon {
    Setup::new()
        .key("logs", "max_size", "\"256KiB\"")
        .key("logs", "max_files", 1)
        .start()
}

/// Counts what has come: bytes of lines, and bytes that were missed.
#[derive(Default)]
struct Sum {
    came: u64,
    missed: u64,
    last: u64,
}

impl Sum {
    fn line(&mut self, message: &str) {
        let number: u64 = message.parse().expect("a line is a number");
        assert!(number > self.last, "{number} after {}", self.last);
        self.last = number;
        self.came += 100;
    }

    fn is_whole(&self) -> bool {
        assert!(self.came + self.missed <= FLOOD_BYTES);
        self.came + self.missed == FLOOD_BYTES
    }
}

#[test]
fn a_follower_that_does_not_read_costs_nothing_and_is_told_what_it_missed() {
    let daemon = small_logs();
    let program = flood(&daemon);
    let before = daemon.resident_kib();
    let mut follower = Follower::open(&program, "&lines=0", "");
    program.post("start").ok(200);
    program.reaches("exited");
    let after = daemon.resident_kib();
    assert!(after < before + MORE_KIB, "{before} KiB, then {after} KiB");

    let mut sum = Sum::default();
    let mut gaps = 0;
    loop {
        let entry = follower.entry();
        let message = entry["message"].as_str().unwrap();
        if entry["stream"] == "stdout" {
            sum.line(message);
        } else if let Some((bytes, _)) = message.split_once(" bytes of stdout") {
            assert_eq!(entry["level"], "warn");
            sum.missed += bytes.parse::<u64>().unwrap();
            gaps += 1;
        } else if message.starts_with("Program exited") {
            break;
        }
    }
    assert!(
        sum.is_whole(),
        "{} of lines, {} missed",
        sum.came,
        sum.missed
    );
    assert!(gaps > 0);
    assert_eq!(sum.last, FLOOD_BYTES / 100, "the last lines are there");
}

#[test]
fn a_websocket_that_does_not_read_costs_nothing_and_is_told_what_was_dropped() {
    let daemon = small_logs();
    let program = flood(&daemon);
    let before = daemon.resident_kib();
    let mut slow = WebSocket::logged_in(&daemon);
    let mut quick = WebSocket::subscribed(&daemon, json!(["program.*"]), json!(null));
    program.post("start").ok(200);
    assert_eq!(quick.message()["type"], "program.started");
    assert_eq!(quick.message()["type"], "program.stopped");
    let after = daemon.resident_kib();
    assert!(after < before + MORE_KIB, "{before} KiB, then {after} KiB");

    let mut sum = Sum::default();
    let (events, _) = slow.until("program.stopped");
    for event in &events {
        let data = &event["data"];
        if event["type"] == "log.dropped" {
            assert_eq!(
                (&data["name"], &data["stream"]),
                (&json!("flood"), &json!("stdout"))
            );
            sum.missed += data["bytes"].as_u64().unwrap();
        } else if data["stream"] == "stdout" {
            sum.line(data["message"].as_str().unwrap());
        }
    }
    assert!(
        sum.is_whole(),
        "{} of lines, {} missed",
        sum.came,
        sum.missed
    );
    assert!(sum.missed > 0);
    assert_eq!(sum.last, FLOOD_BYTES / 100, "the last lines are there");
    assert!(slow.reached().is_empty());
}

#[test]
fn a_websocket_that_lets_lifecycle_events_pile_up_is_closed() {
    let daemon = Daemon::start();
    let mut slow = WebSocket::logged_in(&daemon);
    // First it is held up by more lines than fit between the two.
    let flood = daemon
        .create(&sh("flood", "exec seq -f '%099.0f' 1 100000"))
        .started();
    flood.reaches("exited");
    let crashing = sh("a", "exit 1")
        .with("auto_restart", true)
        .with("max_restarts", 700)
        .with("restart_delay", "0s");
    let program = daemon.create(&crashing).started();
    // Each end and each restart is an event. A busy machine has time for every hundred of them.
    for enough in (100..=600).step_by(100) {
        until(|| {
            let metrics = daemon.get(&program.path("/metrics")).ok(200);
            metrics["metrics"]["restart_count"].as_u64().unwrap() >= enough
        });
    }
    let reason = slow.is_closed_with(1013);
    assert!(reason.contains("read faster"), "{reason}");
    program.stopped();
    // Who reads is still heard.
    let mut other = WebSocket::logged_in(&daemon);
    assert!(other.reached().is_empty());
}
