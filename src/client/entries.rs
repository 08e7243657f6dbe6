//! Log entries as they come: one JSON object a line.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::wire::LogEntry;
use super::{Error, timed};

/// Bytes of a line. An entry has 16 KiB of text at most, each byte of which takes six where it is escaped.
const MAX_LINE: usize = 256 * 1024;

/// Which entries are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter<'a> {
    /// The last so many, of those that fit; `None`: the daemon's default.
    pub lines: Option<u32>,
    /// `debug`, `info`, `warn`, `error`; empty: all.
    pub levels: &'a [&'a str],
}

/// Log entries, one by one as they are read. Those that are followed come for as long as the daemon runs, and `next` waits
/// for them; the others end. The first error is the last item.
pub struct Entries {
    connection: Connection,
    line: Vec<u8>,
    /// Bytes of `line` that are used, and those in which no line end was found.
    used: usize,
    searched: usize,
    over: bool,
    /// How long an answer may take, where it has an end.
    patience: Option<Duration>,
}

impl Entries {
    pub(super) fn new(mut connection: Connection, patience: Option<Duration>) -> Entries {
        if patience.is_none() {
            connection.socket.until = None;
        }
        Entries {
            connection,
            line: Vec::new(),
            used: 0,
            searched: 0,
            over: false,
            patience,
        }
    }

    /// The next entry, if it is there within so long; `None` also at the end, which [`is_over`](Entries::is_over) tells
    /// apart. What has come of an entry is kept.
    ///
    /// # Errors
    /// As for `next`.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<LogEntry>, Error> {
        let before = self.connection.socket.until;
        self.connection.socket.until = Some(Instant::now() + patience);
        let entry = self.read();
        self.connection.socket.until = before;
        match entry {
            Err(Error::Lost(error)) if error.kind() == std::io::ErrorKind::TimedOut => Ok(None),
            other => {
                self.over = !matches!(other, Ok(Some(_)));
                other
            }
        }
    }

    /// Nothing more will come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn read(&mut self) -> Result<Option<LogEntry>, Error> {
        if self.over {
            return Ok(None);
        }
        loop {
            let unseen = self.line[self.searched..].iter();
            if let Some(at) = unseen.clone().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                let entry = parse(&self.line[self.used..end])?;
                self.used = end + 1;
                self.searched = self.used;
                match entry {
                    Some(entry) => return Ok(Some(entry)),
                    None => continue,
                }
            }
            self.line.drain(..self.used);
            self.used = 0;
            self.searched = self.line.len();
            if self.line.len() > MAX_LINE {
                return Err(Error::Protocol("a log entry is too long"));
            }
            if !self.connection.piece(&mut self.line)? {
                return match self.line.trim_ascii() {
                    [] => Ok(None),
                    _ => Err(Error::Protocol("a log entry is cut off")),
                };
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Option<LogEntry>, Error> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice(line) {
        Ok(json) => Ok(Some(LogEntry::read(&json))),
        Err(_) => Err(Error::Protocol("a log entry is not JSON")),
    }
}

impl Iterator for Entries {
    type Item = Result<LogEntry, Error>;

    fn next(&mut self) -> Option<Result<LogEntry, Error>> {
        let entry = self.read();
        self.over = !matches!(entry, Ok(Some(_)));
        let patience = self.patience.unwrap_or_default();
        entry.map_err(|error| timed(error, patience)).transpose()
    }
}

/// To be waited for together with others. Readable means that there may be an entry; one that was read ahead is not seen
/// here, so take what [`next_within`](Entries::next_within) zero gives first.
impl AsFd for Entries {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.socket.as_fd()
    }
}
