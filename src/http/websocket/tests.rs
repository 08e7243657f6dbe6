//! Drives WebSockets over real sockets: with tungstenite as the client, and with one that makes its frames by hand.

use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use rustix::net::sockopt;
use tungstenite::Message;

use super::*;
use crate::http::stream::tests::*;
use crate::http::{Limits, Server};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Serves what `run` does with each WebSocket.
fn serve(run: impl Fn(WebSocket) + Send + Sync + 'static) -> Running {
    let run = Arc::new(run);
    // One that is over may hold its place for a moment still, when a test goes on to the next.
    let limits = Limits {
        max_streams: 64,
        ..LIMITS
    };
    Running::with(limits, move |request| {
        let run = Arc::clone(&run);
        match upgrade(&request.head, move |socket| run(socket)) {
            Ok(reply) => reply,
            Err(error) => text(426, &format!("{error:?}")),
        }
    })
}

/// Sends back what it gets, until it is told to end.
fn echo(mut socket: WebSocket) {
    let bell = bell();
    while let Ok(Woken::Ready) = socket.wait(&bell, None) {
        if socket.ended().is_some() {
            return socket.close(1001, "going away");
        }
        while socket.has_room() {
            match socket.receive() {
                Ok(Some(Incoming::Text(text))) => {
                    if socket.send(text).is_err() {
                        return;
                    }
                }
                Ok(Some(Incoming::Binary)) => return socket.close(1003, "only text"),
                Ok(None) => break,
                Err(Over) => return,
            }
        }
    }
}

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame as clients send it, but for what is wrong with it.
#[derive(Clone, Debug)]
struct Frame {
    /// FIN, reserved bits, opcode.
    first: u8,
    masked: bool,
    payload: Vec<u8>,
}

fn frame(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
    Frame {
        first: 0x80 | opcode,
        masked: true,
        payload: payload.into(),
    }
}

impl Frame {
    /// More of the message follows.
    fn part(self) -> Frame {
        Frame {
            first: self.first & !0x80,
            ..self
        }
    }

