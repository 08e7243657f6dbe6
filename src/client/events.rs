//! Events as they happen, over a WebSocket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::Error;
use super::connection::Connection;
use super::socket::Socket;
use super::wire::Event;

/// Bytes of a message. Source: the daemon's longest is that of a log entry, see `entries.rs`.
const MAX_MESSAGE: usize = 256 * 1024;

/// Events, one by one; `next` waits for as long as it takes. The first error is the last item: [`Error::Closed`] tells why
/// the daemon ended it.
pub struct Events {
    socket: WebSocket<Socket>,
    over: bool,
}

impl Events {
    /// Goes on behind the handshake: says who we are, and what is wanted.
    pub(super) fn begin(
        connection: Connection,
        token: Option<&str>,
        kinds: &[&str],
        programs: &[&str],
    ) -> Result<Events, Error> {
        let (socket, rest) = connection.into_parts();
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_MESSAGE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let mut events = Events {
            socket: WebSocket::from_partially_read(socket, rest, Role::Client, Some(config)),
            over: false,
        };
        let auth = match token {
            Some(token) => json!({"type": "auth", "token": token}),
            None => json!({"type": "auth"}),
        };
        events.send(&auth)?;
        let answer = events.message()?;
        if answer["type"] != "auth.ok" {
            return Err(Error::Protocol("the answer to auth is not auth.ok"));
        }
        if !(kinds.is_empty() && programs.is_empty()) {
            events.subscribe(kinds, programs)?;
        }
        events.socket.get_mut().until = None;
        Ok(events)
    }

    /// Narrows to these kinds (`program.*`, `log.new`) of these programs (ids or names); none: all. What the daemon has
    /// sent before still comes.
    ///
    /// # Errors
    /// The connection is lost. A kind that does not exist is an error of the next item.
    pub fn subscribe(&mut self, kinds: &[&str], programs: &[&str]) -> Result<(), Error> {
        let mut message = json!({"type": "subscribe"});
        for (name, list) in [("events", kinds), ("programs", programs)] {
            if !list.is_empty() {
                message[name] = list.iter().copied().map(Value::from).collect();
            }
        }
        self.send(&message)
    }

    /// The next event, if it is there within so long.
    ///
    /// # Errors
    /// As for `next`.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Event>, Error> {
        self.socket.get_mut().until = Some(Instant::now() + patience);
        let event = self.event();
        self.socket.get_mut().until = None;
        match event {
            Err(Error::Lost(error)) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            other => {
                self.over = other.is_err();
                other.map(Some)
            }
        }
    }

    /// Nothing more will come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn send(&mut self, message: &Value) -> Result<(), Error> {
        let message = Message::text(message.to_string());
        self.socket.send(message).map_err(failed)
    }

    fn event(&mut self) -> Result<Event, Error> {
        let json = self.message()?;
        if json["type"] == "error" {
            let body = json.to_string();
            return Err(Error::of_answer(400, body.as_bytes()));
        }
        Ok(Event::read(json))
    }

    fn message(&mut self) -> Result<Value, Error> {
        loop {
            match self.socket.read().map_err(failed)? {
                Message::Text(message) => {
                    return serde_json::from_str(&message)
                        .map_err(|_| Error::Protocol("an event is not JSON"));
                }
                Message::Close(frame) => {
                    // The answer to it, as far as it goes.
                    let _ = self.socket.flush();
                    let (code, reason) = match frame {
                        Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
                        None => (1005, "no reason is given".to_owned()),
                    };
                    return Err(Error::Closed { code, reason });
                }
                Message::Binary(_) => return Err(Error::Protocol("an event is not text")),
                // Answered inside.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn failed(error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Io(error) => Error::Lost(error),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            Error::Lost(io::ErrorKind::UnexpectedEof.into())
        }
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Error::Lost(io::ErrorKind::UnexpectedEof.into()),
        _ => Error::Protocol("the events break the rules of WebSocket"),
    }
}

impl Iterator for Events {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Result<Event, Error>> {
        if self.over {
            return None;
        }
        let event = self.event();
        self.over = event.is_err();
        Some(event)
    }
}

/// Whether the answer to the handshake is that to our key. Source: RFC 6455 4.1.
pub(super) fn accepts(head: Option<&str>, key: &str) -> bool {
    head == Some(tungstenite::handshake::derive_accept_key(key.as_bytes()).as_str())
}

/// A key as a client makes it. Source: RFC 6455 4.1.
pub(super) fn key() -> String {
    tungstenite::handshake::client::generate_key()
}

/// To be waited for together with others. Readable means that there may be an event; one that was read ahead is not seen
/// here, so take what [`next_within`](Events::next_within) zero gives first.
impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}
