//! Holds answers against the description of the API: that they have a status, headers and a body which it has for what was
//! asked. [`Connection`](super::Connection) does so with every answer that a test gets.

use serde_json::Value;

use super::Reply;
use super::schema::{DOCUMENT, fits, resolved};

/// What was sent on a connection and is not answered yet.
#[derive(Default)]
pub struct Sent {
    bytes: Vec<u8>,
    /// Bytes of a body that are still to come, of a request that is answered.
    rest_of_body: usize,
}

/// A request as the daemon reads it.
pub struct Request {
    method: String,
    /// Below `/api` also where it was below `/api/v1`.
    path: String,
}

impl Sent {
    pub fn add(&mut self, bytes: &[u8]) {
        let passed = self.rest_of_body.min(bytes.len());
        self.rest_of_body -= passed;
        self.bytes.extend_from_slice(&bytes[passed..]);
    }

    /// Takes the request that is answered next; `None`: there is none that could be read.
    pub fn take(&mut self) -> Option<Request> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        let head_bytes = match parsed.parse(&self.bytes) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            _ => return None,
        };
        let length = parsed
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
        let request = Request {
            method: parsed.method?.to_owned(),
            path: path(parsed.path?),
        };
        let end = head_bytes.saturating_add(length.unwrap_or(0));
        self.rest_of_body = end.saturating_sub(self.bytes.len());
        self.bytes.drain(..end.min(self.bytes.len()));
        Some(request)
    }
}

/// The path of a request target.
fn path(target: &str) -> String {
    let target = match target.strip_prefix("http://") {
        Some(absolute) => absolute.find('/').map_or("/", |at| &absolute[at..]),
        None => target,
    };
    let path = target.split('?').next().expect("a split has a first part");
    match path.strip_prefix("/api/v1/") {
        Some(below) => format!("/api/{below}"),
        None => path.to_owned(),
    }
}

/// Checks an answer; `has_body` is false where the client read none.
#[track_caller]
pub fn check(request: Option<&Request>, reply: &Reply, has_body: bool) {
    if let Err(problem) = try_check(request, reply, has_body) {
        let asked = request.map_or("what was no request".to_owned(), |request| {
            format!("{} {}", request.method, request.path)
        });
        let body = String::from_utf8_lossy(&reply.body);
        let body: String = body.chars().take(2000).collect();
        let status = reply.status;
        panic!(
            "the answer {status} to {asked} is not as src/api/openapi.json has it: {problem}: change hxe, or that file\n{body}"
        );
    }
}

fn try_check(request: Option<&Request>, reply: &Reply, has_body: bool) -> Result<(), String> {
    let Some(response) = response(request, reply.status)? else {
        return Ok(());
    };
    check_headers(response, reply)?;
    check_body(response, reply, has_body)
}

/// What is said of answers with this status; `None`: no more than that there are some.
///
/// # Errors
/// There are none.
fn response(request: Option<&Request>, status: u16) -> Result<Option<&'static Value>, String> {
    let number = status.to_string();
    let item = request.and_then(|request| described(&request.path));
    let operation = request.zip(item).and_then(|(request, item)| {
        let method = match request.method.as_str() {
            "HEAD" => "get".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        item.get(&method)
    });
    if let Some(operation) = operation {
        let found = operation["responses"].get(&number).map(resolved);
        return found.map(Some).ok_or("no such status".to_owned());
    }
    let any = |name: &str| Ok(Some(&DOCUMENT["components"]["responses"][name]));
    match (status, request.map(|request| request.method.as_str())) {
        (404, Some(_)) => any("NotFound"),
        (405, Some(_)) if item.is_some() => any("MethodNotAllowed"),
        // That to a preflight request, or to who asks for the methods.
        (204, Some("OPTIONS")) => Ok(None),
        // What can become of every request is said with each operation. This one needs no token.
        _ => {
            let every = &DOCUMENT["paths"]["/api/auth/login"]["post"]["responses"];
            let found = every
                .get(&number)
                .filter(|_| ![200, 401, 507].contains(&status));
            found
                .map(resolved)
                .map(Some)
                .ok_or("no such status".to_owned())
        }
    }
}

/// What is said of a path.
fn described(path: &str) -> Option<&'static Value> {
    let is_it = |pattern: &str| {
        let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(name), Some(segment)) if name.starts_with('{') && !segment.is_empty() => {}
                (Some(name), Some(segment)) if name == segment => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object()?;
    let (_, item) = paths.iter().find(|(pattern, _)| is_it(pattern))?;
    Some(item)
}

