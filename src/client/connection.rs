//! HTTP/1.1 as a client speaks it: one request, and its answer within bounds. Source: RFC 9112.
//!
//! Whatever the other end sends, no more is kept of it than is asked for here, and nothing is waited for beyond the deadline
//! of the socket.

use std::io::{self, Read, Write};

use super::Error;
use super::socket::Socket;

/// Bytes of the head of an answer.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Bytes of a line that says how long a chunk is, and of all lines behind the last one.
const MAX_CHUNK_LINE: usize = 1024;
const MAX_TRAILERS: usize = 8 * 1024;
/// Answers of 1xx that go before the one that counts.
const MAX_INTERIM: usize = 8;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// A connection, and what was read of it and not yet used.
pub struct Connection {
    pub socket: Socket,
    buffer: Vec<u8>,
    used: usize,
    body: Framing,
    keep_alive: bool,
}

/// How much of the body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Bytes(u64),
    /// The line that says how long the next chunk is comes next.
    ChunkLine,
    /// So many bytes of a chunk.
    Chunk(u64),
    UntilClose,
}

const DONE: Framing = Framing::Bytes(0);

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Head {
    /// The only header of this name, given in lower case.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        let mut values = self.all(name);
        let value = values.next();
        value.filter(|_| values.next().is_none())
    }

    fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }
}

/// Why a request got no answer.
pub enum Failure {
    /// The connection ended before the first byte of an answer.
    Unanswered(io::Error),
    Broken(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Unanswered(error) => Error::Lost(error),
            Failure::Broken(error) => error,
        }
    }
}

impl Connection {
    pub fn new(socket: Socket) -> Connection {
        Connection {
            socket,
            buffer: Vec::new(),
            used: 0,
            body: DONE,
            keep_alive: true,
        }
    }

