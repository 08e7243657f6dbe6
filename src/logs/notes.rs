//! hxe's own lines on a program: `run_dir/<id>/hxe.log`, at most 64 KiB, begun anew with each boot.
//!
//! Two files of 32 KiB, the older one as `hxe.log.1`. Each begins with the boot it belongs to; a line is
//! `<boot clock in us> <wall clock in us> <level> <message>`. Written by watchers and the log thread, read by `read`,
//! which holds up no writer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::dirs::Inode;
use super::growth::Growth;
use super::index::{Moment, this_boot};
use super::{Level, dirs};
use crate::clock::{BootTime, boot_id};
use crate::program::ProgramId;
use crate::report;
use crate::sys;
use crate::sys::directory::Directory;

const CURRENT: &str = "hxe.log";
const OLDER: &str = "hxe.log.1";
/// Bytes of each of the two files.
const FILE: u64 = 32 * 1024;
/// Bytes of a message.
const MESSAGE: usize = 4096;
const FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);
/// Between two lines.
const TICK: Duration = Duration::from_micros(1);

/// The third stream of all programs.
pub struct Notes {
    run_dir: Arc<Directory>,
    /// Held while a line is written.
    written: Mutex<Written>,
    /// That a line could not be written has been said.
    said: AtomicBool,
}

/// What is known of the lines written so far.
#[derive(Default)]
struct Written {
    /// When the last line of any program was. No two lines have the same time, so that a line's time is its place.
    last: BootTime,
    /// How many lines of a program could not be written since its last one.
    lost: BTreeMap<ProgramId, u32>,
}

/// One of hxe's own lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Moment,
    pub level: Level,
    pub message: String,
    /// Bytes that it takes in its file.
    pub bytes: u64,
}

/// A program's files, as they were when they were opened; they can be read when they are gone.
#[derive(Default)]
pub struct Files {
    older: Option<File>,
    current: Option<File>,
}

impl Files {
    /// All lines of this boot, oldest first.
    pub fn read(&self) -> io::Result<Vec<Note>> {
        let mut notes = Vec::new();
        for file in [&self.older, &self.current].into_iter().flatten() {
            let text = read_all(file)?;
            if let Some(lines) = text.strip_prefix(&header()) {
                // One that is just being written has no end yet.
                let whole = lines
                    .split_inclusive('\n')
                    .filter_map(|line| line.strip_suffix('\n'));
                notes.extend(whole.filter_map(parse));
            }
        }
        Ok(notes)
    }

    /// Whether there is a file. While they are rotated, it is the older one alone that has the lines.
    pub fn is_there(&self) -> bool {
        self.current.is_some() || self.older.is_some()
    }
}

impl Notes {
    pub fn new(run_dir: Arc<Directory>) -> Notes {
        Notes {
            run_dir,
            written: Mutex::default(),
            said: AtomicBool::new(false),
        }
    }

    /// Adds a line of now, and tells those who follow the program. What cannot be written is reported, once until it
    /// works again.
    pub fn note(&self, id: ProgramId, level: Level, message: &str, growth: Option<&Growth>) {
        self.note_at(None, id, level, message, growth);
    }

    /// The same, of a moment that has passed, but not before the program's line before.
    pub fn note_at(
        &self,
        at: Option<BootTime>,
        id: ProgramId,
        level: Level,
        message: &str,
        growth: Option<&Growth>,
    ) {
        if self.add(at, id, level, message, growth)
            && let Some(growth) = growth
        {
            growth.tell();
        }
    }

    fn add(
        &self,
        at: Option<BootTime>,
        id: ProgramId,
        level: Level,
        message: &str,
        growth: Option<&Growth>,
    ) -> bool {
        let mut written = self.lock();
        let mut now = Moment::now();
        now.since_boot = now.since_boot.max(written.last + TICK);
        let mut text = String::new();
        if let Some(lost) = written.lost.get(&id) {
            let said = format!("{lost} of hxe's own lines could not be written before this one");
            text = line(&now, Level::Warn, &said);
            now.since_boot = now.since_boot + TICK;
        }
        written.last = now.since_boot;
        if text.is_empty() {
            now.since_boot = at.unwrap_or(now.since_boot);
        }
        text.push_str(&line(&now, level, message));
        match self.write(id, &text) {
            Ok(()) => {
                written.lost.remove(&id);
                self.said.store(false, Ordering::Relaxed);
                if let Some(growth) = growth {
                    growth.noted(now.since_boot, text.len() as u64);
                }
                true
            }
            Err(error) => {
                // A program without a directory was deleted.
                if error.kind() != io::ErrorKind::NotFound {
                    *written.lost.entry(id).or_default() += 1;
                }
                if !self.said.swap(true, Ordering::Relaxed) {
                    report::warn(format_args!(
                        "a line for the log of {id} cannot be written: {error}; it was: {message}"
                    ));
                }
                false
            }
        }
    }

