//! `hxe daemon --background`: starts the daemon as a process of its own and waits until it listens.
//!
//! The process is started anew rather than forked, so that nothing is shared with it but a pipe, see
//! `sys::background`. Its standard error stays the caller's until it listens: what keeps it from that is seen.

use std::io::{self, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;

use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use crate::report;
use crate::sys::background::{READY, keep_inherited};

use super::daemon::Daemon;

/// Starts the daemon; 0 once it listens, else its own exit code.
pub fn start(arguments: &Daemon) -> ExitCode {
    match spawn(arguments) {
        Ok((child, ready)) => wait(child, ready),
        Err(error) => {
            report::error(format_args!("cannot start the daemon: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn spawn(arguments: &Daemon) -> io::Result<(Child, PipeReader)> {
    keep_inherited();
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["daemon", "--ready-on-stdout"]);
    for (option, path) in arguments.files() {
        command.arg(option).arg(std::path::absolute(path)?);
    }
    if arguments.no_guardian {
        command.arg("--no-guardian");
    }
    // The daemon keeps no directory busy; hence the absolute paths. The pipe's writing end goes with `command`, so
    // that the daemon's is the only one left.
    let child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .spawn()?;
    Ok((child, reader))
}

fn wait(mut child: Child, mut ready: PipeReader) -> ExitCode {
    let mut byte = [0];
    if ready.read_exact(&mut byte).is_ok() && byte[0] == READY {
        return ExitCode::SUCCESS;
    }
    match child.wait() {
        Ok(status) => failed(status),
        Err(error) => {
            report::error(format_args!("cannot wait for the daemon: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// An exit code has been explained by the daemon itself; other ends have not.
fn failed(status: ExitStatus) -> ExitCode {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) if code != 0 => ExitCode::from(code),
        _ => {
            match status.signal() {
                Some(signal) => report::error(format_args!(
                    "the daemon was killed by signal {signal} before it listened"
                )),
                None => report::error(format_args!("the daemon ended before it listened")),
            }
            ExitCode::FAILURE
        }
    }
}
