//! One run of a program, from its start to its burial: the process, its record, and what it leaves.
//!
//! The order of steps keeps this promise: whenever the daemon dies, the record says what was to be done, no process is
//! without one, and no end is lost. Called by the watcher that has it, on its thread.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Asker, Dead, Event, Last, Run, Watcher};
use crate::clock::{BootTime, Timestamp};
use crate::guardian::Death;
use crate::logs::Level;
use crate::program::Signal;
use crate::report;
use crate::supervise::cgroups::Cgroup;
use crate::supervise::ends::{Asked, End, KEPT, Reason};
use crate::supervise::leftovers::{self, Traces};
use crate::supervise::machine::{Policy, State};
use crate::supervise::record::Record;
use crate::supervise::{Done, Exit, RUN_ID, Refusal, launch, record};
use crate::sys;
use crate::sys::process::{self, ExitStatus, Pid};
use crate::sys::{fault, procfs};

/// A run that ends sooner and leaves processes behind has most likely put itself into the background.
const FORKED_AWAY: Duration = Duration::from_secs(1);

impl Watcher {
    /// Starts the process: the result is the machine's next event.
    pub(super) fn spawn(&mut self) -> Event<Asker> {
        match self.launch() {
            Ok(pid) => Event::Spawned(pid),
            Err(reason) => Event::SpawnFailed(reason),
        }
    }

    fn launch(&mut self) -> Result<Pid, String> {
        let supervisor = Arc::clone(&self.supervisor);
        let snapshot = self.published.get();
        let settings = supervisor.settings();
        let program = &snapshot.program;
        let identity = launch::identify(&program.definition, &settings, program.declared.is_some())
            .map_err(|refusal| format!("finding its user: {refusal}"))?;
        let output = supervisor
            .logs
            .begin_run(self.id, identity.gid)
            .map_err(|error| format!("opening its log pipes: {}", sys::reason(&error)))?;
        let run_id = format!(
            "{:x}-{}-{}",
            BootTime::now().as_micros(),
            Pid::own(),
            self.id.0
        );
        let cgroup = self.cgroup(&run_id);
        let given = launch::Given {
            run_id: &run_id,
            output: &output,
            cgroup: cgroup.as_ref().map(|(_, dir)| dir.as_fd()),
        };
        let request = launch::prepare(
            &supervisor.base,
            program,
            &snapshot.effective,
            &identity,
            &given,
        );
        if let Some(turn) = &self.turn {
            turn.wait();
        }
        let (now, start_time) = (BootTime::now(), Timestamp::now());
        supervisor.events.begin(self.id, now);
        let last = Last {
            exit: None,
            started_at: Some(now),
            start_time: Some(start_time),
            last_restart: (self.machine.restarts() > 0).then_some(start_time),
            left_behind: Vec::new(),
            declared: self.last.declared,
            asked: None,
        };
        let started_with = program.definition.fingerprint();
        let mut traces = None;
        let result = request.and_then(|request| {
            launch::launch(&request, &program.definition, &snapshot.effective, |pid| {
                fault::point("forked");
                // Known before it runs, so that the end of even the shortest run finds its watcher.
                let start_ticks = procfs::stat(pid.number())?.start_ticks;
                traces = Some(Traces {
                    main: pid,
                    start_ticks,
                    mark: mark(&run_id),
                    pipes: output.iter().filter_map(file_id).collect(),
                    descendants: HashSet::new(),
                    origin: leftovers::Origin::Own,
                    cgroup: cgroup.as_ref().map(|(cgroup, _)| cgroup.clone()),
                });
                supervisor.children.add(pid, self.mailbox.clone());
                let run = record::Run {
                    pid,
                    start_ticks,
                    id: run_id.clone(),
                    definition: Some(started_with),
                };
                let record = last.record(self.machine.save(), Some(run));
                supervisor.put_on_record(self.id, &record, &[])?;
                fault::point("fork recorded");
                // The next one is made while this one becomes its program.
                self.turn = None;
                Ok(())
            })
        });
        // Also where this one was not made.
        self.turn = None;
        fault::point("executed");
        match (result, traces) {
            (Ok(pid), Some(traces)) => {
                self.last = last;
                self.run = Some(Run {
                    pid,
                    since: now,
                    id: run_id,
                    traces,
                    definition: Some(started_with),
                    adopted: None,
                });
                Ok(pid)
            }
            (result, traces) => {
                if let Some(traces) = traces {
                    supervisor.children.remove(traces.main);
                }
                if let Some((cgroup, _)) = cgroup {
                    cgroup.remove();
                }
                supervisor.logs.end_run(self.id);
                Err(result
                    .err()
                    .unwrap_or_else(|| "starting: no process was made".to_owned()))
            }
        }
    }

