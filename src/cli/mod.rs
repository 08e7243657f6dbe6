//! The command line: argv to a command, exit codes.
//!
//! One file a group of commands; `table` says which there are and what they take. Says errors on standard error; `failure`
//! has the exit codes. Called by `main`.

mod args;
mod background;
mod completions;
mod connect;
mod control;
mod daemon;
mod define;
mod exits;
mod failure;
mod help;
mod import;
mod logins;
mod measure;
mod output;
mod prompt;
mod run;
mod service;
mod session;
mod show;
mod table;
mod text;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::report;

use args::{Args, Parsed};
use failure::Failure;

/// Runs the command that argv names.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match args::parse(arguments) {
        Parsed::Command(args) => (args.command.run)(&args),
        Parsed::Help(text) => say(&text),
        Parsed::Wrong(message) => Err(Failure::usage(message)),
    };
    outcome.unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            report::error(format_args!("{}", failure.message));
        }
        ExitCode::from(failure.code as u8)
    })
}

/// `hxe version`.
fn version(_: &Args) -> Result<ExitCode, Failure> {
    say(&format!("hxe {}\n", env!("CARGO_PKG_VERSION")))
}

/// Prints what was asked for. Who closes the pipe early has read enough; any other failure is one.
fn say(text: &str) -> Result<ExitCode, Failure> {
    say_more(text.as_bytes()).map(|_| ExitCode::SUCCESS)
}

/// Prints a piece of what has no end. `false`: nobody reads it any more.
fn say_more(text: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::general(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}
