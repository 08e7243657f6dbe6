//! The daemon as its guardian has it: a child process, and what it is to be told.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::message::{Message, Wait, send};
use crate::clock::BootTime;
use crate::sys::process::Pid;

/// What daemons handed over, by name.
pub(super) type Kept = BTreeMap<String, OwnedFd>;

/// A daemon that was started and has not been reaped.
pub(super) struct Daemon {
    pub(super) pid: Pid,
    pub(super) socket: OwnedFd,
    /// What there was no room for yet.
    outbox: VecDeque<Message>,
    /// Ended children that it was told of.
    pub(super) told: HashSet<Pid>,
    pub(super) served_since: Option<BootTime>,
    /// It has closed its end of the link: it ends, and nothing more comes from there.
    pub(super) hung_up: bool,
}

impl Daemon {
    /// Starts one of this binary.
    ///
    /// # Errors
    /// The system's: no descriptors, no processes, no binary for this machine.
    pub(super) fn start(binary: &File, arguments: &[OsString]) -> io::Result<Daemon> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // For the one child that is started now: there is no other thread.
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let child = command(binary, arguments)
            .arg("--guarded")
            .arg(theirs.as_raw_fd().to_string())
            .arg("--guardian")
            .arg(Pid::own().to_string())
            .spawn()?;
        Ok(Daemon {
            pid: pid_of(&child)?,
            socket: ours,
            outbox: VecDeque::new(),
            told: HashSet::new(),
            served_since: None,
            hung_up: false,
        })
    }

    /// One that runs and serves, and what was still to be told to it.
    pub(super) fn running(pid: Pid, socket: OwnedFd, outbox: VecDeque<Message>) -> Daemon {
        Daemon {
            pid,
            socket,
            outbox,
            told: HashSet::new(),
            served_since: Some(BootTime::now()),
            hung_up: false,
        }
    }

    /// Tells it something, once there is room.
    pub(super) fn tell(&mut self, message: Message) {
        self.outbox.push_back(message);
    }

    /// What it has not been told yet.
    pub(super) fn outbox(&self) -> &VecDeque<Message> {
        &self.outbox
    }

    /// Sends what there is room for; what is `kept` goes with the messages that speak of it.
    pub(super) fn flush(&mut self, kept: &Kept) {
        while let Some(message) = self.outbox.front() {
            let fd = match message {
                Message::Keep(name) => kept.get(name).map(AsFd::as_fd),
                _ => None,
            };
            match send(&self.socket, message, fd, Wait::Never) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Sent, or it is gone.
                _ => drop(self.outbox.pop_front()),
            }
        }
    }
}

/// The variable that glibc takes settings from.
#[cfg(target_env = "gnu")]
const TUNABLES: &str = "GLIBC_TUNABLES";

/// A command of this binary, whose file may be gone by now.
pub(super) fn command(binary: &File, arguments: &[OsString]) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command
        .arg0("hxe")
        .args(arguments)
        // Ctrl-C at a terminal is for the guardian, which passes it on.
        .process_group(0);
    // What glibc would keep in each thread of what that has freed is more than all else that a program takes. It reads this
    // as it is loaded, so only who starts the daemon can say it. Source: mallopt(3), GLIBC_TUNABLES of its manual.
    #[cfg(target_env = "gnu")]
    if std::env::var_os(TUNABLES).is_none() {
        command.env(TUNABLES, "glibc.malloc.tcache_count=0");
    }
    command
}

/// # Errors
/// None that is known.
pub(super) fn pid_of(child: &std::process::Child) -> io::Result<Pid> {
    Pid::new(child.id().cast_signed()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
