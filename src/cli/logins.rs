//! Saved logins: a token a server, in a file that nobody else can read.
//!
//! One line each: server, token, when it was saved and when it ends, with tabs between. Written whole under another name and
//! then renamed, so that it is never half there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::failure::{Code, Failure};
use crate::client::Token;
use crate::clock::{self, Timestamp};

/// Bytes that are read.
const MAX_SIZE: u64 = 1024 * 1024;

/// A saved login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub server: String,
    pub token: String,
    /// By our clock, seconds since 1970.
    saved: i64,
    /// As the server says, RFC 3339.
    pub expires: String,
}

impl Login {
    /// Whether more than half of its time is over. Where the clocks of the two machines do not agree this is a guess, and
    /// costs at worst a request more or a login.
    pub fn is_ageing(&self) -> bool {
        let Some(expires) = clock::parse_timestamp(&self.expires) else {
            return false;
        };
        let (now, expires) = (Timestamp::now().as_secs(), expires.as_secs());
        now < self.saved || now - self.saved > (expires - self.saved) / 2
    }

    fn parse(line: &str) -> Option<Login> {
        let mut parts = line.split('\t');
        let mut next = || parts.next().map(str::to_owned);
        Some(Login {
            server: next()?,
            token: next()?,
            saved: next()?.parse().ok()?,
            expires: next()?,
        })
    }
}

/// All saved logins.
pub struct Logins {
    path: PathBuf,
    logins: Vec<Login>,
}

/// Whether there is a login for a server; where the file cannot be used, that is said later.
pub fn is_saved(server: &str) -> bool {
    match Logins::open() {
        Ok(Some(logins)) => logins.find(server).is_some(),
        Ok(None) => false,
        Err(_) => true,
    }
}

impl Logins {
    /// Reads them. `None`: there is no place for them, as neither `XDG_STATE_HOME` nor `HOME` is set.
    ///
    /// # Errors
    /// The file cannot be read, or others can read it.
    pub fn open() -> Result<Option<Logins>, Failure> {
        let Some(path) = path() else {
            return Ok(None);
        };
        let logins = read(&path).map_err(|error| failed("read", &path, &error))?;
        Ok(Some(Logins { path, logins }))
    }

    /// The login for a server.
    pub fn find(&self, server: &str) -> Option<Login> {
        let key = key(server);
        self.logins
            .iter()
            .find(|login| login.server == key)
            .cloned()
    }

    /// Saves a login in place of the one before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self, server: &str, token: &Token) -> Result<(), Failure> {
        let key = key(server);
        self.logins.retain(|login| login.server != key);
        self.logins.push(Login {
            server: key,
            token: token.token.clone(),
            saved: Timestamp::now().as_secs(),
            expires: token.expires_at.clone(),
        });
        self.write()
    }

    /// Forgets the login for a server.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&mut self, server: &str) -> Result<(), Failure> {
        let key = key(server);
        self.logins.retain(|login| login.server != key);
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        write(&self.path, &self.logins).map_err(|error| failed("written", &self.path, &error))
    }
}

/// What a server is saved under: its address without what makes no difference.
fn key(server: &str) -> String {
    let server = server.trim_end_matches('/');
    let server = server.strip_suffix("/api").unwrap_or(server);
    server
        .chars()
        .filter(|character| !character.is_control())
        .collect::<String>()
        .to_ascii_lowercase()
}

fn path() -> Option<PathBuf> {
    let directory = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state = directory("XDG_STATE_HOME");
    let state = state.or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    Some(state.join("hxe/logins"))
}

fn read(path: &Path) -> io::Result<Vec<Login>> {
    // One that is no file is not waited for.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(nonblocking).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other("others can read it: chmod 600 it"));
    }
    let mut text = String::new();
    file.take(MAX_SIZE).read_to_string(&mut text)?;
    Ok(text.lines().filter_map(Login::parse).collect())
}

fn write(path: &Path, logins: &[Login]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let text: String = logins
        .iter()
        .map(|login| {
            let Login {
                server,
                token,
                saved,
                expires,
            } = login;
            format!("{server}\t{token}\t{saved}\t{expires}\n")
        })
        .collect();
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            // The umask can only have taken away.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What was begun holds a token.
        let _ = fs::remove_file(&new);
    }
    written
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::Permission,
        _ => Code::General,
    };
    let path = path.display();
    Failure::new(
        code,
        format_args!("the saved logins in {path} cannot be {what}: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(server: &str, saved: i64, expires: &str) -> Login {
        Login {
            server: server.to_owned(),
            token: "t".to_owned(),
            saved,
            expires: expires.to_owned(),
        }
    }

    #[test]
    fn logins_are_kept_where_only_their_owner_can_read_them() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/logins");
        assert_eq!(read(&path).unwrap(), []);
        let logins = [login("http://a", 5, "2026-01-01T00:00:00Z")];
        write(&path, &logins).unwrap();
        write(&path, &logins).unwrap();
        assert_eq!(read(&path).unwrap(), logins);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path().join("a")).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_login_is_found_by_its_server_however_that_is_written_and_by_no_other() {
        for other in [
            "http://PI:80",
            "http://pi:80/",
            "http://pi:80/api",
            "http://pi:80/api/",
        ] {
            assert_eq!(key(other), "http://pi:80");
        }
        assert_ne!(key("http://pi:81"), key("http://pi:80"));
    }

    #[test]
    fn a_login_is_old_when_half_of_its_time_is_over() {
        let now = Timestamp::now();
        let at = |seconds: i64| {
            Timestamp::from_micros((now.as_secs() + seconds) * 1_000_000).to_seconds_string()
        };
        let saved = |ago: i64, until: i64| login("x", now.as_secs() - ago, &at(until)).is_ageing();
        assert!(!saved(0, 3600) && !saved(1700, 1900) && saved(1900, 1700));
        assert!(saved(-3600, 7200), "the clock was set back");
        assert!(!login("x", 0, "nonsense").is_ageing());
    }
}
