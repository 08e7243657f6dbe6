//! The daemon's own messages: one line each on standard error, for the init's log or a terminal.
//!
//! Never fails and never panics: a daemon whose standard error is closed or full goes on. Used everywhere.

use std::fmt;
use std::io::Write;

/// How much a line matters; written in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// Says something that an operator may like to know.
pub fn info(message: fmt::Arguments) {
    line(Level::Info, message);
}

/// Says that something is not as it should be, and that the daemon goes on.
pub fn warn(message: fmt::Arguments) {
    line(Level::Warn, message);
}

/// Says that something failed.
pub fn error(message: fmt::Arguments) {
    line(Level::Error, message);
}

fn line(level: Level, message: fmt::Arguments) {
    let text = match level {
        Level::Info => format!("hxe: {message}\n"),
        Level::Warn => format!("hxe: warning: {message}\n"),
        Level::Error => format!("hxe: error: {message}\n"),
    };
    // One write a line, so that lines of several threads do not mix. Nobody could be told of a failure.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
