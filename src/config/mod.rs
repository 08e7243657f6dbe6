//! `hxe.toml` and the environment, parsed into a [`Config`]: every default and range is here, nowhere else.
//!
//! One table (`keys`) says of each key how it is read, what it may be and what it is when nobody says; the file, the
//! environment and the checks all follow it. Reads files, never writes one. Called by `cli`, and by `daemon` at a reload.

mod checks;
mod declared;
mod document;
mod environment;
mod error;
mod keys;
mod kind;
mod load;
mod nearest;
mod rules;
mod size;

pub use declared::matching;
pub use environment::Environment;
pub use error::{Error, Mistake};
pub(crate) use nearest::nearest;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::{api, http, logs, program, report};

use error::Origin;

/// The password of a fresh installation; with it hxe listens on loopback addresses only.
const DEFAULT_PASSWORD: &str = "password";

/// The whole configuration, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Never empty, no address twice. Where the machine has no IPv6, `[::1]` may be left out.
    pub listen: Vec<SocketAddr>,
    pub limits: http::Limits,
    /// A group that may use `run_dir/hxe.sock`, too; empty: none.
    pub socket_group: String,
    pub api: api::Settings,
    pub storage: Storage,
    pub logs: logs::Settings,
    pub programs: program::Defaults,
    /// A pattern of `*` and `?`, absolute, that finds the files of declared programs; empty: none.
    pub include: String,
    /// The file that was read; `None`: there was none.
    pub source: Option<PathBuf>,
    /// What was in that file.
    pub text: String,
}

/// `[storage]`: three absolute paths, no two the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
}

impl Config {
    /// Reads the configuration: `path`, or where that is `None` the usual file, which need not exist; over it, the
    /// `HXE_...` variables. What is allowed but unwise goes to `report`.
    ///
    /// # Errors
    /// Every mistake that there is, not only the first.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Config, Error> {
        let (config, warnings) = load::read(path, environment)?;
        for warning in warnings {
            report::warn(format_args!("{warning}"));
        }
        Ok(config)
    }

    /// As [`Config::load`], without a word on what is unwise: for who only wants to know where the daemon is.
    ///
    /// # Errors
    /// As for that.
    pub fn peek(path: Option<&Path>, environment: &Environment) -> Result<Config, Error> {
        load::read(path, environment).map(|(config, _)| config)
    }

    /// Reads the configuration anew for a daemon that runs with `self`: keys that need a restart keep the values that
    /// they have, and those of them that would have changed are named.
    ///
    /// # Errors
    /// As [`Config::load`], and where the default password came back while another address than loopback is listened on.
    pub fn reload(
        &self,
        path: Option<&Path>,
        environment: &Environment,
    ) -> Result<(Config, Vec<&'static str>), Error> {
        let mut config = Config::load(path, environment)?;
        let changed = config.hold_restart_keys(self);
        match rules::exposed(&config) {
            Some(what) => Err(Error::Mistakes(vec![Mistake::new(
                &Origin::Default,
                None,
                "[api] password",
                &what,
            )])),
            None => Ok((config, changed)),
        }
    }

    /// What this text said in place of the file at `path` when it was read, and what is wrong with it by now: a group that is
    /// gone, for example. Such a key is as if it were not set.
    pub fn of_text(
        path: Option<&Path>,
        text: &str,
        environment: &Environment,
    ) -> (Config, Vec<String>) {
        let (config, mistakes) = load::of_text(path, text, environment);
        (config, mistakes.iter().map(Mistake::to_string).collect())
    }

    /// Takes the keys that need a restart from the `earlier` one, and names those that would have changed.
    pub fn hold_restart_keys(&mut self, earlier: &Config) -> Vec<&'static str> {
        let changed = earlier.restart_keys_changed(self);
        self.listen.clone_from(&earlier.listen);
        self.limits.workers = earlier.limits.workers;
        self.storage.clone_from(&earlier.storage);
        changed
    }

    /// Names the keys that differ in `other` and hold only after a restart.
    pub fn restart_keys_changed(&self, other: &Config) -> Vec<&'static str> {
        let (ours, theirs) = (&self.storage, &other.storage);
        [
            ("[api] listen", self.listen != other.listen),
            ("[api] workers", self.limits.workers != other.limits.workers),
            ("[storage] state_dir", ours.state_dir != theirs.state_dir),
            ("[storage] run_dir", ours.run_dir != theirs.run_dir),
            ("[storage] log_dir", ours.log_dir != theirs.log_dir),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }

    /// Whether nobody has set a password yet.
    pub fn default_password(&self) -> bool {
        matches!(&self.api.password, api::Password::Plain(password) if password == DEFAULT_PASSWORD)
    }

    /// What the keys are put into; each of them has a default or sets nothing.
    fn unset() -> Config {
        use std::time::Duration;
        Config {
            listen: Vec::new(),
            limits: http::Limits {
                workers: 0,
                max_connections: 0,
                max_streams: 0,
                request_timeout: Duration::ZERO,
                max_body: 0,
            },
            socket_group: String::new(),
            api: api::Settings {
                hosts: Vec::new(),
                username: String::new(),
                password: api::Password::Plain(String::new()),
                token_lifetime: Duration::ZERO,
                rate_limit: 0,
                rate_limit_window: Duration::ZERO,
                cors_origins: Vec::new(),
                max_body: 0,
                socket_group: None,
                metrics_token: api::Secret::default(),
                dashboard: false,
            },
            storage: Storage {
                state_dir: PathBuf::new(),
                run_dir: PathBuf::new(),
                log_dir: PathBuf::new(),
            },
            logs: logs::Settings {
                max_size: 0,
                max_files: 0,
                pipe_size: 0,
                on_full: logs::OnFull::Drop,
                disk: program::LogDisk::All,
                ring_size: 0,
            },
            programs: program::Defaults {
                user: String::new(),
                directory: String::new(),
                stop_timeout: Duration::ZERO,
                restart_delay: Duration::ZERO,
                max_restarts: program::MaxRestarts::AtMost(0),
            },
            include: String::new(),
            source: None,
            text: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
