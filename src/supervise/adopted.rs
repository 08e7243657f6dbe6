//! Processes that an earlier daemon started: nobody's children here, so no SIGCHLD tells of their end.
//!
//! Each is named by a pidfd, and one thread, `hxe-adopted`, waits on all of them; it is there only where there is such a
//! process. It wakes watchers and decides nothing. Called by `watcher`.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use super::STACK_SIZE;
use super::watcher::Mail;
use crate::guardian::{Death, Link};
use crate::report;
use crate::sys::bell::Bell;
use crate::sys::process::{self, ExitStatus, Pid, Usage};
use crate::sys::procfs;

/// How long an ended process is waited for to be reaped by its parent, which only then lets the kernel tell how it ended.
const REAPED_WITHIN: Duration = Duration::from_millis(200);
/// How long the guardian is waited for to say more than a zombie does.
const TOLD_WITHIN: Duration = Duration::from_millis(100);
/// How often processes are looked at that have no descriptor: before Linux 5.3 there is none.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A living process that an earlier daemon started.
#[derive(Debug)]
pub(super) struct Adopted {
    pid: Pid,
    start_ticks: u64,
    /// `None` where the kernel has none.
    pidfd: Option<OwnedFd>,
}

impl Adopted {
    /// Finds the process that was recorded; `None` if it is gone, ended or not, and if it is none that hxe starts.
    pub(super) fn find(pid: Pid, start_ticks: u64) -> Option<Adopted> {
        let pidfd = process::open_pidfd(pid).ok()?;
        // The descriptor names whoever has the number now: this must be the one.
        let stat = procfs::stat(pid.number()).ok()?;
        let is_it = stat.start_ticks == start_ticks && leads_its_session(&stat);
        is_it.then_some(Adopted {
            pid,
            start_ticks,
            pidfd,
        })
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        !procfs::lives(self.pid.number(), self.start_ticks)
    }

    /// How it ended, once it has; `None` where nobody can know. May wait a little for its parent to reap it.
    pub(super) fn death(&self, link: &Link) -> Option<Death> {
        if let Some(stat) = self.zombie() {
            let is_kept = link.guardian().is_some_and(|pid| pid.number() == stat.ppid);
            return match (stat.exit_code, is_kept) {
                (0, true) => link.death_of(self.pid),
                // A program whose end waits for nobody is not to wait for more than its end.
                (code, true) => link
                    .death_within(self.pid, TOLD_WITHIN)
                    .or_else(|| Some(of_zombie(&stat, code))),
                (0, false) => self.reaped(),
                (code, false) => Some(of_zombie(&stat, code)),
            };
        }
        self.reaped()
    }

    /// How it ended, as the kernel tells once it has been reaped.
    fn reaped(&self) -> Option<Death> {
        let pidfd = self.pidfd.as_ref()?;
        // POLLHUP tells that it has been reaped (Linux 6.15).
        let mut fds = [PollFd::new(pidfd, PollFlags::HUP)];
        let patience = Timespec::try_from(REAPED_WITHIN).ok()?;
        let _ = rustix::event::poll(&mut fds, Some(&patience));
        let status = process::exit_of(pidfd)?;
        Some(Death {
            status,
            at: None,
            usage: None,
        })
    }

    fn zombie(&self) -> Option<procfs::Stat> {
        procfs::stat(self.pid.number())
            .ok()
            .filter(|stat| stat.start_ticks == self.start_ticks && stat.is_zombie())
    }
}

/// What a process tells that ended with this status and is not reaped.
fn of_zombie(stat: &procfs::Stat, status: i32) -> Death {
    let cpu_micros = stat.cpu_ticks * 1_000_000 / rustix::param::clock_ticks_per_second();
    Death {
        status: ExitStatus::from_wait(status),
        at: None,
        usage: Some(Usage {
            cpu_micros,
            max_rss_kib: None,
        }),
    }
}

/// Whether a process leads a session, as a program's first process does and never ceases to. Not so init, who may do the
/// same, nor this process and its guardian, whatever a record says.
fn leads_its_session(stat: &procfs::Stat) -> bool {
    const INIT: i32 = 1;
    let own = procfs::stat(Pid::own().number());
    stat.session == stat.pid
        && stat.pid != INIT
        && own.is_ok_and(|own| ![own.pid, own.ppid].contains(&stat.pid))
}

/// Who is to be woken by the end of which adopted process.
#[derive(Default)]
pub(super) struct Adoptions(Mutex<Option<Arc<Waiting>>>);

struct Waiting {
    epoll: OwnedFd,
    watchers: Mutex<HashMap<i32, SyncSender<Mail>>>,
    /// Processes without a descriptor; the bell rings when one is added.
    unnamed: Mutex<Vec<(i32, u64)>>,
    bell: Bell,
}

/// What the bell's events carry: no pid.
const BELL: u64 = 0;

impl Adoptions {
    /// Wakes `watcher` once the process has ended.
    ///
    /// # Errors
    /// No descriptor or no thread is left.
    pub(super) fn watch(&self, adopted: &Adopted, watcher: SyncSender<Mail>) -> io::Result<()> {
        let waiting = self.waiting()?;
        let pid = adopted.pid.number();
        lock(&waiting.watchers).insert(pid, watcher);
        match &adopted.pidfd {
            Some(pidfd) => {
                let data = epoll::EventData::new_u64(u64::from(pid.unsigned_abs()));
                let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
                epoll::add(&waiting.epoll, pidfd, data, once)?;
            }
            None => {
                lock(&waiting.unnamed).push((pid, adopted.start_ticks));
                waiting.bell.ring();
            }
        }
        Ok(())
    }

    /// The thread's side, which is started with the first one.
    fn waiting(&self) -> io::Result<Arc<Waiting>> {
        let mut started = lock(&self.0);
        if let Some(waiting) = &*started {
            return Ok(Arc::clone(waiting));
        }
        let waiting = Arc::new(Waiting {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            watchers: Mutex::default(),
            unnamed: Mutex::default(),
            bell: Bell::new()?,
        });
        let data = epoll::EventData::new_u64(BELL);
        epoll::add(&waiting.epoll, &waiting.bell, data, epoll::EventFlags::IN)?;
        let own = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("hxe-adopted".to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || own.wait())?;
        *started = Some(Arc::clone(&waiting));
        Ok(waiting)
    }
}

impl Waiting {
    fn wait(&self) {
        let mut events = [const { MaybeUninit::uninit() }];
        loop {
            let timeout = (!lock(&self.unnamed).is_empty()).then_some(&LOOK_EVERY);
            match epoll::wait(&self.epoll, &mut events, timeout) {
                Ok(([event], _)) if event.data.u64() == BELL => self.bell.hush(),
                // Put there as a pid.
                Ok(([event], _)) => self.wake(event.data.u64() as i32),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    report::error(format_args!(
                        "adopted processes cannot be waited for: {error}"
                    ));
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            let is_gone = |(pid, start_ticks): &mut (i32, u64)| !procfs::lives(*pid, *start_ticks);
            let gone: Vec<_> = lock(&self.unnamed).extract_if(.., is_gone).collect();
            for (pid, _) in gone {
                self.wake(pid);
            }
        }
    }

    fn wake(&self, pid: i32) {
        if let Some(watcher) = lock(&self.watchers).remove(&pid) {
            // A full mailbox wakes its watcher anyway, and that looks at its process on every wake.
            let _ = watcher.try_send(Mail::Wake);
        }
    }
}

/// What these guard is whole at each step, also where a panic left it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
