use crate::support::{Daemon, Setup, sh, stubborn};

/// A GET of the list, whole but for the token, with a Host.
const LIST: &str = "GET /api/program HTTP/1.1\r\nHost: localhost\r\n";

/// A GET of the list with the daemon's token.
fn list(daemon: &Daemon) -> String {
    format!("{LIST}Authorization: Bearer {}\r\n\r\n", daemon.token())
}

#[test]
fn what_is_unknown_is_not_found() {
    let daemon = Daemon::start();
    for path in [
        "/api",
        "/api/",
        "/api/programs",
        "/api/program/",
        "/api/program/program-1/",
        "/api/program/program-1/kill",
        "/api/v2/program",
        "/api/v3/metrics",
        "/api/v1",
        "/api/v1/v1/program",
        "//api/program",
        "/api//program",
        "/API/program",
        "/api/program/program-1/start/now",
        "/no/such/path",
    ] {
        let reply = daemon.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json()["error"], "not_found", "{path}");
    }
}

#[test]
fn version_1_is_the_default() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", ""));
    for path in ["/program", "/program/program-1", "/program/program-1/logs"] {
        let default = daemon.get(&format!("/api{path}")).ok(200);
        assert_eq!(
            daemon.get(&format!("/api/v1{path}")).ok(200),
            default,
            "{path}"
        );
    }
    daemon.post("/api/v1/program/program-1/enable", "").ok(200);
    assert_eq!(program.get()["enabled"], true);
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let daemon = Daemon::start();
    for (method, path, allowed) in [
        ("PATCH", "/api/program", &["GET", "POST"][..]),
        ("DELETE", "/api/program", &["GET", "POST"]),
        ("POST", "/api/program/program-1", &["GET", "PUT", "DELETE"]),
        ("GET", "/api/auth/login", &["POST"]),
        ("GET", "/api/program/program-1/start", &["POST"]),
        ("POST", "/api/metrics", &["GET"]),
        ("BREW", "/api/v1/metrics", &["GET"]),
    ] {
        let reply = daemon.with_token(daemon.token(), method, path, "");
        assert_eq!(reply.status, 405, "{method} {path}");
        let allow = reply.header("allow").unwrap();
        let listed: Vec<&str> = allow.split(", ").collect();
        for method in allowed {
            assert!(listed.contains(method), "{path}: {allow}");
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    let daemon = Daemon::start();
    let get = daemon.get("/api/program").expect(200);
    let head = daemon
        .with_token(daemon.token(), "HEAD", "/api/program", "")
        .expect(200);
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(head.header("content-type"), get.header("content-type"));
}

#[test]
fn answers_are_json_and_say_so() {
    let daemon = Daemon::start();
    for reply in [
        daemon.get("/api/program"),
        daemon.get("/no/such/path"),
        daemon.request("GET", "/api/program", "", ""),
        daemon.post("/api/program", "{"),
    ] {
        let kind = reply.header("content-type").unwrap();
        assert!(kind.starts_with("application/json"), "{kind}");
        reply.json();
    }
}

#[test]
fn the_content_type_is_not_looked_at_and_a_body_without_need_is_ignored() {
    let daemon = Daemon::start();
    let header = format!(
        "Authorization: Bearer {}\r\nContent-Type: text/html\r\n",
        daemon.token()
    );
    let body = sh("a", "exec sleep 1000").0.to_string();
    daemon
        .request("POST", "/api/program", &header, &body)
        .expect(201);
    daemon.post("/api/program/a/start", "not JSON").ok(200);
    daemon
        .with_token(daemon.token(), "GET", "/api/program", "{")
        .ok(200);
}

#[test]
fn a_body_above_the_limit_is_refused() {
    let daemon = Setup::new().key("api", "max_body", "\"1KiB\"").start();
    let token = daemon.token();
    let request = |length: usize| {
        format!(
            "POST /api/program HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut fits = daemon.sent(request(1024));
    fits.send(" ".repeat(1024)).reply().expect(400);
    let mut connection = daemon.sent(request(1025));
    let message = connection.send(" ".repeat(1025)).reply().ok(413)["message"].clone();
    assert!(message.is_string());
    assert!(connection.is_closed());
    daemon
        .sent(request(100_000_000_000_000))
        .reply()
        .expect(413);
}

#[test]
fn a_length_that_cannot_be_trusted_is_refused() {
    let daemon = Daemon::start();
    for (headers, status) in [
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", 411),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: +2\r\n", 400),
        ("Content-Length: 2, 2\r\n", 400),
        ("Content-Length: 0x2\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: two\r\n", 400),
    ] {
        let request =
            format!("POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{{}}");
        let mut connection = daemon.sent(request);
        let reply = connection.reply();
        assert_eq!(reply.status, status, "{headers}");
        reply.json();
        assert!(connection.is_closed(), "{headers}");
    }
    let huge = "Content-Length: 99999999999999999999999999\r\n";
    let request = format!("POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{huge}\r\n");
    let status = daemon.sent(request).reply().status;
    assert_eq!(status, 413);
}

#[test]
fn what_is_no_http_is_refused() {
    let daemon = Daemon::start();
    for (request, status) in [
        ("hello\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("GET /api/program\r\n\r\n", 400),
        ("GET /api/program HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
        ("GET /api/program HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (
            "GET /api/program HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
            400,
        ),
        (
            "GET /api/program HTTP/1.1\r\nHost: localhost\r\n: no name\r\n\r\n",
            400,
        ),
        (
            "GET /api/program HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n",
            400,
        ),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\r\n\r\n", 400),
    ] {
        let reply = daemon.sent(request).reply();
        assert_eq!(reply.status, status, "{request:?}");
    }
    daemon.get("/api/program").ok(200);
}

#[test]
fn a_head_above_the_limit_is_refused() {
    let daemon = Daemon::start();
    let long = format!("{LIST}X: {}\r\n\r\n", "x".repeat(9000));
    daemon.sent(long).reply().expect(431);
    let many = format!("{LIST}{}\r\n", "X: x\r\n".repeat(1000));
    daemon.sent(many).reply().expect(431);
    let path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(9000)
    );
    let status = daemon.sent(path).reply().status;
    assert!([414, 431].contains(&status), "{status}");
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let daemon = Setup::new().key("api", "request_timeout", "\"1s\"").start();
    let token = daemon.token();
    let body = format!("{LIST}Authorization: Bearer {token}\r\nContent-Length: 9\r\n\r\n{{");
    for half in [LIST, "G", &body] {
        let mut connection = daemon.sent(half);
        connection.reply().expect(408);
        assert!(connection.is_closed());
    }
    let mut idle = daemon.connect();
    assert!(idle.is_closed(), "an idle connection is closed, too");
}

#[test]
fn a_connection_is_kept_and_requests_may_follow_each_other_at_once() {
    let daemon = Daemon::start();
    let request = list(&daemon);
    let mut connection = daemon.connect();
    for _ in 0..3 {
        connection.send(&request).reply().ok(200);
    }
    connection.send(request.repeat(5));
    for _ in 0..5 {
        connection.reply().ok(200);
    }
    let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    connection.send(last).reply().ok(200);
    assert!(connection.is_closed());
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let daemon = Daemon::start();
    let mut connection = daemon.connect();
    for byte in list(&daemon).bytes() {
        connection.send([byte]);
    }
    connection.reply().ok(200);
}

#[test]
fn an_answer_that_comes_later_keeps_its_place() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&stubborn("a").with("stop_timeout", "300ms"))
        .started();
    program.says("ready");
    let stop = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        program.path("/stop"),
        daemon.token()
    );
    let mut connection = daemon.sent(stop + &list(&daemon));
    assert_eq!(
        connection.reply().ok(200)["message"],
        "Program stopped successfully"
    );
    assert!(connection.reply().ok(200).is_array());
}

#[test]
fn expectations_are_answered_at_once() {
    let daemon = Daemon::start();
    let token = daemon.token();
    let request = |length: usize, expect: &str| {
        format!(
            "POST /api/program HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\nExpect: {expect}\r\n\r\n"
        )
    };
    let mut connection = daemon.sent(request(2, "100-continue"));
    connection.reply().expect(100);
    connection.send("{}").reply().issue("name");
    daemon
        .sent(request(1_000_000, "100-Continue"))
        .reply()
        .expect(413);
    let unauthorized = request(2, "100-continue").replace("Bearer ", "Bearer x");
    daemon.sent(unauthorized).reply().expect(401);
}
