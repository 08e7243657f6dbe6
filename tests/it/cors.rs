use crate::support::{Daemon, Reply, Setup};

fn from_origin(daemon: &Daemon, method: &str, origin: &str) -> Reply {
    let headers = format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n"
    );
    daemon.request(method, "/api/program", &headers, "")
}

#[test]
fn an_origin_that_is_listed_is_echoed() {
    let daemon = Setup::new()
        .key("api", "cors_origins", "[\"https://ui.example\"]")
        .start();
    let reply = from_origin(&daemon, "OPTIONS", "https://ui.example");
    assert!([200, 204].contains(&reply.status), "{}", reply.status);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://ui.example")
    );
    assert_eq!(
        reply.header("access-control-allow-credentials"),
        Some("true")
    );
    assert!(reply.header("vary").unwrap().contains("Origin"));
    let methods = reply.header("access-control-allow-methods").unwrap();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    let headers = reply.header("access-control-allow-headers").unwrap();
    for header in ["Authorization", "Content-Type"] {
        assert!(headers.contains(header), "{headers}");
    }
    let reply = from_origin(&daemon, "GET", "https://ui.example").expect(401);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://ui.example")
    );
    for other in [
        "https://evil.example",
        "https://ui.example.evil",
        "http://ui.example",
        "null",
    ] {
        let reply = from_origin(&daemon, "GET", other);
        assert!(
            reply.header("access-control-allow-origin").is_none(),
            "{other}"
        );
    }
}

#[test]
fn an_answer_to_a_body_that_cannot_be_had_names_the_origin_too() {
    let daemon = Setup::new()
        .key("api", "cors_origins", "[\"https://ui.example\"]")
        .key("api", "request_timeout", "\"1s\"")
        .start();
    for (headers, status) in [
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Content-Length: 100000000000000\r\n", 413),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", 400),
        ("Content-Length: 9\r\n", 408),
    ] {
        let origin = "Origin: https://ui.example\r\n";
        let request =
            format!("POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{origin}{headers}\r\n");
        let reply = daemon.sent(request).reply().expect(status);
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://ui.example"),
            "{status}"
        );
        assert_eq!(reply.header("vary"), Some("Origin"), "{status}");
    }
}

#[test]
fn any_origin_may_read_without_credentials_where_a_star_is_set() {
    let daemon = Setup::new().key("api", "cors_origins", "[\"*\"]").start();
    let reply = from_origin(&daemon, "GET", "https://anywhere.example");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(reply.header("access-control-allow-credentials").is_none());
}

#[test]
fn no_origin_is_allowed_unless_told_so() {
    let daemon = Daemon::start();
    let reply = from_origin(&daemon, "GET", "https://anywhere.example");
    assert!(reply.header("access-control-allow-origin").is_none());
}
