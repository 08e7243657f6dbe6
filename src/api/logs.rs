//! `/api/program/{id}/logs`: found on a lane, then produced piece by piece as the client reads. Where they are followed,
//! `follow` goes on.

use std::io;
use std::sync::Arc;

use super::error::{ApiError, Cause};
use super::follow::{Entries, Following};
use super::query::Query;
use super::shapes::EntryShape;
use super::{Api, Call, Outcome};
use crate::http::{self, Body, Problem, Reply};
use crate::logs::{self, Entry, Level};
use crate::report;
use crate::sys::bell::Bell;

/// Lines where `lines` says nothing.
const DEFAULT_LINES: usize = 100;
const MAX_LINES: usize = 10_000;
/// A piece of the body is sent when it has this many bytes.
const PIECE_BYTES: usize = 32 * 1024;

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// `timestamp level message` lines.
    Text,
    /// A JSON object a line.
    Lines,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Text => "text/plain; charset=utf-8",
            Format::Lines => "application/x-ndjson",
        }
    }

    /// Appends an entry; with its line end, where it is a line.
    pub fn push(self, out: &mut Vec<u8>, entry: &Entry) -> io::Result<()> {
        match self {
            Format::Text => {
                let timestamp = entry.timestamp.to_string();
                let level = entry.level.as_str();
                for part in [&timestamp, " ", level, " ", &entry.message, "\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            Format::Json | Format::Lines => {
                serde_json::to_writer(&mut *out, &EntryShape::from(entry))?;
                if self == Format::Lines {
                    out.push(b'\n');
                }
            }
        }
        Ok(())
    }
}

/// `GET /program/{id}/logs`: `lines`, `level`, `follow`.
pub fn get(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    let query = call.query(&["lines", "follow", "level"])?;
    let follow = query.flag("follow")?.unwrap_or_default();
    let query = parse(&query)?;
    let id = api.program(&call)?.program.id;
    let format = format(call.head.header("accept"), follow);
    let logs = Arc::clone(&api.logs);
    let supervisor = Arc::clone(&api.supervisor);
    let full = ApiError::Busy("Too many searches of logs are waiting: try again".into());
    let sessions = Arc::clone(&api.sessions);
    let max_body = api.settings().max_body;
    Ok(Outcome::on_lane(&api.searches, full, move || {
        let found = if follow {
            let bell = Bell::new().map_err(|error| {
                report::warn(format_args!("the log of {id} cannot be followed: {error}"));
                let problem = Problem::NoRoom;
                ApiError::Problem { problem, max_body }
            })?;
            let bell = Arc::new(bell);
            let follower = logs.follow(id, &query, Arc::clone(&bell));
            follower.map(|follower| {
                let following = Following {
                    flow: Box::new(Entries {
                        id,
                        follower,
                        format,
                    }),
                    bell,
                    content_type: format.content_type(),
                    session: call.session.map(|session| (sessions, session)),
                    unsent: Vec::new(),
                };
                following.reply()
            })
        } else {
            logs.last(id, &query).and_then(|last| {
                let held_bytes = last.held_bytes();
                reply(last, held_bytes, &id.to_string(), format)
            })
        };
        found.map_err(|error| match supervisor.find(&id.to_string()) {
            Some(_) => ApiError::Internal(Cause::Logs(error)),
            // Deleted meanwhile, and its logs with it.
            None => ApiError::no_program(id.to_string()),
        })
    }))
}

fn parse(query: &Query) -> Result<logs::Query, ApiError> {
    let lines = query.count("lines")?.unwrap_or(DEFAULT_LINES);
    if lines > MAX_LINES {
        let issue = format!("Must be at most {MAX_LINES}");
        return Err(ApiError::query("lines", issue));
    }
    let mut levels = Vec::new();
    for name in query.get("level").iter().flat_map(|names| names.split(',')) {
        let level = Level::from_name(name.trim()).ok_or_else(|| {
            let issue =
                "Must be debug, info, warn or error, or several of them with commas between";
            ApiError::query("level", issue)
        })?;
        if !levels.contains(&level) {
            levels.push(level);
        }
    }
    Ok(logs::Query { lines, levels })
}

