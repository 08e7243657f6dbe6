//! Streams: connections that last, each with a thread of its own, `hxe-stream-N`.
//!
//! Owns their number and their end. A stream has left the workers: its place in the table is free, and it counts towards
//! `max_streams` instead. It ends when its client leaves, when its work is done, or when it is told to through its
//! [`Control`]. Called by `connection.rs` with an answer that has no end; what is sent is the service's affair.

use std::sync::Arc;

use crate::clock::BootTime;
use crate::sys::bell::Bell;

/// Why a stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server shuts down.
    Shutdown,
    /// The session that it was opened in is over.
    Session,
}

/// How others end a stream. May be kept after its end.
pub struct Control {
    bell: Bell,
}

impl Control {
    /// Has the stream end soon, also while it waits for its client. The first reason counts.
    pub fn end(&self, why: End) {
        let _ = (&self.bell, why);
        todo!()
    }
}

/// The stream is over: the client has left, or it was told to end.
#[derive(Debug)]
pub struct Ended;

/// An answer without end, on its own thread.
pub struct Feed {}

impl Feed {
    /// Ends the stream from elsewhere.
    pub fn control(&self) -> &Arc<Control> {
        todo!()
    }

    /// The stream ends at this time at the latest.
    pub fn end_at(&mut self, at: BootTime) {
        let _ = at;
        todo!()
    }

    /// Sends a piece, and waits until the socket has taken it.
    ///
    /// # Errors
    /// The stream is over; nothing more need be done but to return.
    pub fn send(&mut self, piece: &[u8]) -> Result<(), Ended> {
        let _ = piece;
        todo!()
    }

    /// Waits until `bell` rings.
    ///
    /// # Errors
    /// As for [`Feed::send`].
    pub fn wait(&mut self, bell: &Bell) -> Result<(), Ended> {
        let _ = bell;
        todo!()
    }
}
