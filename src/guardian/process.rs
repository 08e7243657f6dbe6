//! The guardian's loop: signals, the daemon's messages, the ends of children.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::child::{Daemon, Kept};
use super::handover;
use super::message::{Death, Message, Wait, receive};
use super::notify::Notify;
use super::outcome::Outcome;
use super::upgrade::{Stage, Upgrade};
use crate::clock::BootTime;
use crate::report;
use crate::sys::memory;
use crate::sys::process::{self, Pid};
use crate::sys::signals::Signals;
use crate::sys::{self, background, procfs};

/// What the names of listening sockets begin with.
pub const LISTENER: &str = "listen ";
/// What the names of clients' connections begin with, on which no request is under way: these are for the daemon that comes
/// after an upgrade.
pub const CONNECTION: &str = "connection ";

const HUP: i32 = Signal::HUP.as_raw();
const INT: i32 = Signal::INT.as_raw();
const QUIT: i32 = Signal::QUIT.as_raw();
const TERM: i32 = Signal::TERM.as_raw();
pub(super) const KILL: i32 = Signal::KILL.as_raw();
pub(super) const USR2: i32 = Signal::USR2.as_raw();
const CHLD: i32 = Signal::CHILD.as_raw();

/// After so long without anything to do it takes itself to be left alone.
const CALM: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// How the daemon is started.
pub struct Options {
    /// Behind the name of the program; what tells the daemon of its guardian is added.
    pub arguments: Vec<OsString>,
    /// Gets one byte once the daemon serves.
    pub ready: Option<OwnedFd>,
    /// The number of the file in which the guardian that this process was has written down what it held.
    pub handover: Option<i32>,
}

/// Starts the daemon, and starts it again should it die, until it ends by itself: with its exit code.
pub fn run(options: Options) -> ExitCode {
    match Guardian::new(options).and_then(Guardian::guard) {
        Ok(code) => code,
        Err(error) => {
            report::error(format_args!(
                "the daemon cannot be guarded: {}",
                sys::reason(&error)
            ));
            ExitCode::FAILURE
        }
    }
}

pub(super) struct Guardian {
    pub(super) arguments: Vec<OsString>,
    ready: Option<OwnedFd>,
    signals: Signals,
    notify: Notify,
    /// What runs as the daemon: this very binary, whatever becomes of its file.
    pub(super) binary: File,
    /// Where the binary was found, and where an upgrade is looked for.
    pub(super) path: PathBuf,
    /// The one that is under way.
    pub(super) upgrade: Option<Upgrade>,
    /// How the last one went, or how this one goes.
    pub(super) outcome: Option<Outcome>,
    /// Another upgrade was asked for meanwhile.
    pub(super) again: bool,
    pub(super) kept: Kept,
    pub(super) daemon: Option<Daemon>,
    /// How orphans ended that no daemon has taken up.
    pub(super) deaths: HashMap<Pid, Death>,
    /// When the next daemon is to be started.
    pub(super) start_at: BootTime,
    /// Daemons in a row that did not serve for long.
    pub(super) failures: u32,
    /// One has served: from now on there is to be one.
    pub(super) has_served: bool,
    /// What the present daemon was asked for, and the next one is to be asked for if that dies over it.
    pub(super) asked: Option<i32>,
    /// A child may have ended since the orphans were looked after.
    pub(super) child_ended: bool,
}

impl Guardian {
    fn new(options: Options) -> io::Result<Guardian> {
        let before = options.handover.map(handover::take).transpose()?;
        background::keep_inherited();
        let (_, raised) = process::raise_open_files();
        raised?;
        // What it says may go to a file that becomes too large.
        process::ignore_file_size_signal();
        process::become_subreaper()?;
        let mut guardian = Guardian {
            arguments: options.arguments,
            ready: options.ready,
            signals: Signals::catch(&[HUP, INT, QUIT, TERM, USR2, CHLD])?,
            notify: Notify::from_environment(),
            binary: File::open("/proc/self/exe")?,
            path: procfs::exe(Pid::own().number()).unwrap_or_default(),
            upgrade: None,
            outcome: None,
            again: false,
            kept: Kept::new(),
            daemon: None,
            deaths: HashMap::new(),
            start_at: BootTime::now(),
            failures: 0,
            has_served: before.is_some(),
            asked: None,
            child_ended: true,
        };
        if let Some(before) = before {
            guardian.kept = before.kept;
            guardian.daemon = Some(before.daemon);
            guardian.outcome = before.outcome;
            if before.again {
                guardian.begin_upgrade();
            }
        }
        Ok(guardian)
    }

