//! The request reader: bytes in; a head, a body or a [`Problem`] out.
//!
//! Owns what was read and not yet consumed, and every rule of what a request may look like. Pure: it never sees a socket
//! or a clock, and what comes out does not depend on how the bytes were split. Called by `connection.rs`.

use tiny_http::Method;

use super::{Head, Peer, Problem};

/// Bytes of a request line with its headers; above: 431.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Header lines of a request; above: 431.
const MAX_HEADERS: usize = 64;

/// The bytes of one connection that are not consumed yet.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Bytes of empty lines that were dropped in front of the next head.
    dropped: usize,
}

/// A complete head, and what it says of the rest of the request.
#[derive(Debug)]
pub struct Arrival {
    pub head: Head,
    /// The length of the body, at most `max_body`.
    pub body_bytes: usize,
    /// The client means to send another request over this connection.
    pub keep_alive: bool,
    /// The client sends the body only once it has seen `100 Continue`.
    pub expects_continue: bool,
}

/// Why a request cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    pub problem: Problem,
    /// Where only its body is the problem.
    pub head: Option<Box<Head>>,
}

impl From<Problem> for Unreadable {
    fn from(problem: Problem) -> Unreadable {
        Unreadable {
            problem,
            head: None,
        }
    }
}

impl Reader {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing of a further request has arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of memory that it takes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Consumes the next head; `None` while it is not complete. Empty lines in front of it are dropped (RFC 9112, 2.2), as
    /// many as a head may have bytes.
    ///
    /// # Errors
    /// What is wrong with it. Where the next request would begin is then unknown: the connection is of no further use.
    pub fn head(&mut self, peer: &Peer, max_body: usize) -> Result<Option<Arrival>, Unreadable> {
        let empty = empty_lines(&self.bytes);
        self.consume(empty);
        self.dropped += empty;
        if self.dropped > MAX_HEAD_BYTES {
            return Err(Problem::HeadTooLarge.into());
        }
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let bounded = &self.bytes[..self.bytes.len().min(MAX_HEAD_BYTES)];
        match parse(bounded, peer, max_body)? {
            Some((length, arrival)) => {
                self.consume(length);
                self.dropped = 0;
                Ok(Some(arrival))
            }
            None if bounded.len() == MAX_HEAD_BYTES => Err(Problem::HeadTooLarge.into()),
            None => Ok(None),
        }
    }

    /// Consumes a body of `length` bytes; `None` while it is not complete.
    pub fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        if self.bytes.len() < length {
            return None;
        }
        let rest = self.bytes.split_off(length);
        Some(std::mem::replace(&mut self.bytes, rest))
    }

    /// Gives what was read and is not consumed.
    pub fn into_rest(self) -> Vec<u8> {
        self.bytes
    }

    fn consume(&mut self, length: usize) {
        if length == self.bytes.len() {
            // Gives the memory back: a connection is idle for most of its life.
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..length);
        }
    }
}

/// The length of the empty lines at the start.
fn empty_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(next) = rest
        .strip_prefix(b"\r\n")
        .or_else(|| rest.strip_prefix(b"\n"))
    {
        rest = next;
    }
    bytes.len() - rest.len()
}

/// The head at the start of `bytes` with its length; `None` while it is not complete.
fn parse(
    bytes: &[u8],
    peer: &Peer,
    max_body: usize,
) -> Result<Option<(usize, Arrival)>, Unreadable> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) => {
            // One space stands behind the method and one behind the target.
            let before = request.method.map_or(0, str::len) + request.path.map_or(0, str::len) + 2;
            return match version_problem(bytes.get(before..).unwrap_or_default()) {
                Some(problem) => Err(problem.into()),
                None => Ok(None),
            };
        }
        Err(error) => return Err(problem_of(error).into()),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Problem::Malformed("the request line is malformed").into());
    };
    let head = head(method, target, version == 1, request.headers, peer)?;
    match body_length(request.headers, max_body) {
        Ok(body_bytes) => Ok(Some((length, arrival(head, body_bytes)))),
        Err(problem) => Err(Unreadable {
            problem,
            head: Some(Box::new(head)),
        }),
    }
}

