//! An [`ApiError`] as an answer: status, headers and shape, mapped here and nowhere else.
//!
//! Causes never reach the client: what is our fault is answered with a request id, and the cause goes to the daemon's
//! log under that id.

use std::borrow::Cow;
use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

use super::{ApiError, sentence};
use crate::api::reply;
use crate::clock::BootTime;
use crate::http::{NotWebSocket, Problem, Reply};
use crate::report;

/// How long a client should wait that met a bound, in seconds.
const BUSY_RETRY: u64 = 1;

impl ApiError {
    /// The answer. What is our fault gets a request id, and goes to the daemon's log.
    pub fn reply(self) -> Reply {
        let (status, code, message) = self.parts();
        let mut shape = Shape {
            error: code,
            message: &message,
            details: self.details(),
            resource: None,
            id: None,
            retry_after: None,
            request_id: None,
        };
        let mut headers = Vec::new();
        match &self {
            ApiError::InvalidCredentials | ApiError::Unauthenticated => {
                headers.push(("WWW-Authenticate", "Bearer".to_owned()));
            }
            ApiError::InvalidToken => {
                let challenge = "Bearer error=\"invalid_token\"";
                headers.push(("WWW-Authenticate", challenge.to_owned()));
            }
            ApiError::MethodNotAllowed { allow } => headers.push(("Allow", allow.clone())),
            ApiError::NotWebSocket(NotWebSocket::NotAsked) => {
                headers.push(("Upgrade", "websocket".to_owned()))
            }
            ApiError::NotWebSocket(NotWebSocket::Version) => {
                headers.push(("Upgrade", "websocket".to_owned()));
                headers.push(("Sec-WebSocket-Version", "13".to_owned()));
            }
            ApiError::NotFound { resource, id } => {
                shape.resource = Some(resource);
                shape.id = Some(id);
            }
            ApiError::RateLimited { retry_after } => {
                headers.push(("Retry-After", retry_after.to_string()));
                shape.retry_after = Some(*retry_after);
            }
            ApiError::Busy(_)
            | ApiError::Problem {
                problem:
                    Problem::NoRoom
                    | Problem::Overloaded
                    | Problem::TooManyFeeds
                    | Problem::TooManyWebSockets,
                ..
            } => headers.push(("Retry-After", BUSY_RETRY.to_string())),
            _ => {}
        }
        if status >= 500 {
            let id = request_id();
            self.log(&id);
            headers.push(("X-Request-Id", id.clone()));
            shape.request_id = Some(id);
        }
        let mut reply = reply::json(status, &shape);
        reply.headers.extend(headers);
        reply
    }

