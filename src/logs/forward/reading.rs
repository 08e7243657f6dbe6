//! A log file that is being read forward: finds where the next line ends, and what it says.
//!
//! Holds at most 64 KiB of the file and a block of its index, and neither while there is nothing to read. Called by
//! `forward`, which says how far the file may be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::spans::Spans;
use crate::logs::files::{self, Opened};
use crate::logs::index::Moment;
use crate::logs::level;
use crate::logs::lines::{End, Lines};
use crate::logs::pieces::{self, Line, Pieces};
use crate::logs::times::Times;

const WINDOW: u64 = 64 * 1024;

/// How far reading a file has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Where the line begins that is being read.
    pub line: u64,
    /// It has no newline before this.
    pub scanned: u64,
    /// Pieces of it that were given.
    pub pieces: u64,
}

impl Cursor {
    /// Where a line begins.
    pub fn at(line: u64) -> Cursor {
        Cursor {
            line,
            scanned: line,
            pieces: 0,
        }
    }
}

/// How far the file may be read for now.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub end: u64,
    /// What is before it and has no newline is a line nevertheless.
    pub complete: bool,
    /// The file grows no more.
    pub last: bool,
}

/// A line that was found, and where reading goes on behind it.
#[derive(Debug)]
pub struct Step {
    pub line: Line,
    pub cursor: Cursor,
    /// Bytes of the file that are done with then.
    pub given: u64,
}

/// The file.
pub struct Reading {
    file: Arc<File>,
    index: Option<File>,
    spans: Spans,
    window: Vec<u8>,
    window_start: u64,
    limit: Option<Limit>,
    /// When the file was last written, if it grows no more.
    modified: Option<Moment>,
}

impl Reading {
    pub fn new(opened: Opened) -> Reading {
        Reading {
            file: Arc::new(opened.file),
            index: None,
            spans: Spans::default(),
            window: Vec::new(),
            window_start: 0,
            limit: None,
            modified: None,
        }
    }

    /// Bytes in the file now.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the index is still to be found: it is made after the file.
    pub fn wants_index(&self) -> bool {
        self.index.is_none()
    }

    pub fn set_index(&mut self, index: Option<File>) {
        self.index = index;
    }

    /// Lets it be read as far as `limit`, whose records are in the index.
    ///
    /// # Errors
    /// The system does not say when it was last written.
    pub fn set_limit(&mut self, limit: Limit) -> io::Result<()> {
        self.modified = match limit.last {
            true => Some(files::modified(&self.file.metadata()?)),
            false => None,
        };
        self.spans.forget();
        self.limit = Some(limit);
        Ok(())
    }

    pub fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Keeps the file open and nothing else: there is nothing to read for now.
    pub fn rest(&mut self) {
        self.limit = None;
        self.spans.forget();
        self.window = Vec::new();
    }

    /// The cursor for going on behind the first `size` bytes, of which all that are finished are done with.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file was truncated.
    pub fn settle(&self, size: u64, cut: bool) -> io::Result<Cursor> {
        if size == 0 || cut {
            return Ok(Cursor::at(size));
        }
        let mut last = [0];
        self.file.read_exact_at(&mut last, size - 1)?;
        if last == *b"\n" {
            return Ok(Cursor::at(size));
        }
        let index = self.index.as_ref().map(File::try_clone).transpose()?;
        let times = Times::new(index, size, Moment::now());
        let (line, pieces) = Lines::new(self.file.clone(), size, times, End::Open).unfinished()?;
        Ok(Cursor {
            line,
            scanned: size,
            pieces,
        })
    }

