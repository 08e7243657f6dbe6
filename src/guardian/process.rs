//! The guardian's loop: signals, the daemon's messages, the ends of children.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Signal;

use super::handover;
use super::message::{Message, Wait, receive, send};
use super::notify::Notify;
use super::upgrade::{SERVES_WITHIN, Upgrade};
use crate::clock::BootTime;
use crate::report;
use crate::sys::process::{self, ExitStatus, Pid};
use crate::sys::signals::Signals;
use crate::sys::{self, background, procfs};

/// What the names of listening sockets begin with: these go back to the next daemon.
pub const LISTENER: &str = "listen ";

const HUP: i32 = Signal::HUP.as_raw();
const INT: i32 = Signal::INT.as_raw();
const QUIT: i32 = Signal::QUIT.as_raw();
const TERM: i32 = Signal::TERM.as_raw();
pub(super) const KILL: i32 = Signal::KILL.as_raw();
pub(super) const USR2: i32 = Signal::USR2.as_raw();
const CHLD: i32 = Signal::CHILD.as_raw();

/// Longest wait before a daemon is started again that has served or was killed: its clients are waiting.
const LONGEST_ABSENCE: Duration = Duration::from_millis(500);
/// The same for one that gives up before it serves: what keeps it from that may last.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// First wait, doubled each time in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Daemons in a row that fail before they serve, of a guardian that is to end: then it ends without one.
const LAST_ATTEMPTS: u32 = 3;
/// A daemon that has served for so long is no failure: it is started again at once.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

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
    pub(super) upgrade: Upgrade,
    /// Another upgrade was asked for meanwhile.
    pub(super) again: bool,
    /// What daemons handed over, by name.
    pub(super) kept: BTreeMap<String, OwnedFd>,
    pub(super) daemon: Option<Daemon>,
    /// When the next daemon is to be started.
    pub(super) start_at: BootTime,
    /// Daemons in a row that did not serve for long.
    failures: u32,
    /// One has served: from now on there is to be one.
    has_served: bool,
    /// What the present daemon was asked for, and the next one is to be asked for if that dies over it.
    pub(super) asked: Option<i32>,
}

pub(super) struct Daemon {
    pub(super) pid: Pid,
    pub(super) socket: OwnedFd,
    /// What there was no room for yet.
    pub(super) outbox: VecDeque<Message>,
    /// Ended children that it was told of.
    told: HashSet<Pid>,
    served_since: Option<BootTime>,
}

impl Guardian {
    fn new(options: Options) -> io::Result<Guardian> {
        let before = options.handover.map(handover::take).transpose()?;
        background::keep_inherited();
        let (_, raised) = process::raise_open_files();
        raised?;
        process::become_subreaper()?;
        let now = BootTime::now();
        let mut guardian = Guardian {
            arguments: options.arguments,
            ready: options.ready,
            signals: Signals::catch(&[HUP, INT, QUIT, TERM, USR2, CHLD])?,
            notify: Notify::from_environment(),
            binary: File::open("/proc/self/exe")?,
            path: procfs::exe(Pid::own().number()).unwrap_or_default(),
            upgrade: Upgrade::No,
            again: false,
            kept: BTreeMap::new(),
            daemon: None,
            start_at: now,
            failures: 0,
            has_served: false,
            asked: None,
        };
        if let Some(before) = before {
            guardian.kept = before.kept.into_iter().collect();
            guardian.has_served = true;
            guardian.daemon = Some(Daemon {
                pid: before.daemon,
                socket: before.socket,
                outbox: VecDeque::new(),
                told: HashSet::new(),
                served_since: Some(now),
            });
            if before.again {
                guardian.begin_upgrade();
            }
        }
        Ok(guardian)
    }

    fn guard(mut self) -> io::Result<ExitCode> {
        loop {
            if self.daemon.is_none() && BootTime::now() >= self.start_at {
                match self.start() {
                    Ok(daemon) => self.daemon = Some(daemon),
                    Err(error) if !self.has_served => return Err(error),
                    Err(error) if matches!(self.upgrade, Upgrade::Trying { .. }) => {
                        self.upgrade = Upgrade::No;
                        self.again = false;
                        report::error(format_args!(
                            "the new binary cannot be started: {}: the old one goes on",
                            sys::reason(&error)
                        ));
                    }
                    Err(error) => {
                        report::error(format_args!(
                            "the daemon cannot be started: {}",
                            sys::reason(&error)
                        ));
                        self.pause();
                    }
                }
            }
            self.wait();
            while let Some(number) = self.signals.next() {
                self.hear(number);
            }
            self.receive();
            self.look_after_upgrade();
            if let Some(code) = self.look_after_daemon() {
                return Ok(code);
            }
            self.look_after_orphans();
            if let Some(daemon) = &mut self.daemon {
                daemon.flush();
            }
        }
    }

