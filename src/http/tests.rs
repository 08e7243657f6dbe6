//! Drives a real server with a small service, over real sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Longer than anything here should take, shorter than patience.
const LONG: Duration = Duration::from_secs(20);

/// Answers by path; what it saw of a request is in the answer.
struct Small {
    /// Where `/later` leaves its responder.
    later: Mutex<Sender<Responder>>,
}

fn reply(status: u16, text: impl Into<Vec<u8>>) -> Reply {
    Reply {
        status,
        headers: vec![("Content-Type", "text/plain".to_owned())],
        body: Body::Bytes(text.into()),
    }
}

fn source(fill: impl FnMut(&mut Vec<u8>) -> io::Result<bool> + Send + 'static) -> Reply {
    struct From<F>(F);
    impl<F: FnMut(&mut Vec<u8>) -> io::Result<bool> + Send> Source for From<F> {
        fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
            (self.0)(out)
        }
    }
    Reply {
        body: Body::Source(Box::new(From(fill))),
        ..reply(200, "")
    }
}

/// Large in memory; so many pieces are left.
struct Held(u32);

impl Source for Held {
    fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        out.resize(20_000, b'x');
        self.0 -= 1;
        Ok(self.0 > 0)
    }

    fn held_bytes(&self) -> usize {
        1 << 20
    }
}

impl Service for Small {
    type Pass = &'static str;

    fn gate(&self, head: &Head) -> Verdict<&'static str> {
        let outcome = match head.path.as_str() {
            "/forbidden" => Err(reply(403, "forbidden")),
            "/gate-panics" => panic!("a gate of the tests"),
            _ => Ok("passed"),
        };
        Verdict {
            headers: vec![("X-Gate", "seen".to_owned())],
            outcome,
        }
    }

    fn serve(&self, pass: &'static str, request: Request, responder: Responder) {
        let Request { head, body } = request;
        match head.path.as_str() {
            "/panics" => panic!("a handler of the tests"),
            "/drops" => drop(responder),
            "/later" => {
                let later = self.later.lock().unwrap();
                later.send(responder).unwrap();
            }
            "/large" => responder.respond(reply(200, vec![b'x'; 8 << 20])),
            "/pieces" => {
                let mut left = 400;
                responder.respond(source(move |out| {
                    left -= 1;
                    out.resize(20_000, b'a' + (left % 26) as u8);
                    Ok(left > 0)
                }));
            }
            "/held" => responder.respond(Reply {
                body: Body::Source(Box::new(Held(500))),
                ..reply(200, "")
            }),
            "/breaks" => {
                let mut left = 3;
                responder.respond(source(move |out| {
                    out.extend_from_slice(b"piece");
                    left -= 1;
                    match left {
                        0 => Err(io::Error::other("a source of the tests")),
                        _ => Ok(true),
                    }
                }));
            }
            "/source-panics" => {
                let mut left = 3;
                responder.respond(source(move |out| {
                    out.extend_from_slice(b"piece");
                    left -= 1;
                    assert!(left > 0, "a source of the tests");
                    Ok(true)
                }));
            }
            "/breaks-at-once" => {
                responder.respond(source(|_| Err(io::Error::other("a source of the tests"))));
            }
            path => {
                let peer = match head.peer {
                    Peer::Tcp(_) => "tcp".to_owned(),
                    Peer::Unix(peer) => format!("unix {} {}", peer.uid, peer.pid),
                };
                let text = format!("{pass} {} {path} {} {peer}", head.method, body.len());
                responder.respond(reply(200, text));
            }
        }
    }

    fn headers(&self, head: &Head) -> Vec<(&'static str, String)> {
        vec![("X-Path", head.path.clone())]
    }

    fn problem(&self, problem: Problem, _peer: &Peer) -> Reply {
        let status = match problem {
            Problem::Malformed(_) => 400,
            Problem::Timeout => 408,
            Problem::LengthRequired => 411,
            Problem::BodyTooLarge => 413,
            Problem::HeadTooLarge => 431,
            Problem::NoRoom
            | Problem::Overloaded
            | Problem::TooManyFeeds
            | Problem::TooManyWebSockets => 503,
            Problem::Version => 505,
        };
        reply(status, format!("{problem:?}"))
    }

    fn broken(&self) -> Reply {
        reply(500, "broken")
    }
}

