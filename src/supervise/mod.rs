//! Programs as they run: one watcher thread a program, a pure state machine in each.
//!
//! What others hold is the [`Supervisor`]: snapshots to read, commands with the right to answer to send. A read never
//! meets a watcher; a command is answered by the watcher when it is done.

mod adopted;
mod cgroups;
mod ends;
mod events;
mod launch;
mod leftovers;
mod looks;
mod machine;
mod outputs;
mod record;
mod records;
mod row;
pub mod signals;
mod supervisor;
mod telling;
mod unrecorded;
mod watcher;

pub use ends::{By, End, Reason, Via};
pub use events::{Event, Kind, Listener};
pub use machine::Origin;
pub use outputs::Ended;
pub use supervisor::{Change, Pending, Reloaded, Settings, Supervisor, check};

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootTime, Timestamp};
use crate::program::{Invalid, Program, Signal};
use crate::store;

/// Stack of watchers and of `hxe-signals`: a database commit takes up to 128 KiB in a debug build. What is not touched
/// takes no memory.
const STACK_SIZE: usize = 256 * 1024;
/// The variable that marks all processes of a run.
const RUN_ID: &str = "HXE_RUN_ID";

/// What a program is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Stopped,
    Running,
    Stopping,
    Backoff,
    Failed,
    Exited,
}

impl Phase {
    /// As the API shows it in `state`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Stopped => "stopped",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Backoff => "backoff",
            Phase::Failed => "failed",
            Phase::Exited => "exited",
        }
    }

    /// As the API shows it in `status`.
    pub const fn status(self) -> Status {
        match self {
            Phase::Running | Phase::Stopping => Status::Running,
            Phase::Stopped | Phase::Exited => Status::Stopped,
            Phase::Backoff | Phase::Failed => Status::Error,
        }
    }
}

/// The API's coarse word for a [`Phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Stopped,
    Error,
}

impl Status {
    /// As the API shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Error => "error",
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(u8),
    Signal(Signal),
    /// It ended while nobody could see.
    Unknown,
}

impl Exit {
    /// What the API shows: the code, 128 + n for signal n, `None` where it is not known.
    pub fn code(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(i32::from(code)),
            Exit::Signal(signal) => Some(128 + signal.number()),
            Exit::Unknown => None,
        }
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<Signal> {
        match self {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) | Exit::Unknown => None,
        }
    }
}

/// The published state of a program: what reads are answered from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub program: Arc<Program>,
    /// Definition and defaults taken together.
    pub effective: Arc<Effective>,
    pub phase: Phase,
    /// The process, while one runs.
    pub pid: Option<i32>,
    /// The fingerprint of the definition that the process was started with, where that is known.
    pub started_with: Option<u64>,
    /// How the last run ended; `None` while one runs and where there was none.
    pub exit: Option<Exit>,
    /// When the present or last run began.
    pub started_at: Option<BootTime>,
    /// The same by the wall clock, as it was then.
    pub start_time: Option<Timestamp>,
    /// Automatic restarts since the last manual start.
    pub restart_count: u32,
    pub last_restart: Option<Timestamp>,
}

impl Snapshot {
    /// A program that has not run yet.
    pub fn never_run(program: Program, effective: Effective) -> Snapshot {
        Snapshot {
            program: Arc::new(program),
            effective: Arc::new(effective),
            phase: Phase::Stopped,
            pid: None,
            started_with: None,
            exit: None,
            started_at: None,
            start_time: None,
            restart_count: 0,
            last_restart: None,
        }
    }
}

/// The values that hold for a program, and that answers show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub directory: String,
    pub user: String,
    pub group: String,
    pub max_restarts: i64,
    pub stop_timeout: Duration,
    pub restart_delay: Duration,
}

/// What a caller may ask of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Start,
    /// `force`: KILL at once.
    Stop {
        force: bool,
    },
    Restart,
    /// To the process itself, not to what it has started.
    Signal(Signal),
}

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Done {
    pub snapshot: Arc<Snapshot>,
    /// Processes that could not be killed, for `left_behind`: empty but for the rarest stop.
    pub left_behind: Vec<LeftBehind>,
}

/// A process that a stopped program left and that could not be killed or attributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    pub pid: i32,
    /// Its name. Source: proc_pid_comm(5).
    pub name: String,
}

/// A watcher's no, or why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("Program already running")]
    AlreadyRunning,
    #[error("Program not running")]
    NotRunning,
    /// A stop was asked for while a start or restart was under way.
    #[error("Program was stopped meanwhile")]
    Superseded,
    /// A process that KILL does not end, or that may not be killed by this daemon.
    #[error("Program cannot be stopped: process {0} does not end")]
    WillNotEnd(i32),
    /// The kernel did not take it; with its reason.
    #[error("Signal {0} cannot be sent: {1}")]
    NotSignalled(Signal, String),
    /// What failed, with the step: "changing directory to /nowhere: No such file or directory".
    #[error("{0}")]
    StartFailed(String),
    /// 409: a file declares the program, so only that changes it.
    #[error("Program is declared in {0}")]
    Declared(Arc<str>),
    /// 400: what is wrong with the files that declare programs, `FILE:LINE: [program] field: issue` each.
    #[error("{}", .0.join("\n"))]
    Misdeclared(Vec<String>),
    #[error("Program not found")]
    NotFound,
    /// 400 with the field.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// 403: may not run as that user while the password is the default one.
    #[error("{0}")]
    Forbidden(Invalid),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// 503: the daemon is stopping, or the program's mailbox is full.
    #[error("{0}")]
    Busy(&'static str),
}

/// The right to answer one caller, called at most once; dropped uncalled, whatever it holds is dropped with it.
pub type Caller<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;
