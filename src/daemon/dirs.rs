//! The three directories of `[storage]`: made or refused, and locked against a second daemon.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdirat, open as open_file,
    openat, unlinkat,
};
use rustix::io::Errno;

use crate::config::Storage;
use crate::report;
use crate::sys;
use crate::sys::directory::Directory;
use crate::sys::procfs;

/// How long to wait for a lock whose holder is on its way out, or has died: a child of it that has not yet become its
/// program holds it, too.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a holder must look alive to be taken for that: one that was just killed may have to wait for a CPU to die on.
const ALIVE_FOR: Duration = Duration::from_millis(200);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const RUN_MODE: u32 = 0o711;
const LOG_MODE: u32 = 0o750;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirError {
    #[error("the directory {} ({key}) cannot be {what}: {}", path.display(), sys::reason(source))]
    Io {
        key: &'static str,
        path: PathBuf,
        what: &'static str,
        source: io::Error,
    },
    #[error("the directory {} ({key}) is not owned by the user that hxe runs as (uid {uid})", path.display())]
    Owner {
        key: &'static str,
        path: PathBuf,
        uid: u32,
    },
    #[error("the directory {} ({key}) can be written by group or others: chmod go-w it", path.display())]
    Writable { key: &'static str, path: PathBuf },
    #[error("another hxe daemon{} uses the directory {} ({key})", holder(*pid), path.display())]
    Held {
        key: &'static str,
        path: PathBuf,
        pid: Option<i32>,
    },
}

impl DirError {
    /// Whether it is missing and cannot be made, as its file system cannot be written.
    fn is_read_only(&self) -> bool {
        let read_only = io::ErrorKind::ReadOnlyFilesystem;
        matches!(self, DirError::Io { what: "made", source, .. } if source.kind() == read_only)
    }
}

fn holder(pid: Option<i32>) -> String {
    pid.map(|pid| format!(", process {pid},"))
        .unwrap_or_default()
}

/// The open and locked directories.
pub(super) struct Directories {
    /// Held as long as the daemon runs. Not there where it is missing on a file system that cannot be written.
    state: Option<OwnedFd>,
    pub(super) run: Arc<Directory>,
    pub(super) log: Arc<Directory>,
}

impl Directories {
    /// `state_dir`, if there is one.
    pub(super) fn state_dir<'a>(&self, storage: &'a Storage) -> Option<&'a Path> {
        self.state.is_some().then_some(storage.state_dir.as_path())
    }

    /// The directory that the database is in, at least for this boot.
    pub(super) fn kept_in<'a>(&self, storage: &'a Storage) -> &'a Path {
        self.state_dir(storage).unwrap_or(&storage.run_dir)
    }
}

/// Makes what is missing, checks what is there, and locks each against a second daemon. A `later` daemon than the first does
/// without a `log_dir` that cannot be used by now, as the one before it would have.
///
/// # Errors
/// The first directory that cannot be used, with the reason.
pub(super) fn open(storage: &Storage, later: bool) -> Result<Directories, DirError> {
    let state = match open_one("state_dir", &storage.state_dir, 0o700) {
        Err(error) if error.is_read_only() => {
            report::warn(format_args!(
                "{error}: programs that files declare run, and no others can be made"
            ));
            None
        }
        state => Some(state?),
    };
    let run = open_one("run_dir", &storage.run_dir, RUN_MODE)?;
    let log = match open_one("log_dir", &storage.log_dir, LOG_MODE) {
        Err(error) if later => {
            report::error(format_args!(
                "{error}: programs run on, and their logs are kept once it can be used"
            ));
            missing(&run).map_err(|_| error)?
        }
        log => log?,
    };
    let is_state = |other: &OwnedFd| {
        state
            .as_ref()
            .is_some_and(|state| same_file(state.as_fd(), other.as_fd()))
    };
    if let Some(state) = &state {
        lock("state_dir", &storage.state_dir, state)?;
    }
    let run_alone = !is_state(&run);
    if run_alone {
        lock("run_dir", &storage.run_dir, &run)?;
    }
    let log_alone = !is_state(&log) && !same_file(run.as_fd(), log.as_fd());
    if log_alone {
        lock("log_dir", &storage.log_dir, &log)?;
    }
    Ok(Directories {
        state,
        run: coming_back("run_dir", &storage.run_dir, RUN_MODE, run_alone, run),
        log: coming_back("log_dir", &storage.log_dir, LOG_MODE, log_alone, log),
    })
}

