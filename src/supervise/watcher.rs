//! The watcher: one thread a program, the only one that spawns, signals and reaps that program's process.
//!
//! It sleeps in its mailbox until the machine's next deadline, feeds the machine, carries out the effects, publishes a
//! snapshot, and only then answers: who has an answer also sees the state that it speaks of.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::adopted::Adopted;
use super::leftovers::{self, Traces};
use super::machine::{Answer, Effect, Event, Happening, Machine, Policy, Saved, State};
use super::record::{self, Record};
use super::supervisor::Supervisor;
use super::{
    Caller, Command, Done, Exit, LeftBehind, Phase, RUN_ID, Refusal, Snapshot, Status, events,
    launch, telling,
};
use crate::clock::{BootTime, Timestamp};
use crate::logs::Level;
use crate::program::{MaxRestarts, ProgramId, Signal};
use crate::report;
use crate::sys;
use crate::sys::process::{self, ExitStatus, Pid};
use crate::sys::{fault, procfs};

/// Mails that may wait; a caller beyond is told that the program is busy.
pub(super) const MAILBOX: usize = 8;
/// A run that ends sooner and leaves processes behind has most likely put itself into the background.
const FORKED_AWAY: Duration = Duration::from_secs(1);

/// What callers are told whom another daemon will serve.
pub(super) const LEAVING: Refusal =
    Refusal::Busy("Another hxe takes over: what was asked for goes on, ask again how it ended");

/// What a watcher is told.
pub(super) enum Mail {
    Command(Command, Caller<Done>),
    /// Stop, then remove the program.
    Delete(Caller<()>),
    /// Start, as the daemon does.
    Autostart,
    /// Dropping the sender says that all mail before this one has been acted on.
    Reached(SyncSender<()>),
    /// Let go of the program, as another daemon goes on with it. Dropping the sender says that this is done.
    Leave(SyncSender<()>),
    /// Something may have changed: the process may have ended, the definition may be new.
    Wake,
}

/// A program's snapshot, for all who read.
pub(super) struct Published(Mutex<Arc<Snapshot>>);

impl Published {
    pub(super) fn new(snapshot: Snapshot) -> Published {
        Published(Mutex::new(Arc::new(snapshot)))
    }

    pub(super) fn get(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the snapshot; those who read see all of the change or nothing.
    pub(super) fn update(&self, change: impl FnOnce(&mut Snapshot)) -> Arc<Snapshot> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&current);
        change(&mut next);
        *current = Arc::new(next);
        Arc::clone(&current)
    }
}

/// Who is to be answered.
enum Asker {
    Command(Caller<Done>),
    Delete(Caller<()>),
}

/// A process that this watcher or that of an earlier daemon started, and that is not reaped.
struct Run {
    pid: Pid,
    since: BootTime,
    /// What its processes carry as `HXE_RUN_ID`.
    id: String,
    traces: Traces,
    /// It is not our child.
    adopted: Option<Adopted>,
}

/// What is shown of the present or last run.
#[derive(Default)]
struct Last {
    exit: Option<Exit>,
    started_at: Option<BootTime>,
    start_time: Option<Timestamp>,
    last_restart: Option<Timestamp>,
    /// What it left and could not be killed.
    left_behind: Vec<LeftBehind>,
}

impl Last {
    fn record(&self, machine: Saved, run: Option<record::Run>) -> Record {
        Record {
            machine,
            run,
            exit: self.exit,
            started_at: self.started_at,
            start_time: self.start_time,
            last_restart: self.last_restart,
        }
    }
}

/// One program's watcher.
pub(super) struct Watcher {
    id: ProgramId,
    supervisor: Arc<Supervisor>,
    published: Arc<Published>,
    inbox: Receiver<Mail>,
    /// To be woken by, when a process of ours ends.
    mailbox: SyncSender<Mail>,
    machine: Machine<Asker>,
    run: Option<Run>,
    /// A run that has ended and been cleared up after, until its end is on record.
    dead: Option<Run>,
    last: Last,
    /// What the run record says.
    recorded: Option<Record>,
    /// What an earlier daemon put on record, until it is taken up.
    found: Option<Record>,
    /// The program goes on as an earlier daemon of this boot left it: it is started by no start of the daemon.
    resumed: bool,
    /// The program is no longer ours: why not.
    gone: Option<Gone>,
}

impl Watcher {
    pub(super) fn new(
        id: ProgramId,
        supervisor: Arc<Supervisor>,
        published: Arc<Published>,
        (mailbox, inbox): (SyncSender<Mail>, Receiver<Mail>),
        found: Option<Record>,
    ) -> Watcher {
        Watcher {
            id,
            supervisor,
            published,
            inbox,
            mailbox,
            machine: Machine::default(),
            run: None,
            dead: None,
            last: Last::default(),
            recorded: None,
            resumed: found.is_some(),
            found,
            gone: None,
        }
    }

