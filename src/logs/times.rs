//! Reading a log file's index backwards: for every byte of the file, when it was written.
//!
//! Holds one block of the index at a time and believes none of it: whatever the index says or fails to say, the spans
//! that come out cover the file from its end to its begin, once. Called by `lines`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::index::{self, BLOCK, Moment, Span};
use crate::clock::BootTime;

/// A walk over a file's [`Span`]s, from its end.
pub struct Times {
    index: Option<File>,
    /// Blocks of the index that are still to be read.
    blocks: u64,
    /// Spans of the block that was read last, still to be given.
    spans: Vec<Span>,
    current: Span,
    /// When the file was last written, for bytes that the index does not reach.
    modified: Moment,
    /// No record has been met yet.
    tail: bool,
}

impl Times {
    /// A walk over a file of `size` bytes, last written at `modified`, with its index if it has one.
    pub fn new(index: Option<File>, size: u64, modified: Moment) -> Times {
        let len = match &index {
            Some(file) => file.metadata().map_or(0, |meta| meta.len()),
            None => 0,
        };
        Times {
            index,
            blocks: len.div_ceil(BLOCK as u64),
            spans: Vec::new(),
            current: Span {
                start: size,
                end: size,
                at: modified,
                cut: false,
            },
            modified,
            tail: true,
        }
    }

    /// The span that we have come to.
    pub fn current(&self) -> &Span {
        &self.current
    }

    /// Goes back to the span that holds the byte before `end`: when that byte was written, and whether a run ended at
    /// `end`. `end` is above 0 and not above that of the last call.
    pub fn seek(&mut self, end: u64) -> (Moment, bool) {
        let mut cut = self.current.cut && self.current.end == end;
        while self.current.start >= end {
            self.step();
            cut |= self.current.cut && self.current.end == end;
        }
        (self.current.at, cut)
    }

    /// Goes to the span before the current one: it ends where that begins. Once all is given, it is `0..0`.
    pub fn step(&mut self) {
        let limit = self.current.start;
        while let Some(mut span) = self.pop() {
            // Records beyond speak of bytes that were truncated since, or that came after the reader.
            if span.end > limit {
                if span.start >= limit {
                    continue;
                }
                span.end = limit;
                span.cut = false;
            }
            let tail = std::mem::replace(&mut self.tail, false);
            if span.end < limit {
                // A gap. At the end of the file the mtime tells; elsewhere a daemon died before it wrote the record,
                // milliseconds after the one before.
                let at = if tail {
                    self.tail_time(&span.at)
                } else {
                    span.at
                };
                self.spans.push(span);
                self.current = Span {
                    start: span.end,
                    end: limit,
                    at,
                    cut: false,
                };
            } else {
                self.current = span;
            }
            return;
        }
        self.current = Span {
            start: 0,
            end: limit,
            cut: false,
            ..self.current
        };
    }

    /// When the bytes behind the last record were written.
    fn tail_time(&self, last: &Moment) -> Moment {
        let modified = self
            .modified
            .wall()
            .as_micros()
            .saturating_sub(last.wall_offset);
        let micros = u64::try_from(modified).unwrap_or(0);
        let since_boot = BootTime::from_micros(micros).max(last.since_boot);
        Moment {
            since_boot,
            ..*last
        }
    }

    fn pop(&mut self) -> Option<Span> {
        while self.spans.is_empty() && self.blocks > 0 {
            self.blocks -= 1;
            let mut block = [0; BLOCK];
            let len = match &self.index {
                Some(file) => read_block(file, &mut block, self.blocks * BLOCK as u64),
                None => 0,
            };
            index::spans(&block[..len], &mut self.spans);
        }
        self.spans.pop()
    }
}

/// Reads what there is of a block; an index that cannot be read says nothing.
pub fn read_block(file: &File, block: &mut [u8], at: u64) -> usize {
    let mut len = 0;
    while len < block.len() {
        match file.read_at(&mut block[len..], at + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return 0,
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::index::Kind;
    use crate::logs::index::tests::written;
    use proptest::prelude::*;
    use std::io::Write;

    fn at(micros: u64) -> Moment {
        Moment {
            boot: 7,
            since_boot: BootTime::from_micros(micros),
            wall_offset: 0,
        }
    }

    fn index(records: &[(u64, u64, Kind)]) -> Vec<u8> {
        let records: Vec<_> = records
            .iter()
            .map(|(end, micros, kind)| (*end, at(*micros), *kind))
            .collect();
        written(&records)
    }

    fn walk(index: &[u8], size: u64) -> Times {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(index).unwrap();
        Times::new(Some(file), size, at(9_000_000))
    }

    /// All spans of the walk, each ending where the one before it began.
    fn all(mut times: Times, size: u64) -> Vec<Span> {
        let mut found = Vec::new();
        let mut limit = size;
        while limit > 0 {
            times.step();
            let span = *times.current();
            assert_eq!(span.end, limit);
            limit = span.start;
            found.push(span);
        }
        found
    }

    #[test]
    fn bytes_behind_the_last_record_have_the_time_of_the_file() {
        let bytes = index(&[(10, 1_000, Kind::Data), (20, 2_000, Kind::Data)]);
        let found = all(walk(&bytes, 25), 25);
        let shown: Vec<_> = found.iter().map(|s| (s.start, s.at)).collect();
        assert_eq!(
            shown,
            [(20, at(9_000_000)), (10, at(2_000)), (0, at(1_000))]
        );
    }

    #[test]
    fn records_that_were_truncated_away_are_passed_over() {
        let bytes = index(&[
            (50, 1_000, Kind::Data),
            (100, 2_000, Kind::Cut),
            (30, 3_000, Kind::Data),
            (40, 4_000, Kind::Data),
        ]);
        let found = all(walk(&bytes, 40), 40);
        let shown: Vec<_> = found.iter().map(|s| (s.start, s.at, s.cut)).collect();
        assert_eq!(
            shown,
            [
                (30, at(4_000), false),
                (30, at(3_000), false),
                (0, at(1_000), false)
            ]
        );
    }

    #[test]
    fn a_cut_is_found_at_its_place_only() {
        let bytes = index(&[
            (10, 1_000, Kind::Data),
            (10, 2_000, Kind::Cut),
            (20, 3_000, Kind::Data),
        ]);
        let mut times = walk(&bytes, 20);
        assert_eq!(times.seek(20), (at(3_000), false));
        assert_eq!(times.seek(11), (at(3_000), false));
        assert_eq!(times.seek(10), (at(1_000), true));
        assert_eq!(times.seek(9), (at(1_000), false));
    }

    #[test]
    fn without_an_index_all_bytes_have_the_time_of_the_file() {
        let mut times = Times::new(None, 100, at(5));
        assert_eq!(times.seek(100), (at(5), false));
        assert_eq!((times.current().start, times.current().end), (0, 100));
    }

    proptest! {
        #[test]
        fn any_index_covers_the_file_once(
            index in prop::collection::vec(any::<u8>(), 0..9000), size in 0_u64..100_000
        ) {
            all(walk(&index, size), size);
        }

        #[test]
        fn a_damaged_index_covers_the_file_once(cut in 0_usize..8000, at_byte in 0_usize..8000, byte: u8) {
            let records: Vec<_> = (1..900).map(|n| (n * 10, n * 1000, Kind::Data)).collect();
            let mut bytes = index(&records);
            if let Some(place) = bytes.get_mut(at_byte) {
                *place = byte;
            }
            bytes.truncate(cut);
            all(walk(&bytes, 9_100), 9_100);
        }
    }
}
