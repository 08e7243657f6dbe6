//! [`Environment`]: what a configuration depends on besides its file, as a value, so that tests can make it up.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::sys::users::{self, Accounts, LookupError};

use super::keys::KEYS;
use super::size;

/// The process that loads a configuration, and its machine.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Whether programs can run as other users.
    pub root: bool,
    /// The user of the process.
    pub user_name: String,
    pub variables: Vec<(OsString, OsString)>,
    /// Bytes that the kernel grants a pipe. Source: pipe(7), `fs.pipe-max-size`.
    pub pipe_max_size: u64,
    /// Reads the users and groups of the machine; called only if one must be looked up.
    pub accounts: fn() -> Result<Accounts, LookupError>,
}

/// A variable that sets a key, or would.
pub(super) struct Setting {
    pub(super) name: String,
    /// Refused as it is where it is not UTF-8.
    pub(super) value: Result<String, OsString>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Environment {
        let own = users::own();
        Environment {
            root: own.uid == 0,
            user_name: own.user_name,
            variables: std::env::vars_os().collect(),
            pipe_max_size: pipe_max_size(),
            accounts: Accounts::read,
        }
    }

    /// All variables that begin with `HXE_` and the name of a section; sorted, so that mistakes come in one order.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = self
            .variables
            .iter()
            .filter_map(|(name, value)| {
                let name = name.to_str()?;
                let of_a_section = |key: &super::keys::Key| {
                    name.strip_prefix("HXE_")
                        .and_then(|rest| rest.strip_prefix(&key.section.to_ascii_uppercase()))
                        .is_some_and(|rest| rest.starts_with('_'))
                };
                KEYS.iter().any(of_a_section).then(|| Setting {
                    name: name.to_owned(),
                    value: value.clone().into_string(),
                })
            })
            .collect();
        settings.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        settings
    }

    /// The file that is read when none is named; `None` where an ordinary user has neither `XDG_CONFIG_HOME` nor `HOME`.
    pub(super) fn config_path(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/etc/hxe/hxe.toml"));
        }
        let directory = self.directory("XDG_CONFIG_HOME");
        let home = || Some(self.directory("HOME")?.join(".config"));
        Some(directory.or_else(home)?.join("hxe/hxe.toml"))
    }

    /// An ordinary user's `state_dir`.
    pub(super) fn state_dir(&self) -> Option<PathBuf> {
        let directory = self.directory("XDG_STATE_HOME");
        let home = || Some(self.directory("HOME")?.join(".local/state"));
        Some(directory.or_else(home)?.join("hxe"))
    }

    /// An ordinary user's `run_dir`.
    pub(super) fn run_dir(&self, state_dir: &Path) -> PathBuf {
        match self.directory("XDG_RUNTIME_DIR") {
            Some(directory) => directory.join("hxe"),
            None => state_dir.join("run"),
        }
    }

    /// The path in a variable. A relative one counts as unset. Source: XDG Base Directory Specification.
    fn directory(&self, variable: &str) -> Option<PathBuf> {
        self.variables
            .iter()
            .find(|(name, _)| name == variable)
            .map(|(_, value)| PathBuf::from(value))
            .filter(|path| path.is_absolute())
    }
}

/// What the kernel says, or its own default.
fn pipe_max_size() -> u64 {
    std::fs::read_to_string("/proc/sys/fs/pipe-max-size")
        .ok()
        .and_then(|text| size::parse(&text))
        .unwrap_or(1 << 20)
}
