//! `hxe reload` and `hxe upgrade`: what is asked of the daemon itself.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::args::Args;
use super::connect::{self, client, timeout};
use super::failure::{Code, Failure};
use super::output::{Format, Output, tsv};
use super::say;
use super::table::{Opt, Value as Kind, opt};
use super::text::clean;
use crate::client::{Client, Value};
use crate::program::Signal;
use crate::sys::process::{self, Pid};
use crate::sys::procfs;

#[rustfmt::skip]
pub const UPGRADE: &[Opt] = &[
    opt("timeout", None, Kind::One("TIME"), "wait no longer than this for the outcome; default: 30s"),
];

/// How long the outcome of an upgrade is waited for: it is given up by the daemon long before.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `hxe reload`.
pub fn reload(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let json = client(args)?.reload()?;
    let mut text = String::new();
    for kind in ["added", "changed", "removed"] {
        for change in json[kind].as_array().into_iter().flatten() {
            let get = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
            let (name, action, message) = (get("name"), get("action"), get("message"));
            text += &match output.format {
                Format::Tsv => tsv(&[kind.to_owned(), get("id"), name, action, message]),
                _ => {
                    let action = match action.as_str() {
                        "" => String::new(),
                        action if action == kind => String::new(),
                        action => format!(", {}", clean(action)),
                    };
                    let message = match message.as_str() {
                        "" => String::new(),
                        message => format!(": {}", clean(message)),
                    };
                    format!("{}: {kind}{action}{message}\n", clean(&name))
                }
            };
        }
    }
    let keys = json["restart_required"].as_array().into_iter().flatten();
    let keys: Vec<&str> = keys.filter_map(Value::as_str).collect();
    match output.format {
        Format::Json => say(&format!("{json}\n")),
        Format::Tsv => {
            let keys = keys
                .iter()
                .map(|key| tsv(&["restart_required".to_owned(), (*key).to_owned()]));
            text.extend(keys);
            say(&text)
        }
        Format::Table => {
            if text.is_empty() {
                text += "reloaded: no program has changed\n";
            }
            if !keys.is_empty() {
                text += &format!("only after a restart: {}\n", clean(&keys.join(", ")));
            }
            say(&text)
        }
    }
}

/// `hxe upgrade`: has the daemon of this machine change to the binary on disk, and waits for what comes of it.
pub fn upgrade(args: &Args) -> Result<ExitCode, Failure> {
    let until = Instant::now() + timeout(args)?.unwrap_or(PATIENCE);
    if !connect::server(args)?.local {
        let what = "an upgrade is asked for on the machine of the daemon, over its socket: leave --server away";
        return Err(Failure::usage(what));
    }
    let client = client(args)?;
    let before = client.daemon()?;
    let process = |name: &str| {
        let pid = before[name].as_i64();
        pid.and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::new)
    };
    let (Some(pid), Some(server)) = (process("pid"), process("server_pid")) else {
        return Err(Failure::general(
            "the daemon does not say which process it is",
        ));
    };
    // The socket of a daemon in a container has numbers that are somebody else's here, such as init's.
    let is_here =
        procfs::stat(server.number()).is_ok_and(|stat| server == pid || stat.ppid == pid.number());
    if !is_here {
        let pid = pid.number();
        let what = format!(
            "process {pid} is not that daemon here: is it in a container? Ask for the upgrade there"
        );
        return Err(Failure::general(what));
    }
    process::kill(pid, Signal::USR2.number()).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Code::Permission,
            _ => Code::General,
        };
        let pid = pid.number();
        Failure::new(code, format!("process {pid} cannot be signalled: {error}"))
    })?;
    wait(&client, &before, until)
}

fn wait(client: &Client, before: &Value, until: Instant) -> Result<ExitCode, Failure> {
    let number = |daemon: &Value| daemon["upgrade"]["number"].as_i64().unwrap_or(0);
    let version = |daemon: &Value| clean(daemon["version"].as_str().unwrap_or("?"));
    let mut last = None;
    while Instant::now() < until {
        thread::sleep(LOOK_EVERY);
        let now = match client.daemon() {
            Ok(now) => now,
            // Between two daemons.
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        last = None;
        let upgrade = &now["upgrade"];
        let is_guarded = now["pid"] != now["server_pid"];
        let is_done = match upgrade["state"].as_str() {
            _ if !is_guarded => now["start_time"] != before["start_time"],
            Some("done") => number(&now) > number(before),
            Some("given_up") if number(&now) > number(before) => {
                let reason = clean(upgrade["reason"].as_str().unwrap_or_default());
                let version = version(&now);
                return Err(Failure::general(format!(
                    "the new binary was given up, and hxe {version} goes on: {reason}"
                )));
            }
            _ => false,
        };
        if is_done {
            let (old, new) = (version(before), version(&now));
            return say(&format!("hxe: upgraded from {old} to {new}\n"));
        }
    }
    Err(match last {
        Some(error) => error.into(),
        None => {
            Failure::general("how the upgrade went could not be seen in time: see the daemon's log")
        }
    })
}
