//! Signals as something to read, for a process of one thread: signalfd(2).
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::process::cvt;

/// Unblocks all signals in the calling thread and those that it starts: who started this process may have blocked some.
pub fn unblock_all() {
    // SAFETY: all-zero bytes are a valid sigset_t, filled in by the call; the pointer is to a local.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Signals that are blocked, and read here instead. Children inherit that they are blocked.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks these signals in the calling thread, which must be the only one, and catches them.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn catch(numbers: &[i32]) -> io::Result<Signals> {
        // SAFETY: all-zero bytes are a valid sigset_t, filled in by the calls; the pointers are to a local, and the
        // descriptor that signalfd returns is ours alone.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for number in numbers {
                libc::sigaddset(&raw mut set, *number);
            }
            cvt(libc::sigprocmask(
                libc::SIG_BLOCK,
                &raw const set,
                std::ptr::null_mut(),
            ))?;
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            cvt(fd)?;
            Ok(Signals(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The number of a signal that has come; `None`: no more.
    pub fn next(&self) -> Option<i32> {
        let mut info = [0; mem::size_of::<libc::signalfd_siginfo>()];
        // Its first field is the number, 32 bits wide. Source: signalfd(2).
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut info)) {
            Ok(length) if length == info.len() => {
                Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
            }
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
