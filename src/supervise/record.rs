//! Run records: what a program is doing, kept where the next daemon finds it if this one dies.
//!
//! A record is text of a fixed length. It is written before what it speaks of is done, so that a daemon that dies in between
//! leaves the intent. Nothing in it is believed that does not fit: another boot, another program, a process with another
//! start. Written and read by `watcher`, kept by `records`; this file knows no process and no file.

use std::fmt::Write as _;
use std::str::FromStr;

use super::Exit;
use super::ends::{Asked, By, Reason};
use super::machine::{Goal, Machine, Origin, Saved, State};
use crate::clock::{BootTime, Timestamp, boot_id};
use crate::program::{ProgramId, Signal};
use crate::sys::process::Pid;

/// Bytes of a record, whatever it says: more than the longest takes.
pub(super) const LENGTH: usize = 1024;
/// First line: what this is, and in which version.
const HEADER: &str = "hxe run record 1";
/// Last line: it was written to its end.
const FOOTER: &str = "end";

/// Where a program stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub machine: Saved,
    /// The process, from its fork until it is reaped.
    pub run: Option<Run>,
    /// How the last run ended; `None` while one runs and where there was none.
    pub exit: Option<Exit>,
    /// When the present or last run began.
    pub started_at: Option<BootTime>,
    /// The same by the wall clock, as it was then.
    pub start_time: Option<Timestamp>,
    pub last_restart: Option<Timestamp>,
    /// It is to be started with the daemon, if it is enabled, and has not been yet.
    pub due: bool,
    /// What the program is known by in files that declare programs. Source: `Program::declared_as`.
    pub declared: Option<u64>,
    /// The run was asked to end, and has not yet.
    pub asked: Option<Box<Asked>>,
}

/// A process as it can be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub pid: Pid,
    /// In clock ticks since boot: no other process with this pid has the same. Source: proc_pid_stat(5), field 22.
    pub start_ticks: u64,
    /// What its processes carry as `HXE_RUN_ID`.
    pub id: String,
    /// The fingerprint of the definition that it was started with; not there where an earlier hxe started it.
    pub definition: Option<u64>,
}

/// What stands in the place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// One of an earlier boot: nothing that it speaks of is there any more.
    OtherBoot,
    Record(Record),
}

