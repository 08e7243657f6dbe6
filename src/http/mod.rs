//! The wire: connections, requests, replies. Knows no program and no route.
//!
//! A [`Server`] reads and bounds requests by itself and hands each to a [`Service`]: first the head, to the gates; then,
//! once the body is there, the whole request with a [`Responder`], the right to answer it.
//!
//! ```text
//! listener -> table -> connection: request -> Service -> answer: reply -> back into the table | closed | a stream
//! ```
//!
//! A connection is a moved value. It rests in the table while it waits for the epoll set, and belongs to one worker, or
//! to the [`Responder`] of its request, while something is done with it: so no two threads ever meet on one.
//!
//! Of tiny_http this room takes the vocabulary, [`Method`] and the reason phrases. Its server must not face a network
//! (see the design), and its writer refuses the header Connection, which has to be said: `reply.rs` has our own.

mod answer;
mod connection;
mod listener;
mod reply;
mod request;
mod server;
mod service;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod websocket;
mod wire;

pub use answer::Responder;
pub use listener::{Listener, bind, bind_unix, listen_unix};
pub use server::Server;
pub use stream::{Control, End, Ended, Feed};
pub use tiny_http::Method;
pub use websocket::{Incoming, NotWebSocket, Over, WebSocket, Woken, upgrade};

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sys::socket::Credentials;

/// Bounds of the server; all but `workers` may change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub workers: usize,
    pub max_connections: usize,
    /// Feeds and WebSockets that may be open, each.
    pub max_streams: usize,
    pub request_timeout: Duration,
    /// Bytes; a larger body is answered 413.
    pub max_body: usize,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// As the kernel vouches for them (SO_PEERCRED).
    Unix(Credentials),
}

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: Method,
    /// The path as sent, percent-encoded, without the query.
    pub path: String,
    /// What follows `?`, as sent.
    pub query: Option<String>,
    /// Names in lower case, in the order sent. A value that is not UTF-8 is U+FFFD where it is not.
    pub headers: Vec<(String, String)>,
    /// HTTP/1.1, not 1.0.
    pub http_11: bool,
    pub peer: Peer,
}

impl Head {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A whole request.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
}

/// An answer, as a value.
pub struct Reply {
    pub status: u16,
    /// Without Content-Length, Connection, Date and Server, which are written by the wire.
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

/// What an answer carries.
pub enum Body {
    Bytes(Vec<u8>),
    /// Produced piece by piece as the client reads: sent chunked (HTTP/1.0: until the connection closes).
    Source(Box<dyn Source>),
    /// Without end: the connection leaves the workers, and a thread of its own (`hxe-stream-N`) sends as it likes. As
    /// chunks (HTTP/1.0: until the connection closes). To HEAD only the headers are sent.
    Feed(Box<dyn FnOnce(&mut Feed) + Send>),
    /// The same, behind the handshake that [`upgrade`] answers.
    WebSocket(Box<dyn FnOnce(WebSocket) + Send>),
}

/// Produces a long body in bounded memory.
pub trait Source: Send {
    /// Appends the next piece (some 16 to 64 KiB) to `out`; `false` once nothing is left.
    ///
    /// # Errors
    /// The answer is cut off: the connection closes before the body's end.
    fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool>;

    /// Bytes of memory that it takes as long as it is not through, if they are many: what waits for slow clients is
    /// bounded by their sum.
    fn held_bytes(&self) -> usize {
        0
    }
}

/// What the gates say of a request's head.
pub struct Verdict<P> {
    /// Put on whatever answer this request gets.
    pub headers: Vec<(&'static str, String)>,
    /// Go on with the body, or answer at once.
    pub outcome: Result<P, Reply>,
}

/// Why a request could not even be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// 400: the sentence says what is wrong.
    Malformed(&'static str),
    /// 408: not complete within `request_timeout`.
    Timeout,
    /// 411: Transfer-Encoding in a request.
    LengthRequired,
    /// 413: a body above `max_body`.
    BodyTooLarge,
    /// 431: a head above 8 KiB or with more than 64 headers.
    HeadTooLarge,
    /// 503: no thread or no descriptor for one more stream; a `Retry-After` is due.
    NoRoom,
    /// 503: as many connections as allowed wait for their answers; a `Retry-After` is due.
    Overloaded,
    /// 503: as many feeds as `max_streams` allows are open; a `Retry-After` is due.
    TooManyFeeds,
    /// 503: the same of WebSockets.
    TooManyWebSockets,
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

/// What answers requests. All calls come from worker threads; a panic in one is a 500.
pub trait Service: Send + Sync + 'static {
    /// What the gates found out, for `serve`.
    type Pass: Send;

    /// Looks at a head, before its body is read.
    fn gate(&self, head: &Head) -> Verdict<Self::Pass>;

    /// Answers a request that passed, at once or by moving the responder to whoever will.
    fn serve(&self, pass: Self::Pass, request: Request, responder: Responder);

    /// Headers for whatever answer a request with this head gets whose body cannot be read.
    fn headers(&self, head: &Head) -> Vec<(&'static str, String)>;

    /// The answer to what could not be read; with all its headers.
    fn problem(&self, problem: Problem, peer: &Peer) -> Reply;

    /// Hears of each answer as it is given.
    fn answered(&self, _status: u16) {}

    /// The answer where a handler panicked or dropped its responder.
    fn broken(&self) -> Reply;
}
