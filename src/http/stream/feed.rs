//! A feed: an answer that goes on until somebody ends it.
//!
//! Owns its framing and what the client may do meanwhile: read, or leave. It keeps nothing that it cannot send: whoever
//! sends waits. Used by the service, on a stream's thread.

use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::{Control, Ended, Line, PATIENCE};
use crate::clock::BootTime;
use crate::sys::bell::Bell;

/// Bytes that a client may send, although it has nothing to say here. If what it sends beyond were left unread, its end would
/// come behind that, and never be seen; if it were read, the client could keep a thread busy.
const READ_BYTES: usize = 16 * 1024;

/// An answer without end, on its own thread.
pub struct Feed {
    line: Line,
    chunked: bool,
    end_at: Option<BootTime>,
    /// Bytes that the client may still send, to be thrown away.
    unread: usize,
    /// A piece was sent in part: nothing fits behind it.
    torn: bool,
    /// What is sent at the end.
    last: Vec<u8>,
}

impl Feed {
    pub(super) fn new(line: Line, chunked: bool) -> Feed {
        Feed {
            line,
            chunked,
            end_at: None,
            unread: READ_BYTES,
            torn: false,
            last: Vec::new(),
        }
    }

    /// Ends the stream from elsewhere.
    pub fn control(&self) -> &Arc<Control> {
        self.line.control()
    }

    /// The stream ends at this time at the latest.
    pub fn end_at(&mut self, at: BootTime) {
        self.end_at = Some(at);
    }

    /// Sends a piece, and waits until the socket has taken it.
    ///
    /// # Errors
    /// The stream is over; nothing more need be done but to return.
    pub fn send(&mut self, piece: &[u8]) -> Result<(), Ended> {
        self.go_on()?;
        let size = format!("{:x}\r\n", piece.len());
        let sent = match piece {
            // An empty chunk would be the last one.
            [] => return Ok(()),
            _ if self.chunked => self.write(&[size.as_bytes(), piece, b"\r\n"]),
            _ => self.write(&[piece]),
        };
        // Where any of it is on its way, nothing fits behind it.
        self.torn = sent.is_err();
        sent
    }

    /// Says what is sent at the very end, also where the stream was told to end: as much of it as the client takes in the
    /// second that is left then.
    pub fn last(&mut self, piece: Vec<u8>) {
        self.last = piece;
    }

    /// Waits until `bell` rings, and hushes it.
    ///
    /// # Errors
    /// As for [`Feed::send`].
    pub fn wait(&mut self, bell: &Bell) -> Result<(), Ended> {
        loop {
            self.go_on()?;
            let seen = self.line.wait(PollFlags::IN, Some(bell), self.end_at);
            if seen.left || seen.told {
                return Err(Ended);
            }
            if seen.readable {
                self.throw_away()?;
            }
            if seen.rung {
                bell.hush();
                return Ok(());
            }
        }
    }

    /// Sends status line and headers.
    pub(super) fn begin(&mut self, head: &[u8]) -> Result<(), Ended> {
        self.write(&[head])
    }

    /// Ends the answer; `whole` tells that it ends as it should.
    pub(super) fn finish(self, whole: bool) {
        if self.torn || !whole {
            return;
        }
        let until = BootTime::now() + PATIENCE;
        let size = format!("{:x}\r\n", self.last.len());
        let parts: &[&[u8]] = match (self.chunked, self.last.is_empty()) {
            (false, _) => &[&self.last],
            (true, true) => &[b"0\r\n\r\n"],
            (true, false) => &[size.as_bytes(), &self.last, b"\r\n0\r\n\r\n"],
        };
        let sent = self
            .line
            .send_all(parts, |interest| self.line.wait_for_socket(interest, until));
        if sent.is_ok() {
            self.line.part(until);
        }
    }

    /// The time is not over, and nobody has ended it.
    fn go_on(&self) -> Result<(), Ended> {
        let is_late = self.end_at.is_some_and(|at| at <= BootTime::now());
        match is_late || self.control().ended().is_some() {
            true => Err(Ended),
            false => Ok(()),
        }
    }

    fn write(&self, parts: &[&[u8]]) -> Result<(), Ended> {
        self.line.send_all(parts, |interest| {
            self.line.wait(interest, None, self.end_at)
        })
    }

    /// What a client says to a feed is of no interest, but for its end.
    fn throw_away(&mut self) -> Result<(), Ended> {
        let mut scratch = [0; 2048];
        match self.line.receive(&mut scratch) {
            Ok(0) => Err(Ended),
            Ok(bytes) if bytes <= self.unread => {
                self.unread -= bytes;
                Ok(())
            }
            Err(Errno::AGAIN) => Ok(()),
            Ok(_) | Err(_) => Err(Ended),
        }
    }
}
