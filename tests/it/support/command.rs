//! `hxe` commands as people and scripts run them.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, PATIENCE, became, kill};

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// `None`: a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        String::from_utf8(self.stdout).expect("it is text")
    }

    /// Standard error of a command that failed with this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.stderr.is_empty(), "{self:?}");
        self.stderr
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("it is JSON")
    }

    /// Standard output as lines of tab-separated values.
    #[track_caller]
    pub fn tsv(self) -> Vec<Vec<String>> {
        let text = self.ok();
        let lines = text.lines();
        lines
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect()
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    readers: [JoinHandle<Vec<u8>>; 2],
}

impl Running {
    /// Starts a command; what it is given on standard input ends there.
    #[track_caller]
    pub fn start(mut command: Command, input: &[u8]) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut stdin = child.stdin.take().expect("it is piped");
        // What it does not read is of no interest.
        let _ = stdin.write_all(input);
        drop(stdin);
        let stdout = collect(child.stdout.take().expect("it is piped"));
        let stderr = collect(child.stderr.take().expect("it is piped"));
        Running {
            child,
            readers: [stdout, stderr],
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.child.id().cast_signed(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ends(mut self) -> Ran {
        let mut status = None;
        let ended = became(6 * PATIENCE, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        if !ended {
            self.signal(Signal::KILL);
        }
        let [stdout, stderr] = self.readers.map(|reader| reader.join().expect("it reads"));
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert!(ended, "it did not end: {stderr}");
        Ran {
            code: status.expect("it has ended").code(),
            stdout,
            stderr,
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// `hxe ARGS` with nothing else in its environment than a home directory.
pub fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hxe"));
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .current_dir("/");
    command
}

impl Daemon {
    /// `hxe ARGS`, to be changed and started.
    pub fn command(&self, args: &[&str]) -> Command {
        command(&self.setup.path("scratch"), args)
    }

    /// `hxe --config FILE ARGS`, to be changed and started: over the socket, if nothing else is said.
    pub fn local_command(&self, args: &[&str]) -> Command {
        let config = self.setup.path("hxe.toml");
        let mut command = self.command(&["--config"]);
        command.arg(config).args(args);
        command
    }

    /// Runs `hxe --config FILE ARGS` to its end.
    #[track_caller]
    pub fn hxe(&self, args: &[&str]) -> Ran {
        Running::start(self.local_command(args), b"").ends()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
