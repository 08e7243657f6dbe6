//! A connected socket that waits no longer than it may.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A socket with a deadline: `TimedOut` from then on.
pub struct Socket {
    fd: OwnedFd,
    /// `None`: it waits as long as it takes.
    pub until: Option<Instant>,
}

impl Socket {
    pub fn new(fd: OwnedFd, until: Instant) -> Socket {
        Socket {
            fd,
            until: Some(until),
        }
    }

    /// Whether nothing has come, and the other end has not closed: so it may be asked once more.
    pub fn is_quiet(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.fd, &mut [0u8], flags).err() == Some(Errno::AGAIN)
    }

    fn wait(&self, interest: PollFlags) -> io::Result<()> {
        let timeout = match self.until {
            None => None,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Timespec::try_from(left).ok()
            }
        };
        match poll(&mut [PollFd::new(&self.fd, interest)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(&self.fd, &mut *into, RecvFlags::DONTWAIT) {
                Ok((_, bytes)) => return Ok(bytes),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(bytes) => return Ok(bytes),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
