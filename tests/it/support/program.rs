//! Programs as the tests define and watch them.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Daemon, Reply, until, until_some};

/// The body of a POST or PUT.
#[derive(Clone)]
pub struct Definition(pub Value);

impl Definition {
    pub fn new(name: &str, command: &str, args: &str) -> Definition {
        Definition(json!({"name": name, "command": command, "args": args}))
    }

    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Definition {
        self.0[field] = value.into();
        self
    }
}

/// A program that is a line of shell.
pub fn sh(name: &str, script: &str) -> Definition {
    let args = format!("-c {}", shell_words::quote(script));
    Definition::new(name, "/bin/sh", &args)
}

/// A program that does nothing until it is ended.
pub fn sleeper(name: &str) -> Definition {
    Definition::new(name, "/bin/sleep", "1000")
}

/// A program that ignores TERM.
pub fn stubborn(name: &str) -> Definition {
    sh(
        name,
        "trap '' TERM; echo ready; while :; do sleep 1000; done",
    )
}

/// A program of a daemon.
pub struct Program<'d> {
    pub daemon: &'d Daemon,
    pub id: String,
}

impl Program<'_> {
    pub fn path(&self, below: &str) -> String {
        format!("/api/program/{}{below}", self.id)
    }

    #[track_caller]
    pub fn get(&self) -> Value {
        self.daemon.get(&self.path("")).ok(200)
    }

    pub fn state(&self) -> String {
        self.get()["state"]
            .as_str()
            .expect("a state is a word")
            .to_owned()
    }

    pub fn status(&self) -> String {
        self.get()["status"]
            .as_str()
            .expect("a status is a word")
            .to_owned()
    }

    /// The process that runs, if one does.
    pub fn try_pid(&self) -> Option<i32> {
        let pid = self.get()["pid"].as_i64()?;
        Some(i32::try_from(pid).expect("a pid fits"))
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.try_pid().expect("the program runs")
    }

    /// Posts to `start`, `stop`, `restart`, `enable` or `disable`.
    pub fn post(&self, action: &str) -> Reply {
        self.daemon.post(&self.path(&format!("/{action}")), "")
    }

    /// Starts it, checked to have worked.
    #[track_caller]
    pub fn started(self) -> Self {
        self.post("start").ok(200);
        self
    }

    /// Stops it, checked to have worked.
    #[track_caller]
    pub fn stopped(&self) -> Value {
        self.post("stop").ok(200)
    }

    /// Waits for this `state`, and gives the program as it is then.
    #[track_caller]
    pub fn reaches(&self, state: &str) -> Value {
        // As it was seen: at a second look it may have gone on.
        until_some(|| Some(self.get()).filter(|program| program["state"] == state))
    }

    /// Waits for another process than this one.
    #[track_caller]
    pub fn other_pid(&self, pid: i32) -> i32 {
        until_some(|| self.try_pid().filter(|now| *now != pid))
    }

    /// How its last runs ended, newest first.
    #[track_caller]
    pub fn exits(&self) -> Vec<Value> {
        let json = self.daemon.get(&self.path("/exits")).ok(200);
        assert_eq!(json["program_id"], self.id.as_str());
        json["exits"].as_array().expect("exits are a list").clone()
    }

    /// Why they ended, newest first.
    #[track_caller]
    pub fn reasons(&self) -> Vec<String> {
        let exits = self.exits().into_iter();
        let reasons = exits.map(|exit| exit["reason"].as_str().expect("it is a word").to_owned());
        reasons.collect()
    }

    /// The entries of its log, as `query` (`?level=error`) selects them.
    #[track_caller]
    pub fn logs(&self, query: &str) -> Vec<Value> {
        let json = self
            .daemon
            .get(&self.path(&format!("/logs{query}")))
            .ok(200);
        assert_eq!(json["program_id"], self.id.as_str());
        json["logs"].as_array().expect("logs are a list").clone()
    }

    /// The messages of a stream, oldest first, at most 10,000.
    #[track_caller]
    pub fn messages(&self, stream: &str) -> Vec<String> {
        self.logs("?lines=10000")
            .into_iter()
            .filter(|entry| entry["stream"] == stream)
            .map(|entry| {
                entry["message"]
                    .as_str()
                    .expect("a message is text")
                    .to_owned()
            })
            .collect()
    }

    /// Waits until it has written this line.
    #[track_caller]
    pub fn says(&self, line: &str) {
        until(|| {
            self.messages("stdout")
                .iter()
                .any(|message| message == line)
        });
    }

    /// The same of a program that may still be to be created.
    #[track_caller]
    pub fn comes_and_says(&self, line: &str) {
        until(|| self.daemon.get(&self.path("")).status == 200);
        self.says(line);
    }

    /// The file that holds what it wrote to stdout.
    pub fn stdout_path(&self) -> PathBuf {
        self.daemon.log_dir().join(&self.id).join("stdout.log")
    }

    /// What it wrote to stdout, as it is on disk; empty as long as there is no file.
    pub fn stdout(&self) -> Vec<u8> {
        std::fs::read(self.stdout_path()).unwrap_or_default()
    }
}