/// The format that is preferred: the highest weight counts, then what comes first. What is followed has no end, so who asks
/// for JSON gets lines of it then; so does who asks for anything, or nothing. Source: RFC 9110 12.5.1.
fn format(accept: Option<&str>, follow: bool) -> Format {
    let json = match follow {
        true => Format::Lines,
        false => Format::Json,
    };
    let kinds = [
        ("text/plain", Format::Text),
        ("text/*", Format::Text),
        ("application/x-ndjson", Format::Lines),
        ("application/json", json),
        ("application/*", json),
        ("*/*", json),
    ];
    let (mut best, mut format) = (0.0, json);
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let Some((_, found)) = kinds
            .iter()
            .find(|(known, _)| kind.eq_ignore_ascii_case(known))
        else {
            continue;
        };
        let weight = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, weight)| weight.parse().unwrap_or(0.0));
        if weight > best {
            best = weight;
            format = *found;
        }
    }
    format
}

/// The answer with these entries, which take so many bytes until all are read: in one piece if they are few.
fn reply<I>(entries: I, held_bytes: usize, program_id: &str, format: Format) -> io::Result<Reply>
where
    I: Iterator<Item = io::Result<Entry>> + Send + 'static,
{
    let mut rest = Pieces {
        first: Vec::new(),
        entries,
        held_bytes,
        format,
        is_begun: false,
    };
    let mut first = Vec::new();
    if format == Format::Json {
        // An id needs no escapes.
        first.extend_from_slice(format!(r#"{{"program_id":"{program_id}","logs":["#).as_bytes());
    }
    let body = if http::Source::fill(&mut rest, &mut first)? {
        rest.first = first;
        Body::Source(Box::new(rest))
    } else {
        Body::Bytes(first)
    };
    Ok(Reply {
        status: 200,
        headers: vec![("Content-Type", format.content_type().to_owned())],
        body,
    })
}

/// The body of a long answer.
struct Pieces<I> {
    /// Produced already, sent first.
    first: Vec<u8>,
    entries: I,
    /// Bytes that `entries` take.
    held_bytes: usize,
    format: Format,
    /// An entry was written.
    is_begun: bool,
}

impl<I> http::Source for Pieces<I>
where
    I: Iterator<Item = io::Result<Entry>> + Send,
{
    fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if !self.first.is_empty() {
            out.append(&mut self.first);
            return Ok(true);
        }
        let begin = out.len();
        while out.len() - begin < PIECE_BYTES {
            let Some(entry) = self.entries.next() else {
                if self.format == Format::Json {
                    out.extend_from_slice(b"]}");
                }
                return Ok(false);
            };
            if self.format == Format::Json && self.is_begun {
                out.push(b',');
            }
            self.format.push(out, &entry?)?;
            self.is_begun = true;
        }
        Ok(true)
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reply::body_text;
    use crate::clock::Timestamp;
    use crate::logs::Stream;

    fn entry(message: &str) -> Entry {
        Entry {
            timestamp: Timestamp::from_micros(1_735_689_600_000_000),
            level: Level::Info,
            stream: Stream::Stdout,
            message: message.to_owned(),
        }
    }

    fn answer(messages: &[&str], format: Format) -> Reply {
        let entries: Vec<_> = messages.iter().map(|text| Ok(entry(text))).collect();
        reply(entries.into_iter(), 0, "program-1", format).unwrap()
    }

    #[test]
    fn few_entries_come_in_one_piece() {
        assert_eq!(
            body_text(&answer(&["a \"b\"", "c"], Format::Json)),
            concat!(
                r#"{"program_id":"program-1","logs":["#,
                r#"{"timestamp":"2025-01-01T00:00:00.000Z","level":"info","message":"a \"b\"","stream":"stdout"},"#,
                r#"{"timestamp":"2025-01-01T00:00:00.000Z","level":"info","message":"c","stream":"stdout"}]}"#,
            )
        );
        assert_eq!(
            body_text(&answer(&[], Format::Json)),
            r#"{"program_id":"program-1","logs":[]}"#
        );
        let text = answer(&["a", "b"], Format::Text);
        assert_eq!(
            body_text(&text),
            "2025-01-01T00:00:00.000Z info a\n2025-01-01T00:00:00.000Z info b\n"
        );
        assert_eq!(body_text(&answer(&[], Format::Text)), "");
    }

    #[test]
    fn many_entries_come_in_bounded_pieces_that_make_up_the_whole() {
        let line = "x".repeat(1000);
        let entries = (0..1000).map({
            let line = line.clone();
            move |_| Ok(entry(&line))
        });
        let Body::Source(mut source) = reply(entries, 0, "program-1", Format::Json).unwrap().body
        else {
            panic!("a megabyte should not come in one piece");
        };
        let mut whole = Vec::new();
        loop {
            let mut piece = Vec::new();
            let more = source.fill(&mut piece).unwrap();
            assert!(piece.len() < PIECE_BYTES + 2000);
            whole.extend(piece);
            if !more {
                break;
            }
        }
        let value: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        let logs = value["logs"].as_array().unwrap();
        assert_eq!(logs.len(), 1000);
        assert!(logs.iter().all(|entry| entry["message"] == line.as_str()));
    }

    #[test]
    fn a_line_of_json_is_the_same_object() {
        let mut out = Vec::new();
        Format::Lines.push(&mut out, &entry("a\u{1}\"b")).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"timestamp":"2025-01-01T00:00:00.000Z","level":"info","message":"a\u0001\"b","stream":"stdout"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_error_before_the_first_piece_is_no_half_answer() {
        let entries = [Ok(entry("a")), Err(io::Error::other("bad disk"))];
        assert!(reply(entries.into_iter(), 0, "program-1", Format::Json).is_err());
    }

    fn parsed(query: &str) -> Result<logs::Query, ApiError> {
        parse(&Query::parse(Some(query), &["lines", "follow", "level"])?)
    }

    #[test]
    fn lines_and_levels_are_understood() {
        let query = |lines, levels: &[Level]| logs::Query {
            lines,
            levels: levels.to_vec(),
        };
        assert_eq!(parsed("").unwrap(), query(100, &[]));
        assert_eq!(parsed("lines=0&follow=false").unwrap(), query(0, &[]));
        assert_eq!(parsed("lines=10000").unwrap(), query(10_000, &[]));
        assert_eq!(
            parsed("level=warn,error,warn").unwrap(),
            query(100, &[Level::Warn, Level::Error])
        );
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_its_name() {
        for (text, field) in [
            ("lines=10001", "lines"),
            ("lines=-1", "lines"),
            ("lines=99999999999999999999", "lines"),
            ("level=", "level"),
            ("level=INFO", "level"),
            ("level=warn,", "level"),
            ("level=fatal", "level"),
        ] {
            match parsed(text) {
                Err(ApiError::Query(at)) => assert_eq!(at.field, field, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn text_comes_to_those_who_prefer_it() {
        for accept in [
            "text/plain",
            "Text/Plain; charset=utf-8",
            "text/plain, */*",
            "application/json;q=0.5, text/plain",
            "text/*",
        ] {
            assert_eq!(format(Some(accept), false), Format::Text, "{accept}");
            assert_eq!(format(Some(accept), true), Format::Text, "{accept}");
        }
        for accept in [
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "text/html",
            "text/plain;q=0",
            "text/plain; Q=0",
            "text/plain;q=0.1, application/json",
            "",
        ] {
            assert_eq!(format(Some(accept), false), Format::Json, "{accept}");
            assert_eq!(format(Some(accept), true), Format::Lines, "{accept}");
        }
        assert_eq!(format(None, false), Format::Json);
        for follow in [false, true] {
            let lines_first = format(Some("application/x-ndjson, text/plain"), follow);
            assert_eq!(lines_first, Format::Lines);
        }
    }
}
