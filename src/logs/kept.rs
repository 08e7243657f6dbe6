//! Which bytes of a stream's files in memory are on disk as well: `run_dir/<id>/stdout.kept`.
//!
//! A line `<inode> <from> <to>` a range. Before a range is written to disk, a line with the inode of the log file there
//! and its size comes in front: a daemon that was killed over it begins that anew, and so none of it is lost or there
//! twice. Who reads all takes a range from disk where it is done, else from memory. The file is made before it is needed, at
//! its full size, and rewritten in place, so that a full `run_dir` stops nothing. Written by `channel`, read by `read`.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Stream;
use super::dirs::Inode;
use super::index::fnv;
use crate::sys;

/// Bytes of the file: a page, which is written at once or not at all where we are killed.
const SIZE: usize = 4096;
/// Ranges that have a place in it.
const MOST: usize = 60;
const FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Bytes of a file in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub file: Inode,
    pub from: u64,
    pub to: u64,
}

/// A range that is being written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub range: Range,
    /// The log file, and its size before that.
    pub log: Inode,
    pub size: u64,
}

/// What is known of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// In order, none of them touches another.
    pub ranges: Vec<Range>,
    pub pending: Option<Pending>,
}

impl Kept {
    /// What is known; `None`: it is just being written.
    pub fn read(dir: BorrowedFd, stream: Stream) -> Option<Kept> {
        let mut bytes = vec![0; SIZE];
        let read = rustix::fs::openat(dir, name(stream), OFlags::RDONLY | FLAGS, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|fd| sys::read_from_start(&File::from(fd), &mut bytes));
        // Nothing, or none of ours, says nothing.
        let text = match read {
            Ok(len) => std::str::from_utf8(&bytes[..len]).unwrap_or_default(),
            Err(_) => "",
        };
        let text = text.trim_end_matches('\0');
        if text.is_empty() {
            return Some(Kept::default());
        }
        let (sum, text) = text.split_once('\n')?;
        (sum == checksum(text)).then(|| Kept::parse(text))
    }

    fn parse(text: &str) -> Kept {
        let mut kept = Kept::default();
        let mut rest = text.lines().map(|line| {
            let numbers = line.split(' ').map(str::parse::<u64>);
            numbers.collect::<Result<Vec<_>, _>>().unwrap_or_default()
        });
        while let Some(line) = rest.next() {
            match line[..] {
                [file, from, to] => kept.add(Range::new(file, from, to)),
                [log, size] => {
                    if let Some([file, from, to]) = rest.next().as_deref() {
                        kept.pending = Some(Pending {
                            range: Range::new(*file, *from, *to),
                            log: Inode::new(log),
                            size,
                        });
                    }
                }
                _ => {}
            }
        }
        kept
    }