const LIMITS: Limits = Limits {
    workers: 2,
    max_connections: 64,
    max_streams: 4,
    request_timeout: LONG,
    max_body: 100_000,
};

struct Running {
    server: Server,
    address: SocketAddr,
    later: Receiver<Responder>,
}

impl Running {
    fn start() -> Running {
        Running::with(LIMITS)
    }

    fn with(limits: Limits) -> Running {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (later, received) = mpsc::channel();
        let later = Mutex::new(later);
        let service = Arc::new(Small { later });
        let server = Server::start(vec![Listener::Tcp(listener)], limits, service).unwrap();
        Running {
            server,
            address,
            later: received,
        }
    }

    fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            read: Vec::new(),
        }
    }

    /// The one answer to this, over a connection of its own.
    fn answer(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// Likewise; `None` if the connection is closed without one.
    fn try_answer(&self, request: &str) -> Option<Answer> {
        let mut client = self.connect();
        // Where it is turned away, an answer may be there although this fails.
        let _ = client.stream.write_all(request.as_bytes());
        while !client.read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if client.more().ok()? == 0 {
                return None;
            }
        }
        Some(client.answer())
    }

    /// What begins from now on has to be over soon.
    fn hurry(&self) {
        self.server.set_limits(Limits {
            request_timeout: Duration::from_millis(50),
            ..LIMITS
        });
    }

    fn responder(&self) -> Responder {
        self.later.recv_timeout(LONG).unwrap()
    }
}

struct Client<S> {
    stream: S,
    /// Read, and not yet taken for an answer.
    read: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn has(&self, line: &str) -> bool {
        self.head
            .lines()
            .any(|known| known.eq_ignore_ascii_case(line))
    }
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send(&get(path));
        self.answer()
    }

    /// Takes what is read up to and with `end`.
    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|bytes| bytes == end) {
                let rest = self.read.split_off(at + end.len());
                return std::mem::replace(&mut self.read, rest);
            }
            assert!(self.more().unwrap() > 0, "closed after {:?}", self.read);
        }
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 65536];
        let count = self.stream.read(&mut bytes)?;
        self.read.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn head(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head,
            body: Vec::new(),
        }
    }

    fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().unwrap() > 0, "closed too early");
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        if let Some(length) = length {
            answer.body = self.exactly(length.parse().unwrap());
        } else if answer.has("Transfer-Encoding: chunked") {
            loop {
                let size = String::from_utf8(self.until(b"\r\n")).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                answer.body.extend(self.exactly(size));
                assert_eq!(self.exactly(2), b"\r\n");
                if size == 0 {
                    break;
                }
            }
        } else {
            while self.more().unwrap() > 0 {}
            answer.body = std::mem::take(&mut self.read);
        }
        answer
    }

    /// The server closed, and there was no more to read. A reset counts: what was not read may be thrown away.
    fn assert_closed(&mut self) {
        match self.more() {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let running = Running::start();
    let mut client = running.connect();
    for path in ["/a", "/b", "/c"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), format!("passed GET {path} 0 tcp"));
        assert!(answer.has("X-Gate: seen") && answer.has("Cache-Control: no-store"));
        assert!(answer.head.contains("\r\nDate: ") && answer.head.contains("\r\nServer: hxe/"));
        assert!(!answer.head.contains("Connection:"));
    }
}

#[test]
fn the_client_decides_whether_the_connection_is_kept() {
    let running = Running::start();
    for (request, connection, kept) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            Some("close"),
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", Some("close"), false),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            Some("keep-alive"),
            true,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, true),
    ] {
        let mut client = running.connect();
        client.send(request);
        let answer = client.answer();
        match connection {
            Some(value) => assert!(answer.has(&format!("Connection: {value}")), "{request}"),
            None => assert!(!answer.head.contains("Connection"), "{request}"),
        }
        match kept {
            true => assert_eq!(client.get("/").status, 200),
            false => client.assert_closed(),
        }
    }
}

