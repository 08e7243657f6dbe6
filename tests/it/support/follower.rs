//! A client that follows a log.

use std::collections::VecDeque;

use serde_json::Value;

use super::{Connection, Program, Reply, schema};

/// An answer that goes on, line by line.
pub struct Follower {
    connection: Connection,
    pub head: Reply,
    /// What has come and was not taken.
    rest: VecDeque<u8>,
}

impl Follower {
    /// Follows a program's log; `query` as in `&lines=3`, `headers` whole lines.
    #[track_caller]
    pub fn open(program: &Program, query: &str, headers: &str) -> Follower {
        let path = program.path(&format!("/logs?follow=true{query}"));
        Follower::with_token(program.daemon.token(), program, &path, headers)
    }

    #[track_caller]
    pub fn with_token(token: &str, program: &Program, path: &str, headers: &str) -> Follower {
        let mut connection = program.daemon.sent(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        ));
        let head = connection.head_reply().expect(200);
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        Follower {
            connection,
            head,
            rest: VecDeque::new(),
        }
    }

    /// The next line; `None` once there will be no more.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                let line = String::from_utf8(line).expect("answers are UTF-8");
                return Some(line.trim_end_matches('\n').to_owned());
            }
            match self.connection.chunk() {
                Some(chunk) => self.rest.extend(chunk),
                None => {
                    assert!(self.rest.is_empty(), "the answer ends within a line");
                    return None;
                }
            }
        }
    }

    /// The next entry.
    #[track_caller]
    pub fn entry(&mut self) -> Value {
        let line = self.line().expect("the stream goes on");
        let entry = serde_json::from_str(&line);
        let entry = entry.unwrap_or_else(|error| panic!("{error} in {line:?}"));
        schema::check("LogEntry", &entry);
        entry
    }

    /// The message of the next entry.
    #[track_caller]
    pub fn message(&mut self) -> String {
        let entry = self.entry();
        let message = entry["message"].as_str();
        message.expect("a message is text").to_owned()
    }

    /// Reads on until this message comes, and gives all before it.
    #[track_caller]
    pub fn until(&mut self, message: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            match self.message() {
                found if found == message => return before,
                other => before.push(other),
            }
        }
    }

    /// Whether it ends here, as an answer should.
    pub fn is_over(&mut self) -> bool {
        self.line().is_none()
    }
}
