//! The daemon's own messages: one line each on standard error, for the init's log or a terminal.
//!
//! Never fails, never panics and never waits: whoever reads standard error may stall, and the daemon goes on without
//! being heard. Lines that had no room are counted, and the count is said with the next one that has. Used everywhere.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lines that standard error had no room for.
static LOST: AtomicU32 = AtomicU32::new(0);
static TURN: Mutex<()> = Mutex::new(());
/// Longest line: a pipe that is ready to be written to takes so much without waiting. Source: pipe(7), PIPE_BUF.
const LONGEST: usize = 4096;

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
    // One at a time: room that one has found is not taken by another.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    say(io::stderr().as_fd(), text, &LOST);
}

/// Writes a line if there is room for it now, and before it how many had none.
fn say(to: BorrowedFd, mut line: String, lost: &AtomicU32) {
    if !has_room(to) {
        lost.fetch_add(1, Ordering::Relaxed);
        return;
    }
    match lost.swap(0, Ordering::Relaxed) {
        0 => {}
        count => {
            let before = format!("hxe: warning: {count} messages before this one were lost\n");
            line.insert_str(0, &before);
        }
    }
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST - 1));
        line.push('\n');
    }
    // One write, so that lines of several threads do not mix. Nobody could be told of a failure.
    let _ = rustix::io::write(to, line.as_bytes());
}

fn has_room(to: BorrowedFd) -> bool {
    let mut fds = [PollFd::new(&to, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Where that cannot be found out, as on a closed descriptor, the write fails by itself.
    poll(&mut fds, Some(&at_once)) != Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, pipe};

    #[test]
    fn a_reader_that_stalls_holds_nobody_and_is_told_what_it_missed() {
        let (mut reader, writer) = pipe().unwrap();
        let lost = AtomicU32::new(0);
        let long = format!("{}\n", "x".repeat(2000));
        // Far more than any pipe holds.
        for _ in 0..1000 {
            say(writer.as_fd(), long.clone(), &lost);
        }
        let missed = lost.load(Ordering::Relaxed);
        assert!(missed > 0);
        let mut kept = vec![0; 2001 * (1000 - missed as usize)];
        reader.read_exact(&mut kept).unwrap();
        say(writer.as_fd(), "hxe: again\n".to_owned(), &lost);
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(
            rest,
            format!("hxe: warning: {missed} messages before this one were lost\nhxe: again\n")
        );
    }

    #[test]
    fn a_closed_reader_is_no_error() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        say(writer.as_fd(), "line\n".to_owned(), &AtomicU32::new(0));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let (mut reader, writer) = pipe().unwrap();
        say(writer.as_fd(), "é".repeat(5000), &AtomicU32::new(0));
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() <= LONGEST && text.ends_with("é\n"));
    }
}
