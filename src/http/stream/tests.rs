//! Drives feeds over real sockets, and holds what the tests of WebSockets need, too: a server that answers as a test says,
//! and clients without manners.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;
use crate::http::{
    Body, Head, Limits, Listener, Peer, Reply, Request, Responder, Server, Service, Verdict, bind,
};
use crate::sys::process;

/// Longer than anything here should take, shorter than patience.
pub const LONG: Duration = Duration::from_secs(20);

pub const LIMITS: Limits = Limits {
    workers: 2,
    max_connections: 64,
    max_streams: 4,
    request_timeout: LONG,
    max_body: 1000,
};

/// Answers as a test says.
type Answering = Box<dyn Fn(Request) -> Reply + Send + Sync>;

pub struct Told(Answering);

impl Service for Told {
    type Pass = ();

    fn gate(&self, _head: &Head) -> Verdict<()> {
        Verdict {
            headers: vec![("X-Gate", "seen".to_owned())],
            outcome: Ok(()),
        }
    }

    fn serve(&self, (): (), request: Request, responder: Responder) {
        responder.respond((self.0)(request));
    }

    fn headers(&self, _head: &Head) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn problem(&self, problem: Problem, _peer: &Peer) -> Reply {
        text(503, &format!("{problem:?}"))
    }

    fn broken(&self) -> Reply {
        text(500, "broken")
    }
}

pub fn text(status: u16, text: &str) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: Body::Bytes(text.as_bytes().to_vec()),
    }
}

pub fn feed(run: impl FnOnce(&mut Feed) + Send + 'static) -> Reply {
    Reply {
        status: 200,
        headers: vec![("Content-Type", "text/plain".to_owned())],
        body: Body::Feed(Box::new(run)),
    }
}

pub struct Running {
    pub server: Server,
    pub address: SocketAddr,
    pub streams: Arc<Streams>,
    pub service: Arc<Told>,
}

impl Running {
    pub fn start(answer: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Running {
        Running::with(LIMITS, answer)
    }

    pub fn with(
        limits: Limits,
        answer: impl Fn(Request) -> Reply + Send + Sync + 'static,
    ) -> Running {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Told(Box::new(answer)));
        let listeners = vec![Listener::Tcp(listener)];
        let server = Server::start(listeners, limits, Arc::clone(&service)).unwrap();
        Running {
            service,
            streams: server.streams(),
            server,
            address,
        }
    }

    pub fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            read: Vec::new(),
        }
    }

    /// A client that has sent this request.
    pub fn ask(&self, request: &str) -> Client<TcpStream> {
        let mut client = self.connect();
        client.send(request);
        client
    }

    pub fn open(&self) -> usize {
        self.streams.lock().open.len()
    }

    pub fn until_all_have_ended(&self) {
        until(|| self.open() == 0);
    }
}

pub struct Client<S> {
    pub stream: S,
    /// Read, and not yet taken.
    pub read: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    pub fn more(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 65536];
        let count = self.stream.read(&mut bytes)?;
        self.read.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Takes what is read up to and with `end`.
    #[track_caller]
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|bytes| bytes == end) {
                let rest = self.read.split_off(at + end.len());
                return std::mem::replace(&mut self.read, rest);
            }
            assert!(
                self.more().unwrap() > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Status line and headers.
    #[track_caller]
    pub fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n")).unwrap()
    }

    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().unwrap() > 0, "closed too early");
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    /// All that comes until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().unwrap() > 0 {}
        std::mem::take(&mut self.read)
    }

    /// The server closed, and there was no more to read. A reset counts: what was not read may be thrown away.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        match self.more() {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

/// Never rings unless told to.
pub fn bell() -> Arc<Bell> {
    Arc::new(Bell::new().unwrap())
}

/// Runs the rest of a test in a process of its own, where nothing else opens descriptors or starts threads. `false` for the
/// caller of that process, for which the test is over then.
#[track_caller]
pub fn alone(test: &str) -> bool {
    const MARK: &str = "HXE_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("1 passed"), "there is no test {test}: {said}");
    false
}