/// A record says what no daemon writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl Record {
    /// Of a program that has not run yet.
    pub(super) fn never_run(due: bool, declared: Option<u64>) -> Record {
        Record {
            machine: Machine::<()>::default().save(),
            run: None,
            exit: None,
            started_at: None,
            start_time: None,
            last_restart: None,
            due,
            declared,
            asked: None,
        }
    }

    /// As its file has it: [`LENGTH`] bytes.
    pub(super) fn encode(&self, id: ProgramId) -> String {
        let mut text = String::with_capacity(LENGTH);
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{name} {value}");
        };
        let Saved {
            state,
            goal,
            failures,
            waits,
            restarts,
            again,
        } = self.machine;
        line("boot", &boot_id());
        line("program", &id);
        line("state", &state_word(state));
        match state {
            State::Starting { origin } => line("origin", &origin.as_str()),
            State::Backoff { until } => line("until", &until.as_micros()),
            State::Running { since, .. } => line("since", &since.as_micros()),
            State::Stopping {
                kill_at,
                give_up_at,
                ..
            } => {
                for (name, at) in [("kill-at", kill_at), ("give-up-at", give_up_at)] {
                    if let Some(at) = at {
                        line(name, &at.as_micros());
                    }
                }
            }
            State::Stopped | State::Exited | State::Failed => {}
        }
        line("goal", &if goal == Goal::Up { "up" } else { "down" });
        line("failures", &failures);
        line("waits", &waits);
        line("restarts", &restarts);
        line("again", &again);
        if let Some(run) = &self.run {
            line("pid", &run.pid);
            line("start-ticks", &run.start_ticks);
            line("run-id", &run.id);
            if let Some(definition) = &run.definition {
                line("definition", definition);
            }
        }
        match self.exit {
            None => {}
            Some(Exit::Code(code)) => line("exit-code", &code),
            Some(Exit::Signal(signal)) => line("exit-signal", &signal.number()),
            Some(Exit::Unknown) => line("exit-unknown", &true),
        }
        if let Some(at) = self.started_at {
            line("started-at", &at.as_micros());
        }
        for (name, time) in [
            ("start-time", self.start_time),
            ("last-restart", self.last_restart),
        ] {
            if let Some(time) = time {
                line(name, &time.as_micros());
            }
        }
        if self.due {
            line("due", &true);
        }
        if let Some(name) = &self.declared {
            line("declared", name);
        }
        if let Some(asked) = &self.asked {
            line("asked", &asked.reason.as_str());
            if let Some(by) = &asked.by {
                line("asked-by", &by.encode());
            }
        }
        let body = text;
        let mut text = format!("{HEADER}\n{body}");
        let rest = LENGTH.saturating_sub(text.len() + FOOTER.len() + 2);
        let _ = writeln!(text, "{}", " ".repeat(rest));
        let _ = writeln!(text, "{FOOTER}");
        text
    }

    /// Reads what [`encode`](Record::encode) wrote.
    ///
    /// # Errors
    /// It says what no daemon writes.
    pub(super) fn decode(text: &str, id: ProgramId) -> Result<Found, Damaged> {
        let body = text
            .strip_prefix(HEADER)
            .and_then(|rest| rest.strip_prefix('\n'))
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|rest| rest.strip_suffix(FOOTER))
            .filter(|_| text.len() == LENGTH)
            .ok_or(Damaged)?;
        let fields = Fields(body.trim_end());
        if fields.required::<String>("boot")? != boot_id() {
            return Ok(Found::OtherBoot);
        }
        if fields.required::<ProgramId>("program")? != id {
            return Err(Damaged);
        }
        let run = match fields.optional::<i32>("pid")? {
            None => None,
            Some(pid) => Some(Run {
                pid: Pid::new(pid).ok_or(Damaged)?,
                start_ticks: fields.required("start-ticks")?,
                id: fields.required("run-id")?,
                definition: fields.optional("definition")?,
            }),
        };
        let exit = match (
            fields.optional::<u8>("exit-code")?,
            fields.optional::<i32>("exit-signal")?,
            fields.optional::<bool>("exit-unknown")?,
        ) {
            (None, None, None) => None,
            (Some(code), None, None) => Some(Exit::Code(code)),
            (None, Some(number), None) => Some(Exit::Signal(Signal::from_number(number))),
            (None, None, Some(true)) => Some(Exit::Unknown),
            _ => return Err(Damaged),
        };
        let goal = match fields.required::<String>("goal")?.as_str() {
            "up" => Goal::Up,
            "down" => Goal::Down,
            _ => return Err(Damaged),
        };
        Ok(Found::Record(Record {
            machine: Saved {
                state: fields.state(run.as_ref())?,
                goal,
                failures: fields.required("failures")?,
                waits: fields.required("waits")?,
                restarts: fields.required("restarts")?,
                again: fields.required("again")?,
            },
            run,
            exit,
            started_at: fields.boot_time("started-at")?,
            start_time: fields.timestamp("start-time")?,
            last_restart: fields.timestamp("last-restart")?,
            due: fields.optional("due")?.unwrap_or(false),
            declared: fields.optional("declared")?,
            asked: match fields.optional::<String>("asked")? {
                None => None,
                Some(reason) => Some(Box::new(Asked {
                    reason: Reason::from_word(&reason).ok_or(Damaged)?,
                    by: match fields.optional::<String>("asked-by")? {
                        None => None,
                        Some(by) => Some(By::decode(&by).ok_or(Damaged)?),
                    },
                })),
            },
        }))
    }
}

const fn state_word(state: State) -> &'static str {
    match state {
        State::Stopped => "stopped",
        State::Exited => "exited",
        State::Failed => "failed",
        State::Backoff { .. } => "backoff",
        State::Starting { .. } => "starting",
        State::Running { .. } => "running",
        State::Stopping { .. } => "stopping",
    }
}

/// Lines of a name and a value.
struct Fields<'t>(&'t str);

