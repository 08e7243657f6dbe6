//! How a guardian becomes another binary: what it holds, written down for itself after exec(2).
//!
//! A memory file of lines, whose descriptor is told by `--handover`, as are the others in it by their numbers. All of them
//! stay open over exec, and so do children, blocked signals and those that wait to be read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};

use super::child::{Daemon, Kept};
use super::message::Message;
use super::outcome::Outcome;
use crate::sys::background::take_inherited;
use crate::sys::process::Pid;

/// Of the format: another binary takes it over only if it says the same.
pub const VERSION: u32 = 2;

/// What goes on.
pub struct Handover {
    pub daemon: Daemon,
    /// What daemons handed over, by name.
    pub kept: Kept,
    /// The last upgrade.
    pub outcome: Option<Outcome>,
    /// An upgrade that was asked for meanwhile.
    pub again: bool,
}

/// The same, by the one who holds it.
pub struct Held<'a> {
    pub daemon: &'a Daemon,
    pub kept: Vec<(&'a str, BorrowedFd<'a>)>,
    pub outcome: Option<&'a Outcome>,
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
        let socket = self.daemon.socket.as_raw_fd();
        let mut text = format!("daemon {} {socket}\n", self.daemon.pid);
        for (name, fd) in &self.kept {
            text += &format!("kept {} {name}\n", fd.as_raw_fd());
        }
        for message in self.daemon.outbox() {
            text += &format!("say {message}\n");
        }
        if let Some(outcome) = self.outcome {
            text += &format!("upgrade {outcome}\n");
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
        for fd in kept.chain([self.daemon.socket.as_fd(), file.as_fd()]) {
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
    let (pid, socket) = (Pid::new(pid.parse().ok()?)?, open(socket)?);
    let mut outbox = VecDeque::new();
    let mut kept = Kept::new();
    let mut outcome = None;
    let mut again = false;
    for line in lines {
        match line.split_once(' ') {
            Some(("kept", rest)) => {
                let (number, name) = rest.split_once(' ')?;
                kept.insert(name.to_owned(), open(number)?);
            }
            Some(("say", message)) => outbox.push_back(Message::parse(message)?),
            Some(("upgrade", text)) => outcome = Some(Outcome::parse(text)?),
            _ if line == "again" => again = true,
            _ => return None,
        }
    }
    Some(Handover {
        daemon: Daemon::running(pid, socket, outbox),
        kept,
        outcome,
        again,
    })
}
