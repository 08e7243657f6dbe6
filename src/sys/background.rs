//! A start in the background: leaving the caller's terminal and descriptors alone, saying when the daemon is ready.
//!
//! Who starts it holds the reading end of a pipe and has put the writing end in place of standard output: one byte means
//! "it listens", the end of the pipe without one means "it failed". Called by `cli` and `daemon`.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdout};

/// What is written once the daemon listens.
pub const READY: u8 = b'1';

/// Keeps what this process inherited, but for the standard streams, from the daemon that it will start: a lock or a pipe of
/// the caller's would else be held for as long as the daemon runs. Where `/proc` is missing, nothing happens.
pub fn keep_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number| *number > 2) {
        // SAFETY: the kernel has just listed the descriptor as open, and nothing closes one meanwhile: this process has
        // only this thread, and the directory that is being read stays open until the loop has ended.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // Fails for no open descriptor. Source: fcntl(2).
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}

/// Takes a descriptor that this process inherited, by its number.
///
/// # Errors
/// There is none of that number.
pub fn take_inherited(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: called once, at the start, for the number that our own parent gave us: whatever is open there is ours alone.
    // It is only looked at until the next line has found that it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: open, as was just found, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Leaves the session and its terminal, and takes the ready pipe away from standard output, which leads nowhere then.
///
/// # Errors
/// There is no `/dev/null`, or no descriptor is left.
pub fn detach() -> io::Result<OwnedFd> {
    match rustix::process::setsid() {
        // Who leads a process group has been put into one of its own already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = fcntl_dupfd_cloexec(io::stdout(), 3)?;
    dup2_stdout(dev_null()?)?;
    Ok(ready)
}

/// Tells who waits that the daemon listens, and lets go of standard error unless that is a file: a terminal or a pipe
/// belongs to the caller, who may wait for its end.
///
/// # Errors
/// Standard error could not be let go. Who waits is told all the same.
pub fn announce(ready: OwnedFd) -> io::Result<()> {
    let quiet = quieten();
    // The caller may be gone, which is no reason not to serve.
    let _ = File::from(ready).write_all(&[READY]);
    quiet
}

/// Lets go of standard error, unless it is a file.
///
/// # Errors
/// There is no `/dev/null`.
pub fn quieten() -> io::Result<()> {
    let stat = fstat(io::stderr())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        dup2_stderr(dev_null()?)?;
    }
    Ok(())
}

fn dev_null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}
