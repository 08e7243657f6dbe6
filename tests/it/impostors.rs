use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hxe::client::{Client, Definition, Error, LogFilter};
use tungstenite::handshake::derive_accept_key;

use crate::support::{PATIENCE, until};

/// A server that does what a test wants.
struct Impostor {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// Gives each connection to `serve`, one after the other, with its number.
    fn new(serve: impl Fn(usize, &mut Guest) + Send + 'static) -> Impostor {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(3 * PATIENCE)).unwrap();
                stream.set_write_timeout(Some(3 * PATIENCE)).unwrap();
                serve(number, &mut Guest(stream));
            }
        });
        Impostor {
            address,
            over,
            thread: Some(thread),
        }
    }

    /// Answers each request with these bytes, and closes.
    fn saying(answer: impl Into<Vec<u8>>) -> Impostor {
        let answer = answer.into();
        Impostor::new(move |_, guest| {
            guest.request();
            guest.say(&answer);
        })
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address)).unwrap()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().expect("it is ended once").join();
        assert!(
            ended.is_ok() || thread::panicking(),
            "the impostor panicked"
        );
    }
}

/// A connection to an impostor.
struct Guest(TcpStream);

impl Guest {
    /// Reads a request to its end; `None` if there is none.
    fn request(&mut self) -> Option<String> {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return None,
            }
        }
        let head = String::from_utf8(request).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        self.0.read_exact(&mut vec![0; length]).ok()?;
        Some(head)
    }

    /// Says this, if the client still listens.
    fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits until the client has gone.
    fn wait(&mut self) {
        let _ = self.0.read_to_end(&mut Vec::new());
    }
}

const METRICS: &str =
    r#"{"system":{"uptime":7.0,"cpu_usage":1,"new":[null]},"programs":{"total":null}}"#;

