use super::{authorization, post};
use crate::support::{Daemon, Reply, Setup};

const LIST: &str = "GET /api/program HTTP/1.1\r\nHost: localhost\r\n";

#[track_caller]
fn assert_complete(reply: &Reply) {
    let server = concat!("hxe/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("server", server),
    ] {
        assert_eq!(reply.header(name), Some(value), "{reply:?}");
    }
    let date = reply.header("date").unwrap();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    for (name, _) in &reply.headers {
        let same = reply.headers.iter().filter(|(other, _)| other == name);
        assert_eq!(same.count(), 1, "{name} is there once");
    }
}

#[test]
fn every_answer_says_what_it_is_and_that_it_is_not_to_be_kept() {
    let daemon = Setup::new()
        .key("api", "request_timeout", "\"1s\"")
        .key("api", "cors_origins", "[\"https://ui.example\"]")
        .start();
    let token = authorization(&daemon);
    let preflight = "OPTIONS /api/program HTTP/1.1\r\nHost: localhost\r\nOrigin: https://ui.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n";
    for (request, status) in [
        (format!("{LIST}{token}\r\n"), 200),
        (preflight.to_owned(), 204),
        ("hello\r\n\r\n".to_owned(), 400),
        (post("/api/program", &token, 2) + "{}", 400),
        (format!("{LIST}\r\n"), 401),
        (LIST.replace("program", "nothing") + "\r\n", 404),
        (LIST.replace("GET", "PATCH") + "\r\n", 405),
        (LIST.to_owned(), 408),
        (post("/api/auth/login", "", 9), 408),
        (format!("{LIST}Transfer-Encoding: chunked\r\n\r\n"), 411),
        (post("/api/auth/login", "", 1 << 30), 413),
        (LIST.replace("localhost", "evil.example") + "\r\n", 421),
        (format!("{LIST}X: {}", "x".repeat(9000)), 431),
        (format!("{LIST}\r\n").replace("1.1", "3.0"), 505),
    ] {
        let reply = daemon.sent(&request).reply().expect(status);
        assert_complete(&reply);
    }
}

#[test]
fn also_where_there_is_no_room_or_too_much_was_asked() {
    let daemon = Setup::new().key("api", "rate_limit", 1).start();
    daemon.sent(format!("{LIST}\r\n")).reply().expect(401);
    let limited = daemon.sent(format!("{LIST}\r\n")).reply().expect(429);
    assert_complete(&limited);

    let daemon = Setup::new().key("api", "max_connections", 8).start();
    let slow = daemon
        .create(&crate::support::stubborn("slow").with("stop_timeout", "10m"))
        .started();
    slow.says("ready");
    let stop = post(&slow.path("/stop"), &authorization(&daemon), 0);
    let mut waiting: Vec<_> = (0..8).map(|_| daemon.sent(&stop)).collect();
    // Until eight of them wait, there is still room, for which one that has not been read yet may have been closed.
    let refused = crate::support::until_some(|| {
        waiting.push(daemon.sent(&stop));
        let mut connection = daemon.sent(format!("{LIST}\r\n"));
        let reply = (!connection.is_closed()).then(|| connection.reply())?;
        (reply.status == 503).then_some(reply)
    });
    assert_complete(&refused);
    assert!(refused.header("retry-after").is_some());
    drop(waiting);
    kill_stubborn(&daemon);
}

/// Ends the program whose stop would take ten minutes, so that there is room again.
fn kill_stubborn(daemon: &Daemon) {
    for pid in crate::support::processes_using(&daemon.setup.path("run")) {
        if ![daemon.pid(), daemon.server_pid()].contains(&pid) {
            crate::support::kill(pid, rustix::process::Signal::KILL);
        }
    }
}
