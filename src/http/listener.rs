//! Where connections come from: listening sockets, and accepting from them.
//!
//! Never closes a listener: they are handed in, and others may hold them, too. Called by workers (`server.rs`); [`bind`] by
//! whoever opens the sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, acceptfrom_with, getpeername, recv, shutdown, socket_with, sockopt,
};

use super::answer::{Ending, Outgoing, Terms};
use super::wire::Wire;
use super::{Peer, Problem};
use crate::sys::socket::peer_credentials;

/// Connections that wait in the kernel to be accepted; more are held back by it.
const BACKLOG: i32 = 1024;
/// Connections accepted in one turn of a worker: with one, whoever connects would wait for a turn of each busy connection, as
/// often as there are others before him.
const AT_ONCE: usize = 16;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What connections come from.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Opens a listening TCP socket, ready for [`Server::start`](super::Server::start). An IPv6 address takes IPv6 only, so
/// that the same port can be had for IPv4.
///
/// # Errors
/// The system's, such as an address in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // A restart must not wait for the end of old connections.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Opens a Unix socket at this path. It listens once [`listen_unix`] says so: until then the file can be made as it should be.
///
/// # Errors
/// The system's: the path is taken, or longer than 107 bytes.
pub fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Lets clients connect.
///
/// # Errors
/// None that is known.
pub fn listen_unix(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

impl Listener {
    /// Sets what the workers rely on, whoever opened the socket.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                // Accepted sockets inherit it: one call for all. Without it, the end of a long answer waits 40 ms.
                Ok(sockopt::set_tcp_nodelay(listener, true)?)
            }
            Listener::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    fn accept(&self) -> Result<(OwnedFd, Peer), Errno> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, address) = acceptfrom_with(listener, FLAGS)?;
                let address = tcp_address(address).ok_or(Errno::CONNABORTED)?;
                Ok((socket, Peer::Tcp(address)))
            }
            Listener::Unix(listener) => {
                let socket = accept_with(listener, FLAGS)?;
                let peer = peer_credentials(&socket)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                Ok((socket, Peer::Unix(peer)))
            }
        }
    }
}

/// Who is at the other end of a connection; `None`: nobody any more.
pub fn peer_of(socket: &OwnedFd) -> Option<Peer> {
    let address = getpeername(socket).ok()??;
    if address.address_family() == AddressFamily::UNIX {
        return peer_credentials(socket).ok().map(Peer::Unix);
    }
    SocketAddr::try_from(address).ok().map(Peer::Tcp)
}

fn tcp_address(address: Option<SocketAddrAny>) -> Option<SocketAddr> {
    SocketAddr::try_from(address?).ok()
}

/// Accepts connections that wait at a listener, one by one, and reads each one's request at once: mostly it is there
/// already, and what is read is not given up for the next. Meanwhile the next one is for whoever is free.
pub fn accept(wire: &Arc<Wire>, index: usize, scratch: &mut [u8]) {
    let mut failures = 0;
    for _ in 0..AT_ONCE {
        if !wire.is_ready() {
            return;
        }
        let Some(entry) = wire.enter() else {
            return;
        };
        match wire.listener(index).accept() {
            Ok((mut socket, peer)) => {
                wire.spare(&mut socket);
                let admitted = wire.admit(socket, peer);
                drop(entry);
                wire.listen(index);
                match admitted {
                    Ok(connection) => connection.wake(EventFlags::IN, scratch),
                    Err((socket, peer)) => turn_away(wire, &socket, &peer),
                }
            }
            Err(Errno::AGAIN) => break,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                failures += 1;
                if !wire.evict() {
                    wire.complain(&error.into());
                    wire.rest();
                }
            }
            // A client that left before it was accepted. However many do, those behind them need not wait.
            Err(Errno::CONNABORTED) => {}
            // The network's; see accept(2), "Error handling".
            Err(_) => failures += 1,
        }
        if wire.is_resting() {
            return;
        }
    }
    match failures {
        // Asking again at once would go on like this.
        AT_ONCE => wire.rest(),
        _ => wire.listen(index),
    }
}

/// Says 503 to a connection there is no room for.
fn turn_away(wire: &Wire, socket: &OwnedFd, peer: &Peer) {
    let reply = wire.service().problem(Problem::Overloaded, peer);
    if let Ok(mut outgoing) = Outgoing::new(&Terms::of_unread(Ending::Close), reply) {
        // As far as it goes at once. What the client has sent is read, lest closing resets the connection, answer and all.
        outgoing.send(socket);
        let _ = shutdown(socket, Shutdown::Write);
        let _ = recv(socket, &mut [0; 2048], RecvFlags::empty());
    }
}
