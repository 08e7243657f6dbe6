//! `/api/program/{id}/logs`: found on a lane, then produced piece by piece as the client reads.

use std::io;
use std::sync::Arc;

use serde::Serialize;

use super::error::{ApiError, Cause};
use super::query::Query;
use super::{Api, Call, Outcome};
use crate::http::{self, Body, Reply};
use crate::logs::{self, Entry, Level};

/// Lines where `lines` says nothing.
const DEFAULT_LINES: usize = 100;
const MAX_LINES: usize = 10_000;
/// A piece of the body is sent when it has this many bytes.
const PIECE_BYTES: usize = 32 * 1024;

#[derive(Serialize)]
struct EntryShape<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    stream: &'static str,
}

/// How entries are written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    /// The reference's object, with the program's id.
    Json { program_id: String },
    /// `timestamp level message` lines.
    Text,
}

/// `GET /program/{id}/logs`: `lines`, `level`.
pub fn get(api: &Api, call: Call) -> Result<Outcome, ApiError> {
    let query = parse(&call.query(&["lines", "follow", "level"])?)?;
    let id = api.program(&call)?.program.id;
    let format = if wants_text(call.head.header("accept")) {
        Format::Text
    } else {
        let program_id = id.to_string();
        Format::Json { program_id }
    };
    let logs = Arc::clone(&api.logs);
    let supervisor = Arc::clone(&api.supervisor);
    let full = ApiError::Busy("Too many searches of logs are waiting: try again".into());
    Ok(Outcome::on_lane(&api.searches, full, move || {
        let found = logs.last(id, &query).and_then(|last| {
            let held_bytes = last.held_bytes();
            reply(last, held_bytes, format)
        });
        found.map_err(|error| match supervisor.find(&id.to_string()) {
            Some(_) => ApiError::Internal(Cause::Logs(error)),
            // Deleted meanwhile, and its logs with it.
            None => ApiError::no_program(id.to_string()),
        })
    }))
}

fn parse(query: &Query) -> Result<logs::Query, ApiError> {
    if query.flag("follow")? == Some(true) {
        let issue = "Logs cannot be followed yet: that comes with a later version";
        return Err(ApiError::query("follow", issue));
    }
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

/// Whether text is preferred to JSON: the highest weight counts, then what comes first; `*/*` is JSON, and so is nothing.
/// Source: RFC 9110 12.5.1.
fn wants_text(accept: Option<&str>) -> bool {
    let mut best = 0.0;
    let mut text = false;
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let is_text = match parts.next().unwrap_or_default() {
            kind if kind.eq_ignore_ascii_case("text/plain") => true,
            kind if kind.eq_ignore_ascii_case("text/*") => true,
            kind if kind.eq_ignore_ascii_case("application/json") => false,
            "*/*" | "application/*" => false,
            _ => continue,
        };
        let weight = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, weight)| weight.parse().unwrap_or(0.0));
        if weight > best {
            best = weight;
            text = is_text;
        }
    }
    text
}

/// The answer with these entries, which take so many bytes until all are read: in one piece if they are few.
fn reply<I>(entries: I, held_bytes: usize, format: Format) -> io::Result<Reply>
where
    I: Iterator<Item = io::Result<Entry>> + Send + 'static,
{
    let content_type = match format {
        Format::Json { .. } => "application/json",
        Format::Text => "text/plain; charset=utf-8",
    };
    let mut rest = Pieces {
        first: Vec::new(),
        entries,
        held_bytes,
        format,
        count: 0,
    };
    let mut first = Vec::new();
    let body = if http::Source::fill(&mut rest, &mut first)? {
        rest.first = first;
        Body::Source(Box::new(rest))
    } else {
        Body::Bytes(first)
    };
    Ok(Reply {
        status: 200,
        headers: vec![("Content-Type", content_type.to_owned())],
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
    /// Entries written so far.
    count: usize,
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
                self.finish(out);
                return Ok(false);
            };
            self.push(out, &entry?)?;
        }
        Ok(true)
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl<I> Pieces<I> {
    fn push(&mut self, out: &mut Vec<u8>, entry: &Entry) -> io::Result<()> {
        let timestamp = entry.timestamp.to_string();
        let level = entry.level.as_str();
        match &self.format {
            Format::Text => {
                for part in [&timestamp, " ", level, " ", &entry.message, "\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            Format::Json { program_id } => {
                if self.count == 0 {
                    begin_json(out, program_id);
                } else {
                    out.push(b',');
                }
                let shape = EntryShape {
                    timestamp,
                    level,
                    message: &entry.message,
                    stream: entry.stream.as_str(),
                };
                serde_json::to_writer(&mut *out, &shape)?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn finish(&self, out: &mut Vec<u8>) {
        if let Format::Json { program_id } = &self.format {
            if self.count == 0 {
                begin_json(out, program_id);
            }
            out.extend_from_slice(b"]}");
        }
    }
}

fn begin_json(out: &mut Vec<u8>, program_id: &str) {
    // An id needs no escapes.
    out.extend_from_slice(format!(r#"{{"program_id":"{program_id}","logs":["#).as_bytes());
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

    fn json() -> Format {
        let program_id = "program-1".to_owned();
        Format::Json { program_id }
    }

    fn answer(messages: &[&str], format: Format) -> Reply {
        let entries: Vec<_> = messages.iter().map(|text| Ok(entry(text))).collect();
        reply(entries.into_iter(), 0, format).unwrap()
    }

    #[test]
    fn few_entries_come_in_one_piece() {
        assert_eq!(
            body_text(&answer(&["a \"b\"", "c"], json())),
            concat!(
                r#"{"program_id":"program-1","logs":["#,
                r#"{"timestamp":"2025-01-01T00:00:00.000Z","level":"info","message":"a \"b\"","stream":"stdout"},"#,
                r#"{"timestamp":"2025-01-01T00:00:00.000Z","level":"info","message":"c","stream":"stdout"}]}"#,
            )
        );
        assert_eq!(
            body_text(&answer(&[], json())),
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
        let Body::Source(mut source) = reply(entries, 0, json()).unwrap().body else {
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
    fn an_error_before_the_first_piece_is_no_half_answer() {
        let entries = [Ok(entry("a")), Err(io::Error::other("bad disk"))];
        assert!(reply(entries.into_iter(), 0, json()).is_err());
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
            ("follow=true", "follow"),
            ("follow=1", "follow"),
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
            assert!(wants_text(Some(accept)), "{accept}");
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
            assert!(!wants_text(Some(accept)), "{accept}");
        }
        assert!(!wants_text(None));
    }
}
