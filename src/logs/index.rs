//! The index beside a log file: when its bytes were written, in 8 bytes a record. The format, and how it is written.
//!
//! `stdout.<inode of the log file>.idx` belongs to the log file with that inode, whatever that is called by now: so
//! rotation does not touch it, and no crash can give a file the times of another. Little-endian words of 64 bits in
//! blocks of 4 KiB, each of which can be read without the others:
//!
//! ```text
//! base record, 5 words: tag and checksum, offset, boot time in us, wall offset in us, boot; first in every block,
//!                       and anew after a boot, a jump of the wall clock, or when a record would overflow
//! data record, 1 word : 01, 31 bits end offset - base offset, 31 bits time since the base in 100 us
//! cut record, 1 word  : 10, the same: a run ended here within a line, what follows is a new line
//! ```
//!
//! Nothing in it is trusted: a torn, zeroed or foreign index costs times, never bytes. Written by `channel`, read by
//! `times`. This file does no I/O.

use std::sync::OnceLock;

use crate::clock::{BootTime, Timestamp, boot_id};

/// Bytes of a block; every block begins with a base record.
pub const BLOCK: usize = 4096;

const BASE_LEN: usize = 40;
const WORD: usize = 8;
const TAG: u64 = 0x0069_6478; // "idx", below the two bits that mark data and cut records
const DATA: u64 = 0b01;
const CUT: u64 = 0b10;
const FIELD: u64 = (1 << 31) - 1;
/// Microseconds in a record's unit of time.
const UNIT: u64 = 100;
/// Change of the wall clock against the boot clock, in microseconds, that is worth a new base record.
const JUMP: u64 = 1_000_000;

/// When something was written: comparable within a boot, and shown by the wall clock as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which boot; 0 where that is not known.
    pub boot: u64,
    pub since_boot: BootTime,
    /// Wall clock minus boot clock, in microseconds.
    pub wall_offset: i64,
}

impl Moment {
    /// The present moment.
    pub fn now() -> Moment {
        let since_boot = BootTime::now();
        let wall = Timestamp::now().as_micros();
        Moment {
            boot: this_boot(),
            since_boot,
            wall_offset: wall.wrapping_sub(since_boot.as_micros() as i64),
        }
    }

    /// A moment known by the wall clock alone, such as a file's mtime. It belongs to this boot if the clock says so.
    pub fn from_wall(wall: Timestamp) -> Moment {
        let now = Moment::now();
        let since_boot = wall.as_micros().saturating_sub(now.wall_offset);
        match u64::try_from(since_boot) {
            Ok(micros) => Moment {
                since_boot: BootTime::from_micros(micros).min(now.since_boot),
                ..now
            },
            Err(_) => Moment {
                boot: 0,
                since_boot: BootTime::default(),
                wall_offset: wall.as_micros(),
            },
        }
    }

    /// The wall clock at that moment.
    pub fn wall(&self) -> Timestamp {
        Timestamp::from_micros(
            self.wall_offset
                .saturating_add_unsigned(self.since_boot.as_micros()),
        )
    }

    /// Whether this came after `other`: by the boot clock within a boot; an earlier boot came before the present one
    /// whatever its clock said; between earlier boots the wall clock is all there is.
    pub fn is_after(&self, other: &Moment) -> bool {
        if self.boot == other.boot && self.boot != 0 {
            self.since_boot > other.since_boot
        } else {
            match (self.boot == this_boot(), other.boot == this_boot()) {
                (true, false) => true,
                (false, true) => false,
                _ => self.wall() > other.wall(),
            }
        }
    }
}

/// The present boot as a number, never 0.
pub fn this_boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| fnv(boot_id().as_bytes()).max(1))
}

/// FNV-1a, 64 bits.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What a record says about the bytes that end at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    /// A run ended here, within a line.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Base {
    offset: u64,
    at: Moment,
}

impl Base {
    fn encode(&self) -> [u8; BASE_LEN] {
        let mut bytes = [0; BASE_LEN];
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.at.since_boot.as_micros().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.at.wall_offset.to_le_bytes());
        bytes[32..].copy_from_slice(&self.at.boot.to_le_bytes());
        let tag = TAG << 32 | (fnv(&bytes[8..]) & 0xffff_ffff);
        bytes[..8].copy_from_slice(&tag.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Base> {
        let bytes = bytes.get(..BASE_LEN)?;
        let base = Base {
            offset: word(&bytes[8..]),
            at: Moment {
                since_boot: BootTime::from_micros(word(&bytes[16..])),
                wall_offset: word(&bytes[24..]) as i64,
                boot: word(&bytes[32..]),
            },
        };
        (base.encode() == bytes).then_some(base)
    }
}

/// The first 8 of at least 8 bytes.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word.copy_from_slice(&bytes[..WORD]);
    u64::from_le_bytes(word)
}

