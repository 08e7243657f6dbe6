//! Looking at another user's process where root may not: in a container it mostly lacks CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH
//! does not help there. The process's own user may look at it, so a thread becomes him for as long as it looks, for the
//! file system alone: who may signal or trace us stays as it was. Source: setfsuid(2); ptrace(2), "access mode checking".
#![allow(unsafe_code)]

use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Signal, getegid, geteuid, getppid};

use super::process::Pid;

/// Looks at a process, as its user if need be.
///
/// # Errors
/// As `look` has them.
pub(super) fn at<T>(pid: Pid, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match look() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let Some(_as_user) = AsUser::of(pid) else {
                return Err(error);
            };
            look()
        }
        seen => seen,
    }
}

/// While it lives, this thread is another user to the file system.
struct AsUser {
    parent: Option<rustix::process::Pid>,
    /// The kernel forgets it with each change of a user.
    when_parent_ends: Option<Signal>,
}

impl AsUser {
    /// Becomes the user of a process; `None` where that is root, or we are not.
    fn of(pid: Pid) -> Option<AsUser> {
        let meta = std::fs::metadata(format!("/proc/{pid}")).ok()?;
        if !geteuid().is_root() || meta.uid() == 0 {
            return None;
        }
        let as_user = AsUser {
            parent: getppid(),
            when_parent_ends: rustix::process::parent_process_death_signal().ok()?,
        };
        // The group first: the user could not change it any more.
        set(meta.uid(), meta.gid());
        Some(as_user)
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        set(geteuid().as_raw(), getegid().as_raw());
        if let Some(signal) = self.when_parent_ends {
            let _ = rustix::process::set_parent_process_death_signal(Some(signal));
            if getppid() != self.parent {
                // It ended meanwhile.
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            }
        }
    }
}

/// User and group of this thread, to the file system. To one's own or, as root, to any; it cannot fail.
fn set(uid: u32, gid: u32) {
    // SAFETY: both take a number and change this thread alone.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}
