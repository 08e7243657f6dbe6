//! The listening TCP sockets: opened, or taken from an earlier daemon, and told to who started this one.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{StartError, dirs};
use crate::guardian::{LISTENER, Link};
use crate::http;
use crate::report;

/// How long to wait for a port that is taken. The locks on the directories have been waited for before.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens the listening sockets, or takes those that an earlier daemon `left`: clients may be waiting in them.
pub(super) fn open(
    addresses: &[SocketAddr],
    left: &mut BTreeMap<String, OwnedFd>,
    link: &Link,
) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let name = format!("{LISTENER}{address}");
        if let Some(socket) = left.remove(&name) {
            listeners.push(TcpListener::from(socket));
            continue;
        }
        match bind(*address) {
            Ok(listener) => {
                link.keep(&name, listener.as_fd());
                listeners.push(listener);
            }
            // A machine without IPv6 has no [::1].
            Err(error) if address.ip().is_loopback() && address.is_ipv6() && is_missing(&error) => {
            }
            Err(source) => {
                return Err(StartError::Listen {
                    address: *address,
                    source,
                });
            }
        }
    }
    if listeners.is_empty() {
        Err(StartError::NoAddress)
    } else {
        Ok(listeners)
    }
}

/// Listens on an address; one that is taken is waited for, as a daemon that is dying may not have let go of it yet.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let end = Instant::now() + PATIENCE;
    loop {
        match http::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound,
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)
    )
}

/// Says that the daemon can answer: on standard output for who started it, on standard error for the log, and once
/// where both are the same.
pub(super) fn announce(addresses: &[SocketAddr], local: &Path) {
    let Some((first, others)) = addresses.split_first() else {
        return;
    };
    for address in others {
        report::info(format_args!("also at http://{address}"));
    }
    report::info(format_args!("also at {}", local.display()));
    let (stdout, stderr) = (io::stdout(), io::stderr());
    if !dirs::same_file(stdout.as_fd(), stderr.as_fd()) {
        // Nobody may read it.
        let _ = writeln!(stdout.lock(), "hxe: listening on http://{first}");
    }
    report::info(format_args!("listening on http://{first}"));
}