/// Turns offsets and times into records to append.
#[derive(Debug)]
pub struct Appender {
    /// Length of the index.
    len: u64,
    base: Option<Base>,
    /// Where the bytes begin that the next record speaks of.
    next: u64,
}

/// Bytes to write into the index, at an offset.
#[derive(Debug)]
pub struct Write {
    pub at: u64,
    pub bytes: [u8; BASE_LEN + WORD],
    pub len: usize,
}

impl Appender {
    /// Goes on behind an index of `len` bytes; its log file has `next` bytes that it says nothing more about.
    pub fn new(len: u64, next: u64) -> Appender {
        Appender {
            len: len.next_multiple_of(WORD as u64),
            base: None,
            next,
        }
    }

    /// Length of the index, once all that was handed out is written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The log file has become shorter: it has `size` bytes now.
    pub fn truncate(&mut self, size: u64) {
        if size < self.next {
            self.next = size;
            self.base = None;
        }
    }

    /// The record that says: the log file's bytes up to `end` were written by `now`.
    pub fn record(&mut self, end: u64, now: Moment, kind: Kind) -> Write {
        self.truncate(end);
        let mut write = Write {
            at: self.len,
            bytes: [0; BASE_LEN + WORD],
            len: 0,
        };
        let in_block = self.len % BLOCK as u64;
        let base = match self
            .base
            .filter(|base| in_block != 0 && fits(base, end, &now))
        {
            Some(base) => base,
            None => {
                if in_block + (BASE_LEN + WORD) as u64 > BLOCK as u64 {
                    write.at = self.len.next_multiple_of(BLOCK as u64);
                }
                // A gap that no record can span has no time of its own.
                let offset = self.next.max(end.saturating_sub(FIELD));
                let base = Base { offset, at: now };
                write.bytes[..BASE_LEN].copy_from_slice(&base.encode());
                write.len = BASE_LEN;
                base
            }
        };
        let kind = match kind {
            Kind::Data => DATA,
            Kind::Cut => CUT,
        };
        let since = now.since_boot.since(base.at.since_boot).as_micros() as u64 / UNIT;
        let record = kind << 62 | (end - base.offset) << 31 | since;
        write.bytes[write.len..write.len + WORD].copy_from_slice(&record.to_le_bytes());
        write.len += WORD;
        self.len = write.at + write.len as u64;
        self.base = Some(base);
        self.next = end;
        write
    }
}

fn fits(base: &Base, end: u64, now: &Moment) -> bool {
    let units = now
        .since_boot
        .as_micros()
        .checked_sub(base.at.since_boot.as_micros());
    base.at.boot == now.boot
        && base.at.wall_offset.abs_diff(now.wall_offset) < JUMP
        && units.is_some_and(|micros| micros / UNIT <= FIELD)
        && end
            .checked_sub(base.offset)
            .is_some_and(|bytes| bytes <= FIELD)
}

/// Bytes of a log file and when they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub at: Moment,
    /// A run ended at `end`, within a line.
    pub cut: bool,
}