    /// Makes room for what is to be written down, if there is none yet.
    ///
    /// # Errors
    /// The system's.
    pub fn make_room(dir: BorrowedFd, stream: Stream) -> io::Result<()> {
        match rustix::fs::statat(dir, name(stream), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Kept::default().write(dir, stream),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it down, all or nothing of it.
    ///
    /// # Errors
    /// The system's; what was there before holds.
    pub fn write(&self, dir: BorrowedFd, stream: Stream) -> io::Result<()> {
        let mut text = String::new();
        if let Some(Pending { range, log, size }) = self.pending {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {size}\n{range}", log.number());
        }
        for range in &self.ranges {
            let _ = writeln!(text, "{range}");
        }
        let mut bytes = match text.is_empty() {
            true => Vec::new(),
            false => format!("{}\n{text}", checksum(&text)).into_bytes(),
        };
        bytes.resize(SIZE, 0);
        let flags = OFlags::WRONLY | OFlags::CREATE | FLAGS;
        let mode = Mode::from_raw_mode(0o640);
        let file = File::from(rustix::fs::openat(dir, name(stream), flags, mode)?);
        file.write_all_at(&bytes, 0)
    }

    /// Removes what is written down.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(dir: BorrowedFd, stream: Stream) -> io::Result<()> {
        match rustix::fs::unlinkat(dir, name(stream), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a range in its place among those of its file.
    pub fn add(&mut self, range: Range) {
        let is_of_file = |other: &Range| other.file == range.file;
        let is_before = |other: &Range| is_of_file(other) && other.from <= range.from;
        let behind = self.ranges.iter().rposition(is_before).map(|at| at + 1);
        let first = self.ranges.iter().position(is_of_file);
        let at = behind.or(first).unwrap_or(self.ranges.len());
        self.ranges.insert(at, range);
        self.ranges.dedup_by(|later, earlier| {
            let touches = later.file == earlier.file && later.from <= earlier.to;
            if touches {
                earlier.to = earlier.to.max(later.to);
            }
            touches
        });
        if self.ranges.len() > MOST {
            // No place for all: the oldest two become one, and what is between them is not shown any more.
            let first = self.ranges.remove(0);
            if self.ranges[0].file == first.file {
                self.ranges[0].from = first.from;
            }
        }
    }

    /// Forgets the ranges of files that are not there, or not as long, as `size` tells.
    pub fn prune(&mut self, size: impl Fn(Inode) -> Option<u64>) {
        self.ranges
            .retain(|range| size(range.file).is_some_and(|size| range.to <= size));
    }

    /// What of a file is on disk: from and to, in order.
    pub fn of(&self, file: Inode) -> Vec<(u64, u64)> {
        let ranges = self.ranges.iter().filter(|range| range.file == file);
        ranges.map(|range| (range.from, range.to)).collect()
    }
}

impl Range {
    fn new(file: u64, from: u64, to: u64) -> Range {
        Range {
            file: Inode::new(file),
            from,
            to,
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{} {} {}", self.file.number(), self.from, self.to)
    }
}

fn name(stream: Stream) -> String {
    format!("{}.kept", stream.as_str())
}

fn checksum(text: &str) -> String {
    format!("{:016x}", fnv(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::tests::open_path;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_written_is_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        let read = || Kept::read(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(read(), Kept::default());
        Kept::make_room(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(read(), Kept::default());
        let mut kept = Kept::default();
        kept.add(Range::new(7, 10, 20));
        kept.add(Range::new(7, 30, 40));
        kept.add(Range::new(8, 0, 5));
        // As when all is written to disk.
        kept.add(Range::new(7, 0, 10));
        assert_eq!(kept.of(Inode::new(7)), [(0, 20), (30, 40)]);
        kept.write(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(read(), kept);
        kept.pending = Some(Pending {
            range: Range::new(8, 5, 9),
            log: Inode::new(99),
            size: 1234,
        });
        kept.write(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(read(), kept);
        let path = temp.path().join("stdout.kept");
        let mut half = std::fs::read(&path).unwrap();
        half[30] ^= 1;
        std::fs::write(&path, half).unwrap();
        assert_eq!(Kept::read(dir.as_fd(), Stream::Stdout), None);
        Kept::remove(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(read(), Kept::default());
    }

    #[test]
    fn there_is_a_place_for_all_of_them() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        let mut kept = Kept::default();
        for number in 0..200 {
            let from = u64::MAX / 2 + number * 10;
            kept.add(Range::new(u64::MAX, from, from + 5));
        }
        kept.pending = Some(Pending {
            range: Range::new(u64::MAX, u64::MAX, u64::MAX),
            log: Inode::new(u64::MAX),
            size: u64::MAX,
        });
        kept.write(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(
            std::fs::metadata(temp.path().join("stdout.kept"))
                .unwrap()
                .len(),
            4096
        );
        assert_eq!(Kept::read(dir.as_fd(), Stream::Stdout), Some(kept));
    }

    #[test]
    fn ranges_of_files_that_are_gone_or_shorter_are_forgotten() {
        let mut kept = Kept::parse("1 0 10\n2 0 10\nnonsense\n3 0 10\n");
        kept.prune(|file| match file.number() {
            1 => Some(10),
            2 => Some(9),
            _ => None,
        });
        assert_eq!(kept.ranges, [Range::new(1, 0, 10)]);
    }
}