fn check_headers(response: &'static Value, reply: &Reply) -> Result<(), String> {
    /// On any answer.
    const USUAL: [&str; 11] = [
        "access-control-allow-credentials",
        "access-control-allow-origin",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "server",
        "transfer-encoding",
        "vary",
        "x-content-type-options",
    ];
    let described = response.get("headers").and_then(Value::as_object);
    let mut known = Vec::new();
    for (name, header) in described.into_iter().flatten() {
        let (name, header) = (name.to_ascii_lowercase(), resolved(header));
        match reply.header(&name) {
            Some(text) => {
                let value = match header["schema"]["type"].as_str() {
                    Some("integer") => text.parse::<u64>().map_or(Value::Null, Value::from),
                    _ => Value::from(text),
                };
                fits(&header["schema"], &value, &name)?;
            }
            None if header["required"] == true => return Err(format!("{name} is missing")),
            None => {}
        }
        known.push(name);
    }
    for (name, _) in &reply.headers {
        if !USUAL.contains(&name.as_str()) && !known.contains(name) {
            return Err(format!("the header {name} is not described"));
        }
    }
    Ok(())
}

fn check_body(response: &'static Value, reply: &Reply, has_body: bool) -> Result<(), String> {
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        return match reply.body.is_empty() {
            true => Ok(()),
            false => Err("no body is described".to_owned()),
        };
    };
    let kind = reply.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let media = content.get(kind);
    let media = media.ok_or_else(|| format!("no body of type {kind:?} is described"))?;
    if !has_body || reply.header("content-encoding").is_some() {
        return Ok(());
    }
    let json = |bytes: &[u8]| {
        serde_json::from_slice(bytes).map_err(|error| format!("the body is not JSON: {error}"))
    };
    match kind {
        "application/json" => fits(&media["schema"], &json(&reply.body)?, "the body"),
        "application/x-ndjson" => {
            let lines = reply.body.split_inclusive(|byte| *byte == b'\n');
            lines.into_iter().try_for_each(|line| {
                fits(&media["x-itemSchema"], &json(line)?, "a line of the body")
            })
        }
        _ => Ok(()),
    }
}

#[test]
fn an_answer_that_is_not_described_is_found() {
    let checked = |request: &str, status: u16, headers: &[(&str, &str)], body: &str| {
        let mut sent = Sent::default();
        sent.add(request.as_bytes());
        let mut reply = Reply {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        };
        let headers = headers.iter();
        reply
            .headers
            .extend(headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        try_check(sent.take().as_ref(), &reply, true).err()
    };
    let list = "GET /api/v1/program?limit=1 HTTP/1.1\r\n\r\n";
    assert_eq!(checked(list, 200, &[], "[]"), None);
    for (expected, request, status, headers, body) in [
        ("no such status", list, 204, &[][..], ""),
        (
            "no such status",
            "GET /nothing HTTP/1.1\r\n\r\n",
            200,
            &[],
            "{}",
        ),
        ("no such status", "hello", 401, &[], "{}"),
        (
            "the body is {}, but \"type\" is \"array\"",
            list,
            200,
            &[],
            "{}",
        ),
        ("the body is not JSON", list, 200, &[], "["),
        (
            "the header x-new is not described",
            list,
            200,
            &[("x-new", "1")],
            "[]",
        ),
        ("www-authenticate is missing", list, 401, &[], "{}"),
        (
            "x-ratelimit-limit is null",
            list,
            200,
            &[("x-ratelimit-limit", "many")],
            "[]",
        ),
    ] {
        let problem = checked(request, status, headers, body).expect(expected);
        assert!(problem.contains(expected), "{problem}");
    }
    let error = r#"{"error":"bad_request","message":"No"}"#;
    assert_eq!(checked("hello\r\n\r\n", 400, &[], error), None);
}

#[test]
fn each_answer_is_held_against_its_own_request() {
    let mut sent = Sent::default();
    sent.add(b"POST /api/auth/login HTTP/1.1\r\nContent-Length: 4\r\n\r\n{}GET http://x/y?z HTTP/1.1\r\n\r\nPUT");
    let mut next = || {
        sent.take()
            .map(|request| request.method + " " + &request.path)
    };
    assert_eq!(next().as_deref(), Some("POST /api/auth/login"));
    // Two signs of what looked like the next request are of the body.
    assert_eq!(next().as_deref(), Some("T /y"));
    assert_eq!(next(), None);
    let mut sent = Sent::default();
    sent.add(b"POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n{");
    assert_eq!(sent.take().unwrap().path, "/a");
    sent.add(b"}..GET http://x/y?z HTTP/1.1\r\n\r\n");
    assert_eq!(sent.take().unwrap().path, "/y");
}
