//! The watcher: one thread a program, the only one that spawns, signals and reaps that program's process.
//!
//! It sleeps in its mailbox until the machine's next deadline, feeds the machine, carries out the effects, publishes a
//! snapshot, and only then answers: who has an answer also sees the state that it speaks of.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::adopted::Adopted;
use super::ends::{Asked, By, End, Reason};
use super::leftovers::Traces;
use super::machine::{Answer, Effect, Event, Happening, Machine, Policy, Saved, State};
use super::record::{self, Record};
use super::row::Turn;
use super::supervisor::Supervisor;
use super::{Caller, Command, Done, Exit, LeftBehind, Phase, Refusal, Snapshot, events, telling};
use crate::clock::{BootTime, Timestamp};
use crate::logs::Level;
use crate::program::{MaxRestarts, ProgramId};
use crate::report;
use crate::sys::fault;
use crate::sys::memory::Stack;
use crate::sys::process::{Pid, Usage};

/// Mails that may wait; a caller beyond is told that the program is busy.
pub(super) const MAILBOX: usize = 8;

/// What a watcher is told.
pub(super) enum Mail {
    /// With who asks.
    Command(Box<(Command, By)>, Caller<Done>),
    /// Restart the process if it was started with another definition than the one that holds. Where nobody knows:
    /// if it changed.
    Renew(Box<Renewal>, Caller<Done>),
    /// Stop, then remove the program.
    Delete(Box<Asked>, Caller<()>),
    /// It is to be started as the daemon does, now or by the next one.
    Due,
    /// Start, as the daemon does: in turn, where there are several.
    Autostart(Option<Turn>),
    /// Dropping the sender says that all mail before this one has been acted on.
    Reached(SyncSender<()>),
    /// Let go of the program, as another daemon goes on with it. Dropping the sender says that this is done.
    Leave(SyncSender<()>),
    /// Something may have changed: the process may have ended, the definition may be new.
    Wake,
}

/// What a reload asks for.
pub(super) struct Renewal {
    /// The definition has changed in what matters to the process.
    pub(super) changed: bool,
    pub(super) by: Option<By>,
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
    /// The fingerprint of the definition that it was started with, where that is known.
    definition: Option<u64>,
    /// It is not our child.
    adopted: Option<Adopted>,
}

/// A run that has ended and been cleared up after.
struct Dead {
    run: Run,
    /// When that was seen.
    ended: (BootTime, Timestamp),
    /// When all that it wrote was in its log.
    logged: BootTime,
    usage: Option<Usage>,
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
    /// As in the record.
    declared: Option<u64>,
    /// Who asked for the end of the run, which has not come to it yet.
    asked: Option<Box<Asked>>,
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
            due: false,
            declared: self.declared,
            asked: self.asked.clone(),
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
    /// A run that has ended, until its end is on record.
    dead: Option<Box<Dead>>,
    /// Ends that are not on record yet.
    ends: Vec<End>,
    last: Last,
    /// What the run record says, and the generation of the directory that it is in.
    recorded: Option<(u32, Record)>,
    /// What is on record, until it is taken up.
    found: Option<Record>,
    /// It is to be started with the daemon, and has not been yet. Else it goes on as an earlier daemon of this boot left it.
    due: bool,
    /// When the process may be started for which that is being prepared; at once where there is none.
    turn: Option<Turn>,
    /// The program is no longer ours: why not.
    gone: Option<Gone>,
}

impl Watcher {
    pub(super) fn new(
        id: ProgramId,
        supervisor: Arc<Supervisor>,
        published: Arc<Published>,
        (mailbox, inbox): (SyncSender<Mail>, Receiver<Mail>),
        found: Record,
    ) -> Watcher {
        let declared = published.get().program.declared_as();
        Watcher {
            id,
            supervisor,
            published,
            inbox,
            mailbox,
            machine: Machine::default(),
            run: None,
            dead: None,
            ends: Vec::new(),
            last: Last {
                declared,
                ..Last::default()
            },
            recorded: None,
            due: found.due,
            found: Some(found),
            turn: None,
            gone: None,
        }
    }

