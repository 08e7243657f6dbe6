//! A process whose output is collected.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{became, kill};

/// A process whose output is collected.
pub struct Running {
    child: Child,
    output: Arc<Mutex<String>>,
    collectors: [thread::JoinHandle<()>; 2],
}

impl Running {
    pub fn spawn(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is there");
        let output = Arc::new(Mutex::new(String::new()));
        let collectors = [
            collect(child.stdout.take(), &output),
            collect(child.stderr.take(), &output),
        ];
        Running {
            child,
            output,
            collectors,
        }
    }

    /// What it has said so far; all of it once it has ended.
    pub fn output(&self) -> String {
        self.output
            .lock()
            .expect("collecting does not panic")
            .clone()
    }

    /// The address in the line that says that the daemon can answer. That line comes on standard output and on standard
    /// error, and once it has come on both, all that was said before it is there, too.
    pub fn address(&self) -> Option<SocketAddr> {
        let output = self.output();
        let mut said = output.lines().filter_map(|line| {
            let address = line.strip_prefix("hxe: listening on http://")?;
            address.trim_end_matches('/').parse().ok()
        });
        said.nth(1)
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    pub fn ends(&mut self, patience: Duration) -> Option<ExitStatus> {
        let mut status = None;
        became(patience, || {
            status = self.ended();
            status.is_some()
        });
        status?;
        became(patience, || {
            self.collectors.iter().all(|thread| thread.is_finished())
        });
        status
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the child is ours");
    }
}

/// Collects lines until the other end closes.
fn collect(
    pipe: Option<impl Read + Send + 'static>,
    output: &Arc<Mutex<String>>,
) -> thread::JoinHandle<()> {
    let mut lines = BufReader::new(pipe.expect("it is piped"));
    let output = output.clone();
    thread::spawn(move || {
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            *output.lock().expect("nobody panics with it") += &String::from_utf8_lossy(&line);
            line.clear();
        }
    })
}
