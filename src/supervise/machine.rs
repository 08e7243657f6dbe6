//! A program's life as a pure function: [`Machine::step`] takes an event and the time, and says what is to be done.
//!
//! No I/O, no clock, no channel: the watcher feeds it and carries out its effects. What is wanted ([`Goal`]) and what is
//! ([`State`]) are apart, so a stop during a restart needs no state of its own. Timers are read off the state, and each
//! is guarded by `now >= at`, so a tick that comes early or late is harmless. `R` is the right to answer one caller: a
//! moved value, so nobody is answered twice.
//!
//! ```text
//!            Start, Restart, Autostart                 Spawned
//! Stopped ----------------------------> Starting ----------------> Running --- Stop, Restart ---> Stopping
//! Exited                                 |    ^                      |                              |
//! Failed                     SpawnFailed |    | Tick        Exited   |                       Exited |
//!    ^                                   v    |                      v                              v
//!    +------------------------------- Failed or Backoff <------------+      Stopped, or Starting where up is wanted
//! ```

mod words;

pub use words::{Answer, Effect, Event, Goal, Happening, Next, Origin, Policy, Saved, State};

use std::mem;
use std::time::Duration;

use super::Phase;
use crate::clock::BootTime;
use crate::program::{MaxRestarts, RestartPolicy};
use crate::sys::process::Pid;

/// A run of at least this long is no failed start: its first restart is immediate.
const STARTED_AFTER: Duration = Duration::from_secs(1);
/// A run of at least this long clears the row of failures.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Longest wait before a restart, unless `restart_delay` itself is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// After KILL, how long callers wait for a process that does not end.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// What a caller waits for.
#[derive(Debug)]
enum Waiting<R> {
    Up(R),
    Down(R),
}

/// The life of one program.
#[derive(Debug)]
pub struct Machine<R> {
    state: State,
    goal: Goal,
    waiting: Vec<Waiting<R>>,
    /// Failures in a row that led to a restart.
    failures: u32,
    /// How many of those restarts had to wait.
    waits: u32,
    restarts: u32,
    /// The present start follows a run that was ended for it: a restart, not a start.
    again: bool,
}

impl<R> Default for Machine<R> {
    fn default() -> Machine<R> {
        Machine {
            state: State::Stopped,
            goal: Goal::Down,
            waiting: Vec::new(),
            failures: 0,
            waits: 0,
            restarts: 0,
            again: false,
        }
    }
}

impl<R> Machine<R> {
    /// Goes on where another machine was saved.
    pub fn restore(saved: Saved) -> Machine<R> {
        let Saved {
            state,
            goal,
            failures,
            waits,
            restarts,
            again,
        } = saved;
        Machine {
            state,
            goal,
            waiting: Vec::new(),
            failures,
            waits,
            restarts,
            again,
        }
    }

