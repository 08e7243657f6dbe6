//! A piece of disk held back, so that on a full one something can still be deleted: even that writes first.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

const NAME: &str = "hxe.reserve";
/// A deletion writes some 20 KiB, and more where the database has to be repaired first.
const BYTES: u64 = 128 * 1024;

/// Holds it back, if there is room.
pub(super) fn hold(state_dir: &Path) {
    let path = path(state_dir);
    let is_held = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() == BYTES);
    if !is_held && fill(&path).is_err() {
        // No room: half a reserve keeps others from what is left.
        let _ = std::fs::remove_file(&path);
    }
}

/// Gives it back to the disk; whether there was one.
pub(super) fn give_back(state_dir: &Path) -> bool {
    std::fs::remove_file(path(state_dir)).is_ok()
}

/// Whether this is what a full disk says.
pub(super) fn is_full(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOSPC | Errno::DQUOT))
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

fn fill(path: &Path) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(CWD, path, flags, mode)?);
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        // Some file systems of flash chips know no such thing.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            for _ in 0..BYTES / 1024 {
                file.write_all(&[0; 1024])?;
            }
            Ok(())
        }
        done => Ok(done?),
    }
}