#[test]
fn glued_requests_are_answered_in_order() {
    let running = Running::start();
    let mut client = running.connect();
    let count = 200;
    let requests: String = (0..count)
        .map(|number| get(&format!("/{number}")))
        .collect();
    client.send(&requests);
    for number in 0..count {
        assert!(client.answer().text().contains(&format!("/{number} ")));
    }
    client
        .send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\nGET /y HTTP/1.1\r\n");
    assert_eq!(client.answer().text(), "passed PUT /x 3 tcp");
    client.send("Host: a\r\n\r\n");
    assert_eq!(client.answer().text(), "passed GET /y 0 tcp");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let running = Running::start();
    let mut client = running.connect();
    for byte in "PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".bytes() {
        client.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.answer().text(), "passed PUT /slow 4 tcp");
}

#[test]
fn a_large_body_is_taken_whole() {
    let running = Running::start();
    let body = "x".repeat(100_000);
    let request = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}");
    assert_eq!(
        running.answer(&request).text(),
        "passed POST /up 100000 tcp"
    );
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let running = Running::start();
    for request in [get("/a"), get("/later")] {
        let mut client = running.connect();
        client.send(&request);
        client.stream.shutdown(Shutdown::Write).unwrap();
        if request.contains("later") {
            running.responder().respond(reply(200, "later"));
        }
        assert_eq!(client.answer().status, 200);
        client.assert_closed();
    }
}

#[test]
fn half_a_request_and_no_more_is_closed() {
    let running = Running::start();
    for half in [
        "GET / HT",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab",
    ] {
        let mut client = running.connect();
        client.send(half);
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.assert_closed();
    }
}

#[test]
fn a_client_that_waits_for_100_continue_hears_it_or_the_answer() {
    let running = Running::start();
    let request = |path: &str, length: usize| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut client = running.connect();
    client.send(&request("/a", 4));
    assert_eq!(client.head().status, 100);
    client.send("body");
    assert_eq!(client.answer().text(), "passed PUT /a 4 tcp");

    for (path, length, status) in [("/forbidden", 4, 403), ("/a", 100_001, 413)] {
        let mut client = running.connect();
        client.send(&request(path, length));
        let answer = client.answer();
        assert_eq!(answer.status, status);
        assert!(answer.has("Connection: close"));
        client.assert_closed();
    }

    let mut client = running.connect();
    client.send(&(request("/b", 4) + "body"));
    assert_eq!(client.answer().text(), "passed PUT /b 4 tcp");
}

#[test]
fn a_refused_request_keeps_the_connection_if_its_body_is_there() {
    let running = Running::start();
    let mut client = running.connect();
    client.send("PUT /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let answer = client.answer();
    assert_eq!(answer.status, 403);
    assert!(answer.has("X-Gate: seen"));
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_refused_client_that_goes_on_sending_sees_the_answer() {
    let running = Running::start();
    let mut client = running.connect();
    client.send("PUT /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n");
    client.send(&"x".repeat(50_000));
    client.send(&"x".repeat(40_000));
    assert_eq!(client.answer().status, 403);
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.assert_closed();
}

#[test]
fn what_cannot_be_read_is_answered_and_the_connection_closed() {
    let running = Running::start();
    for (request, status) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{0}".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            411,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000000\r\n\r\n".to_owned(),
            413,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(100_000)),
            431,
        ),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
    ] {
        let mut client = running.connect();
        client.send(&request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{request:.40}");
        assert!(answer.has("Connection: close"));
        client.assert_closed();
    }
}

