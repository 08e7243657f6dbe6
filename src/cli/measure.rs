//! `hxe metrics`: what programs and the machine use.

use std::collections::HashMap;
use std::process::ExitCode;

use super::args::Args;
use super::connect::client;
use super::failure::Failure;
use super::output::{Format, Output, column, number, wide};
use super::say_more;
use super::show::span;
use super::table::{Opt, Value, opt};
use crate::client::{Client, ListFilter, Metrics, Program};

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("system", None, Value::No, "the machine; this is what is shown where no program is named"),
    opt("all", Some('a'), Value::No, "all programs that run"),
    opt("export", None, Value::Choice(&["prometheus"]), "everything, as Prometheus scrapes it"),
];

/// `hxe metrics`.
pub fn metrics(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let (system, all) = (args.is_on("system"), args.is_on("all"));
    let export = args.value("export").is_some();
    let kinds = [system, all, export, !args.operands.is_empty()];
    if kinds.into_iter().filter(|kind| *kind).count() > 1 {
        let what = "--system, --all, --export and names of programs exclude each other";
        return Err(Failure::usage(what));
    }
    let client = client(args)?;
    if export {
        return print_export(&client);
    }
    if all {
        return of_all(&client, &output);
    }
    if args.operands.is_empty() {
        return of_system(&client, &output);
    }
    let mut found = Vec::new();
    for name in &args.operands {
        let failed = |error| Failure::from(error).of(name);
        let program = client.get(name).map_err(failed)?;
        let metrics = client.metrics(&program.id).map_err(failed)?;
        found.push((program, metrics));
    }
    print(&found, &output, found.len() == 1)
}

fn print_export(client: &Client) -> Result<ExitCode, Failure> {
    let mut answer = client.prometheus()?;
    let mut piece = Vec::new();
    while answer.read(&mut piece)? {
        if !say_more(&piece)? {
            break;
        }
        piece.clear();
    }
    Ok(ExitCode::SUCCESS)
}

fn of_all(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let running = ListFilter {
        status: Some("running"),
        ..ListFilter::default()
    };
    let programs = client.list(&running)?;
    let mut measured: HashMap<String, Metrics> = client
        .all_metrics()?
        .programs
        .into_iter()
        .map(|program| (program.metrics.program_id.clone(), program.metrics))
        .collect();
    // Without those that were deleted meanwhile.
    let found: Vec<_> = programs
        .into_iter()
        .filter_map(|program| {
            let metrics = measured.remove(&program.id)?;
            Some((program, metrics))
        })
        .collect();
    print(&found, output, false)
}

fn print(found: &[(Program, Metrics)], output: &Output, one: bool) -> Result<ExitCode, Failure> {
    let columns = [
        column("ID"),
        wide("NAME"),
        number("CPU%"),
        number("MEMORY"),
        number("UPTIME"),
        number("RESTARTS"),
    ];
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(program, metrics)| {
            vec![
                program.id.clone(),
                program.name().to_owned(),
                format!("{:.1}", metrics.cpu_usage),
                memory(output, metrics.memory_bytes),
                uptime(output, metrics.uptime),
                metrics.restart_count.to_string(),
            ]
        })
        .collect();
    let json: Vec<String> = found
        .iter()
        .map(|(_, metrics)| metrics.json.to_string())
        .collect();
    let json = match one {
        true => json.concat(),
        false => format!("[{}]", json.join(",\n")),
    };
    output.rows(&columns, &rows, &json)
}

fn of_system(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let metrics = client.system_metrics()?;
    let percent = |value: f64| match output.format {
        Format::Table => format!("{value:.1} %"),
        _ => format!("{value:.1}"),
    };
    let disk = metrics.disk_usage.map_or_else(|| "-".to_owned(), percent);
    output.fields(
        &[
            ("cpu_usage", percent(metrics.cpu_usage)),
            ("memory_usage", memory(output, metrics.memory_bytes)),
            ("disk_usage", disk),
            ("uptime", uptime(output, metrics.uptime)),
            ("programs", metrics.total.to_string()),
            ("running", metrics.running.to_string()),
            ("stopped", metrics.stopped.to_string()),
            ("error", metrics.error.to_string()),
        ],
        &metrics.json.to_string(),
    )
}

/// MiB to read, bytes for scripts.
pub fn memory(output: &Output, bytes: u64) -> String {
    match output.format {
        Format::Table => {
            let tenths = bytes * 10 / (1024 * 1024);
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
        _ => bytes.to_string(),
    }
}

fn uptime(output: &Output, seconds: u64) -> String {
    match output.format {
        Format::Table => span(i64::try_from(seconds).unwrap_or(i64::MAX)),
        _ => seconds.to_string(),
    }
}
