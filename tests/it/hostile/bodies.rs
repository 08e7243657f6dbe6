use super::{Held, authorization, besiege, post, status};
use crate::support::{Daemon, Setup};

/// `max_body` of the defaults.
const LARGE: usize = 64 * 1024;

/// A request whose body lacks its end.
fn begun(path: &str, headers: &str) -> String {
    post(path, headers, LARGE) + &"{".repeat(LARGE - 1000)
}

#[test]
fn slow_bodies_without_a_token_keep_nobody_out_and_cost_little_memory() {
    let daemon = Daemon::start();
    // A login is the only body that is read from somebody without a token.
    let login = begun("/api/auth/login", "");
    besiege(
        &daemon,
        || Held::open(&daemon, 300, login),
        |held| held.tend(b"{"),
    );
    let begin = status(&daemon, begun("/api/program", ""));
    assert_eq!(begin, 401, "others are refused before their bodies");
}

#[test]
fn slow_bodies_with_a_token_keep_nobody_out_and_cost_little_memory() {
    let daemon = Daemon::start();
    let create = begun("/api/program", &authorization(&daemon));
    besiege(
        &daemon,
        || Held::open(&daemon, 300, create),
        |held| held.tend(b"{"),
    );
}

#[test]
fn lengths_that_cannot_be_are_refused_at_once() {
    let daemon = Daemon::start();
    let (one, two) = (post("/api/auth/login", "", 2), "Content-Length: 3\r\n\r\n");
    let twice = one.replacen("\r\n\r\n", &format!("\r\n{two}"), 1) + "{}";
    let chunked =
        one.replace("Content-Length: 2", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n";
    let endless = post("/api/auth/login", "", 100_000_000_000_000);
    besiege(
        &daemon,
        || (),
        |()| {
            assert_eq!(status(&daemon, &endless), 413);
            assert_eq!(status(&daemon, &twice), 400);
            assert_eq!(status(&daemon, &chunked), 411);
        },
    );
}

#[test]
fn a_body_100_000_levels_deep_is_refused_and_hurts_nobody() {
    let daemon = Setup::new().key("api", "max_body", "\"1MiB\"").start();
    let bodies = [("[", "]"), ("{\"a\":", "}")].map(|(open, close)| {
        let body = open.repeat(100_000) + "1" + &close.repeat(100_000);
        post("/api/auth/login", "", body.len()) + &body
    });
    besiege(
        &daemon,
        || (),
        |()| {
            for body in &bodies {
                daemon.sent(body).reply().error(400, "validation_error");
            }
        },
    );
}
