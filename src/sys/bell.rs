//! A bell: wakes a thread that waits in poll(2) or epoll(7), from any other thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Readable from [`Bell::ring`] until [`Bell::hush`].
pub struct Bell {
    fd: OwnedFd,
    /// Rung and not yet hushed: ringing again need not ask the kernel, however often it is done.
    rung: AtomicBool,
}

impl Bell {
    /// # Errors
    /// No descriptors.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell {
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
        })
    }

    /// Wakes whoever waits. What it is about must be there to be seen before.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Fails only where the counter is full, and then it is readable anyway.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Makes it silent. To be called before one looks for what there is to do: what comes later rings again.
    pub fn hush(&self) {
        // Fails where it was not rung.
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(bell: &Bell) -> bool {
        const AT_ONCE: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&AT_ONCE)).unwrap() == 1
    }

    #[test]
    fn it_is_heard_until_it_is_hushed_however_often_it_rang() {
        let bell = Bell::new().unwrap();
        assert!(!is_readable(&bell));
        for _ in 0..2 {
            bell.ring();
            bell.ring();
            assert!(is_readable(&bell));
            bell.hush();
            assert!(!is_readable(&bell));
        }
    }
}
