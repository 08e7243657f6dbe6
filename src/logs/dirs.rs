//! A program's directories and FIFOs, opened relative to directories of ours and never through a link.
//!
//! Owns their names, modes and removal. [`open_fifo`] is the one place that opens a FIFO. Called by `mod`, `files` and
//! `notes`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Stream;
use crate::program::ProgramId;
use crate::report;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Mode of `log_dir/<id>`.
pub const LOG_DIR: Mode = Mode::from_raw_mode(0o750);
/// Mode of `run_dir/<id>`: programs may pass, to open `/dev/stderr` again, but not look.
pub const RUN_DIR: Mode = Mode::from_raw_mode(0o711);
/// The program's group may write into its FIFOs; another program of the same user can steal nothing from them.
const FIFO: Mode = Mode::from_raw_mode(0o620);

/// In `log_dir/<id>`: the program was deleted, and this directory is to be.
const REMOVAL: &str = "removed";

/// Directories within a program's directories that removal goes into; we make none.
const DEPTH: u32 = 32;

/// Opens `parent/<id>`.
pub fn open(parent: impl AsFd, id: ProgramId) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        parent,
        id.to_string(),
        DIRECTORY,
        Mode::empty(),
    )?)
}

/// Opens `parent/<id>`, made with `mode` if it is not there.
///
/// # Errors
/// `PermissionDenied` if it belongs to another user: then what is in it cannot be trusted.
pub fn make(parent: impl AsFd, id: ProgramId, mode: Mode) -> io::Result<OwnedFd> {
    let mut made = false;
    let dir = match open(&parent, id) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match rustix::fs::mkdirat(&parent, id.to_string(), mode) {
                Ok(()) => made = true,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            open(&parent, id)?
        }
        opened => opened?,
    };
    if made {
        // The umask may have taken some away.
        rustix::fs::fchmod(&dir, mode)?;
    } else if rustix::fs::fstat(&dir)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the directory {id} belongs to another user"),
        ));
    }
    Ok(dir)
}

/// A FIFO that was opened, and what tells it from another of the same name.
pub struct Fifo {
    pub fd: OwnedFd,
    pub inode: Inode,
}

impl Fifo {
    /// One that is open already.
    ///
    /// # Errors
    /// None that is known.
    pub fn of(fd: OwnedFd) -> io::Result<Fifo> {
        let inode = Inode::of(&rustix::fs::fstat(&fd)?);
        Ok(Fifo { fd, inode })
    }
}

/// A file's identity, as raw as the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode(u64);

impl Inode {
    pub fn of(stat: &Stat) -> Inode {
        // `st_ino` is 32 bits wide on some architectures.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        Inode(stat.st_ino as u64)
    }

    pub fn from(meta: &std::fs::Metadata) -> Inode {
        Inode(std::os::unix::fs::MetadataExt::ino(meta))
    }

    pub const fn new(number: u64) -> Inode {
        Inode(number)
    }

    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Opens a program's FIFO read-write and non-blocking, with an open description of its own; makes it if it is not
/// there. What else was put in its place is removed, and reported.
pub fn open_fifo(dir: impl AsFd, stream: Stream) -> io::Result<Fifo> {
    let name = stream.as_str();
    // Whoever puts things there could do so again and again.
    for _ in 0..3 {
        match rustix::fs::mknodat(&dir, name, FileType::Fifo, FIFO, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Looked at before it is opened: to open a device may have effects.
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_our_fifo(&stat) => {}
            Ok(_) => {
                report::warn(format_args!(
                    "something else was in the place of the FIFO {name} of a program: it is removed"
                ));
                remove_entry(&dir, name, DEPTH)?;
                continue;
            }
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&fd)?;
        if is_our_fifo(&stat) {
            if Mode::from_raw_mode(stat.st_mode) != FIFO {
                rustix::fs::fchmod(&fd, FIFO)?;
            }
            let inode = Inode::of(&stat);
            return Ok(Fifo { fd, inode });
        }
    }
    Err(io::Error::other(format!(
        "the FIFO {name} of a program cannot be made"
    )))
}

fn is_our_fifo(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
        && stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Removes `parent/<id>` with all that is in it, following no link. Nothing there: done.
pub fn remove(parent: impl AsFd, id: ProgramId) -> io::Result<()> {
    remove_entry(parent, &id.to_string(), DEPTH)
}

fn remove_entry(parent: impl AsFd, name: &str, depth: u32) -> io::Result<()> {
    remove_c(parent.as_fd(), &std::ffi::CString::new(name)?, depth)
}

fn remove_c(parent: rustix::fd::BorrowedFd, name: &std::ffi::CStr, depth: u32) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM is what POSIX wants for a directory, EISDIR what Linux says.
        Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {}
        Err(error) => return Err(error.into()),
    }
    let dir = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut inner = names(&dir)?;
    // A mark goes last: until then a removal that is cut off can be finished.
    inner.sort_unstable_by_key(|name| name.to_bytes() == REMOVAL.as_bytes());
    for inner in inner {
        remove_c(dir.as_fd(), &inner, depth - 1)?;
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Marks a program's directory: it is to be removed once its definition is.
pub fn mark(dir: impl AsFd) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, REMOVAL, flags, Mode::from_raw_mode(0o600))?;
    Ok(())
}