/// Reads one block, which may hold anything: its spans, in order, each `start <= end`.
pub fn spans(block: &[u8], spans: &mut Vec<Span>) {
    spans.clear();
    let mut base: Option<Base> = None;
    let mut start = 0;
    let mut rest = block;
    while rest.len() >= WORD {
        let record = word(rest);
        let kind = record >> 62;
        if kind == 0
            && let Some(found) = Base::decode(rest)
        {
            base = Some(found);
            start = found.offset;
            rest = &rest[BASE_LEN..];
            continue;
        }
        rest = &rest[WORD..];
        let Some(base) = base.filter(|_| kind == DATA || kind == CUT) else {
            continue;
        };
        let end = base.offset.saturating_add(record >> 31 & FIELD);
        if end < start {
            continue;
        }
        let micros = base
            .at
            .since_boot
            .as_micros()
            .saturating_add((record & FIELD) * UNIT);
        let at = Moment {
            since_boot: BootTime::from_micros(micros),
            ..base.at
        };
        let cut = kind == CUT;
        match spans.last_mut() {
            Some(last) if last.end == end && start == end => last.cut |= cut,
            _ => spans.push(Span {
                start,
                end,
                at,
                cut,
            }),
        }
        start = end;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: u64) -> Moment {
        Moment {
            boot: 7,
            since_boot: BootTime::from_micros(micros),
            wall_offset: 1_000_000_000,
        }
    }

    /// An index file that was written record by record.
    pub fn written(records: &[(u64, Moment, Kind)]) -> Vec<u8> {
        let mut appender = Appender::new(0, 0);
        let mut file = Vec::new();
        for (end, now, kind) in records {
            let write = appender.record(*end, *now, *kind);
            file.resize(write.at as usize, 0);
            file.extend_from_slice(&write.bytes[..write.len]);
            assert_eq!(file.len() as u64, appender.len());
        }
        file
    }

    fn read(file: &[u8]) -> Vec<Span> {
        let mut all = Vec::new();
        for block in file.chunks(BLOCK) {
            let mut some = Vec::new();
            spans(block, &mut some);
            all.extend(some);
        }
        all
    }

    #[test]
    fn a_record_a_line_takes_eight_bytes_and_comes_back() {
        let records: Vec<_> = (1..=2000)
            .map(|n| (n * 10, at(n * 1000), Kind::Data))
            .collect();
        let file = written(&records);
        assert!(file.len() < 2000 * 8 + 40 * 5, "{}", file.len());
        let spans = read(&file);
        assert_eq!(spans.len(), 2000);
        for (n, span) in (1..).zip(spans) {
            assert_eq!(
                (span.start, span.end, span.cut),
                ((n - 1) * 10, n * 10, false)
            );
            assert_eq!(span.at, at(n * 1000));
        }
    }

    #[test]
    fn a_boot_a_clock_jump_and_an_overflow_begin_a_new_base() {
        let jumped = Moment {
            wall_offset: -5_000_000,
            ..at(3_000)
        };
        let rebooted = Moment { boot: 8, ..at(10) };
        let late = Moment {
            boot: 8,
            ..at(400_000_000_000)
        };
        let records = [
            (10, at(1_000), Kind::Data),
            (20, jumped, Kind::Data),
            (30, rebooted, Kind::Data),
            (40, late, Kind::Data),
            (10_000_000_000, late, Kind::Cut),
        ];
        let spans = read(&written(&records));
        let found: Vec<_> = spans.iter().map(|s| (s.end, s.at, s.cut)).collect();
        let expected: Vec<_> = records
            .iter()
            .map(|(end, now, kind)| (*end, *now, *kind == Kind::Cut))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_cut_where_the_last_bytes_end_marks_their_span() {
        let spans = read(&written(&[
            (10, at(100), Kind::Data),
            (10, at(900), Kind::Cut),
        ]));
        assert_eq!(
            spans,
            [Span {
                start: 0,
                end: 10,
                at: at(100),
                cut: true
            }]
        );
    }

    #[test]
    fn a_file_that_became_shorter_gets_a_base_at_its_new_end() {
        let spans = read(&written(&[
            (100, at(100), Kind::Data),
            (30, at(200), Kind::Data),
        ]));
        assert_eq!((spans[1].start, spans[1].end), (30, 30));
    }

    #[test]
    fn an_earlier_boot_comes_before_the_present_one_whatever_the_clock_said() {
        let now = Moment::now();
        let earlier = Moment {
            boot: now.boot ^ 1,
            wall_offset: now.wall_offset + 1_000_000_000_000,
            ..now
        };
        assert!(now.is_after(&earlier) && !earlier.is_after(&now));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_in_order_and_without_harm(block in prop::collection::vec(any::<u8>(), 0..BLOCK)) {
            let mut found = Vec::new();
            spans(&block, &mut found);
            prop_assert!(found.iter().all(|span| span.start <= span.end));
        }

        #[test]
        fn a_damaged_index_is_read_in_order(
            at_byte in 0_usize..8000, garbage in prop::collection::vec(any::<u8>(), 1..64)
        ) {
            let records: Vec<_> = (1..=900).map(|n| (n * 10, at(n * 1000), Kind::Data)).collect();
            let mut file = written(&records);
            for (n, byte) in garbage.iter().enumerate() {
                if let Some(place) = file.get_mut(at_byte + n) {
                    *place = *byte;
                }
            }
            prop_assert!(read(&file).iter().all(|span| span.start <= span.end));
        }
    }
}