/// Open descriptors and threads of this process.
pub fn resources() -> (usize, usize) {
    let count = |dir| std::fs::read_dir(dir).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// A feed that a test speaks through: it sends what it is given, and says how it ended.
struct Puppet {
    running: Running,
    bell: Arc<Bell>,
    /// What to send, once the bell rings.
    pieces: Arc<Mutex<Vec<Vec<u8>>>>,
    controls: Receiver<Arc<Control>>,
    /// Feeds that saw that they were over.
    ended: Receiver<()>,
}

impl Puppet {
    fn start() -> Puppet {
        Puppet::until(None)
    }

    /// Its feeds end after this time.
    fn until(span: Option<Duration>) -> Puppet {
        let bell = bell();
        let pieces = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let (control, controls) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (ours, all) = (Arc::clone(&bell), Arc::clone(&pieces));
        let channels = Mutex::new((control, end));
        let running = Running::start(move |_| {
            let (bell, pieces) = (Arc::clone(&ours), Arc::clone(&all));
            let (control, end) = channels.lock().unwrap().clone();
            feed(move |feed| {
                if let Some(span) = span {
                    feed.end_at(BootTime::now() + span);
                }
                control.send(Arc::clone(feed.control())).unwrap();
                loop {
                    for piece in std::mem::take(&mut *pieces.lock().unwrap()) {
                        if feed.send(&piece).is_err() {
                            return end.send(()).unwrap();
                        }
                    }
                    if feed.wait(&bell).is_err() {
                        return end.send(()).unwrap();
                    }
                }
            })
        });
        Puppet {
            running,
            bell,
            pieces,
            controls,
            ended,
        }
    }

    /// A client whose feed has begun, and what ends it.
    fn begin(&self) -> (Client<TcpStream>, Arc<Control>) {
        let mut client = self.running.ask(&get("/"));
        client.head();
        (client, self.control())
    }

    fn control(&self) -> Arc<Control> {
        self.controls.recv_timeout(LONG).unwrap()
    }

    fn send(&self, piece: impl Into<Vec<u8>>) {
        self.pieces.lock().unwrap().push(piece.into());
        self.bell.ring();
    }

    #[track_caller]
    fn assert_ends(&self) {
        self.ended.recv_timeout(LONG).unwrap();
        self.running.until_all_have_ended();
    }
}

/// More than all buffers on the way take.
const FLOOD: usize = 32 << 20;

#[test]
fn a_feed_is_sent_in_chunks_as_it_comes() {
    let bell = bell();
    let ours = Arc::clone(&bell);
    let running = Running::start(move |_| {
        let bell = Arc::clone(&ours);
        feed(move |feed| {
            feed.send(b"first").unwrap();
            feed.send(b"").unwrap();
            feed.wait(&bell).unwrap();
            feed.send(b"second").unwrap();
        })
    });
    let mut client = running.ask(&get("/"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in [
        "Transfer-Encoding: chunked",
        "Connection: close",
        "X-Gate: seen",
        "Content-Type: text/plain",
        "Date: ",
        "Server: hxe/",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{line} in {head}");
    }
    assert_eq!(client.exactly(10), b"5\r\nfirst\r\n");
    bell.ring();
    assert_eq!(client.rest(), b"6\r\nsecond\r\n0\r\n\r\n");
    running.until_all_have_ended();
}

#[test]
fn to_an_old_client_a_feed_is_sent_until_it_closes() {
    let running = Running::start(|_| {
        feed(|feed| {
            feed.send(b"one ").unwrap();
            feed.send(b"two").unwrap();
        })
    });
    let mut client = running.ask("GET / HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"));
    assert_eq!(client.rest(), b"one two");
}

#[test]
fn head_gets_the_headers_of_a_feed_and_no_feed() {
    let running = Running::start(|request| match request.head.path.as_str() {
        "/feed" => feed(|_| unreachable!("HEAD asks for no feed")),
        _ => text(200, "next"),
    });
    let mut client = running.ask("HEAD /feed HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert!(
        head.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{head}"
    );
    assert!(!head.contains("Connection: close"), "{head}");
    assert_eq!(running.open(), 0);
    client.send(&get("/next"));
    client.head();
    assert_eq!(client.exactly(4), b"next");
}

#[test]
fn a_feed_may_be_asked_for_behind_other_requests() {
    let running = Running::start(|request| match request.head.path.as_str() {
        "/feed" => feed(|feed| feed.send(b"piece").unwrap()),
        path => text(200, path),
    });
    let mut client = running.ask(&format!("{}{}", get("/a"), get("/feed")));
    client.head();
    assert_eq!(client.exactly(2), b"/a");
    client.head();
    assert_eq!(client.rest(), b"5\r\npiece\r\n0\r\n\r\n");
}

#[test]
fn feeds_go_over_unix_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
    let bell = bell();
    let ours = Arc::clone(&bell);
    let answer = move |_| {
        let bell = Arc::clone(&ours);
        feed(move |feed| {
            feed.send(b"piece").unwrap();
            assert!(feed.wait(&bell).is_err(), "its client leaves");
        })
    };
    let service = Arc::new(Told(Box::new(answer)));
    let server = Server::start(vec![listener], LIMITS, service).unwrap();
    let mut client = Client {
        stream: UnixStream::connect(&path).unwrap(),
        read: Vec::new(),
    };
    client.stream.set_read_timeout(Some(LONG)).unwrap();
    client.send(&get("/"));
    client.head();
    assert_eq!(client.exactly(10), b"5\r\npiece\r\n");
    drop(client);
    until(|| server.streams().lock().open.is_empty());
}

#[test]
fn above_their_number_feeds_are_refused_and_the_connection_goes_on() {
    let puppet = Puppet::start();
    let running = &puppet.running;
    let open: Vec<_> = (0..LIMITS.max_streams).map(|_| puppet.begin()).collect();
    let mut client = running.ask(&get("/"));
    for _ in 0..2 {
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(head.contains("\r\nX-Gate: seen\r\n"), "{head}");
        assert_eq!(client.exactly(12), b"TooManyFeeds");
        client.send(&get("/"));
    }
    client.head();
    client.exactly(12);
    drop(open);
    running.until_all_have_ended();
    client.send(&get("/"));
    assert!(client.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn feeds_that_are_open_stay_when_fewer_are_allowed() {
    let puppet = Puppet::start();
    let (mut client, _control) = puppet.begin();
    puppet.running.server.set_limits(Limits {
        max_streams: 0,
        ..LIMITS
    });
    let mut refused = puppet.running.ask(&get("/"));
    assert!(refused.head().starts_with("HTTP/1.1 503"));
    puppet.send("still here");
    client.until(b"still here");
    puppet.running.server.set_limits(LIMITS);
    refused.exactly(12);
    refused.send(&get("/"));
    assert!(refused.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_stream_takes_no_place_among_the_connections() {
    let limits = Limits {
        max_connections: 1,
        ..LIMITS
    };
    let bell = bell();
    let ours = Arc::clone(&bell);
    let running = Running::with(limits, move |_| {
        let bell = Arc::clone(&ours);
        feed(move |feed| {
            let _ = feed.wait(&bell);
        })
    });
    let _clients = [(); 3].map(|()| {
        let mut client = running.ask(&get("/"));
        assert!(client.head().starts_with("HTTP/1.1 200"));
        client
    });
    assert_eq!(running.open(), 3);
}

#[test]
fn a_client_that_leaves_an_idle_feed_is_noticed_at_once() {
    let puppet = Puppet::start();
    let (client, _) = puppet.begin();
    drop(client);
    puppet.assert_ends();
    let (client, _) = puppet.begin();
    sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
    drop(client);
    puppet.assert_ends();
    let (mut client, _) = puppet.begin();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"0\r\n\r\n");
    puppet.assert_ends();
}

#[test]
fn a_client_that_leaves_while_it_is_sent_to_is_noticed() {
    for reset in [false, true] {
        let puppet = Puppet::start();
        let (client, _) = puppet.begin();
        puppet.send(vec![b'x'; FLOOD]);
        if reset {
            sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        puppet.assert_ends();
    }
}

#[test]
fn a_client_that_has_said_all_gets_what_there_is() {
    let puppet = Puppet::start();
    puppet.send("all there is");
    let mut client = puppet.running.connect();
    client.send(&get("/"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.rest(), b"c\r\nall there is\r\n0\r\n\r\n");
    puppet.assert_ends();
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let puppet = Puppet::start();
    let (mut client, control) = puppet.begin();
    puppet.send(vec![b'x'; FLOOD]);
    client.until(b"2000000\r\n");
    let piece = client.exactly(FLOOD);
    assert!(piece.iter().all(|byte| *byte == b'x'));
    client.until(b"\r\n");
    control.end(End::Session);
    assert_eq!(client.rest(), b"0\r\n\r\n");
    puppet.assert_ends();
}

#[test]
fn an_idle_feed_that_is_told_to_end_is_whole() {
    let puppet = Puppet::start();
    let (mut client, control) = puppet.begin();
    puppet.send("piece");
    client.until(b"5\r\npiece\r\n");
    control.end(End::Session);
    assert_eq!(client.rest(), b"0\r\n\r\n");
    puppet.assert_ends();
}

#[test]
fn a_feed_that_waits_for_its_client_ends_when_told_and_in_the_middle() {
    let puppet = Puppet::start();
    let (mut client, control) = puppet.begin();
    puppet.send(vec![b'x'; FLOOD]);
    client.until(b"2000000\r\n");
    control.end(End::Session);
    puppet.assert_ends();
    let all = client.rest();
    assert!(all.len() < FLOOD);
    assert!(all.iter().all(|byte| *byte == b'x'), "nothing is behind it");
}

#[test]
fn an_idle_feed_ends_in_time_and_is_whole() {
    let puppet = Puppet::until(Some(Duration::from_millis(50)));
    let (mut client, _) = puppet.begin();
    puppet.assert_ends();
    assert_eq!(client.rest(), b"0\r\n\r\n");
}

#[test]
fn a_feed_that_waits_for_its_client_ends_in_time() {
    let puppet = Puppet::until(Some(Duration::from_millis(50)));
    let (_client, _) = puppet.begin();
    puppet.send(vec![b'x'; FLOOD]);
    puppet.assert_ends();
}

#[test]
fn the_first_reason_to_end_counts_and_may_come_before_the_stream() {
    let streams = Arc::new(Streams::default());
    let berth = streams.claim(Kind::Feed, 1).ok().unwrap();
    berth.control().end(End::Session);
    streams.close(End::Shutdown);
    assert_eq!(berth.control().ended(), Some(End::Session));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let control = Arc::clone(berth.control());
    let line = Line::new(ours.into(), false, Bell::new().unwrap(), control);
    assert!(line.wait(PollFlags::IN, None, None).told);
}

#[test]
fn a_control_kept_for_longer_than_its_stream_keeps_no_descriptor() {
    let puppet = Puppet::start();
    let (client, control) = puppet.begin();
    assert!(control.lock().bell.upgrade().is_some());
    drop(client);
    puppet.assert_ends();
    assert!(control.lock().bell.upgrade().is_none());
    control.end(End::Session);
}

#[test]
fn a_client_may_say_a_little_to_a_feed_but_not_go_on_and_on() {
    let puppet = Puppet::start();
    let (mut client, _control) = puppet.begin();
    client.send(&get("/next").repeat(10));
    puppet.send("piece");
    client.until(b"5\r\npiece\r\n");
    // More than would go away by itself into buffers: so it is the feed that ends this.
    while client.stream.write_all(&[b'x'; 65536]).is_ok() {}
    puppet.assert_ends();
}

#[test]
fn a_client_sees_the_end_of_a_feed_whatever_it_has_sent_meanwhile() {
    let (sent, go) = mpsc::channel();
    let go = Arc::new(Mutex::new(go));
    let running = Running::start(move |_| {
        let go = Arc::clone(&go);
        feed(move |feed| {
            go.lock().unwrap().recv_timeout(LONG).unwrap();
            feed.send(b"piece").unwrap();
        })
    });
    let mut client = running.ask(&get("/"));
    client.head();
    client.send(&get("/next").repeat(100));
    sent.send(()).unwrap();
    assert_eq!(client.rest(), b"5\r\npiece\r\n0\r\n\r\n");
    let _ = client.stream.shutdown(Shutdown::Write);
    running.until_all_have_ended();
    // A reset could have taken it away again.
    assert!(client.stream.take_error().unwrap().is_none());
}

#[test]
fn a_feed_that_panics_ends_and_is_not_whole() {
    let running = Running::start(|request| match request.head.path.as_str() {
        "/feed" => feed(|feed| {
            feed.send(b"piece").unwrap();
            panic!("a feed of the tests");
        }),
        _ => text(200, "next"),
    });
    let mut client = running.ask(&get("/feed"));
    client.head();
    assert_eq!(client.rest(), b"5\r\npiece\r\n");
    running.until_all_have_ended();
    running.ask(&get("/next")).until(b"next");
}

#[test]
fn shutdown_tells_streams_to_end_and_waits_for_them() {
    let puppet = Puppet::start();
    let (mut idle, control) = puppet.begin();
    let (_blocked, _control) = {
        let both = puppet.begin();
        puppet.send(vec![b'x'; FLOOD]);
        both
    };
    puppet.running.server.shutdown(End::Shutdown);
    assert_eq!(puppet.running.open(), 0);
    assert_eq!(control.ended(), Some(End::Shutdown));
    idle.rest();
}

#[test]
fn no_stream_begins_once_the_server_shuts_down() {
    let streams = Arc::new(Streams::default());
    streams.close(End::Shutdown);
    let refused = streams.claim(Kind::Feed, 1).err();
    assert_eq!(refused, Some(Problem::NoRoom));
}

#[test]
fn numbers_of_threads_begin_anew_before_names_become_too_long() {
    let streams = Arc::new(Streams::default());
    let number = |_| streams.claim(Kind::Feed, 1).ok().unwrap().number;
    let numbers: Vec<_> = (0..NUMBERS + 2).map(number).collect();
    assert_eq!(numbers[..2], [0, 1]);
    assert_eq!(numbers[NUMBERS as usize - 1..], [NUMBERS - 1, 0, 1]);
    assert!(format!("hxe-stream-{}", NUMBERS - 1).len() <= 15);
}

#[test]
fn streams_leave_nothing_behind_however_they_end() {
    if !alone("http::stream::tests::streams_leave_nothing_behind_however_they_end") {
        return;
    }
    let puppet = Puppet::start();
    let before = resources();
    let mut controls = Vec::new();
    for number in 0..200 {
        let (mut client, control) = puppet.begin();
        match number % 5 {
            0 => {}
            1 => control.end(End::Session),
            2 => client.stream.shutdown(Shutdown::Write).unwrap(),
            3 => sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap(),
            _ => {
                puppet.send(vec![b'x'; FLOOD]);
                client.more().unwrap();
                control.end(End::Session);
            }
        }
        controls.push(control);
        drop(client);
        puppet.assert_ends();
    }
    until(|| resources() == before);
}

#[test]
fn a_stream_sleeps_until_there_is_something_to_do() {
    if !alone("http::stream::tests::a_stream_sleeps_until_there_is_something_to_do") {
        return;
    }
    let puppet = Puppet::start();
    let (_client, _control) = puppet.begin();
    let thread = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = std::fs::read_to_string(path.join("comm")).unwrap();
            name.starts_with("hxe-stream-")
        })
        .unwrap();
    let status = || std::fs::read_to_string(thread.join("status")).unwrap();
    until(|| status().contains("State:\tS"));
    let switches = || {
        let status = status();
        let line = |name| {
            status
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        (
            line("voluntary_ctxt_switches"),
            line("nonvoluntary_ctxt_switches"),
        )
    };
    let before = switches();
    for _ in 0..100 {
        // Refused: the server is busy, and the stream is not.
        let mut other = puppet.running.ask("GET / HTTP/2.0\r\n\r\n");
        other.head();
    }
    assert_eq!(switches(), before);
    let stat = std::fs::read_to_string(thread.join("stat")).unwrap();
    let nice = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(16)
        .unwrap();
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own = own.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap();
    assert_eq!(
        nice.parse::<i32>().unwrap(),
        (own.parse::<i32>().unwrap() + NICENESS).min(19)
    );
}

/// From here on the last descriptors begin at 32.
fn limit_descriptors() {
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Takes all descriptors but the last.
fn fill_descriptors() -> Vec<std::fs::File> {
    (0..64)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .take_while(|file| !process::is_of_the_last(file))
        .collect()
}

/// `/feed` is one that waits for ever. With one worker, a connection is idle before another is answered.
fn serve_one_by_one() -> Running {
    let limits = Limits {
        workers: 1,
        ..LIMITS
    };
    Running::with(limits, |request| match request.head.path.as_str() {
        "/feed" => {
            let bell = bell();
            feed(move |feed| assert!(feed.wait(&bell).is_err(), "its client leaves"))
        }
        path => text(200, path),
    })
}

/// A connection that has been idle, and has an answer.
fn known(running: &Running) -> Client<TcpStream> {
    let mut client = running.connect();
    for _ in 0..2 {
        client.send(&get("/here"));
        client.until(b"/here");
    }
    client
}

#[track_caller]
fn assert_no_room(client: &mut Client<TcpStream>) {
    assert!(client.head().starts_with("HTTP/1.1 503"));
    assert_eq!(client.exactly(6), b"NoRoom");
}

#[test]
fn a_bell_of_the_last_descriptors_is_not_for_streams() {
    if !alone("http::stream::tests::a_bell_of_the_last_descriptors_is_not_for_streams") {
        return;
    }
    let running = serve_one_by_one();
    let [mut idle, mut lucky, mut unlucky] = [(); 3].map(|()| known(&running));
    limit_descriptors();
    // One is left for the bell that the answer brings with it, and none for the stream's own.
    let mut files = fill_descriptors();
    files.pop();
    lucky.send(&get("/feed"));
    assert!(lucky.head().starts_with("HTTP/1.1 200"));
    idle.assert_closed();
    files.extend(fill_descriptors());
    unlucky.send(&get("/feed"));
    assert_no_room(&mut unlucky);
    assert_eq!(running.open(), 1);
    drop(files);
    unlucky.send(&get("/feed"));
    assert!(unlucky.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_socket_of_the_last_descriptors_is_not_for_streams() {
    if !alone("http::stream::tests::a_socket_of_the_last_descriptors_is_not_for_streams") {
        return;
    }
    let running = serve_one_by_one();
    limit_descriptors();
    let mut files = fill_descriptors();
    let mut client = known(&running);
    client.send(&get("/feed"));
    assert_no_room(&mut client);
    // For both ends of another connection, the bell that the answer brings with it, and the stream's own; for the stream's
    // socket there is room only in place of that connection's.
    files.truncate(files.len() - 4);
    let mut idle = known(&running);
    client.send(&get("/feed"));
    assert!(client.head().starts_with("HTTP/1.1 200"));
    idle.assert_closed();
}

#[test]
fn the_workers_wait_no_longer_for_what_has_become_a_stream() {
    if !alone("http::stream::tests::the_workers_wait_no_longer_for_what_has_become_a_stream") {
        return;
    }
    let running = serve_one_by_one();
    let mut client = known(&running);
    let watched = || {
        std::fs::read_dir("/proc/self/fdinfo")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
            .map(|info| info.matches("tfd:").count())
            .sum::<usize>()
    };
    // The timer and the listener are there, too.
    assert_eq!(watched(), 3);
    client.send(&get("/feed"));
    client.head();
    assert_eq!(watched(), 2);
}
