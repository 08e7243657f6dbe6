//! The guardian's change to another binary, of the daemon first and then of itself.
//!
//! ```text
//! checking -> leaving -> trying -> proving -> done
//! ```
//!
//! The new binary first says what it thinks of the configuration, while the daemon serves as ever: most that are no good
//! are found out here. Then the old daemon leaves and the new one is tried; one that does not serve in time, or not for
//! long, is given up, and the old binary goes on: its file is held open for that. Called by `process`.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;

use super::child::{command, pid_of};
use super::handover::{self, Held};
use super::message::Message;
use super::outcome::{Outcome, Progress};
use super::process::{Guardian, KILL, USR2};
use crate::clock::BootTime;
use crate::report;
use crate::sys;
use crate::sys::fault::patience;
use crate::sys::process::{self, ExitStatus, Pid};

/// How long a new binary has to check the configuration, and then again to come up. Else the old one goes on.
const SERVES_WITHIN: Duration = Duration::from_secs(5);
/// How long a daemon has to answer what it has accepted and leave.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);
/// How long a new daemon has to serve until its binary counts as good.
const PROVES_WITHIN: Duration = Duration::from_secs(1);

const ASKED_TO_END: &str = "hxe was asked to end";

/// A change to another binary that is under way.
pub(super) struct Upgrade {
    pub(super) to: File,
    pub(super) stage: Stage,
    /// The end of the stage; `None` if it is over, and whom it waited for has been killed.
    pub(super) until: Option<BootTime>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// This process of the new binary checks the configuration.
    Checking(Pid),
    /// The daemon was asked to leave.
    Leaving,
    /// A daemon of the new binary is to serve.
    Trying,
    /// It serves. Its binary as a guardian takes over a handover of this version.
    Proving(u32),
}

impl Guardian {
    /// Begins to change to the binary that is now where ours was.
    pub(super) fn begin_upgrade(&mut self) {
        if self.upgrade.is_some() {
            self.again = true;
            return;
        }
        if self.asked.is_some() {
            return;
        }
        let number = self
            .outcome
            .as_ref()
            .map_or(1, |last| last.number.wrapping_add(1));
        self.outcome = Some(Outcome {
            number,
            progress: Progress::UnderWay,
        });
        self.tell_outcome();
        let until = BootTime::now() + patience(SERVES_WITHIN, "checks");
        match self.check_binary() {
            Ok((to, pid)) => {
                self.upgrade = Some(Upgrade {
                    to,
                    stage: Stage::Checking(pid),
                    until: Some(until),
                });
            }
            Err(error) => {
                let (path, reason) = (self.path.display(), sys::reason(&error));
                self.give_up(format!("{path}: {reason}"));
            }
        }
    }

    /// Has the binary that is now where ours was check the configuration.
    fn check_binary(&self) -> io::Result<(File, Pid)> {
        let to = OpenOptions::new()
            .read(true)
            // A FIFO would be waited for.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.path)?;
        let child = command(&to, &self.arguments)
            .arg("--check")
            .stdin(Stdio::null())
            // What it finds wrong goes to the log.
            .stdout(Stdio::null())
            .spawn()?;
        let pid = pid_of(&child)?;
        Ok((to, pid))
    }