/// Takes the mark away.
pub fn unmark(dir: impl AsFd) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, REMOVAL, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether it is marked.
pub fn is_marked(dir: impl AsFd) -> bool {
    rustix::fs::statat(dir, REMOVAL, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The ids that have a directory in `parent`.
pub fn ids(parent: impl AsFd) -> io::Result<Vec<ProgramId>> {
    let names = names(parent)?.into_iter();
    Ok(names
        .filter_map(|name| name.to_str().ok()?.parse().ok())
        .collect())
}

/// The highest of them; 0 if there is none.
pub fn last_id(parent: impl AsFd) -> io::Result<ProgramId> {
    Ok(ids(parent)?.into_iter().max().unwrap_or(ProgramId(0)))
}

/// The names in a directory, without `.` and `..`.
pub fn names(dir: impl AsFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    use crate::logs::tests::open_path;

    const ID: ProgramId = ProgramId(1);

    #[test]
    fn a_directory_and_its_fifos_have_the_modes_of_the_contract_whatever_the_umask() {
        let temp = tempfile::tempdir().unwrap();
        let root = open_path(temp.path()).unwrap();
        let dir = make(&root, ID, RUN_DIR).unwrap();
        let fifo = open_fifo(&dir, Stream::Stdout).unwrap();
        let path = temp.path().join("program-1");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o711);
        let meta = path.join("stdout").metadata().unwrap();
        assert!(meta.file_type().is_fifo());
        assert_eq!(meta.mode() & 0o7777, 0o620);
        assert_eq!(meta.ino(), fifo.inode.number());
        assert_eq!(open_fifo(&dir, Stream::Stdout).unwrap().inode, fifo.inode);
    }

    #[test]
    fn what_was_planted_in_place_of_a_fifo_is_replaced_and_never_followed() {
        let temp = tempfile::tempdir().unwrap();
        let root = open_path(temp.path()).unwrap();
        let dir = make(&root, ID, RUN_DIR).unwrap();
        let path = temp.path().join("program-1");
        let victim = temp.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, path.join("stdout")).unwrap();
        std::fs::create_dir_all(path.join("stderr/inner")).unwrap();
        symlink(temp.path(), path.join("stderr/inner/up")).unwrap();
        for stream in [Stream::Stdout, Stream::Stderr] {
            open_fifo(&dir, stream).unwrap();
            let meta = path.join(stream.as_str()).symlink_metadata().unwrap();
            assert!(meta.file_type().is_fifo());
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_link_in_place_of_a_directory_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let root = open_path(temp.path()).unwrap();
        std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
        symlink(temp.path().join("elsewhere"), temp.path().join("program-1")).unwrap();
        assert!(make(&root, ID, LOG_DIR).is_err());
    }

    #[test]
    fn removal_takes_all_and_follows_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let root = open_path(temp.path()).unwrap();
        make(&root, ID, LOG_DIR).unwrap();
        let path = temp.path().join("program-1");
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(temp.path().join("kept"), "").unwrap();
        symlink(temp.path(), path.join("a/b/up")).unwrap();
        remove(&root, ID).unwrap();
        remove(&root, ID).unwrap();
        assert!(!path.exists() && temp.path().join("kept").exists());
    }
}
