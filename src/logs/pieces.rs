//! Long lines are given in pieces: how many there are, and where each begins. The same for both directions of reading.
//! Called by `lines` and `forward`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Level;
use super::index::Moment;

/// Longest line that is given in one piece.
pub const LONGEST: u64 = 16 * 1024;
/// Bytes from one piece of a longer line to the next: a little less than [`LONGEST`], so that a piece that begins
/// early, at a whole UTF-8 character, is no longer than that either.
const PIECE: u64 = LONGEST - 4;

/// A line, or a piece of a long one, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub start: u64,
    /// At most [`LONGEST`].
    pub len: u32,
    /// When the line was finished.
    pub at: Moment,
    /// What the line itself says.
    pub level: Option<Level>,
}

/// In how many pieces a line of `length` bytes is given. While it still grows, all but the last are as they will be.
pub fn count(length: u64) -> u64 {
    if length <= LONGEST {
        1
    } else {
        length.div_ceil(PIECE)
    }
}

/// A line that is given piece by piece.
pub struct Pieces {
    pub start: u64,
    /// Without the newline.
    pub end: u64,
    /// Bytes at the end that are not shown: a carriage return.
    pub hidden: u64,
    pub at: Moment,
    pub level: Option<Level>,
}

impl Pieces {
    /// How many there are.
    pub fn count(&self) -> u64 {
        count(self.end - self.start)
    }

    /// Piece `number`, from 0.
    pub fn piece(&self, number: u64, file: &File) -> io::Result<Line> {
        let last = number + 1 == self.count();
        let start = self.boundary(number, file)?;
        let end = self.boundary(number + 1, file)? - if last { self.hidden } else { 0 };
        Ok(Line {
            start,
            // At most LONGEST.
            len: end.saturating_sub(start) as u32,
            at: self.at,
            level: self.level,
        })
    }

    /// Where piece `number` begins: counted from the line's begin, and back to the begin of a UTF-8 character.
    pub fn boundary(&self, number: u64, file: &File) -> io::Result<u64> {
        if number == 0 {
            return Ok(self.start);
        }
        if number == self.count() {
            return Ok(self.end);
        }
        let at = self.start + number * PIECE;
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at - 3)?;
        Ok(at - back_to_character(bytes))
    }
}

/// How far before the last of four bytes the character begins that it belongs to; 0 if that is no UTF-8.
fn back_to_character(bytes: [u8; 4]) -> u64 {
    for back in 0..4_u8 {
        let byte = bytes[3 - usize::from(back)];
        if byte & 0xc0 != 0x80 {
            let length = match byte {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => 1,
            };
            return if length > back { u64::from(back) } else { 0 };
        }
    }
    0
}
