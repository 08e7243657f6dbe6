//! `hxe daemon`: runs the daemon, or checks its configuration.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Environment, Error};
use crate::daemon::Options;
use crate::{daemon, guardian, report, sys};

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
        Some(Err(error)) => return failed("cannot go into the background", &error),
    };
    if arguments.guarded.is_none() && !arguments.no_guardian {
        return guard(&arguments, ready);
    }
    let link = match arguments.guarded.map(sys::background::take_inherited) {
        None => None,
        Some(Ok(link)) => Some(link),
        Some(Err(error)) => return failed("there is no guardian", &error),
    };
    match Config::load(arguments.config.as_deref(), &Environment::of_process()) {
        Ok(config) => daemon::run(Options {
            config,
            config_path: arguments.config,
            pid_file: arguments.pid_file,
            ready,
            in_background: arguments.in_background,
            open_files: arguments.open_files,
            link,
        }),
        Err(error) => wrong(&error),
    }
}

/// Becomes the guardian of the daemon that the arguments describe.
fn guard(arguments: &Daemon, ready: Option<OwnedFd>) -> ExitCode {
    let mut own = vec![OsString::from("daemon")];
    for (option, path) in arguments.files() {
        own.extend([option.into(), path.as_os_str().to_owned()]);
    }
    if ready.is_some() || arguments.in_background {
        own.push("--in-background".into());
    }
    // A guardian that became another binary has raised its own already.
    if let Some(limit) = arguments.open_files.or_else(sys::process::open_files) {
        own.extend(["--open-files".into(), limit.to_string().into()]);
    }
    guardian::run(guardian::Options {
        arguments: own,
        ready,
        handover: arguments.handover,
    })
}

fn failed(what: &str, error: &io::Error) -> ExitCode {
    report::error(format_args!("{what}: {error}"));
    ExitCode::FAILURE
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