#[test]
fn a_refused_length_is_answered_with_the_headers_of_its_request() {
    let running = Running::start();
    for length in ["Transfer-Encoding: chunked", "Content-Length: 1000000"] {
        let answer = running.answer(&format!("PUT /a HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n"));
        assert!(answer.has("X-Path: /a"), "{length}");
        let mut client = running.connect();
        client.send(&format!("HEAD /a HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n"));
        assert!(client.head().has("X-Path: /a"), "{length}");
        // An answer to HEAD has no body.
        client.assert_closed();
    }
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    let running = Running::start();
    for path in ["/a", "/pieces", "/large"] {
        let mut client = running.connect();
        client.send(&get(path));
        let with = client.head();
        let mut client = running.connect();
        client.send(&format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let without = client.head();
        assert_eq!(without.status, 200);
        for name in ["Content-Length", "Transfer-Encoding", "Content-Type"] {
            let of = |answer: &Answer| {
                let mut lines = answer.head.lines();
                lines.find(|line| line.starts_with(name)).map(str::to_owned)
            };
            if path != "/a" || name != "Content-Length" {
                assert_eq!(of(&with), of(&without));
            }
        }
        assert_eq!(client.get("/next").text(), "passed GET /next 0 tcp");
    }
}

#[test]
fn an_answer_may_come_later_from_any_thread() {
    let running = Running::start();
    // More of them than workers.
    let mut clients: Vec<_> = (0..8).map(|_| running.connect()).collect();
    for client in &mut clients {
        client.send(&get("/later"));
        client.send(&get("/behind"));
    }
    let responders: Vec<_> = clients.iter().map(|_| running.responder()).collect();
    assert_eq!(running.connect().get("/meanwhile").status, 200);
    thread::spawn(move || {
        for responder in responders {
            responder.respond(reply(202, "late"));
        }
    });
    for client in &mut clients {
        assert_eq!(client.answer().status, 202);
        assert_eq!(client.answer().text(), "passed GET /behind 0 tcp");
    }
}

#[test]
fn waiting_for_an_answer_never_times_out() {
    let running = Running::start();
    let mut client = running.connect();
    client.send(&get("/later"));
    let responder = running.responder();
    running.hurry();
    // Time passes: an idle connection that came later is closed.
    running.connect().assert_closed();
    running.connect().assert_closed();
    responder.respond(reply(200, "at last"));
    assert_eq!(client.answer().text(), "at last");
}

#[test]
fn a_client_that_left_before_its_answer_is_forgotten() {
    let running = Running::start();
    // More than there are places: none is lost.
    for _ in 0..2 * LIMITS.max_connections {
        let mut client = running.connect();
        client.send(&get("/later"));
        let responder = running.responder();
        drop(client);
        responder.respond(reply(200, vec![b'x'; 1 << 20]));
    }
    assert_eq!(running.connect().get("/").status, 200);
}

#[test]
fn a_panic_or_a_lost_responder_is_a_500_and_the_connection_lives_on() {
    let running = Running::start();
    let mut client = running.connect();
    for _ in 0..3 {
        for (path, gate_seen) in [("/panics", true), ("/drops", true), ("/gate-panics", false)] {
            let answer = client.get(path);
            assert_eq!(answer.status, 500);
            assert_eq!(answer.text(), "broken");
            assert_eq!(answer.has("X-Gate: seen"), gate_seen);
        }
    }
    client.send(&get("/later"));
    drop(running.responder());
    assert_eq!(client.answer().status, 500);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_request_not_complete_in_time_is_408_and_an_idle_connection_is_closed() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.get("/").status, 200);
    running.hurry();
    assert_eq!(client.get("/").status, 200);
    client.assert_closed();

    running.connect().assert_closed();
    for begun in [
        "G",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    ] {
        // On a busy machine the first byte may come so late that the connection was idle.
        let mut answer = None;
        until(|| {
            answer = running.try_answer(begun);
            answer.is_some()
        });
        let answer = answer.unwrap();
        assert_eq!(answer.status, 408, "{begun}");
        assert!(answer.has("Connection: close"));
    }
}

#[test]
fn a_deadline_counts_from_the_first_byte() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.get("/").status, 200);
    running.hurry();
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let begin = Instant::now();
    client.send("GET / HTTP/1.1\r\nX: ");
    // Each byte comes long before the deadline, and none moves it.
    while client.read.is_empty() {
        assert!(begin.elapsed() < LONG);
        let _ = client.stream.write_all(b"x");
        let _ = client.more();
    }
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(client.head().status, 408);
}

