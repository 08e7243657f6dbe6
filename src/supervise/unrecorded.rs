//! Processes that run while no run record speaks of them: the record was damaged, or the database with the definition is lost.
//!
//! They are found by what they carry: the variables that every program gets, and the program's pipe. Called by `supervisor`
//! when it starts.

use std::os::unix::ffi::OsStrExt;

use crate::clock::{BootTime, Timestamp};
use crate::program::ProgramId;
use crate::report;
use crate::supervise::leftovers::kill_exactly;
use crate::supervise::machine::{Goal, Saved, State};
use crate::supervise::record::{Record, Run};
use crate::supervise::records::Records;
use crate::sys;
use crate::sys::process::Pid;
use crate::sys::procfs::{self, Stat};

/// A process of a program's run.
pub(super) struct Unrecorded {
    pub id: ProgramId,
    pub pid: Pid,
    /// It leads its session, as the first process of a run does. A later one that does so, too, comes behind it.
    pub is_first: bool,
    stat: Stat,
    run_id: String,
}

/// All such processes of this machine that look like a program's. Where `/proc` cannot be read, none.
pub(super) fn all() -> Vec<Unrecorded> {
    let all = procfs::pids().unwrap_or_default();
    let mut found: Vec<Unrecorded> = all
        .into_iter()
        .filter_map(|pid| {
            let environ = procfs::environment(pid).ok()?;
            let variable = |name: &str| {
                let values = environ.split(|byte| *byte == 0);
                let value = values.filter_map(|entry| entry.strip_prefix(name.as_bytes()));
                std::str::from_utf8(value.into_iter().next()?).ok()
            };
            let id = variable("HXE_PROGRAM_ID=")?.parse().ok()?;
            let run_id = variable("HXE_RUN_ID=")?.to_owned();
            let stat = procfs::stat(pid.number()).ok();
            let stat = stat.filter(|stat| !stat.is_zombie())?;
            Some(Unrecorded {
                id,
                pid,
                is_first: stat.session == stat.pid,
                run_id,
                stat,
            })
        })
        .collect();
    found.sort_unstable_by_key(|process| (process.stat.start_ticks, process.pid));
    found
}

impl Unrecorded {
    /// Whether it writes to that program's pipe: another hxe on this machine has programs of the same ids.
    pub(super) fn is_of(&self, id: ProgramId, records: &Records) -> bool {
        self.id == id
            && records
                .pipes(id)
                .into_iter()
                .any(|pipe| procfs::holds_file(self.pid, pipe))
    }

    /// Whether its output went to that program's pipe, which somebody has removed since.
    pub(super) fn was_of(&self, id: ProgramId, records: &Records) -> bool {
        let is_it = |stream: &str, fd: u32| {
            let pipe = records.place(id, stream)?;
            let open = procfs::descriptor(self.pid, fd)?;
            let open = open.as_os_str().as_bytes().strip_suffix(b" (deleted)")?;
            Some(open == pipe.as_os_str().as_bytes())
        };
        self.id == id
            && [("stdout", 1), ("stderr", 2)]
                .iter()
                .any(|(stream, fd)| is_it(stream, *fd) == Some(true))
    }

    /// As it calls itself.
    pub(super) fn name(&self) -> &str {
        &self.stat.comm
    }

    /// Ends it, where a run goes on without its first process.
    pub(super) fn kill(&self) {
        if let Err(error) = kill_exactly(&self.stat) {
            report::warn(format_args!(
                "process {} ({}) of {} is left behind: {}",
                self.pid,
                self.name(),
                self.id,
                sys::reason(&error)
            ));
        }
    }

    /// What a record of it would say.
    pub(super) fn record(&self) -> Record {
        let now = BootTime::now();
        // A run's id begins with when it began.
        let since = self
            .run_id
            .split('-')
            .next()
            .and_then(|micros| u64::from_str_radix(micros, 16).ok())
            .map_or(now, BootTime::from_micros)
            .min(now);
        let ran = i64::try_from(now.since(since).as_micros()).unwrap_or_default();
        Record {
            machine: Saved {
                state: State::Running {
                    pid: self.pid,
                    since,
                },
                goal: Goal::Up,
                failures: 0,
                waits: 0,
                restarts: 0,
                again: false,
            },
            run: Some(Run {
                pid: self.pid,
                start_ticks: self.stat.start_ticks,
                id: self.run_id.clone(),
                definition: None,
            }),
            exit: None,
            started_at: Some(since),
            start_time: Some(Timestamp::from_micros(
                Timestamp::now().as_micros().saturating_sub(ran),
            )),
            last_restart: None,
            due: false,
            declared: None,
            asked: None,
        }
    }
}
