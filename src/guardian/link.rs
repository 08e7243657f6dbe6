//! The daemon's end of the link to its guardian, or the lack of one.
//!
//! What is handed over here outlives the daemon. Without a guardian nothing does, and everything else works as well.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handover;
use super::message::{Death, Message, Wait, receive, send};
use super::notify::Notify;
use super::outcome::Outcome;
use crate::report;
use crate::sys::process::{self, Pid};
use crate::sys::socket::peer_credentials;

/// How long the guardian has to see the end of a process that has ended: it may have been stopped for a while.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const STACK_SIZE: usize = 128 * 1024;

/// The link.
pub struct Link {
    guardian: Option<Guardian>,
    notify: Notify,
    /// The last upgrade, as far as the guardian has told of one.
    upgrade: Mutex<Option<Outcome>>,
}

struct Guardian {
    socket: OwnedFd,
    pid: Pid,
    ends: Mutex<Ends>,
    told: Condvar,
}

/// How processes ended that the guardian keeps for us.
#[derive(Default)]
struct Ends {
    known: HashMap<Pid, Death>,
    /// Whose end somebody will ask for, once there is time.
    expected: HashSet<Pid>,
    /// Whoever is ours is known as such: the others are nobody's.
    settled: bool,
}

impl Link {
    /// No guardian.
    pub fn none() -> Link {
        Link {
            guardian: None,
            notify: Notify::from_environment(),
            upgrade: Mutex::default(),
        }
    }

    /// The link to the guardian at the other end of `socket`, and what an earlier daemon left there, by name. From here
    /// on this process ends with its guardian.
    ///
    /// # Errors
    /// The guardian is gone.
    pub fn connect(socket: OwnedFd) -> io::Result<(Link, Vec<(String, OwnedFd)>)> {
        let pid = Pid::new(peer_credentials(&socket)?.pid)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        process::end_with_parent(pid)?;
        let mut left = Vec::new();
        let mut ends = Ends::default();
        loop {
            match receive(&socket, Wait::AsLongAsItTakes)? {
                (Message::Keep(name), Some(fd)) => left.push((name, fd)),
                (Message::Ended(pid, death), _) => drop(ends.known.insert(pid, death)),
                (Message::Begin, _) => break,
                _ => {}
            }
        }
        let guardian = Guardian {
            socket,
            pid,
            ends: Mutex::new(ends),
            told: Condvar::new(),
        };
        let link = Link {
            guardian: Some(guardian),
            notify: Notify::from_environment(),
            upgrade: Mutex::default(),
        };
        Ok((link, left))
    }

    /// The process that was started, and that others know: the guardian, or this one.
    pub fn main_pid(&self) -> Pid {
        self.guardian
            .as_ref()
            .map_or_else(Pid::own, |guardian| guardian.pid)
    }

    /// The guardian's pid: it is the parent of what lost its own, where that was one of ours.
    pub fn guardian(&self) -> Option<Pid> {
        self.guardian.as_ref().map(|guardian| guardian.pid)
    }

