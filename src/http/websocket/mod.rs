//! WebSockets: messages over a connection that has become one. Home of tungstenite, with the handshake.
//!
//! Owns framing, limits, pings and the closing handshake; knows no message. While the client does not read, nothing is
//! read of it either, and nothing more is sent: so a client makes it keep one message and one pong at most. Used by the
//! service, on a stream's thread.

mod handshake;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message};

pub use handshake::{NotWebSocket, upgrade};

use super::stream::{Line, PATIENCE};
use super::{Control, End};
use crate::clock::BootTime;
use crate::report;
use crate::sys::bell::Bell;

/// Bytes of a message from the client, in however many frames; above: closed with 1009.
const MAX_RECEIVED_BYTES: usize = 16 * 1024;
/// Bytes that wait for room: one message, a pong, a close frame. A log entry of 16 KiB, each byte of it escaped, is below
/// half of this.
const MAX_UNSENT_BYTES: usize = 256 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// Bytes read between two waits: then the service has its turn, however much the client sends.
const TURN_BYTES: usize = 16 * 1024;
/// Bytes read while a client is given time to close.
const DRAIN_BYTES: usize = 256 * 1024;
/// Bytes of a close frame's reason. Source: RFC 6455 5.5.
const MAX_REASON_BYTES: usize = 123;

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

/// An open WebSocket. Dropped, it is closed with 1011: whoever had it did not finish.
pub struct WebSocket {
    inner: tungstenite::WebSocket<Pipe>,
    /// Nothing that was read is left to be taken.
    drained: bool,
    over: bool,
}

/// The line, as tungstenite reads and writes it.
struct Pipe {
    line: Line,
    /// It did not take all that was to be sent.
    full: bool,
    /// Bytes that may still be read in this turn.
    turn: usize,
}

