//! The Rust client: one method an endpoint, typed errors, logs and events as iterators. No async.
//!
//! A [`Client`] knows where the daemon is and holds a token, if it has one. Its methods take `&self`: threads may share
//! it, and each request takes a connection that is idle or opens one. Nothing that changes something is sent twice: where
//! the connection breaks, [`Error::Lost`] leaves to the caller whether to look first.
//!
//! ```standalone_crate
//! # let daemon = hxe::example::daemon()?;
//! # let socket = &daemon.socket;
//! use hxe::client::{Client, Definition, Error, ListFilter, LogFilter};
//!
//! let client = Client::local(socket); // "/run/hxe/hxe.sock"
//! client.create(&Definition {
//!     args: "-c 'echo ready; exec sleep 1000'".to_owned(),
//!     auto_restart: true,
//!     ..Definition::new("web", "/bin/sh")
//! })?;
//! let started = client.start("web")?;
//! assert_eq!(started.status, "running");
//! assert!(matches!(client.start("web"), Err(Error::InvalidState(_))));
//!
//! for program in client.list(&ListFilter::default())? {
//!     println!("{} {} {:?}", program.name(), program.state, program.pid);
//! }
//! for entry in client.logs("web", &LogFilter::default())? {
//!     println!("{}", entry?.message);
//! }
//! client.stop("web", false)?;
//! client.delete("web")?;
//! assert!(matches!(client.get("web"), Err(Error::NotFound(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `place` is where the daemon is, `socket` a socket with a deadline, `connection` HTTP over it, `endpoints` the methods,
//! `entries` and `events` what comes piece by piece, `wire` what answers hold. The client sees no other room.

mod connection;
mod endpoints;
mod entries;
mod error;
mod events;
mod output;
mod place;
mod socket;
mod wire;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use endpoints::ListFilter;
pub use entries::{Entries, LogFilter};
pub use error::{Error, Refusal};
pub use events::Events;
pub use output::Output;
pub use place::listens;
pub use serde_json::Value;
pub use wire::{
    Definition, Event, Exit, History, LogEntry, Metrics, Outcome, Program, ProgramHistory,
    SystemMetrics, Token,
};

use connection::{Connection, Failure, Head};
use place::Place;
use socket::Socket;

/// How long an answer may take where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same of requests that are answered when a program has ended: the longest `stop_timeout` that there is, and a little.
const LONG_PATIENCE: Duration = Duration::from_secs(24 * 3600 + 60);
/// Bytes of an answer that is taken as a whole: some 10,000 programs.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Bytes of the answer to what was refused.
const MAX_REFUSAL: usize = 64 * 1024;

/// By this the daemon knows that it is not just anybody.
const AGENT: &str = concat!("User-Agent: hxe/", env!("CARGO_PKG_VERSION"), "\r\n");

/// A daemon, as a client sees it.
pub struct Client {
    place: Place,
    timeout: Option<Duration>,
    token: Mutex<Option<String>>,
    /// A connection whose last answer was read to its end.
    idle: Mutex<Option<Connection>>,
}

/// What is asked.
struct Request<'a> {
    method: &'static str,
    /// `/api`, or nothing where it is not of the API.
    base: &'static str,
    /// Below that, with the query.
    path: &'a str,
    body: Option<&'a Value>,
    /// Whole lines, each with its end.
    headers: &'a str,
    patience: Duration,
}

impl Client {
    /// The daemon at `http://HOST:PORT`, or at a Unix socket: `unix:/run/hxe/hxe.sock`, or the path alone. Connects only when
    /// something is asked.
    ///
    /// # Errors
    /// [`Error::Invalid`]: that is no address.
    pub fn new(address: &str) -> Result<Client, Error> {
        Place::parse(address).map(Client::at)
    }

    /// The daemon that listens at this Unix socket, where root and the daemon's own user need no token.
    pub fn local(socket: impl AsRef<Path>) -> Client {
        Client::at(Place::Unix(socket.as_ref().to_owned()))
    }

