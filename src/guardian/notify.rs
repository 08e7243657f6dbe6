//! Tells the service manager how the daemon is doing. Source: sd_notify(3); without `$NOTIFY_SOCKET` nobody is told.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::report;
use crate::sys;

/// How long the service manager is waited for that does not read what it is sent.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager's socket, if there is one.
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// Finds the socket in the environment, a path or, after `@`, an abstract name.
    pub fn from_environment() -> Notify {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
            return Notify(None);
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        match address.and_then(|address| Ok((socket()?, address))) {
            Ok(manager) => Notify(Some(manager)),
            Err(error) => {
                report::warn(format_args!("NOTIFY_SOCKET cannot be used: {error}"));
                Notify(None)
            }
        }
    }

    /// Sends lines of `NAME=value`.
    pub fn send(&self, lines: &str) {
        let Some((socket, address)) = &self.0 else {
            return;
        };
        let sent = loop {
            match socket.send_to_addr(lines.as_bytes(), address) {
                // With a timeout, waiting ends at a signal. Source: signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => break sent,
            }
        };
        if let Err(error) = sent {
            let reason = sys::reason(&error);
            report::warn(format_args!("the service manager cannot be told: {reason}"));
        }
    }
}

/// With a timeout: the thread that waits for signals sends, and TERM must not wait for a full queue.
fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
