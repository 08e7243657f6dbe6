//! The way of an answer to the client: the right to give one, and its bytes until the socket has taken them.
//!
//! Owns framing and the pulling of long bodies. It never blocks: what the socket does not take stays here until a worker
//! hears that there is room. Called by whoever answers a request, and by `connection.rs`.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt};

use super::connection::Connection;
use super::reply::{self, Field, Framing};
use super::{Body, Reply, Source};
use crate::report;

/// Pieces of a long body sent in one turn of a worker, before others have theirs.
const PIECES_PER_TURN: usize = 4;

/// The right to answer one request: a moved value, so nobody is answered twice. Dropped, it answers
/// [`Service::broken`](super::Service::broken).
pub struct Responder {
    /// Taken by the answer.
    due: Option<(Box<Connection>, Terms)>,
}

impl Responder {
    pub(super) fn new(connection: Box<Connection>, terms: Terms) -> Responder {
        Responder {
            due: Some((connection, terms)),
        }
    }

    /// Sends the answer, from any thread, without ever blocking on the client.
    pub fn respond(mut self, reply: Reply) {
        if let Some((connection, terms)) = self.due.take() {
            connection.answer(terms, reply);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some((connection, terms)) = self.due.take() {
            let reply = connection.service().broken();
            connection.answer(terms, reply);
        }
    }
}

/// What becomes of a connection once an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It waits for the next request.
    Keep,
    Close,
    /// It closes once the client has seen the answer: something of the request was not read, and closing at once would
    /// reset the connection, answer and all.
    Drain,
}

/// What a request demands of its answer.
#[derive(Debug)]
pub struct Terms {
    pub http_11: bool,
    /// HEAD: all headers, no body.
    pub head_only: bool,
    pub ending: Ending,
    /// The gates' headers.
    pub headers: Vec<Field>,
}

impl Terms {
    /// For an answer to what could not be read.
    pub fn of_unread(ending: Ending) -> Terms {
        Terms {
            http_11: true,
            head_only: false,
            ending,
            headers: Vec::new(),
        }
    }
}

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    All,
    /// There is more; `moved` tells whether the socket took anything.
    Some {
        moved: bool,
    },
    /// The client is gone, or the body cannot be completed.
    Failed,
}

/// An answer on its way: the part that the socket has not taken yet, and where more comes from.
pub struct Outgoing {
    head: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of `head` and `body` that the socket has taken.
    taken: usize,
    /// What is still to come of a long body.
    source: Option<Box<dyn Source>>,
    chunked: bool,
    pub ending: Ending,
}

impl Outgoing {
    /// # Errors
    /// The body broke off before anything was sent; the cause was reported.
    pub fn new(terms: &Terms, reply: Reply) -> Result<Outgoing, Broken> {
        let Reply {
            status,
            headers,
            body,
        } = reply;
        let mut ending = terms.ending;
        let endless = matches!(body, Body::Feed(_));
        // The one place where an answer is told apart by what it carries.
        let (bytes, source) = match body {
            Body::Bytes(bytes) => (bytes, None),
            Body::Source(mut source) => {
                let mut bytes = Vec::new();
                let more = fill(source.as_mut(), &mut bytes)?;
                (bytes, more.then_some(source))
            }
            // HEAD for one, which is otherwise a stream's affair.
            Body::Feed(_) if terms.head_only => (Vec::new(), None),
            Body::Feed(_) | Body::WebSocket(_) => {
                report::warn(format_args!(
                    "an answer without end where none can be given"
                ));
                return Err(Broken);
            }
        };
        let framing = match &source {
            _ if matches!(status, 204 | 304) => Framing::Empty,
            None if !endless => Framing::Length(bytes.len()),
            _ if terms.http_11 => Framing::Chunked,
            _ => Framing::UntilClose,
        };
        if framing == Framing::UntilClose && ending == Ending::Keep {
            ending = Ending::Close;
        }
        // Whoever sends Upgrade must say so in Connection. Source: RFC 9110 7.8.
        let offers = headers.iter().any(|(name, _)| *name == "Upgrade");
        let connection = match (ending, offers) {
            (Ending::Keep, false) if terms.http_11 => None,
            (Ending::Keep, true) if terms.http_11 => Some("Upgrade"),
            (Ending::Keep, false) => Some("keep-alive"),
            (Ending::Keep, true) => Some("keep-alive, Upgrade"),
            (Ending::Close | Ending::Drain, false) => Some("close"),
            (Ending::Close | Ending::Drain, true) => Some("close, Upgrade"),
        };
        let head = reply::render(status, &headers, &terms.headers, framing, connection);
        let mut outgoing = Outgoing {
            head,
            body: Vec::new(),
            taken: 0,
            source: None,
            chunked: framing == Framing::Chunked,
            ending,
        };
        if !terms.head_only && framing != Framing::Empty {
            outgoing.source = source;
            outgoing.frame(bytes);
        }
        Ok(outgoing)
    }

    /// Bytes of memory that it takes.
    pub fn held_bytes(&self) -> usize {
        let source = self.source.as_ref().map_or(0, |source| source.held_bytes());
        self.head.capacity() + self.body.capacity() + source
    }