    /// Whether another request can be sent on it.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && self.body == DONE && self.rest().is_empty() && self.socket.is_quiet()
    }

    /// Sends a request, and reads the head of the answer.
    pub fn ask(&mut self, request: &[u8]) -> Result<Head, Failure> {
        let sent = self.socket.write_all(request);
        // Who refuses a request early may answer before it is sent to its end, and close.
        let head = match (self.head(), sent) {
            (Err(Failure::Unanswered(_)), Err(error)) => Err(Failure::Unanswered(error)),
            (head, _) => head,
        }?;
        self.body = framing(&head).map_err(Failure::Broken)?;
        Ok(head)
    }

    fn head(&mut self) -> Result<Head, Failure> {
        for _ in 0..MAX_INTERIM {
            let head = self.any_head()?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
        Err(Failure::Broken(Error::Protocol("too many interim answers")))
    }

    fn any_head(&mut self) -> Result<Head, Failure> {
        loop {
            if let Some(head) = self.parse_head().map_err(Failure::Broken)? {
                return Ok(head);
            }
            if self.rest().len() >= MAX_HEAD {
                let error = Error::Protocol("the head of the answer is too long");
                return Err(Failure::Broken(error));
            }
            if let Err(error) = self.fill() {
                return Err(match self.rest() {
                    [] => Failure::Unanswered(error),
                    _ => Failure::Broken(Error::Lost(error)),
                });
            }
        }
    }

    fn parse_head(&mut self) -> Result<Option<Head>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let rest = &self.buffer[self.used..];
        let bytes = match response.parse(&rest[..rest.len().min(MAX_HEAD)]) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Error::Protocol("the head of the answer is malformed")),
        };
        let http_11 = response.version == Some(1);
        let status = response.code.unwrap_or_default();
        let headers = response.headers.iter().map(|header| {
            let value = String::from_utf8_lossy(header.value);
            (header.name.to_ascii_lowercase(), value.trim().to_owned())
        });
        let head = Head {
            status,
            headers: headers.collect(),
        };
        self.used += bytes;
        let closes = head
            .all("connection")
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case("close"));
        self.keep_alive = http_11 && !closes && status != 101;
        Ok(Some(head))
    }

    /// Appends the next piece of the body; `false` once nothing is left.
    pub fn piece(&mut self, out: &mut Vec<u8>) -> Result<bool, Error> {
        loop {
            let left = match self.body {
                DONE => return Ok(false),
                Framing::ChunkLine => {
                    self.chunk_line()?;
                    continue;
                }
                Framing::Bytes(left) | Framing::Chunk(left) => left,
                Framing::UntilClose => u64::MAX,
            };
            if self.rest().is_empty()
                && let Err(error) = self.fill()
            {
                if self.body == Framing::UntilClose && error.kind() == io::ErrorKind::UnexpectedEof
                {
                    self.body = DONE;
                    return Ok(false);
                }
                return Err(Error::Lost(error));
            }
            let rest = self.rest();
            let bytes = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            out.extend_from_slice(&rest[..bytes]);
            self.used += bytes;
            let left = left - bytes as u64;
            self.body = match self.body {
                Framing::Chunk(_) if left == 0 => {
                    self.expect_line_end()?;
                    Framing::ChunkLine
                }
                Framing::Chunk(_) => Framing::Chunk(left),
                Framing::Bytes(_) => Framing::Bytes(left),
                other => other,
            };
            return Ok(true);
        }
    }

    /// The whole body, which may not be longer.
    pub fn body(&mut self, most: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while self.piece(&mut body)? {
            if body.len() > most {
                return Err(Error::Protocol("the answer is too long"));
            }
        }
        Ok(body)
    }

    /// What was read behind the head: for a protocol that takes over.
    pub fn into_parts(self) -> (Socket, Vec<u8>) {
        let rest = self.rest().to_vec();
        (self.socket, rest)
    }

    fn chunk_line(&mut self) -> Result<(), Error> {
        let line = self.line(MAX_CHUNK_LINE)?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = digits.trim_ascii();
        let size = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or(Error::Protocol("a chunk has no length"))?;
        if size > 0 {
            self.body = Framing::Chunk(size);
            return Ok(());
        }
        let mut trailers = 0;
        loop {
            match self.line(MAX_CHUNK_LINE)?.len() {
                0 => break,
                bytes => trailers += bytes,
            }
            if trailers > MAX_TRAILERS {
                return Err(Error::Protocol("the trailers are too long"));
            }
        }
        self.body = DONE;
        Ok(())
    }

    fn expect_line_end(&mut self) -> Result<(), Error> {
        match self.line(2)?.as_slice() {
            [] => Ok(()),
            _ => Err(Error::Protocol("a chunk is longer than it says")),
        }
    }

    /// A line without its end.
    fn line(&mut self, most: usize) -> Result<Vec<u8>, Error> {
        loop {
            let rest = self.rest();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                let line = line.to_vec();
                self.used += end + 1;
                return Ok(line);
            }
            if rest.len() > most {
                return Err(Error::Protocol("a line between chunks is too long"));
            }
            self.fill().map_err(Error::Lost)?;
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Reads more; never nothing.
    fn fill(&mut self) -> io::Result<()> {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        let begin = self.buffer.len();
        self.buffer.resize(begin + READ_BYTES, 0);
        let read = self.socket.read(&mut self.buffer[begin..]);
        let bytes = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(begin + bytes);
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// How long the body of an answer is. Source: RFC 9112 6.3.
fn framing(head: &Head) -> Result<Framing, Error> {
    if matches!(head.status, 101 | 204 | 304) {
        return Ok(DONE);
    }
    let mut codings = head.all("transfer-encoding").peekable();
    let mut lengths = head.all("content-length").peekable();
    match (codings.peek(), lengths.peek()) {
        (Some(_), Some(_)) => Err(Error::Protocol("the answer has two lengths")),
        (Some(_), None) => match codings.all(|coding| coding.eq_ignore_ascii_case("chunked")) {
            true => Ok(Framing::ChunkLine),
            false => Err(Error::Protocol("the answer is encoded in an unknown way")),
        },
        (None, Some(first)) => {
            let first = *first;
            let digits = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
            let length = first.parse().ok().filter(|_| digits);
            match length.filter(|_| lengths.all(|other| other == first)) {
                Some(length) => Ok(Framing::Bytes(length)),
                None => Err(Error::Protocol("the length of the answer is no number")),
            }
        }
        (None, None) => Ok(Framing::UntilClose),
    }
}