/// A directory without a name, in which nothing is found and nothing can be made.
fn missing(run_dir: &OwnedFd) -> io::Result<OwnedFd> {
    const NAME: &str = "missing";
    match mkdirat(run_dir, NAME, Mode::RWXU) {
        Err(error) if error != Errno::EXIST => return Err(error.into()),
        _ => {}
    }
    let directory = openat(run_dir, NAME, DIRECTORY, Mode::empty())?;
    unlinkat(run_dir, NAME, AtFlags::REMOVEDIR)?;
    Ok(directory)
}

/// A directory that is made and locked anew when it is needed and somebody has taken it away.
fn coming_back(
    key: &'static str,
    path: &Path,
    mode: u32,
    locked: bool,
    open: OwnedFd,
) -> Arc<Directory> {
    let place = path.to_owned();
    let again = move || {
        let fresh = open_one(key, &place, mode).map_err(system_error)?;
        if locked {
            lock(key, &place, &fresh).map_err(system_error)?;
        }
        let path = place.display();
        report::warn(format_args!(
            "the directory {path} ({key}) was gone or replaced: the one that is there now is used"
        ));
        Ok(fresh)
    };
    Arc::new(Directory::new(path, open, Box::new(again)))
}

/// What the system said, where it said something: a full disk stays one.
fn system_error(error: DirError) -> io::Error {
    match error {
        DirError::Io { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}

/// Whether two descriptors are of the same file.
pub(super) fn same_file(one: BorrowedFd, other: BorrowedFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn open_one(key: &'static str, path: &Path, mode: u32) -> Result<OwnedFd, DirError> {
    let failed = |what| {
        let path = path.to_owned();
        move |source: io::Error| DirError::Io {
            key,
            path,
            what,
            source,
        }
    };
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(failed("made"))?;
    }
    let made = match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed("made")(error)),
    };
    let directory = open_file(path, DIRECTORY, Mode::empty())
        .map_err(|error| failed("opened")(error.into()))?;
    let stat = fstat(&directory).map_err(|error| failed("looked at")(error.into()))?;
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid != own {
        return Err(DirError::Owner {
            key,
            path: path.to_owned(),
            uid: own,
        });
    }
    if made {
        // The umask had its say at first.
        fchmod(&directory, Mode::from_raw_mode(mode))
            .map_err(|error| failed("made")(error.into()))?;
    } else if stat.st_mode & 0o022 != 0 {
        return Err(DirError::Writable {
            key,
            path: path.to_owned(),
        });
    }
    Ok(directory)
}

fn lock(key: &'static str, path: &Path, directory: &OwnedFd) -> Result<(), DirError> {
    let began = Instant::now();
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                // None is named where that has died, or has just let go.
                let holder = lock_holder(directory);
                let main = holder.and_then(main_process);
                let patience = if main.is_some() { ALIVE_FOR } else { PATIENCE };
                if began.elapsed() >= patience {
                    return Err(DirError::Held {
                        key,
                        path: path.to_owned(),
                        pid: main.or(holder),
                    });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                let path = path.to_owned();
                return Err(DirError::Io {
                    key,
                    path,
                    what: "locked",
                    source: error.into(),
                });
            }
        }
    }
}

/// The process of a daemon that was started and that others know; `None` for one that is on its way out, as it or its
/// guardian is dead.
fn main_process(daemon: i32) -> Option<i32> {
    let stat = procfs::stat(daemon).ok().filter(|stat| !stat.is_zombie())?;
    match procfs::argument_of(daemon, b"--guardian") {
        None => Some(daemon),
        // Else it is dead, and its child is another's.
        Some(guardian) => (guardian == stat.ppid.to_string()).then_some(stat.ppid),
    }
}

/// Who took the lock on a file. Source: proc_locks(5): `1: FLOCK ADVISORY WRITE 123 fe:00:4711 0 EOF`.
fn lock_holder(file: &OwnedFd) -> Option<i32> {
    let inode = fstat(file).ok()?.st_ino.to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = fields.as_slice() else {
            return None;
        };
        if place.rsplit(':').next() != Some(inode.as_str()) {
            return None;
        }
        pid.parse().ok().filter(|pid| *pid > 0)
    })
}
