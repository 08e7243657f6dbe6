//! `run_dir/hxe.sock`: the API for those at this machine.
//!
//! Who may connect is decided by the kernel, by the mode of the file; what they may do there by the API. The directory is
//! ours alone, so that nobody else can put a socket in its place.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, chmodat, chownat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::guardian::{LISTENER, Link};
use crate::http;
use crate::sys::directory::Directory;

const NAME: &str = "hxe.sock";
/// Its name until it is as it should be. Only then anybody finds it.
const UNFINISHED: &str = "hxe.sock.new";

/// The file of the socket.
pub(super) struct LocalSocket {
    run_dir: Arc<Directory>,
    /// For people.
    pub(super) path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
}

impl LocalSocket {
    /// Opens the socket, or takes the one that an earlier daemon `left` if its file is still there. The file of a daemon
    /// that is gone is replaced. `group` may use it, too.
    pub(super) fn open(
        run_dir: Arc<Directory>,
        path: &Path,
        group: Option<u32>,
        left: &mut BTreeMap<String, OwnedFd>,
        link: &Link,
    ) -> io::Result<(LocalSocket, UnixListener)> {
        let mut socket = LocalSocket {
            run_dir,
            path: path.join(NAME),
            identity: (0, 0),
        };
        if let Some(identity) = socket.found()?
            && let Some(listener) = left.remove(&kept_name(identity))
        {
            socket.identity = identity;
            socket.permit(NAME, group)?;
            return Ok((socket, listener.into()));
        }
        let listener = socket.bind(group, link)?;
        Ok((socket, listener))
    }

    /// Lets this group use it; where the file is gone or is another one, makes a socket in its place, and gives it.
    pub(super) fn renew(
        &mut self,
        group: Option<u32>,
        link: &Link,
    ) -> io::Result<Option<UnixListener>> {
        if self.found()? == Some(self.identity) {
            self.permit(NAME, group)?;
            return Ok(None);
        }
        let old = kept_name(self.identity);
        let listener = self.bind(group, link)?;
        if kept_name(self.identity) != old {
            link.forget(&old);
        }
        Ok(Some(listener))
    }

    /// Takes the file away, if it is still ours.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.found()? == Some(self.identity) {
            true => Ok(unlinkat(self.run_dir.get()?, NAME, AtFlags::empty())?),
            false => Ok(()),
        }
    }

    fn bind(&mut self, group: Option<u32>, link: &Link) -> io::Result<UnixListener> {
        let run_dir = self.run_dir.get()?;
        match unlinkat(&run_dir, UNFINISHED, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        // By way of the open directory, as an address of a socket has no more than 107 bytes.
        let directory = Path::new("/proc/self/fd").join(run_dir.as_raw_fd().to_string());
        let socket = http::bind_unix(&directory.join(UNFINISHED))?;
        self.permit(UNFINISHED, group)?;
        http::listen_unix(&socket)?;
        let stat = stat(&run_dir, UNFINISHED)?;
        renameat(&run_dir, UNFINISHED, &run_dir, NAME)?;
        self.identity = identity(&stat);
        link.keep(&kept_name(self.identity), socket.as_fd());
        Ok(socket.into())
    }

    /// Who may connect: our user and root, and `group`.
    fn permit(&self, name: &str, group: Option<u32>) -> io::Result<()> {
        let run_dir = self.run_dir.get()?;
        let wanted = match group {
            None => Mode::from_raw_mode(0o600),
            Some(_) => Mode::from_raw_mode(0o660),
        };
        if let Some(group) = group
            && stat(&run_dir, name)?.st_gid != group
        {
            // First, lest the old group may use it for a moment longer, or the new one have it before it is theirs.
            chmodat(&run_dir, name, Mode::from_raw_mode(0o600), AtFlags::empty())?;
            let group = Some(Gid::from_raw(group));
            chownat(&run_dir, name, None, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(chmodat(&run_dir, name, wanted, AtFlags::empty())?)
    }

    /// The socket that is there under our name.
    fn found(&self) -> io::Result<Option<(u64, u64)>> {
        match stat(self.run_dir.get()?, NAME) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {
                Ok(Some(identity(&stat)))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn stat(directory: impl AsFd, name: &str) -> Result<Stat, Errno> {
    let directory: BorrowedFd = directory.as_fd();
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

#[allow(clippy::unnecessary_cast, reason = "narrower on some machines")]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Under which the guardian keeps it: with the file that it belongs to, as the socket itself does not tell.
fn kept_name((device, inode): (u64, u64)) -> String {
    format!("{LISTENER}{NAME} {device}:{inode}")
}
