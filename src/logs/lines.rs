//! The lines of one log file, last to first.
//!
//! Reads 64 KiB at a time and keeps no text: a line is where it stands, when it was written, and the level it states.
//! Called by `read`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::level;
use super::pieces::{Line, Pieces};
use super::times::Times;

const WINDOW: usize = 64 * 1024;
/// What the bytes behind the last newline are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A line: the file grows no more.
    Finished,
    /// A line if the index says that a run ended there.
    Growing,
    /// None, whatever the index says by now.
    Open,
}

/// A walk over a file's lines, from its end.
pub struct Lines {
    window: Window,
    times: Times,
    /// Where the lines end that are still to come.
    end: u64,
    last: End,
    /// The line that is being given, and how many of its pieces are still to come.
    pieces: Option<(Pieces, u64)>,
    /// Bytes that are passed over, from and to, in order. Each is made of whole lines.
    hidden: Vec<(u64, u64)>,
    /// Some were.
    has_hidden: bool,
}

impl Lines {
    /// The lines among the first `size` bytes of a file.
    pub fn new(file: Arc<File>, size: u64, times: Times, last: End) -> Lines {
        Lines {
            window: Window {
                file,
                start: 0,
                bytes: Vec::new(),
            },
            times,
            end: size,
            last,
            pieces: None,
            hidden: Vec::new(),
            has_hidden: false,
        }
    }

    /// The same without those in `hidden`: from and to, in order, each made of whole lines.
    pub fn without(mut self, hidden: Vec<(u64, u64)>) -> Lines {
        self.hidden = hidden;
        self
    }

    /// The line before the one given last.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file was truncated meanwhile: nothing more can come.
    pub fn previous(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some((pieces, left)) = &mut self.pieces
                && *left > 0
            {
                let line = pieces.piece(*left - 1, &self.window.file)?;
                *left -= 1;
                return Ok(Some(line));
            }
            while let Some((from, _)) = self.hidden.pop_if(|(_, to)| self.end <= *to) {
                self.end = self.end.min(from);
                self.last = End::Finished;
                self.has_hidden = true;
            }
            if self.end == 0 {
                return Ok(None);
            }
            self.pieces = Some(self.line()?);
        }
    }

    /// Whether lines were passed over.
    pub fn has_hidden(&self) -> bool {
        self.has_hidden
    }

    /// Where the line begins that is not finished, and how many pieces of it are. Instead of all others.
    ///
    /// # Errors
    /// As for [`Lines::previous`].
    pub fn unfinished(mut self) -> io::Result<(u64, u64)> {
        let (line, finished) = self.line()?;
        Ok((line.start, finished))
    }

    /// Takes the last line off what is left.
    fn line(&mut self) -> io::Result<(Pieces, u64)> {
        let (at, cut) = self.times.seek(self.end);
        let terminated = self.window.byte(self.end - 1)? == b'\n';
        let end = self.end - u64::from(terminated);
        // Behind the last newline: a line if its run has ended.
        let complete = match self.last {
            End::Finished => true,
            End::Growing => terminated || cut,
            End::Open => terminated,
        };
        self.last = End::Finished;
        let start = self.start_of(end)?;
        self.end = start;
        let length = end - start;
        let mut head = [0; level::HEAD];
        let head = &mut head[..length.min(level::HEAD as u64) as usize];
        self.window.read(start, head)?;
        let pieces = Pieces {
            start,
            end,
            hidden: u64::from(terminated && length > 0 && self.window.byte(end - 1)? == b'\r'),
            at,
            level: level::detect(head),
        };
        let finished = pieces.count() - u64::from(!complete);
        Ok((pieces, finished))
    }

    /// Where the line begins that ends at `end`: behind a newline or where a run ended, else where the file begins.
    fn start_of(&mut self, end: u64) -> io::Result<u64> {
        let mut high = end;
        loop {
            let low = self.times.current().start.min(high);
            if let Some(newline) = self.window.last_newline(low, high)? {
                return Ok(newline + 1);
            }
            if low == 0 {
                return Ok(0);
            }
            high = low;
            self.times.step();
            let span = self.times.current();
            if span.cut && span.end == low {
                return Ok(low);
            }
        }
    }
}

/// A piece of a file in memory.
struct Window {
    file: Arc<File>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Loads what stands before `end`.
    fn load(&mut self, end: u64) -> io::Result<()> {
        let start = end.saturating_sub(WINDOW as u64);
        // At most WINDOW.
        self.bytes.resize((end - start) as usize, 0);
        self.start = start;
        let read = self.file.read_exact_at(&mut self.bytes, start);
        if read.is_err() {
            self.bytes.clear();
        }
        read
    }

    fn byte(&mut self, at: u64) -> io::Result<u8> {
        if at < self.start || at >= self.end() {
            self.load(at + 1)?;
        }
        // Within the window, which fits usize.
        Ok(self.bytes[(at - self.start) as usize])
    }