    fn guard(mut self) -> io::Result<ExitCode> {
        loop {
            // All of it before the first wait: a guardian that became another binary has had its signals.
            while let Some(number) = self.signals.next() {
                self.hear(number);
            }
            self.receive();
            if let Some(code) = self.look_after_daemon() {
                return Ok(code);
            }
            self.look_after_upgrade();
            self.look_after_start()?;
            if self.child_ended {
                self.look_after_orphans();
            }
            if let Some(daemon) = &mut self.daemon {
                daemon.flush(&self.kept);
            }
            self.wait();
        }
    }

    /// Waits for a signal, a message, room for one, or what is due next.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut until = self.upgrade.as_ref().and_then(|upgrade| upgrade.until);
        match &self.daemon {
            Some(daemon) => {
                let mut interest = PollFlags::IN;
                if !daemon.outbox().is_empty() {
                    interest |= PollFlags::OUT;
                }
                if !daemon.hung_up {
                    fds.push(PollFd::new(&daemon.socket, interest));
                }
            }
            None => until = Some(until.map_or(self.start_at, |at| at.min(self.start_at))),
        }
        let timeout = until.and_then(|at| Timespec::try_from(at.since(BootTime::now())).ok());
        // Interrupted, or without memory: then it looks round for nothing.
        if let Some(timeout) = timeout {
            let _ = poll(&mut fds, Some(&timeout));
        } else if matches!(poll(&mut fds, Some(&CALM)), Ok(0)) {
            memory::release_unused();
            let _ = poll(&mut fds, None);
        }
    }

    /// Starts a daemon, if that is due.
    ///
    /// # Errors
    /// The very first one cannot be started.
    fn look_after_start(&mut self) -> io::Result<()> {
        if self.daemon.is_some() || BootTime::now() < self.start_at {
            return Ok(());
        }
        let trying = self
            .upgrade
            .as_ref()
            .filter(|upgrade| upgrade.stage == Stage::Trying);
        let binary = trying.map_or(&self.binary, |upgrade| &upgrade.to);
        match Daemon::start(binary, &self.arguments) {
            Ok(daemon) => {
                self.daemon = Some(daemon);
                self.greet();
            }
            Err(error) if !self.has_served => return Err(error),
            Err(error) if trying.is_some() => {
                let reason = sys::reason(&error);
                self.give_up(format!("the new binary cannot be started: {reason}"));
            }
            Err(error) => {
                let reason = sys::reason(&error);
                report::error(format_args!("the daemon cannot be started: {reason}"));
                self.pause();
            }
        }
        Ok(())
    }

    /// Gives a new daemon all that those before it left.
    fn greet(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            for name in self.kept.keys() {
                daemon.tell(Message::Keep(name.clone()));
            }
        }
        self.look_after_orphans();
        if let Some(daemon) = &mut self.daemon {
            daemon.tell(Message::Begin);
            if let Some(number) = self.asked {
                daemon.tell(Message::Signal(number));
            }
        }
        self.tell_outcome();
    }

    fn hear(&mut self, number: i32) {
        let number = match number {
            CHLD => {
                self.child_ended = true;
                return;
            }
            USR2 => return self.begin_upgrade(),
            // The same to a daemon.
            INT => TERM,
            other => other,
        };
        if matches!(number, TERM | QUIT) {
            if self.asked == Some(TERM) {
                return;
            }
            if self.asked.replace(number).is_none() {
                self.failures = 0;
            }
            // Also a daemon that is not there has programs to stop.
            self.start_at = BootTime::now();
            self.end_trial();
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.tell(Message::Signal(number));
        }
    }

    /// Does what the daemon says.
    pub(super) fn receive(&mut self) {
        loop {
            let Some(daemon) = &mut self.daemon else {
                return;
            };
            match receive(&daemon.socket, Wait::Never) {
                Ok((Message::Keep(name), Some(fd))) => drop(self.kept.insert(name, fd)),
                Ok((Message::Keep(name), None)) => report::warn(format_args!(
                    "no descriptor is left to keep {name}: it will not outlive the daemon"
                )),
                Ok((Message::Forget(name), _)) => drop(self.kept.remove(&name)),
                Ok((Message::Ready(version), _)) => {
                    daemon.served_since = Some(BootTime::now());
                    self.has_served = true;
                    // They are its own by now.
                    self.kept.retain(|name, _| !name.starts_with(CONNECTION));
                    self.prove(version);
                    if let Some(ready) = self.ready.take()
                        && let Err(error) = background::announce(ready)
                    {
                        report::warn(format_args!("standard error cannot be let go: {error}"));
                    }
                }
                Ok((Message::Notify(lines), _)) => self.notify.send(&lines),
                Ok((Message::Reap(pid), _)) => {
                    daemon.told.remove(&pid);
                    self.deaths.remove(&pid);
                    // It may not be ours.
                    let _ = process::reap(pid);
                }
                Ok((
                    Message::Begin | Message::Ended(..) | Message::Signal(_) | Message::Upgrade(_),
                    _,
                )) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => {
                    // Then its end is seen.
                    daemon.hung_up |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }
}
