//! What the guardian does about the end of a process: of the daemon, or of an orphan that is kept for it.

use std::process::ExitCode;
use std::time::Duration;

use super::message::{Death, Message};
use super::process::Guardian;
use super::upgrade::{Stage, describe};
use crate::clock::BootTime;
use crate::report;
use crate::sys::process::{self, ExitStatus, Pid};
use crate::sys::procfs;

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

impl Guardian {
    /// Sees whether the daemon has ended; the exit code, if that was as it should be.
    pub(super) fn look_after_daemon(&mut self) -> Option<ExitCode> {
        let status = process::reap(self.daemon.as_ref()?.pid).ok().flatten()?;
        // What it said last: descriptors may be among it that are nowhere else any more.
        self.receive();
        let daemon = self.daemon.as_ref()?;
        let served = daemon
            .served_since
            .map(|since| BootTime::now().since(since));
        self.daemon = None;
        self.start_at = BootTime::now();
        if let Ok(end) = self.upgrade_without(status) {
            return end;
        }
        match status {
            ExitStatus::Code(0) => return Some(ExitCode::SUCCESS),
            // What keeps it from starting has been said by itself.
            ExitStatus::Code(code) if !self.has_served => return Some(ExitCode::from(code)),
            ExitStatus::Code(_) | ExitStatus::Signal(_) => {}
        }
        // A first one that is killed may have answered somebody before it could say that it serves.
        if !self.has_served && self.failures >= LAST_ATTEMPTS {
            report::error(format_args!("the daemon {} again", describe(status)));
            return Some(ExitCode::FAILURE);
        }
        report::error(format_args!(
            "the daemon {}; it is started again, and its programs run on",
            describe(status)
        ));
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
    pub(super) fn pause(&mut self) {
        let wait = match self.failures {
            0 => Duration::ZERO,
            // 2^10 times the first is above the longest.
            n => (FIRST_PAUSE * (1 << (n - 1).min(10))).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        self.start_at = BootTime::now() + wait;
    }

    /// Tells the daemon of children that have ended. They are kept until it says that it knows all that it needs to; when
    /// they ended is known also where there was no daemon then.
    pub(super) fn look_after_orphans(&mut self) {
        let checking = match &self.upgrade {
            Some(upgrade) => match upgrade.stage {
                Stage::Checking(pid) => Some(pid),
                Stage::Leaving | Stage::Trying | Stage::Proving(_) => None,
            },
            None => None,
        };
        self.child_ended = false;
        let daemon = self.daemon.as_ref().map(|daemon| daemon.pid);
        for (pid, status) in ended_children() {
            if [daemon, checking].contains(&Some(pid)) {
                continue;
            }
            let death = self.deaths.entry(pid).or_insert_with(|| Death {
                status,
                at: Some(BootTime::now()),
                usage: process::usage_of(pid),
            });
            if let Some(daemon) = &mut self.daemon
                && daemon.told.insert(pid)
            {
                daemon.tell(Message::Ended(pid, *death));
            }
        }
    }
}

/// Our children that have ended, each left as it is.
fn ended_children() -> Vec<(Pid, ExitStatus)> {
    let children = procfs::adopted().unwrap_or_default();
    children
        .into_iter()
        .filter_map(|pid| Some((pid, process::peek_exit(pid).ok().flatten()?)))
        .collect()
}