impl Fields<'_> {
    /// # Errors
    /// The line is there twice, or its value is none of that type.
    fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Damaged> {
        let mut values = self
            .0
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.parse().map(Some).map_err(|_| Damaged),
            (Some(_), Some(_)) => Err(Damaged),
        }
    }

    fn required<T: FromStr>(&self, name: &str) -> Result<T, Damaged> {
        self.optional(name)?.ok_or(Damaged)
    }

    fn boot_time(&self, name: &str) -> Result<Option<BootTime>, Damaged> {
        Ok(self.optional(name)?.map(BootTime::from_micros))
    }

    fn timestamp(&self, name: &str) -> Result<Option<Timestamp>, Damaged> {
        Ok(self.optional(name)?.map(Timestamp::from_micros))
    }

    fn state(&self, run: Option<&Run>) -> Result<State, Damaged> {
        let pid = run.map(|run| run.pid).ok_or(Damaged);
        Ok(match self.required::<String>("state")?.as_str() {
            "stopped" => State::Stopped,
            "exited" => State::Exited,
            "failed" => State::Failed,
            "backoff" => State::Backoff {
                until: self.boot_time("until")?.ok_or(Damaged)?,
            },
            "starting" => State::Starting {
                origin: match self.required::<String>("origin")?.as_str() {
                    "requested" => Origin::Requested,
                    "autostart" => Origin::Autostart,
                    "crash" => Origin::Crash,
                    _ => return Err(Damaged),
                },
            },
            "running" => State::Running {
                pid: pid?,
                since: self.boot_time("since")?.ok_or(Damaged)?,
            },
            "stopping" => State::Stopping {
                pid: pid?,
                kill_at: self.boot_time("kill-at")?,
                give_up_at: self.boot_time("give-up-at")?,
            },
            _ => return Err(Damaged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Via;
    use proptest::prelude::*;

    const ID: ProgramId = ProgramId(7);

    fn times() -> impl Strategy<Value = BootTime> {
        any::<u64>().prop_map(BootTime::from_micros)
    }

    fn pids() -> impl Strategy<Value = Pid> {
        (1..=i32::MAX).prop_map(|number| Pid::new(number).unwrap())
    }

    fn states(pid: Pid) -> impl Strategy<Value = State> {
        let stopping = (prop::option::of(times()), prop::option::of(times())).prop_map(
            move |(kill_at, give_up_at)| State::Stopping {
                pid,
                kill_at,
                give_up_at,
            },
        );
        prop_oneof![
            Just(State::Stopped),
            Just(State::Exited),
            Just(State::Failed),
            times().prop_map(|until| State::Backoff { until }),
            prop::sample::select(vec![Origin::Requested, Origin::Autostart, Origin::Crash])
                .prop_map(|origin| State::Starting { origin }),
            times().prop_map(move |since| State::Running { pid, since }),
            stopping,
        ]
    }

    fn exits() -> impl Strategy<Value = Exit> {
        prop_oneof![
            any::<u8>().prop_map(Exit::Code),
            (1..=64).prop_map(|number| Exit::Signal(Signal::from_number(number))),
            Just(Exit::Unknown),
        ]
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let by = (
            "[^\\pC\\s]{0,16}",
            prop::sample::select(vec![Via::Api, Via::Hxe, Via::Signal]),
        );
        let by = prop::option::of(by.prop_map(|(user, via)| By { user, via }));
        by.prop_map(|by| Asked {
            reason: Reason::Stop,
            by,
        })
    }

    prop_compose! {
        fn records()(pid in pids())(
            state in states(pid),
            pid in Just(pid),
            goal in prop::sample::select(vec![Goal::Down, Goal::Up]),
            counts in any::<(u32, u32, u32)>(),
            again in any::<bool>(),
            start_ticks in any::<u64>(),
            definition in prop::option::of(any::<u64>()),
            id in "[0-9a-f]{1,16}-[0-9]{1,10}-[0-9]{1,10}",
            has_run in any::<bool>(),
            exit in prop::option::of(exits()),
            started_at in prop::option::of(times()),
            walls in any::<[Option<i64>; 2]>(),
            due in any::<bool>(),
            declared in prop::option::of(any::<u64>()),
            asked in prop::option::of(asked()),
        ) -> Record {
            let needs_run = matches!(state, State::Running { .. } | State::Stopping { .. });
            let [start_time, last_restart] = walls.map(|wall| wall.map(Timestamp::from_micros));
            Record {
                machine: Saved {
                    state,
                    goal,
                    failures: counts.0,
                    waits: counts.1,
                    restarts: counts.2,
                    again,
                },
                run: (needs_run || has_run).then_some(Run { pid, start_ticks, id, definition }),
                exit,
                started_at,
                start_time,
                last_restart,
                due,
                declared,
                asked: asked.map(Box::new),
            }
        }
    }

    fn example() -> Record {
        Record {
            machine: Saved {
                state: State::Failed,
                goal: Goal::Down,
                failures: 3,
                waits: 2,
                restarts: 3,
                again: false,
            },
            run: None,
            exit: Some(Exit::Code(3)),
            started_at: Some(BootTime::from_micros(5)),
            start_time: Some(Timestamp::from_micros(6)),
            last_restart: None,
            due: false,
            declared: None,
            asked: None,
        }
    }

    #[test]
    fn another_boot_left_no_record() {
        let id = boot_id();
        let other = id.replace(|c: char| c.is_ascii_hexdigit(), "0");
        let text = example().encode(ID).replace(id, &other);
        assert_eq!(Record::decode(&text, ID), Ok(Found::OtherBoot));
    }

    #[test]
    fn the_record_of_another_program_is_refused() {
        assert_eq!(
            Record::decode(&example().encode(ProgramId(8)), ID),
            Err(Damaged)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in records()) {
            let text = record.encode(ID);
            prop_assert_eq!(text.len(), LENGTH);
            prop_assert_eq!(Record::decode(&text, ID), Ok(Found::Record(record)));
        }

        #[test]
        fn a_damaged_record_is_refused_or_says_what_a_daemon_could_have_written(
            record in records(), at in 0..LENGTH, byte: u8, cut in 0..=LENGTH
        ) {
            let mut bytes = record.encode(ID).into_bytes();
            bytes[at] = byte;
            if let Ok(text) = String::from_utf8(bytes.clone()) {
                let _ = Record::decode(&text, ID);
            }
            bytes.truncate(cut);
            if cut < LENGTH && let Ok(text) = String::from_utf8(bytes) {
                prop_assert_eq!(Record::decode(&text, ID), Err(Damaged));
            }
        }
    }
}
