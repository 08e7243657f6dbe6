//! `hxe list`, `info` and `status`: how programs are.

use std::process::ExitCode;

use super::args::Args;
use super::connect::{self, client};
use super::exits;
use super::failure::{Code, Failure};
use super::output::{Format, Output, column, number, tsv, wide};
use super::say;
use super::table::{Opt, Value, opt};
use super::text::clean;
use crate::client::{Client, Error, ListFilter, Program};
use crate::clock::{self, Timestamp};
use crate::report;

#[rustfmt::skip]
pub const LIST: &[Opt] = &[
    opt("status", None, Value::Choice(&["running", "stopped", "error"]), "only programs with this status"),
    opt("enabled", None, Value::No, "only programs that start with the daemon"),
    opt("disabled", None, Value::No, "only programs that do not"),
    opt("quiet", Some('q'), Value::No, "only names, one a line"),
];

#[rustfmt::skip]
pub const STATUS: &[Opt] = &[
    opt("quiet", Some('q'), Value::No, "print nothing: the exit status tells"),
];

/// LSB: it runs, it is stopped, nobody can say. Source: Linux Standard Base Core 5.0, 22.2.
const STOPPED: u8 = 3;
const UNKNOWN: u8 = 4;

/// `hxe list`.
pub fn list(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let enabled = match (args.is_on("enabled"), args.is_on("disabled")) {
        (true, true) => {
            let what = "--enabled and --disabled exclude each other";
            return Err(Failure::usage(what));
        }
        (false, false) => None,
        (enabled, _) => Some(enabled),
    };
    let programs = client(args)?.list(&ListFilter {
        status: args.value("status"),
        enabled,
        ..ListFilter::default()
    })?;
    if args.is_on("quiet") {
        let names = programs
            .iter()
            .map(|program| tsv(&[program.name().to_owned()]));
        return say(&names.collect::<String>());
    }
    let columns = [
        column("ID"),
        wide("NAME"),
        column("STATE"),
        number("PID"),
        number("TIME"),
        number("EXIT"),
        column("ENABLED"),
        wide("COMMAND"),
    ];
    let rows: Vec<Vec<String>> = programs
        .iter()
        .map(|program| {
            let definition = &program.definition;
            let command = format!("{} {}", definition.command, definition.args);
            let time = match (output.format, &program.start_time) {
                (_, None) => None,
                (Format::Table, Some(start)) if program.pid.is_some() => Some(age(start)),
                (Format::Table, Some(_)) => None,
                (_, Some(start)) => Some(start.clone()),
            };
            vec![
                program.id.clone(),
                program.name().to_owned(),
                program.state.clone(),
                or_dash(program.pid),
                or_dash(time),
                or_dash(exit(program)),
                yes(definition.enabled),
                command.trim_end().to_owned(),
            ]
        })
        .collect();
    let json: Vec<String> = programs
        .iter()
        .map(|program| program.json.to_string())
        .collect();
    output.rows(&columns, &rows, &format!("[{}]", json.join(",\n")))
}

/// `hxe info`.
pub fn info(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let client = client(args)?;
    let failed = |error| Failure::from(error).of(&args.operands[0]);
    let mut program = client.get(&args.operands[0]).map_err(failed)?;
    let exits = match client.exits(&program.id) {
        // An earlier hxe serves, or it is being deleted.
        Err(Error::NotFound(_)) => Vec::new(),
        exits => exits.map_err(failed)?,
    };
    program.json["exits"] = exits.iter().map(|exit| exit.json.clone()).collect();
    let definition = &program.definition;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let environment = definition.environment.iter();
    let environment: Vec<String> = environment
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let codes = definition.success_exit_codes.iter().flatten();
    let codes: Vec<String> = codes.map(u8::to_string).collect();
    let mut fields = vec![
        ("id", program.id.clone()),
        ("name", program.name().to_owned()),
        ("description", definition.description.clone()),
        ("status", program.status.clone()),
        ("state", program.state.clone()),
        ("pid", or_dash(program.pid)),
        ("start_time", or_dash(program.start_time.clone())),
        ("exit_code", or_dash(program.exit_code)),
        ("exit_signal", or_dash(program.exit_signal.clone())),
        ("command", definition.command.clone()),
        ("args", definition.args.clone()),
        ("directory", text(&definition.directory)),
        ("user", text(&definition.user)),
        ("group", text(&definition.group)),
        ("enabled", yes(definition.enabled)),
        ("auto_restart", yes(definition.auto_restart)),
        ("max_restarts", or_dash(definition.max_restarts)),
        ("restart_policy", text(&definition.restart_policy)),
        ("restart_delay", text(&definition.restart_delay)),
        ("success_exit_codes", codes.join(",")),
        ("stop_signal", text(&definition.stop_signal)),
        ("stop_timeout", text(&definition.stop_timeout)),
        ("umask", text(&definition.umask)),
    ];
    fields.extend(environment.into_iter().map(|pair| ("environment", pair)));
    if let Some(disk) = &definition.log_disk {
        fields.push(("log_disk", disk.clone()));
    }
    if let Some(file) = program.json["declared"].as_str() {
        fields.push(("declared", file.to_owned()));
    }
    fields.push(("created_at", program.created_at.clone()));
    fields.push(("updated_at", program.updated_at.clone()));
    fields.extend(exits.iter().map(|exit| ("exit", exits::line(exit))));
    output.fields(&fields, &program.json.to_string())
}

