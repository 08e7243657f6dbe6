use std::thread;

use super::{Held, besiege, post};
use crate::support::{Daemon, Reply, Setup, json};

/// A daemon whose password takes a while to check.
fn daemon() -> Daemon {
    let hash = bcrypt::hash_with_salt("password", 6, [7; 16])
        .expect("6 is a cost of bcrypt's")
        .format_for_version(bcrypt::Version::TwoB);
    Setup::new()
        .key("api", "password_hash", format!("{hash:?}"))
        .start()
}

fn login(username: &str, password: &str) -> String {
    let body = json!({"username": username, "password": password}).to_string();
    post("/api/auth/login", "", body.len()) + &body
}

#[test]
fn guessed_passwords_are_checked_one_by_one_and_hold_up_no_one_with_a_token() {
    let daemon = daemon();
    daemon.token();
    let wrong = login("admin", "wrong");
    besiege(
        &daemon,
        || Held::open(&daemon, 60, wrong.repeat(20)),
        |held| held.tend(wrong.as_bytes()),
    );
}

#[test]
fn logins_beyond_those_that_wait_are_429() {
    let daemon = daemon();
    let wrong = login("admin", "wrong");
    let mut clients: Vec<_> = (0..100).map(|_| daemon.connect()).collect();
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                client.send(&wrong);
            });
        }
    });
    let replies: Vec<Reply> = clients.iter_mut().map(|client| client.reply()).collect();
    let (refused, checked): (Vec<&Reply>, _) =
        replies.iter().partition(|reply| reply.status == 429);
    assert!(!refused.is_empty() && !checked.is_empty());
    for reply in refused {
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.json()["error"], "rate_limit_exceeded");
        assert_eq!(reply.json()["retry_after"], 1);
    }
    for reply in checked {
        assert_eq!(reply.status, 401);
    }
}

#[test]
fn an_unknown_user_is_answered_as_a_wrong_password_is() {
    let daemon = daemon();
    let answer = |username, password| {
        let reply = daemon.sent(login(username, password)).reply().expect(401);
        let others = |(name, _): &(String, String)| name != "date";
        let headers: Vec<_> = reply
            .headers
            .iter()
            .filter(|h| others(h))
            .cloned()
            .collect();
        (headers, reply.body)
    };
    let wrong = answer("admin", "wrong");
    for username in ["nobody", "Admin", "admin ", "\u{0}", &"x".repeat(10_000)] {
        assert_eq!(answer(username, "password"), wrong, "{username:?}");
    }
}

#[test]
fn a_token_from_before_the_secret_was_made_anew_is_refused() {
    let mut daemon = Daemon::start();
    let token = daemon.login();
    daemon.with_token(&token, "GET", "/api/program", "").ok(200);
    daemon.stop();
    let setup = daemon.setup.clone();
    drop(daemon);
    std::fs::remove_dir_all(setup.path("state")).unwrap();
    let daemon = setup.start();
    let mine = daemon.login();
    daemon.with_token(&mine, "GET", "/api/program", "").ok(200);
    let reply = daemon.with_token(&token, "GET", "/api/program", "");
    reply.error(401, "authentication_error");
}