fn whole(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a client makes of this answer.
fn error(answer: impl Into<Vec<u8>>) -> Error {
    let impostor = Impostor::saying(answer);
    impostor.client().system_metrics().unwrap_err()
}

#[test]
fn answers_of_other_versions_are_understood() {
    for answer in [
        whole(METRICS),
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", whole(METRICS)),
        format!("HTTP/1.0 200 OK\r\n\r\n{METRICS}"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n{:x};x=y\r\n{}\r\n0\r\nX: y\r\n\r\n",
            METRICS.len() - 1,
            &METRICS[1..]
        ),
    ] {
        let impostor = Impostor::saying(answer);
        let metrics = impostor.client().system_metrics().unwrap();
        assert_eq!((metrics.uptime, metrics.total), (7, 0));
        assert_eq!(metrics.json["system"]["new"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn answers_that_are_none_are_named() {
    for answer in [
        "",
        "garbage\r\n\r\n",
        "220 smtp.example ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}}}}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        match error(answer) {
            Error::Lost(_) => assert_eq!(answer, ""),
            Error::Protocol(_) => assert_ne!(answer, ""),
            other => panic!("{other:?} to {answer:?}"),
        }
    }
}

#[test]
fn who_says_yes_to_everything_is_no_daemon() {
    type Ask = fn(&Client) -> Result<(), Error>;
    let asks: [(&str, Ask); 9] = [
        ("list", |client| client.list(&Default::default()).map(drop)),
        ("get", |client| client.get("x").map(drop)),
        ("start", |client| client.start("x").map(drop)),
        ("enable", |client| client.enable("x").map(drop)),
        ("delete", |client| client.delete("x").map(drop)),
        ("signal", |client| client.signal("x", "HUP").map(drop)),
        ("login", |client| client.login("x", "y").map(drop)),
        ("metrics", |client| client.metrics("x").map(drop)),
        ("system", |client| client.system_metrics().map(drop)),
    ];
    for body in ["null", "{}", "[1]", r#"{"status":"ok"}"#] {
        let impostor = Impostor::saying(whole(body));
        for (name, ask) in asks {
            let answer = ask(&impostor.client());
            assert!(
                matches!(answer, Err(Error::Protocol(_))),
                "{name}: {answer:?} to {body}"
            );
        }
    }
}

#[test]
fn answers_that_are_cut_off_are_lost() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for answer in [
        "HTTP/1.1 200".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n{}".to_owned(),
        format!("{chunked}2\r\n{{"),
        format!("{chunked}ffffffffffffffff\r\n{{}}"),
        format!("{chunked}2\r\n{{}}\r\n"),
        format!("{chunked}2\r\n{{}}\r\n0\r\n"),
    ] {
        let error = error(answer.as_str());
        assert!(matches!(error, Error::Lost(_)), "{error:?} to {answer:?}");
    }
}

#[test]
fn a_refusal_of_somebody_else_is_told_with_its_status() {
    let error = error("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>");
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.status, refusal.code.as_str()), (502, ""));
    assert!(error.to_string().contains("502"), "{error}");
}

/// Says the begin, and then this again and again until the client has enough.
fn endless(begin: &str, more: &str) -> Impostor {
    let (begin, more) = (begin.to_owned(), more.to_owned());
    Impostor::new(move |_, guest| {
        guest.request();
        guest.say(&begin);
        let more = more.repeat(16 * 1024 / more.len() + 1);
        while guest.say(&more) {}
    })
}

#[test]
fn answers_without_end_are_given_up() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let chunk = &format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
    for (begin, more) in [
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 OK\r\nX: ", "y"),
        ("HTTP/1.1 200 ", "O"),
        ("", "\r\n"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        (chunked, "1"),
        (chunked, chunk),
        (trailers, "X: y\r\n"),
        (huge, " "),
        ("HTTP/1.1 200 OK\r\n\r\n", " "),
        ("HTTP/1.1 500 Oh\r\n\r\n", " "),
    ] {
        let impostor = endless(begin, more);
        let error = impostor.client().system_metrics().unwrap_err();
        assert!(
            matches!(error, Error::Protocol(_)),
            "{error:?} to {begin:?} and {more:?}"
        );
    }
}

/// As long as a client waits here.
const SHORT: Duration = Duration::from_millis(200);

/// Given up in time; on a busy machine perhaps before it was asked.
fn is_late(error: &Error) -> bool {
    match error {
        Error::Timeout(patience) => *patience == SHORT,
        Error::CannotConnect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
        _ => false,
    }
}

#[test]
fn silence_is_waited_for_only_so_long() {
    for begin in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{",
    ] {
        let impostor = Impostor::new(move |_, guest| {
            guest.request();
            guest.say(begin);
            guest.wait();
        });
        let mut client = impostor.client();
        client.set_timeout(SHORT);
        let error = client.system_metrics().unwrap_err();
        assert!(is_late(&error), "{error:?}");
    }
}

#[test]
fn a_byte_now_and_then_does_not_prolong_it() {
    let impostor = Impostor::new(|_, guest| {
        guest.request();
        guest.say("HTTP/1.1 200 OK\r\nX: ");
        while guest.say("y") {
            thread::sleep(SHORT / 20);
        }
    });
    let mut client = impostor.client();
    client.set_timeout(SHORT);
    let begin = Instant::now();
    let error = client.stop("a", false).unwrap_err();
    assert!(is_late(&error), "{error:?}");
    assert!(begin.elapsed() >= SHORT);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_anew() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let impostor = Impostor::new(move |_, guest| {
        guest.request();
        guest.say(whole(r#"{"id":"program-1"}"#));
        guest.0.shutdown(Shutdown::Both).unwrap();
        count.fetch_add(1, Ordering::SeqCst);
    });
    let client = impostor.client();
    for number in 1..4 {
        client.create(&Definition::new("a", "b")).unwrap();
        until(|| closed.load(Ordering::SeqCst) == number);
    }
}

#[test]
fn a_connection_is_used_again() {
    let impostor = Impostor::new(|number, guest| {
        while guest.request().is_some() {
            guest.say(whole(&format!(r#"{{"id":"{number}","message":"Done"}}"#)));
        }
    });
    let client = impostor.client();
    for _ in 0..3 {
        assert_eq!(client.get("a").unwrap().id, "0");
        assert_eq!(client.start("a").unwrap().id, "0");
    }
    drop(client);
}

/// Answers one request a connection, and closes over the second one.
fn forgetful(asked: &Arc<AtomicUsize>) -> Impostor {
    let asked = Arc::clone(asked);
    Impostor::new(move |_, guest| {
        for answers in [true, false] {
            if guest.request().is_none() {
                return;
            }
            asked.fetch_add(1, Ordering::SeqCst);
            if answers {
                guest.say(whole(r#"{"id":"program-1","message":"Done"}"#));
            }
        }
    })
}

#[test]
fn a_change_whose_answer_is_lost_is_not_asked_for_again() {
    let asked = Arc::default();
    let impostor = forgetful(&asked);
    let client = impostor.client();
    client.start("a").unwrap();
    let error = client.start("a").unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    drop(client);
    drop(impostor);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_read_whose_answer_is_lost_is_asked_for_once_more() {
    let asked = Arc::default();
    let impostor = forgetful(&asked);
    let client = impostor.client();
    client.get("a").unwrap();
    client.get("a").unwrap();
    drop(client);
    drop(impostor);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn logs_that_are_none_end_in_an_error() {
    let ndjson = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (rest, is_lost) in [
        ("4\r\n{}\nx\r\n0\r\n\r\n", false),
        ("5\r\n{}\nx\n\r\n0\r\n\r\n", false),
        ("4\r\n{}\nx\r\n", true),
    ] {
        let impostor = Impostor::saying(format!("{ndjson}{rest}"));
        let entries = impostor.client().logs("a", &LogFilter::default()).unwrap();
        let entries: Vec<_> = entries.collect();
        assert_eq!(entries.len(), 2, "{rest:?}");
        assert_eq!(entries[0].as_ref().unwrap().message, "");
        match entries[1].as_ref().unwrap_err() {
            Error::Lost(_) => assert!(is_lost),
            Error::Protocol(_) => assert!(!is_lost),
            other => panic!("{other:?}"),
        }
    }
    let impostor = endless("HTTP/1.1 200 OK\r\n\r\n", "x");
    let mut entries = impostor
        .client()
        .follow("a", &LogFilter::default())
        .unwrap();
    assert!(matches!(entries.next(), Some(Err(Error::Protocol(_)))));
    assert!(entries.next().is_none());
    // Else the impostor would talk on.
    drop(entries);
}

#[test]
fn a_websocket_that_is_none_is_named() {
    let wrong_key = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n";
    for answer in [wrong_key, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
        let impostor = Impostor::saying(answer);
        let refused = impostor.client().events(&[], &[]).err();
        assert!(matches!(refused, Some(Error::Protocol(_))), "{refused:?}");
    }
}

/// Opens a WebSocket, takes the login, and says this.
fn websocket(frames: Vec<u8>) -> Impostor {
    Impostor::new(move |_, guest| {
        let request = guest.request().unwrap();
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = derive_accept_key(key.unwrap().as_bytes());
        guest.say(format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        guest.say(&frames);
        guest.wait();
    })
}

/// `{"type":"auth.ok"}`
const AUTH_OK: &[u8] = b"\x81\x12{\"type\":\"auth.ok\"}";

#[test]
fn events_that_are_none_end_in_an_error() {
    for frames in [
        &b"\x81\x01x"[..],
        b"\x82\x02{}",
        b"\x81\x7f\x3f\xff\xff\xff\xff\xff\xff\xff",
        b"\xf1\x02{}",
        b"\x83\x00",
        b"\x81\x01\xff",
    ] {
        let impostor = websocket([AUTH_OK, frames].concat());
        let mut events = impostor.client().events(&[], &[]).unwrap();
        let event = events.next();
        assert!(
            matches!(event, Some(Err(Error::Protocol(_)))),
            "{event:?} to {frames:?}"
        );
        assert!(events.next().is_none());
    }
}

#[test]
fn a_close_is_told_with_its_reason() {
    for (frames, expected) in [
        (&b"\x88\x06\x03\xe9stop"[..], (1001, "stop")),
        (b"\x88\x00", (1005, "no reason is given")),
    ] {
        let impostor = websocket([AUTH_OK, frames].concat());
        let mut events = impostor.client().events(&[], &[]).unwrap();
        match events.next() {
            Some(Err(Error::Closed { code, reason })) => {
                assert_eq!((code, reason.as_str()), expected);
            }
            other => panic!("{other:?}"),
        }
        drop(events);
    }
}

#[test]
fn fragments_and_pings_are_no_matter() {
    let ping: &[u8] = b"\x89\x02hi";
    let (begin, end) = (b"\x01\x08{\"type\":", b"\x80\x06\"new\"}");
    let impostor = websocket([AUTH_OK, ping, begin, ping, end].concat());
    let mut events = impostor.client().events(&[], &[]).unwrap();
    assert_eq!(events.next().unwrap().unwrap().kind, "new");
    drop(events);
}

#[test]
fn a_login_to_events_that_is_not_answered_is_given_up() {
    let impostor = websocket(Vec::new());
    let mut client = impostor.client();
    client.set_timeout(SHORT);
    let error = client.events(&[], &[]).err().unwrap();
    assert!(is_late(&error), "{error:?}");
}
