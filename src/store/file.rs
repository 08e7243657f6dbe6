//! The database's file: made whole or not at all, opened without following links, moved aside when it is damaged.
//!
//! Never decides that a file is damaged because the system failed: no space, no descriptors or a lock are errors.
//! Called by [`super::Store`] only.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use redb::Database;
use redb::backends::FileBackend;
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

/// An open database and the file it is in.
pub(super) struct Open {
    pub(super) database: Database,
    /// Device and inode.
    identity: (u64, u64),
}

impl Open {
    pub(super) fn new(database: Database, file: &std::fs::Metadata) -> Open {
        Open {
            database,
            identity: (file.dev(), file.ino()),
        }
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
        return create(&dir);
    };
    match open_database(file) {
        Err(Error::Database(cause)) => {
            let aside = move_aside(&dir)?;
            report::error(format_args!(
                "the database {} is damaged ({cause}): it is kept as {aside}, and hxe starts with no programs",
                state_dir.join(NAME).display(),
            ));
            create(&dir)
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
    super::caught(|| {
        let database = build(file)?;
        super::check_tables(&database)?;
        Ok(Open::new(database, &metadata))
    })
}

fn create(dir: &OwnedFd) -> Result<Open, Error> {
    // Left by a start that was killed.
    match rustix::fs::unlinkat(dir, NEW_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(disk(error)),
    }
    let made = create_and_rename(dir);
    if made.is_err() {
        // The error that led here says more than one of this could.
        let _ = rustix::fs::unlinkat(dir, NEW_NAME, AtFlags::empty());
    }
    made
}

fn create_and_rename(dir: &OwnedFd) -> Result<Open, Error> {
    let file = new_file(dir)?;
    let metadata = file.metadata().map_err(Error::Disk)?;
    let database = build(file)?;
    super::make_tables(&database)?;
    rustix::fs::renameat(dir, NEW_NAME, dir, NAME).map_err(disk)?;
    rustix::fs::fsync(dir).map_err(disk)?;
    Ok(Open::new(database, &metadata))
}

fn build(file: File) -> Result<Database, Error> {
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        // A damaged page is found by its checksum now, instead of by a panic later.
        .set_check_integrity_on_open(true)
        .create_with_backend(FileBackend::new(file)?)?;
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
