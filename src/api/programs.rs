//! `/api/program`: list, get, create, update, delete, enable, disable.

use std::sync::Arc;

use serde::Serialize;

use super::error::ApiError;
use super::query::Query;
use super::shapes::ProgramShape;
use super::{Api, Call, Message, Outcome, definition, reply};
use crate::supervise::{Snapshot, Status};

/// Programs in a list where `limit` says nothing.
const DEFAULT_LIMIT: usize = 100;

#[derive(Serialize)]
struct EnabledShape<'a> {
    id: String,
    enabled: bool,
    message: &'a str,
}

/// `GET /program`: `status`, `enabled`, `limit`, `offset`; in order of id.
pub fn list(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    let query = call.query(&["status", "enabled", "limit", "offset"])?;
    let filter = Filter::parse(&query)?;
    let snapshots = api.supervisor.list();
    let shapes: Vec<ProgramShape> = filter.apply(&snapshots).map(ProgramShape::from).collect();
    Ok(reply::json(200, &shapes).into())
}

/// Which programs are wanted.
struct Filter {
    status: Option<Status>,
    enabled: Option<bool>,
    limit: usize,
    offset: usize,
}

impl Filter {
    fn parse(query: &Query) -> Result<Filter, ApiError> {
        let status =
            match query.get("status") {
                None => None,
                Some(text) => Some(status(text).ok_or_else(|| {
                    ApiError::query("status", "Must be running, stopped or error")
                })?),
            };
        Ok(Filter {
            status,
            enabled: query.flag("enabled")?,
            limit: query.count("limit")?.unwrap_or(DEFAULT_LIMIT),
            offset: query.count("offset")?.unwrap_or(0),
        })
    }

    fn apply<'a>(&self, all: &'a [Arc<Snapshot>]) -> impl Iterator<Item = &'a Snapshot> {
        let (status, enabled) = (self.status, self.enabled);
        all.iter()
            .map(Arc::as_ref)
            .filter(move |program| status.is_none_or(|status| program.phase.status() == status))
            .filter(move |program| {
                enabled.is_none_or(|enabled| program.program.definition.enabled == enabled)
            })
            .skip(self.offset)
            .take(self.limit)
    }
}

fn status(text: &str) -> Option<Status> {
    [Status::Running, Status::Stopped, Status::Error]
        .into_iter()
        .find(|status| status.as_str() == text)
}

/// `GET /program/{id}`.
pub fn get(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let snapshot = api.program(&call)?;
    Ok(reply::json(200, &ProgramShape::from(&*snapshot)).into())
}

/// `POST /program`: adds one, stopped.
pub fn create(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let definition = definition::parse(&call.body, None)?;
    let snapshot = api
        .supervisor
        .create(definition)
        .map_err(|refusal| ApiError::refused(refusal, String::new()))?;
    Ok(reply::json(201, &ProgramShape::from(&*snapshot)).into())
}

/// `PUT /program/{id}`: replaces the whole definition.
pub fn update(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let id = api.program(&call)?.program.id;
    let definition = definition::parse(&call.body, Some(id))?;
    let snapshot = api
        .supervisor
        .update(id, definition)
        .map_err(|refusal| ApiError::refused(refusal, id.to_string()))?;
    Ok(reply::json(200, &ProgramShape::from(&*snapshot)).into())
}

/// `DELETE /program/{id}`: stops it first; answers when it is gone.
pub fn delete(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let id = api.program(&call)?.program.id;
    let by = call.by();
    let supervisor = Arc::clone(&api.supervisor);
    Ok(Outcome::later(move |responder| {
        let caller = Box::new(move |result| {
            responder.respond(match result {
                Ok(()) => {
                    let message = "Program deleted successfully";
                    reply::json(200, &Message { message })
                }
                Err(refusal) => ApiError::refused(refusal, id.to_string()).reply(),
            });
        });
        supervisor.delete(id, by, caller);
    }))
}

/// `POST /program/{id}/enable`: it starts with the daemon.
pub fn enable(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    set_enabled(api, &call, true)
}

/// `POST /program/{id}/disable`: it does not.
pub fn disable(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    set_enabled(api, &call, false)
}

fn set_enabled(api: &Api, call: &Call, enabled: bool) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    let id = api.program(call)?.program.id;
    let snapshot = api
        .supervisor
        .set_enabled(id, enabled)
        .map_err(|refusal| ApiError::refused(refusal, id.to_string()))?;
    let shape = EnabledShape {
        id: id.to_string(),
        enabled: snapshot.program.definition.enabled,
        message: match enabled {
            true => "Autostart enabled successfully",
            false => "Autostart disabled successfully",
        },
    };
    Ok(reply::json(200, &shape).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shapes::tests::snapshot;
    use crate::program::Definition;
    use crate::supervise::Phase;

    /// Programs 1 to 4: running and enabled, stopped, backoff and enabled, exited.
    fn all() -> Vec<Arc<Snapshot>> {
        let phases = [
            Phase::Running,
            Phase::Stopped,
            Phase::Backoff,
            Phase::Exited,
        ];
        let mut all = Vec::new();
        for (number, phase) in (1..).zip(phases) {
            let mut one = snapshot(number, "x");
            one.phase = phase;
            let mut program = (*one.program).clone();
            program.definition = Definition::new("x", "x");
            program.definition.enabled = number % 2 == 1;
            one.program = Arc::new(program);
            all.push(Arc::new(one));
        }
        all
    }

    fn listed(query: &str) -> Result<Vec<u32>, ApiError> {
        let known = ["status", "enabled", "limit", "offset"];
        let filter = Filter::parse(&Query::parse(Some(query), &known)?)?;
        let all = all();
        Ok(filter.apply(&all).map(|one| one.program.id.0).collect())
    }

    #[test]
    fn filters_and_pages_work_together() {
        for (query, expected) in [
            ("", &[1, 2, 3, 4][..]),
            ("status=running", &[1]),
            ("status=stopped", &[2, 4]),
            ("status=error", &[3]),
            ("enabled=true", &[1, 3]),
            ("enabled=false&status=stopped&limit=1", &[2]),
            ("status=stopped&offset=1", &[4]),
            ("limit=0", &[]),
            ("limit=2&offset=1", &[2, 3]),
            ("offset=99999999999999999999999", &[]),
            ("limit=99999999999999999999999", &[1, 2, 3, 4]),
        ] {
            assert_eq!(listed(query).unwrap(), expected, "{query}");
        }
    }

    #[test]
    fn a_wrong_filter_is_refused() {
        for query in [
            "status=backoff",
            "status=",
            "status=Running",
            "enabled=1",
            "limit=-1",
            "offset=x",
            "state=running",
            "limit=1&limit=2",
        ] {
            assert!(matches!(listed(query), Err(ApiError::Query(_))), "{query}");
        }
    }
}