    fn bytes(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let mask_bit = if self.masked { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.payload.len() {
            length @ 0..126 => bytes.push(mask_bit | length as u8),
            length @ 126..65536 => {
                bytes.push(mask_bit | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask_bit | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if self.masked {
            bytes.extend_from_slice(&MASK);
        }
        let mask = if self.masked { MASK } else { [0; 4] };
        bytes.extend(
            self.payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        bytes
    }
}

type Raw = Client<TcpStream>;

/// A client by hand, behind its handshake.
fn join(running: &Running) -> Raw {
    let mut client = running.ask(HANDSHAKE);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

impl Raw {
    fn give(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.bytes()).unwrap();
    }

    /// The next frame: opcode and payload.
    #[track_caller]
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.exactly(2);
        assert_eq!(head[0] & 0xf0, 0x80, "whole, and no extension");
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.exactly(2).try_into().unwrap()) as usize,
            127 => u64::from_be_bytes(self.exactly(8).try_into().unwrap()) as usize,
            length => length as usize,
        };
        (head[0] & 0x0f, self.exactly(length))
    }

    /// A close frame with this code, and then the end of the connection.
    #[track_caller]
    fn assert_closed_with(&mut self, code: u16) {
        let (opcode, payload) = self.frame();
        let reason = String::from_utf8_lossy(&payload[2..]).into_owned();
        assert_eq!(opcode, CLOSE, "{reason}");
        assert_eq!(payload[..2], code.to_be_bytes(), "{reason}");
        self.assert_closed();
    }

    #[track_caller]
    fn assert_pong(&mut self, payload: &[u8]) {
        assert_eq!(self.frame(), (PONG, payload.to_vec()));
    }
}

#[test]
fn messages_come_back_in_order() {
    let running = serve(echo);
    let stream = running.connect().stream;
    let url = format!("ws://{}/", running.address);
    let (mut client, _) = tungstenite::client(url, stream).unwrap();
    for number in 0..100 {
        client.send(Message::text(number.to_string())).unwrap();
    }
    for number in 0..100 {
        assert_eq!(client.read().unwrap(), Message::text(number.to_string()));
    }
    client.close(None).unwrap();
    while client.read().is_ok() {}
    running.until_all_have_ended();
}

#[test]
fn the_answer_to_the_handshake_is_an_answer_like_others() {
    let running = serve(echo);
    let head = running.ask(HANDSHAKE).head();
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    for line in [
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "X-Gate: seen\r\n",
        "Date: ",
        "Server: hxe/",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{line} in {head}");
    }
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"));
}

#[test]
fn frames_may_come_right_behind_the_handshake() {
    let running = serve(echo);
    let mut client = running.connect();
    let mut bytes = HANDSHAKE.as_bytes().to_vec();
    for text in ["one", "two"] {
        bytes.extend(frame(TEXT, text).bytes());
    }
    client.stream.write_all(&bytes).unwrap();
    client.head();
    assert_eq!(client.frame(), (TEXT, b"one".to_vec()));
    assert_eq!(client.frame(), (TEXT, b"two".to_vec()));
}

#[test]
fn websockets_go_over_unix_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let running = serve(echo);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = Server::start(
        vec![crate::http::Listener::Unix(listener)],
        LIMITS,
        running.service.clone(),
    )
    .unwrap();
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let (mut client, _) = tungstenite::client("ws://a/", stream).unwrap();
    client.send(Message::text("over unix")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("over unix"));
    server.shutdown(End::Shutdown);
}

#[test]
fn websockets_are_counted_on_their_own() {
    let feeds = bell();
    let running = Running::start(move |request| {
        let bell = Arc::clone(&feeds);
        match upgrade(&request.head, echo) {
            Ok(reply) => reply,
            Err(_) => feed(move |feed| assert!(feed.wait(&bell).is_err(), "its client leaves")),
        }
    });
    let _sockets: Vec<_> = (0..LIMITS.max_streams).map(|_| join(&running)).collect();
    let mut refused = running.ask(HANDSHAKE);
    assert!(refused.head().starts_with("HTTP/1.1 503"));
    assert_eq!(refused.exactly(17), b"TooManyWebSockets");
    // As a connection like any other it may still have something else.
    refused.send(&get("/"));
    assert!(refused.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_message_may_come_in_fragments_with_pings_in_between() {
    let running = serve(echo);
    let mut client = join(&running);
    // The second cut is inside of a character.
    client.give(&frame(TEXT, "caf").part());
    client.give(&frame(PING, "a"));
    client.give(&frame(0, [0xc3]).part());
    client.give(&frame(PING, "b"));
    client.give(&frame(0, [0xa9]));
    client.assert_pong(b"a");
    client.assert_pong(b"b");
    assert_eq!(client.frame(), (TEXT, "café".as_bytes().to_vec()));
}

#[test]
fn messages_may_be_16_kib_and_no_more() {
    let running = serve(echo);
    let longest = vec![b'x'; MAX_RECEIVED_BYTES];
    let mut client = join(&running);
    client.give(&frame(TEXT, &longest[..]));
    assert_eq!(client.frame(), (TEXT, longest.clone()));
    client.give(&frame(TEXT, &longest[..10_000]).part());
    client.give(&frame(0, &longest[10_000..]));
    assert_eq!(client.frame(), (TEXT, longest.clone()));

    client.give(&frame(TEXT, &longest[..10_000]).part());
    client.give(&frame(0, &longest[9_999..]));
    client.assert_closed_with(1009);
    for opcode in [TEXT, BINARY] {
        let mut client = join(&running);
        client.give(&frame(opcode, [&longest[..], b"x"].concat()));
        client.assert_closed_with(1009);
    }
    running.until_all_have_ended();
}

#[test]
fn a_length_beyond_all_bounds_is_refused_before_any_of_it_came() {
    let running = serve(echo);
    for length in [u64::MAX, 1 << 63, 1 << 32, 16_385] {
        let mut client = join(&running);
        let mut bytes = vec![0x81, 0xff];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0; 4]);
        client.stream.write_all(&bytes).unwrap();
        client.assert_closed_with(1009);
    }
}

#[test]
fn what_breaks_the_protocol_is_closed_with_1002() {
    let running = serve(echo);
    let unmasked = Frame {
        masked: false,
        ..frame(TEXT, "a")
    };
    let reserved = |bits| Frame {
        first: frame(TEXT, "").first | bits,
        ..frame(TEXT, "a")
    };
    for frames in [
        vec![unmasked],
        vec![reserved(0x40)],
        vec![reserved(0x20)],
        vec![reserved(0x10)],
        vec![frame(3, "a")],
        vec![frame(11, "a")],
        vec![frame(PING, "a").part()],
        vec![frame(PING, vec![b'a'; 126])],
        vec![frame(0, "continues nothing")],
        vec![frame(TEXT, "a").part(), frame(TEXT, "b")],
        vec![frame(CLOSE, [3])],
        vec![frame(CLOSE, 1005_u16.to_be_bytes())],
        vec![frame(CLOSE, 999_u16.to_be_bytes())],
    ] {
        let mut client = join(&running);
        for frame in &frames {
            client.give(frame);
        }
        client.assert_closed_with(1002);
    }
    running.until_all_have_ended();
}

#[test]
fn text_that_is_not_utf_8_is_closed_with_1007() {
    let running = serve(echo);
    for frames in [
        vec![frame(TEXT, [b'a', 0xff])],
        vec![frame(TEXT, [0xc3])],
        vec![frame(TEXT, [0xc3]).part(), frame(0, "a")],
        vec![frame(CLOSE, [0x03, 0xe8, 0xff])],
    ] {
        let mut client = join(&running);
        for frame in &frames {
            client.give(frame);
        }
        client.assert_closed_with(1007);
    }
}

#[test]
fn a_binary_message_is_told_as_one() {
    let running = serve(echo);
    let mut client = join(&running);
    client.give(&frame(BINARY, [0, 1, 2]));
    client.assert_closed_with(1003);
}

#[test]
fn a_client_that_closes_gets_its_code_back_and_the_connection_is_closed() {
    let running = serve(echo);
    for code in [1000_u16, 1001, 4000] {
        let mut client = join(&running);
        client.give(&frame(TEXT, "last"));
        client.give(&frame(CLOSE, [&code.to_be_bytes()[..], b"bye"].concat()));
        assert_eq!(client.frame(), (TEXT, b"last".to_vec()));
        client.assert_closed_with(code);
    }
    let mut client = join(&running);
    client.give(&frame(CLOSE, ""));
    assert_eq!(client.frame(), (CLOSE, Vec::new()));
    client.assert_closed();
    running.until_all_have_ended();
}

#[test]
fn a_client_that_vanishes_is_noticed_at_once() {
    let running = serve(echo);
    drop(join(&running));
    running.until_all_have_ended();
    let client = join(&running);
    sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
    drop(client);
    running.until_all_have_ended();
    let mut client = join(&running);
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.assert_closed();
    running.until_all_have_ended();
}

/// A WebSocket that a test holds itself; it ends with the test.
struct Held {
    running: Running,
    sockets: Receiver<WebSocket>,
}

impl Held {
    fn start() -> Held {
        let (sender, sockets) = mpsc::channel();
        let sender = Mutex::new(sender);
        let running = serve(move |socket| sender.lock().unwrap().send(socket).unwrap());
        Held { running, sockets }
    }