fn problem_of(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => Problem::HeadTooLarge,
        httparse::Error::HeaderName => Problem::Malformed("a header name is malformed"),
        httparse::Error::HeaderValue => Problem::Malformed("a header value is malformed"),
        httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => Problem::Malformed("the request line is malformed"),
    }
}

/// What is wrong with a version that is neither HTTP/1.0 nor HTTP/1.1; `None` while it could still become one.
fn version_problem(text: &[u8]) -> Option<Problem> {
    let shape = b"HTTP/0.0";
    let fits = text.iter().zip(shape).all(|(byte, wanted)| match wanted {
        b'0' => byte.is_ascii_digit(),
        _ => byte == wanted,
    });
    match fits {
        false => Some(Problem::Malformed(
            "the request line does not end in a version of HTTP",
        )),
        true if text.len() >= shape.len() => Some(Problem::Version),
        true => None,
    }
}

fn head(
    method: &str,
    target: &str,
    http_11: bool,
    headers: &[httparse::Header],
    peer: &Peer,
) -> Result<Head, Problem> {
    let method: Method = method
        .parse()
        .map_err(|()| Problem::Malformed("the method is malformed"))?;
    let target = split_target(&method, target)?;
    let mut headers: Vec<(String, String)> = headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    one_host(&mut headers, http_11, target.authority)?;
    Ok(Head {
        method,
        path: target.path.to_owned(),
        query: target.query.map(str::to_owned),
        headers,
        http_11,
        peer: peer.clone(),
    })
}

fn arrival(head: Head, body_bytes: usize) -> Arrival {
    let keep_alive = match head.http_11 {
        true => !says(&head, "connection", "close"),
        false => says(&head, "connection", "keep-alive") && !says(&head, "connection", "close"),
    };
    // Without a body to wait for, or a client that knows of it, `100 Continue` would be a stray answer.
    let expects_continue = head.http_11 && body_bytes > 0 && says(&head, "expect", "100-continue");
    Arrival {
        head,
        body_bytes,
        keep_alive,
        expects_continue,
    }
}

/// The length of the body as Content-Length has it, at most `max_body`; 0 without one.
///
/// Stricter than RFC 9112 (6.3), which lets equal repetitions pass: whoever sends two means to be read in two ways.
fn body_length(headers: &[httparse::Header], max_body: usize) -> Result<usize, Problem> {
    let named = |wanted: &'static str| {
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(wanted))
    };
    if named("transfer-encoding").next().is_some() {
        return Err(Problem::LengthRequired);
    }
    let mut lengths = named("content-length");
    let Some(length) = lengths.next() else {
        return Ok(0);
    };
    if lengths.next().is_some() {
        return Err(Problem::Malformed("Content-Length is given twice"));
    }
    let digits = std::str::from_utf8(length.value)
        .ok()
        // `parse` alone would take a sign.
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or(Problem::Malformed("Content-Length is not a number"))?;
    // What is too long for a number is too large a body, too.
    digits
        .parse()
        .ok()
        .filter(|bytes| *bytes <= max_body)
        .ok_or(Problem::BodyTooLarge)
}

struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

/// Takes a request target apart: `/path?query`, `http://authority/path?query`, or `*` with OPTIONS (RFC 9112, 3.2).
fn split_target<'a>(method: &Method, target: &'a str) -> Result<Target<'a>, Problem> {
    if target.contains('#') {
        return Err(Problem::Malformed("a target has no fragment"));
    }
    let (authority, rest) = match absolute(target) {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            if authority.is_empty() || authority.contains('@') {
                return Err(Problem::Malformed("the target's host is malformed"));
            }
            (Some(authority), rest)
        }
        None if target.starts_with('/') || (target == "*" && *method == Method::Options) => {
            (None, target)
        }
        None => return Err(Problem::Malformed("the target must begin with a slash")),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target {
        authority,
        path,
        query,
    })
}

/// What follows `http://` or `https://`.
fn absolute(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start
            .eq_ignore_ascii_case(scheme)
            .then(|| &target[scheme.len()..])
    })
}

