//! `hxe start`, `stop`, `restart`, `enable`, `disable`, `delete` and `signal`: many programs at once, one line each.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::args::Args;
use super::connect::{client_within, timeout};
use super::failure::{Code, Failure};
use super::output::{Format, Output, tsv};
use super::say;
use super::table::{Opt, Value, opt};
use super::text::clean;
use crate::client::{Client, Error, Outcome};
use crate::report;

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("timeout", None, Value::One("TIME"), "wait no longer than this for an answer, as in 30s; default: for a stop as long as it takes, else 30s"),
    opt("quiet", Some('q'), Value::No, "print errors only"),
];

#[rustfmt::skip]
pub const WAIT: &[Opt] = &[
    opt("wait", Some('w'), Value::No, "come back only when it has run for a second, and fail if it ended before"),
];

#[rustfmt::skip]
pub const FORCE: &[Opt] = &[
    opt("force", Some('f'), Value::No, "kill at once"),
];

/// Requests that are under way at a time.
const AT_ONCE: usize = 32;
/// A program that has run for so long is taken to be up.
const UP_AFTER: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `hxe start`.
pub fn start(args: &Args) -> Result<ExitCode, Failure> {
    let wait = args.is_on("wait");
    each(args, &args.operands, "started", &|client, program| {
        let outcome = client.start(program)?;
        stays_up(client, outcome, wait)
    })
}

/// `hxe restart`.
pub fn restart(args: &Args) -> Result<ExitCode, Failure> {
    let wait = args.is_on("wait");
    each(args, &args.operands, "restarted", &|client, program| {
        let outcome = client.restart(program)?;
        stays_up(client, outcome, wait)
    })
}

/// `hxe stop`.
pub fn stop(args: &Args) -> Result<ExitCode, Failure> {
    let force = args.is_on("force");
    each(args, &args.operands, "stopped", &|client, program| {
        Ok(client.stop(program, force)?)
    })
}

/// `hxe enable`.
pub fn enable(args: &Args) -> Result<ExitCode, Failure> {
    each(args, &args.operands, "enabled", &|client, program| {
        Ok(client.enable(program)?)
    })
}

/// `hxe disable`.
pub fn disable(args: &Args) -> Result<ExitCode, Failure> {
    each(args, &args.operands, "disabled", &|client, program| {
        Ok(client.disable(program)?)
    })
}

/// `hxe delete`.
pub fn delete(args: &Args) -> Result<ExitCode, Failure> {
    each(args, &args.operands, "deleted", &|client, program| {
        Ok(client.delete(program)?)
    })
}

/// `hxe signal`.
pub fn signal(args: &Args) -> Result<ExitCode, Failure> {
    let (signal, programs) = args.operands.split_at(1);
    each(args, programs, "signalled", &|client, program| {
        Ok(client.signal(program, &signal[0])?)
    })
}

type Act<'a> = &'a (dyn Fn(&Client, &str) -> Result<Outcome, Failure> + Sync);

/// Does it to all programs at once, and prints a line as each is done. Where some failed and all for one reason, that is
/// the exit code.
fn each(args: &Args, programs: &[String], done: &str, act: Act) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let client = client_within(args, timeout(args)?)?;
    let quiet = args.is_on("quiet");
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<Code>> = Mutex::default();
    let work = || {
        while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = act(&client, program);
            // One line at a time, and errors in their order among them.
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            let said =
                result
                    .map_err(|failure| failure.of(program))
                    .and_then(|outcome| match quiet {
                        true => Ok(ExitCode::SUCCESS),
                        false => say(&line(&output, program, done, &outcome)),
                    });
            if let Err(failure) = said {
                report::error(format_args!("{}", failure.message));
                failed.push(failure.code);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..programs.len().min(AT_ONCE) {
            // Where there can be no further thread, the ones there are do it all.
            let more = std::thread::Builder::new().spawn_scoped(scope, work);
            if more.is_err() {
                break;
            }
        }
        work();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failed.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        [first, rest @ ..] if rest.iter().all(|code| code == first) => {
            Err(Failure::new(*first, ""))
        }
        _ => Err(Failure::general("")),
    }
}

fn line(output: &Output, program: &str, done: &str, outcome: &Outcome) -> String {
    let pid = outcome.pid.map(|pid| pid.to_string());
    match output.format {
        Format::Json => outcome.json.to_string() + "\n",
        Format::Tsv => tsv(&[
            program.to_owned(),
            done.to_owned(),
            pid.unwrap_or_else(|| "-".to_owned()),
        ]),
        Format::Table => {
            let more = match (pid, outcome.exit_code) {
                (Some(pid), _) => format!(" (pid {pid})"),
                (None, Some(code)) => format!(" (exit code {code})"),
                (None, None) => String::new(),
            };
            let mut text = format!("{}: {done}{more}\n", clean(program));
            for (pid, name) in &outcome.left_behind {
                let name = clean(name);
                text += &format!("  left behind, as it cannot be killed: {name} (pid {pid})\n");
            }
            text
        }
    }
}

/// Waits until what was started has run for a while.
fn stays_up(client: &Client, outcome: Outcome, wait: bool) -> Result<Outcome, Failure> {
    let until = Instant::now() + UP_AFTER;
    while wait && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        let program = client.get(&outcome.id).map_err(|error| match error {
            Error::NotFound(_) => Failure::new(Code::NoProgram, "it was deleted meanwhile"),
            error => error.into(),
        })?;
        if program.pid == outcome.pid {
            continue;
        }
        let how = match (&program.exit_signal, program.exit_code) {
            (Some(signal), _) => format!(", by signal {}", clean(signal)),
            (None, Some(code)) => format!(", with exit code {code}"),
            (None, None) => String::new(),
        };
        let what = format_args!("it was started and ended within a second{how}");
        return Err(Failure::general(what));
    }
    Ok(outcome)
}
