//! Reading a log file's index forward: when bytes were written, and where a run ended within a line.
//!
//! Holds one block of the index at a time, and none while there is nothing to read. Believes none of it: whatever the
//! index says or fails to say, the spans that come out go on from where they are asked for. The same times as reading
//! backwards gives, but for bytes that no record reaches in a file that grows: those are of now. Called by `reading`.

use std::fs::File;

use crate::logs::index::{self, BLOCK, Moment, Span};
use crate::logs::times;

/// A walk over a file's [`Span`]s, from any byte on.
#[derive(Default)]
pub struct Spans {
    /// The block that is held, or was: where to go on.
    block: Option<u64>,
    loaded: bool,
    /// More records cannot come in it.
    full: bool,
    /// Its spans, each beginning where the one before ends or behind that.
    spans: Vec<Span>,
    next: usize,
    /// When what is before the next span was written.
    before: Option<Moment>,
}

impl Spans {
    /// Lets go of what is held, as more may have been written since.
    pub fn forget(&mut self) {
        *self = Spans {
            block: self.block,
            ..Spans::default()
        };
    }

    /// The span that holds the byte at `from`, below `limit`, as far as it is before `limit`. An empty span: a run ended
    /// at `from`, where a line has come to that began at `line`. `from` is not below that of the last call. `modified`: when
    /// the file was last written, if it grows no more.
    pub fn at(
        &mut self,
        index: Option<&File>,
        from: u64,
        line: u64,
        limit: u64,
        modified: Option<Moment>,
    ) -> Span {
        let Some(index) = index else {
            return self.unrecorded(from, limit, modified);
        };
        if !self.loaded {
            self.start(index, from);
        }
        loop {
            while let Some(span) = self.spans.get(self.next) {
                let ends_line = span.start == span.end && span.cut && from > line;
                if span.end < from || span.end == from && !ends_line {
                    self.before = Some(span.at);
                    self.next += 1;
                } else if span.start > from {
                    // A gap: a daemon died before it wrote the record, milliseconds after the one before.
                    return Span {
                        start: from,
                        end: span.start.min(limit),
                        at: self.before.unwrap_or(span.at),
                        cut: false,
                    };
                } else {
                    return Span {
                        start: from,
                        end: span.end.min(limit),
                        at: span.at,
                        cut: span.cut && span.end <= limit,
                    };
                }
            }
            if !self.full {
                return self.unrecorded(from, limit, modified);
            }
            self.load(index, self.block.map_or(0, |block| block + 1));
        }
    }

    /// Bytes that no record reaches.
    fn unrecorded(&self, from: u64, limit: u64, modified: Option<Moment>) -> Span {
        let at = match (modified, self.before) {
            (Some(modified), Some(before)) if before.is_after(&modified) => before,
            (Some(modified), _) => modified,
            (None, _) => Moment::now(),
        };
        Span {
            start: from,
            end: limit,
            at,
            cut: false,
        }
    }

    /// Loads the last block that begins at or before `from`.
    fn start(&mut self, index: &File, from: u64) {
        let mut block = match self.block {
            Some(block) => block,
            None if from == 0 => 0,
            None => index
                .metadata()
                .map_or(0, |meta| meta.len().saturating_sub(1) / BLOCK as u64),
        };
        loop {
            self.load(index, block);
            let begins_before = self.spans.first().is_some_and(|span| span.start <= from);
            if block == 0 || begins_before {
                return;
            }
            block -= 1;
        }
    }

    fn load(&mut self, index: &File, block: u64) {
        let mut bytes = [0; BLOCK];
        let len = times::read_block(index, &mut bytes, block * BLOCK as u64);
        index::spans(&bytes[..len], &mut self.spans);
        in_order(&mut self.spans);
        self.block = Some(block);
        self.loaded = true;
        self.full = len == BLOCK;
        self.next = 0;
    }
}

