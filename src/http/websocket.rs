//! WebSockets: the handshake, and messages over a connection that has become one. Home of tungstenite.
//!
//! Owns framing, limits, pings and the closing handshake; knows no message. Used by the service, on a stream's thread.

use std::sync::Arc;

use super::{Control, End, Head, Reply};
use crate::clock::BootTime;
use crate::sys::bell::Bell;

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWebSocket {
    /// It does not ask for one: 426.
    NotAsked,
    /// Another version than 13: 426 with `Sec-WebSocket-Version: 13`.
    Version,
    /// What it asks with is malformed: 400.
    Malformed(&'static str),
}

/// The answer that makes a WebSocket of the connection, and hands it to `run`. Source: RFC 6455 4.2.
///
/// # Errors
/// Why it cannot.
pub fn upgrade(
    head: &Head,
    run: impl FnOnce(WebSocket) + Send + 'static,
) -> Result<Reply, NotWebSocket> {
    let _ = (head, run);
    todo!()
}

/// What came from the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Binary,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The bell rang, something came, or there is room to send again: look.
    Ready,
    /// The time was over.
    TimedOut,
}

/// The WebSocket is over, and nobody needs to be told: the client has left or closed, or broke the protocol and was told so.
#[derive(Debug)]
pub struct Over;

/// An open WebSocket.
pub struct WebSocket {}

impl WebSocket {
    /// Ends the WebSocket from elsewhere.
    pub fn control(&self) -> &Arc<Control> {
        todo!()
    }

    /// Why it is to end, once it is.
    pub fn ended(&self) -> Option<End> {
        todo!()
    }

    /// The next message, if one is there. Pings are answered inside.
    pub fn receive(&mut self) -> Result<Option<Incoming>, Over> {
        todo!()
    }

    /// Sends a message as far as the socket takes it; to be called only while there [`has_room`](WebSocket::has_room).
    pub fn send(&mut self, text: String) -> Result<(), Over> {
        let _ = text;
        todo!()
    }

    /// Whether all that was sent is on its way, so that more may be.
    pub fn has_room(&self) -> bool {
        todo!()
    }

    /// Waits for the client, for room if there is none, for `bell` if there is room, and until `until`. Being told to end
    /// counts as [`Woken::Ready`].
    pub fn wait(&mut self, bell: &Bell, until: Option<BootTime>) -> Result<Woken, Over> {
        let _ = (bell, until);
        todo!()
    }

    /// Closes it with this code (RFC 6455 7.4) and reason, at most 123 bytes, and gives the client a second to agree.
    pub fn close(self, code: u16, reason: &str) {
        let _ = (code, reason);
        todo!()
    }
}
