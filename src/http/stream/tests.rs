//! Drives feeds over real sockets, and holds what the tests of WebSockets need, too: a server that answers as a test says,
//! and clients without manners.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::http::{
    Body, Head, Limits, Listener, Peer, Reply, Request, Responder, Server, Service, Verdict, bind,
};

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

struct Told(Answering);

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
        let server = Server::start(vec![Listener::Tcp(listener)], limits, service).unwrap();
        Running {
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