    /// A cgroup for a run; without one it is cleared up after by its traces.
    fn cgroup(&self, run_id: &str) -> Option<(Cgroup, OwnedFd)> {
        let created = self.supervisor.cgroups.as_ref()?.create(run_id);
        created
            .inspect_err(|error| {
                let reason = sys::reason(error);
                report::warn(format_args!("{} runs without a cgroup: {reason}", self.id));
            })
            .ok()
    }

    /// Sees whether our process has ended, and if so clears up after it: what is left is killed and its last words are
    /// kept. It is reaped once that is on record, so that until then its pid is nobody else's and its end is not lost.
    pub(super) fn see_end(&mut self) -> Option<Exit> {
        let run = self.run.as_ref()?;
        let death = match &run.adopted {
            None => match process::peek_exit(run.pid) {
                Ok(None) => return None,
                Ok(Some(status)) => Some(Death {
                    status,
                    at: None,
                    usage: process::usage_of(run.pid),
                }),
                // Somebody else reaped it.
                Err(_) => None,
            },
            Some(adopted) if adopted.has_ended() => adopted.death(&self.supervisor.link),
            Some(_) => return None,
        };
        let run = self.run.take()?;
        fault::point("seen");
        let exit = self.clear_up_after(run, death);
        fault::point("cleared up");
        Some(exit)
    }

    pub(super) fn clear_up_after(&mut self, run: Run, death: Option<Death>) -> Exit {
        let (now, time) = (BootTime::now(), Timestamp::now());
        let exit = exit(death);
        let at = death.and_then(|death| death.at).unwrap_or(now);
        let ended = (at, time - now.since(at));
        let ran = at.since(run.since);
        let sweep = run
            .traces
            .sweep(&self.supervisor.children, self.supervisor.link.guardian());
        if sweep.killed > 0
            && ran < FORKED_AWAY
            && !matches!(self.machine.state(), State::Stopping { .. })
        {
            self.note(
                Level::Warn,
                &format!(
                    "Program ended within a second and left {} processes behind, which were killed: a program must \
                     stay in the foreground",
                    sweep.killed
                ),
            );
        }
        for left in &sweep.left_behind {
            let text = format!(
                "Process {} ({}) may be left behind: it cannot be killed by hxe",
                left.pid, left.name
            );
            self.note(Level::Warn, &text);
            report::warn(format_args!("{}: {text}", self.id));
        }
        self.last.left_behind = sweep.left_behind;
        match self.machine.state() {
            State::Stopping { .. } => self.supervisor.logs.end_run(self.id),
            _ => self.supervisor.logs.end_run_unasked(self.id),
        }
        self.last.exit = Some(exit);
        self.dead = Some(Box::new(Dead {
            run,
            ended,
            logged: BootTime::now(),
            usage: death.and_then(|death| death.usage),
        }));
        exit
    }

    /// Takes note of who asks for the end of the run, unless somebody did before.
    pub(super) fn ask(&mut self, asked: Box<Asked>) {
        if matches!(self.machine.state(), State::Running { .. }) {
            self.last.asked = Some(asked);
        }
    }

    /// The end of a run, or that it could not begin, if it is that what happens.
    pub(super) fn end(&mut self, event: &Event<Asker>, policy: &Policy) -> Option<End> {
        match (event, self.machine.state()) {
            (Event::Exited(exit), State::Running { .. } | State::Stopping { .. }) => {
                let dead = self.dead.as_ref()?;
                let stopping = matches!(self.machine.state(), State::Stopping { .. });
                let asked = self.last.asked.take().filter(|_| stopping);
                let (reason, by) = match asked.map(|asked| *asked) {
                    Some(Asked { reason, by }) => (reason, by),
                    // An earlier hxe did not say.
                    None if stopping => (Reason::Stop, None),
                    None if policy.is_success(*exit) => (Reason::Exit, None),
                    None => (Reason::Crash, None),
                };
                Some(End {
                    reason,
                    exit: Some(*exit),
                    pid: Some(dead.run.pid.number()),
                    started: self.last.started_at.zip(self.last.start_time),
                    ended: dead.ended,
                    logged: dead.logged,
                    usage: dead.usage,
                    by,
                    failure: String::new(),
                })
            }
            (Event::SpawnFailed(failure), State::Starting { .. }) => {
                let now = BootTime::now();
                Some(End {
                    reason: Reason::StartFailed,
                    exit: None,
                    pid: None,
                    started: None,
                    ended: (now, Timestamp::now()),
                    logged: now,
                    usage: None,
                    by: None,
                    failure: failure.clone(),
                })
            }
            _ => None,
        }
    }

