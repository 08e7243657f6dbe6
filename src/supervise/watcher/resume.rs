//! Taking up a program where its run record stands: its process is watched on, or what became of it is found out.
//!
//! The daemon that wrote the record may have died at any step. Called once, on the watcher's own thread.

use std::collections::HashSet;

use super::run::mark;
use super::{Event, Exit, Run, Watcher, record};
use crate::guardian::Death;
use crate::logs::Level;
use crate::report;
use crate::supervise::adopted::Adopted;
use crate::supervise::leftovers::{Origin, Traces};
use crate::supervise::machine::{Machine, State};
use crate::supervise::record::Record;
use crate::sys;
use crate::sys::process::ExitStatus;

/// What became of the recorded process.
enum Found {
    Alive(Adopted),
    Gone(Option<Death>),
}

impl Watcher {
    /// Goes on where the record stands.
    pub(super) fn resume(&mut self, record: Record) {
        let generation = self.supervisor.records.generation();
        self.recorded = Some((generation, record.clone()));
        self.machine = Machine::restore(record.machine);
        self.last.exit = record.exit;
        self.last.started_at = record.started_at;
        self.last.start_time = record.start_time;
        self.last.last_restart = record.last_restart;
        self.last.asked = record.asked;
        let is_starting = matches!(record.machine.state, State::Starting { .. });
        match record.run {
            // The start was wanted and did not come to a process.
            None if is_starting => self.start_again(),
            None => drop(self.publish()),
            Some(run) => match self.take_up(&run) {
                Found::Alive(adopted) => self.adopt(run, adopted),
                // It had not become its program when the daemon died, and died with it.
                Found::Gone(death) if is_starting && never_ran(death) => {
                    self.clear_up_after_gone(run, death);
                    self.bury();
                    self.last.exit = None;
                    self.start_again();
                }
                Found::Gone(death) => {
                    let pid = run.pid;
                    let exit = self.clear_up_after_gone(run, death);
                    if is_starting {
                        self.step(Event::Spawned(pid));
                    }
                    self.step(Event::Exited(exit));
                }
            },
        }
    }

    fn start_again(&mut self) {
        let event = self.spawn();
        self.step(event);
    }

    /// Finds the recorded process.
    fn take_up(&self, run: &record::Run) -> Found {
        match Adopted::find(run.pid, run.start_ticks) {
            None => Found::Gone(None),
            Some(adopted) if adopted.has_ended() => {
                Found::Gone(adopted.death(&self.supervisor.link))
            }
            Some(adopted) => Found::Alive(adopted),
        }
    }

    /// Watches a process that an earlier daemon started.
    fn adopt(&mut self, run: record::Run, adopted: Adopted) {
        let pid = run.pid;
        self.supervisor.children.add(pid, self.mailbox.clone());
        if let Err(error) = self
            .supervisor
            .adoptions
            .watch(&adopted, self.mailbox.clone())
        {
            let reason = sys::reason(&error);
            let text = format!("The end of process {pid} will be seen late: {reason}");
            self.note(Level::Warn, &text);
            report::warn(format_args!("{}: {text}", self.id));
        }
        self.run = Some(self.run(run, Some(adopted), Origin::Earlier));
        match self.machine.state() {
            State::Starting { .. } => self.step(Event::Spawned(pid)),
            State::Stopping { kill_at, .. } => {
                // The signal may not have been sent. Twice is better than never.
                match kill_at {
                    Some(_) => self.terminate(pid),
                    None => self.kill(pid),
                }
                self.publish();
            }
            _ => drop(self.publish()),
        }
    }

    fn clear_up_after_gone(&mut self, run: record::Run, death: Option<Death>) -> Exit {
        let run = self.run(run, None, Origin::EarlierGone);
        self.clear_up_after(run, death)
    }

    fn run(&self, run: record::Run, adopted: Option<Adopted>, origin: Origin) -> Run {
        let cgroups = self.supervisor.cgroups.as_ref();
        let pipes = self.supervisor.logs.pipes(self.id).unwrap_or_default();
        Run {
            pid: run.pid,
            since: self.last.started_at.unwrap_or_default(),
            traces: Traces {
                main: run.pid,
                start_ticks: run.start_ticks,
                mark: mark(&run.id),
                pipes,
                descendants: HashSet::new(),
                origin,
                cgroup: cgroups.and_then(|cgroups| cgroups.of_run(&run.id, run.pid)),
            },
            id: run.id,
            definition: run.definition,
            adopted,
        }
    }
}

/// Whether a process that was recorded before it became its program died before that: killed with its daemon, or by itself
/// as it was not permitted to go on. Where nobody knows, so it most likely was, as the one moment is short and the other
/// as long as the program runs.
fn never_ran(death: Option<Death>) -> bool {
    const KILL: i32 = 9;
    matches!(
        death.map(|death| death.status),
        None | Some(ExitStatus::Signal(KILL) | ExitStatus::Code(127))
    )
}