impl WebSocket {
    /// Answers the handshake with `head`, and goes on with what was read behind the request.
    pub(super) fn begin(line: Line, head: &[u8], rest: Vec<u8>) -> Result<WebSocket, Over> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_UNSENT_BYTES)
            .max_message_size(Some(MAX_RECEIVED_BYTES))
            .max_frame_size(Some(MAX_RECEIVED_BYTES));
        line.send_all(&[head], |interest| line.wait(interest, None, None))
            .map_err(|_| Over)?;
        let pipe = Pipe {
            line,
            full: false,
            turn: TURN_BYTES,
        };
        Ok(WebSocket {
            drained: rest.is_empty(),
            inner: tungstenite::WebSocket::from_partially_read(
                pipe,
                rest,
                Role::Server,
                Some(config),
            ),
            over: false,
        })
    }

    /// Ends the WebSocket from elsewhere.
    pub fn control(&self) -> &Arc<Control> {
        self.line().control()
    }

    /// Why it is to end, once it is.
    pub fn ended(&self) -> Option<End> {
        self.control().ended()
    }

    /// The next message, if one is there. Pings are answered inside. `None` also while there is no room: what comes then
    /// waits in the kernel.
    ///
    /// # Errors
    /// It is over.
    pub fn receive(&mut self) -> Result<Option<Incoming>, Over> {
        self.still_open()?;
        while self.has_room() {
            match self.inner.read() {
                Ok(Message::Text(text)) => {
                    self.drained = false;
                    return Ok(Some(Incoming::Text(text.as_str().to_owned())));
                }
                Ok(Message::Binary(_)) => {
                    self.drained = false;
                    return Ok(Some(Incoming::Binary));
                }
                // The pong goes before anything else is read: so there is never more than one.
                Ok(Message::Ping(_)) => {
                    self.drained = false;
                    self.flush()?;
                }
                Ok(Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => return Err(self.part(false)),
                Err(error) if is_blocked(&error) => {
                    self.drained = true;
                    break;
                }
                Err(error) => return Err(self.fail(&error)),
            }
        }
        Ok(None)
    }

    /// Sends a message as far as the socket takes it; to be called only while there [`has_room`](WebSocket::has_room).
    ///
    /// # Errors
    /// It is over.
    pub fn send(&mut self, text: String) -> Result<(), Over> {
        self.still_open()?;
        match self.inner.write(Message::text(text)) {
            Ok(()) => Ok(()),
            Err(error) if is_blocked(&error) => Ok(()),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Whether all that was sent is on its way, so that more may be.
    pub fn has_room(&self) -> bool {
        !self.inner.get_ref().full
    }

    /// Waits for the client, for room if there is none, for `bell` if there is room, and until `until`. Being told to end
    /// counts as [`Woken::Ready`]. The bell is hushed if it rang.
    ///
    /// # Errors
    /// It is over.
    pub fn wait(&mut self, bell: &Bell, until: Option<BootTime>) -> Result<Woken, Over> {
        self.still_open()?;
        self.inner.get_mut().turn = TURN_BYTES;
        loop {
            if self.ended().is_some() || self.has_room() && !self.drained {
                return Ok(Woken::Ready);
            }
            let (interest, heard) = match self.has_room() {
                true => (PollFlags::IN, Some(bell)),
                false => (PollFlags::OUT, None),
            };
            let seen = self.line().wait(interest, heard, until);
            if seen.rung {
                bell.hush();
            }
            if self.has_room() {
                // That the client left is read like anything else that it sends.
                self.drained = !(seen.readable || seen.left);
            } else if seen.left {
                return Err(self.over());
            } else if seen.writable {
                self.flush()?;
            }
            let is_late = until.is_some_and(|until| until <= BootTime::now());
            if seen.told || seen.rung || self.has_room() && (seen.writable || !self.drained) {
                return Ok(Woken::Ready);
            } else if is_late {
                return Ok(Woken::TimedOut);
            }
        }
    }

    /// Closes it with this code (RFC 6455 7.4) and reason, at most 123 bytes, and gives the client a second to agree.
    pub fn close(mut self, code: u16, reason: &str) {
        if !self.over {
            self.say_close(code, reason, true);
        }
    }

    fn line(&self) -> &Line {
        &self.inner.get_ref().line
    }

    fn still_open(&self) -> Result<(), Over> {
        match self.over {
            true => Err(Over),
            false => Ok(()),
        }
    }

    fn over(&mut self) -> Over {
        self.over = true;
        Over
    }

    fn flush(&mut self) -> Result<(), Over> {
        match self.inner.flush() {
            Ok(()) => Ok(()),
            Err(error) if is_blocked(&error) => Ok(()),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Tells the client what it did wrong, if it is there to be told. Source: RFC 6455 7.4.1.
    fn fail(&mut self, error: &Error) -> Over {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => self.over(),
            Error::Capacity(_) => self.say_close(1009, "a message is above 16 KiB", false),
            Error::WriteBufferFull(_) => {
                report::warn(format_args!("a message too long for a WebSocket"));
                self.say_close(1011, "a message too long to be sent", false)
            }
            Error::Utf8(_) => self.say_close(1007, "text that is not UTF-8", false),
            error => self.say_close(1002, &error.to_string(), false),
        }
    }

    /// Sends a close frame, and ends. `listen`: what the client sends can still be read as frames.
    fn say_close(&mut self, code: u16, reason: &str, listen: bool) -> Over {
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        match self.inner.close(Some(frame)) {
            Ok(()) => self.part(listen),
            Err(error) if is_blocked(&error) => self.part(listen),
            Err(_) => self.over(),
        }
    }

    /// Lets go of the client: sends what is left to be sent, waits for its close frame if it is to `listen`, and closes
    /// the connection. All of it takes [`PATIENCE`] at most.
    fn part(&mut self, mut listen: bool) -> Over {
        let until = BootTime::now() + PATIENCE;
        self.inner.get_mut().turn = DRAIN_BYTES;
        loop {
            let sent = match self.inner.flush() {
                Ok(()) => true,
                // Both have said it: the server closes first, and nothing more may come. Source: RFC 6455 7.1.1.
                Err(Error::ConnectionClosed) => {
                    self.line().part(BootTime::now());
                    return self.over();
                }
                Err(error) if is_blocked(&error) => false,
                Err(_) => return self.over(),
            };
            listen = listen && self.hear();
            if sent && !listen {
                self.line().part(until);
                return self.over();
            }
            let mut interest = PollFlags::empty();
            interest.set(PollFlags::OUT, !sent);
            interest.set(PollFlags::IN, listen);
            let seen = self.line().wait_for_socket(interest, until);
            if seen.left && !listen || BootTime::now() >= until {
                return self.over();
            }
        }
    }

    /// Reads on towards the client's close frame; `false` once nothing more need be read.
    fn hear(&mut self) -> bool {
        loop {
            match self.inner.read() {
                Ok(Message::Close(_)) => return false,
                Ok(_) => {}
                Err(error) => return is_blocked(&error) && self.inner.get_ref().turn > 0,
            }
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        if !self.over {
            self.say_close(1011, "", true);
        }
    }
}

/// Nothing is wrong but that the socket gives or takes nothing now.
fn is_blocked(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(self.turn);
        if length == 0 {
            return Err(Errno::AGAIN.into());
        }
        let bytes = self.line.receive(&mut into[..length])?;
        self.turn -= bytes;
        Ok(bytes)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.line.send(&[IoSlice::new(bytes)]);
        self.full = sent == Err(Errno::AGAIN);
        Ok(sent?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
