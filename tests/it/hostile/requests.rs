use super::{authorization, besiege, post};
use crate::support::{Daemon, Reply};

const LIST: &str = "GET /api/program HTTP/1.1\r\nHost: localhost\r\n";

#[test]
fn requests_glued_together_are_answered_one_by_one() {
    let daemon = Daemon::start();
    let request = format!("{LIST}{}\r\n", authorization(&daemon));
    let glued = request.repeat(200);
    besiege(
        &daemon,
        || (),
        |()| {
            let mut connection = daemon.sent(&glued);
            for _ in 0..200 {
                connection.reply().ok(200);
            }
        },
    );
}

/// Every answer to these bytes.
fn answers(daemon: &Daemon, bytes: &str) -> Vec<Reply> {
    let mut connection = daemon.sent(bytes);
    connection.end();
    let mut replies = Vec::new();
    while !connection.is_closed() {
        replies.push(connection.reply());
    }
    replies
}

#[test]
fn what_follows_a_request_is_never_taken_for_a_part_of_it_nor_the_other_way_round() {
    let daemon = Daemon::start();
    let token = authorization(&daemon);
    let hidden = format!("{LIST}{token}\r\n");
    // Whatever another reader takes for the body, here nothing behind a refused length is read at all.
    for lengths in [
        "Transfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(),
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        " Transfer-Encoding: chunked\r\n".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding:\u{b}chunked\r\n".to_owned(),
        "Transfer-Encoding\r\n: chunked\r\n".to_owned(),
        "TRANSFER-ENCODING: identity\r\n".to_owned(),
        "Content-Length: 0\r\nContent-Length: 5\r\n".to_owned(),
        "Content-Length: 5\r\nContent-Length: 5\r\n".to_owned(),
        "Content-Length: 5, 5\r\n".to_owned(),
        "Content-Length: +5\r\n".to_owned(),
        "Content-Length : 5\r\n".to_owned(),
        format!("Content-Length: {}5\r\n", "9".repeat(30)),
        "Content-Length: 5\r\n\u{0}\r\n".to_owned(),
        "X: a\rContent-Length: 5\r\n".to_owned(),
    ] {
        let request = format!("{LIST}{token}{lengths}\r\n0\r\n\r\n{hidden}").replace("GET", "POST");
        let replies = answers(&daemon, &request);
        assert_eq!(replies.len(), 1, "{lengths:?}");
        assert!([400, 411, 413].contains(&replies[0].status), "{lengths:?}");
        assert_eq!(replies[0].header("connection"), Some("close"));
    }
    // Where the length is good, exactly so much is the body's.
    let body = format!("{hidden}{hidden}");
    let post = post("/api/program", &token, body.len());
    let statuses: Vec<u16> = answers(&daemon, &format!("{post}{body}{hidden}"))
        .iter()
        .map(|reply| reply.status)
        .collect();
    assert_eq!(statuses, [400, 200]);
}

#[test]
fn odd_requests_are_answered_as_the_standard_says_or_refused() {
    let daemon = Daemon::start();
    let token = authorization(&daemon);
    for (request, statuses) in [
        // RFC 9112 2.2: empty lines before a request, bare line feeds.
        (format!("\r\n\r\n\r\n{LIST}{token}\r\n"), &[200][..]),
        (format!("{LIST}{token}\r\n").replace('\r', ""), &[200]),
        // RFC 9112 3.2.2: an absolute target wins over Host.
        (
            format!(
                "GET http://localhost/api/program HTTP/1.1\r\nHost: evil.example\r\n{token}\r\n"
            ),
            &[200],
        ),
        (
            format!(
                "GET http://evil.example/api/program HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"
            ),
            &[421],
        ),
        // RFC 9112 9.6: close wins.
        (
            format!("{LIST}{token}Connection: keep-alive, close\r\n\r\n{LIST}\r\n"),
            &[200],
        ),
        (
            format!("{LIST}{token}Connection: close\r\nConnection: keep-alive\r\n\r\n{LIST}\r\n"),
            &[200],
        ),
        // RFC 9110 10.1.1: an expectation that nobody knows is ignored, and one without a body needs no 100.
        (
            format!("{LIST}{token}Expect: the-unexpected\r\n\r\n"),
            &[200],
        ),
        (format!("{LIST}{token}Expect: 100-continue\r\n\r\n"), &[200]),
        // RFC 9112 5.1 and 5.2: no space before the colon, no folded lines; RFC 9110 5.5: no NUL.
        (format!("{LIST}{token}X : y\r\n\r\n"), &[400]),
        (format!("{LIST}{token}X: y\r\n z\r\n\r\n"), &[400]),
        (format!("{LIST}{token}X: \0\r\n\r\n"), &[400]),
        (format!(" {LIST}{token}\r\n"), &[400]),
        (
            "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            &[404],
        ),
        (
            "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            &[400],
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[505]),
        (format!("GET {} HTTP/1.1\r\n\r\n", "/".repeat(9000)), &[431]),
    ] {
        let all: Vec<u16> = answers(&daemon, &request)
            .iter()
            .map(|reply| reply.status)
            .collect();
        assert_eq!(all, statuses, "{request:?}");
    }
}
