//! `hxe daemon`: runs the daemon, or checks its configuration.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Environment, Error};
use crate::daemon::Options;
use crate::{daemon, report, sys};

use super::args::Daemon;
use super::{EXIT_USAGE, background, say};

/// Runs the command.
pub fn run(arguments: Daemon) -> ExitCode {
    if arguments.check {
        return check(arguments.config.as_deref());
    }
    if arguments.background {
        return background::start(&arguments);
    }
    let ready = match arguments.ready_on_stdout.then(sys::background::detach) {
        None => None,
        Some(Ok(ready)) => Some(ready),
        Some(Err(error)) => {
            report::error(format_args!("cannot go into the background: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match Config::load(arguments.config.as_deref(), &Environment::of_process()) {
        Ok(config) => daemon::run(Options {
            config,
            config_path: arguments.config,
            pid_file: arguments.pid_file,
            ready,
        }),
        Err(error) => wrong(&error),
    }
}

fn check(path: Option<&Path>) -> ExitCode {
    match Config::load(path, &Environment::of_process()) {
        Ok(Config { source, .. }) => match source {
            Some(path) => say(&format!(
                "hxe: configuration is fine ({})\n",
                path.display()
            )),
            None => say("hxe: configuration is fine (no file, defaults)\n"),
        },
        Err(error) => wrong(&error),
    }
}

fn wrong(error: &Error) -> ExitCode {
    for line in error.lines() {
        report::error(format_args!("{line}"));
    }
    ExitCode::from(EXIT_USAGE)
}
