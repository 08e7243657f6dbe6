//! What the machine hears and says: states, events, effects. Data only.

use std::time::Duration;

use crate::clock::BootTime;
use crate::program::{MaxRestarts, RestartPolicy};
use crate::supervise::Exit;
use crate::sys::process::Pid;

/// What decides a program's life, read off its definition at each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub auto_restart: bool,
    pub max_restarts: MaxRestarts,
    pub restart_policy: RestartPolicy,
    pub success_exit_codes: Vec<u8>,
    pub stop_timeout: Duration,
    pub restart_delay: Duration,
}

impl Policy {
    /// Whether there are automatic restarts at all.
    pub(super) fn restarts(&self) -> bool {
        self.auto_restart && self.max_restarts != MaxRestarts::AtMost(0)
    }

    pub fn is_success(&self, exit: Exit) -> bool {
        matches!(exit, Exit::Code(code) if self.success_exit_codes.contains(&code))
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Down,
    Up,
}

/// Why a run was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody asked for it.
    Requested,
    /// The program is enabled and the daemon started.
    Autostart,
    /// The run before ended without being asked to.
    Crash,
}

impl Origin {
    /// As the API shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Origin::Requested => "requested",
            Origin::Autostart => "autostart",
            Origin::Crash => "crash",
        }
    }
}

/// What is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No process, as wanted: never started, or stopped by request.
    Stopped,
    /// The last run ended by itself, with success.
    Exited,
    /// The last run ended otherwise, or could not begin; no restart is due.
    Failed,
    /// The last run failed; the next begins at `until`.
    Backoff { until: BootTime },
    /// [`Effect::Spawn`] is out; its result is the next event.
    Starting { origin: Origin },
    /// The process runs.
    Running { pid: Pid, since: BootTime },
    /// It was told to end; KILL follows at `kill_at`, and callers are let go at `give_up_at`.
    Stopping {
        pid: Pid,
        kill_at: Option<BootTime>,
        give_up_at: Option<BootTime>,
    },
}

/// All that a machine is but for its callers, who do not outlive the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub state: State,
    pub goal: Goal,
    /// Failures in a row that led to a restart.
    pub failures: u32,
    /// How many of those restarts had to wait.
    pub waits: u32,
    pub restarts: u32,
    /// The present start follows a run that was ended for it.
    pub again: bool,
}

/// All that can happen to a program.
#[derive(Debug)]
pub enum Event<R> {
    Start(R),
    Stop {
        caller: R,
        force: bool,
    },
    Restart(R),
    /// The daemon starts and the program is enabled.
    Autostart,
    /// A deadline may have passed.
    Tick,
    Spawned(Pid),
    /// With the step and the system's reason.
    SpawnFailed(String),
    /// The process has ended, and nothing of it is left.
    Exited(Exit),
}

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    AlreadyRunning,
    NotRunning,
    StartFailed(String),
    /// A later stop came first.
    Superseded,
    /// The process did not end after KILL.
    WillNotEnd(Pid),
}

/// What is to be told of the program: to its log, and to whoever listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    Started {
        origin: Origin,
    },
    /// A restart that was asked for, or one after a crash.
    Restarted {
        origin: Origin,
    },
    StartFailed {
        origin: Origin,
        reason: String,
        next: Next,
    },
    /// It ended as it was asked to.
    Stopped {
        exit: Exit,
    },
    /// It ended without being asked to.
    Ended {
        exit: Exit,
        success: bool,
        next: Next,
    },
    /// A stop, or a definition without restarts, cancelled the restart that was due.
    BackoffCancelled,
    /// KILL was sent, as the program did not end within `stop_timeout`.
    Killed,
}

/// What follows an end that was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// It comes back after this wait, zero for at once.
    Restart(Duration),
    /// It has failed this many times in a row, and that was the last.
    GaveUp(u32),
}

/// What the watcher is to do, in this order.
#[derive(Debug)]
pub enum Effect<R> {
    Spawn,
    /// Send the stop signal, then CONT.
    Terminate(Pid),
    Kill(Pid),
    Tell(Happening),
    Answer(R, Answer),
}
