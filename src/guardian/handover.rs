//! How a guardian becomes another binary: what it holds, written down for itself after exec(2).
//!
//! A memory file of lines, whose descriptor is told by `--handover`, as are the others in it by their numbers. All of them
//! stay open over exec, and so do children, blocked signals and those that wait to be read.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::sys::background::take_inherited;
use crate::sys::process::Pid;

/// Of the format: another binary takes it over only if it says the same.
pub const VERSION: u32 = 1;

/// What goes on.
pub struct Handover {
    pub daemon: Pid,
    /// The link to it.
    pub socket: OwnedFd,
    /// What daemons handed over, by name.
    pub kept: Vec<(String, OwnedFd)>,
    /// An upgrade that was asked for meanwhile.
    pub again: bool,
}

/// The same, by the one who holds it.
pub struct Held<'a> {
    pub daemon: Pid,
    pub socket: BorrowedFd<'a>,
    pub kept: Vec<(&'a str, BorrowedFd<'a>)>,
    pub again: bool,
}

impl Held<'_> {
    /// Writes it down.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self) -> io::Result<File> {
        let mut file = File::from(rustix::fs::memfd_create(
            "hxe-handover",
            MemfdFlags::CLOEXEC,
        )?);
        let mut text = format!("daemon {} {}\n", self.daemon, self.socket.as_raw_fd());
        for (name, fd) in &self.kept {
            text += &format!("kept {} {name}\n", fd.as_raw_fd());
        }
        if self.again {
            text += "again\n";
        }
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    }

    /// Whether all descriptors, that of the `file` included, stay open over exec.
    ///
    /// # Errors
    /// None that is known.
    pub fn stay_open(&self, file: &File, stay: bool) -> io::Result<()> {
        let flags = if stay {
            FdFlags::empty()
        } else {
            FdFlags::CLOEXEC
        };
        let kept = self.kept.iter().map(|(_, fd)| *fd);
        for fd in kept.chain([self.socket, file.as_fd()]) {
            fcntl_setfd(fd, flags)?;
        }
        Ok(())
    }
}

/// Takes up what the guardian that this process was has written down.
///
/// # Errors
/// It is not there, or not whole.
pub fn take(number: i32) -> io::Result<Handover> {
    let mut text = String::new();
    File::from(take_inherited(number)?).read_to_string(&mut text)?;
    parse(&text, take_inherited).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(text: &str, open: impl Fn(i32) -> io::Result<OwnedFd>) -> Option<Handover> {
    let open = |number: &str| open(number.parse().ok()?).ok();
    let mut lines = text.lines();
    let (pid, socket) = lines.next()?.strip_prefix("daemon ")?.split_once(' ')?;
    let mut found = Handover {
        daemon: Pid::new(pid.parse().ok()?)?,
        socket: open(socket)?,
        kept: Vec::new(),
        again: false,
    };
    for line in lines {
        if line == "again" {
            found.again = true;
        } else {
            let (number, name) = line.strip_prefix("kept ")?.split_once(' ')?;
            found.kept.push((name.to_owned(), open(number)?));
        }
    }
    Some(found)
}
