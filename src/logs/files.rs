//! The log files of one stream: `stdout.log`, the rotated `stdout.log.1` and so on, and the indexes beside them.
//!
//! Owns their names and rotation: renames in an order that leaves all files and no doubt wherever a SIGKILL falls, as
//! an index goes by the inode of its log file and not by a number. Never reads or writes what is in them. Called by
//! `channel` (which writes) and `read` (which walks from the newest file to the oldest while rotation goes on).

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Stream;
use super::dirs::{self, Inode};
use super::index::Moment;
use crate::clock::Timestamp;
use crate::report;

const LOG: Mode = Mode::from_raw_mode(0o640);
// Non-blocking, so that a FIFO put in a log file's place cannot hold the log thread.
const COMMON: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// The name of the current file (0) or of a rotated one.
fn name(stream: Stream, number: u32) -> String {
    match number {
        0 => format!("{}.log", stream.as_str()),
        n => format!("{}.log.{n}", stream.as_str()),
    }
}

fn index_name(stream: Stream, log: Inode) -> String {
    format!("{}.{}.idx", stream.as_str(), log.number())
}

fn inode_at(dir: BorrowedFd, name: &str) -> io::Result<Option<Inode>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Inode::of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A log file that was opened, as it was then.
pub struct Opened {
    pub file: File,
    pub inode: Inode,
    pub size: u64,
    /// When it was last written.
    pub modified: Moment,
}

impl Opened {
    fn new(fd: OwnedFd) -> io::Result<Opened> {
        let file = File::from(fd);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Opened {
            file,
            inode: Inode::from(&meta),
            size: meta.len(),
            modified: modified(&meta),
        })
    }
}

/// When a file was last written.
pub fn modified(meta: &Metadata) -> Moment {
    let micros = meta.mtime().saturating_mul(1_000_000) + meta.mtime_nsec() / 1_000;
    Moment::from_wall(Timestamp::from_micros(micros))
}