    /// Watches until the program is removed.
    pub(super) fn watch(&mut self) {
        if let Some(record) = self.found.take()
            && catch_unwind(AssertUnwindSafe(|| self.resume(record))).is_err()
        {
            report::error(format_args!(
                "{}: a bug: its run record could not be taken up",
                self.id
            ));
        }
        let stack = Stack::of_this_thread();
        while self.gone.is_none() {
            let mail = match self.inbox.try_recv() {
                Ok(mail) => Ok(mail),
                Err(_) => {
                    // A start goes deep, and there may be a thousand of us.
                    stack.release();
                    match self.machine.deadline() {
                        Some(at) => self.inbox.recv_timeout(at.since(BootTime::now())),
                        None => self
                            .inbox
                            .recv()
                            .map_err(|_| RecvTimeoutError::Disconnected),
                    }
                }
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
            Some(Mail::Command(request, caller)) => {
                let (command, by) = *request;
                self.command(command, by, caller);
            }
            Some(Mail::Renew(renewal, caller)) => self.renew(*renewal, caller),
            Some(Mail::Delete(asked, caller)) => {
                self.ask(asked);
                self.delete(caller);
            }
            Some(Mail::Due) => {
                self.due = true;
                self.record();
            }
            Some(Mail::Autostart(turn)) => {
                self.turn = turn;
                if std::mem::take(&mut self.due) {
                    self.step(Event::Autostart);
                }
                self.turn = None;
            }
            Some(Mail::Reached(sender)) => drop(sender),
            Some(Mail::Leave(sender)) => {
                self.leave();
                drop(sender);
            }
            Some(Mail::Wake) | None => {}
        }
    }

    fn command(&mut self, command: Command, by: By, caller: Caller<Done>) {
        let asker = Asker::Command;
        // Who asks for something else has the last word.
        self.due &= matches!(command, Command::Signal(_));
        let reason = match command {
            Command::Stop { .. } if self.supervisor.is_ending() => Some(Reason::Shutdown),
            Command::Stop { .. } => Some(Reason::Stop),
            Command::Restart => Some(Reason::Restart),
            Command::Start | Command::Signal(_) => None,
        };
        if let Some(reason) = reason {
            let by = Some(by);
            self.ask(Box::new(Asked { reason, by }));
        }
        match command {
            Command::Start => self.step(Event::Start(asker(caller))),
            Command::Stop { force } => {
                let caller = asker(caller);
                self.step(Event::Stop { caller, force });
            }
            Command::Restart => self.step(Event::Restart(asker(caller))),
            Command::Signal(signal) => caller(self.signal(signal)),
        }
    }

    /// Feeds the machine, carries out what it says, publishes, tells who listens, then answers.
    fn step(&mut self, event: Event<Asker>) {
        let mut events = VecDeque::from([event]);
        let mut answers = Vec::new();
        let mut told = Vec::new();
        while let Some(event) = events.pop_front() {
            let policy = self.policy();
            let end = self.end(&event, &policy);
            self.ends.extend(end);
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
            snapshot.started_with = self.run.as_ref().and_then(|run| run.definition);
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

    /// Has the definition that holds now take effect on what runs, or is about to.
    fn renew(&mut self, renewal: Renewal, caller: Caller<Done>) {
        let Renewal { changed, by } = renewal;
        let snapshot = self.published.get();
        let definition = &snapshot.program.definition;
        let wanted = match self.machine.phase() {
            Phase::Running => {
                let started_with = self.run.as_ref().and_then(|run| run.definition);
                started_with.map_or(changed, |earlier| earlier != definition.fingerprint())
            }
            Phase::Backoff => changed,
            // What it failed by may be what was changed.
            Phase::Failed => changed && definition.enabled,
            Phase::Stopped | Phase::Stopping | Phase::Exited => false,
        };
        if !wanted {
            return caller(Ok(self.done()));
        }
        let reason = Reason::Reload;
        self.ask(Box::new(Asked { reason, by }));
        self.step(Event::Restart(Asker::Command(caller)));
    }

    fn note(&self, level: Level, text: &str) {
        self.supervisor.logs.note(self.id, level, text);
    }

    /// Writes what happened to the program's log; what nobody asked for also to the daemon's. Returns what is to be
    /// told to who listens.
    fn tell(&self, happening: &Happening) -> Option<events::Event> {
        let (level, message) = telling::line(happening, self.policy().stop_timeout);
        let begins = matches!(
            happening,
            Happening::Started { .. } | Happening::Restarted { .. }
        );
        let began = self.last.started_at.filter(|_| begins);
        match began {
            // Of when it began, behind that event: what it has written since comes after both.
            Some(at) => {
                let at = at + Duration::from_micros(1);
                self.supervisor.logs.note_at(at, self.id, level, &message);
            }
            None => self.note(level, &message),
        }
        let name = self.published.get().program.definition.name.clone();
        if level == Level::Error {
            report::warn(format_args!("{} ({name}): {message}", self.id));
        }
        let is_stopped = self.machine.phase() == Phase::Stopped;
        let (kind, exit, reason) = events::kind(happening, is_stopped)?;
        let (at, timestamp) = match (began, self.last.start_time) {
            (Some(at), Some(timestamp)) => (at, timestamp),
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

mod gone;
mod resume;
mod run;

use gone::Gone;

#[cfg(test)]
mod tests;