    /// Status, code and message.
    fn parts(&self) -> (u16, &'static str, Cow<'static, str>) {
        match self {
            ApiError::Body(_) => (400, "validation_error", "Invalid request body".into()),
            ApiError::Query(_) => (400, "validation_error", "Invalid query parameter".into()),
            ApiError::InvalidState(message) => (400, "invalid_state", message.clone().into()),
            ApiError::StartFailed(reason) => {
                let message = format!("Program could not be started: {reason}");
                (400, "start_failed", message.into())
            }
            ApiError::InvalidCredentials => {
                (401, "authentication_error", "Invalid credentials".into())
            }
            ApiError::InvalidToken => (
                401,
                "authentication_error",
                "Invalid or expired token".into(),
            ),
            ApiError::Unauthenticated => (
                401,
                "authentication_error",
                "Authentication required".into(),
            ),
            ApiError::Forbidden(_) | ApiError::ForeignOrigin { .. } => {
                (403, "forbidden", "Permission denied".into())
            }
            ApiError::NotFound { resource, .. } => {
                let message = format!("{} not found", sentence(resource));
                (404, "not_found", message.into())
            }
            ApiError::MethodNotAllowed { .. } => {
                (405, "method_not_allowed", "Method not allowed".into())
            }
            ApiError::Conflict { .. } => (
                409,
                "conflict",
                "Program with same name already exists".into(),
            ),
            ApiError::Configuration(_) => (
                400,
                "validation_error",
                "Invalid configuration: nothing was changed".into(),
            ),
            ApiError::Declared(file) => {
                let message = format!("Program is declared in {file}: change or remove it there, and reload");
                (409, "conflict", message.into())
            }
            ApiError::Misdirected { host } => {
                let message = format!(
                    "This machine is not known as {host:?}: use its address or host name, or add the name to [api] hosts in hxe.toml"
                );
                (421, "misdirected_request", message.into())
            }
            ApiError::NotWebSocket(NotWebSocket::Malformed(reason)) => {
                let message = format!("No WebSocket can be opened: {reason}");
                (400, "bad_request", message.into())
            }
            ApiError::NotWebSocket(NotWebSocket::NotAsked) => (
                426,
                "upgrade_required",
                "This path is for WebSockets: ask with GET, Connection: Upgrade and Upgrade: websocket".into(),
            ),
            ApiError::NotWebSocket(NotWebSocket::Version) => (
                426,
                "upgrade_required",
                "Only version 13 of WebSocket is spoken here: send Sec-WebSocket-Version: 13".into(),
            ),
            ApiError::RateLimited { .. } => {
                (429, "rate_limit_exceeded", "Rate limit exceeded".into())
            }
            ApiError::Internal(_) => (500, "internal_error", "Internal server error".into()),
            ApiError::Busy(message) => (503, "service_unavailable", message.clone()),
            ApiError::Disk(_) => (
                507,
                "insufficient_storage",
                "The disk is full or cannot be written: nothing was changed".into(),
            ),
            ApiError::Problem { problem, max_body } => problem_parts(*problem, *max_body),
        }
    }

    fn details(&self) -> Option<Details<'_>> {
        let (field, issue) = match self {
            ApiError::Body(at) | ApiError::Query(at) => {
                (at.field.as_ref(), at.issue.as_str().into())
            }
            ApiError::Forbidden(invalid) => (invalid.field, invalid.issue.as_str().into()),
            ApiError::ForeignOrigin { origin } => {
                let issue = format!(
                    "{origin:?} is neither an address of this daemon nor listed in [api] cors_origins"
                );
                ("Origin", issue.into())
            }
            ApiError::Conflict { name, file } => {
                let file = file.as_ref();
                let place = file.map_or(String::new(), |file| format!(", declared in {file}"));
                let issue = format!(
                    "{name:?} is the name of another program{place}: choose a different one"
                );
                ("name", issue.into())
            }
            ApiError::Configuration(mistakes) => ("configuration", mistakes.as_str().into()),
            ApiError::Declared(file) => ("declared", file.as_ref().into()),
            _ => return None,
        };
        Some(Details { field, issue })
    }

    fn log(&self, request_id: &str) {
        match self {
            ApiError::Internal(cause) => {
                report::error(format_args!("{request_id}: {}", chain(cause)))
            }
            ApiError::Disk(cause) => report::warn(format_args!(
                "{request_id}: a change was refused, as the disk did not take it: {}",
                chain(cause)
            )),
            other => report::warn(format_args!("{request_id}: refused: {}", other.parts().2)),
        }
    }
}

fn problem_parts(problem: Problem, max_body: usize) -> (u16, &'static str, Cow<'static, str>) {
    match problem {
        Problem::Malformed(message) => (400, "bad_request", sentence(message).into()),
        Problem::Timeout => (
            408,
            "request_timeout",
            "The request was not complete in time".into(),
        ),
        Problem::LengthRequired => (
            411,
            "length_required",
            "Send the body with a Content-Length: Transfer-Encoding is not accepted".into(),
        ),
        Problem::BodyTooLarge => {
            let message = format!(
                "The body is larger than {max_body} bytes, the limit set by [api] max_body"
            );
            (413, "payload_too_large", message.into())
        }
        Problem::HeadTooLarge => (
            431,
            "header_too_large",
            "The request line and the headers are too long or too many".into(),
        ),
        Problem::NoRoom => (
            503,
            "service_unavailable",
            "The system has no thread or no descriptor for one more stream: try again later".into(),
        ),
        Problem::TooManyFeeds => (
            503,
            "service_unavailable",
            "As many logs are followed as [api] max_streams allows: end one, or raise it".into(),
        ),
        Problem::TooManyWebSockets => (
            503,
            "service_unavailable",
            "As many WebSockets are open as [api] max_streams allows: close one, or raise it"
                .into(),
        ),
        Problem::Overloaded => (
            503,
            "service_unavailable",
            "Too many connections wait for their answers: try again".into(),
        ),
        Problem::Version => (
            505,
            "http_version_not_supported",
            "Only HTTP/1.1 and HTTP/1.0 are spoken here".into(),
        ),
    }
}