    /// Forgets a program that was deleted.
    pub fn forget(&self, id: ProgramId) {
        self.lock().lost.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, id: ProgramId, line: &str) -> io::Result<()> {
        let dir = dirs::open(&*self.run_dir.get()?, id)?;
        let mut text = String::new();
        let mut size = 0;
        let mut file = match open(&dir, CURRENT)? {
            Some(file) if belongs_to_this_boot(&file) => {
                size = file.metadata()?.len();
                Some(file)
            }
            Some(_) => {
                unlink(&dir, CURRENT)?;
                unlink(&dir, OLDER)?;
                None
            }
            None => None,
        };
        if size + line.len() as u64 > FILE {
            rustix::fs::renameat(&dir, CURRENT, &dir, OLDER)?;
            file = None;
        }
        let file = match file {
            Some(file) => file,
            None => {
                size = 0;
                text = header();
                let flags = FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
                rustix::fs::openat(&dir, CURRENT, flags, Mode::from_raw_mode(0o640))?.into()
            }
        };
        text.push_str(line);
        let written = file.write_all_at(text.as_bytes(), size);
        if written.is_err() {
            // Half a line would be joined with the next.
            file.set_len(size)?;
        }
        written
    }

    /// All lines of this boot, oldest first.
    pub fn read(&self, id: ProgramId) -> io::Result<Vec<Note>> {
        self.open(id)?.read()
    }

    /// Opens a program's files to read them; none if there are none. Waits for no writer.
    pub fn open(&self, id: ProgramId) -> io::Result<Files> {
        let dir = match dirs::open(&*self.run_dir.get_to_read(), id) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Files::default()),
            Err(error) => return Err(error),
        };
        // Each further try means that another 32 KiB were written meanwhile.
        for _ in 0..1000 {
            let current = open_read(&dir, CURRENT)?;
            let older = open_read(&dir, OLDER)?;
            // A file that is still the current one was so all the time, and the other is the one before it.
            let still = open_read(&dir, CURRENT)?;
            if inode(current.as_ref())? == inode(still.as_ref())? {
                return Ok(Files { older, current });
            }
        }
        Err(io::Error::other(
            "hxe's own lines are rotated faster than they can be opened",
        ))
    }
}

