//! The database's file: made whole or not at all, opened without following links, moved aside when it is damaged.
//!
//! Never decides that a file is damaged because the system failed: no space, no descriptors or a lock are errors.
//! Counts what is written to it. Called by [`super::Store`] only.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use crate::clock::Timestamp;
use crate::report;

pub(super) const NAME: &str = "hxe.redb";
/// A new database until it is whole: made on a full disk, it would be a file that never opens again.
const NEW_NAME: &str = "hxe.redb.new";
/// Some thousand programs fit; redb's own default is 1 GiB.
const CACHE_BYTES: usize = 256 * 1024;

/// What a page holds: of the database, and of the cache from which the kernel writes it to disk.
const PAGE: u64 = 4096;

/// Bytes of the pages that were written to databases since the process began; begins anew where it does not fit.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// The number of [`WRITTEN`].
pub(super) fn written() -> usize {
    WRITTEN.load(Ordering::Relaxed)
}

/// Counts the pages that `len` bytes at `offset` touch: a disk takes whole ones.
fn count(offset: u64, len: usize) {
    let pages = (offset + len as u64).div_ceil(PAGE) - offset / PAGE;
    // No write is as large as a usize can tell.
    WRITTEN.fetch_add((pages * PAGE) as usize, Ordering::Relaxed);
}

/// A database's file, with what is written to it counted.
#[derive(Debug)]
struct Counted(FileBackend);

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)?;
        count(offset, data.len());
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    // The file's lock is what keeps two daemons from one database.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

/// An open database and the file it is in.
pub(super) struct Open {
    pub(super) database: Database,
    /// To look at what the database has written; read at given places only.
    file: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl Open {
    /// Builds the database of `file` and checks with `check` that it is as it should be.
    fn new(file: File, check: impl FnOnce(&Database) -> Result<(), Error>) -> Result<Open, Error> {
        let kept = file.try_clone().map_err(Error::Disk)?;
        let database = build(file)?;
        check(&database)?;
        Open::of(database, kept)
    }

    /// The open database of `file`.
    pub(super) fn of(database: Database, file: File) -> Result<Open, Error> {
        let metadata = file.metadata().map_err(Error::Disk)?;
        Ok(Open {
            database,
            file,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Gives the database a file with its name again, where that was removed, alone or with `state_dir` as a whole: all
    /// that was ever acknowledged is still in the one that has no name any more.
    ///
    /// # Errors
    /// It cannot be written, or has its name elsewhere: `state_dir` was moved or another file system lies over it. All
    /// is as it was then.
    pub(super) fn put_back(&mut self, state_dir: &Path) -> Result<(), Error> {
        let path = state_dir.join(NAME);
        match std::fs::symlink_metadata(&path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            // What lies there is looked at when it is used.
            _ => return Ok(()),
        }
        if self.file.metadata().map_err(Error::Disk)?.nlink() > 0 {
            return Err(disk(Errno::NOENT));
        }
        let path = path.display();
        match self.write_anew(state_dir) {
            Ok(open) => {
                *self = open;
                report::error(format_args!(
                    "the database {path} was removed while it was in use: it is written anew, with all that was in it"
                ));
                Ok(())
            }
            Err(error) => {
                report::error(format_args!(
                    "the database {path} was removed and cannot be written anew: until then nothing can be changed"
                ));
                Err(error)
            }
        }
    }

    fn write_anew(&self, state_dir: &Path) -> Result<Open, Error> {
        make_dir(state_dir).map_err(Error::Disk)?;
        let dir = open_dir(state_dir)?;
        create(&dir, |mut file| {
            let mut bytes = vec![0; 64 * 1024];
            let mut at = 0;
            loop {
                match self.file.read_at(&mut bytes, at) {
                    Ok(0) => break,
                    Ok(n) => {
                        file.write_all(&bytes[..n]).map_err(Error::Disk)?;
                        count(at, n);
                        at += n as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::Disk(error)),
                }
            }
            file.sync_all().map_err(Error::Disk)?;
            super::caught(|| Open::new(file, super::check_tables))
        })
    }

    /// Checks that the file still has its name in `state_dir`.
    ///
    /// # Errors
    /// `Disk` if it was removed or replaced, or something was mounted over it.
    pub(super) fn check_in_place(&self, state_dir: &Path) -> Result<(), Error> {
        let there = std::fs::symlink_metadata(state_dir.join(NAME)).map_err(Error::Disk)?;
        if (there.dev(), there.ino()) == self.identity {
            Ok(())
        } else {
            Err(Error::Disk(io::Error::new(
                io::ErrorKind::NotFound,
                "hxe.redb was replaced while it was open",
            )))
        }
    }
}

/// Opens the database of `state_dir`; makes one where there is none, or where it is damaged, which is moved aside.
pub(super) fn open_or_create(state_dir: &Path) -> Result<Open, Error> {
    let dir = open_dir(state_dir)?;
    let Some(file) = open_file(&dir, state_dir, OFlags::RDWR)? else {
        return create(&dir, new_database);
    };
    match open_database(file) {
        Err(Error::Database(cause)) => {
            let aside = move_aside(&dir)?;
            report::error(format_args!(
                "the database {} is damaged ({cause}): it is kept as {aside}, and hxe starts with no programs",
                state_dir.join(NAME).display(),
            ));
            create(&dir, new_database)
        }
        outcome => outcome,
    }
}

/// Opens the database again after a failure. Nothing is made or moved: the daemon's programs are those of this file.
pub(super) fn reopen(state_dir: &Path) -> Result<Open, Error> {
    let dir = open_dir(state_dir)?;
    let file = open_file(&dir, state_dir, OFlags::RDWR)?
        .ok_or_else(|| Error::Disk(Errno::NOENT.into()))?;
    open_database(file)
}

/// Whether there is a database.
pub(super) fn is_there(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir.join(NAME)).is_ok()
}

/// Copies the database of `from`, if there is one, to `to`, where there is none.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let Some(mut old) = open_file(&open_dir(from)?, from, OFlags::RDONLY)? else {
        return Ok(());
    };
    let dir = open_dir(to)?;
    match rustix::fs::unlinkat(&dir, NEW_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(disk(error)),
    }
    let mut new = new_file(&dir)?;
    io::copy(&mut old, &mut new).map_err(Error::Disk)?;
    rustix::fs::renameat(&dir, NEW_NAME, &dir, NAME).map_err(disk)
}

fn new_file(dir: &OwnedFd) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, NEW_NAME, flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(disk)
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(disk)
}