    /// Waits for a signal, a message, room for one, or the next start.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut until = match &self.upgrade {
            Upgrade::No => None,
            Upgrade::Leaving { until, .. } | Upgrade::Trying { until, .. } => Some(*until),
        };
        match &self.daemon {
            Some(daemon) => {
                let mut interest = PollFlags::IN;
                if !daemon.outbox.is_empty() {
                    interest |= PollFlags::OUT;
                }
                fds.push(PollFd::new(&daemon.socket, interest));
            }
            None => until = Some(self.start_at),
        }
        let timeout = until.and_then(|at| Timespec::try_from(at.since(BootTime::now())).ok());
        // Interrupted, or without memory: then it looks round for nothing.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn start(&mut self) -> io::Result<Daemon> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // For the one child that is started now: there is no other thread.
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let binary = match &self.upgrade {
            Upgrade::Trying { with, .. } => with,
            Upgrade::No | Upgrade::Leaving { .. } => &self.binary,
        };
        let child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
            .arg0("hxe")
            .args(&self.arguments)
            .arg("--guarded")
            .arg(theirs.as_raw_fd().to_string())
            // Ctrl-C at a terminal is for the guardian, which passes it on.
            .process_group(0)
            .spawn()?;
        let pid = Pid::new(child.id().cast_signed())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut daemon = Daemon {
            pid,
            socket: ours,
            outbox: VecDeque::new(),
            told: HashSet::new(),
            served_since: None,
        };
        for (name, fd) in &self.kept {
            if name.starts_with(LISTENER) {
                let message = Message::Keep(name.clone());
                send(
                    &daemon.socket,
                    &message,
                    Some(fd.as_fd()),
                    Wait::AsLongAsItTakes,
                )?;
            }
        }
        for (pid, status) in ended_children(daemon.pid) {
            daemon.told.insert(pid);
            daemon.outbox.push_back(Message::Ended(pid, status));
        }
        daemon.outbox.push_back(Message::Begin);
        daemon.outbox.extend(self.asked.map(Message::Signal));
        daemon.flush();
        Ok(daemon)
    }

    fn hear(&mut self, number: i32) {
        let number = match number {
            CHLD => return,
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
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.outbox.push_back(Message::Signal(number));
        }
    }

    /// Does what the daemon says.
    fn receive(&mut self) {
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
                    self.end_upgrade(version);
                    if let Some(ready) = self.ready.take()
                        && let Err(error) = background::announce(ready)
                    {
                        report::warn(format_args!("standard error cannot be let go: {error}"));
                    }
                }
                Ok((Message::Notify(lines), _)) => self.notify.send(&lines),
                Ok((Message::Reap(pid), _)) => {
                    daemon.told.remove(&pid);
                    // It may not be ours.
                    let _ = process::reap(pid);
                }
                Ok((Message::Begin | Message::Ended(..) | Message::Signal(_), _)) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                // Nothing more, or it is gone: then its end is seen.
                Err(_) => return,
            }
        }
    }

    /// Sees whether the daemon has ended; the exit code, if that was as it should be.
    fn look_after_daemon(&mut self) -> Option<ExitCode> {
        let daemon = self.daemon.as_ref()?;
        let status = process::reap(daemon.pid).ok().flatten()?;
        let served = daemon
            .served_since
            .map(|since| BootTime::now().since(since));
        self.daemon = None;
        self.start_at = BootTime::now();
        match mem::replace(&mut self.upgrade, Upgrade::No) {
            Upgrade::No => {}
            // However it left: its programs are on record.
            Upgrade::Leaving { to, .. } if status != ExitStatus::Code(0) => {
                let until = self.start_at + SERVES_WITHIN;
                self.upgrade = Upgrade::Trying { with: to, until };
                return None;
            }
            Upgrade::Leaving { .. } => {}
            Upgrade::Trying { .. } => {
                report::error(format_args!(
                    "the new binary {} before it served: the old one goes on",
                    describe(status)
                ));
                self.again = false;
                return None;
            }
        }
        match status {
            ExitStatus::Code(0) => return Some(ExitCode::SUCCESS),
            // What keeps it from starting has been said by itself.
            ExitStatus::Code(code) if !self.has_served => return Some(ExitCode::from(code)),
            ExitStatus::Code(_) | ExitStatus::Signal(_) => {}
        }
        report::error(format_args!(
            "the daemon {}; it is started again, and its programs run on",
            describe(status)
        ));
        if !self.has_served {
            return Some(ExitCode::FAILURE);
        }
        if served.is_some_and(|served| served >= LONG_ENOUGH) {
            self.failures = 0;
        }
        self.pause();
        if let ExitStatus::Code(code) = status
            && self.asked.is_some()
            && served.is_none()
            && self.failures >= LAST_ATTEMPTS
        {
            report::error(format_args!(
                "no daemon can be started: hxe ends without one, and its programs run on"
            ));
            return Some(ExitCode::from(code));
        }
        // One that was killed did not fail at what it was told to do.
        if served.is_some() || matches!(status, ExitStatus::Signal(_)) {
            self.start_at = self.start_at.min(BootTime::now() + LONGEST_ABSENCE);
        }
        None
    }

    /// Puts the next start off, longer each time in a row.
    fn pause(&mut self) {
        let wait = match self.failures {
            0 => Duration::ZERO,
            // 2^10 times the first is above the longest.
            n => (FIRST_PAUSE * (1 << (n - 1).min(10))).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        self.start_at = BootTime::now() + wait;
    }

    /// Tells the daemon of children that have ended. They are kept until it says that it knows all that it needs to.
    fn look_after_orphans(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        for (pid, status) in ended_children(daemon.pid) {
            if daemon.told.insert(pid) {
                daemon.outbox.push_back(Message::Ended(pid, status));
            }
        }
    }
}

impl Daemon {
    /// Sends what there is room for.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.outbox.front() {
            match send(&self.socket, message, None, Wait::Never) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Sent, or it is gone.
                _ => drop(self.outbox.pop_front()),
            }
        }
    }
}

/// Our children that have ended, but for the daemon, each left as it is.
fn ended_children(daemon: Pid) -> Vec<(Pid, ExitStatus)> {
    let children = procfs::adopted().unwrap_or_default();
    children
        .into_iter()
        .filter(|pid| *pid != daemon)
        .filter_map(|pid| Some((pid, process::peek_exit(pid).ok().flatten()?)))
        .collect()
}

fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("ended with exit code {code}"),
        ExitStatus::Signal(number) => format!("was killed by signal {number}"),
    }
}