    /// The next line or piece that is finished before the limit; none: `cursor` is as far as one can come.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file was truncated.
    pub fn next(&mut self, cursor: &mut Cursor) -> io::Result<Option<Step>> {
        let Some(limit) = self.limit else {
            return Ok(None);
        };
        // The byte before tells by its span whether a run ended here since we came here.
        let mut from = cursor.scanned - u64::from(cursor.scanned > cursor.line);
        let mut at = None;
        while from < limit.end {
            let span = self.spans.at(
                self.index.as_ref(),
                from,
                cursor.line,
                limit.end,
                self.modified,
            );
            if let Some(newline) = self.newline(cursor.scanned, span.end)? {
                return self.step(*cursor, newline, true, span.at).map(Some);
            }
            cursor.scanned = cursor.scanned.max(span.end);
            if span.end > from {
                at = Some(span.at);
            }
            if span.cut && span.end > cursor.line {
                let at = at.unwrap_or(span.at);
                return self.step(*cursor, span.end, false, at).map(Some);
            }
            from = cursor.scanned;
        }
        let length = limit.end.saturating_sub(cursor.line);
        let finished = if limit.complete {
            length > 0
        } else {
            cursor.pieces + 1 < pieces::count(length)
        };
        if !finished {
            return Ok(None);
        }
        let at = at.unwrap_or_else(Moment::now);
        self.step(*cursor, limit.end, false, at).map(Some)
    }

    /// The next piece of the line that ends at `end`, for now or for good.
    fn step(&mut self, cursor: Cursor, end: u64, terminated: bool, at: Moment) -> io::Result<Step> {
        let Cursor { line, pieces, .. } = cursor;
        let length = end - line;
        let mut head = [0; level::HEAD];
        let head = &mut head[..length.min(level::HEAD as u64) as usize];
        self.read(line, head)?;
        let mut last = [0];
        if terminated && length > 0 {
            self.read(end - 1, &mut last)?;
        }
        let whole = Pieces {
            start: line,
            end,
            hidden: u64::from(last == *b"\r"),
            at,
            level: level::detect(head),
        };
        let found = whole.piece(pieces, &self.file)?;
        let behind = end + u64::from(terminated);
        let (cursor, given) = if pieces + 1 == whole.count() {
            (Cursor::at(behind), behind)
        } else {
            let cursor = Cursor {
                scanned: end,
                pieces: pieces + 1,
                ..cursor
            };
            (cursor, whole.boundary(pieces + 1, &self.file)?)
        };
        Ok(Step {
            line: found,
            cursor,
            given,
        })
    }

    /// What a line says.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file was truncated.
    pub fn text(&self, line: &Line) -> io::Result<String> {
        let mut bytes = vec![0; line.len as usize];
        self.read(line.start, &mut bytes)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The first newline in `low..high`.
    fn newline(&mut self, mut low: u64, high: u64) -> io::Result<Option<u64>> {
        while low < high {
            let bytes = self.window_from(low)?;
            // At most a window.
            let len = (high - low).min(bytes.len() as u64) as usize;
            if let Some(found) = bytes[..len].iter().position(|&byte| byte == b'\n') {
                return Ok(Some(low + found as u64));
            }
            low += len as u64;
        }
        Ok(None)
    }

    /// Bytes from `at` on, at least one; read if they are not held.
    fn window_from(&mut self, at: u64) -> io::Result<&[u8]> {
        if self.held(at).is_empty() {
            let end = self.limit.map_or(at, |limit| limit.end);
            // At most WINDOW, at least the byte that is asked for.
            let len = end.saturating_sub(at).clamp(1, WINDOW) as usize;
            self.window.resize(len, 0);
            self.window_start = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                return Err(error);
            }
        }
        Ok(self.held(at))
    }

    /// What is held of the bytes from `at` on.
    fn held(&self, at: u64) -> &[u8] {
        at.checked_sub(self.window_start)
            .and_then(|from| usize::try_from(from).ok())
            .and_then(|from| self.window.get(from..))
            .unwrap_or_default()
    }

    /// Copies the bytes at `at`, from memory if they are there.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match self.held(at).get(..into.len()) {
            Some(bytes) => {
                into.copy_from_slice(bytes);
                Ok(())
            }
            None => self.file.read_exact_at(into, at),
        }
    }
}