/// Opens the file, `None` if there is none.
fn open_file(dir: &OwnedFd, state_dir: &Path, how: OFlags) -> Result<Option<File>, Error> {
    let refused = |what| Error::Refused {
        path: state_dir.join(NAME),
        what,
    };
    // Non-blocking, so that a FIFO in its place holds nobody up; a regular file does not care.
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, NAME, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(refused("a symbolic link")),
        Err(Errno::ISDIR | Errno::NXIO) => return Err(refused("not a regular file")),
        Err(error) => return Err(disk(error)),
    };
    let metadata = file.metadata().map_err(Error::Disk)?;
    if !metadata.is_file() {
        return Err(refused("not a regular file"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("owned by another user"));
    }
    Ok(Some(file))
}

/// Opens the database in `file`; `Error::Database` if it is damaged.
fn open_database(file: File) -> Result<Open, Error> {
    let metadata = file.metadata().map_err(Error::Disk)?;
    if metadata.len() == 0 {
        // redb would make a database in it, in place.
        return Err(Error::Database(redb::Error::Corrupted(
            "it is empty".to_owned(),
        )));
    }
    super::caught(|| Open::new(file, super::check_tables))
}

/// `state_dir` with its parents, as at the first start.
fn make_dir(state_dir: &Path) -> io::Result<()> {
    if let Some(parent) = state_dir.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(state_dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn new_database(file: File) -> Result<Open, Error> {
    Open::new(file, super::make_tables)
}

/// Makes the file under another name, lets `fill` make a whole database of it, and only then gives it its name.
fn create(dir: &OwnedFd, fill: impl FnOnce(File) -> Result<Open, Error>) -> Result<Open, Error> {
    // Left by a start that was killed.
    match rustix::fs::unlinkat(dir, NEW_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(disk(error)),
    }
    let made = create_and_rename(dir, fill);
    if made.is_err() {
        // The error that led here says more than one of this could.
        let _ = rustix::fs::unlinkat(dir, NEW_NAME, AtFlags::empty());
    }
    made
}

fn create_and_rename(
    dir: &OwnedFd,
    fill: impl FnOnce(File) -> Result<Open, Error>,
) -> Result<Open, Error> {
    let open = fill(new_file(dir)?)?;
    rustix::fs::renameat(dir, NEW_NAME, dir, NAME).map_err(disk)?;
    rustix::fs::fsync(dir).map_err(disk)?;
    Ok(open)
}

fn build(file: File) -> Result<Database, Error> {
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        // A damaged page is found by its checksum now, instead of by a panic later.
        .set_check_integrity_on_open(true)
        .create_with_backend(Counted(FileBackend::new(file)?))?;
    Ok(database)
}

/// Renames the damaged file to a name that is free, and returns that.
fn move_aside(dir: &OwnedFd) -> Result<String, Error> {
    let first = format!("{NAME}.corrupt-{}", Timestamp::now().to_seconds_string());
    // A board without a clock may be at the same second of 1970 twice.
    let mut name = first.clone();
    let mut count = 1;
    while rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        count += 1;
        name = format!("{first}-{count}");
    }
    rustix::fs::renameat(dir, NAME, dir, &name).map_err(disk)?;
    Ok(name)
}

fn disk(error: Errno) -> Error {
    Error::Disk(error.into())
}
