//! `hxe logs` and `hxe events`: what programs write, and what happens.

use std::process::ExitCode;

use super::args::Args;
use super::connect::client;
use super::failure::Failure;
use super::output::{Format, Output, tsv};
use super::say_more;
use super::table::{Opt, Value, opt};
use super::text::{clean, clean_line};
use crate::client::{self, Entries, Event, LogEntry, LogFilter};
use crate::report;

#[rustfmt::skip]
pub const LOGS: &[Opt] = &[
    opt("follow", Some('f'), Value::No, "go on with what is written from now on"),
    opt("tail", Some('n'), Value::One("N"), "the last N lines, at most 10000; default: 100"),
    opt("level", None, Value::One("LEVEL"), "only lines of this level: debug, info, warn or error, or several with commas between"),
    opt("timestamps", Some('t'), Value::No, "with the time of each line"),
];

#[rustfmt::skip]
pub const EVENTS: &[Opt] = &[
    opt("type", None, Value::Many("TYPE"), "only events of this type, such as program.error, program.* or log.new; may be given several times; default: program.*"),
];

/// `hxe logs`.
pub fn logs(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let program = &args.operands[0];
    let lines = match args.value("tail").map(str::parse) {
        None => None,
        Some(Ok(lines)) => Some(lines),
        Some(Err(_)) => return Err(Failure::usage("--tail must be a number")),
    };
    let levels: Vec<&str> = args
        .value("level")
        .iter()
        .flat_map(|list| list.split(','))
        .collect();
    let filter = LogFilter {
        lines,
        levels: &levels,
    };
    let client = client(args)?;
    let follow = args.is_on("follow");
    let entries = match follow {
        true => client.follow(program, &filter),
        false => client.logs(program, &filter),
    };
    let entries = entries.map_err(|error| Failure::from(error).of(program))?;
    let is_read = print(entries, &output, args.is_on("timestamps"))?;
    if follow && is_read && !matches!(client.get(program), Err(client::Error::NotFound(_))) {
        report::info(format_args!(
            "the log ends here, as the daemon has left or the login has ended"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints entries to their end. `false`: nobody reads them any more.
fn print(entries: Entries, output: &Output, timestamps: bool) -> Result<bool, Failure> {
    for entry in entries {
        if !say_more(line(&entry?, output, timestamps).as_bytes())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn line(entry: &LogEntry, output: &Output, timestamps: bool) -> String {
    let LogEntry {
        timestamp,
        level,
        message,
        stream,
    } = entry;
    match output.format {
        Format::Json => {
            let quoted = |text: &str| client::Value::from(text).to_string();
            format!(
                "{{\"timestamp\":{},\"level\":{},\"stream\":{},\"message\":{}}}\n",
                quoted(timestamp),
                quoted(level),
                quoted(stream),
                quoted(message)
            )
        }
        Format::Tsv => tsv(&[timestamp, level, stream, message].map(String::clone)),
        Format::Table => {
            let time = match timestamps {
                true => format!("{timestamp} "),
                false => String::new(),
            };
            let message = match output.terminal {
                true => clean_line(message),
                false => message.clone(),
            };
            let message = match (level.as_str(), stream.as_str()) {
                (_, "hxe") => output.paint("2", &message),
                ("error", _) => output.paint("31", &message),
                ("warn", _) => output.paint("33", &message),
                _ => message,
            };
            format!("{time}{message}\n")
        }
    }
}

/// `hxe events`.
pub fn events(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let mut kinds: Vec<&str> = args.all("type").collect();
    if kinds.is_empty() {
        kinds.push("program.*");
    }
    let programs: Vec<&str> = args.operands.iter().map(String::as_str).collect();
    let client = client(args)?;
    let mut ids = Vec::new();
    for program in &programs {
        // A subscription to what does not exist would be silent.
        let got = client.get(program);
        ids.push(got.map_err(|error| Failure::from(error).of(program))?.id);
    }
    for event in client.events(&kinds, &programs)? {
        let text = match event {
            // What happened before the daemon knew what is wanted.
            Ok(event) if !is_wanted(&event, &kinds, &ids) => continue,
            Ok(event) => event_line(&event, &output),
            Err(client::Error::Closed {
                code: code @ (1001 | 1012),
                ..
            }) => {
                report::info(format_args!(
                    "the daemon has left: {}",
                    match code {
                        1012 => "another one takes over",
                        _ => "it stops",
                    }
                ));
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => return Err(error.into()),
        };
        if !say_more(text.as_bytes())? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_wanted(event: &Event, kinds: &[&str], ids: &[String]) -> bool {
    // One that was dropped stands for those of its kind.
    let kind = match event.kind.as_str() {
        "log.dropped" => "log.new",
        kind => kind,
    };
    let fits = |wanted: &&str| match wanted.strip_suffix('*') {
        Some(begin) => kind.starts_with(begin),
        None => kind == *wanted,
    };
    kinds.iter().any(fits) && (ids.is_empty() || ids.contains(&event.program_id))
}

fn event_line(event: &Event, output: &Output) -> String {
    let data = |name: &str| event.data[name].as_str().unwrap_or_default().to_owned();
    match output.format {
        Format::Json => event.json.to_string() + "\n",
        Format::Tsv => tsv(&[
            event.timestamp.clone(),
            event.kind.clone(),
            event.program_id.clone(),
            data("name"),
            data("status"),
            data("message"),
        ]),
        Format::Table => {
            let (name, message) = (data("name"), data("message"));
            let who = if name.is_empty() {
                &event.program_id
            } else {
                &name
            };
            let kind = match event.kind.as_str() {
                kind @ "program.error" => output.paint("31", kind),
                kind => clean(kind),
            };
            let timestamp = clean(&event.timestamp);
            format!(
                "{timestamp} {kind:<17} {}: {}\n",
                clean(who),
                clean_line(&message)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str) -> LogEntry {
        LogEntry {
            timestamp: "2026-01-01T00:00:00.000Z".to_owned(),
            level: "info".to_owned(),
            message: message.to_owned(),
            stream: "stdout".to_owned(),
        }
    }

    #[test]
    fn lines_are_clean_on_a_terminal_and_whole_elsewhere() {
        let mut output = Output {
            format: Format::Table,
            color: false,
            terminal: true,
        };
        let raw = entry("\x1b[31ma\tb\x1b[2J");
        assert_eq!(line(&raw, &output, false), "a\tb\\x1b[2J\n");
        output.terminal = false;
        assert_eq!(line(&raw, &output, false), "\x1b[31ma\tb\x1b[2J\n");
        assert!(line(&raw, &output, true).starts_with("2026-01-01T00:00:00.000Z \x1b"));
        output.format = Format::Json;
        let json = line(&raw, &output, false);
        assert!(
            json.ends_with("\"message\":\"\\u001b[31ma\\tb\\u001b[2J\"}\n"),
            "{json}"
        );
    }
}
