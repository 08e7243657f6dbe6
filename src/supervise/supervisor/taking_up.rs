//! The start of the daemon: each program goes on where its run record stands.
//!
//! A record that cannot be used is no reason to lose a process that runs, and a process that runs is no reason to start a
//! second one: where the record is of no use, the process is looked for. One of a program that the database does not know
//! is named.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::Supervisor;
use crate::program::{Program, ProgramId};
use crate::report;
use crate::store;
use crate::supervise::machine::Machine;
use crate::supervise::record::{Found, Record};
use crate::supervise::unrecorded::{self, Unrecorded};
use crate::supervise::{Refusal, Snapshot};
use crate::sys;
use crate::sys::process::Pid;

/// What runs, looked for only where a record is of no use.
type Running = LazyCell<Vec<Unrecorded>>;

/// A program as its record has it: so it is shown until its watcher has found out what became of it.
pub(super) fn as_recorded(snapshot: Snapshot, record: &Record) -> Snapshot {
    let machine = Machine::<()>::restore(record.machine);
    Snapshot {
        phase: machine.phase(),
        pid: machine.pid().map(Pid::number),
        started_with: record.run.as_ref().and_then(|run| run.definition),
        exit: record.exit,
        started_at: record.started_at,
        start_time: record.start_time,
        restart_count: machine.restarts(),
        last_restart: record.last_restart,
        ..snapshot
    }
}

impl Supervisor {
    /// Takes up the programs of the store; gives those that go on where they stood.
    pub(super) fn take_up(self: &Arc<Self>, programs: Vec<Program>) -> Vec<ProgramId> {
        let running = LazyCell::new(unrecorded::all as fn() -> Vec<Unrecorded>);
        let mut resumed = Vec::new();
        for program in programs {
            let id = program.id;
            self.logs.set_disk(id, program.definition.log_disk);
            let taken_up = match self.find_record(id, &running) {
                Some(record) => {
                    if !record.due {
                        resumed.push(id);
                    }
                    self.add_logs(id).map(|()| record)
                }
                // Before the first is started: a daemon that dies meanwhile leaves word that the others are due.
                None => {
                    let due = program.definition.enabled;
                    self.record_first(id, Record::never_run(due, program.declared_as()))
                }
            };
            if let Err(refusal) = taken_up.and_then(|record| self.adopt(program, record)) {
                report::error(format_args!("{id} cannot be supervised: {refusal}"));
            }
        }
        resumed
    }

    /// Makes what a program needs that has no record: its logs, and a record at its full size, so that no full disk keeps
    /// that from being rewritten.
    pub(super) fn record_first(&self, id: ProgramId, record: Record) -> Result<Record, Refusal> {
        self.add_logs(id)?;
        self.write_first(id, record)
    }

    pub(super) fn write_first(&self, id: ProgramId, record: Record) -> Result<Record, Refusal> {
        self.records
            .write(id, &record)
            .map_err(store::Error::Disk)?;
        Ok(record)
    }

    fn add_logs(&self, id: ProgramId) -> Result<(), Refusal> {
        self.logs
            .add_known(id)
            .map_err(|error| store::Error::Disk(error).into())
    }

    /// Where the program stands: by its record, or else by its process.
    fn find_record(&self, id: ProgramId, running: &Running) -> Option<Record> {
        match self.records.read(id) {
            Ok(Found::Record(record)) => return Some(record),
            Ok(Found::OtherBoot) => {
                report::info(format_args!(
                    "the run record of {id} is of an earlier boot: the program begins anew"
                ));
                return None;
            }
            Ok(Found::Nothing) => {}
            Err(error) => {
                let aside = match self.records.set_aside(id) {
                    Ok(name) => format!("it is now {name} in run_dir"),
                    Err(error) => format!("it cannot be set aside: {}", sys::reason(&error)),
                };
                report::error(format_args!(
                    "what {id} was doing is not known: {}; {aside}",
                    sys::reason(&error)
                ));
            }
        }
        let is_of = |process: &&Unrecorded| process.is_of(id, &self.records);
        let was_of = |process: &&Unrecorded| process.was_of(id, &self.records);
        let processes: Vec<&Unrecorded> = running
            .iter()
            .filter(|process| is_of(process) || was_of(process))
            .collect();
        let Some(process) = processes.iter().find(|process| process.is_first) else {
            // What is left of it would be in the way of its next run.
            processes.into_iter().for_each(Unrecorded::kill);
            return None;
        };
        let pid = process.pid;
        report::warn(format_args!(
            "{id} has no run record, but runs as process {pid}: it is supervised on"
        ));
        if !is_of(process) && !self.logs.has_left(id) {
            report::warn(format_args!(
                "the pipe that process {pid} of {id} writes to was removed: until {id} is restarted its log is not kept, and \
                 it waits once that pipe is full"
            ));
        }
        Some(process.record())
    }

    /// Programs that this boot's records speak of and nobody knows, by what they were declared as: their definitions were
    /// lost, and a file may still have them.
    pub(super) fn lost(&self) -> HashMap<u64, ProgramId> {
        let mut ids = self.records.ids();
        // Of two, the later one.
        ids.sort_unstable();
        ids.into_iter()
            .filter(|id| self.published(*id).is_none())
            .filter_map(|id| match self.records.read(id) {
                Ok(Found::Record(record)) => Some((record.declared?, id)),
                _ => None,
            })
            .collect()
    }

    /// Names what runs and cannot be supervised, and keeps its log.
    pub(super) fn name_the_unknown(&self) {
        let mut unknown = self.records.ids();
        unknown.retain(|id| self.published(*id).is_none());
        if unknown.is_empty() {
            return;
        }
        let running = unrecorded::all();
        for id in unknown {
            for process in running
                .iter()
                .filter(|process| process.is_first && process.is_of(id, &self.records))
            {
                report::error(format_args!(
                    "process {} ({}) of {id} runs, but the database has no definition of {id}: hxe does not supervise it, \
                     but keeps its log; to end it: kill -- -{}",
                    process.pid,
                    process.name(),
                    process.pid
                ));
                if let Err(error) = self.logs.add(id, None) {
                    report::warn(format_args!("the log of {id} is not kept: {error}"));
                }
            }
        }
    }
}