    /// Sends as much as the socket takes, and no more than a turn's share.
    pub fn send(&mut self, socket: &OwnedFd) -> Sent {
        let mut moved = false;
        for _ in 0..PIECES_PER_TURN {
            if self.taken < self.head.len() + self.body.len() {
                match self.write(socket) {
                    Ok(bytes) => {
                        self.taken += bytes;
                        moved |= bytes > 0;
                    }
                    Err(Errno::AGAIN | Errno::INTR) => return Sent::Some { moved },
                    Err(_) => return Sent::Failed,
                }
                if self.taken < self.head.len() + self.body.len() {
                    // A short write: the socket is full.
                    return Sent::Some { moved };
                }
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return Sent::All,
                Err(Broken) => {
                    if !self.chunked {
                        // Only a reset tells this client that the body is not complete.
                        let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
                    }
                    return Sent::Failed;
                }
            }
        }
        Sent::Some { moved }
    }

    /// One write of what is pending. MSG_NOSIGNAL: a client that left is an error, not a SIGPIPE.
    fn write(&self, socket: &OwnedFd) -> Result<usize, Errno> {
        let head = self.head.get(self.taken..).unwrap_or_default();
        let body = &self.body[self.taken.saturating_sub(self.head.len())..];
        sendmsg(
            socket.as_fd(),
            &[IoSlice::new(head), IoSlice::new(body)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )
    }

    /// Puts the next piece in place of what is sent; `false` if there is none.
    fn refill(&mut self) -> Result<bool, Broken> {
        let Some(mut source) = self.source.take() else {
            return Ok(false);
        };
        // The buffer is used again: one allocation for the whole body.
        let mut piece = std::mem::take(&mut self.body);
        piece.clear();
        if fill(source.as_mut(), &mut piece)? {
            self.source = Some(source);
        }
        self.head.clear();
        self.taken = 0;
        self.frame(piece);
        Ok(true)
    }

    /// Takes a piece to be sent, as a chunk where need be, behind what is in `head`. Source: RFC 9112, 7.1.
    fn frame(&mut self, piece: Vec<u8>) {
        self.body = piece;
        if !self.chunked {
            return;
        }
        // An empty chunk would be the last one.
        if !self.body.is_empty() {
            let size = format!("{:x}\r\n", self.body.len());
            self.head.extend_from_slice(size.as_bytes());
            self.body.extend_from_slice(b"\r\n");
        }
        if self.source.is_none() {
            self.body.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// A long body that cannot be completed.
#[derive(Debug)]
pub struct Broken;

/// Asks for the next piece; an error or a panic there is reported here.
fn fill(source: &mut dyn Source, out: &mut Vec<u8>) -> Result<bool, Broken> {
    let more: io::Result<bool> = catch_unwind(AssertUnwindSafe(|| source.fill(out)))
        .unwrap_or_else(|_| Err(io::Error::other("a panic")));
    more.map_err(|error| {
        report::warn(format_args!("an answer was cut off: {error}"));
        Broken
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<&'static str>);

    impl Source for Pieces {
        fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
            out.extend_from_slice(self.0.remove(0).as_bytes());
            Ok(!self.0.is_empty())
        }
    }

    /// All that is sent of an answer with these pieces: status line and headers, body.
    fn sent(
        pieces: &[&'static str],
        status: u16,
        http_11: bool,
        head_only: bool,
    ) -> (String, String) {
        let reply = Reply {
            status,
            headers: Vec::new(),
            body: Body::Source(Box::new(Pieces(pieces.to_vec()))),
        };
        let terms = Terms {
            http_11,
            head_only,
            ending: Ending::Keep,
            headers: Vec::new(),
        };
        let mut outgoing = Outgoing::new(&terms, reply).unwrap();
        let mut all = Vec::new();
        loop {
            all.extend_from_slice(&outgoing.head);
            all.extend_from_slice(&outgoing.body);
            if !outgoing.refill().unwrap() {
                break;
            }
        }
        let text = String::from_utf8(all).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn a_long_body_is_sent_in_chunks() {
        let (head, body) = sent(&["one", "", "three"], 200, true, false);
        assert!(head.contains("Transfer-Encoding: chunked") && !head.contains("Content-Length"));
        assert_eq!(body, "3\r\none\r\n5\r\nthree\r\n0\r\n\r\n");
    }

    #[test]
    fn the_last_chunk_comes_also_after_an_empty_piece() {
        assert_eq!(
            sent(&["one", ""], 200, true, false).1,
            "3\r\none\r\n0\r\n\r\n"
        );
    }

    #[test]
    fn a_body_of_one_piece_has_a_length() {
        let (head, body) = sent(&["one"], 200, true, false);
        assert!(head.contains("Content-Length: 3") && !head.contains("Transfer-Encoding"));
        assert_eq!(body, "one");
    }

    #[test]
    fn to_an_old_client_a_long_body_ends_with_the_connection() {
        let (head, body) = sent(&["one", "two"], 200, false, false);
        assert!(head.contains("Connection: close"));
        assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"));
        assert_eq!(body, "onetwo");
    }

    #[test]
    fn head_has_the_headers_of_get_and_no_body() {
        for pieces in [&["one"][..], &["one", "two"]] {
            let (with, _) = sent(pieces, 200, true, false);
            let (without, body) = sent(pieces, 200, true, true);
            let but_date = |head: &str| {
                head.lines()
                    .filter(|line| !line.starts_with("Date"))
                    .collect::<String>()
            };
            assert_eq!(but_date(&with), but_date(&without));
            assert_eq!(body, "");
        }
    }

    #[test]
    fn no_content_has_neither_length_nor_body() {
        let (head, body) = sent(&["one"], 204, true, false);
        assert!(!head.contains("Content-Length"));
        assert_eq!(body, "");
    }
}
