//! Where a stream's files are: on disk, in `log_dir/<id>`, or in memory, in `run_dir/<id>`.
//!
//! With `disk = "all"` what programs write goes to disk at once; else it goes to a ring in memory, of which
//! `disk = "errors"` has some kept on disk: see `kept`. Knows which directories, not what is in them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Settings, dirs};
use crate::program::{LogDisk, ProgramId};
use crate::sys::directory::Directory;

/// Files of the ring besides the current one. Together they hold `ring_size` and more.
pub const RING_FILES: u32 = 2;

/// Where files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    #[default]
    Disk,
    Memory,
}

impl Medium {
    /// Where programs' output goes first.
    pub fn of(disk: LogDisk) -> Medium {
        match disk {
            LogDisk::All => Medium::Disk,
            LogDisk::Errors | LogDisk::Memory => Medium::Memory,
        }
    }

    pub fn other(self) -> Medium {
        match self {
            Medium::Disk => Medium::Memory,
            Medium::Memory => Medium::Disk,
        }
    }

    /// Bytes of a file before it is rotated.
    pub fn max_size(self, settings: &Settings) -> u64 {
        match self {
            Medium::Disk => settings.max_size,
            Medium::Memory => settings.ring_size / u64::from(RING_FILES),
        }
    }

    /// Rotated files kept.
    pub fn max_files(self, settings: &Settings) -> u32 {
        match self {
            Medium::Disk => settings.max_files,
            Medium::Memory => RING_FILES,
        }
    }
}

/// The directories of all programs' files.
#[derive(Clone)]
pub struct Places {
    pub log_dir: Arc<Directory>,
    pub run_dir: Arc<Directory>,
}

impl Places {
    /// Opens a program's directory to look what is there.
    ///
    /// # Errors
    /// `NotFound`, or the system's.
    pub fn open(&self, medium: Medium, id: ProgramId) -> io::Result<OwnedFd> {
        let parent = match medium {
            Medium::Disk => &self.log_dir,
            Medium::Memory => &self.run_dir,
        };
        dirs::open(&*parent.get_to_read(), id)
    }

    /// The same; none if it is not there.
    pub fn find(&self, medium: Medium, id: ProgramId) -> io::Result<Option<OwnedFd>> {
        match self.open(medium, id) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a program's directory to write in it, made if it is not there.
    ///
    /// # Errors
    /// As [`dirs::make`].
    pub fn make(&self, medium: Medium, id: ProgramId) -> io::Result<OwnedFd> {
        match medium {
            Medium::Disk => dirs::make(&*self.log_dir.get()?, id, dirs::LOG_DIR),
            Medium::Memory => dirs::make(&*self.run_dir.get()?, id, dirs::RUN_DIR),
        }
    }
}
