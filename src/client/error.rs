//! What can go wrong with a request, by what the caller can do about it.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::wire::{integer, text};

/// Why there is no answer, or none that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address, the token or the path of the socket is none. Nothing was sent.
    #[error("{what}: {issue}")]
    Invalid { what: String, issue: &'static str },
    /// Nobody answers there, or we may not ask. Nothing was sent.
    #[error("cannot connect to {place}: {source}")]
    CannotConnect { place: String, source: io::Error },
    /// 401: no token, or one that is no longer good; or wrong credentials.
    #[error("{0}")]
    Unauthorized(Box<Refusal>),
    /// 403: what nobody may do, or not this peer.
    #[error("{0}")]
    Forbidden(Box<Refusal>),
    /// 404: no such program; or, from an older daemon, no such path.
    #[error("{0}")]
    NotFound(Box<Refusal>),
    /// 409: another program has that name, or this one is declared in a file.
    #[error("{0}")]
    Conflict(Box<Refusal>),
    /// 400 `invalid_state`: running already, or not running.
    #[error("{0}")]
    InvalidState(Box<Refusal>),
    /// Any other refusal: a field that is wrong, a start that failed, too many requests, an error of the daemon's own.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No whole answer came in time. A change may have been made, or may still be.
    #[error("no answer within {}", crate::clock::format_duration(*.0))]
    Timeout(Duration),
    /// The connection broke before the answer was there. A change may have been made.
    #[error("the connection was lost before the answer was there: {0}")]
    Lost(#[source] io::Error),
    /// What came is no answer of an hxe daemon.
    #[error("that is no answer of an hxe daemon: {0}")]
    Protocol(&'static str),
    /// The daemon closed the stream of events, with a code of RFC 6455 7.4 or hxe-api(7).
    #[error("the daemon closed the connection: {reason} ({code})")]
    Closed { code: u16, reason: String },
}

impl Error {
    /// What the daemon said, if it is the daemon that refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Unauthorized(refusal)
            | Error::Forbidden(refusal)
            | Error::NotFound(refusal)
            | Error::Conflict(refusal)
            | Error::InvalidState(refusal)
            | Error::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The error that an answer of this status is, with what its body says.
    pub(super) fn of_answer(status: u16, body: &[u8]) -> Error {
        let refusal = Box::new(Refusal::read(status, body));
        match status {
            401 => Error::Unauthorized(refusal),
            403 => Error::Forbidden(refusal),
            404 => Error::NotFound(refusal),
            409 => Error::Conflict(refusal),
            400 if refusal.code == "invalid_state" => Error::InvalidState(refusal),
            _ => Error::Refused(refusal),
        }
    }
}

/// What the daemon says when it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: u16,
    /// `validation_error`, `not_found` and the like; empty where the answer is not the daemon's, but that of a proxy.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Which field or query key is wrong.
    pub field: Option<String>,
    /// What is wrong with it.
    pub issue: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<i64>,
    /// Under which the daemon's log has the cause.
    pub request_id: Option<String>,
}

impl Refusal {
    fn read(status: u16, body: &[u8]) -> Refusal {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = match json["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!("the answer has status {status} and is not that of an hxe daemon"),
        };
        Refusal {
            status,
            code: text(&json["error"]),
            message,
            field: json["details"]["field"].as_str().map(str::to_owned),
            issue: json["details"]["issue"].as_str().map(str::to_owned),
            retry_after: integer(&json["retry_after"]),
            request_id: json["request_id"].as_str().map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if let (Some(field), Some(issue)) = (&self.field, &self.issue) {
            write!(f, ": {field}: {issue}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " ({id})")?;
        }
        Ok(())
    }
}
