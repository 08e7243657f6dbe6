//! Who is at the other end of a Unix socket.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// As many groups as most users have.
const FEW_GROUPS: usize = 32;

/// A process as it was when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    /// Its further groups; none where the kernel does not tell them.
    pub groups: Box<[u32]>,
    /// 0 for a process that our pid namespace does not show.
    pub pid: i32,
}

/// The credentials of a connected socket's peer. Unlike rustix's function of this purpose, which makes a `Pid` that must
/// not be 0, it takes that one, too. Source: unix(7), SO_PEERCRED.
///
/// # Errors
/// The system's: not a socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call, and both pointers are to values of ours of the sizes that are told:
    // the kernel writes at most `length` bytes, all of which are plain numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    super::process::cvt(result)?;
    Ok(Credentials {
        uid: peer.uid,
        gid: peer.gid,
        groups: peer_groups(socket.as_fd()),
        pid: peer.pid,
    })
}

/// The supplementary groups of a connected socket's peer; none before Linux 4.13, which tells none. Source: unix(7),
/// SO_PEERGROUPS.
fn peer_groups(socket: BorrowedFd) -> Box<[u32]> {
    let mut groups: Vec<libc::gid_t> = vec![0; FEW_GROUPS];
    // Once for few, and once more for as many as there are.
    for _ in 0..2 {
        let mut length = mem::size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the descriptor is borrowed for the call; the first pointer is to `length` bytes of ours, into which the
        // kernel writes plain numbers, and the second to that length, which it sets to what it wrote or needs.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let error = super::process::cvt(result).err();
        groups.resize(length as usize / mem::size_of::<libc::gid_t>(), 0);
        match error.and_then(|error| error.raw_os_error()) {
            None if result == 0 => return groups.into(),
            Some(libc::ERANGE) => {}
            _ => break,
        }
    }
    Box::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_is_known_by_its_credentials() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let groups = rustix::process::getgroups().unwrap();
        let own = Credentials {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.iter().map(|group| group.as_raw()).collect(),
            pid: std::process::id() as i32,
        };
        assert_eq!(peer_credentials(&ours).unwrap(), own);
    }

    #[test]
    fn what_is_no_socket_has_no_peer() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = peer_credentials(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
