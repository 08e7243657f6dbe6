use crate::support::{Daemon, Reply, Setup, json, sleeper, until};

/// The three headers of the rate limit.
fn rate(reply: &Reply) -> [i64; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let header = reply.header(&format!("x-ratelimit-{name}"));
        header
            .expect("the header is there")
            .parse()
            .expect("a number")
    })
}

#[test]
fn too_many_requests_are_answered_429() {
    let daemon = Setup::new().key("api", "rate_limit", 5).start();
    for left in (0..5).rev() {
        let reply = daemon.request("GET", "/no/such/path", "", "").expect(404);
        let [limit, remaining, reset] = rate(&reply);
        assert_eq!((limit, remaining), (5, left));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
            .cast_signed();
        assert!((now - 1..=now + 61).contains(&reset), "{reset}");
    }
    let reply = daemon
        .request("POST", "/api/auth/login", "", "{}")
        .expect(429);
    assert_eq!(rate(&reply)[1], 0);
    let wait: i64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    let expected = json!({
        "error": "rate_limit_exceeded",
        "message": "Rate limit exceeded",
        "retry_after": wait
    });
    assert_eq!(reply.json(), expected);
}

#[test]
fn requests_with_a_token_are_counted_by_token() {
    let daemon = Setup::new().key("api", "rate_limit", 3).start();
    let (one, two) = (daemon.login(), daemon.login());
    for _ in 0..3 {
        daemon
            .with_token(&one, "GET", "/api/program", "")
            .expect(200);
    }
    daemon
        .with_token(&one, "GET", "/api/program", "")
        .expect(429);
    let other = daemon
        .with_token(&two, "GET", "/api/program", "")
        .expect(200);
    assert_eq!(rate(&other)[1], 2);
    // A token that is not good counts for the address, which has made two logins.
    daemon
        .with_token("x", "GET", "/api/program", "")
        .expect(401);
    daemon
        .with_token("y", "GET", "/api/program", "")
        .expect(429);
}

#[test]
fn a_window_ends_and_headers_of_clients_are_not_trusted() {
    let daemon = Setup::new()
        .key("api", "rate_limit", 1)
        .key("api", "rate_limit_window", "\"1s\"")
        .start();
    let try_from = |address: &str| {
        let header = format!("X-Forwarded-For: {address}\r\nForwarded: for={address}\r\n");
        daemon.request("GET", "/nothing", &header, "").status
    };
    until(|| try_from("192.0.2.1") == 404 && try_from("192.0.2.2") == 429);
    until(|| try_from("192.0.2.1") == 404);
}

#[test]
fn without_a_limit_nothing_is_said_of_it() {
    let daemon = Daemon::start();
    let reply = daemon.get("/api/program");
    assert!(reply.header("x-ratelimit-limit").is_none());
}

#[test]
fn idle_connections_leave_descriptors_for_programs() {
    let daemon = Setup::new().open_files(64).start();
    let program = daemon.create(&sleeper("a"));
    daemon.token();
    let _idle: Vec<_> = (0..70).map(|_| daemon.connect()).collect();
    program.started().post("restart").ok(200);
}

#[test]
fn no_program_is_taken_that_could_not_be_started() {
    let daemon = Setup::new().open_files(64).start();
    let mut programs = Vec::new();
    let refused = loop {
        let reply = daemon.try_create(&sleeper(&programs.len().to_string()));
        if reply.status != 201 {
            break reply;
        }
        programs.push(daemon.program(reply.json()["id"].as_str().unwrap()));
    };
    assert_eq!(refused.status, 503);
    assert!(
        refused.json()["message"]
            .as_str()
            .unwrap()
            .contains("ulimit")
    );
    assert!(programs.len() >= 5, "{}", programs.len());
    for program in programs {
        program.started();
    }
}