    pub fn save(&self) -> Saved {
        Saved {
            state: self.state,
            goal: self.goal,
            failures: self.failures,
            waits: self.waits,
            restarts: self.restarts,
            again: self.again,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// The process, where there is one.
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } | State::Stopping { pid, .. } => Some(pid),
            State::Stopped
            | State::Exited
            | State::Failed
            | State::Backoff { .. }
            | State::Starting { .. } => None,
        }
    }

    /// Automatic restarts since the last manual start.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// As the API shows the state. Before a start has come to something there is no process.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Stopped | State::Starting { .. } => Phase::Stopped,
            State::Exited => Phase::Exited,
            State::Failed => Phase::Failed,
            State::Backoff { .. } => Phase::Backoff,
            State::Running { .. } => Phase::Running,
            State::Stopping { .. } => Phase::Stopping,
        }
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<BootTime> {
        match self.state {
            State::Backoff { until } => Some(until),
            State::Stopping {
                kill_at,
                give_up_at,
                ..
            } => kill_at.or(give_up_at),
            State::Stopped
            | State::Exited
            | State::Failed
            | State::Starting { .. }
            | State::Running { .. } => None,
        }
    }

    /// Takes an event; returns what is to be done. After [`Effect::Spawn`] the next event must be its result.
    pub fn step(&mut self, event: Event<R>, now: BootTime, policy: &Policy) -> Vec<Effect<R>> {
        let mut out = Vec::new();
        self.state = match (self.state, event) {
            // A start that is asked for.
            (
                State::Stopped | State::Exited | State::Failed | State::Backoff { .. },
                Event::Start(caller) | Event::Restart(caller),
            ) => {
                self.waiting.push(Waiting::Up(caller));
                self.failures = 0;
                self.waits = 0;
                self.restarts = 0;
                self.spawn(Origin::Requested, &mut out)
            }
            (State::Running { .. }, Event::Start(caller)) => {
                out.push(Effect::Answer(caller, Answer::AlreadyRunning));
                self.state
            }
            (State::Starting { .. } | State::Stopping { .. }, Event::Start(caller)) => {
                self.want_up(caller);
                self.state
            }
            (State::Running { pid, .. }, Event::Restart(caller)) => {
                self.want_up(caller);
                self.terminate(pid, false, now, policy, &mut out)
            }
            (State::Starting { .. } | State::Stopping { .. }, Event::Restart(caller)) => {
                self.want_up(caller);
                self.state
            }
            (State::Stopped, Event::Autostart) => self.spawn(Origin::Autostart, &mut out),
            // An earlier daemon was stopping it for its own end, and died over it.
            (State::Stopping { .. }, Event::Autostart) => {
                self.goal = Goal::Up;
                self.state
            }

            // A stop that is asked for.
            (State::Stopped | State::Exited | State::Failed, Event::Stop { caller, .. }) => {
                out.push(Effect::Answer(caller, Answer::NotRunning));
                self.state
            }
            (State::Backoff { .. }, Event::Stop { caller, .. }) => {
                self.goal = Goal::Down;
                out.push(Effect::Tell(Happening::BackoffCancelled));
                out.push(Effect::Answer(caller, Answer::Done));
                State::Stopped
            }
            (State::Starting { .. }, Event::Stop { caller, .. }) => {
                self.want_down(caller, &mut out);
                self.state
            }
            (State::Running { pid, .. }, Event::Stop { caller, force }) => {
                self.want_down(caller, &mut out);
                self.terminate(pid, force, now, policy, &mut out)
            }
            (
                State::Stopping {
                    pid,
                    kill_at,
                    give_up_at,
                },
                Event::Stop { caller, force },
            ) => {
                self.want_down(caller, &mut out);
                let given_up = kill_at.is_none() && give_up_at.is_none();
                if given_up || (force && kill_at.is_some()) {
                    self.terminate(pid, true, now, policy, &mut out)
                } else {
                    self.state
                }
            }

            // What becomes of a start.
            (State::Starting { origin }, Event::Spawned(pid)) => {
                let again = mem::take(&mut self.again);
                out.push(Effect::Tell(if again {
                    Happening::Restarted { origin }
                } else {
                    Happening::Started { origin }
                }));
                match self.goal {
                    Goal::Up => {
                        self.answer(Goal::Up, &Answer::Done, &mut out);
                        State::Running { pid, since: now }
                    }
                    Goal::Down => self.terminate(pid, false, now, policy, &mut out),
                }
            }
            (State::Starting { origin }, Event::SpawnFailed(reason)) => {
                self.again = false;
                let next = match origin {
                    Origin::Requested => Next::Nothing,
                    Origin::Autostart | Origin::Crash => self.after_failure(Duration::ZERO, policy),
                };
                let tell = Happening::StartFailed {
                    origin,
                    reason: reason.clone(),
                    next,
                };
                out.push(Effect::Tell(tell));
                self.answer(Goal::Up, &Answer::StartFailed(reason), &mut out);
                self.answer(Goal::Down, &Answer::Done, &mut out);
                self.settle(next, State::Failed, now, &mut out)
            }

            // What becomes of a run.
            (State::Running { since, .. }, Event::Exited(exit)) => {
                let success = policy.is_success(exit);
                let comes_back = policy.restarts()
                    && (policy.restart_policy == RestartPolicy::Always || !success);
                let next = if comes_back {
                    self.after_failure(now.since(since), policy)
                } else {
                    Next::Nothing
                };
                out.push(Effect::Tell(Happening::Ended {
                    exit,
                    success,
                    next,
                }));
                let rest = match next {
                    Next::Nothing if success => State::Exited,
                    Next::Nothing | Next::GaveUp(_) | Next::Restart(_) => State::Failed,
                };
                self.settle(next, rest, now, &mut out)
            }
            (State::Stopping { .. }, Event::Exited(exit)) => {
                self.answer(Goal::Down, &Answer::Done, &mut out);
                match self.goal {
                    Goal::Up => {
                        self.again = true;
                        self.failures = 0;
                        self.waits = 0;
                        self.restarts = 0;
                        self.spawn(Origin::Requested, &mut out)
                    }
                    Goal::Down => {
                        out.insert(0, Effect::Tell(Happening::Stopped { exit }));
                        State::Stopped
                    }
                }
            }

            // Deadlines.
            (State::Backoff { .. }, Event::Tick) if !policy.restarts() => {
                self.goal = Goal::Down;
                out.push(Effect::Tell(Happening::BackoffCancelled));
                State::Failed
            }
            (State::Backoff { until }, Event::Tick) if now >= until => self.restart(&mut out),
            (
                State::Stopping {
                    pid,
                    kill_at: Some(at),
                    ..
                },
                Event::Tick,
            ) if now >= at => {
                out.push(Effect::Tell(Happening::Killed));
                self.terminate(pid, true, now, policy, &mut out)
            }
            (
                State::Stopping {
                    pid,
                    kill_at: None,
                    give_up_at: Some(at),
                },
                Event::Tick,
            ) if now >= at => {
                self.answer(Goal::Down, &Answer::WillNotEnd(pid), &mut out);
                self.answer(Goal::Up, &Answer::WillNotEnd(pid), &mut out);
                State::Stopping {
                    pid,
                    kill_at: None,
                    give_up_at: None,
                }
            }

            // Late and repeated news: an early tick, a second autostart, the result of a
            // start or the end of a process that this state does not have.
            (
                _,
                Event::Tick
                | Event::Autostart
                | Event::Spawned(_)
                | Event::SpawnFailed(_)
                | Event::Exited(_),
            ) => self.state,
        };
        out
    }

    /// Lets go of all callers: somebody else goes on, and they are told so.
    pub fn release(&mut self) -> Vec<R> {
        mem::take(&mut self.waiting)
            .into_iter()
            .map(|(Waiting::Up(caller) | Waiting::Down(caller))| caller)
            .collect()
    }

    fn want_up(&mut self, caller: R) {
        self.goal = Goal::Up;
        self.waiting.push(Waiting::Up(caller));
    }

    fn want_down(&mut self, caller: R, out: &mut Vec<Effect<R>>) {
        self.goal = Goal::Down;
        self.waiting.push(Waiting::Down(caller));
        self.answer(Goal::Up, &Answer::Superseded, out);
    }

    fn spawn(&mut self, origin: Origin, out: &mut Vec<Effect<R>>) -> State {
        self.goal = Goal::Up;
        out.push(Effect::Spawn);
        State::Starting { origin }
    }

    fn restart(&mut self, out: &mut Vec<Effect<R>>) -> State {
        self.again = true;
        self.restarts = self.restarts.saturating_add(1);
        self.spawn(Origin::Crash, out)
    }

    fn terminate(
        &mut self,
        pid: Pid,
        force: bool,
        now: BootTime,
        policy: &Policy,
        out: &mut Vec<Effect<R>>,
    ) -> State {
        if force {
            out.push(Effect::Kill(pid));
            State::Stopping {
                pid,
                kill_at: None,
                give_up_at: Some(now + KILL_GRACE),
            }
        } else {
            out.push(Effect::Terminate(pid));
            State::Stopping {
                pid,
                kill_at: Some(now + policy.stop_timeout),
                give_up_at: None,
            }
        }
    }

    /// Counts a failure after a run of `ran`, and says what follows.
    fn after_failure(&mut self, ran: Duration, policy: &Policy) -> Next {
        if ran >= STABLE_AFTER {
            self.failures = 0;
            self.waits = 0;
        }
        match policy.max_restarts {
            _ if !policy.restarts() => return Next::Nothing,
            MaxRestarts::AtMost(limit) if self.failures >= limit => {
                return Next::GaveUp(self.failures.saturating_add(1));
            }
            MaxRestarts::AtMost(_) | MaxRestarts::Unlimited => {}
        }
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        if first && ran >= STARTED_AFTER {
            return Next::Restart(Duration::ZERO);
        }
        let longest = LONGEST_BACKOFF.max(policy.restart_delay);
        // 2^20 times any delay that can be written is above the longest wait.
        let wait = policy
            .restart_delay
            .saturating_mul(1 << self.waits.min(20))
            .min(longest);
        self.waits = self.waits.saturating_add(1);
        Next::Restart(wait)
    }

    /// The state after an end that was not asked for; `rest` where no restart is due.
    fn settle(
        &mut self,
        next: Next,
        rest: State,
        now: BootTime,
        out: &mut Vec<Effect<R>>,
    ) -> State {
        match (next, self.goal) {
            (Next::Restart(Duration::ZERO), Goal::Up) => self.restart(out),
            (Next::Restart(wait), Goal::Up) => State::Backoff { until: now + wait },
            (Next::Restart(_) | Next::Nothing | Next::GaveUp(_), _) => {
                self.goal = Goal::Down;
                rest
            }
        }
    }

    /// Answers all who wait for `goal`.
    fn answer(&mut self, goal: Goal, answer: &Answer, out: &mut Vec<Effect<R>>) {
        for waiting in mem::take(&mut self.waiting) {
            match (goal, waiting) {
                (Goal::Up, Waiting::Up(caller)) | (Goal::Down, Waiting::Down(caller)) => {
                    out.push(Effect::Answer(caller, answer.clone()));
                }
                (Goal::Up, waiting @ Waiting::Down(_)) | (Goal::Down, waiting @ Waiting::Up(_)) => {
                    self.waiting.push(waiting);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