    fn join(&self) -> (Raw, WebSocket) {
        let client = join(&self.running);
        (client, self.sockets.recv_timeout(LONG).unwrap())
    }

    /// With a client that has not read, and is sent no more.
    fn blocked(&self) -> (Raw, WebSocket, usize) {
        let (client, mut socket) = self.join();
        let (mut sent, silent) = (0, bell());
        // The kernel finds more room for a while, although the client reads nothing.
        loop {
            while socket.has_room() {
                socket.send("x".repeat(60_000)).unwrap();
                sent += 1;
            }
            if socket.wait(&silent, soon()).unwrap() == Woken::TimedOut {
                return (client, socket, sent);
            }
        }
    }
}

fn long() -> Option<BootTime> {
    Some(BootTime::now() + LONG)
}

fn soon() -> Option<BootTime> {
    Some(BootTime::now() + Duration::from_millis(50))
}

#[test]
fn the_kernel_finds_dead_peers_and_bounds_what_it_keeps() {
    let held = Held::start();
    let (_client, socket) = held.join();
    let fd = socket.line().socket();
    assert!(sockopt::socket_keepalive(fd).unwrap());
    assert_eq!(sockopt::tcp_keepidle(fd).unwrap().as_secs(), 60);
    assert_eq!(sockopt::tcp_keepintvl(fd).unwrap().as_secs(), 15);
    assert_eq!(sockopt::tcp_keepcnt(fd).unwrap(), 4);
    assert_eq!(sockopt::tcp_user_timeout(fd).unwrap(), 120_000);
    // socket(7): the kernel doubles it.
    assert_eq!(sockopt::socket_send_buffer_size(fd).unwrap(), 128 * 1024);
}

#[test]
fn closing_says_why_and_waits_for_the_client() {
    let held = Held::start();
    let (mut client, socket) = held.join();
    // Sent before it knew: no reason to forget it.
    client.give(&frame(TEXT, "crossed"));
    client.give(&frame(PING, ""));
    let began = std::time::Instant::now();
    let closing = std::thread::spawn(move || socket.close(4401, "the session is over"));
    let (opcode, payload) = client.frame();
    assert_eq!(opcode, CLOSE);
    assert_eq!(
        payload,
        [&4401_u16.to_be_bytes()[..], b"the session is over"].concat()
    );
    // It waits for the answer, if this machine is not so slow that there was no time for one.
    let short = Some(Duration::from_millis(50));
    client.stream.set_read_timeout(short).unwrap();
    let waiting = client.more();
    assert!(
        waiting.is_err() || began.elapsed() >= PATIENCE,
        "{waiting:?}"
    );
    client.stream.set_read_timeout(Some(LONG)).unwrap();
    client.give(&frame(CLOSE, 4401_u16.to_be_bytes()));
    client.assert_closed();
    drop(client);
    closing.join().unwrap();
}

#[test]
fn closing_does_not_wait_for_ever() {
    let held = Held::start();
    // One that says nothing, one that does not even read, one that sends without end.
    let (mut silent, socket) = held.join();
    socket.close(1001, "");
    silent.assert_closed_with(1001);
    let (_deaf, socket, _) = held.blocked();
    socket.close(1001, "");
    let (client, socket) = held.join();
    let mut stream = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let frame = frame(TEXT, vec![b'x'; 10_000]).bytes();
        while stream.write_all(&frame).is_ok() {}
    });
    socket.close(1001, "");
    sending.join().unwrap();
}

