use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Connection, Daemon, Got, PATIENCE, Setup, WebSocket, json, kinds, sleeper, until,
};

/// A text frame that is not the last of its message.
fn begin(socket: &mut WebSocket, text: &str) {
    socket.frame(1, false, text.as_bytes());
}

fn go_on(socket: &mut WebSocket, text: &str, is_last: bool) {
    socket.frame(0, is_last, text.as_bytes());
}

#[test]
fn who_shows_a_token_is_told_its_end() {
    let daemon = Daemon::start();
    let body = r#"{"username":"admin","password":"password"}"#;
    let login = daemon.request("POST", "/api/auth/login", "", body).ok(200);
    let mut socket = WebSocket::open(&daemon);
    let end = socket.auth(login["token"].as_str().unwrap());
    assert_eq!(login["expires_at"], end.as_str());
}

#[test]
fn both_prefixes_of_the_path_are_the_same() {
    let daemon = Daemon::start();
    let reply = daemon.request("GET", "/api/v1/ws", "", "");
    reply.error(426, "upgrade_required");
}

#[test]
fn no_event_comes_before_the_login() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::open(&daemon);
    let program = daemon.create(&sleeper("a")).started();
    assert_eq!(socket.reached(), Vec::<serde_json::Value>::new());
    socket.auth(daemon.token());
    assert_eq!(kinds(&socket.reached()), [""; 0]);
    program.stopped();
    socket.until("program.stopped");
}

