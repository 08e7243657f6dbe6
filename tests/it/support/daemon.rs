//! The real `hxe daemon`, in a directory of its own, ended with the test.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::running::Running;
use super::{
    Connection, Definition, PATIENCE, Program, Reply, Setup, became, cgroups_of_runs, children,
    is_alive, kill, processes_using, status_field, until, until_some,
};

/// Two daemons: with cgroups, where this machine has them for us, and as on one without.
pub fn both_ways() -> [Daemon; 2] {
    [Daemon::start(), Setup::without_cgroups().start()]
}

/// A running daemon.
pub struct Daemon {
    pub setup: Setup,
    running: Running,
    /// The process that was started; of a namespace, its first.
    pid: i32,
    pub address: SocketAddr,
    token: OnceLock<String>,
    ended: bool,
    /// Its programs are another daemon's by now.
    succeeded: bool,
}

impl Daemon {
    pub(super) fn new(setup: Setup, running: Running, address: SocketAddr) -> Daemon {
        let pid = match setup.is_process_1() {
            true => children(running.pid())[0],
            false => running.pid(),
        };
        Daemon {
            setup,
            running,
            pid,
            address,
            token: OnceLock::new(),
            ended: false,
            succeeded: false,
        }
    }

    /// Starts one as most tests need it: on a free port of loopback, without a rate limit.
    #[track_caller]
    pub fn start() -> Daemon {
        Setup::new().start()
    }

    pub fn log_dir(&self) -> PathBuf {
        self.setup.path("log")
    }

