//! The stored shapes, apart from the domain and from the wire: JSON with a version in front.
//!
//! A record that cannot be understood (broken, or of a newer hxe) is said, passed over, and left as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Revoked;
use crate::clock::{BootTime, Timestamp};
use crate::program::{
    Definition, Invalid, LogDisk, MaxRestarts, Program, ProgramId, RestartPolicy,
};

/// The version that this hxe writes, of programs and revoked tokens alike.
const VERSION: u32 = 1;

/// Why a record cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is damaged: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it was written by another hxe: version {0}, not {VERSION}")]
    Version(u32),
    #[error("it breaks a rule: {0}")]
    Invalid(#[from] Invalid),
}

/// What all records of all versions begin with.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// The one thing of a program that others must know even if the rest cannot be read.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    declared: Option<Cow<'a, str>>,
}

/// A program, version 1. Spans in microseconds; times in microseconds since 1970.
#[derive(Serialize, Deserialize)]
struct StoredProgram {
    v: u32,
    name: String,
    description: String,
    command: String,
    args: String,
    directory: Option<String>,
    user: Option<String>,
    group: Option<String>,
    enabled: bool,
    auto_restart: bool,
    /// -1: without limit.
    max_restarts: Option<i64>,
    environment: BTreeMap<String, String>,
    umask: u32,
    /// By name, as numbers differ between machines.
    stop_signal: String,
    stop_timeout_us: Option<u64>,
    restart_delay_us: Option<u64>,
    restart_policy: String,
    success_exit_codes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_disk: Option<String>,
    created_at_us: i64,
    updated_at_us: i64,
    /// The file that declares it; not there for programs of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared: Option<String>,
}

/// A revoked token, version 1; its `jti` is the key.
#[derive(Serialize, Deserialize)]
struct StoredRevoked {
    v: u32,
    exp: i64,
    boot_id: String,
    boot_end_us: u64,
}

pub(super) fn encode_program(program: &Program) -> Vec<u8> {
    let definition = program.definition.clone();
    json(&StoredProgram {
        v: VERSION,
        name: definition.name,
        description: definition.description,
        command: definition.command,
        args: definition.args,
        directory: definition.directory,
        user: definition.user,
        group: definition.group,
        enabled: definition.enabled,
        auto_restart: definition.auto_restart,
        max_restarts: definition.max_restarts.map(MaxRestarts::number),
        environment: definition.environment,
        umask: definition.umask,
        stop_signal: definition.stop_signal.to_string(),
        stop_timeout_us: definition.stop_timeout.map(micros),
        restart_delay_us: definition.restart_delay.map(micros),
        restart_policy: definition.restart_policy.as_str().to_owned(),
        success_exit_codes: definition.success_exit_codes,
        log_disk: definition.log_disk.map(|disk| disk.as_str().to_owned()),
        created_at_us: program.created_at.as_micros(),
        updated_at_us: program.updated_at.as_micros(),
        declared: program.declared.as_deref().map(str::to_owned),
    })
}

pub(super) fn decode_program(id: ProgramId, bytes: &[u8]) -> Result<Program, Unreadable> {
    let stored: StoredProgram = decode(bytes)?;
    let stop_signal = stored
        .stop_signal
        .parse()
        .map_err(|_| Invalid::new("stop_signal", "there is no such signal"))?;
    let restart_policy = RestartPolicy::from_name(&stored.restart_policy)
        .ok_or_else(|| Invalid::new("restart_policy", "there is no such policy"))?;
    let log_disk = match stored.log_disk.as_deref() {
        None => None,
        Some(name) => Some(
            LogDisk::from_name(name)
                .ok_or_else(|| Invalid::new("log_disk", "there is no such choice"))?,
        ),
    };
    let max_restarts = match stored.max_restarts {
        None => None,
        Some(number) => Some(
            MaxRestarts::from_number(number)
                .ok_or_else(|| Invalid::new("max_restarts", "it is out of range"))?,
        ),
    };
    let definition = Definition {
        name: stored.name,
        description: stored.description,
        command: stored.command,
        args: stored.args,
        directory: stored.directory,
        user: stored.user,
        group: stored.group,
        enabled: stored.enabled,
        auto_restart: stored.auto_restart,
        max_restarts,
        environment: stored.environment,
        umask: stored.umask,
        stop_signal,
        stop_timeout: stored.stop_timeout_us.map(Duration::from_micros),
        restart_delay: stored.restart_delay_us.map(Duration::from_micros),
        restart_policy,
        success_exit_codes: stored.success_exit_codes,
        log_disk,
    };
    definition.check()?;
    Ok(Program {
        id,
        definition,
        created_at: Timestamp::from_micros(stored.created_at_us),
        updated_at: Timestamp::from_micros(stored.updated_at_us),
        declared: stored.declared.map(Into::into),
    })
}

