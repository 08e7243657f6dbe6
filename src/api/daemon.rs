//! `/api/daemon`: which hxe serves, and how its last upgrade went.

use serde::Serialize;

use super::error::ApiError;
use super::{Api, Call, Outcome, reply};
use crate::guardian::{self, Progress};

#[derive(Serialize)]
struct DaemonShape<'a> {
    version: &'a str,
    /// The process to send signals to.
    pid: i32,
    /// The one that serves: the same without a guardian.
    server_pid: i32,
    /// Since when it serves.
    start_time: String,
    upgrade: Option<UpgradeShape>,
    /// What is wrong with the configuration on disk, as it was read last; the daemon goes on with the one before.
    mistakes: &'a [String],
}

#[derive(Serialize)]
struct UpgradeShape {
    number: u32,
    state: &'static str,
    reason: Option<String>,
}

impl From<guardian::Outcome> for UpgradeShape {
    fn from(outcome: guardian::Outcome) -> UpgradeShape {
        let (state, reason) = match outcome.progress {
            Progress::UnderWay => ("under_way", None),
            Progress::Done => ("done", None),
            Progress::GivenUp(reason) => ("given_up", Some(reason)),
        };
        UpgradeShape {
            number: outcome.number,
            state,
            reason,
        }
    }
}

/// `GET /daemon`.
pub fn get(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let mistakes = api.mistakes();
    let shape = DaemonShape {
        version: env!("CARGO_PKG_VERSION"),
        pid: api.link.main_pid().number(),
        server_pid: std::process::id().cast_signed(),
        start_time: api.start_time.to_seconds_string(),
        upgrade: api.link.upgrade().map(UpgradeShape::from),
        mistakes: &mistakes,
    };
    Ok(reply::json(200, &shape).into())
}
