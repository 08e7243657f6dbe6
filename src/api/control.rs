//! `/api/program/{id}/start`, `stop`, `restart`, `signal`: the right to answer goes to the program's watcher.

use std::sync::Arc;

use serde::Serialize;

use super::body::Fields;
use super::error::ApiError;
use super::{Api, Call, Outcome, reply, shapes};
use crate::http::Reply;
use crate::program::Signal;
use crate::supervise::{Command, Done, LeftBehind};

#[derive(Serialize)]
struct StartedShape<'a> {
    id: String,
    status: &'static str,
    pid: Option<i32>,
    start_time: Option<String>,
    message: &'a str,
}

#[derive(Serialize)]
struct StoppedShape<'a> {
    id: String,
    status: &'static str,
    pid: Option<i32>,
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_behind: Vec<LeftBehindShape<'a>>,
    message: &'a str,
}

#[derive(Serialize)]
struct SignalledShape<'a> {
    id: String,
    status: &'static str,
    pid: Option<i32>,
    message: &'a str,
}

#[derive(Serialize)]
struct LeftBehindShape<'a> {
    pid: i32,
    name: &'a str,
}

impl<'a> From<&'a LeftBehind> for LeftBehindShape<'a> {
    fn from(process: &'a LeftBehind) -> LeftBehindShape<'a> {
        LeftBehindShape {
            pid: process.pid,
            name: &process.name,
        }
    }
}

/// `POST /program/{id}/start`.
pub fn start(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    send(api, &call, Command::Start, |done| {
        started(done, "Program started successfully")
    })
}

/// `POST /program/{id}/restart`.
pub fn restart(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    send(api, &call, Command::Restart, |done| {
        started(done, "Program restarted successfully")
    })
}

/// `POST /program/{id}/stop`: `force=true` kills at once.
pub fn stop(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    let force = call.query(&["force"])?.flag("force")?.unwrap_or_default();
    send(api, &call, Command::Stop { force }, stopped)
}

/// `POST /program/{id}/signal`: `{"signal": "HUP"}`, a name or a number as a string; to the process itself.
pub fn signal(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    call.query(&[])?;
    // First who, then what: an unknown program is a 404 whatever the body.
    api.program(&call)?;
    let name = Fields::parse(&call.body, &["signal"])?.required("signal", "Signal")?;
    let signal = name
        .parse::<Signal>()
        .map_err(|error| ApiError::body("signal", format!("{name:?} is {error}")))?;
    send(api, &call, Command::Signal(signal), move |done| {
        let snapshot = &done.snapshot;
        let shape = SignalledShape {
            id: snapshot.program.id.to_string(),
            status: snapshot.phase.status().as_str(),
            pid: snapshot.pid,
            message: &format!("Signal {signal} sent successfully"),
        };
        reply::json(200, &shape)
    })
}

fn send(
    api: &Api,
    call: &Call,
    command: Command,
    answer: impl FnOnce(&Done) -> Reply + Send + 'static,
) -> Result<Outcome, ApiError> {
    let id = api.program(call)?.program.id;
    let by = call.by();
    let supervisor = Arc::clone(&api.supervisor);
    Ok(Outcome::later(move |responder| {
        let caller = Box::new(move |result| {
            responder.respond(match result {
                Ok(done) => answer(&done),
                Err(refusal) => ApiError::refused(refusal, id.to_string()).reply(),
            });
        });
        supervisor.send(id, command, by, caller);
    }))
}

fn started(done: &Done, message: &str) -> Reply {
    let snapshot = &done.snapshot;
    let shape = StartedShape {
        id: snapshot.program.id.to_string(),
        status: snapshot.phase.status().as_str(),
        pid: snapshot.pid,
        start_time: shapes::start_time(snapshot),
        message,
    };
    reply::json(200, &shape)
}

fn stopped(done: &Done) -> Reply {
    let snapshot = &done.snapshot;
    let shape = StoppedShape {
        id: snapshot.program.id.to_string(),
        status: snapshot.phase.status().as_str(),
        pid: snapshot.pid,
        exit_code: snapshot.exit.and_then(|exit| exit.code()),
        left_behind: done.left_behind.iter().map(Into::into).collect(),
        message: "Program stopped successfully",
    };
    reply::json(200, &shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reply::body_text;
    use crate::api::shapes::tests::snapshot;
    use crate::clock::Timestamp;
    use crate::supervise::{Exit, Phase};

    #[test]
    fn a_start_is_answered_as_in_the_reference() {
        let mut running = snapshot(1, "x");
        running.phase = Phase::Running;
        running.pid = Some(12345);
        running.start_time = Some(Timestamp::from_micros(1_735_689_600_000_000));
        let done = Done {
            snapshot: Arc::new(running),
            left_behind: Vec::new(),
        };
        assert_eq!(
            body_text(&started(&done, "Program started successfully")),
            r#"{"id":"program-1","status":"running","pid":12345,"start_time":"2025-01-01T00:00:00Z","message":"Program started successfully"}"#
        );
    }

    #[test]
    fn a_stop_is_answered_as_in_the_reference() {
        let mut ended = snapshot(1, "x");
        ended.exit = Some(Exit::Code(0));
        let mut done = Done {
            snapshot: Arc::new(ended),
            left_behind: Vec::new(),
        };
        assert_eq!(
            body_text(&stopped(&done)),
            r#"{"id":"program-1","status":"stopped","pid":null,"exit_code":0,"message":"Program stopped successfully"}"#
        );
        done.left_behind.push(LeftBehind {
            pid: 7,
            name: "sleep".to_owned(),
        });
        assert!(body_text(&stopped(&done)).contains(r#""left_behind":[{"pid":7,"name":"sleep"}]"#));
    }
}
