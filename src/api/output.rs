//! `GET /api/program/{id}/output`: what a program writes to stdout or stderr, byte for byte, until its run is over.
//!
//! Unlike one who follows the log, who reads this misses nothing: the program waits for it. Called by `routes`.

use std::io;
use std::sync::Arc;

use super::error::{ApiError, Cause};
use super::follow::{Flow, Following};
use super::{Api, Call, Outcome};
use crate::http::Problem;
use crate::logs::{Got, Level, Logs, Output, Stream};
use crate::program::ProgramId;
use crate::report;
use crate::supervise::{Listener, Phase, Supervisor};
use crate::sys::bell::Bell;

/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// `GET /program/{id}/output`: `stream` (`stdout`, the default, or `stderr`), `from` (bytes to
/// pass over, or `end`).
pub fn get(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    let query = call.query(&["stream", "from"])?;
    let stream = match query.get("stream") {
        None | Some("stdout") => Stream::Stdout,
        Some("stderr") => Stream::Stderr,
        Some(_) => return Err(ApiError::query("stream", "Must be stdout or stderr")),
    };
    let from = match query.get("from") {
        Some("end") => None,
        _ => Some(query.count("from")?.unwrap_or(0) as u64),
    };
    let id = api.program(&call)?.program.id;
    let bell = Bell::new().map_err(|error| {
        report::warn(format_args!("the output of {id} cannot be read: {error}"));
        let max_body = api.settings().max_body;
        let problem = Problem::NoRoom;
        ApiError::Problem { problem, max_body }
    })?;
    let bell = Arc::new(bell);
    let output = api
        .logs
        .output(id, stream, from, Arc::clone(&bell))
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                ApiError::InvalidState("Where that is in the output is no longer known".into())
            }
            _ => ApiError::Internal(Cause::Logs(error)),
        })?;
    let run = Run {
        id,
        stream,
        output,
        events: api.supervisor.listen(Arc::clone(&bell)),
        supervisor: Arc::clone(&api.supervisor),
        logs: Arc::clone(&api.logs),
    };
    let session = call.session;
    let following = Following {
        flow: Box::new(run),
        bell,
        content_type: "application/octet-stream",
        session: session.map(|session| (Arc::clone(&api.sessions), session)),
        unsent: Vec::new(),
    };
    Ok(following.reply().into())
}

/// What a program writes, as long as it runs or is to be started again, or has not been started yet.
struct Run {
    id: ProgramId,
    stream: Stream,
    output: Output,
    /// Rings the bell when the run ends.
    events: Listener,
    supervisor: Arc<Supervisor>,
    logs: Arc<Logs>,
}

impl Flow for Run {
    fn is_over(&mut self) -> bool {
        while self.events.pop().is_some() {}
        let snapshot = self.supervisor.find(&self.id.to_string());
        self.output.is_removed()
            || snapshot.is_none_or(|snapshot| {
                let is_down = snapshot.pid.is_none() && snapshot.phase != Phase::Backoff;
                is_down && snapshot.started_at.is_some() && !self.output.is_unfinished()
            })
    }

    fn gather(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            match self.output.read(&mut piece, PIECE_BYTES)? {
                Got::Bytes => {}
                Got::Nothing => break,
                Got::Missed(bytes) => {
                    return Err(io::Error::other(format!("{bytes} bytes are missing")));
                }
            }
        }
        Ok(piece)
    }

    fn give_up(&self, error: &io::Error) -> Option<Vec<u8>> {
        let stream = self.stream.as_str();
        let text = format!("Reading {stream} along was given up: {error}");
        self.logs.note(self.id, Level::Warn, &text);
        report::warn(format_args!("{}: {text}", self.id));
        None
    }
}
