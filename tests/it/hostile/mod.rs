//! Clients that mean harm, and what good ones notice of them. Figures: `scripts/bench/hostile.py`.

/// Bodies: slow, large, deep, and of lengths that cannot be.
mod bodies;
/// Connections: many, idle, half-open, slow, reset, unread.
mod connections;
/// As few descriptors as can be.
mod descriptors;
/// What is on every answer.
mod headers;
/// Guessed passwords and forged tokens.
mod login;
/// Bytes that are no request, or more than one.
mod requests;

use std::fs;
use std::net::TcpStream;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Connection, Daemon, Value, is_alive, sleeper, status_field, until_some};

/// What a good client asks during an attack; the attack goes on for so long.
const GOOD_REQUESTS: usize = 40;
/// Of these, each so many-th restarts a program.
const RESTART_EVERY: usize = 10;
/// What the daemon may grow by in an attack.
const MOST_KIB: u64 = 16 * 1024;
/// Threads that it may start: a password check, two searches of logs.
const MOST_THREADS: u64 = 3;

/// Attacks a daemon: `begin` prepares, `go_on` is repeated for as long as a good client asks and restarts a program. Each of
/// its requests must be answered, and the daemon be the same at the end, and hardly larger.
fn besiege<T>(daemon: &Daemon, begin: impl FnOnce() -> T, mut go_on: impl FnMut(&mut T)) {
    let program = daemon.create(&sleeper("good")).started();
    daemon.get("/api/program").ok(200);
    let server = daemon.server_pid();
    let before = figures(server);
    let mut attack = begin();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let good = scope.spawn(|| {
            let _done = SetAtEnd(&done);
            let mut threads = 0;
            for number in 0..GOOD_REQUESTS {
                let pid = ask(daemon, "GET", &program.path(""))["pid"].clone();
                assert!(pid.is_number());
                if number % RESTART_EVERY == 0 {
                    ask(daemon, "POST", &program.path("/restart"));
                    let now = ask(daemon, "GET", &program.path(""))["pid"].clone();
                    assert!(now.is_number() && now != pid, "{now}");
                }
                threads = threads.max(figures(server).threads);
            }
            threads
        });
        while !done.load(Ordering::Relaxed) {
            go_on(&mut attack);
        }
        let threads = good.join().unwrap_or_else(|panic| resume_unwind(panic));
        let most = before.threads + MOST_THREADS;
        assert!(threads <= most, "{threads} threads, {before:?} before");
    });
    drop(attack);
    assert!(is_alive(server), "it is the same process");
    let peak = figures(server).peak_kib;
    assert!(
        peak < before.resident_kib + MOST_KIB,
        "{peak} KiB at most, {before:?} before"
    );
    ask(daemon, "GET", "/api/program");
}

/// Sets a flag also where its thread panics.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a process takes. Source: proc_pid_status(5).
#[derive(Clone, Copy, Debug)]
struct Figures {
    resident_kib: u64,
    /// The most that was ever resident.
    peak_kib: u64,
    threads: u64,
}

fn figures(pid: i32) -> Figures {
    let field = |name| {
        let text = status_field(pid, name).expect("the daemon lives");
        let number = text.split(' ').next().expect("a split has a first part");
        number.parse().expect("it is a number")
    };
    Figures {
        resident_kib: field("VmRSS"),
        peak_kib: field("VmHWM"),
        threads: field("Threads"),
    }
}

/// Open descriptors of a process.
fn descriptors(pid: i32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon lives and is ours");
    all.count()
}

/// Connections that are held open, and opened again once they are closed.
struct Held<'a> {
    daemon: &'a Daemon,
    /// What each sends first.
    opening: Vec<u8>,
    streams: Vec<TcpStream>,
    next: usize,
}

impl<'a> Held<'a> {
    fn open(daemon: &'a Daemon, count: usize, opening: impl Into<Vec<u8>>) -> Held<'a> {
        let mut held = Held {
            daemon,
            opening: opening.into(),
            streams: Vec::new(),
            next: 0,
        };
        held.streams = (0..count).map(|_| held.another()).collect();
        held
    }

    fn another(&self) -> TcpStream {
        let mut connection = self.daemon.connect();
        connection.send(&self.opening);
        connection.into_stream()
    }

    /// Looks after the next one: sends `more`, or opens another one in its place.
    fn tend(&mut self, more: &[u8]) {
        let at = self.next % self.streams.len();
        self.next += 1;
        let mut stream = &self.streams[at];
        stream.set_nonblocking(true).expect("it is a socket");
        let lost = match std::io::Read::read(&mut stream, &mut [0; 1024]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if lost || std::io::Write::write_all(&mut stream, more).is_err() {
            self.streams[at] = self.another();
        }
    }
}

/// Opens a connection, sends this and reads the answer: its status, or 0 if it was closed without one.
fn status(daemon: &Daemon, bytes: impl AsRef<[u8]>) -> u16 {
    let reply = daemon.sent(bytes).reply_or_end();
    reply.map_or(0, |reply| reply.status)
}

/// Asks with the daemon's token, as a good client does: if its connection is closed before there is an answer, as the one
/// that has gone longest without a request on a machine that is too busy to send it, it asks again.
fn ask(daemon: &Daemon, method: &str, path: &str) -> Value {
    let token = authorization(daemon);
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n\r\n");
    until_some(|| daemon.sent(&request).reply_or_end()).ok(200)
}

/// Lets this process, which all tests share, open so many files. Returns whether it may; if not, says so.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|hard| hard < files) {
        eprintln!("skipped: {files} open files are needed, see ulimit -Hn");
        return false;
    }
    if limit.current.is_some_and(|soft| soft < files) {
        let raised = Rlimit {
            current: Some(files),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("it is below the hard limit");
    }
    true
}

/// The head of a POST with a body of this length.
fn post(path: &str, headers: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n")
}

fn authorization(daemon: &Daemon) -> String {
    format!("Authorization: Bearer {}\r\n", daemon.token())
}

/// The same numbers each time. Source: Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Resets the connection: what was sent and is not read yet is lost.
fn reset(connection: Connection) {
    let stream = connection.into_stream();
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))
        .expect("it is a socket");
}
