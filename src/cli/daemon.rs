//! `hxe daemon`: runs the daemon, or checks its configuration.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{Config, Environment, Error};
use crate::daemon::Options;
use crate::{daemon, guardian, report, sys};

use super::args::Args;
use super::failure::{Code, Failure};
use super::table::{Opt, Value, opt};
use super::{background, say};

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("config", Some('c'), Value::One("FILE"), "the configuration; default: /etc/hxe/hxe.toml as root, else ~/.config/hxe/hxe.toml, if it exists"),
    opt("check", None, Value::No, "say what is wrong with the configuration, and exit; nothing is started or changed"),
    opt("background", None, Value::No, "return when the daemon listens, and leave it running"),
    opt("pid-file", None, Value::One("FILE"), "write the daemon's process id to this file, and remove it at the end"),
    opt("no-guardian", None, Value::No, "run without the guardian, which starts the daemon again should it die"),
    // The descriptor of the link to the guardian.
    opt("guarded", None, Value::One("NUMBER"), ""),
    // The process id of the guardian, for who looks for it in our command line.
    opt("guardian", None, Value::One("NUMBER"), ""),
    // The descriptor in which a guardian that becomes another binary has written down what it holds.
    opt("handover", None, Value::One("NUMBER"), ""),
    // The soft limit of open files that programs get: the one that the guardian was started with.
    opt("open-files", None, Value::One("NUMBER"), ""),
    // Let go of standard error once the daemon listens.
    opt("in-background", None, Value::No, ""),
    // Standard output is the pipe on which to say that the daemon listens.
    opt("ready-on-stdout", None, Value::No, ""),
];

/// The options as they were given.
pub struct Daemon {
    config: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    pub no_guardian: bool,
    guarded: Option<i32>,
    handover: Option<i32>,
    open_files: Option<u64>,
    in_background: bool,
    ready_on_stdout: bool,
}

impl Daemon {
    fn of(args: &Args) -> Result<Daemon, Failure> {
        let descriptor = |option| -> Result<Option<i32>, Failure> {
            number(args, option)?
                .map(i32::try_from)
                .transpose()
                .map_err(|_| not_a_number(option))
        };
        Ok(Daemon {
            config: path(args, "config")?,
            pid_file: path(args, "pid-file")?,
            no_guardian: args.is_on("no-guardian"),
            guarded: descriptor("guarded")?,
            handover: descriptor("handover")?,
            open_files: number(args, "open-files")?,
            in_background: args.is_on("in-background"),
            ready_on_stdout: args.is_on("ready-on-stdout"),
        })
    }

    /// The options that name files, and those.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [("--config", &self.config), ("--pid-file", &self.pid_file)]
            .into_iter()
            .filter_map(|(option, path)| Some((option, path.as_ref()?)))
    }
}

/// The path in an option.
pub fn path(args: &Args, option: &str) -> Result<Option<PathBuf>, Failure> {
    match args.value(option) {
        Some("") => Err(Failure::usage(format_args!("--{option} must not be empty"))),
        path => Ok(path.map(PathBuf::from)),
    }
}

fn number(args: &Args, option: &str) -> Result<Option<u64>, Failure> {
    let number = args.value(option).map(str::parse).transpose();
    number.map_err(|_| not_a_number(option))
}

fn not_a_number(option: &str) -> Failure {
    Failure::usage(format_args!("--{option} is not a number"))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let arguments = Daemon::of(args)?;
    if args.is_on("check") {
        return check(arguments.config.as_deref());
    }
    if args.is_on("background") {
        return Ok(background::start(&arguments));
    }
    sys::process::name_main_thread();
    let ready = match arguments.ready_on_stdout.then(sys::background::detach) {
        None => None,
        Some(Ok(ready)) => Some(ready),
        Some(Err(error)) => return Err(failed("cannot go into the background", &error)),
    };
    if arguments.guarded.is_none() && !arguments.no_guardian {
        return Ok(guard(&arguments, ready));
    }
    let link = match arguments.guarded.map(sys::background::take_inherited) {
        None => None,
        Some(Ok(link)) => Some(link),
        Some(Err(error)) => return Err(failed("there is no guardian", &error)),
    };
    Ok(daemon::run(Options {
        config_path: arguments.config,
        pid_file: arguments.pid_file,
        ready,
        in_background: arguments.in_background,
        open_files: arguments.open_files,
        link,
    }))
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

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::general(format_args!("{what}: {error}"))
}

fn check(path: Option<&Path>) -> Result<ExitCode, Failure> {
    sys::fault::point(concat!("hxe/", env!("CARGO_PKG_VERSION"), " checks"));
    match Config::load(path, &Environment::of_process()) {
        Ok(config) => {
            let mistakes = daemon::check(&config);
            if !mistakes.is_empty() {
                return Err(Failure::new(Code::Usage, mistakes.join("\n")));
            }
            match config.source {
                Some(path) => say(&format!(
                    "hxe: configuration is fine ({})\n",
                    path.display()
                )),
                None => say("hxe: configuration is fine (no file, defaults)\n"),
            }
        }
        Err(error) => Err(wrong(&error)),
    }
}

/// What is wrong with a configuration, all of it.
pub fn wrong(error: &Error) -> Failure {
    for line in error.lines() {
        report::error(format_args!("{line}"));
    }
    Failure::new(Code::Usage, "")
}