    /// The last upgrade that the guardian was asked for.
    pub fn upgrade(&self) -> Option<Outcome> {
        let upgrade = self.upgrade.lock();
        upgrade.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a descriptor over under this name, in place of what had it.
    pub fn keep(&self, name: &str, fd: BorrowedFd) {
        self.tell(&Message::Keep(name.to_owned()), Some(fd));
    }

    /// Has the guardian let go of what has this name.
    pub fn forget(&self, name: &str) {
        self.tell(&Message::Forget(name.to_owned()), None);
    }

    /// The daemon serves.
    pub fn ready(&self) {
        self.tell(&Message::Ready(handover::VERSION), None);
    }

    /// Tells the service manager, as the process that it knows.
    pub fn notify(&self, lines: &str) {
        match &self.guardian {
            Some(_) => self.tell(&Message::Notify(lines.to_owned()), None),
            None => self.notify.send(lines),
        }
    }

    /// How a process ended that is the guardian's child, as soon as it says so; `None` where it is not, or nobody knows.
    pub fn death_of(&self, pid: Pid) -> Option<Death> {
        self.death_within(pid, SEEN_WITHIN)
    }

    /// The same for who can do without.
    pub fn death_within(&self, pid: Pid, patience: Duration) -> Option<Death> {
        let guardian = self.guardian.as_ref()?;
        let ends = guardian.lock();
        let waiting = guardian
            .told
            .wait_timeout_while(ends, patience, |ends| !ends.known.contains_key(&pid));
        let (ends, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        ends.known.get(&pid).copied()
    }

    /// Somebody will ask how this process ended: until it is reaped it is nobody else's to decide about.
    pub fn expect(&self, pid: Pid) {
        if let Some(guardian) = &self.guardian {
            guardian.lock().expected.insert(pid);
        }
    }

    /// Nothing more is to be known of a process that has ended.
    pub fn reap(&self, pid: Pid) {
        if let Some(guardian) = &self.guardian {
            let mut ends = guardian.lock();
            ends.known.remove(&pid);
            ends.expected.remove(&pid);
            drop(ends);
            self.tell(&Message::Reap(pid), None);
        }
    }

    /// Listens to the guardian: signals go to `on_signal`, and what ends is kept if it `is_ours`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn listen(
        self: &Arc<Self>,
        on_signal: impl Fn(i32) + Send + 'static,
        is_ours: impl Fn(Pid) -> bool + Send + 'static,
    ) -> io::Result<()> {
        if self.guardian.is_none() {
            return Ok(());
        }
        let link = Arc::clone(self);
        std::thread::Builder::new()
            .name("hxe-guardian".to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || link.hear(on_signal, is_ours))
            .map(drop)
    }

    /// Everything that an earlier daemon left is taken up: whoever else has ended is nobody's.
    pub fn settle(&self, is_ours: impl Fn(Pid) -> bool) {
        let Some(guardian) = &self.guardian else {
            return;
        };
        let mut ends = guardian.lock();
        ends.settled = true;
        let Ends {
            known, expected, ..
        } = &mut *ends;
        let strangers = known.extract_if(|pid, _| !expected.contains(pid) && !is_ours(*pid));
        let strangers: Vec<Pid> = strangers.map(|(pid, _)| pid).collect();
        drop(ends);
        for pid in strangers {
            self.reap(pid);
        }
    }

    fn hear(&self, on_signal: impl Fn(i32), is_ours: impl Fn(Pid) -> bool) {
        let Some(guardian) = &self.guardian else {
            return;
        };
        loop {
            match receive(&guardian.socket, Wait::AsLongAsItTakes) {
                Ok((Message::Signal(number), _)) => on_signal(number),
                Ok((Message::Upgrade(outcome), _)) => {
                    *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                }
                Ok((Message::Ended(pid, death), _)) => {
                    let mut ends = guardian.lock();
                    if !ends.settled || ends.expected.contains(&pid) || is_ours(pid) {
                        ends.known.insert(pid, death);
                        guardian.told.notify_all();
                    } else {
                        drop(ends);
                        self.reap(pid);
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                // It is gone, and the kernel is about to end us, too.
                Err(_) => return,
            }
        }
    }

    fn tell(&self, message: &Message, fd: Option<BorrowedFd>) {
        if let Some(guardian) = &self.guardian
            && let Err(error) = send(&guardian.socket, message, fd, Wait::AsLongAsItTakes)
        {
            report::warn(format_args!("the guardian cannot be told: {error}"));
        }
    }
}

impl Guardian {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::ExitStatus;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn who_comes_late_to_ask_is_told_and_strangers_are_let_go_of() {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let pid = |number| Pid::new(number).unwrap();
        let mut ends = Ends::default();
        let death = Death {
            status: ExitStatus::Code(3),
            at: None,
            usage: None,
        };
        for number in [7, 8] {
            ends.known.insert(pid(number), death);
        }
        let link = Link {
            guardian: Some(Guardian {
                socket: ours,
                pid: Pid::own(),
                ends: Mutex::new(ends),
                told: Condvar::new(),
            }),
            notify: Notify::from_environment(),
            upgrade: Mutex::default(),
        };
        link.expect(pid(7));
        link.settle(|_| false);
        let told = || {
            receive(&theirs, Wait::Never)
                .map(|(message, _)| message)
                .ok()
        };
        assert_eq!((told(), told()), (Some(Message::Reap(pid(8))), None));
        assert_eq!(link.death_of(pid(7)), Some(death));
        link.reap(pid(7));
        assert_eq!(told(), Some(Message::Reap(pid(7))));
    }
}