/// Checks that there is one Host, and lets the target's `authority` take its place (RFC 9112, 3.2 and 3.2.2).
fn one_host(
    headers: &mut Vec<(String, String)>,
    http_11: bool,
    authority: Option<&str>,
) -> Result<(), Problem> {
    let mut hosts = headers.iter_mut().filter(|(name, _)| name == "host");
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Problem::Malformed("Host is given twice"));
    }
    match (first, authority) {
        (None, _) if http_11 => Err(Problem::Malformed("HTTP/1.1 requires Host")),
        (Some((_, host)), Some(authority)) => {
            authority.clone_into(host);
            Ok(())
        }
        (None, Some(authority)) => {
            headers.push(("host".to_owned(), authority.to_owned()));
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

/// A header of this name lists this token, in any case.
pub fn says(head: &Head, name: &str, token: &str) -> bool {
    head.headers
        .iter()
        .filter(|(known, _)| known == name)
        .flat_map(|(_, value)| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_BODY: usize = 1000;

    fn peer() -> Peer {
        Peer::Tcp(([127, 0, 0, 1], 4000).into())
    }

    /// Everything that comes out of `bytes` when they arrive in these pieces: one line an arrival, the problem at the end.
    /// What is kept while more is awaited is bounded.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut reader = Reader::default();
        let mut due: Option<Arrival> = None;
        let mut out = Vec::new();
        for piece in pieces {
            reader.push(piece);
            loop {
                if let Some(arrival) = due.take() {
                    match reader.body(arrival.body_bytes) {
                        Some(body) => out.push(format!("{arrival:?} {body:?}")),
                        None => {
                            assert!(reader.bytes.len() < arrival.body_bytes);
                            assert!(arrival.body_bytes <= MAX_BODY);
                            due = Some(arrival);
                            break;
                        }
                    }
                }
                match reader.head(&peer(), MAX_BODY) {
                    Ok(Some(arrival)) => due = Some(arrival),
                    Ok(None) => {
                        assert!(reader.bytes.len() < MAX_HEAD_BYTES);
                        break;
                    }
                    Err(unreadable) => {
                        out.push(format!("{unreadable:?}"));
                        return out;
                    }
                }
            }
        }
        out
    }

    fn head(text: &str) -> Result<Option<Arrival>, Problem> {
        let mut reader = Reader::default();
        reader.push(text.as_bytes());
        reader
            .head(&peer(), MAX_BODY)
            .map_err(|unreadable| unreadable.problem)
    }

    /// The head of a request that is complete.
    fn whole(text: &str) -> Arrival {
        match head(text) {
            Ok(Some(arrival)) => arrival,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    fn malformed(text: &str) {
        assert!(
            matches!(head(text), Err(Problem::Malformed(_))),
            "{text:?} gave {:?}",
            head(text)
        );
    }

    #[test]
    fn a_head_is_taken_apart() {
        let arrival = whole(
            "POST /api/x%20y?a=b?c HTTP/1.1\r\nHoSt: here\r\nX:\t spaced out \r\nContent-Length: 7\r\n\r\n",
        );
        assert_eq!(arrival.head.method, Method::Post);
        assert_eq!(arrival.head.path, "/api/x%20y");
        assert_eq!(arrival.head.query.as_deref(), Some("a=b?c"));
        assert_eq!(arrival.head.header("host"), Some("here"));
        assert_eq!(arrival.head.header("x"), Some("spaced out"));
        assert!(arrival.head.http_11);
        assert_eq!(arrival.body_bytes, 7);
        assert!(arrival.keep_alive);
        assert!(!arrival.expects_continue);
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_shown_with_replacement_characters() {
        let mut reader = Reader::default();
        reader.push(b"GET / HTTP/1.1\r\nHost: a\xffb\r\n\r\n");
        let arrival = reader.head(&peer(), MAX_BODY).unwrap().unwrap();
        assert_eq!(arrival.head.header("host"), Some("a\u{fffd}b"));
    }

    #[test]
    fn an_unknown_method_is_left_to_the_routes() {
        let arrival = whole("BREW / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(arrival.head.method.as_str(), "BREW");
    }

    #[test]
    fn empty_lines_before_a_request_are_dropped_and_begin_none() {
        let mut reader = Reader::default();
        reader.push(b"\r\n\n\r\n");
        assert!(matches!(reader.head(&peer(), MAX_BODY), Ok(None)));
        assert!(reader.is_empty());
        assert_eq!(whole("\r\n\r\nGET /a HTTP/1.0\r\n\r\n").head.path, "/a");
    }

    #[test]
    fn empty_lines_without_end_are_too_large_a_head() {
        let with_lines = |count: usize| head(&("\r\n".repeat(count) + "GET / HTTP/1.0\r\n\r\n"));
        assert!(with_lines(4096).is_ok());
        assert_eq!(with_lines(4097).err(), Some(Problem::HeadTooLarge));
        let mut reader = Reader::default();
        let mut given = (0..).map(|_| {
            reader.push(b"\n");
            reader.head(&peer(), MAX_BODY)
        });
        assert_eq!(given.position(|head| head.is_err()), Some(8192));
    }

    #[test]
    fn lines_may_end_in_a_bare_line_feed() {
        assert_eq!(whole("GET /a HTTP/1.1\nHost: a\n\n").head.path, "/a");
    }

    #[test]
    fn a_connection_is_kept_as_version_and_connection_say() {
        for (version, connection, kept) in [
            ("1.1", "", true),
            ("1.1", "Connection: Close\r\n", false),
            ("1.1", "Connection: x, close\r\n", false),
            ("1.1", "Connection: x\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
            assert_eq!(whole(&text).keep_alive, kept, "{text:?}");
        }
    }

    #[test]
    fn only_a_1_1_client_with_a_body_waits_for_100_continue() {
        for (version, length, expects) in [("1.1", 5, true), ("1.0", 5, false), ("1.1", 0, false)] {
            let text = format!(
                "PUT / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n"
            );
            assert_eq!(whole(&text).expects_continue, expects, "{text:?}");
        }
    }

    #[test]
    fn other_versions_are_refused_and_garbage_is_malformed() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
            assert_eq!(
                head(&format!("GET / {version}\r\n")).err(),
                Some(Problem::Version)
            );
        }
        for line in [
            "GET / HTTX/1.1",
            "GET / HTTP/1.1x",
            "GET / HTTP/1.10",
            "GET / http/1.1",
            "GET / HTTP/x",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "\u{16}\u{3}\u{1}",
            " GET / HTTP/1.1",
            "G(T / HTTP/1.1",
        ] {
            malformed(&format!("{line}\r\nHost: a\r\n\r\n"));
        }
    }

    #[test]
    fn garbage_is_refused_before_the_head_is_complete() {
        malformed("\u{16}\u{3}\u{1}");
        malformed("hello\r\n");
    }

    #[test]
    fn a_length_that_can_be_read_in_two_ways_is_malformed() {
        for lines in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length:\r\n",
            "Content-Length: \u{ff15}\r\n",
        ] {
            malformed(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        }
    }

    #[test]
    fn a_length_above_the_limit_is_too_large_before_any_of_it_is_read() {
        for (length, problem) in [
            ("1000", None),
            ("0000001000", None),
            ("1001", Some(Problem::BodyTooLarge)),
            ("100000000000000", Some(Problem::BodyTooLarge)),
            ("18446744073709551615", Some(Problem::BodyTooLarge)),
            ("18446744073709551616", Some(Problem::BodyTooLarge)),
        ] {
            let text = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(head(&text).err(), problem, "{length}");
        }
    }

    #[test]
    fn transfer_encoding_needs_a_length_instead() {
        for lines in [
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\ntransfer-encoding: identity\r\n",
        ] {
            let text = format!("PUT / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(head(&text).err(), Some(Problem::LengthRequired));
        }
    }

    #[test]
    fn where_only_the_body_is_the_problem_the_head_is_known() {
        let origin = |length: &str| {
            let mut reader = Reader::default();
            let text = format!("PUT / HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n{length}\r\n\r\n");
            reader.push(text.as_bytes());
            let head = reader.head(&peer(), MAX_BODY).unwrap_err().head?;
            Some(head.header("origin")?.to_owned())
        };
        for length in [
            "Content-Length: 1001",
            "Content-Length: x",
            "Transfer-Encoding: chunked",
        ] {
            assert_eq!(origin(length).as_deref(), Some("http://b"), "{length}");
        }
        assert_eq!(origin("X : y"), None);
    }

    #[test]
    fn odd_headers_are_malformed() {
        for line in [
            "X : y",
            " X: y",
            "X",
            ": y",
            "X: y\r\n folded",
            "X: a\u{0}b",
            "X: a\rb",
            "X: a\u{7f}b",
            "X\u{e9}: y",
        ] {
            malformed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
        }
    }

    #[test]
    fn host_is_given_once() {
        malformed("GET / HTTP/1.1\r\n\r\n");
        malformed("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
        malformed("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n");
        assert_eq!(whole("GET / HTTP/1.0\r\n\r\n").head.header("host"), None);
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        for (target, host, path, query) in [
            ("http://b/x?y", "b", "/x", Some("y")),
            ("HTTP://b:80", "b:80", "/", None),
            ("https://[::1]:8080?q", "[::1]:8080", "/", Some("q")),
        ] {
            let arrival = whole(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(arrival.head.header("host"), Some(host));
            assert_eq!(arrival.head.path, path);
            assert_eq!(arrival.head.query.as_deref(), query);
        }
        let old = whole("GET http://b/ HTTP/1.0\r\n\r\n");
        assert_eq!(old.head.header("host"), Some("b"));
    }

    #[test]
    fn other_targets_are_malformed() {
        for (method, target) in [
            ("GET", "x"),
            ("GET", "*"),
            ("CONNECT", "a:80"),
            ("GET", "ftp://a/"),
            ("GET", "http:///x"),
            ("GET", "http://u@a/"),
            ("GET", "/a#b"),
            ("GET", "?a"),
        ] {
            malformed(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        assert_eq!(
            whole("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").head.path,
            "*"
        );
    }

    #[test]
    fn a_head_has_at_most_8_kib_and_64_headers() {
        let of_length = |length: usize| {
            let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
            let filler = "x".repeat(length - frame);
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {filler}\r\n\r\n")
        };
        whole(&of_length(8192));
        assert_eq!(head(&of_length(8193)).err(), Some(Problem::HeadTooLarge));
        assert_eq!(
            head(&"x".repeat(8192)).err(),
            Some(Problem::HeadTooLarge),
            "an endless request line"
        );
        let with_headers = |count: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(count - 1)
            )
        };
        whole(&with_headers(64));
        assert_eq!(head(&with_headers(65)).err(), Some(Problem::HeadTooLarge));
    }

    #[test]
    fn glued_requests_come_out_one_by_one() {
        let bytes = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c";
        let out = read([&bytes[..]]);
        assert_eq!(out.len(), 2);
        assert!(out[0].contains("/a") && out[0].ends_with("[97, 98, 99]"));
        assert!(out[1].contains("/b"));
    }

    /// Pieces of requests, good and bad, that glued together look like an attack.
    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let known = prop_oneof![
            Just("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"),
            Just("PUT /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"),
            Just("PUT /c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
            Just("GET http://b/ HTTP/1.0\nConnection: keep-alive\n\n"),
            Just("GET / HTTP/2.0\r\n\r\n"),
            Just("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Just("Content-Length: 7\r\n"),
            Just("Host: a\r\n"),
            Just("GET / HTTP/"),
            Just("\r\n"),
            Just("\n"),
            Just("\r"),
        ]
        .prop_map(|text| text.as_bytes().to_vec());
        let noise = prop::collection::vec(any::<u8>(), 0..40);
        let long = (any::<u8>(), 0..9000_usize).prop_map(|(byte, count)| vec![byte; count]);
        let one = prop_oneof![8 => known, 1 => noise, 1 => long];
        prop::collection::vec(one, 1..8).prop_map(|parts| parts.concat())
    }

    /// A good request: its bytes, its path and its body.
    fn good_request() -> impl Strategy<Value = (Vec<u8>, String, Vec<u8>)> {
        let name = "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}";
        // No header of ours by chance.
        let header =
            (name, "[ -~\t]{0,20}").prop_map(|(name, value)| format!("X{name}: {value}\r\n"));
        let headers = prop::collection::vec(header, 0..8).prop_map(|lines| lines.concat());
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            // What might be taken for a request of its own.
            Just(b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ];
        ("/[a-z0-9/%.-]{0,20}", headers, body).prop_map(|(path, headers, body)| {
            let length = body.len();
            let head = format!(
                "PUT {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n"
            );
            ([head.into_bytes(), body.clone()].concat(), path, body)
        })
    }

    /// What is done to the bytes of good requests.
    #[derive(Clone, Debug)]
    enum Mutation {
        Set(prop::sample::Index, u8),
        Insert(prop::sample::Index, Vec<u8>),
        Remove(prop::sample::Index, usize),
        Repeat(prop::sample::Index, usize),
    }

    fn mutation() -> impl Strategy<Value = Mutation> {
        let at = any::<prop::sample::Index>;
        let syntax = prop::sample::select(vec![
            "\r\n",
            "\n",
            "\r",
            "\0",
            " ",
            ":",
            "\r\n ",
            "\r\n\r\n",
            "Content-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Host: b\r\n",
        ]);
        prop_oneof![
            (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            (at(), syntax).prop_map(|(at, text)| Mutation::Insert(at, text.into())),
            (at(), 1..20_usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
            (at(), 1..60_usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        ]
    }

    fn mutate(bytes: &mut Vec<u8>, mutation: Mutation) {
        let index = |at: prop::sample::Index| at.index(bytes.len() + 1);
        match mutation {
            Mutation::Set(at, byte) => {
                let at = index(at);
                bytes.splice(at..bytes.len().min(at + 1), [byte]);
            }
            Mutation::Insert(at, more) => {
                let at = index(at);
                bytes.splice(at..at, more);
            }
            Mutation::Remove(at, count) => {
                let at = index(at);
                bytes.drain(at..bytes.len().min(at + count));
            }
            Mutation::Repeat(at, count) => {
                let at = index(at);
                let again = bytes[at..bytes.len().min(at + count)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }

    /// Good requests one behind the other, with some mistakes made in them.
    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let requests = prop::collection::vec(good_request(), 1..4);
        let mutations = prop::collection::vec(mutation(), 0..4);
        (requests, mutations).prop_map(|(requests, mutations)| {
            let mut bytes: Vec<u8> = requests
                .into_iter()
                .flat_map(|(bytes, _, _)| bytes)
                .collect();
            for mutation in mutations {
                mutate(&mut bytes, mutation);
            }
            bytes
        })
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|ends| &bytes[ends[0]..ends[1]])
            .collect()
    }

    fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
        prop::collection::vec(any::<prop::sample::Index>(), 0..12)
    }

    proptest! {
        #[test]
        fn the_split_makes_no_difference(bytes in fragments(), cuts in cuts()) {
            prop_assert_eq!(read(cut(&bytes, &cuts)), read([&bytes[..]]));
        }

        #[test]
        fn the_split_of_mutated_requests_makes_no_difference(bytes in mutated(), cuts in cuts()) {
            prop_assert_eq!(read(cut(&bytes, &cuts)), read([&bytes[..]]));
        }

        #[test]
        fn requests_come_out_as_they_were_sent_whatever_follows(
            requests in prop::collection::vec(good_request(), 1..4),
            rest in prop_oneof![mutated(), fragments()],
            cuts in cuts(),
        ) {
            let good: Vec<u8> = requests.iter().flat_map(|(bytes, _, _)| bytes.clone()).collect();
            let sent = [good, rest].concat();
            let out = read(cut(&sent, &cuts));
            prop_assert!(out.len() >= requests.len());
            for (line, (_, path, body)) in out.iter().zip(&requests) {
                prop_assert!(line.contains(&format!("path: {path:?},")), "{line}");
                prop_assert!(line.ends_with(&format!("}} {body:?}")), "{line}");
            }
        }

        #[test]
        fn what_was_read_stays_so_whatever_follows(bytes in mutated(), rest in mutated()) {
            let alone = read([&bytes[..]]);
            let followed = read([&bytes[..], &rest[..]]);
            prop_assert_eq!(&followed[..alone.len()], &alone[..]);
        }

        #[test]
        fn a_byte_at_a_time_makes_no_difference(bytes in fragments()) {
            // Each byte parses anew what is there: a bound keeps the test quick.
            let bytes = &bytes[..bytes.len().min(600)];
            prop_assert_eq!(read(bytes.chunks(1)), read([bytes]));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            read([&bytes[..]]);
        }
    }
}
