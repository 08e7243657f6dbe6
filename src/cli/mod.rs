//! The command line: argv to a command, exit codes.
//!
//! One file a group of commands; `args` alone knows how they are written. Says errors on standard error and exits 2 where
//! the usage or the configuration is wrong. Called by `main`.

mod args;
mod background;
mod daemon;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::report;

use args::{Command, Parsed};

/// How a command that found the usage or the configuration wrong exits.
const EXIT_USAGE: u8 = 2;

/// Runs the command that argv names.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args::parse(arguments) {
        Parsed::Command(Command::Daemon(options)) => daemon::run(options),
        Parsed::Command(Command::Version(_)) => {
            say(&format!("hxe {}\n", env!("CARGO_PKG_VERSION")))
        }
        Parsed::Help(text) => say(&text),
        Parsed::Wrong(message) => {
            report::error(format_args!("{message}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Prints what was asked for. Who closes the pipe early has read enough; any other failure is one.
fn say(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report::error(format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
