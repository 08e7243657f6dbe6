//! A stream's line to its client: the socket, waiting for it, and letting go of it.
//!
//! Owns the socket, and the bell by which a [`Control`] wakes its thread. Blocks only in poll(2), and only for what it is
//! told to wait for. Called by `feed.rs` and `websocket`, on the stream's thread.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown, sockopt,
};

use super::{Control, Ended};
use crate::clock::BootTime;
use crate::sys::bell::Bell;

/// How long a client has to see the last of a stream, and to close.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that it may still send meanwhile.
const DRAIN_BYTES: usize = 256 * 1024;
/// Bytes on their way that the kernel keeps for a client that does not read (it doubles this).
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// A peer that says nothing is asked after this, and again, so many times, before it is taken for dead.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);
/// A peer that acknowledges nothing that was sent for so long is dead; so is, to the kernel, one that has no room for it.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Line {
    socket: OwnedFd,
    is_tcp: bool,
    bell: Arc<Bell>,
    control: Arc<Control>,
}

/// What a wait found; none of it: the time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The client has closed, or at least will send nothing more; or the connection broke.
    pub left: bool,
    pub readable: bool,
    pub writable: bool,
    /// The stream is to end.
    pub told: bool,
    /// The bell that was waited for rang.
    pub rung: bool,
}

impl Line {
    pub fn new(socket: OwnedFd, is_tcp: bool, bell: Bell, control: Arc<Control>) -> Line {
        let bell = Arc::new(bell);
        control.attach(&bell);
        Line {
            socket,
            is_tcp,
            bell,
            control,
        }
    }

    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    #[cfg(test)]
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Has the kernel find dead peers, and bound what it keeps for slow ones.
    pub fn tune(&self) {
        // None of these is needed for the stream to work.
        let _ = sockopt::set_socket_send_buffer_size(&self.socket, SEND_BUFFER_BYTES);
        if self.is_tcp {
            let (idle, interval, count) = KEEPALIVE;
            let _ = sockopt::set_socket_keepalive(&self.socket, true);
            let _ = sockopt::set_tcp_keepidle(&self.socket, idle);
            let _ = sockopt::set_tcp_keepintvl(&self.socket, interval);
            let _ = sockopt::set_tcp_keepcnt(&self.socket, count);
            let _ = sockopt::set_tcp_user_timeout(&self.socket, USER_TIMEOUT.as_millis() as u32);
        }
    }

    /// Waits until the socket is ready for `interest`, the client leaves, the stream is told to end, `bell` rings, or
    /// `until` has come. Asleep in between.
    pub fn wait(&self, interest: PollFlags, bell: Option<&Bell>, until: Option<BootTime>) -> Seen {
        let mut fds = [
            self.poll_fd(interest),
            PollFd::new(&*self.bell, PollFlags::IN),
            // Where there is no other bell its own once more: one way for both.
            PollFd::new(bell.unwrap_or(&self.bell), PollFlags::IN),
        ];
        let Ok(()) = sleep(&mut fds, until) else {
            return Seen::BROKEN;
        };
        let [socket, own, other] = fds.map(|fd| fd.revents());
        Seen {
            told: !own.is_empty(),
            rung: bell.is_some() && !other.is_empty(),
            ..Seen::of(socket)
        }
    }

    /// Waits for the socket alone: for `interest`, or until the client leaves, or `until` has come.
    pub fn wait_for_socket(&self, interest: PollFlags, until: BootTime) -> Seen {
        let mut fds = [self.poll_fd(interest)];
        match sleep(&mut fds, Some(until)) {
            Ok(()) => Seen::of(fds[0].revents()),
            Err(_) => Seen::BROKEN,
        }
    }

    fn poll_fd(&self, interest: PollFlags) -> PollFd<'_> {
        PollFd::new(&self.socket, interest | PollFlags::RDHUP)
    }

    /// Sends what the socket takes of these parts at once, in order. A client that left is an error, not a SIGPIPE.
    ///
    /// # Errors
    /// `AGAIN`: it takes nothing now. Anything else: the connection is of no further use.
    pub fn send(&self, parts: &[IoSlice]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| {
            let mut none = SendAncillaryBuffer::default();
            sendmsg(&self.socket, parts, &mut none, SendFlags::NOSIGNAL)
        })
    }

    /// Sends all of these parts. Whenever the socket is full, `wait` waits until it is ready again.
    ///
    /// # Errors
    /// The client has left, or `wait` saw something other than room; an unknown part of it was sent.
    pub fn send_all(&self, parts: &[&[u8]], wait: impl Fn(PollFlags) -> Seen) -> Result<(), Ended> {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Skips empty parts in front.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.send(rest) {
                Ok(bytes) => IoSlice::advance_slices(&mut rest, bytes),
                Err(Errno::AGAIN) => {
                    let seen = wait(PollFlags::OUT);
                    if !seen.writable || seen.left || seen.told {
                        return Err(Ended);
                    }
                }
                Err(_) => return Err(Ended),
            }
        }
        Ok(())
    }

    /// Reads what is there; 0 at the end of it.
    ///
    /// # Errors
    /// As for [`Line::send`].
    pub fn receive(&self, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| recv(&self.socket, &mut *into, RecvFlags::empty()))
            .map(|(_, bytes)| bytes)
    }

    /// Says that nothing more will come, and waits until the client has closed, too: closing while something of its is
    /// unread would reset the connection, and take from it what was sent last. At most until `until`.
    pub fn part(&self, until: BootTime) {
        if shutdown(&self.socket, Shutdown::Write).is_err() {
            return;
        }
        let mut left = DRAIN_BYTES;
        let mut scratch = [0; 2048];
        while left > 0 && BootTime::now() < until {
            match self.receive(&mut scratch) {
                Ok(0) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(Errno::AGAIN) => {
                    self.wait_for_socket(PollFlags::IN, until);
                }
                Err(_) => return,
            }
        }
    }
}

impl Seen {
    const BROKEN: Seen = Seen {
        left: true,
        readable: false,
        writable: false,
        told: false,
        rung: false,
    };

    fn of(socket: PollFlags) -> Seen {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Seen {
            left: socket.intersects(gone),
            readable: socket.contains(PollFlags::IN),
            writable: socket.contains(PollFlags::OUT),
            ..Seen::default()
        }
    }
}

/// Sleeps until one of these is ready, or `until` has come; as long later as the machine was suspended meanwhile, which
/// poll(2) does not count.
///
/// # Errors
/// The system's: no memory.
fn sleep(fds: &mut [PollFd], until: Option<BootTime>) -> Result<(), Errno> {
    loop {
        let left = until.map(|at| {
            let left = at.since(BootTime::now());
            Timespec {
                tv_sec: left.as_secs().min(i32::MAX as u64) as i64,
                tv_nsec: left.subsec_nanos() as _,
            }
        });
        match poll(fds, left.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
