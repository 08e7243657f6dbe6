//! [`ApiError`]: everything that is answered instead of a result. How it is answered is in `answer`.

mod answer;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use crate::http::{NotWebSocket, Problem};
use crate::program::Invalid;
use crate::store;
use crate::supervise::Refusal;

/// One variant for each way not to answer with a result.
#[derive(Debug)]
pub enum ApiError {
    /// 400 `validation_error`, "Invalid request body".
    Body(Field),
    /// 503: bounded work is at its bound, or the daemon is stopping. The sentence is fit for the client.
    Busy(Cow<'static, str>),
    /// 409: another program has that name.
    Conflict {
        name: String,
        /// The file that declares that program.
        file: Option<String>,
    },
    /// 400: mistakes in hxe.toml or in files that declare programs, one a line.
    Configuration(String),
    /// 409: only this file changes the program.
    Declared(Arc<str>),
    /// 507.
    Disk(io::Error),
    /// 403: may not run as that user or group.
    Forbidden(Invalid),
    /// 403: a page from there may not open a WebSocket.
    ForeignOrigin {
        origin: String,
    },
    Internal(Cause),
    /// 401: user name or password is wrong.
    InvalidCredentials,
    /// 401: there is a token, but it is not good.
    InvalidToken,
    /// 400 `invalid_state`: running already, or not running.
    InvalidState(String),
    /// 405, with the methods that the path has.
    MethodNotAllowed {
        allow: String,
    },
    /// 421: the Host header does not name this machine.
    Misdirected {
        host: String,
    },
    NotFound {
        resource: &'static str,
        id: String,
    },
    /// 426 or 400: no WebSocket was asked for, or not as it should be.
    NotWebSocket(NotWebSocket),
    /// The request could not be read; `max_body` is the limit that a 413 names.
    Problem {
        problem: Problem,
        max_body: usize,
    },
    /// 400 `validation_error`, "Invalid query parameter".
    Query(Field),
    /// 429; `retry_after` in seconds.
    RateLimited {
        retry_after: u64,
    },
    /// 400 `start_failed`: the failed step, and the system's reason.
    StartFailed(String),
    /// 401: there is no token.
    Unauthenticated,
}

/// A part of the input, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub field: Cow<'static, str>,
    pub issue: String,
}

/// What went wrong on our side; for the daemon's log only.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("the password hash cannot be used: {0}")]
    Hash(bcrypt::BcryptError),
    #[error("the log cannot be read")]
    Logs(#[source] io::Error),
    #[error("/proc cannot be read")]
    Metrics(#[source] io::Error),
    #[error("a handler panicked or gave no answer")]
    NoAnswer,
    #[error("the kernel gave no random numbers")]
    Random(#[source] io::Error),
    #[error("the store failed")]
    Store(#[source] store::Error),
}

impl ApiError {
    /// A mistake in the request's body.
    pub fn body(field: impl Into<Cow<'static, str>>, issue: impl Into<String>) -> ApiError {
        ApiError::Body(Field {
            field: field.into(),
            issue: issue.into(),
        })
    }

    /// A mistake in the query.
    pub fn query(field: impl Into<Cow<'static, str>>, issue: impl Into<String>) -> ApiError {
        ApiError::Query(Field {
            field: field.into(),
            issue: issue.into(),
        })
    }

    /// No program has this id or name.
    pub fn no_program(id: impl Into<String>) -> ApiError {
        ApiError::NotFound {
            resource: "program",
            id: id.into(),
        }
    }

    /// What a refusal means to the client that asked for the program `id`.
    pub fn refused(refusal: Refusal, id: impl Into<String>) -> ApiError {
        match refusal {
            Refusal::AlreadyRunning
            | Refusal::NotRunning
            | Refusal::NotSignalled(..)
            | Refusal::Superseded
            | Refusal::WillNotEnd(_) => ApiError::InvalidState(refusal.to_string()),
            Refusal::StartFailed(reason) => ApiError::StartFailed(reason),
            Refusal::Declared(file) => ApiError::Declared(file),
            Refusal::Misdeclared(_) => ApiError::Configuration(refusal.to_string()),
            Refusal::NotFound => ApiError::no_program(id),
            Refusal::Invalid(invalid) => invalid.into(),
            Refusal::Forbidden(invalid) => ApiError::Forbidden(invalid),
            Refusal::Store(error) => error.into(),
            Refusal::Busy(reason) => ApiError::Busy(sentence(reason).into()),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> ApiError {
        ApiError::body(invalid.field, sentence(&invalid.issue))
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> ApiError {
        match error {
            store::Error::NameTaken { name, file } => ApiError::Conflict { name, file },
            store::Error::NotFound { id } => ApiError::no_program(id.to_string()),
            store::Error::Disk(cause) => ApiError::Disk(cause),
            store::Error::Database(_) | store::Error::Locked | store::Error::Refused { .. } => {
                ApiError::Internal(Cause::Store(error))
            }
        }
    }
}

/// The text with a capital at its beginning: messages of the API are sentences.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