    /// Copies the bytes at `at`, from memory if they are there.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let here = at
            .checked_sub(self.start)
            .and_then(|from| usize::try_from(from).ok())
            .and_then(|from| self.bytes.get(from..from + into.len()));
        match here {
            Some(bytes) => {
                into.copy_from_slice(bytes);
                Ok(())
            }
            None => self.file.read_exact_at(into, at),
        }
    }

    /// The last newline in `low..high`.
    fn last_newline(&mut self, low: u64, mut high: u64) -> io::Result<Option<u64>> {
        while high > low {
            if high <= self.start || high > self.end() {
                self.load(high)?;
            }
            let from = low.max(self.start);
            // Both within the window.
            let bytes = &self.bytes[(from - self.start) as usize..(high - self.start) as usize];
            if let Some(found) = bytes.iter().rposition(|&b| b == b'\n') {
                return Ok(Some(from + found as u64));
            }
            high = from;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::logs::index::{Appender, Kind, Moment};
    use crate::logs::pieces::LONGEST;
    use proptest::prelude::*;
    use std::io::Write;

    fn lines(text: &[u8], cuts: &[u64], last: End) -> Vec<String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let now = Moment::from_wall(Timestamp::now());
        let mut index = tempfile::tempfile().unwrap();
        let mut appender = Appender::new(0, 0);
        for cut in cuts {
            let write = appender.record(*cut, now, Kind::Cut);
            index.write_all(&write.bytes[..write.len]).unwrap();
        }
        let size = text.len() as u64;
        let times = Times::new(Some(index), size, now);
        let mut lines = Lines::new(Arc::new(file), size, times, last);
        let mut found = Vec::new();
        while let Some(line) = lines.previous().unwrap() {
            let start = line.start as usize;
            let bytes = &text[start..start + line.len as usize];
            found.push(String::from_utf8_lossy(bytes).into_owned());
        }
        found.reverse();
        found
    }

    #[test]
    fn lines_come_without_their_newlines_and_empty_ones_count() {
        assert_eq!(lines(b"a\n\nb\r\n", &[], End::Growing), ["a", "", "b"]);
        assert_eq!(lines(b"\n", &[], End::Growing), [""]);
        assert!(lines(b"", &[], End::Finished).is_empty());
    }

    #[test]
    fn what_has_no_newline_yet_is_a_line_once_its_run_has_ended() {
        assert_eq!(lines(b"a\nbc", &[], End::Growing), ["a"]);
        assert_eq!(lines(b"a\nbc", &[4], End::Growing), ["a", "bc"]);
        assert_eq!(lines(b"a\nbc", &[], End::Finished), ["a", "bc"]);
    }

    #[test]
    fn runs_are_never_joined() {
        assert_eq!(lines(b"abcd\n", &[2], End::Growing), ["ab", "cd"]);
        assert_eq!(lines(b"ab\ncd\n", &[2], End::Growing), ["ab", "", "cd"]);
        assert_eq!(lines(b"abcd", &[2], End::Growing), ["ab"]);
        assert_eq!(
            lines(b"abcdef\n", &[2, 4], End::Growing),
            ["ab", "cd", "ef"]
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_split_no_character_and_lose_nothing() {
        let text = "ä€😀".repeat(9000);
        let found = lines(format!("first\n{text}\n").as_bytes(), &[], End::Growing);
        assert_eq!(found[0], "first");
        assert!(found.len() > 5 && found.iter().all(|piece| piece.len() as u64 <= LONGEST));
        assert_eq!(found[1..].concat(), text);
    }

    #[test]
    fn of_a_long_line_that_still_grows_the_pieces_are_as_they_will_be() {
        let text = "x".repeat(40_000);
        let growing = lines(text.as_bytes(), &[], End::Growing);
        let done = lines(format!("{text}yyy\n").as_bytes(), &[], End::Growing);
        assert_eq!(growing, done[..2]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_whatever_is_written(
            parts in prop::collection::vec(
                prop_oneof![Just("\n".to_owned()), Just("\r\n".to_owned()), "[a-zä]{0,9}", Just("z".repeat(70_000))], 0..12
            ),
            cuts in prop::collection::vec(0_u64..100_000, 0..5)
        ) {
            let text = parts.concat();
            let size = text.len() as u64;
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= size).collect();
            cuts.sort_unstable();
            let found = lines(text.as_bytes(), &cuts, End::Finished).concat();
            let plain: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
            let found: String = found.chars().filter(|c| *c != '\r' && *c != '\u{fffd}').collect();
            // A cut may split a character.
            if text.is_ascii() {
                prop_assert_eq!(found, plain);
            }
        }

        #[test]
        fn lines_are_those_that_a_reader_of_text_sees(text in "[ab\n]{0,200}") {
            let expected: Vec<_> = text.lines().map(str::to_owned).collect();
            prop_assert_eq!(lines(text.as_bytes(), &[], End::Finished), expected);
        }
    }
}