    /// Goes on with what has come to its end, and gives up on whom it has waited for long enough.
    pub(super) fn look_after_upgrade(&mut self) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        let in_time = upgrade.until.is_some();
        if let Stage::Checking(pid) = upgrade.stage
            && let Ok(Some(status)) = process::reap(pid)
        {
            return match status {
                ExitStatus::Code(0) if in_time => self.have_daemon_leave(),
                _ if in_time => {
                    let what = describe(status);
                    self.give_up(format!("hxe daemon --check of the new binary {what}"));
                }
                _ => self.give_up(format!(
                    "hxe daemon --check of the new binary did not end within {} s",
                    SERVES_WITHIN.as_secs()
                )),
            };
        }
        if upgrade.until.is_none_or(|until| BootTime::now() < until) {
            return;
        }
        upgrade.until = None;
        match (upgrade.stage, &self.daemon) {
            (Stage::Proving(version), Some(_)) => self.end_upgrade(version),
            // What follows is decided when it has ended.
            (Stage::Checking(pid), _) => drop(process::kill_group(pid, KILL)),
            (_, Some(daemon)) => drop(process::kill(daemon.pid, KILL)),
            (_, None) => upgrade.until = Some(BootTime::now() + SERVES_WITHIN),
        }
    }

    /// Stops a check or a new daemon that does not serve yet, as hxe is to end: the binary that is known to be good does
    /// that best, and at once.
    pub(super) fn end_trial(&mut self) {
        let Some(upgrade) = &self.upgrade else {
            return;
        };
        match (upgrade.stage, &self.daemon) {
            (Stage::Checking(pid), _) => {
                // Its end is that of a stranger.
                let _ = process::kill_group(pid, KILL);
                self.give_up(ASKED_TO_END.to_owned());
            }
            // What follows is decided when it has ended.
            (Stage::Trying, Some(daemon)) => drop(process::kill(daemon.pid, KILL)),
            (Stage::Trying, None) => self.give_up(ASKED_TO_END.to_owned()),
            (Stage::Leaving | Stage::Proving(_), _) => {}
        }
    }

    fn have_daemon_leave(&mut self) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        let now = BootTime::now();
        (upgrade.stage, upgrade.until) = match &mut self.daemon {
            Some(daemon) => {
                let until = now + patience(LEAVES_WITHIN, "leaves");
                daemon.tell(Message::Signal(USR2));
                (Stage::Leaving, Some(until))
            }
            None => {
                self.start_at = now;
                (Stage::Trying, Some(now + patience(SERVES_WITHIN, "starts")))
            }
        };
    }

    /// A daemon serves; `version` is that of a handover to its binary.
    pub(super) fn prove(&mut self, version: u32) {
        if let Some(upgrade) = &mut self.upgrade
            && upgrade.stage == Stage::Trying
        {
            upgrade.stage = Stage::Proving(version);
            upgrade.until = Some(BootTime::now() + PROVES_WITHIN);
        }
    }

    /// The daemon has ended. Whether there is no more to be done about it than to start the next one; else how this
    /// process ends, or `Err` if the upgrade has no part in it.
    pub(super) fn upgrade_without(&mut self, status: ExitStatus) -> Result<Option<ExitCode>, ()> {
        let Some(Upgrade { stage, until, .. }) = &mut self.upgrade else {
            return Err(());
        };
        let is_end = status == ExitStatus::Code(0);
        match *stage {
            Stage::Checking(_) => return Err(()),
            // It was asked for something else before.
            Stage::Leaving if is_end => return Ok(Some(ExitCode::SUCCESS)),
            // It was asked for something else meanwhile, which the binary that is known to be good does best.
            Stage::Leaving if self.asked.is_some() => {
                self.give_up(ASKED_TO_END.to_owned());
            }
            // However it left: its programs are on record.
            Stage::Leaving => {
                *stage = Stage::Trying;
                *until = Some(self.start_at + patience(SERVES_WITHIN, "starts"));
            }
            Stage::Trying if self.asked.is_some() => self.give_up(ASKED_TO_END.to_owned()),
            Stage::Trying if until.is_none() => self.give_up(format!(
                "the new binary did not serve within {} s",
                SERVES_WITHIN.as_secs()
            )),
            Stage::Trying => {
                let what = describe(status);
                self.give_up(format!("the new binary {what} before it served"));
            }
            Stage::Proving(_) if is_end && self.asked.is_some() => {
                return Ok(Some(ExitCode::SUCCESS));
            }
            Stage::Proving(_) => {
                let what = describe(status);
                self.give_up(format!("the new binary {what} soon after it served"));
            }
        }
        Ok(None)
    }

    /// Stays with the old binary.
    pub(super) fn give_up(&mut self, reason: String) {
        self.upgrade = None;
        report::error(format_args!(
            "hxe cannot be upgraded: {reason}; the old one goes on"
        ));
        self.set_progress(Progress::GivenUp(reason));
        if mem::take(&mut self.again) {
            self.begin_upgrade();
        }
    }

    /// The new daemon is good: its binary is the one from now on, for this process, too.
    fn end_upgrade(&mut self, version: u32) {
        let Some(upgrade) = self.upgrade.take() else {
            return;
        };
        self.binary = upgrade.to;
        report::info(format_args!("hxe has been upgraded"));
        self.set_progress(Progress::Done);
        // An end that was asked for is not handed over: with that daemon this process ends, too.
        if version == handover::VERSION && self.asked.is_none() {
            // Returns only if it could not be done.
            let error = self.become_new().err();
            let reason = error.map_or_else(String::new, |error| sys::reason(&error));
            report::warn(format_args!("the guardian stays the old one: {reason}"));
        }
        if mem::take(&mut self.again) {
            self.begin_upgrade();
        }
    }

    fn set_progress(&mut self, progress: Progress) {
        if let Some(outcome) = &mut self.outcome {
            outcome.progress = progress;
        }
        self.tell_outcome();
    }

    /// Tells the daemon of the last upgrade.
    pub(super) fn tell_outcome(&mut self) {
        if let (Some(daemon), Some(outcome)) = (&mut self.daemon, &self.outcome) {
            daemon.tell(Message::Upgrade(outcome.clone()));
        }
    }

    /// Executes the new binary in this process, which goes on as the guardian that it was.
    fn become_new(&self) -> io::Result<()> {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        let held = Held {
            daemon,
            kept: self
                .kept
                .iter()
                .map(|(name, fd)| (name.as_str(), fd.as_fd()))
                .collect(),
            outcome: self.outcome.as_ref(),
            again: self.again,
        };
        let file = held.write()?;
        held.stay_open(&file, true)?;
        let error = Command::new(format!("/proc/self/fd/{}", self.binary.as_raw_fd()))
            .arg0("hxe")
            .args(&self.arguments)
            .arg("--handover")
            .arg(file.as_raw_fd().to_string())
            .exec();
        held.stay_open(&file, false)?;
        Err(error)
    }
}

/// How a process ended, to be put behind its name.
pub(super) fn describe(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("ended with exit code {code}"),
        ExitStatus::Signal(number) => format!("was killed by signal {number}"),
    }
}
