//! What is said on a WebSocket, as JSON.

use serde::Serialize;

use super::message::Topic;
use crate::api::error::Field;
use crate::api::shapes::EntryShape;
use crate::clock::Timestamp;
use crate::logs::{Entry, Stream};
use crate::program::ProgramId;
use crate::supervise::{Event, Kind};

#[derive(Serialize)]
struct AuthOkShape {
    r#type: &'static str,
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct ErrorShape<'a> {
    r#type: &'static str,
    error: &'static str,
    message: &'static str,
    details: DetailsShape<'a>,
}

#[derive(Serialize)]
struct DetailsShape<'a> {
    field: &'a str,
    issue: &'a str,
}

#[derive(Serialize)]
struct EventShape<T> {
    r#type: &'static str,
    program_id: String,
    timestamp: String,
    data: T,
}

#[derive(Serialize)]
struct LifecycleShape<'a> {
    name: &'a str,
    status: &'static str,
    pid: Option<i32>,
    /// `Some(None)`: it ended, and nobody saw how.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<Option<i32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_signal: Option<String>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct DroppedShape<'a> {
    /// `None`: it was deleted meanwhile.
    name: Option<&'a str>,
    stream: &'static str,
    bytes: u64,
}

/// The answer to a good `auth`; `None`: it does not expire.
pub fn auth_ok(expires_at: Option<String>) -> String {
    text(&AuthOkShape {
        r#type: "auth.ok",
        expires_at,
    })
}

/// The answer to a message that is not understood.
pub fn error(at: &Field) -> String {
    text(&ErrorShape {
        r#type: "error",
        error: "validation_error",
        message: "Invalid message",
        details: DetailsShape {
            field: &at.field,
            issue: &at.issue,
        },
    })
}

pub const fn topic(kind: Kind) -> Topic {
    match kind {
        Kind::Started => Topic::Started,
        Kind::Stopped => Topic::Stopped,
        Kind::Restarted => Topic::Restarted,
        Kind::Error => Topic::Error,
    }
}

/// `program.started`, `.stopped`, `.restarted`, `.error`.
pub fn lifecycle(event: &Event) -> String {
    let signal = event.exit.and_then(|exit| exit.signal());
    text(&EventShape {
        r#type: topic(event.kind).name(),
        program_id: event.id.to_string(),
        timestamp: event.timestamp.to_string(),
        data: LifecycleShape {
            name: &event.name,
            status: event.kind.status().as_str(),
            pid: event.pid,
            exit_code: event.exit.map(|exit| exit.code()),
            exit_signal: signal.map(|signal| signal.to_string()),
            message: &event.message,
            reason: event.reason.map(|reason| reason.as_str()),
        },
    })
}

/// `log.new`.
pub fn entry(id: ProgramId, entry: &Entry) -> String {
    let data = EntryShape::from(entry);
    text(&EventShape {
        r#type: Topic::Log.name(),
        program_id: id.to_string(),
        timestamp: entry.timestamp.to_string(),
        data,
    })
}

/// `log.dropped`: rotation took these bytes away before they could be sent.
pub fn dropped(id: ProgramId, name: Option<&str>, stream: Stream, bytes: u64) -> String {
    text(&EventShape {
        r#type: "log.dropped",
        program_id: id.to_string(),
        timestamp: Timestamp::now().to_string(),
        data: DroppedShape {
            name,
            stream: stream.as_str(),
            bytes,
        },
    })
}

fn text(shape: &impl Serialize) -> String {
    // As in `reply::json`: our wire structs have string keys and nothing that refuses.
    serde_json::to_string(shape).expect("wire structs always serialize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootTime;
    use crate::logs::Level;
    use crate::program::Signal;
    use crate::supervise::{Exit, Origin};

    const AT: Timestamp = Timestamp::from_micros(1_735_689_600_123_456);

    fn event(kind: Kind) -> Event {
        Event {
            kind,
            id: ProgramId(1),
            name: "web".to_owned(),
            at: BootTime::default(),
            timestamp: AT,
            pid: None,
            exit: None,
            message: "Said \"so\"".to_owned(),
            reason: None,
        }
    }

    #[test]
    fn a_start_has_the_process_and_why() {
        let event = Event {
            pid: Some(7),
            reason: Some(Origin::Requested),
            ..event(Kind::Started)
        };
        assert_eq!(
            lifecycle(&event),
            r#"{"type":"program.started","program_id":"program-1","timestamp":"2025-01-01T00:00:00.123Z","data":{"name":"web","status":"running","pid":7,"message":"Said \"so\"","reason":"requested"}}"#
        );
    }

    #[test]
    fn an_end_has_what_is_known_of_it() {
        let data = |exit, kind, reason| {
            let event = Event {
                exit,
                reason,
                ..event(kind)
            };
            let text = lifecycle(&event);
            text.split_once(r#""data":"#).unwrap().1.to_owned()
        };
        assert_eq!(
            data(Some(Exit::Code(3)), Kind::Error, Some(Origin::Crash)),
            r#"{"name":"web","status":"error","pid":null,"exit_code":3,"message":"Said \"so\"","reason":"crash"}}"#
        );
        assert_eq!(
            data(Some(Exit::Signal(Signal::KILL)), Kind::Stopped, None),
            r#"{"name":"web","status":"stopped","pid":null,"exit_code":137,"exit_signal":"KILL","message":"Said \"so\""}}"#
        );
        assert_eq!(
            data(Some(Exit::Unknown), Kind::Error, None),
            r#"{"name":"web","status":"error","pid":null,"exit_code":null,"message":"Said \"so\""}}"#
        );
    }

    #[test]
    fn a_log_entry_is_as_in_rest() {
        let shown = entry(
            ProgramId(1),
            &Entry {
                timestamp: AT,
                level: Level::Info,
                stream: Stream::Stdout,
                message: "a\tb".to_owned(),
            },
        );
        assert_eq!(
            shown,
            r#"{"type":"log.new","program_id":"program-1","timestamp":"2025-01-01T00:00:00.123Z","data":{"timestamp":"2025-01-01T00:00:00.123Z","level":"info","message":"a\tb","stream":"stdout"}}"#
        );
    }

    #[test]
    fn what_was_dropped_is_told() {
        let shown = dropped(ProgramId(1), Some("web"), Stream::Stderr, 12);
        assert!(
            shown.starts_with(r#"{"type":"log.dropped","program_id":"program-1","timestamp":""#)
        );
        assert!(shown.ends_with(r#""data":{"name":"web","stream":"stderr","bytes":12}}"#));
        assert!(dropped(ProgramId(1), None, Stream::Stdout, 1).contains(r#""name":null"#));
    }

    #[test]
    fn answers_are_told_by_their_type() {
        assert_eq!(
            auth_ok(Some("2025-01-01T00:00:00Z".to_owned())),
            r#"{"type":"auth.ok","expires_at":"2025-01-01T00:00:00Z"}"#
        );
        assert_eq!(auth_ok(None), r#"{"type":"auth.ok","expires_at":null}"#);
        let at = Field {
            field: "events".into(),
            issue: "Must be \"so\"".to_owned(),
        };
        assert_eq!(
            error(&at),
            r#"{"type":"error","error":"validation_error","message":"Invalid message","details":{"field":"events","issue":"Must be \"so\""}}"#
        );
    }
}