fn read_all(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; FILE as usize];
    let len = sys::read_from_start(file, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

fn inode(file: Option<&File>) -> io::Result<Option<Inode>> {
    file.map(|file| Ok(Inode::from(&file.metadata()?)))
        .transpose()
}

/// Opens one of the files; none if it is not there or something else is in its place.
fn open_read(dir: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    match rustix::fs::openat(dir, name, FLAGS | OFlags::RDONLY, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn header() -> String {
    format!("boot {}\n", boot_id())
}

fn belongs_to_this_boot(file: &File) -> bool {
    let header = header();
    let mut found = vec![0; header.len()];
    file.read_exact_at(&mut found, 0).is_ok() && found == header.as_bytes()
}

/// Opens one of the files to write; what is none is removed.
fn open(dir: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    match rustix::fs::openat(dir, name, FLAGS | OFlags::RDWR, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            if file.metadata()?.is_file() {
                return Ok(Some(file));
            }
            unlink(dir, name)?;
            Ok(None)
        }
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => {
            unlink(dir, name)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn unlink(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn line(at: &Moment, level: Level, message: &str) -> String {
    let boot = at.since_boot.as_micros();
    let wall = at.wall().as_micros();
    let mut text = format!("{boot} {wall} {} ", level.as_str());
    let end = text.len() + MESSAGE;
    for c in message.chars() {
        if text.len() + c.len_utf8() > end {
            break;
        }
        text.push(if c.is_control() { ' ' } else { c });
    }
    text.push('\n');
    text
}

fn parse(line: &str) -> Option<Note> {
    let bytes = line.len() as u64;
    let mut fields = line.splitn(4, ' ');
    let since_boot = BootTime::from_micros(fields.next()?.parse().ok()?);
    let wall: i64 = fields.next()?.parse().ok()?;
    let level = Level::from_name(fields.next()?)?;
    let message = fields.next()?.to_owned();
    let at = Moment {
        boot: this_boot(),
        since_boot,
        wall_offset: wall.saturating_sub_unsigned(since_boot.as_micros()),
    };
    Some(Note {
        at,
        level,
        message,
        bytes: bytes + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: ProgramId = ProgramId(1);

    fn notes() -> (tempfile::TempDir, Notes) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("program-1")).unwrap();
        let dir = Directory::at(temp.path());
        (temp, Notes::new(Arc::new(dir)))
    }

    #[test]
    fn lines_come_back_in_order_without_control_characters() {
        let (_temp, notes) = notes();
        notes.note(ID, Level::Info, "Program started successfully", None);
        notes.note(ID, Level::Warn, "two\nlines\u{1b}[0m", None);
        let found = notes.read(ID).unwrap();
        let texts: Vec<_> = found
            .iter()
            .map(|n| (n.level, n.message.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                (Level::Info, "Program started successfully"),
                (Level::Warn, "two lines [0m")
            ]
        );
        assert!(found[1].at.is_after(&found[0].at));
    }

    #[test]
    fn sixty_four_kibibytes_are_kept_and_the_newest_lines_are_among_them() {
        let (temp, notes) = notes();
        for n in 0..2000 {
            notes.note(ID, Level::Info, &format!("{n} {}", "x".repeat(100)), None);
        }
        let found = notes.read(ID).unwrap();
        assert!(found.len() > 200 && found[found.len() - 1].message.starts_with("1999 "));
        let size: u64 = [CURRENT, OLDER]
            .iter()
            .map(|name| {
                temp.path()
                    .join("program-1")
                    .join(name)
                    .metadata()
                    .unwrap()
                    .len()
            })
            .sum();
        assert!(size <= 2 * FILE);
    }

    #[test]
    fn the_files_are_there_while_they_are_rotated() {
        let (temp, notes) = notes();
        assert!(!notes.open(ID).unwrap().is_there());
        notes.note(ID, Level::Info, "a line", None);
        let path = |name| temp.path().join("program-1").join(name);
        std::fs::rename(path(CURRENT), path(OLDER)).unwrap();
        let files = notes.open(ID).unwrap();
        assert!(files.is_there());
        assert_eq!(files.read().unwrap()[0].message, "a line");
    }

    #[test]
    fn a_reader_sees_lines_without_a_gap_while_they_are_written() {
        let (_temp, notes) = notes();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..20_000 {
                    notes.note(ID, Level::Info, &format!("{n}"), None);
                }
            });
            while !writer.is_finished() {
                let found = notes.read(ID).unwrap();
                let numbers: Vec<u32> = found.iter().map(|n| n.message.parse().unwrap()).collect();
                assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                assert!(
                    found
                        .windows(2)
                        .all(|pair| pair[1].at.is_after(&pair[0].at))
                );
            }
        });
    }

    #[test]
    fn another_boot_begins_anew() {
        let (temp, notes) = notes();
        let path = temp.path().join("program-1").join(CURRENT);
        std::fs::write(&path, "boot earlier\n1 1 info old\n").unwrap();
        assert!(notes.read(ID).unwrap().is_empty());
        notes.note(ID, Level::Info, "new", None);
        assert_eq!(notes.read(ID).unwrap().len(), 1);
        assert!(!std::fs::read_to_string(path).unwrap().contains("old"));
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_and_said_with_the_next_that_can() {
        let (temp, notes) = notes();
        notes.note(ID, Level::Info, "first", None);
        let [path, away] = [CURRENT, "away"].map(|name| temp.path().join("program-1").join(name));
        std::fs::rename(&path, &away).unwrap();
        // Which no file can take the place of.
        std::fs::create_dir(&path).unwrap();
        notes.note(ID, Level::Info, "second", None);
        notes.note(ID, Level::Info, "third", None);
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&away, &path).unwrap();
        notes.note(ID, Level::Info, "fourth", None);
        notes.note(ID, Level::Info, "fifth", None);
        let found = notes.read(ID).unwrap();
        let texts: Vec<_> = found.iter().map(|n| n.message.as_str()).collect();
        let lost = "2 of hxe's own lines could not be written before this one";
        assert_eq!(texts, ["first", lost, "fourth", "fifth"]);
        assert!(
            found
                .windows(2)
                .all(|pair| pair[1].at.is_after(&pair[0].at))
        );
    }

    #[test]
    fn a_program_without_a_directory_has_no_lines_and_gets_none() {
        let (_temp, notes) = notes();
        notes.note(ProgramId(2), Level::Info, "x", None);
        assert!(notes.read(ProgramId(2)).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_harm(text in ".{0,80}", boot: u64, wall: i64) {
            parse(&text);
            if let Some(note) = parse(&format!("{boot} {wall} info {text}")) {
                note.at.wall();
            }
        }
    }
}