/// Opens the current file to write, made anew if it is not there. What else was put in its place is removed, and
/// reported.
pub fn open_current(dir: BorrowedFd, stream: Stream) -> io::Result<Opened> {
    let name = name(stream, 0);
    for _ in 0..3 {
        match rustix::fs::openat(dir, &name, OFlags::RDWR | COMMON, Mode::empty()) {
            Ok(fd) => match Opened::new(fd) {
                Ok(opened) => return Ok(opened),
                Err(_) => replace(dir, &name)?,
            },
            Err(Errno::NOENT) => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | COMMON;
                match rustix::fs::openat(dir, &name, flags, LOG) {
                    Ok(fd) => {
                        // The umask may have taken some away.
                        rustix::fs::fchmod(&fd, LOG)?;
                        let opened = Opened::new(fd)?;
                        // One with this inode may have been removed by hand: its times are not ours.
                        remove(dir, &index_name(stream, opened.inode))?;
                        return Ok(opened);
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // A link; a socket or a device without driver.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => replace(dir, &name)?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(format!("{name} cannot be made")))
}

fn replace(dir: BorrowedFd, name: &str) -> io::Result<()> {
    report::warn(format_args!(
        "{name} of a program was not a regular file: it is removed"
    ));
    remove(dir, name)
}

fn remove(dir: BorrowedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the current file still is the one with this inode: else it was moved away or removed.
pub fn is_current(dir: BorrowedFd, stream: Stream, inode: Inode) -> bool {
    matches!(inode_at(dir, &name(stream, 0)), Ok(Some(found)) if found == inode)
}

/// Opens the current file, if there is one, only to look whether it ends within a line.
pub fn open_existing(dir: BorrowedFd, stream: Stream) -> io::Result<Option<Opened>> {
    open_read(dir, &name(stream, 0))
}

/// Opens file `number` to read; none if there is none, or something else in its place.
pub fn open_rotated(dir: BorrowedFd, stream: Stream, number: u32) -> io::Result<Option<Opened>> {
    match open_read(dir, &name(stream, number)) {
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                None | Some(Errno::LOOP | Errno::NXIO)
            ) =>
        {
            Ok(None)
        }
        opened => opened,
    }
}

/// Which file has `number`, and its size; none if there is none.
pub fn look(dir: BorrowedFd, stream: Stream, number: u32) -> io::Result<Option<(Inode, u64)>> {
    match rustix::fs::statat(dir, name(stream, number), AtFlags::SYMLINK_NOFOLLOW) {
        // Sizes are never negative.
        Ok(stat) => Ok(Some((Inode::of(&stat), stat.st_size as u64))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_read(dir: BorrowedFd, name: &str) -> io::Result<Option<Opened>> {
    match rustix::fs::openat(dir, name, OFlags::RDONLY | COMMON, Mode::empty()) {
        Ok(fd) => Opened::new(fd).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens the index of a log file to append, made if it is not there.
pub fn open_index(dir: BorrowedFd, stream: Stream, log: Inode) -> io::Result<File> {
    let name = index_name(stream, log);
    let flags = OFlags::RDWR | OFlags::CREATE | COMMON;
    Ok(rustix::fs::openat(dir, name, flags, LOG)?.into())
}

/// Opens the index of a log file to read; none if there is none, or none that can be read.
pub fn open_index_of(dir: BorrowedFd, stream: Stream, log: Inode) -> Option<File> {
    let index = open_read(dir, &index_name(stream, log));
    index.ok().flatten().map(|index| index.file)
}

/// Moves the current file out of the way: it becomes number 1, and the oldest goes if there are more than `keep`.
///
/// # Errors
/// From a rename or removal. All files are there, though perhaps with one number free; calling it again goes on.
pub fn rotate(dir: BorrowedFd, stream: Stream, keep: u32) -> io::Result<()> {
    // Numbers above the first free one stay as they are: one is free if an earlier rotation was broken off.
    let mut last = 0;
    while last < keep && inode_at(dir, &name(stream, last))?.is_some() {
        last += 1;
    }
    let oldest = name(stream, last);
    if let Some(inode) = inode_at(dir, &oldest)? {
        remove(dir, &oldest)?;
        remove(dir, &index_name(stream, inode))?;
    }
    for number in (0..last).rev() {
        match rustix::fs::renameat(dir, name(stream, number), dir, name(stream, number + 1)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes all log files of a stream, and their indexes.
pub fn remove_all(dir: BorrowedFd, stream: Stream) -> io::Result<()> {
    let log = name(stream, 0);
    let prefix = format!("{}.", stream.as_str());
    for name in dirs::names(dir)? {
        let Ok(name) = name.to_str() else { continue };
        if name.starts_with(&log) || name.starts_with(&prefix) && name.ends_with(".idx") {
            remove(dir, name)?;
        }
    }
    Ok(())
}

/// Removes rotated files with numbers above `keep`, and indexes whose log file is gone.
pub fn tidy(dir: BorrowedFd, keep: u32) -> io::Result<()> {
    let names = dirs::names(dir)?;
    let names: Vec<&str> = names.iter().filter_map(|name| name.to_str().ok()).collect();
    for stream in [Stream::Stdout, Stream::Stderr] {
        let rotated = format!("{}.log.", stream.as_str());
        let mut known = Vec::new();
        for name in &names {
            let number = name.strip_prefix(&rotated).map(str::parse::<u32>);
            let is_log = match number {
                Some(Ok(number)) if number > keep => {
                    remove(dir, name)?;
                    false
                }
                Some(number) => number.is_ok(),
                None => *name == self::name(stream, 0),
            };
            if is_log && let Some(inode) = inode_at(dir, name)? {
                known.push(index_name(stream, inode));
            }
        }
        let prefix = format!("{}.", stream.as_str());
        for name in &names {
            if name.starts_with(&prefix)
                && name.ends_with(".idx")
                && !known.iter().any(|index| index == name)
            {
                remove(dir, name)?;
            }
        }
    }
    Ok(())
}

/// A walk over a stream's files, newest first, that rotation may overtake: no file comes twice, none is left out.
pub struct Chain {
    dir: OwnedFd,
    stream: Stream,
    /// The file that was given last, and the number it had then; its inode is not used again as long as the reader
    /// holds it open.
    last: Option<(Inode, u32, File)>,
}

impl Chain {
    pub fn new(dir: OwnedFd, stream: Stream) -> Chain {
        Chain {
            dir,
            stream,
            last: None,
        }
    }

    /// Whether the file that was given last was the current one then.
    pub fn is_at_current(&self) -> bool {
        matches!(self.last, Some((_, 0, _)))
    }

    /// The next older file, and its index if it has one.
    pub fn older(&mut self) -> io::Result<Option<(Opened, Option<File>)>> {
        let dir = self.dir.as_fd();
        // A file's number only ever grows. So if the last file still has number n after we opened what has number
        // n + 1, that was older than it, and nothing was between them. Each further try means another rotation.
        for _ in 0..1000 {
            let above = match &self.last {
                None => 0,
                Some((inode, number, _)) => match self.number_of(*inode, *number)? {
                    Some(number) => number + 1,
                    None => return Ok(None),
                },
            };
            let mut found = None;
            // One number can be free, in the middle of a rotation or where one was broken off.
            for number in [above, above + 1] {
                if let Some(opened) = open_read(dir, &name(self.stream, number))? {
                    found = Some((opened, number));
                    break;
                }
            }
            if let Some((inode, ..)) = &self.last
                && self.number_of(*inode, above - 1)? != Some(above - 1)
            {
                continue;
            }
            let Some((opened, number)) = found else {
                return Ok(None);
            };
            let index = open_index_of(dir, self.stream, opened.inode);
            self.last = Some((opened.inode, number, opened.file.try_clone()?));
            return Ok(Some((opened, index)));
        }
        Err(io::Error::other(
            "log files are rotated faster than they can be opened",
        ))
    }

    /// The number that the file with this inode has now, at least `from`; none if it is gone.
    fn number_of(&self, inode: Inode, from: u32) -> io::Result<Option<u32>> {
        let mut number = from;
        let mut missing = 0;
        while missing < 2 {
            match inode_at(self.dir.as_fd(), &name(self.stream, number))? {
                Some(found) if found == inode => return Ok(Some(number)),
                Some(_) => missing = 0,
                None => missing += 1,
            }
            number += 1;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::tests::open_path;
    use std::fs;
    use std::path::Path;

    fn listing(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn write(path: &Path, text: &str) -> File {
        let dir = open_path(path).unwrap();
        let opened = open_current(dir.as_fd(), Stream::Stdout).unwrap();
        fs::write(path.join("stdout.log"), text).unwrap();
        open_index(dir.as_fd(), Stream::Stdout, opened.inode).unwrap()
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_their_indexes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        for text in ["a", "b", "c", "d"] {
            write(temp.path(), text);
            rotate(dir.as_fd(), Stream::Stdout, 2).unwrap();
        }
        assert_eq!(listing(temp.path()).len(), 4, "{:?}", listing(temp.path()));
        assert_eq!(fs::read(temp.path().join("stdout.log.1")).unwrap(), b"d");
        assert_eq!(fs::read(temp.path().join("stdout.log.2")).unwrap(), b"c");
    }

    #[test]
    fn with_no_rotated_files_the_file_begins_anew() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        write(temp.path(), "a");
        rotate(dir.as_fd(), Stream::Stdout, 0).unwrap();
        assert!(listing(temp.path()).is_empty());
    }

    #[test]
    fn a_rotation_that_was_broken_off_loses_no_file_and_is_made_good() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        for (name, text) in [
            ("stdout.log", "new"),
            ("stdout.log.2", "b"),
            ("stdout.log.3", "a"),
        ] {
            fs::write(temp.path().join(name), text).unwrap();
        }
        let mut chain = Chain::new(open_path(temp.path()).unwrap(), Stream::Stdout);
        let mut texts = Vec::new();
        while let Some((opened, _)) = chain.older().unwrap() {
            texts.push(io::read_to_string(opened.file).unwrap());
        }
        assert_eq!(texts, ["new", "b", "a"]);
        rotate(dir.as_fd(), Stream::Stdout, 3).unwrap();
        assert_eq!(
            listing(temp.path()),
            ["stdout.log.1", "stdout.log.2", "stdout.log.3"]
        );
        assert_eq!(fs::read(temp.path().join("stdout.log.1")).unwrap(), b"new");
    }

    #[test]
    fn a_walk_that_rotation_overtakes_sees_each_file_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        for text in ["a", "b", "c"] {
            write(temp.path(), text);
            rotate(dir.as_fd(), Stream::Stdout, 9).unwrap();
        }
        write(temp.path(), "d");
        let mut chain = Chain::new(open_path(temp.path()).unwrap(), Stream::Stdout);
        let mut texts = Vec::new();
        while let Some((opened, index)) = chain.older().unwrap() {
            assert!(index.is_some());
            texts.push(io::read_to_string(opened.file).unwrap());
            rotate(dir.as_fd(), Stream::Stdout, 9).unwrap();
            write(temp.path(), "later");
        }
        assert_eq!(texts, ["d", "c", "b", "a"]);
    }

    #[test]
    fn tidying_removes_what_is_beyond_and_indexes_without_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        write(temp.path(), "a");
        for name in [
            "stdout.log.1",
            "stdout.log.2",
            "stdout.log.10",
            "stdout.log.old",
            "stdout.1.idx",
        ] {
            fs::write(temp.path().join(name), "").unwrap();
        }
        tidy(dir.as_fd(), 1).unwrap();
        let names = listing(temp.path());
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"stdout.log.old".to_owned()));
    }

    #[test]
    fn a_link_in_place_of_a_log_file_is_replaced_and_never_followed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_path(temp.path()).unwrap();
        fs::write(temp.path().join("victim"), "precious").unwrap();
        std::os::unix::fs::symlink("victim", temp.path().join("stdout.log")).unwrap();
        let opened = open_current(dir.as_fd(), Stream::Stdout).unwrap();
        assert_eq!(opened.size, 0);
        assert!(
            temp.path()
                .join("stdout.log")
                .symlink_metadata()
                .unwrap()
                .is_file()
        );
        assert_eq!(fs::read(temp.path().join("victim")).unwrap(), b"precious");
    }
}