#[test]
fn a_large_answer_waits_for_a_slow_reader() {
    let running = Running::start();
    let mut slow = running.connect();
    slow.send(&get("/large"));
    slow.send(&get("/behind"));
    // Nobody else waits for it.
    for _ in 0..10 {
        assert_eq!(running.connect().get("/").status, 200);
    }
    let answer = slow.answer();
    assert_eq!(answer.body.len(), 8 << 20);
    assert_eq!(slow.answer().text(), "passed GET /behind 0 tcp");
}

#[test]
fn a_client_that_does_not_read_its_answer_is_closed() {
    let running = Running::start();
    let mut stuck = running.connect();
    stuck.send(&get("/later"));
    let responder = running.responder();
    running.hurry();
    responder.respond(reply(200, vec![b'x'; 8 << 20]));
    // Its time is over when that of others, who came later, is.
    for _ in 0..4 {
        running.connect().assert_closed();
    }
    let mut all = Vec::new();
    let _ = stuck.stream.read_to_end(&mut all);
    assert!(all.len() < 8 << 20);
}

#[test]
fn a_long_body_comes_in_pieces_to_old_and_new_clients() {
    let running = Running::start();
    let mut client = running.connect();
    let new = client.get("/pieces");
    assert!(new.has("Transfer-Encoding: chunked"));
    assert_eq!(new.body.len(), 400 * 20_000);
    assert_eq!(client.get("/").status, 200);

    let old = running.answer("GET /pieces HTTP/1.0\r\n\r\n");
    assert!(old.has("Connection: close"));
    assert!(old.body == new.body);
}

#[test]
fn a_body_that_breaks_off_is_never_taken_for_whole() {
    let running = Running::start();
    for path in ["/breaks", "/source-panics"] {
        let mut client = running.connect();
        client.send(&get(path));
        client.head();
        let mut rest = client.read;
        let _ = client.stream.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"0\r\n\r\n"));

        let mut client = running.connect();
        client.send(&format!("GET {path} HTTP/1.0\r\n\r\n"));
        let mut rest = Vec::new();
        let error = client.stream.read_to_end(&mut rest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(running.connect().get("/breaks-at-once").status, 500);
}

#[test]
fn the_connection_that_owes_a_request_for_longest_makes_room() {
    // One worker, so that what happened first is seen first.
    let running = Running::with(Limits {
        workers: 1,
        max_connections: 3,
        ..LIMITS
    });
    let mut waiting = running.connect();
    waiting.send(&get("/later"));
    let responder = running.responder();
    let mut first = running.connect();
    assert_eq!(first.get("/").status, 200);
    let mut second = running.connect();
    assert_eq!(second.get("/").status, 200);
    // Begun, and answered last: `first` has owed a request for longer.
    first.send("GET / HTTP/1.1\r\n");
    second.send(&get("/"));
    assert_eq!(second.answer().status, 200);

    let mut third = running.connect();
    assert_eq!(third.get("/").status, 200);
    assert_eq!(first.answer().status, 408);
    first.assert_closed();
    assert_eq!(second.get("/").status, 200);
    responder.respond(reply(200, "kept"));
    assert_eq!(waiting.answer().text(), "kept");
}