#[test]
fn a_reason_that_is_too_long_is_cut_between_characters() {
    let held = Held::start();
    let (mut client, socket) = held.join();
    let closing = std::thread::spawn(move || socket.close(1008, &"é".repeat(100)));
    let (_, payload) = client.frame();
    assert_eq!(payload[2..], *"é".repeat(61).as_bytes());
    drop(client);
    closing.join().unwrap();
}

#[test]
fn what_is_dropped_without_a_word_or_in_a_panic_is_closed_with_1011() {
    let running = serve(|mut socket| {
        let bell = bell();
        while let Ok(Woken::Ready) = socket.wait(&bell, None) {
            match socket.receive() {
                Ok(Some(Incoming::Text(_))) => return,
                Ok(Some(Incoming::Binary)) => panic!("a WebSocket of the tests"),
                Ok(None) => {}
                Err(Over) => return,
            }
        }
    });
    for opcode in [TEXT, BINARY] {
        let mut client = join(&running);
        client.give(&frame(opcode, "a"));
        client.assert_closed_with(1011);
    }
    running.until_all_have_ended();
}

#[test]
fn shutdown_tells_websockets_to_end() {
    let running = serve(echo);
    let mut client = join(&running);
    let shutting = std::thread::spawn(move || {
        running.server.shutdown(End::Shutdown);
        assert_eq!(running.open(), 0);
    });
    client.assert_closed_with(1001);
    drop(client);
    shutting.join().unwrap();
}

