//! A raw HTTP/1.1 client: sends whatever bytes it is told, reads answers strictly, and holds each against the description of
//! the API.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;
use super::openapi::{self, Sent};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The answer itself, checked to have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        self
    }

    /// The JSON of an answer, checked to have this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        self.expect(status).json()
    }

    /// The sentence of an error, checked to have this status and code.
    #[track_caller]
    pub fn error(self, status: u16, code: &str) -> String {
        let json = self.ok(status);
        assert_eq!(json["error"], code, "{json}");
        json["message"]
            .as_str()
            .expect("errors have a message")
            .to_owned()
    }

    /// The sentence about a field that is refused with 400.
    #[track_caller]
    pub fn issue(self, field: &str) -> String {
        let json = self.ok(400);
        assert_eq!(json["error"], "validation_error", "{json}");
        assert_eq!(json["details"]["field"], field, "{json}");
        let issue = json["details"]["issue"]
            .as_str()
            .expect("an issue is a sentence");
        assert!(!issue.is_empty());
        issue.to_owned()
    }
}

/// A connection to the daemon.
pub struct Connection {
    stream: BufReader<TcpStream>,
    /// `None`: what is said now is no HTTP.
    sent: Option<Sent>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the daemon listens");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).expect("the timeout is not zero");
        }
        Connection {
            stream: BufReader::new(stream),
            sent: Some(Sent::default()),
        }
    }

    /// Waits for so long for what is read from now on.
    pub fn patience(&mut self, patience: Duration) {
        let set = self.stream.get_ref().set_read_timeout(Some(patience));
        set.expect("the timeout is not zero");
    }

    /// Sends bytes as they are. A daemon that has closed is no error here: what it said is still to be read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Connection {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
        if let Some(sent) = &mut self.sent {
            sent.add(bytes.as_ref());
        }
        self
    }

    /// Reads an answer, with its body.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply(true).expect("the daemon answers")
    }

    /// Reads an answer to HEAD.
    #[track_caller]
    pub fn head_reply(&mut self) -> Reply {
        self.try_reply(false).expect("the daemon answers")
    }

    /// Reads an answer; `None` if the connection ends without one.
    pub fn reply_or_end(&mut self) -> Option<Reply> {
        self.try_reply(true).ok()
    }

    /// Sends nothing more.
    pub fn end(&mut self) -> &mut Connection {
        // Where the daemon has closed already, there is nothing to be ended.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
        self
    }

    /// The socket, without what was read ahead.
    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Waits until the daemon has closed the connection, whatever it says before.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        match self.stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
    }

    /// Whether the daemon has closed the connection and said nothing more.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// The next chunk of an answer that goes on; `None` after the last, or where the answer was cut off.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().ok()?;
        let size = usize::from_str_radix(&size, 16).expect("a chunk has its size");
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk).ok()?;
        self.line().ok()?;
        (size > 0).then_some(chunk)
    }

    /// Reads so many bytes, if they come.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(into)
    }

    #[track_caller]
    fn try_reply(&mut self, has_body: bool) -> io::Result<Reply> {
        let reply = self.read_reply(has_body)?;
        // Of what is not final, nothing is described.
        if reply.status != 100 {
            let request = self.sent.as_mut().and_then(Sent::take);
            openapi::check(request.as_ref(), &reply, has_body);
        }
        if reply.status == 101 {
            self.sent = None;
        }
        Ok(reply)
    }

    fn read_reply(&mut self, has_body: bool) -> io::Result<Reply> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("{status_line:?} is no status line"));
        let mut reply = Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header has a colon");
            reply
                .headers
                .push((name.to_lowercase(), value.trim().to_owned()));
        }
        if has_body && status != 100 {
            reply.body = self.body(&reply)?;
        }
        Ok(reply)
    }

    fn body(&mut self, reply: &Reply) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line()?;
                let size = u64::from_str_radix(&size, 16).expect("a chunk has its size");
                (&mut self.stream).take(size).read_to_end(&mut body)?;
                assert_eq!(self.line()?, "", "a chunk ends with a line end");
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = reply.header("content-length") {
            let length: u64 = length.parse().expect("a length is a number");
            (&mut self.stream).take(length).read_to_end(&mut body)?;
            assert_eq!(body.len() as u64, length, "the answer is cut off");
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    /// A line of the head, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