/// The reference's error shapes, all in one.
#[derive(Serialize)]
struct Shape<'a> {
    error: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Serialize)]
struct Details<'a> {
    field: &'a str,
    issue: Cow<'a, str>,
}

/// An id for one answer, unique in this run of the daemon; later runs of a boot begin with a later time.
fn request_id() -> String {
    static RUN: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let run = RUN.get_or_init(|| BootTime::now().as_micros() / 1000);
    format!("req-{run}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::*;
    use crate::api::reply::body_text;
    use crate::program::{Invalid, ProgramId};
    use crate::store;
    use crate::supervise::Refusal;
    use std::io;

    fn check(error: ApiError, status: u16, body: &str) {
        let reply = error.reply();
        assert_eq!((reply.status, body_text(&reply).as_str()), (status, body));
    }

    fn header(reply: &Reply, name: &str) -> Option<String> {
        let found = reply.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    }

    #[test]
    fn the_four_shapes_are_those_of_the_reference() {
        check(
            ApiError::body("name", "Name is required"),
            400,
            r#"{"error":"validation_error","message":"Invalid request body","details":{"field":"name","issue":"Name is required"}}"#,
        );
        check(
            ApiError::InvalidToken,
            401,
            r#"{"error":"authentication_error","message":"Invalid or expired token"}"#,
        );
        check(
            ApiError::no_program("program-1"),
            404,
            r#"{"error":"not_found","message":"Program not found","resource":"program","id":"program-1"}"#,
        );
        check(
            ApiError::RateLimited { retry_after: 60 },
            429,
            r#"{"error":"rate_limit_exceeded","message":"Rate limit exceeded","retry_after":60}"#,
        );
    }

    #[test]
    fn an_internal_error_shows_its_id_and_never_its_cause() {
        let reply = ApiError::Internal(Cause::Logs(io::Error::other("secret cause"))).reply();
        let id = header(&reply, "X-Request-Id").unwrap();
        assert!(id.starts_with("req-"));
        assert_eq!(
            body_text(&reply),
            format!(
                r#"{{"error":"internal_error","message":"Internal server error","request_id":"{id}"}}"#
            )
        );
    }

    #[test]
    fn every_answer_of_500_and_above_has_an_id_of_its_own() {
        let all = [
            ApiError::Internal(Cause::NoAnswer),
            ApiError::Busy("The daemon is stopping".into()),
            ApiError::Disk(io::Error::from(io::ErrorKind::StorageFull)),
            ApiError::Problem {
                problem: Problem::Version,
                max_body: 0,
            },
        ];
        let mut ids: Vec<_> = all
            .into_iter()
            .map(|error| header(&error.reply(), "X-Request-Id").unwrap())
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn refusals_have_the_reference_s_status() {
        let refused = |refusal| {
            let reply = ApiError::refused(refusal, "web").reply();
            (reply.status, body_text(&reply))
        };
        let (status, body) = refused(Refusal::AlreadyRunning);
        assert_eq!(status, 400);
        assert_eq!(
            body,
            r#"{"error":"invalid_state","message":"Program already running"}"#
        );
        assert!(
            refused(Refusal::NotRunning)
                .1
                .contains("Program not running")
        );
        let (status, body) = refused(Refusal::StartFailed("executing /x: no such file".into()));
        assert_eq!(status, 400);
        assert_eq!(
            body,
            r#"{"error":"start_failed","message":"Program could not be started: executing /x: no such file"}"#
        );
        let invalid = Invalid::new("user", "there is no user \"x\"");
        let (status, body) = refused(Refusal::Invalid(invalid));
        assert_eq!(status, 400);
        assert!(body.contains(r#""field":"user","issue":"There is no user \"x\"""#));
        let (status, body) = refused(Refusal::Forbidden(Invalid::new("user", "Not as root")));
        assert_eq!(status, 403);
        assert!(body.contains(r#""details":{"field":"user","issue":"Not as root"}"#));
        let taken = store::Error::NameTaken {
            name: "web".into(),
            file: None,
        };
        let (status, body) = refused(Refusal::Store(taken));
        assert_eq!(status, 409);
        assert!(body.starts_with(
            r#"{"error":"conflict","message":"Program with same name already exists","details":{"field":"name""#
        ));
        let gone = store::Error::NotFound { id: ProgramId(3) };
        assert_eq!(refused(Refusal::Store(gone)).0, 404);
        let (status, body) = refused(Refusal::Busy("the daemon is stopping"));
        assert_eq!(status, 503);
        assert!(body.contains(r#""message":"The daemon is stopping""#));
    }

    #[test]
    fn what_a_client_needs_to_go_on_is_in_the_headers() {
        let busy = ApiError::Busy("x".into()).reply();
        assert_eq!(header(&busy, "Retry-After").unwrap(), "1");
        let limited = ApiError::RateLimited { retry_after: 7 }.reply();
        assert_eq!(header(&limited, "Retry-After").unwrap(), "7");
        let allow = "GET, HEAD, OPTIONS".to_owned();
        let method = ApiError::MethodNotAllowed { allow }.reply();
        assert_eq!(header(&method, "Allow").unwrap(), "GET, HEAD, OPTIONS");
        let login = ApiError::Unauthenticated.reply();
        assert_eq!(header(&login, "WWW-Authenticate").unwrap(), "Bearer");
    }

    #[test]
    fn what_does_not_become_a_websocket_is_told_why() {
        let refused = |why| ApiError::NotWebSocket(why).reply();
        let plain = refused(NotWebSocket::NotAsked);
        assert_eq!(plain.status, 426);
        assert_eq!(header(&plain, "Upgrade").unwrap(), "websocket");
        let old = refused(NotWebSocket::Version);
        assert_eq!(old.status, 426);
        assert_eq!(header(&old, "Upgrade").unwrap(), "websocket");
        assert_eq!(header(&old, "Sec-WebSocket-Version").unwrap(), "13");
        check(
            ApiError::NotWebSocket(NotWebSocket::Malformed("Connection does not list Upgrade")),
            400,
            r#"{"error":"bad_request","message":"No WebSocket can be opened: Connection does not list Upgrade"}"#,
        );
        check(
            ApiError::ForeignOrigin {
                origin: "null".into(),
            },
            403,
            r#"{"error":"forbidden","message":"Permission denied","details":{"field":"Origin","issue":"\"null\" is neither an address of this daemon nor listed in [api] cors_origins"}}"#,
        );
    }

    #[test]
    fn problems_of_the_wire_have_their_status() {
        let status = |problem| {
            ApiError::Problem {
                problem,
                max_body: 65_536,
            }
            .reply()
            .status
        };
        assert_eq!(
            status(Problem::Malformed("two Content-Length headers")),
            400
        );
        assert_eq!(status(Problem::Timeout), 408);
        assert_eq!(status(Problem::LengthRequired), 411);
        assert_eq!(status(Problem::BodyTooLarge), 413);
        assert_eq!(status(Problem::HeadTooLarge), 431);
        assert_eq!(status(Problem::Version), 505);
    }

    #[test]
    fn an_unknown_host_is_told_the_key_that_would_admit_it() {
        let host = "evil\"example".to_owned();
        let reply = ApiError::Misdirected { host }.reply();
        assert_eq!(reply.status, 421);
        assert!(body_text(&reply).contains("[api] hosts"));
    }
}
