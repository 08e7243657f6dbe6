//! The guardian's change to another binary, of the daemon first and then of itself.
//!
//! The old daemon leaves, the new one is tried, and if it does not serve in time the old binary goes on: its file is held
//! open for that. Called by `process`.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::handover::{self, Held};
use super::message::Message;
use super::process::{Guardian, KILL, USR2};
use crate::clock::BootTime;
use crate::report;
use crate::sys;
use crate::sys::process;

/// How long a new binary has to come up. Else the old one goes on.
pub(super) const SERVES_WITHIN: Duration = Duration::from_secs(5);
/// How long a daemon has to answer what it has accepted and leave.
pub(super) const LEAVES_WITHIN: Duration = Duration::from_secs(15);
/// How far the change to another binary has come.
pub(super) enum Upgrade {
    No,
    /// The daemon was asked to leave, and is killed then.
    Leaving {
        to: File,
        until: BootTime,
    },
    /// A daemon of the new binary is to serve by then.
    Trying {
        with: File,
        until: BootTime,
    },
}

impl Guardian {
    /// Asks the daemon to leave, for the binary that is now where ours was.
    pub(super) fn begin_upgrade(&mut self) {
        if !matches!(self.upgrade, Upgrade::No) {
            self.again = true;
            return;
        }
        if self.asked.is_some() {
            return;
        }
        let to = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) => {
                let (path, reason) = (self.path.display(), sys::reason(&error));
                report::error(format_args!("hxe cannot be upgraded: {path}: {reason}"));
                return;
            }
        };
        let now = BootTime::now();
        self.upgrade = match &mut self.daemon {
            Some(daemon) => {
                daemon.outbox.push_back(Message::Signal(USR2));
                Upgrade::Leaving {
                    to,
                    until: now + LEAVES_WITHIN,
                }
            }
            None => {
                self.start_at = now;
                Upgrade::Trying {
                    with: to,
                    until: now + SERVES_WITHIN,
                }
            }
        };
    }

    /// Gives up on whom the upgrade has waited for long enough.
    pub(super) fn look_after_upgrade(&mut self) {
        let (Upgrade::Leaving { until, .. } | Upgrade::Trying { until, .. }) = &self.upgrade else {
            return;
        };
        if BootTime::now() >= *until
            && let Some(daemon) = &self.daemon
        {
            // What follows is decided when it has ended.
            let _ = process::kill(daemon.pid, KILL);
        }
    }

    /// A daemon serves. If it is the new one, its binary is the one from now on, for this process, too.
    pub(super) fn end_upgrade(&mut self, version: u32) {
        match mem::replace(&mut self.upgrade, Upgrade::No) {
            Upgrade::Trying { with, .. } => self.binary = with,
            other => {
                self.upgrade = other;
                return;
            }
        }
        report::info(format_args!("hxe has been upgraded"));
        if let Some(daemon) = &mut self.daemon {
            // What waits to be sent is not handed over.
            daemon.flush();
        }
        // Nor is an end that was asked for: with that daemon this process ends, too.
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

    /// Executes the new binary in this process, which goes on as the guardian that it was.
    fn become_new(&self) -> io::Result<()> {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        let held = Held {
            daemon: daemon.pid,
            socket: daemon.socket.as_fd(),
            kept: self
                .kept
                .iter()
                .map(|(name, fd)| (name.as_str(), fd.as_fd()))
                .collect(),
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