#[test]
fn a_first_message_that_is_no_login_is_the_last() {
    let daemon = Daemon::start();
    let other = Daemon::start();
    let ended = daemon.login();
    daemon
        .with_token(&ended, "POST", "/api/auth/logout", "")
        .ok(200);
    let auth = |token: &str| json!({"type": "auth", "token": token}).to_string();
    for (text, said) in [
        ("".to_owned(), "empty"),
        ("auth".to_owned(), "JSON"),
        (r#"{"type":"ping"}"#.to_owned(), "type"),
        (r#"{"type":"subscribe"}"#.to_owned(), "auth"),
        (r#"{"type":"auth"}"#.to_owned(), "token"),
        (r#"{"type":"auth","token":7}"#.to_owned(), "token"),
        (r#"{"type":"auth","token":"x","more":1}"#.to_owned(), "more"),
        (auth(""), "invalid"),
        (auth("x"), "invalid"),
        (auth(other.token()), "invalid"),
        (auth(&ended), "invalid"),
    ] {
        let mut socket = WebSocket::open(&daemon);
        socket.text(&text);
        let reason = socket.is_closed_with(4401);
        assert!(reason.contains(said), "{text}: {reason}");
    }
    let mut socket = WebSocket::open(&daemon);
    socket.binary(auth(daemon.token()).as_bytes());
    assert!(socket.is_closed_with(4401).contains("binary"));
}

#[test]
fn who_does_not_log_in_within_10_seconds_is_closed() {
    let daemon = Daemon::start();
    let begin_of_wait = Instant::now();
    let mut silent = WebSocket::open(&daemon);
    let mut slow = WebSocket::open(&daemon);
    begin(&mut slow, r#"{"type":"auth","#);
    for socket in [&mut silent, &mut slow] {
        socket.patience(2 * PATIENCE);
        assert!(socket.is_closed_with(4408).contains("10 s"));
    }
    assert!(begin_of_wait.elapsed() >= Duration::from_secs(9));
}

#[test]
fn a_message_may_come_in_pieces_with_pings_between() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::open(&daemon);
    let text = json!({"type": "auth", "token": daemon.token()}).to_string();
    let (first, rest) = text.split_at(9);
    begin(&mut socket, first);
    go_on(&mut socket, "", false);
    assert!(socket.reached().is_empty());
    go_on(&mut socket, rest, true);
    assert_eq!(socket.message()["type"], "auth.ok");
}

#[test]
fn a_message_may_have_16_kib_and_no_more() {
    let daemon = Daemon::start();
    let message = |bytes: usize| {
        let frame = r#"{"type":"subscribe","programs":[""]}"#.len();
        json!({"type": "subscribe", "programs": ["x".repeat(bytes - frame)]}).to_string()
    };
    let mut socket = WebSocket::logged_in(&daemon);
    socket.text(&message(16 * 1024));
    assert!(socket.reached().is_empty());
    socket.text(&message(16 * 1024 + 1));
    socket.is_closed_with(1009);

    let mut socket = WebSocket::logged_in(&daemon);
    begin(&mut socket, &"x".repeat(10_000));
    go_on(&mut socket, &"x".repeat(10_000), true);
    socket.is_closed_with(1009);
}

#[test]
fn what_is_not_understood_is_told_and_changes_nothing() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::subscribed(&daemon, json!(["program.*"]), json!(["a"]));
    for (text, field) in [
        ("", "message"),
        ("{", "message"),
        ("[]", "message"),
        ("{}", "type"),
        (r#"{"type":"ping"}"#, "type"),
        (r#"{"type":"subscribe","event":[]}"#, "event"),
        (
            r#"{"type":"subscribe","events":["program.exploded"]}"#,
            "events",
        ),
        (r#"{"type":"subscribe","events":"*"}"#, "events"),
        (r#"{"type":"subscribe","programs":[1]}"#, "programs"),
        (
            r#"{"type":"subscribe","events":[],"events":["*"]}"#,
            "events",
        ),
        (r#"{"type":"auth","tokens":[]}"#, "tokens"),
    ] {
        socket.text(text);
        assert!(!socket.issue(field).is_empty());
    }
    socket.binary(br#"{"type":"subscribe"}"#);
    assert!(socket.issue("message").contains("binary"));
    daemon.create(&sleeper("b")).started();
    daemon.create(&sleeper("a")).started();
    let event = socket.message();
    assert_eq!(
        (&event["type"], &event["data"]["name"]),
        (&json!("program.started"), &json!("a"))
    );
}

#[test]
fn a_token_that_expires_closes_it() {
    let daemon = Setup::new().key("api", "token_lifetime", "\"1s\"").start();
    let mut socket = WebSocket::logged_in(&daemon);
    assert!(socket.is_closed_with(4401).contains("expired"));
}

#[test]
fn a_newer_token_prolongs_it() {
    let mut daemon = Setup::new().key("api", "token_lifetime", "\"5s\"").start();
    let old = daemon.login();
    let mut socket = WebSocket::open(&daemon);
    let end = socket.auth(&old);
    daemon.reload(daemon.setup.clone().key("api", "token_lifetime", "\"24h\""));
    let new = daemon.login();
    assert!(socket.auth(&new) > end);
    until(|| daemon.with_token(&old, "GET", "/api/program", "").status == 401);
    assert!(socket.reached().is_empty());
    daemon
        .with_token(&new, "POST", "/api/auth/logout", "")
        .ok(200);
    assert!(socket.is_closed_with(4401).contains("logged out"));
}

#[test]
fn a_later_login_that_fails_closes_it() {
    let daemon = Daemon::start();
    for text in [r#"{"type":"auth","token":"x"}"#, r#"{"type":"auth"}"#] {
        let mut socket = WebSocket::logged_in(&daemon);
        socket.text(text);
        socket.is_closed_with(4401);
    }
}

#[test]
fn a_logout_closes_those_of_its_token_and_no_others() {
    let daemon = Daemon::start();
    let token = daemon.login();
    let mut others = WebSocket::logged_in(&daemon);
    let mut sockets = [WebSocket::open(&daemon), WebSocket::open(&daemon)];
    for socket in &mut sockets {
        socket.auth(&token);
    }
    daemon
        .with_token(&token, "POST", "/api/auth/logout", "")
        .ok(200);
    for socket in &mut sockets {
        assert!(socket.is_closed_with(4401).contains("logged out"));
    }
    assert!(others.reached().is_empty());
}

#[test]
fn a_new_password_closes_all() {
    let mut daemon = Daemon::start();
    let mut socket = WebSocket::logged_in(&daemon);
    daemon.reload(daemon.setup.clone().own_password());
    assert!(socket.is_closed_with(4401).contains("password"));
}

#[test]
fn the_end_of_the_daemon_is_told_after_the_end_of_its_programs() {
    let mut daemon = Daemon::start();
    daemon.create(&sleeper("a")).started();
    let mut socket = WebSocket::subscribed(&daemon, json!(["program.*"]), json!(null));
    let mut stranger = WebSocket::open(&daemon);
    daemon.signal(Signal::TERM);
    assert_eq!(socket.message()["type"], "program.stopped");
    socket.is_closed_with(1001);
    stranger.is_closed_with(1001);
    assert_eq!(daemon.ends(), Some(0));
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let daemon = Daemon::start();
    let mut polite = WebSocket::logged_in(&daemon);
    let rude = WebSocket::logged_in(&daemon);
    assert_eq!(daemon.threads("hxe-stream"), 2);
    polite.close(1000);
    assert_eq!(polite.get(), Got::Closed(1000, String::new()));
    drop(rude);
    until(|| daemon.threads("hxe-stream") == 0);
}

#[test]
fn one_more_than_allowed_is_refused_until_one_leaves() {
    let daemon = Setup::new().key("api", "max_streams", 3).start();
    let mut sockets: Vec<_> = (0..3).map(|_| WebSocket::open(&daemon)).collect();
    let (_, refused) = WebSocket::ask(&daemon, "");
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.expect(503);
    sockets.pop();
    until(|| WebSocket::ask(&daemon, "").1.status == 101);
    for socket in &mut sockets {
        socket.auth(daemon.token());
    }
}

#[test]
fn without_an_upgrade_there_is_none() {
    let daemon = Daemon::start();
    let reply = daemon.request("GET", "/api/ws", "", "");
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    assert_eq!(reply.header("connection"), Some("close, Upgrade"));
    assert!(reply.error(426, "upgrade_required").contains("WebSocket"));
    let head = daemon.request("HEAD", "/api/ws", "", "").expect(426);
    assert_eq!(head.header("upgrade"), Some("websocket"));
    let post = daemon.request("POST", "/api/ws", "", "").expect(405);
    assert_eq!(post.header("allow"), Some("GET, HEAD, OPTIONS"));
    daemon
        .request("GET", "/api/ws?token=x", "", "")
        .issue("token");
    let asking = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    // The wire closes the connection anyway where it is asked to; here it is asked to upgrade it.
    let ask = |headers: &str| {
        let head = format!("GET /api/ws HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        daemon.sent(head).reply()
    };
    let old = ask(&format!("{asking}{key}Sec-WebSocket-Version: 8\r\n"));
    assert_eq!(old.header("sec-websocket-version"), Some("13"));
    assert_eq!(old.header("connection"), Some("Upgrade"));
    old.error(426, "upgrade_required");
    let keyless = ask(&format!("{asking}Sec-WebSocket-Version: 13\r\n"));
    assert!(
        keyless
            .error(400, "bad_request")
            .contains("Sec-WebSocket-Key")
    );
}

/// The status of the answer to a page of this origin.
fn asked_from(daemon: &Daemon, origin: &str) -> u16 {
    WebSocket::ask(daemon, &format!("Origin: {origin}\r\n"))
        .1
        .status
}

#[test]
fn only_pages_of_the_daemon_itself_may_open_one() {
    let daemon = Daemon::start();
    let port = daemon.address.port();
    for own in [
        format!("http://localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
    ] {
        assert_eq!(asked_from(&daemon, &own), 101, "{own}");
    }
    for foreign in [
        format!("https://localhost:{port}"),
        format!("http://evil.example:{port}"),
        "http://localhost".to_owned(),
        "null".to_owned(),
    ] {
        assert_eq!(asked_from(&daemon, &foreign), 403, "{foreign}");
    }
}

#[test]
fn a_page_that_may_not_is_told_the_key_that_would_admit_it() {
    let daemon = Daemon::start();
    let mut connection: Connection = daemon.connect();
    connection.send(
        "GET /api/ws HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let json = connection.reply().ok(403);
    assert_eq!(json["error"], "forbidden");
    assert_eq!(json["details"]["field"], "Origin");
    let issue = json["details"]["issue"].as_str().unwrap();
    assert!(issue.contains("http://evil.example") && issue.contains("cors_origins"));
}

#[test]
fn pages_of_listed_origins_may_open_one() {
    let origins = |list: &str| Setup::new().key("api", "cors_origins", list).start();
    let some = origins(r#"["https://a.example"]"#);
    assert_eq!(asked_from(&some, "https://a.example"), 101);
    assert_eq!(asked_from(&some, "https://b.example"), 403);
    let all = origins(r#""*""#);
    assert_eq!(asked_from(&all, "https://b.example"), 101);
}
