//! Answers that go on: `/api/program/{id}/logs?follow=true`, and `output`, for as long as the client stays.
//!
//! Sent by the stream's own thread. Keeps nothing: what the client has not read waits in the log files. Called by `logs` and
//! `output`.

use std::io;
use std::sync::Arc;

use super::logs::Format;
use super::sessions::{Session, Sessions, Watch};
use crate::clock::{BootTime, Timestamp};
use crate::http::{Body, End, Ended, Feed, Reply};
use crate::logs::{Entry, Followed, Follower, Level, Stream};
use crate::program::ProgramId;
use crate::report;
use crate::sys::bell::Bell;

/// Entries that are there at once are sent together, until they have this many bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// What is sent.
pub trait Flow: Send {
    /// Once [`Flow::gather`] gives nothing, nothing comes any more.
    fn is_over(&mut self) -> bool;

    /// What is there now, a piece of it.
    fn gather(&mut self) -> io::Result<Vec<u8>>;

    /// What is sent last, where it cannot be read any more; `None`: the client sees that it is cut off.
    fn give_up(&self, error: &io::Error) -> Option<Vec<u8>>;
}

/// An answer that goes on.
pub struct Following {
    pub flow: Box<dyn Flow>,
    /// Rings when there may be more.
    pub bell: Arc<Bell>,
    pub content_type: &'static str,
    /// Where a token is needed.
    pub session: Option<(Arc<Sessions>, Session)>,
    /// What was taken from the flow and is not sent yet.
    pub unsent: Vec<u8>,
}

impl Following {
    pub fn reply(self) -> Reply {
        Reply {
            status: 200,
            headers: vec![("Content-Type", self.content_type.to_owned())],
            body: Body::Feed(Box::new(move |feed| self.serve(feed))),
        }
    }

    fn serve(mut self, feed: &mut Feed) {
        let ended = self.run(feed);
        let shuts_down = matches!(feed.control().ended(), Some(End::Shutdown | End::Handover));
        // How programs ended was written just before.
        if ended.is_err() && shuts_down {
            let mut last = std::mem::take(&mut self.unsent);
            last.extend(self.flow.gather().unwrap_or_default());
            feed.last(last);
        }
    }

    fn run(&mut self, feed: &mut Feed) -> Result<(), Ended> {
        let watch = match &self.session {
            None => None,
            // The token may have ended since it was looked at.
            Some((sessions, session)) => {
                Some(sessions.watch(session, feed.control()).ok_or(Ended)?)
            }
        };
        loop {
            let end = watch.as_ref().map(Watch::end);
            if let Some(end) = end {
                feed.end_at(end);
            }
            // Asked first: what was written until then is still there to be sent.
            let is_over = self.flow.is_over();
            match self.flow.gather() {
                Ok(piece) if !piece.is_empty() => {
                    self.unsent = piece;
                    feed.send(&self.unsent)?;
                    self.unsent = Vec::new();
                }
                Ok(_) if is_over => return Ok(()),
                Ok(_) => match feed.wait(&self.bell) {
                    Err(Ended) if was_put_off(watch.as_ref(), end) => {}
                    waited => waited?,
                },
                Err(error) => {
                    let last = self.flow.give_up(&error).ok_or(Ended)?;
                    return feed.send(&last);
                }
            }
        }
    }
}

/// Log entries.
pub struct Entries {
    pub id: ProgramId,
    pub follower: Follower,
    pub format: Format,
}

impl Flow for Entries {
    fn is_over(&mut self) -> bool {
        self.follower.is_over()
    }

    fn gather(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            match self.follower.next()? {
                None => break,
                Some(Followed::Entry(entry)) => self.format.push(&mut piece, &entry)?,
                Some(Followed::Missed { stream, bytes }) => {
                    self.format.push(&mut piece, &missed(stream, bytes))?;
                }
            }
        }
        Ok(piece)
    }

    fn give_up(&self, error: &io::Error) -> Option<Vec<u8>> {
        let id = self.id;
        report::error(format_args!("the log of {id} cannot be followed: {error}"));
        let mut piece = Vec::new();
        let text = "The log cannot be read any more: hxe's own log says why";
        // A Vec takes every byte.
        let _ = self.format.push(&mut piece, &own(Level::Error, text));
        Some(piece)
    }
}

/// Whether a time that seems to be over is not: of a token from an earlier boot only the wall clock says when it ends, and
/// that may have been set back.
fn was_put_off(watch: Option<&Watch>, end: Option<BootTime>) -> bool {
    let now = BootTime::now();
    let was_over = end.is_some_and(|end| end <= now);
    was_over && watch.is_some_and(|watch| watch.end() > now)
}

fn missed(stream: Stream, bytes: u64) -> Entry {
    let stream = stream.as_str();
    let text = format!(
        "{bytes} bytes of {stream} are missing here: log rotation removed them before they were read"
    );
    own(Level::Warn, &text)
}

fn own(level: Level, message: &str) -> Entry {
    Entry {
        timestamp: Timestamp::now(),
        level,
        stream: Stream::Hxe,
        message: message.to_owned(),
    }
}
