//! Reading the configuration again, hxe.toml and the files that declare programs: all of it holds, or nothing does.
//!
//! Runs on the API's lane for reloads, one at a time, as stopping what is gone can take long.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::local::LocalSocket;
use super::{beginning, causes, reloading, supervision};
use crate::api::{Api, Reloaded};
use crate::config::{Config, Environment};
use crate::guardian::Link;
use crate::http::Server;
use crate::logs::Logs;
use crate::report;
use crate::supervise::{By, Change, Pending, Refusal, Supervisor};
use crate::sys;

/// What a reload reaches.
pub(super) struct Reloader {
    pub config: Mutex<Config>,
    pub config_path: Option<PathBuf>,
    pub supervisor: Arc<Supervisor>,
    pub logs: Arc<Logs>,
    pub api: Arc<Api>,
    pub server: Server,
    pub local: Mutex<LocalSocket>,
    pub link: Arc<Link>,
}

impl Reloader {
    /// Reads everything again, and carries out what has changed.
    ///
    /// # Errors
    /// `Misdeclared` with every mistake there is, and nothing is changed; `Store` if the disk does not take it; `Busy`
    /// while the daemon ends.
    pub fn reload(&self, by: By) -> Result<Reloaded, Refusal> {
        self.link.notify(&reloading());
        let result = self.apply(by);
        match &result {
            // The end has been announced already.
            Err(Refusal::Busy(_)) => return result,
            Err(refusal) => {
                for line in refusal.to_string().lines() {
                    report::error(format_args!("{line}"));
                }
                if let Refusal::Misdeclared(mistakes) = refusal {
                    self.api.set_mistakes(mistakes.clone());
                }
                report::error(format_args!("the configuration stays as it was"));
            }
            Ok(reloaded) => {
                self.api.set_mistakes(Vec::new());
                tell(reloaded);
            }
        }
        self.link.notify("READY=1");
        result
    }

    /// Has everything read again in turn, as a signal wants it. Where many wait, one of them will see it.
    pub fn ask(self: &Arc<Self>) {
        let reloader = Arc::clone(self);
        self.api.in_turn(move || drop(reloader.reload(By::SIGNAL)));
    }

    /// Has the Unix socket made anew in turn, where its directory was taken away.
    pub fn renew(self: &Arc<Self>) {
        let reloader = Arc::clone(self);
        self.api.in_turn(move || {
            let group = reloader.config().api.socket_group;
            reloader.renew_local(group);
        });
    }

    /// Removes what the files no longer declare, and restarts what a daemon that died did not come to.
    pub fn finish_start(self: &Arc<Self>, pending: Pending) {
        let pending = pending.without_starts();
        if pending.is_settled() {
            return;
        }
        let reloader = Arc::clone(self);
        self.api.in_turn(move || {
            if let Ok(programs) = reloader.supervisor.carry_out(pending, None) {
                programs.all().for_each(tell_of);
            }
        });
    }

    /// Takes the Unix socket away, as the daemon ends.
    pub fn remove_local(&self) {
        let local = self.local();
        if let Err(error) = local.remove() {
            let path = local.path.display();
            report::warn(format_args!("{path} cannot be removed: {error}"));
        }
    }

    /// Lets this group use the Unix socket, and makes it anew where somebody has taken its file away.
    fn renew_local(&self, group: Option<u32>) {
        let mut local = self.local();
        let renewed = local.renew(group, &self.link);
        let served = renewed.and_then(|listener| match listener {
            Some(listener) => self.server.replace_unix(listener).map(|()| true),
            None => Ok(false),
        });
        let path = local.path.display();
        match served {
            Ok(true) => report::warn(format_args!("{path} was gone: it is there again")),
            Ok(false) => {}
            Err(error) => report::error(format_args!(
                "{path} cannot be served as it should be: {}",
                sys::reason(&error)
            )),
        }
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, LocalSocket> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, by: By) -> Result<Reloaded, Refusal> {
        let mut config = self.config();
        let (mut new, restart_required) = config
            .reload(self.config_path.as_deref(), &Environment::of_process())
            .map_err(|error| Refusal::Misdeclared(error.lines()))?;
        let settings = supervision(&new);
        let pending = self.supervisor.declare(new.declared(), &settings, true)?;
        // From here on it is done; what the disk does not take stays as it was.
        let refused = self.api.set(new.api.clone()).err();
        if let Some(error) = &refused {
            report::error(format_args!("[api] stays as it was: {}", causes(error)));
            new.api.clone_from(&config.api);
        }
        self.server.set_limits(new.limits);
        self.renew_local(new.api.socket_group);
        self.logs.set(new.logs.clone());
        self.supervisor.set(settings);
        if refused.is_none() {
            beginning::keep(&mut new, false, &self.link);
        }
        *config = new;
        let programs = self.supervisor.carry_out(pending, Some(by))?;
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(Reloaded {
                programs,
                restart_required,
            }),
        }
    }
}

/// Names keys that have changed and do not hold yet.
pub(super) fn tell_of_restart(keys: &[&str]) {
    for key in keys {
        report::warn(format_args!(
            "{key} has changed: it holds once hxe has been stopped and started"
        ));
    }
}

fn tell(reloaded: &Reloaded) {
    tell_of_restart(&reloaded.restart_required);
    reloaded.programs.all().for_each(tell_of);
    report::info(format_args!("the configuration has been read again"));
}

fn tell_of(change: &Change) {
    let Change {
        id,
        name,
        action,
        message,
    } = change;
    match message {
        None => report::info(format_args!("{id} ({name}): {action}")),
        Some(message) => report::warn(format_args!("{id} ({name}): {action}: {message}")),
    }
}
