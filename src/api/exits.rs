//! `/api/program/{id}/exits`: how the last runs of a program ended, and what they said last.
//!
//! Read from the run record and from the log when somebody asks, on the lane of searches; nothing is kept in memory.

use std::sync::Arc;

use serde::Serialize;

use super::error::{ApiError, Cause};
use super::{Api, Call, Outcome, reply};
use crate::http::Peer;
use crate::supervise::{By, Ended, Via};
use crate::sys::users;

#[derive(Serialize)]
struct ExitsShape {
    program_id: String,
    exits: Vec<ExitShape>,
}

#[derive(Serialize)]
struct ExitShape {
    number: u32,
    reason: &'static str,
    message: String,
    by: Option<ByShape>,
    exit_code: Option<i32>,
    exit_signal: Option<String>,
    pid: Option<i32>,
    start_time: Option<String>,
    end_time: String,
    /// Seconds.
    run_time: Option<f64>,
    cpu_seconds: Option<f64>,
    max_memory_bytes: Option<u64>,
    output: Option<String>,
}

#[derive(Serialize)]
struct ByShape {
    user: Option<String>,
    via: &'static str,
}

/// `GET /program/{id}/exits`: newest first.
pub fn get(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let id = api.program(&call)?.program.id;
    let supervisor = Arc::clone(&api.supervisor);
    let full = ApiError::Busy("Too many searches of logs are waiting: try again".into());
    Ok(Outcome::on_lane(&api.searches, full, move || {
        let failed = |error| match supervisor.find(&id.to_string()) {
            Some(_) => ApiError::Internal(Cause::Logs(error)),
            // Deleted meanwhile.
            None => ApiError::no_program(id.to_string()),
        };
        let ended = supervisor.ended(id).map_err(failed)?;
        let shape = ExitsShape {
            program_id: id.to_string(),
            exits: ended.into_iter().map(ExitShape::from).collect(),
        };
        Ok(reply::json(200, &shape))
    }))
}

impl From<Ended> for ExitShape {
    fn from(ended: Ended) -> ExitShape {
        let Ended {
            number,
            end,
            output,
        } = ended;
        let exit = end.exit;
        ExitShape {
            number,
            reason: end.reason.as_str(),
            message: end.message(),
            by: end.by.as_ref().map(|by| ByShape {
                user: Some(by.user.clone()).filter(|user| !user.is_empty()),
                via: by.via.as_str(),
            }),
            exit_code: exit.and_then(|exit| exit.code()),
            exit_signal: exit
                .and_then(|exit| exit.signal())
                .map(|signal| signal.to_string()),
            pid: end.pid,
            start_time: end.started.map(|(_, start)| start.to_string()),
            end_time: end.ended.1.to_string(),
            run_time: end.started.map(|(began, _)| {
                let millis = end.ended.0.since(began).as_millis();
                millis as f64 / 1000.0
            }),
            cpu_seconds: end.usage.map(|usage| usage.cpu_micros as f64 / 1e6),
            max_memory_bytes: end
                .usage
                .and_then(|usage| usage.max_rss_kib)
                .map(|kib| kib * 1024),
            output,
        }
    }
}

impl Call {
    /// Who asks.
    pub(super) fn by(&self) -> By {
        let user = match (&self.session, &self.head.peer) {
            (Some(session), _) => session.claims.sub.clone(),
            (None, Peer::Unix(peer)) => {
                let uid = peer.uid.to_string();
                let known = users::lookup(&uid, None).map(|user| user.user_name);
                known.unwrap_or_else(|_| format!("uid {uid}"))
            }
            // Nobody gets so far.
            (None, Peer::Tcp(_)) => String::new(),
        };
        let agent = self.head.header("user-agent").unwrap_or_default();
        let via = match agent.starts_with("hxe/") {
            true => Via::Hxe,
            false => Via::Api,
        };
        By { user, via }
    }
}
