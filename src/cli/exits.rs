//! `hxe exits`: how the last runs of a program ended, and what they wrote last.

use std::process::ExitCode;

use super::args::Args;
use super::connect::client;
use super::failure::Failure;
use super::measure::memory;
use super::output::{Format, Output, column, number, wide};
use super::say;
use super::show::span;
use super::table::{Opt, Value, opt};
use super::text::clean;
use crate::client::Exit;

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("output", Some('o'), Value::No, "with the last that each run wrote"),
];

/// `hxe exits`.
pub fn exits(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let exits = client(args)?
        .exits(&args.operands[0])
        .map_err(|error| Failure::from(error).of(&args.operands[0]))?;
    if output.format == Format::Table && args.is_on("output") {
        return say(&exits.iter().map(told).collect::<String>());
    }
    let columns = [
        number("NUMBER"),
        column("ENDED"),
        column("REASON"),
        number("EXIT"),
        number("RAN"),
        number("CPU"),
        number("MEMORY"),
        column("BY"),
        wide("MESSAGE"),
    ];
    let rows: Vec<Vec<String>> = exits.iter().map(|exit| row(&output, exit)).collect();
    let json: Vec<String> = exits.iter().map(|exit| exit.json.to_string()).collect();
    output.rows(&columns, &rows, &format!("[{}]", json.join(",\n")))
}

fn row(output: &Output, exit: &Exit) -> Vec<String> {
    let seconds = |seconds: f64| match output.format {
        Format::Table => time(seconds),
        _ => seconds.to_string(),
    };
    let code = || exit.exit_code.map(|code| code.to_string());
    let by = exit.user.as_ref().or(exit.via.as_ref());
    vec![
        exit.number.to_string(),
        exit.end_time.clone(),
        exit.reason.clone(),
        or_dash(exit.exit_signal.clone().or_else(code)),
        or_dash(exit.run_time.map(seconds)),
        or_dash(exit.cpu_seconds.map(seconds)),
        or_dash(exit.max_memory_bytes.map(|bytes| memory(output, bytes))),
        or_dash(by.cloned()),
        exit.message.clone(),
    ]
}

/// An end and what was written before it.
fn told(exit: &Exit) -> String {
    let ran = exit
        .run_time
        .map_or_else(String::new, |seconds| format!(" after {}", time(seconds)));
    let mut text = format!("{}: {}{ran}\n", exit.end_time, clean(&exit.message));
    for line in exit.output.iter().flat_map(|output| output.lines()) {
        text += &format!("    {}\n", clean(line));
    }
    text
}

/// One line, as `hxe info` shows an end.
pub fn line(exit: &Exit) -> String {
    let ran = exit
        .run_time
        .map_or_else(String::new, |seconds| format!(" after {}", time(seconds)));
    format!("{} {}: {}{ran}", exit.end_time, exit.reason, exit.message)
}

/// Seconds, for people: short ones exactly.
fn time(seconds: f64) -> String {
    match seconds < 60.0 {
        true => format!("{}s", (seconds * 1000.0).round() / 1000.0),
        false => span(seconds as i64),
    }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}
