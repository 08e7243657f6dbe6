use crate::support::{Daemon, Setup};

fn with_host(daemon: &Daemon, host: &str) -> u16 {
    let request = format!("GET /api/program HTTP/1.1\r\nHost: {host}\r\n\r\n");
    daemon.sent(request).reply().status
}

#[test]
fn only_hosts_that_mean_this_machine_are_served() {
    let name = rustix::system::uname();
    let name = name.nodename().to_str().unwrap().to_owned();
    let daemon = Setup::new()
        .key("api", "hosts", "[\"board.example\"]")
        .start();
    let port = daemon.address.port();
    for host in [
        "localhost",
        "LocalHost",
        "127.0.0.1",
        "192.0.2.7",
        "[::1]",
        "board.example",
        "Board.Example",
        &name,
        &format!("{name}.local"),
    ] {
        assert_eq!(with_host(&daemon, host), 401, "{host}");
        assert_eq!(
            with_host(&daemon, &format!("{host}:{port}")),
            401,
            "{host} with port"
        );
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "board.example.evil",
        "127.0.0.1.evil.example",
        "xboard.example",
        "",
        "[::1",
        "local host",
        "localhost:port",
        "evil@localhost",
    ] {
        let status = with_host(&daemon, host);
        assert!([400, 421].contains(&status), "{host:?}: {status}");
    }
    assert_eq!(with_host(&daemon, "evil.example"), 421);
}

#[test]
fn a_strange_host_is_refused_on_every_path_and_told_the_key() {
    let daemon = Daemon::start();
    for path in ["/", "/api/auth/login", "/no/such/path", "/api/program"] {
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n");
        let reply = daemon.sent(request).reply().expect(421);
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("hosts"), "{message}");
    }
}

#[test]
fn a_host_is_needed_once_with_http_1_1_and_not_with_1_0() {
    let daemon = Daemon::start();
    let none = "GET /api/program HTTP/1.1\r\n\r\n";
    daemon.sent(none).reply().expect(400);
    let two = "GET /api/program HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
    daemon.sent(two).reply().expect(400);
    let mut old = daemon.sent("GET /api/program HTTP/1.0\r\n\r\n");
    old.reply().expect(401);
    assert!(old.is_closed());
}