    /// Watches until the program is removed.
    pub(super) fn watch(mut self) {
        if let Some(record) = self.found.take()
            && catch_unwind(AssertUnwindSafe(|| self.resume(record))).is_err()
        {
            report::error(format_args!(
                "{}: a bug: its run record could not be taken up",
                self.id
            ));
        }
        while self.gone.is_none() {
            let mail = match self.machine.deadline() {
                Some(at) => self.inbox.recv_timeout(at.since(BootTime::now())),
                None => self
                    .inbox
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mail = match mail {
                Ok(mail) => Some(mail),
                Err(RecvTimeoutError::Timeout) => None,
                // Cannot be: we hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // A panic costs the callers at hand their answer, never the program its watcher.
            if catch_unwind(AssertUnwindSafe(|| self.handle(mail))).is_err() {
                report::error(format_args!(
                    "{}: a bug: the watcher panicked and goes on",
                    self.id
                ));
                self.supervisor.events.publish(self.id, Vec::new());
            }
        }
        // Who had written before that is told so; nobody can any more.
        if let Some(gone) = self.gone {
            while let Ok(mail) = self.inbox.try_recv() {
                gone.refuse(mail);
            }
        }
    }

    fn handle(&mut self, mail: Option<Mail>) {
        // First of all, so that no signal goes to a process that has ended.
        if let Some(exit) = self.see_end() {
            self.step(Event::Exited(exit));
        }
        self.step(Event::Tick);
        let mail = match (mail, self.gone) {
            // That end was all that a removal waited for: nothing may be started any more.
            (Some(mail), Some(gone)) => return gone.refuse(mail),
            (mail, _) => mail,
        };
        match mail {
            Some(Mail::Command(command, caller)) => {
                let caller = Asker::Command(caller);
                self.step(match command {
                    Command::Start => Event::Start(caller),
                    Command::Stop { force } => Event::Stop { caller, force },
                    Command::Restart => Event::Restart(caller),
                });
            }
            Some(Mail::Delete(caller)) => self.delete(caller),
            Some(Mail::Autostart) if self.resumed => {}
            Some(Mail::Autostart) => self.step(Event::Autostart),
            Some(Mail::Reached(sender)) => drop(sender),
            Some(Mail::Leave(sender)) => {
                self.leave();
                drop(sender);
            }
            Some(Mail::Wake) | None => {}
        }
    }

    /// Feeds the machine, carries out what it says, publishes, tells who listens, then answers.
    fn step(&mut self, event: Event<Asker>) {
        let mut events = VecDeque::from([event]);
        let mut answers = Vec::new();
        let mut told = Vec::new();
        while let Some(event) = events.pop_front() {
            let policy = self.policy();
            let effects = self.machine.step(event, BootTime::now(), &policy);
            let is_idle = effects.is_empty();
            fault::point_unless(is_idle, "decided");
            // Before anything is done: a daemon that dies in between leaves what was to be done.
            self.record();
            fault::point_unless(is_idle, "recorded");
            self.bury();
            fault::point_unless(is_idle, "buried");
            for effect in effects {
                match effect {
                    Effect::Spawn => events.push_back(self.spawn()),
                    Effect::Terminate(pid) => self.terminate(pid),
                    Effect::Kill(pid) => self.kill(pid),
                    Effect::Tell(happening) => told.extend(self.tell(&happening)),
                    // With what holds now: a stop that a start follows at once speaks of the stopped program.
                    Effect::Answer(asker, answer) => answers.push((asker, answer, self.done())),
                }
            }
        }
        fault::point_unless(told.is_empty(), "done");
        self.publish();
        self.supervisor.events.publish(self.id, told);
        for (asker, answer, done) in answers {
            self.answer(asker, answer, done);
        }
    }

    /// Publishes all that is, at once: nobody sees a state with the process of another.
    fn publish(&self) -> Arc<Snapshot> {
        self.published.update(|snapshot| {
            snapshot.phase = self.machine.phase();
            snapshot.pid = self.run.as_ref().map(|run| run.pid.number());
            snapshot.exit = self.last.exit;
            snapshot.started_at = self.last.started_at;
            snapshot.start_time = self.last.start_time;
            snapshot.restart_count = self.machine.restarts();
            snapshot.last_restart = self.last.last_restart;
        })
    }

    fn done(&self) -> Done {
        Done {
            snapshot: self.publish(),
            left_behind: self.last.left_behind.clone(),
        }
    }

    fn policy(&self) -> Policy {
        let snapshot = self.published.get();
        let definition = &snapshot.program.definition;
        Policy {
            auto_restart: definition.auto_restart,
            max_restarts: MaxRestarts::from_number(snapshot.effective.max_restarts)
                .unwrap_or(MaxRestarts::AtMost(0)),
            restart_policy: definition.restart_policy,
            success_exit_codes: definition.success_exit_codes.clone(),
            stop_timeout: snapshot.effective.stop_timeout,
            restart_delay: snapshot.effective.restart_delay,
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer, done: Done) {
        let refusal = match answer {
            Answer::Done => None,
            Answer::AlreadyRunning => Some(Refusal::AlreadyRunning),
            Answer::NotRunning => Some(Refusal::NotRunning),
            Answer::StartFailed(reason) => Some(Refusal::StartFailed(reason)),
            Answer::Superseded => Some(Refusal::Superseded),
            Answer::WillNotEnd(pid) => Some(Refusal::WillNotEnd(pid.number())),
        };
        match (asker, refusal) {
            (Asker::Command(caller), None) => caller(Ok(done)),
            (Asker::Command(caller), Some(refusal)) => caller(Err(refusal)),
            (Asker::Delete(caller), None | Some(Refusal::NotRunning)) => self.delete(caller),
            (Asker::Delete(caller), Some(refusal)) => caller(Err(refusal)),
        }
    }

    /// Lets go of the program as it is: what is wanted stands in its record, and who waits is told to ask again.
    fn leave(&mut self) {
        for asker in self.machine.release() {
            match asker {
                Asker::Command(caller) => caller(Err(Gone::Left.refusal())),
                Asker::Delete(caller) => caller(Err(Gone::Left.refusal())),
            }
        }
        self.gone = Some(Gone::Left);
    }

    /// Removes the program if nothing of it runs; else stops it and comes back.
    fn delete(&mut self, caller: Caller<()>) {
        if let Some(gone) = self.gone {
            return caller(Err(gone.refusal()));
        }
        if self.run.is_some() || matches!(self.machine.state(), State::Backoff { .. }) {
            return self.step(Event::Stop {
                caller: Asker::Delete(caller),
                force: false,
            });
        }
        let removed = self.supervisor.remove(self.id);
        self.gone = removed.is_ok().then_some(Gone::Removed);
        caller(removed);
    }

    /// Starts the process: the result is the machine's next event.
    fn spawn(&mut self) -> Event<Asker> {
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
        let identity = launch::identify(&program.definition, &settings)
            .map_err(|refusal| format!("finding its user: {refusal}"))?;
        let output = supervisor
            .logs
            .begin_run(self.id, identity.gid)
            .map_err(|error| format!("opening its log pipes: {}", sys::reason(&error)))?;
        let (now, start_time) = (BootTime::now(), Timestamp::now());
        self.supervisor.events.begin(self.id, now);
        let run_id = format!("{:x}-{}-{}", now.as_micros(), Pid::own(), self.id.0);
        let last = Last {
            exit: None,
            started_at: Some(now),
            start_time: Some(start_time),
            last_restart: (self.machine.restarts() > 0).then_some(start_time),
            left_behind: Vec::new(),
        };
        let mut traces = None;
        let result = launch::launch(
            &supervisor.base,
            program,
            &snapshot.effective,
            &identity,
            &run_id,
            &output,
            |pid| {
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
                });
                supervisor.children.add(pid, self.mailbox.clone());
                let run = record::Run {
                    pid,
                    start_ticks,
                    id: run_id.clone(),
                };
                let record = last.record(self.machine.save(), Some(run));
                supervisor.records.write(self.id, &record)?;
                fault::point("fork recorded");
                Ok(())
            },
        );
        fault::point("executed");
        match (result, traces) {
            (Ok(pid), Some(traces)) => {
                self.last = last;
                self.run = Some(Run {
                    pid,
                    since: now,
                    id: run_id,
                    traces,
                    adopted: None,
                });
                Ok(pid)
            }
            (result, traces) => {
                if let Some(traces) = traces {
                    supervisor.children.remove(traces.main);
                }
                supervisor.logs.end_run(self.id);
                Err(result
                    .err()
                    .unwrap_or_else(|| "starting: no process was made".to_owned()))
            }
        }
    }

    /// Sees whether our process has ended, and if so clears up after it: what is left is killed and its last words are
    /// kept. It is reaped once that is on record, so that until then its pid is nobody else's and its end is not lost.
    fn see_end(&mut self) -> Option<Exit> {
        let run = self.run.as_ref()?;
        let status = match &run.adopted {
            None => match process::peek_exit(run.pid) {
                Ok(None) => return None,
                Ok(status) => status,
                // Somebody else reaped it.
                Err(_) => None,
            },
            Some(adopted) if adopted.has_ended() => adopted.exit_status(&self.supervisor.link),
            Some(_) => return None,
        };
        let run = self.run.take()?;
        let exit = exit(status);
        fault::point("seen");
        self.clear_up_after(run, exit);
        fault::point("cleared up");
        Some(exit)
    }

    fn clear_up_after(&mut self, run: Run, exit: Exit) {
        let ran = BootTime::now().since(run.since);
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
        self.supervisor.logs.end_run(self.id);
        self.last.exit = Some(exit);
        self.dead = Some(run);
    }

    /// Reaps the run whose end is on record. From here on its pid may be somebody else's.
    fn bury(&mut self) {
        if let Some(run) = self.dead.take() {
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
    fn record(&mut self) {
        let run = self.run.as_ref().map(|run| record::Run {
            pid: run.pid,
            start_ticks: run.traces.start_ticks,
            id: run.id.clone(),
        });
        let record = self.last.record(self.machine.save(), run);
        if self.recorded.as_ref() == Some(&record) {
            return;
        }
        if let Err(error) = self.supervisor.records.write(self.id, &record) {
            let reason = sys::reason(&error);
            report::warn(format_args!(
                "the run record of {} cannot be written: {reason}",
                self.id
            ));
        }
        self.recorded = Some(record);
    }

    fn terminate(&mut self, pid: Pid) {
        if let Some(run) = &mut self.run {
            run.traces.note_descendants();
        }
        let signal = self.published.get().program.definition.stop_signal;
        self.signal_group(pid, signal);
        fault::point("signalled");
        // A stopped process must run to see the signal.
        self.signal_group(pid, Signal::CONT);
    }

    fn kill(&mut self, pid: Pid) {
        if let Some(run) = &mut self.run {
            run.traces.note_descendants();
        }
        self.signal_group(pid, Signal::KILL);
    }

    fn signal_group(&self, pid: Pid, signal: Signal) {
        if let Err(error) = process::kill_group(pid, signal.number()) {
            let text = format!("Signal {signal} cannot be sent: {}", sys::reason(&error));
            self.note(Level::Warn, &text);
        }
    }

    fn note(&self, level: Level, text: &str) {
        self.supervisor.logs.note(self.id, level, text);
    }

    /// Writes what happened to the program's log; what nobody asked for also to the daemon's. Returns what is to be
    /// told to who listens.
    fn tell(&self, happening: &Happening) -> Option<events::Event> {
        let (level, message) = telling::line(happening, self.policy().stop_timeout);
        self.note(level, &message);
        let name = self.published.get().program.definition.name.clone();
        if level == Level::Error {
            report::warn(format_args!("{} ({name}): {message}", self.id));
        }
        let is_stopped = self.machine.phase() == Phase::Stopped;
        let (kind, exit, reason) = events::kind(happening, is_stopped)?;
        let begins = kind.status() == Status::Running;
        let (at, timestamp) = match (begins, self.last.started_at, self.last.start_time) {
            (true, Some(at), Some(timestamp)) => (at, timestamp),
            _ => (BootTime::now(), Timestamp::now()),
        };
        Some(events::Event {
            kind,
            id: self.id,
            name,
            at,
            timestamp,
            pid: self
                .run
                .as_ref()
                .filter(|_| begins)
                .map(|run| run.pid.number()),
            exit,
            message,
            reason,
        })
    }
}

/// Why a program is no longer ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Removed,
    /// To another daemon.
    Left,
}

impl Gone {
    fn refusal(self) -> Refusal {
        match self {
            Gone::Removed => Refusal::NotFound,
            Gone::Left => LEAVING,
        }
    }

    /// Answers mail that came too late.
    fn refuse(self, mail: Mail) {
        match mail {
            Mail::Command(_, caller) => caller(Err(self.refusal())),
            Mail::Delete(caller) => caller(Err(self.refusal())),
            Mail::Autostart | Mail::Leave(_) | Mail::Reached(_) | Mail::Wake => {}
        }
    }
}

/// How a run ended, by what the kernel told.
fn exit(status: Option<ExitStatus>) -> Exit {
    match status {
        Some(ExitStatus::Code(code)) => Exit::Code(code),
        Some(ExitStatus::Signal(number)) => Exit::Signal(Signal::from_number(number)),
        None => Exit::Unknown,
    }
}

/// What marks a run's processes.
fn mark(run_id: &str) -> Vec<u8> {
    format!("{RUN_ID}={run_id}").into_bytes()
}

/// Device and inode of an open file.
fn file_id(file: &OwnedFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(file.as_fd()).ok()?;
    // Field widths differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    Some((stat.st_dev as u64, stat.st_ino as u64))
}

mod resume;

#[cfg(test)]
mod tests;