/// Drops what later spans say anew: of bytes that were truncated away and written again, the last record tells.
fn in_order(spans: &mut Vec<Span>) {
    let mut kept = 0;
    for at in 0..spans.len() {
        let span = spans[at];
        while kept > 0 && spans[kept - 1].end > span.start {
            let last = &mut spans[kept - 1];
            if last.start < span.start {
                last.end = span.start;
                last.cut = false;
                break;
            }
            kept -= 1;
        }
        spans[kept] = span;
        kept += 1;
    }
    spans.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BootTime, Timestamp};
    use crate::logs::index::Kind;
    use crate::logs::index::tests::written;
    use crate::logs::times::Times;
    use proptest::prelude::*;
    use std::io::Write;

    fn at(micros: u64) -> Moment {
        Moment {
            boot: 7,
            since_boot: BootTime::from_micros(micros),
            wall_offset: 0,
        }
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// For every byte when it was written and whether a run ended behind it, by walking forward in steps.
    fn forward(bytes: &[u8], size: u64, steps: u64) -> Vec<(Moment, bool)> {
        let index = file(bytes);
        let mut spans = Spans::default();
        let mut found: Vec<(Moment, bool)> = Vec::new();
        let (mut limit, mut line) = (0, 0);
        while limit < size {
            limit = (limit + steps).min(size);
            spans.forget();
            while (found.len() as u64) < limit {
                let from = found.len() as u64;
                let span = spans.at(Some(&index), from, line, limit, None);
                assert!(span.end <= limit && (span.end > from || span.cut));
                found.resize(span.end as usize, (span.at, false));
                if span.cut {
                    found.last_mut().unwrap().1 = true;
                }
                // An empty one is followed by the span that holds the byte.
                if span.end == from {
                    line = from;
                }
            }
        }
        found
    }

    fn backward(bytes: &[u8], size: u64) -> Vec<(Moment, bool)> {
        let modified = Moment::from_wall(Timestamp::now());
        let mut times = Times::new(Some(file(bytes)), size, modified);
        let mut found: Vec<_> = (1..=size).rev().map(|end| times.seek(end)).collect();
        found.reverse();
        found
    }

    #[test]
    fn a_gap_has_the_time_of_what_was_before_it() {
        let early = written(&[(10, at(1_000), Kind::Data)]);
        let mut bytes = early.clone();
        bytes.resize(BLOCK, 0);
        // A block of its own that goes on at 30.
        let mut appender = index::Appender::new(BLOCK as u64, 30);
        let write = appender.record(40, at(5_000), Kind::Data);
        bytes.extend_from_slice(&write.bytes[..write.len]);
        let found = forward(&bytes, 40, 40);
        assert_eq!(found[9].0, at(1_000));
        assert_eq!(found[20].0, at(1_000));
        assert_eq!(found[30].0, at(5_000));
    }

    #[test]
    fn bytes_that_no_record_reaches_are_of_now() {
        let bytes = written(&[(10, at(1_000), Kind::Data)]);
        let now = Moment::now();
        assert!(!now.is_after(&forward(&bytes, 20, 20)[15].0));
        assert!(!now.is_after(&Spans::default().at(None, 5, 0, 9, None).at));
    }

    #[test]
    fn in_a_file_that_grows_no_more_they_are_of_its_last_write() {
        let modified = at(2_000);
        let without = Spans::default().at(None, 5, 0, 9, Some(modified));
        assert_eq!(without.at, modified);
        for (recorded, expected) in [(1_000, 2_000), (3_000, 3_000)] {
            let index = file(&written(&[(10, at(recorded), Kind::Data)]));
            let behind = Spans::default().at(Some(&index), 15, 0, 20, Some(modified));
            assert_eq!(behind.at, at(expected));
        }
    }

    #[test]
    fn records_of_bytes_that_were_truncated_away_are_passed_over() {
        let bytes = written(&[
            (50, at(1_000), Kind::Data),
            (100, at(2_000), Kind::Cut),
            (30, at(3_000), Kind::Data),
            (40, at(4_000), Kind::Data),
        ]);
        assert_eq!(forward(&bytes, 40, 40), backward(&bytes, 40));
    }

    proptest! {
        #[test]
        fn forward_and_backward_say_the_same(
            steps in prop::collection::vec((0_u64..4, 0_u64..3_000, any::<bool>()), 1..1200), by in 1_u64..3000
        ) {
            let mut records = Vec::new();
            let (mut end, mut time) = (0, 1_000);
            for (bytes, micros, cut) in steps {
                (end, time) = (end + bytes, time + micros / 100 * 100);
                // As the log thread does: nothing is recorded at the begin, and no line is ended twice.
                if end > 0 && (bytes > 0 || cut) {
                    records.push((end, at(time), if cut && bytes == 0 { Kind::Cut } else { Kind::Data }));
                }
            }
            prop_assume!(end > 0);
            let bytes = written(&records);
            let (mut on, back) = (forward(&bytes, end, by), backward(&bytes, end));
            // Whether a run ended behind the last byte is published apart: the index is asked of bytes that are there.
            if let (Some(on), Some(back)) = (on.last_mut(), back.last()) {
                on.1 = back.1;
            }
            prop_assert_eq!(on, back);
        }

        #[test]
        fn any_index_leads_to_the_end(
            bytes in prop::collection::vec(any::<u8>(), 0..9000), size in 1_u64..5_000, by in 1_u64..5_000
        ) {
            prop_assert_eq!(forward(&bytes, size, by).len() as u64, size);
        }
    }
}
