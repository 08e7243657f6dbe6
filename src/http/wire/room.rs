//! Room for connections: who gets a place, and who is given up for another.
//!
//! Bounds connections in number, in descriptors and in bytes. Never gives up one for which an answer is being worked out: those
//! are not in the table. Called by `listener.rs` for each connection, and by `wire.rs` when one begins to wait.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::{Lease, State, Wire};
use crate::clock::BootTime;
use crate::http::Peer;
use crate::http::connection::Connection;
use crate::http::table::Key;
use crate::sys::bell::Bell;
use crate::sys::process;

/// How long a new connection has to bring something before it is given up for another: with less, a good client could lose
/// its place before its first byte is there. Where all are that new, those that come wait in the kernel.
const GRACE: Duration = Duration::from_millis(5);
/// The same for each connection that is open, where that is less: so the thousand that may wait in the kernel have not more
/// than 150 ms to wait, however few places there are.
const GRACE_EACH: Duration = Duration::from_micros(150);
/// Memory for what waiting connections hold, in bytes: requests that are not complete, answers that are not read. The
/// largest is not counted, so that there is room for one, whatever its size.
const HELD_BYTES: usize = 4 * 1024 * 1024;

/// The first connection to be given up for another.
struct Oldest {
    key: Key,
    /// It is new, and stays so until then.
    new_until: Option<BootTime>,
}

impl State {
    fn oldest(&self) -> Option<Oldest> {
        // Open connections are at most 65,536.
        let grace = GRACE.min(GRACE_EACH * self.table.open() as u32);
        let new = BootTime::now() - grace;
        let oldest = self.table.oldest(new)?;
        Some(Oldest {
            key: oldest.key(),
            new_until: oldest
                .is_newer_than(new)
                .then(|| oldest.owes_since() + grace),
        })
    }
}

impl Wire {
    /// Whether one more connection can be accepted, if only to be told that there is no room. Where all that could be given
    /// up for it are new, the listeners rest until one is not.
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        if state.table.open() < self.limits().max_connections {
            return true;
        }
        let new_until = state.oldest().and_then(|oldest| oldest.new_until);
        drop(state);
        if let Some(moment) = new_until {
            self.pause(moment);
        }
        new_until.is_none()
    }

    /// Makes a connection of a socket just accepted, if there is room for one more.
    ///
    /// # Errors
    /// Gives the socket back if every connection has to be kept, as its answer is being worked out.
    pub fn admit(
        self: &Arc<Self>,
        socket: OwnedFd,
        peer: Peer,
    ) -> Result<Box<Connection>, (OwnedFd, Peer)> {
        let key = loop {
            let mut state = self.lock();
            let limits = self.limits();
            let open = state.table.open();
            if open < limits.max_connections {
                break state.table.claim();
            }
            let Some(oldest) = state.oldest() else {
                return Err((socket, peer));
            };
            // Another worker has taken the room that this one found: for a moment there is one place more for each.
            if oldest.new_until.is_some() && open < limits.max_connections + limits.workers {
                break state.table.claim();
            }
            let Some(oldest) = state.table.take(oldest.key) else {
                return Err((socket, peer));
            };
            drop(state);
            oldest.evict();
        };
        self.starved.store(false, Ordering::Relaxed);
        let lease = Lease {
            wire: Arc::clone(self),
            key,
        };
        Ok(Connection::new(socket, peer, lease))
    }

    /// Keeps a socket that is not in the epoll set out of the last descriptors, which are for programs, if closing a
    /// connection that can be given up makes room.
    pub fn spare(&self, socket: &mut OwnedFd) {
        if process::is_of_the_last(&*socket) && self.evict() {
            // The lowest number that is free: the one just closed, or one below it.
            if let Ok(lower) = fcntl_dupfd_cloexec(&*socket, 0) {
                *socket = lower;
            }
        }
    }

    /// A bell, likewise.
    ///
    /// # Errors
    /// No descriptor is left, or only the last ones.
    pub fn bell(&self) -> io::Result<Bell> {
        let bell = match Bell::new() {
            Ok(bell) if !process::is_of_the_last(&bell) => return Ok(bell),
            bell => bell,
        };
        drop(bell);
        self.evict();
        let bell = Bell::new()?;
        match process::is_of_the_last(&bell) {
            true => Err(Errno::MFILE.into()),
            false => Ok(bell),
        }
    }

    /// Closes the connection whose client has kept it waiting for longest, for a request or by not reading, to get its
    /// descriptor back; `false` if there is none. If it was new, the listeners rest a little.
    pub fn evict(&self) -> bool {
        let mut state = self.lock();
        let Some(Oldest { key, new_until }) = state.oldest() else {
            return false;
        };
        let connection = state.table.take(key);
        drop(state);
        if let Some(moment) = new_until {
            self.pause(moment);
        }
        if let Some(connection) = connection {
            connection.evict();
        }
        true
    }

    /// Closes some of those that wait, if together they hold too much.
    pub(super) fn shed(&self) {
        loop {
            let surplus = self.lock().table.take_surplus(HELD_BYTES);
            match surplus {
                Some(connection) => connection.evict(),
                None => return,
            }
        }
    }
}
