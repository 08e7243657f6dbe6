//! `POST /api/reload`: the configuration is read again, hxe.toml and the files that declare programs.
//!
//! The daemon knows how; here is when: one at a time, and off the threads that serve requests.

use std::sync::{Arc, PoisonError};

use serde::{Serialize, Serializer};

use super::error::ApiError;
use super::{Api, Call, Outcome, reply};
use crate::supervise::{self, By, Change, Refusal};

/// What a reload did.
#[derive(Debug)]
pub struct Reloaded {
    pub programs: supervise::Reloaded,
    /// Keys of hxe.toml that have changed and hold from the next start on.
    pub restart_required: Vec<&'static str>,
}

/// Reads everything again, for whoever asks.
pub type Reload = dyn Fn(By) -> Result<Reloaded, Refusal> + Send + Sync;

#[derive(Serialize)]
struct ReloadedShape<'a> {
    added: Changes<'a>,
    changed: Changes<'a>,
    removed: Changes<'a>,
    unchanged: usize,
    restart_required: &'a [&'static str],
    message: &'static str,
}

#[derive(Serialize)]
struct ChangeShape<'a> {
    id: &'a str,
    name: &'a str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

struct Changes<'a>(&'a [Change]);

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|change| ChangeShape {
            id: &change.id,
            name: &change.name,
            action: change.action,
            message: change.message.as_deref(),
        }))
    }
}

impl Api {
    /// Says how everything is read again; once, before the first request.
    pub fn reload_by(&self, reload: Arc<Reload>) {
        let _ = self.reload.set(reload);
    }

    /// Takes what is wrong with the configuration on disk, for who asks later.
    pub fn set_mistakes(&self, mistakes: Vec<String>) {
        *self.mistakes.lock().unwrap_or_else(PoisonError::into_inner) = mistakes;
    }

    pub(super) fn mistakes(&self) -> Vec<String> {
        let mistakes = self.mistakes.lock();
        mistakes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does `work` when reloads that were asked for before are done; `false` if too many of them wait.
    pub fn in_turn(&self, work: impl FnOnce() + Send + 'static) -> bool {
        self.reloads.run((), move |()| work()).is_ok()
    }
}

/// `POST /reload`.
pub fn reload(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let busy = |why: &'static str| ApiError::Busy(why.into());
    let reload = api.reload.get().map(Arc::clone);
    let reload = reload.ok_or_else(|| busy("The daemon is starting: try again"))?;
    let full = busy("Too many reloads are waiting: try again");
    let by = call.by();
    Ok(Outcome::on_lane(&api.reloads, full, move || {
        let reloaded = reload(by).map_err(|refusal| ApiError::refused(refusal, String::new()))?;
        let programs = &reloaded.programs;
        let shape = ReloadedShape {
            added: Changes(&programs.added),
            changed: Changes(&programs.changed),
            removed: Changes(&programs.removed),
            unchanged: programs.unchanged,
            restart_required: &reloaded.restart_required,
            message: "Configuration reloaded successfully",
        };
        Ok(reply::json(200, &shape))
    }))
}