#[test]
fn a_wait_ends_by_the_bell_which_is_hushed_by_a_message_or_in_time() {
    let held = Held::start();
    let (mut client, mut socket) = held.join();
    let bell = bell();
    assert_eq!(socket.wait(&bell, soon()).unwrap(), Woken::TimedOut);
    bell.ring();
    assert_eq!(socket.wait(&bell, None).unwrap(), Woken::Ready);
    assert_eq!(socket.receive().unwrap(), None);
    assert_eq!(socket.wait(&bell, soon()).unwrap(), Woken::TimedOut);
    client.give(&frame(TEXT, "a"));
    client.give(&frame(TEXT, "b"));
    assert_eq!(socket.wait(&bell, None).unwrap(), Woken::Ready);
    let text = |text: &str| Some(Incoming::Text(text.to_owned()));
    assert_eq!(socket.receive().unwrap(), text("a"));
    // Although nothing more comes: there may be more of what was read.
    assert_eq!(socket.wait(&bell, None).unwrap(), Woken::Ready);
    drop(client);
    while socket.wait(&bell, None).is_ok() && socket.receive().is_ok() {}
    assert!(socket.receive().is_err() && socket.send(String::new()).is_err());
    assert!(socket.wait(&bell, None).is_err(), "it is over for good");
}

#[test]
fn while_its_client_does_not_read_it_waits_for_room_and_not_for_the_bell() {
    let held = Held::start();
    let (mut client, mut socket, sent) = held.blocked();
    let bell = bell();
    bell.ring();
    client.give(&frame(TEXT, "held up"));
    assert_eq!(socket.wait(&bell, soon()).unwrap(), Woken::TimedOut);
    assert_eq!(socket.receive().unwrap(), None, "nothing is read of it");
    let reading = std::thread::spawn(move || {
        for _ in 0..sent {
            assert_eq!(client.frame(), (TEXT, vec![b'x'; 60_000]));
        }
        client
    });
    while !socket.has_room() {
        assert_eq!(socket.wait(&bell, None).unwrap(), Woken::Ready);
    }
    let client = reading.join().unwrap();
    assert_eq!(socket.wait(&bell, None).unwrap(), Woken::Ready);
    let text = Incoming::Text("held up".to_owned());
    assert_eq!(socket.receive().unwrap(), Some(text));
    drop(client);
}

#[test]
fn it_is_told_to_end_also_while_its_client_does_not_read() {
    let held = Held::start();
    let (client, mut socket, _) = held.blocked();
    let control = Arc::clone(socket.control());
    let ending = std::thread::spawn(move || control.end(End::Session));
    assert_eq!(socket.wait(&bell(), None).unwrap(), Woken::Ready);
    assert_eq!(socket.ended(), Some(End::Session));
    ending.join().unwrap();
    drop(client);
}

#[test]
fn a_client_that_leaves_without_having_read_is_noticed() {
    let held = Held::start();
    let (client, mut socket, _) = held.blocked();
    drop(client);
    assert!(socket.wait(&bell(), None).is_err());
    let (client, mut socket, _) = held.blocked();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(socket.wait(&bell(), long()).is_err());
}

#[test]
fn closing_still_reaches_a_client_that_was_slow() {
    let held = Held::start();
    let (mut client, socket, sent) = held.blocked();
    let closing = std::thread::spawn(move || socket.close(1013, "too slow"));
    for _ in 0..sent {
        assert_eq!(client.frame().0, TEXT);
    }
    client.assert_closed_with(1013);
    drop(client);
    closing.join().unwrap();
}

#[test]
fn a_message_beyond_all_bounds_is_a_mistake_of_ours() {
    let held = Held::start();
    let (mut client, mut socket) = held.join();
    let closing =
        std::thread::spawn(move || assert!(socket.send("x".repeat(MAX_UNSENT_BYTES)).is_err()));
    client.assert_closed_with(1011);
    drop(client);
    closing.join().unwrap();
}

#[test]
fn pings_without_end_neither_fill_memory_nor_keep_it_from_sending() {
    let held = Held::start();
    let (client, mut socket) = held.join();
    let mut stream = client.stream.try_clone().unwrap();
    let pings = frame(PING, vec![b'p'; 125]).bytes().repeat(100);
    let pinging = std::thread::spawn(move || while stream.write_all(&pings).is_ok() {});
    let bell = bell();
    // It gets a turn between pings, again and again, until the client, which reads no pong, has no room left.
    while socket.has_room() {
        socket.wait(&bell, None).unwrap();
        assert_eq!(socket.receive().unwrap(), None);
        assert!(socket.inner.get_ref().turn < TURN_BYTES, "it has read");
    }
    drop(client);
    drop(socket);
    pinging.join().unwrap();
}