#[test]
fn when_all_wait_for_answers_a_new_client_is_told_so() {
    let running = Running::with(Limits {
        max_connections: 2,
        ..LIMITS
    });
    let mut clients = [running.connect(), running.connect()];
    for client in &mut clients {
        client.send(&get("/later"));
    }
    let responders = [running.responder(), running.responder()];
    assert_eq!(running.connect().answer().status, 503);
    for responder in responders {
        responder.respond(reply(200, "kept"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    until(|| {
        running
            .try_answer(&get("/"))
            .is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_client_that_does_not_read_its_answers_keeps_no_place() {
    let running = Running::with(Limits {
        workers: 1,
        max_connections: 3,
        ..LIMITS
    });
    let mut stuck = [(); 3].map(|()| running.connect());
    for client in &mut stuck {
        client.send(&get("/large"));
        // Its head has come: the rest is more than sockets hold.
        client.stream.read_exact(&mut [0; 17]).unwrap();
    }
    assert_eq!(running.connect().get("/").status, 200);
}

#[test]
fn requests_that_wait_for_their_ends_are_bounded_in_bytes() {
    let running = Running::with(Limits {
        request_timeout: 3 * LONG,
        ..LIMITS
    });
    let head =
        "PUT /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n";
    let mut clients: Vec<_> = (0..60).map(|_| running.connect()).collect();
    for client in &mut clients {
        // So that they have begun in this order, whichever worker is held up.
        client.send(head);
        client.until(b"100 Continue\r\n\r\n");
    }
    let body = "x".repeat(99_999);
    for client in &mut clients {
        // The first ones may be gone by then.
        let _ = client.stream.write_all(body.as_bytes());
    }
    // 6 MB are more than there is room for: the first ones make it.
    assert_eq!(clients[0].answer().status, 408);
    clients[0].assert_closed();
    let last = &mut clients[59];
    last.send("x");
    assert_eq!(last.answer().text(), "passed PUT /up 100000 tcp");
}

#[test]
fn answers_that_are_not_read_are_bounded_in_bytes() {
    let running = Running::with(Limits {
        request_timeout: 3 * LONG,
        ..LIMITS
    });
    let mut clients: Vec<_> = (0..8).map(|_| running.connect()).collect();
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.stream.read_exact(&mut [0; 17]).unwrap();
    }
    let mut cut = 0;
    for mut client in clients {
        let mut rest = Vec::new();
        let whole = client.stream.read_to_end(&mut rest).is_ok() && rest.ends_with(b"0\r\n\r\n");
        cut += usize::from(!whole);
    }
    assert!((1..8).contains(&cut), "{cut}");
    assert_eq!(running.connect().get("/").status, 200);
}

#[test]
fn limits_change_while_it_runs() {
    let running = Running::start();
    let mut client = running.connect();
    let request = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    client.send(request);
    assert_eq!(client.answer().status, 200);
    running.server.set_limits(Limits {
        max_body: 3,
        ..LIMITS
    });
    client.send(request);
    assert_eq!(client.answer().status, 413);
}

#[test]
fn clients_that_reset_at_any_stage_hurt_nobody() {
    let running = Running::start();
    let whole = "PUT /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    for length in 0..=whole.len() {
        let mut client = running.connect();
        client.send(&whole[..length]);
        rustix::net::sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(running.connect().get("/").status, 200);
}

#[test]
fn idle_connections_without_number_do_not_keep_a_good_client_out() {
    let running = Running::with(Limits {
        max_connections: 16,
        ..LIMITS
    });
    let mut idle: Vec<_> = (0..200).map(|_| running.connect()).collect();
    for client in &mut idle {
        // Some are closed by now.
        let _ = client.stream.write_all(b"GET / HTTP/1.1\r\n");
    }
    assert_eq!(running.connect().get("/").status, 200);
}

#[test]
fn a_unix_peer_comes_with_its_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
    let (later, _received) = mpsc::channel();
    let later = Mutex::new(later);
    let _server = Server::start(vec![listener], LIMITS, Arc::new(Small { later })).unwrap();
    let mut client = Client {
        stream: UnixStream::connect(&path).unwrap(),
        read: Vec::new(),
    };
    let uid = rustix::process::getuid().as_raw();
    let text = format!("passed GET /a 0 unix {uid} {}", std::process::id());
    assert_eq!(client.get("/a").text(), text);
}

#[test]
fn shutdown_refuses_new_clients_and_answers_those_that_wait() {
    let running = Running::start();
    let mut idle = running.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut waiting = running.connect();
    waiting.send(&get("/later"));
    let responder = running.responder();
    thread::scope(|scope| {
        let down = scope.spawn(|| running.server.shutdown(End::Shutdown));
        idle.assert_closed();
        assert!(!down.is_finished());
        responder.respond(reply(200, "last"));
        let answer = waiting.answer();
        assert_eq!(answer.text(), "last");
        assert!(answer.has("Connection: close"));
        waiting.assert_closed();
    });
}

#[test]
fn an_address_in_use_is_an_error() {
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = bind(listener.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}
