//! Signals: SIGCHLD wakes the watchers whose processes have ended, the others go to the daemon.
//!
//! SIGCHLD coalesces, so it is a hint only: the thread `hxe-signals` looks which of the known processes have ended and
//! wakes their watchers, who reap. It reaps by itself only strangers: orphans of programs that became our children.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::looks::Looks;
use super::watcher::Mail;
use crate::report;
use crate::sys::process::{self, Pid};
use crate::sys::procfs;

/// How often orphans are looked for that orphans have left.
const MOST_LOOKS: usize = 100;

/// What the outside asks of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Make anew what the daemon serves in `run_dir`, as that was taken away.
    Renew,
    /// HUP: read the configuration again.
    Reload,
    /// USR2: end, and leave the programs running, for the binary now on disk to go on.
    Upgrade,
    /// QUIT: end, and leave the programs running.
    Leave,
    /// TERM or INT: stop every program, then end.
    Terminate,
}

impl Request {
    /// What a signal asks for.
    fn of(number: i32) -> Option<Request> {
        match number {
            SIGTERM | SIGINT => Some(Request::Terminate),
            SIGQUIT => Some(Request::Leave),
            SIGUSR2 => Some(Request::Upgrade),
            SIGHUP => Some(Request::Reload),
            _ => None,
        }
    }
}

/// What was asked for and the daemon has not taken up yet: what is asked for again meanwhile is one request.
#[derive(Default)]
pub struct Requests {
    waiting: Mutex<Option<Request>>,
    asked: Condvar,
}

impl Requests {
    /// Waits for the next request.
    pub fn next(&self) -> Request {
        let waiting = self
            .asked
            .wait_while(self.lock(), |waiting| waiting.is_none());
        let request = waiting.unwrap_or_else(PoisonError::into_inner).take();
        request.expect("it was waited for until there is one")
    }

    /// Whether the daemon is to end.
    pub fn is_end(&self) -> bool {
        *self.lock() > Some(Request::Reload)
    }

    /// Asks for what a signal asks for.
    pub fn signal(&self, number: i32) {
        if let Some(request) = Request::of(number) {
            self.ask(request);
        }
    }

    /// Asks for this, unless something that goes further is asked for already.
    pub fn ask(&self, request: Request) {
        let mut waiting = self.lock();
        // The one that goes further: a reload puts no end off, and what is to be stopped is not left.
        *waiting = (*waiting).max(Some(request));
        self.asked.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processes that have a watcher, with the watchers to wake.
#[derive(Default)]
pub struct Children {
    live: Mutex<HashMap<Pid, SyncSender<Mail>>>,
    pub(super) looks: Looks,
}

impl Children {
    pub(super) fn add(&self, pid: Pid, watcher: SyncSender<Mail>) {
        self.lock().insert(pid, watcher);
    }

    pub(super) fn remove(&self, pid: Pid) {
        self.lock().remove(&pid);
    }

    pub fn contains(&self, pid: i32) -> bool {
        Pid::new(pid).is_some_and(|pid| self.lock().contains_key(&pid))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, SyncSender<Mail>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the watchers of all processes that have ended. Each is asked for, as the kernel shows of those that have ended
    /// only the first: with 1,000 programs that takes half a millisecond a death, and deaths meanwhile are seen in one go.
    fn wake(&self) {
        for (pid, watcher) in self.lock().iter() {
            if matches!(process::peek_exit(*pid), Ok(Some(_))) {
                // A full mailbox wakes its watcher anyway, and that reaps on every wake.
                let _ = watcher.try_send(Mail::Wake);
            }
        }
    }

    /// Reaps those of our children that have ended and that nobody watches; whether others of them live.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) fn reap_strangers(&self) -> io::Result<bool> {
        for _ in 0..MOST_LOOKS {
            let (mut living, mut reaped) = (false, false);
            for pid in procfs::adopted()? {
                if !self.contains(pid.number()) {
                    // By its own id: a wait for any child could take one that a watcher needs.
                    match process::reap(pid) {
                        Ok(None) => living = true,
                        // It may have left us children of its own since.
                        Ok(Some(_)) | Err(_) => reaped = true,
                    }
                }
            }
            if living || !reaped {
                return Ok(living);
            }
        }
        // They go on dying, so some live.
        Ok(true)
    }
}

/// Catches the daemon's signals; to be called before any other thread is started, so that every thread has them caught.
///
/// # Errors
/// The handlers cannot be installed.
pub fn catch() -> io::Result<Signals> {
    Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR2])
}

/// Starts `hxe-signals`; what the outside asks for arrives at the requests that are returned.
///
/// # Errors
/// The thread cannot be started.
pub fn start(signals: Signals, children: Arc<Children>) -> io::Result<Arc<Requests>> {
    let requests = Arc::new(Requests::default());
    let asked = Arc::clone(&requests);
    std::thread::Builder::new()
        .name("hxe-signals".to_owned())
        .stack_size(super::STACK_SIZE)
        .spawn(move || listen(signals, &children, &asked))?;
    Ok(requests)
}

fn listen(mut signals: Signals, children: &Children, requests: &Requests) {
    for signal in signals.forever() {
        if signal != SIGCHLD {
            requests.signal(signal);
            continue;
        }
        children.wake();
        // The signal may have been for both.
        if let Err(error) = children.reap_strangers() {
            report::warn(format_args!("orphans cannot be reaped: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_again_is_one_request_and_an_end_goes_first() {
        let requests = Requests::default();
        for _ in 0..1000 {
            requests.ask(Request::Reload);
        }
        assert!(!requests.is_end());
        assert_eq!(requests.next(), Request::Reload);
        for request in [Request::Reload, Request::Terminate, Request::Reload] {
            requests.ask(request);
        }
        assert!(requests.is_end());
        assert_eq!(requests.next(), Request::Terminate);
    }
}