    /// A path where programs of any user may write.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.setup.path("scratch").join(name)
    }

    /// The process that was started: the guardian, unless there is none.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills the process that serves, and keeps its guardian from starting another one until `then` is done.
    pub fn without_server(&self, then: impl FnOnce()) {
        let server = self.server_pid();
        self.signal(Signal::STOP);
        kill(server, Signal::KILL);
        until(|| !is_alive(server));
        then();
        self.signal(Signal::CONT);
    }

    /// The process that serves. With a guardian it can be away for a moment.
    pub fn server_pid(&self) -> i32 {
        // Not by `exe`: at that of a daemon that has started a program as another user nobody may look but root with
        // CAP_SYS_PTRACE, which root in a container lacks. In a namespace of its own the guardian bears another number.
        let is_server = |pid: i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0--guardian\0")
        };
        until_some(|| {
            let mut children = children(self.pid()).into_iter();
            match self.setup.is_guarded() {
                true => children.find(|child| is_alive(*child) && is_server(*child)),
                false => Some(self.pid()),
            }
        })
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        self.running.output()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Sends raw bytes on a new connection, and gives it.
    pub fn sent(&self, bytes: impl AsRef<[u8]>) -> Connection {
        let mut connection = self.connect();
        connection.send(bytes);
        connection
    }

    /// A token of its administrator, the same each time.
    pub fn token(&self) -> &str {
        self.token.get_or_init(|| self.login())
    }

    /// A new token.
    #[track_caller]
    pub fn login(&self) -> String {
        let password = self.setup.password();
        let body = json!({"username": "admin", "password": password}).to_string();
        let reply = self.request("POST", "/api/auth/login", "", &body).ok(200);
        reply["token"].as_str().expect("a token is text").to_owned()
    }

    /// Sends one request on a connection of its own. `headers` are whole lines, each with its end.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n"
        );
        let mut connection = self.connect();
        connection.send(format!("{head}{headers}\r\n{body}"));
        if method == "HEAD" {
            connection.head_reply()
        } else {
            connection.reply()
        }
    }

    /// Sends one request with this token.
    #[track_caller]
    pub fn with_token(&self, token: &str, method: &str, path: &str, body: &str) -> Reply {
        let header = format!("Authorization: Bearer {token}\r\n");
        self.request(method, path, &header, body)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.with_token(self.token(), "GET", path, "")
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.with_token(self.token(), "POST", path, body)
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Reply {
        self.with_token(self.token(), "PUT", path, &body.to_string())
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.with_token(self.token(), "DELETE", path, "")
    }

    /// Asks for a program to be created.
    #[track_caller]
    pub fn try_create(&self, definition: &Definition) -> Reply {
        self.post("/api/program", &definition.0.to_string())
    }

    /// Creates a program.
    #[track_caller]
    pub fn create(&self, definition: &Definition) -> Program<'_> {
        let json = self.try_create(definition).ok(201);
        self.program(json["id"].as_str().expect("an id is text"))
    }

    /// The program with this id or name.
    pub fn program(&self, id: &str) -> Program<'_> {
        Program {
            daemon: self,
            id: id.to_owned(),
        }
    }

    /// The names of the programs that a list with this query (`?limit=1`) shows.
    #[track_caller]
    pub fn list(&self, query: &str) -> Vec<String> {
        let json = self.get(&format!("/api/program{query}")).ok(200);
        let names = json.as_array().expect("a list is a list").iter();
        names
            .map(|program| program["name"].as_str().expect("a name is text").to_owned())
            .collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal);
    }

    /// Has it read this configuration in place of its own.
    #[track_caller]
    pub fn reload(&mut self, setup: Setup) {
        let said = "the configuration has been read again";
        let before = self.output().matches(said).count();
        setup.write();
        self.signal(Signal::HUP);
        until(|| self.output().matches(said).count() > before);
        self.setup = setup;
    }

    /// How many of its threads have names that begin so.
    pub fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server_pid())).expect("it runs");
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|comm| comm.starts_with(name))
            .count()
    }

    /// Memory that it has in RAM.
    pub fn resident_kib(&self) -> u64 {
        let value = status_field(self.server_pid(), "VmRSS").expect("it runs");
        let number = value.strip_suffix(" kB").expect("in kB");
        number.parse().expect("a number")
    }

    /// Waits for its end: its exit code.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let status = self.running.ends(2 * PATIENCE).expect("it ends in time");
        self.ended = true;
        status.code()
    }

    /// Ends it as an init does: its exit code.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ends()
    }

    /// Ends it and starts it again, on the same directories.
    #[track_caller]
    pub fn restart(mut self) -> Daemon {
        assert_eq!(self.stop(), Some(0));
        let setup = self.setup.clone();
        // Before the next one starts, as this looks for processes that are left.
        drop(self);
        setup.start()
    }

    /// Kills it, with no chance to do anything about it.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.ends(), None);
    }

    /// Starts another one on the same directories, where this one has ended and left its programs running.
    #[track_caller]
    pub fn succeed(mut self) -> Daemon {
        assert!(self.ended, "one daemon at a time");
        self.succeeded = true;
        self.setup.clone().start()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.succeeded {
            return;
        }
        let panicking = thread::panicking();
        let mut in_time = true;
        if !self.ended {
            self.signal(Signal::TERM);
            in_time = self.running.ends(2 * PATIENCE).is_some();
            if !in_time {
                self.running.kill();
            }
        }
        let left = processes_using(&self.setup.path(""));
        for pid in &left {
            kill(*pid, Signal::KILL);
        }
        // A daemon that was killed for good leaves them; they can go once nothing is in them.
        let cgroups = cgroups_of_runs(&self.setup.path("run"));
        let empty = became(PATIENCE, || {
            cgroups.iter().all(|dir| match fs::remove_dir(dir) {
                Ok(()) => true,
                Err(error) => error.kind() == ErrorKind::NotFound,
            })
        });
        if panicking {
            eprintln!("the daemon said:\n{}", self.output());
        } else {
            assert!(in_time, "the daemon did not stop:\n{}", self.output());
            assert!(empty, "cgroups are in use: {cgroups:?}");
            assert!(left.is_empty(), "left running: {left:?}\n{}", self.output());
        }
    }
}
