//! Where a daemon is asked: an address or a Unix socket, and how to get there.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::Error;

/// Bytes of the path of a Unix socket. Source: unix(7).
const MAX_SOCKET_PATH: usize = 107;

/// Where a daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp {
        /// Without brackets.
        host: String,
        port: u16,
        /// `host:port`, as the Host header has it.
        authority: String,
        /// What stands before `/api`; mostly nothing.
        prefix: String,
    },
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Place::Tcp {
                authority, prefix, ..
            } => write!(f, "http://{authority}{prefix}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Place {
    /// Reads `http://host:port`, `unix:/path` or `/path`.
    pub fn parse(text: &str) -> Result<Place, Error> {
        let invalid = |issue| Error::Invalid {
            what: format!("{text:?}"),
            issue,
        };
        if let Some(path) = text
            .strip_prefix("unix:")
            .or(text.starts_with('/').then_some(text))
        {
            return match path.starts_with('/') && !path.contains('\0') {
                true => Ok(Place::Unix(path.into())),
                false => Err(invalid("the path of a socket begins with /")),
            };
        }
        if text.starts_with("https://") {
            return Err(invalid(
                "hxe speaks no TLS: use http://, the socket, or a tunnel such as ssh -L",
            ));
        }
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| invalid("an address is http://HOST:PORT or unix:/PATH"))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['@', '?', '#', '\\'])
        {
            return Err(invalid(
                "an address is http://HOST:PORT, without user, query or spaces",
            ));
        }
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let prefix = prefix.trim_end_matches('/');
        let prefix = prefix
            .strip_suffix("/api/v1")
            .or(prefix.strip_suffix("/api"))
            .unwrap_or(prefix);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port {
            None | Some("") => 80,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| invalid("the port is a number from 1 to 65535"))?,
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(invalid(
                "an IPv6 address stands in brackets: http://[::1]:8080",
            ));
        }
        let host = bare.unwrap_or(host);
        if host.is_empty() {
            return Err(invalid("the host is missing"));
        }
        Ok(Place::Tcp {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    /// The Host header, and what stands before `/api`.
    pub fn host_and_prefix(&self) -> (&str, &str) {
        match self {
            Place::Tcp {
                authority, prefix, ..
            } => (authority, prefix),
            Place::Unix(_) => ("hxe", ""),
        }
    }

    /// Opens a connection.
    pub fn connect(&self, until: Instant) -> io::Result<OwnedFd> {
        match self {
            Place::Tcp { host, port, .. } => connect_tcp(host, *port, until),
            Place::Unix(path) => connect_unix(path, until),
        }
    }
}

/// Finds out whether a daemon listens at a socket, also one that does not get round to answer. Does not wait for it.
///
/// # Errors
/// There is no such socket, nobody listens there, or we may not connect.
pub fn listens(socket: &Path) -> io::Result<()> {
    match connect_unix(socket, Instant::now()) {
        // Others wait there already.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        connected => connected.map(drop),
    }
}

fn connect_tcp(host: &str, port: u16, until: Instant) -> io::Result<OwnedFd> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A daemon whose machine is gone does not keep who waits for it for ever.
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, std::time::Duration::from_secs(60))?;
                sockopt::set_tcp_keepintvl(&stream, std::time::Duration::from_secs(15))?;
                sockopt::set_tcp_keepcnt(&stream, 4)?;
                return Ok(stream.into());
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn connect_unix(path: &Path, until: Instant) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Also a socket whose backlog is full is waited for no longer than this. Source: socket(7), SO_SNDTIMEO.
    let left = until.saturating_duration_since(Instant::now());
    let left = left.max(std::time::Duration::from_millis(1));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left))?;
    let bytes = path.as_os_str().len();
    let connected = if bytes <= MAX_SOCKET_PATH {
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    } else {
        // Longer than an address of a socket: by way of its directory.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        rustix::net::connect(&socket, &SocketAddrUnix::new(short.join(name))?)
    };
    match connected {
        Ok(()) => Ok(socket),
        Err(rustix::io::Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> (String, u16, String, String) {
        match Place::parse(text).unwrap() {
            Place::Tcp {
                host,
                port,
                authority,
                prefix,
            } => (host, port, authority, prefix),
            other => panic!("{other:?}"),
        }
    }

    fn four(host: &str, port: u16, authority: &str, prefix: &str) -> (String, u16, String, String) {
        (host.into(), port, authority.into(), prefix.into())
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            (
                "http://localhost:8080",
                four("localhost", 8080, "localhost:8080", ""),
            ),
            (
                "http://localhost:8080/",
                four("localhost", 8080, "localhost:8080", ""),
            ),
            ("http://10.0.0.1", four("10.0.0.1", 80, "10.0.0.1", "")),
            ("http://[::1]:8080/api", four("::1", 8080, "[::1]:8080", "")),
            ("http://[::1]", four("::1", 80, "[::1]", "")),
            ("http://pi:8080/api/v1/", four("pi", 8080, "pi:8080", "")),
            ("http://pi/hxe/", four("pi", 80, "pi", "/hxe")),
        ] {
            assert_eq!(tcp(text), expected, "{text}");
        }
        for text in ["/run/hxe/hxe.sock", "unix:/run/hxe/hxe.sock"] {
            let place = Place::parse(text).unwrap();
            assert_eq!(place, Place::Unix("/run/hxe/hxe.sock".into()));
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in [
            "",
            "localhost:8080",
            "https://localhost",
            "http://",
            "http://:8080",
            "http://a:b",
            "http://a:0",
            "http://a:99999",
            "http://::1:8080",
            "http://me@a",
            "http://a b",
            "http://a\r\nX: y",
            "http://a?x",
            "unix:relative",
            "/a\0b",
        ] {
            let error = Place::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?}: ")), "{error}");
        }
    }
}