    /// Reaps the run whose end is on record. From here on its pid may be somebody else's.
    pub(super) fn bury(&mut self) {
        if let Some(dead) = self.dead.take() {
            let run = dead.run;
            match run.traces.origin {
                leftovers::Origin::Own => drop(process::reap(run.pid)),
                leftovers::Origin::Earlier | leftovers::Origin::EarlierGone => {
                    self.supervisor.link.reap(run.pid);
                }
            }
            self.supervisor.children.remove(run.pid);
        }
    }

    /// Puts on record where the program stands, if it stands elsewhere than before.
    pub(super) fn record(&mut self) {
        let run = self.run.as_ref().map(|run| record::Run {
            pid: run.pid,
            start_ticks: run.traces.start_ticks,
            id: run.id.clone(),
            definition: run.definition,
        });
        let record = Record {
            // What is stopped for the daemon's end is started with the next one, also if this one dies over it.
            due: self.due || self.supervisor.is_ending(),
            ..self.last.record(self.machine.save(), run)
        };
        let generation = self.supervisor.records.generation();
        let recorded = self.recorded.as_ref();
        if self.ends.is_empty()
            && recorded.is_some_and(|(then, known)| *then == generation && *known == record)
        {
            return;
        }
        match self.supervisor.put_on_record(self.id, &record, &self.ends) {
            Ok(()) => {
                self.recorded = Some((generation, record));
                // Without the memory that it took.
                self.ends = Vec::new();
            }
            Err(error) => {
                // Tried again with the next thing that happens.
                self.recorded = None;
                let lost = self.ends.len().saturating_sub(KEPT);
                self.ends.drain(..lost);
                let reason = sys::reason(&error);
                report::warn(format_args!(
                    "the run record of {} cannot be written: {reason}",
                    self.id
                ));
            }
        }
    }

    pub(super) fn terminate(&mut self, pid: Pid) {
        if let Some(run) = &mut self.run {
            run.traces.note_descendants();
        }
        let signal = self.published.get().program.definition.stop_signal;
        self.signal_group(pid, signal);
        fault::point("signalled");
        // A stopped process must run to see the signal.
        self.signal_group(pid, Signal::CONT);
    }

    pub(super) fn kill(&mut self, pid: Pid) {
        if let Some(run) = &mut self.run {
            run.traces.note_descendants();
        }
        self.signal_group(pid, Signal::KILL);
    }

    /// Sends a signal to the process itself, as kill(1) does.
    pub(super) fn signal(&self, signal: Signal) -> Result<Done, Refusal> {
        let run = self.run.as_ref().ok_or(Refusal::NotRunning)?;
        process::kill(run.pid, signal.number())
            .map_err(|error| Refusal::NotSignalled(signal, sys::reason(&error).to_string()))?;
        self.note(Level::Info, &format!("Signal {signal} was sent"));
        Ok(self.done())
    }

    fn signal_group(&self, pid: Pid, signal: Signal) {
        if let Err(error) = process::kill_group(pid, signal.number()) {
            let text = format!("Signal {signal} cannot be sent: {}", sys::reason(&error));
            self.note(Level::Warn, &text);
        }
    }
}

/// How a run ended, by what the kernel told.
fn exit(death: Option<Death>) -> Exit {
    match death.map(|death| death.status) {
        Some(ExitStatus::Code(code)) => Exit::Code(code),
        Some(ExitStatus::Signal(number)) => Exit::Signal(Signal::from_number(number)),
        None => Exit::Unknown,
    }
}

/// What marks a run's processes.
pub(super) fn mark(run_id: &str) -> Vec<u8> {
    format!("{RUN_ID}={run_id}").into_bytes()
}

/// Device and inode of an open file.
fn file_id(file: &OwnedFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(file.as_fd()).ok()?;
    // Field widths differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    Some((stat.st_dev as u64, stat.st_ino as u64))
}
