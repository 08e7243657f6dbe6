//! How a connection leaves the workers: it becomes a stream.
//!
//! Owns the order of it: nothing is given up before the stream's thread is there, so that a client for whom there is no
//! room gets an answer like any other. Called by `connection.rs`.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use rustix::io::Errno;

use super::Connection;
use crate::http::answer::{Ending, Terms};
use crate::http::reply::{self, Framing};
use crate::http::stream::{Control, Job, Kind, Line, Work};
use crate::http::{Body, Peer, Problem, Reply};
use crate::sys::bell::Bell;
use crate::sys::process;

/// An answer that has no end.
pub struct Departure {
    /// Status line and headers.
    head: Vec<u8>,
    work: Work,
}

/// What a thread just started waits for.
struct Start {
    bell: Bell,
    control: Arc<Control>,
    jobs: Sender<Job>,
}

/// Tells answers without end from all others.
///
/// # Errors
/// Gives back an answer that has an end.
pub fn sort(terms: &Terms, reply: Reply) -> Result<Departure, Reply> {
    let Reply {
        status,
        headers,
        body,
    } = reply;
    let (framing, connection, work) = match body {
        Body::Feed(work) if !terms.head_only => {
            let framing = match terms.http_11 {
                true => Framing::Chunked,
                false => Framing::UntilClose,
            };
            (framing, "close", Work::Feed(work))
        }
        // Where a body was not read, the first frame would begin in the middle of it.
        Body::WebSocket(work) if !terms.head_only && terms.ending != Ending::Drain => {
            (Framing::Empty, "Upgrade", Work::WebSocket(work))
        }
        body => {
            return Err(Reply {
                status,
                headers,
                body,
            });
        }
    };
    let head = reply::render(status, &headers, &terms.headers, framing, Some(connection));
    Ok(Departure { head, work })
}

impl Connection {
    /// Becomes a stream; where there is no room for one more, says so and goes on.
    pub(super) fn leave(mut self: Box<Self>, terms: Terms, departure: Departure) {
        let Departure { head, work } = departure;
        let kind = match work {
            Work::Feed(_) => Kind::Feed,
            Work::WebSocket(_) => Kind::WebSocket,
        };
        let Start {
            bell,
            control,
            jobs,
        } = match self.start(kind) {
            Ok(start) => start,
            Err(problem) => {
                let reply = self.service().problem(problem, &self.peer);
                return self.say(terms, reply);
            }
        };
        let Connection {
            socket,
            peer,
            reader,
            lease,
            ..
        } = *self;
        // The place is free from here on, and the epoll set knows nothing of the socket any more.
        drop(lease);
        // It waits for this, so that it is there to take it.
        let _ = jobs.send(Job {
            line: Line::new(socket, matches!(peer, Peer::Tcp(_)), bell, control),
            head,
            rest: reader.into_rest(),
            chunked: terms.http_11,
            work,
        });
    }

    /// Starts the thread, with all that it needs but the connection.
    fn start(&mut self, kind: Kind) -> Result<Start, Problem> {
        let wire = Arc::clone(self.lease.wire());
        let berth = wire.streams.claim(kind, wire.limits().max_streams)?;
        let no_room = |error: io::Error| {
            wire.complain(&error);
            Problem::NoRoom
        };
        wire.forget(self);
        wire.spare(&mut self.socket);
        if process::is_of_the_last(&self.socket) {
            return Err(no_room(Errno::MFILE.into()));
        }
        Ok(Start {
            bell: wire.bell().map_err(no_room)?,
            control: Arc::clone(berth.control()),
            jobs: berth.start().map_err(no_room)?,
        })
    }
}