/// The name in a program's record of any version, if it can be found, and the file that declares it, if one does.
pub(super) fn name_of(bytes: &[u8]) -> Option<(Cow<'_, str>, Option<Cow<'_, str>>)> {
    serde_json::from_slice::<Named>(bytes)
        .ok()
        .map(|named| (named.name, named.declared))
}

pub(super) fn encode_revoked(token: &Revoked) -> Vec<u8> {
    json(&StoredRevoked {
        v: VERSION,
        exp: token.exp,
        boot_id: token.boot_id.clone(),
        boot_end_us: token.boot_end.as_micros(),
    })
}

pub(super) fn decode_revoked(jti: &str, bytes: &[u8]) -> Result<Revoked, Unreadable> {
    let stored: StoredRevoked = decode(bytes)?;
    Ok(Revoked {
        jti: jti.to_owned(),
        exp: stored.exp,
        boot_id: stored.boot_id,
        boot_end: BootTime::from_micros(stored.boot_end_us),
    })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let Versioned { v } = serde_json::from_slice(bytes)?;
    if v != VERSION {
        return Err(Unreadable::Version(v));
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record)
        .expect("a struct of strings and numbers is JSON, and memory takes it")
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program in which no field has its default.
    fn program() -> Program {
        let mut definition = Definition::new("Web Server", "/usr/sbin/nginx");
        definition.description = "é\"\\\n".into();
        definition.args = "-g 'daemon off;'".into();
        definition.directory = Some("/var/www".into());
        definition.user = Some("www-data".into());
        definition.group = Some("33".into());
        definition.enabled = true;
        definition.auto_restart = true;
        definition.max_restarts = Some(MaxRestarts::Unlimited);
        definition.environment = BTreeMap::from([("A".into(), "b=c".into())]);
        definition.umask = 0o077;
        definition.stop_signal = "USR1".parse().expect("a signal's name");
        definition.stop_timeout = Some(Duration::from_millis(1_500));
        definition.restart_delay = Some(Duration::ZERO);
        definition.restart_policy = RestartPolicy::Always;
        definition.success_exit_codes = vec![0, 3];
        Program {
            id: ProgramId(7),
            definition,
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(-2),
            declared: None,
        }
    }

    #[test]
    fn a_program_is_read_as_it_was_written() {
        let bytes = encode_program(&program());
        assert!(bytes.starts_with(br#"{"v":1,"#));
        assert_eq!(decode_program(ProgramId(7), &bytes).unwrap(), program());
        assert_eq!(name_of(&bytes).unwrap(), ("Web Server".into(), None));
    }

    #[test]
    fn the_file_that_declares_a_program_is_kept() {
        let declared = Program {
            declared: Some("/etc/hxe/a.toml".into()),
            ..program()
        };
        let bytes = encode_program(&declared);
        assert_eq!(decode_program(ProgramId(7), &bytes).unwrap(), declared);
        let expected = ("Web Server".into(), Some("/etc/hxe/a.toml".into()));
        assert_eq!(name_of(&bytes).unwrap(), expected);
    }

    /// Files of today must be readable for ever: if this fails, the version must go up.
    #[test]
    fn version_1_has_this_shape() {
        let bytes = encode_program(&Program {
            definition: Definition::new("a", "b"),
            ..program()
        });
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            concat!(
                r#"{"v":1,"name":"a","description":"","command":"b","args":"","directory":null,"user":null,"#,
                r#""group":null,"enabled":false,"auto_restart":false,"max_restarts":null,"environment":{},"#,
                r#""umask":18,"stop_signal":"TERM","stop_timeout_us":null,"restart_delay_us":null,"#,
                r#""restart_policy":"on-failure","success_exit_codes":[0],"created_at_us":1,"updated_at_us":-2}"#,
            )
        );
    }

    fn check_unreadable(change: impl FnOnce(&mut serde_json::Value), says: &str) {
        let mut value = serde_json::from_slice(&encode_program(&program())).unwrap();
        change(&mut value);
        let bytes = serde_json::to_vec(&value).unwrap();
        let issue = decode_program(ProgramId(7), &bytes)
            .unwrap_err()
            .to_string();
        assert!(issue.contains(says), "{issue}");
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        check_unreadable(|r| r["v"] = 2.into(), "version 2");
        check_unreadable(|r| r["name"] = 1.into(), "damaged");
        check_unreadable(|r| r["name"] = "".into(), "name");
        check_unreadable(|r| r["stop_signal"] = "NONE".into(), "stop_signal");
        check_unreadable(|r| r["restart_policy"] = "".into(), "restart_policy");
        check_unreadable(|r| r["max_restarts"] = (-2).into(), "max_restarts");
        check_unreadable(|r| *r = serde_json::Value::Null, "damaged");
        assert!(decode_program(ProgramId(7), b"\xff").is_err());
        assert!(name_of(b"{}").is_none());
    }
}
