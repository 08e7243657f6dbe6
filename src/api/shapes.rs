//! Programs and log entries as answers show them: all fields of the reference, in its order, and ours among them.
//!
//! What is asked for most, the list of programs, is written to the answer as it is formatted: no text is made of its own for
//! a value, as each would be taken from the heap, which takes longer than to write it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::{self, Timestamp};
use crate::logs::Entry;
use crate::program::{LogDisk, ProgramId, Signal};
use crate::supervise::Snapshot;

/// The one shape of a program: in lists, alone, created, and changed.
#[derive(Serialize)]
pub struct ProgramShape<'a> {
    #[serde(serialize_with = "shown")]
    id: ProgramId,
    name: &'a str,
    description: &'a str,
    command: &'a str,
    args: &'a str,
    directory: &'a str,
    user: &'a str,
    group: &'a str,
    enabled: bool,
    auto_restart: bool,
    max_restarts: i64,
    environment: &'a BTreeMap<String, String>,
    #[serde(serialize_with = "octal")]
    umask: u32,
    #[serde(serialize_with = "shown")]
    stop_signal: Signal,
    #[serde(serialize_with = "span")]
    stop_timeout: Duration,
    #[serde(serialize_with = "span")]
    restart_delay: Duration,
    restart_policy: &'static str,
    success_exit_codes: &'a [u8],
    /// Beside the reference's fields, only where it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_disk: Option<&'static str>,
    status: &'static str,
    state: &'static str,
    pid: Option<i32>,
    exit_code: Option<i32>,
    #[serde(serialize_with = "shown_or_null")]
    exit_signal: Option<Signal>,
    #[serde(serialize_with = "second_or_null")]
    start_time: Option<Timestamp>,
    #[serde(serialize_with = "second")]
    created_at: Timestamp,
    #[serde(serialize_with = "second")]
    updated_at: Timestamp,
    /// Beside the reference's fields, only where a file declares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<&'a str>,
}

impl<'a> From<&'a Snapshot> for ProgramShape<'a> {
    fn from(snapshot: &'a Snapshot) -> ProgramShape<'a> {
        let program = &snapshot.program;
        let definition = &program.definition;
        let effective = &snapshot.effective;
        ProgramShape {
            id: program.id,
            name: &definition.name,
            description: &definition.description,
            command: &definition.command,
            args: &definition.args,
            directory: &effective.directory,
            user: &effective.user,
            group: &effective.group,
            enabled: definition.enabled,
            auto_restart: definition.auto_restart,
            max_restarts: effective.max_restarts,
            environment: &definition.environment,
            umask: definition.umask,
            stop_signal: definition.stop_signal,
            stop_timeout: effective.stop_timeout,
            restart_delay: effective.restart_delay,
            restart_policy: definition.restart_policy.as_str(),
            success_exit_codes: &definition.success_exit_codes,
            log_disk: definition.log_disk.map(LogDisk::as_str),
            status: snapshot.phase.status().as_str(),
            state: snapshot.phase.as_str(),
            pid: snapshot.pid,
            exit_code: snapshot.exit.and_then(|exit| exit.code()),
            exit_signal: snapshot.exit.and_then(|exit| exit.signal()),
            start_time: snapshot.start_time,
            created_at: program.created_at,
            updated_at: program.updated_at,
            declared: program.declared.as_deref(),
        }
    }
}

fn shown<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn shown_or_null<S: Serializer>(value: &Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn octal<S: Serializer>(value: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:03o}"))
}

fn span<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&clock::show_duration(*value))
}

fn second<S: Serializer>(value: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&value.to_seconds())
}

fn second_or_null<S: Serializer>(value: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    shown_or_null(&value.map(Timestamp::to_seconds), to)
}

/// The one shape of a log entry: in lists, followed, and as an event.
#[derive(Serialize)]
pub struct EntryShape<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    stream: &'static str,
}

impl<'a> From<&'a Entry> for EntryShape<'a> {
    fn from(entry: &'a Entry) -> EntryShape<'a> {
        EntryShape {
            timestamp: entry.timestamp.to_string(),
            level: entry.level.as_str(),
            message: &entry.message,
            stream: entry.stream.as_str(),
        }
    }
}

/// When the present or last run began.
pub fn start_time(snapshot: &Snapshot) -> Option<String> {
    snapshot.start_time.map(|at| at.to_seconds_string())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::program::{Definition, Program};
    use crate::supervise::{Effective, Exit, Phase};

    /// A stopped program that never ran.
    pub fn snapshot(number: u32, name: &str) -> Snapshot {
        let start = Timestamp::from_micros(1_735_689_600_000_000);
        Snapshot::never_run(
            Program {
                id: ProgramId(number),
                definition: Definition::new(name, "/usr/sbin/nginx"),
                created_at: start,
                updated_at: start,
                declared: None,
            },
            Effective {
                directory: "/var/www".to_owned(),
                user: "www-data".to_owned(),
                group: "www-data".to_owned(),
                max_restarts: 3,
                stop_timeout: Duration::from_secs(10),
                restart_delay: Duration::from_secs(1),
            },
        )
    }

    #[test]
    fn a_program_has_all_fields_in_the_reference_s_order() {
        let text = serde_json::to_string(&ProgramShape::from(&snapshot(1, "Web Server"))).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"id":"program-1","name":"Web Server","description":"","command":"/usr/sbin/nginx","args":"","#,
                r#""directory":"/var/www","user":"www-data","group":"www-data","enabled":false,"auto_restart":false,"#,
                r#""max_restarts":3,"environment":{},"umask":"022","stop_signal":"TERM","stop_timeout":"10s","#,
                r#""restart_delay":"1s","restart_policy":"on-failure","success_exit_codes":[0],"status":"stopped","#,
                r#""state":"stopped","pid":null,"exit_code":null,"exit_signal":null,"start_time":null,"#,
                r#""created_at":"2025-01-01T00:00:00Z","updated_at":"2025-01-01T00:00:00Z"}"#,
            )
        );
    }

    #[test]
    fn a_signal_shows_as_code_and_name() {
        let mut killed = snapshot(1, "x");
        killed.phase = Phase::Failed;
        killed.exit = Some(Exit::Signal(Signal::KILL));
        killed.start_time = Some(Timestamp::from_micros(1_735_689_600_999_999));
        let text = serde_json::to_string(&ProgramShape::from(&killed)).unwrap();
        assert!(text.contains(
            r#""status":"error","state":"failed","pid":null,"exit_code":137,"exit_signal":"KILL","start_time":"2025-01-01T00:00:00Z""#
        ));
    }
}