#[test]
fn fragments_without_end_have_an_end() {
    let held = Held::start();
    let (client, mut socket) = held.join();
    let mut stream = client.stream.try_clone().unwrap();
    let begin = frame(TEXT, "").part().bytes();
    let more = frame(0, "").part().bytes().repeat(1000);
    let sending = std::thread::spawn(move || {
        stream.write_all(&begin).unwrap();
        while stream.write_all(&more).is_ok() {}
    });
    let bell = bell();
    for _ in 0..20 {
        assert_eq!(socket.wait(&bell, None).unwrap(), Woken::Ready);
        assert_eq!(socket.receive().unwrap(), None);
    }
    drop(socket);
    drop(client);
    sending.join().unwrap();
}

#[test]
fn websockets_leave_nothing_behind_however_they_end() {
    if !alone("http::websocket::tests::websockets_leave_nothing_behind_however_they_end") {
        return;
    }
    let running = serve(echo);
    let before = resources();
    for number in 0..200 {
        let mut client = join(&running);
        match number % 6 {
            0 => {}
            1 => {
                sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
                client.give(&frame(TEXT, "a"));
            }
            2 => {
                client.give(&frame(CLOSE, ""));
                client.frame();
            }
            3 => client.give(&frame(3, "wrong")),
            4 => client.stream.write_all(b"\x81").unwrap(),
            _ => {
                // Does not wait for what it asks for.
                let flood = frame(TEXT, vec![b'x'; 16_000]).bytes();
                for _ in 0..10 {
                    client.stream.write_all(&flood).unwrap();
                }
            }
        }
        drop(client);
        running.until_all_have_ended();
    }
    until(|| resources() == before);
}

/// Sends these bytes in pieces of these lengths, and gives all that comes back.
fn converse(running: &Running, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut client = join(running);
    let mut rest = bytes;
    for cut in cuts {
        let (piece, more) = rest.split_at(rest.len().min(*cut));
        rest = more;
        // It may have seen enough before.
        if client.stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = client.stream.write_all(rest);
    let _ = client.stream.shutdown(Shutdown::Write);
    // A reset may take away what was not read yet, but there is an end.
    while client.more().is_ok_and(|count| count > 0) {}
    running.until_all_have_ended();
    client.read
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<char>(), 0..300)
        .prop_map(|text| text.into_iter().collect::<String>().into_bytes())
}

#[test]
fn random_bytes_have_an_orderly_end() {
    let running = serve(echo);
    proptest!(ProptestConfig::with_cases(64), |(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        cuts in proptest::collection::vec(1..200_usize, 0..5),
    )| {
        converse(&running, &bytes, &cuts);
    });
}

#[test]
fn valid_frames_come_through_however_they_are_cut() {
    let running = serve(echo);
    proptest!(ProptestConfig::with_cases(64), |(
        messages in proptest::collection::vec((any_text(), 0..300_usize), 0..10),
        cuts in proptest::collection::vec(1..300_usize, 0..20),
    )| {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (text, cut) in messages {
            let (first, second) = text.split_at(text.len().min(cut));
            bytes.extend(frame(TEXT, first).part().bytes());
            bytes.extend(frame(PONG, "nobody asked").bytes());
            bytes.extend(frame(0, second).bytes());
            let unmasked = Frame { masked: false, ..frame(TEXT, text) };
            expected.extend(unmasked.bytes());
        }
        bytes.extend(frame(CLOSE, "").bytes());
        expected.extend([0x88, 0]);
        prop_assert_eq!(converse(&running, &bytes, &cuts), expected);
    });
}

#[test]
fn mutated_frames_have_an_orderly_end() {
    let running = serve(echo);
    proptest!(ProptestConfig::with_cases(64), |(
        messages in proptest::collection::vec((0..16_u8, any_text()), 1..10),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..5),
        cuts in proptest::collection::vec(1..300_usize, 0..5),
    )| {
        let mut bytes: Vec<u8> = messages
            .into_iter()
            .flat_map(|(opcode, text)| frame(opcode, text).bytes())
            .collect();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        converse(&running, &bytes, &cuts);
    });
}
