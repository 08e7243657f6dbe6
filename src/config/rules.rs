//! Rules between keys, and between keys and the machine.

use std::path::Path;

use crate::sys::users::LookupError;

use super::load::Loading;
use super::{Config, Mistake, kind, size};

impl Loading<'_> {
    /// Checks what no key can know alone. A key that was refused is still empty, and nothing more is said of it.
    pub(super) fn check(&mut self) {
        self.check_exposure();
        self.check_directories();
        let most = self.environment.pipe_max_size;
        if self.config.logs.pipe_size as u64 > most {
            let what = format!(
                "{} is more than fs.pipe-max-size of this machine: it must be at most {}",
                size::format(self.config.logs.pipe_size as u64),
                size::format(most)
            );
            self.mistake("logs", "pipe_size", &what);
        }
        self.check_user();
        self.check_socket_group();
    }

    fn check_exposure(&mut self) {
        // Who was just told of a mistake in a password need not be told that none is set.
        let mentioned = |mistake: &Mistake| mistake.to_string().contains("password");
        if self.mistakes.iter().any(mentioned) {
            return;
        }
        if let Some(what) = exposed(&self.config) {
            self.mistake("api", "listen", &what);
        }
    }

    fn check_directories(&mut self) {
        let storage = &self.config.storage;
        let same = |a: &Path, b: &Path| a == b && !a.as_os_str().is_empty();
        let (state, run, log) = (&storage.state_dir, &storage.run_dir, &storage.log_dir);
        let twice = if same(run, state) || same(run, log) {
            Some("run_dir")
        } else {
            same(log, state).then_some("log_dir")
        };
        if let Some(name) = twice {
            let what = "is the same as another directory of hxe's own: state_dir, run_dir and log_dir must differ";
            self.mistake("storage", name, what);
        }
    }

    /// As root, the user of programs that name none must exist and not be root. A machine without `nobody` can still run
    /// programs that do name one.
    fn check_user(&mut self) {
        let user = &self.config.programs.user;
        if !self.environment.root || user.is_empty() {
            return;
        }
        let found = (self.environment.accounts)().and_then(|accounts| accounts.lookup(user, None));
        match found {
            Ok(identity) if identity.uid == 0 => {
                let what = format!(
                    "{} is root: name an ordinary user; a program that must run as root says so itself",
                    kind::show(user)
                );
                self.mistake("programs", "user", &what);
            }
            Ok(_) => {}
            Err(error) if self.is_given("programs", "user") => {
                self.mistake("programs", "user", &explain(&error));
            }
            Err(error) => self.warnings.push(format!(
                "[programs] user: {}: a program can start only if it names a user, or if one is named here",
                explain(&error)
            )),
        }
    }

    fn check_socket_group(&mut self) {
        let group = &self.config.socket_group;
        if group.is_empty() {
            return;
        }
        let found = (self.environment.accounts)().and_then(|accounts| accounts.group(group));
        match found {
            Ok(group) => self.config.api.socket_group = Some(group),
            Err(error) => self.mistake("api", "socket_group", &explain(&error)),
        }
    }
}

/// What is wrong if anybody on the network could log in with the default password.
pub(super) fn exposed(config: &Config) -> Option<String> {
    if !config.default_password() {
        return None;
    }
    let reachable = config
        .listen
        .iter()
        .find(|address| !address.ip().to_canonical().is_loopback())?;
    Some(format!(
        "{reachable} can be reached from other machines, which is refused with the default password: set [api] password \
         or password_hash (or HXE_API_PASSWORD), or listen on 127.0.0.1 only"
    ))
}

/// The error with its cause, in one line.
fn explain(error: &LookupError) -> String {
    match error {
        LookupError::Unreadable { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}