    fn at(place: Place) -> Client {
        Client {
            place,
            timeout: None,
            token: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Waits for connecting and for each answer no longer than this, also where a program is stopped. Without it these are
    /// waited for as long as a `stop_timeout` can be, 24 hours, and all others 30 seconds. What is not bounded is the time that
    /// the system takes to look up the name of a host.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// Sends this token from now on; `None`: none.
    pub fn set_token(&self, token: Option<String>) {
        *lock(&self.token) = token;
    }

    /// The token that is sent.
    pub fn token(&self) -> Option<String> {
        lock(&self.token).clone()
    }

    /// Where it asks, for people.
    pub fn place(&self) -> String {
        self.place.to_string()
    }

    /// An answer that is JSON.
    fn json(&self, request: &Request) -> Result<Value, Error> {
        let patience = self.patience(request);
        let (_, mut connection) = self.answer(request)?;
        let body = connection.body(MAX_ANSWER);
        let body = body.map_err(|error| timed(error, patience))?;
        let json = serde_json::from_slice(&body);
        let json = json.map_err(|_| Error::Protocol("the answer is not JSON"))?;
        if connection.is_reusable() {
            *lock(&self.idle) = Some(connection);
        }
        Ok(json)
    }

    /// An answer that says yes: its head, and the connection with its body still to be read.
    fn answer(&self, request: &Request) -> Result<(Head, Connection), Error> {
        let patience = self.patience(request);
        let failed = |error| timed(error, patience);
        let until = Instant::now() + patience;
        let text = self.text(request)?;
        let (head, mut connection) = self.ask(request, text.as_bytes(), until).map_err(failed)?;
        if head.status < 300 {
            return Ok((head, connection));
        }
        let body = connection.body(MAX_REFUSAL).map_err(failed)?;
        if connection.is_reusable() {
            *lock(&self.idle) = Some(connection);
        }
        Err(Error::of_answer(head.status, &body))
    }

    fn ask(
        &self,
        request: &Request,
        text: &[u8],
        until: Instant,
    ) -> Result<(Head, Connection), Error> {
        let idle = lock(&self.idle).take();
        if let Some(mut connection) = idle.filter(Connection::is_reusable) {
            connection.socket.until = Some(until);
            match connection.ask(text) {
                Ok(head) => return Ok((head, connection)),
                // It may have been closed in the very moment. What changes nothing can be asked again.
                Err(Failure::Unanswered(error))
                    if request.method == "GET" && error.kind() != std::io::ErrorKind::TimedOut => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let fd = self
            .place
            .connect(until)
            .map_err(|source| Error::CannotConnect {
                place: self.place(),
                source,
            })?;
        let mut connection = Connection::new(Socket::new(fd, until));
        let head = connection.ask(text)?;
        Ok((head, connection))
    }

    fn text(&self, request: &Request) -> Result<String, Error> {
        let (host, prefix) = self.place.host_and_prefix();
        let (method, path) = (request.method, request.path);
        let mut text = format!(
            "{method} {prefix}{}{path} HTTP/1.1\r\nHost: {host}\r\n{AGENT}{}",
            request.base, request.headers
        );
        if let Some(token) = self.token() {
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Error::Invalid {
                    what: "the token".to_owned(),
                    issue: "it is empty, or has signs that no token has",
                });
            }
            text += &format!("Authorization: Bearer {token}\r\n");
        }
        match request.body {
            Some(body) => {
                let body = body.to_string();
                let length = body.len();
                text += &format!(
                    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
            }
            None if method == "GET" => text += "\r\n",
            None => text += "Content-Length: 0\r\n\r\n",
        }
        Ok(text)
    }

    fn patience(&self, request: &Request) -> Duration {
        self.timeout.unwrap_or(request.patience)
    }
}

/// A read or write that came too late, as what it is.
fn timed(error: Error, patience: Duration) -> Error {
    match error {
        Error::Lost(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Error::Timeout(patience)
        }
        other => other,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