/// `hxe status`: of programs, or of the daemon itself; its exit codes are those of init scripts.
pub fn status(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let quiet = args.is_on("quiet");
    if args.operands.is_empty() {
        return daemon_status(args, &output, quiet);
    }
    let client = match client(args) {
        Ok(client) => client,
        Err(failure) => return unknown(failure),
    };
    let mut code = 0;
    for name in &args.operands {
        match client.get(name) {
            Ok(program) => {
                if program.status != "running" {
                    code = code.max(STOPPED);
                }
                if !quiet {
                    say(&status_line(&output, &program))?;
                }
            }
            Err(error) => {
                code = UNKNOWN;
                let failure = Failure::from(error).of(name);
                report::error(format_args!("{}", failure.message));
            }
        }
    }
    Ok(ExitCode::from(code))
}

/// What cannot be asked is unknown, but for a command that is wrong in itself.
fn unknown(failure: Failure) -> Result<ExitCode, Failure> {
    if failure.code == Code::Usage {
        return Err(failure);
    }
    report::error(format_args!("{}", failure.message));
    Ok(ExitCode::from(UNKNOWN))
}

fn status_line(output: &Output, program: &Program) -> String {
    match output.format {
        Format::Json => program.json.to_string() + "\n",
        Format::Tsv => tsv(&[
            program.id.clone(),
            program.name().to_owned(),
            program.status.clone(),
            program.state.clone(),
            or_dash(program.pid),
            or_dash(exit(program)),
        ]),
        Format::Table => {
            let state = output.painted(&program.state);
            let more = match (program.pid, &program.start_time, exit(program)) {
                (Some(pid), Some(start), _) => format!(", pid {pid}, for {}", age(start)),
                (_, _, Some(exit)) => format!(", exit {exit}"),
                _ => String::new(),
            };
            format!("{}: {state}{more}\n", clean(program.name()))
        }
    }
}

fn daemon_status(args: &Args, output: &Output, quiet: bool) -> Result<ExitCode, Failure> {
    let asked = client(args).and_then(|client: Client| Ok(client.system_metrics()?));
    let (text, json, code) = match asked {
        Ok(metrics) => {
            let text = format!(
                "hxe: {}, {} programs: {} running, {} stopped, {} error\n",
                output.painted("running"),
                metrics.total,
                metrics.running,
                metrics.stopped,
                metrics.error
            );
            (text, "running", 0)
        }
        // Somebody answers, if only to say no.
        Err(failure) if is_there(args, &failure) => {
            let text = format!("hxe: {}\n", output.painted("running"));
            (text, "running", 0)
        }
        Err(failure) if failure.code == Code::Network => {
            if !quiet {
                report::info(format_args!("{}", failure.message));
            }
            ("hxe: stopped\n".to_owned(), "stopped", STOPPED)
        }
        Err(failure) => return unknown(failure),
    };
    if !quiet {
        say(&match output.format {
            Format::Table => text,
            Format::Tsv => format!("hxe\t{json}\n"),
            Format::Json => format!("{{\"status\":\"{json}\"}}\n"),
        })?;
    }
    Ok(ExitCode::from(code))
}

/// Whether the daemon answered, and does not know who asks.
fn is_there(args: &Args, failure: &Failure) -> bool {
    failure.code == Code::Authentication && connect::server(args).is_ok()
}

/// How the last run ended: a code, or the signal.
fn exit(program: &Program) -> Option<String> {
    match (&program.exit_signal, program.exit_code) {
        (Some(signal), _) => Some(signal.clone()),
        (None, code) => code.map(|code| code.to_string()),
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn yes(flag: bool) -> String {
    flag.to_string()
}

/// How long ago a moment was, for people: `5s`, `3m12s`, `7h5m`, `12d3h`.
pub fn age(moment: &str) -> String {
    match clock::parse_timestamp(moment) {
        Some(moment) => span(Timestamp::now().as_secs() - moment.as_secs()),
        None => "-".to_owned(),
    }
}

/// Seconds, for people; the two largest units.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (7260, "2h1m"),
            (90_000, "1d1h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
