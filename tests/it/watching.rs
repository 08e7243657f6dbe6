use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::{Daemon, Value, sh, sleeper, until};

/// A command that goes on, and the lines that it has printed.
struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    fn start(daemon: &Daemon, args: &[&str]) -> Watch {
        let mut command = daemon.local_command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in out.lines() {
                let line = line.expect("it is text");
                kept.lock().expect("nobody panics with it").push(line);
            }
        });
        Watch { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics with it").clone()
    }

    fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn logs_show_the_last_lines_as_asked_for() {
    let daemon = Daemon::start();
    let script = "echo one; echo two; echo three; echo 'WARN: four'; echo five >&2";
    let program = daemon.create(&sh("a", script)).started();
    program.reaches("exited");
    let lines = daemon.hxe(&["logs", "a"]).ok();
    for line in [
        "one",
        "two",
        "three",
        "WARN: four",
        "five",
        "Program started successfully",
    ] {
        assert!(lines.lines().any(|shown| shown == line), "{lines}");
    }
    assert_eq!(daemon.hxe(&["logs", "-n2", "a"]).ok().lines().count(), 2);
    assert_eq!(
        daemon
            .hxe(&["logs", "--level=warn,error", "a"])
            .ok()
            .lines()
            .count(),
        2
    );
    let timed = daemon.hxe(&["logs", "-t", "--level", "warn", "a"]).ok();
    let (time, rest) = timed.split_once(' ').unwrap();
    humantime::parse_rfc3339(time).expect("RFC 3339, UTC");
    assert_eq!(rest, "WARN: four\n");
    let rows = daemon
        .hxe(&["logs", "--level=warn", "--format=tsv", "a"])
        .tsv();
    assert_eq!(rows[0][1..], ["warn", "stdout", "WARN: four"]);
    let json = daemon
        .hxe(&["logs", "--level=warn", "--format=json", "a"])
        .json();
    assert_eq!(json["message"], "WARN: four");
    daemon.hxe(&["logs", "nobody"]).fails(4);
    daemon.hxe(&["logs", "-nmany", "a"]).fails(2);
    daemon.hxe(&["logs", "--level=loud", "a"]).fails(2);
}

#[test]
fn followed_logs_go_on_until_the_program_is_deleted() {
    let daemon = Daemon::start();
    let go = daemon.scratch("go");
    let script = format!(
        "echo first; until [ -e {} ]; do sleep 0.02; done; echo second; exec sleep 1000",
        go.display()
    );
    let program = daemon.create(&sh("a", &script)).started();
    program.says("first");
    let mut watch = Watch::start(&daemon, &["logs", "-f", "a"]);
    until(|| watch.has("first"));
    std::fs::write(&go, "").unwrap();
    until(|| watch.has("second"));
    daemon.hxe(&["delete", "a"]).ok();
    let mut status = None;
    until(|| {
        status = watch.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn events_are_printed_as_they_happen() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    daemon.create(&sleeper("b"));
    let all = Watch::start(&daemon, &["events", "--format=json"]);
    let one = ["events", "--format=tsv", "--type=program.stopped", "b"];
    let one = Watch::start(&daemon, &one);
    // Again until both listen: what happened before is not theirs.
    until(|| {
        daemon.hxe(&["restart", "-q", "a"]).ok();
        daemon.hxe(&["start", "-q", "b"]).ok();
        daemon.hxe(&["stop", "-q", "b"]).ok();
        all.has("program.restarted") && one.has("program.stopped")
    });
    let line = all
        .lines()
        .into_iter()
        .find(|line| line.contains("restarted"));
    let heard: Value = serde_json::from_str(&line.unwrap()).expect("it is JSON");
    assert_eq!(heard["program_id"], "program-1");
    assert_eq!(heard["data"]["name"], "a");
    for line in one.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(
            fields[1..4],
            ["program.stopped", "program-2", "b"],
            "{line}"
        );
    }
    daemon.hxe(&["events", "nobody"]).fails(4);
}

#[test]
fn metrics_are_of_the_machine_of_some_or_of_all_that_run() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("up")).started();
    daemon.create(&sleeper("down"));
    let system = daemon.hxe(&["metrics", "--format=json"]).json();
    assert_eq!(system["programs"]["total"], 2);
    let lines = daemon.hxe(&["metrics", "--system", "--format=tsv"]).tsv();
    assert!(
        lines.contains(&vec!["running".to_owned(), "1".to_owned()]),
        "{lines:?}"
    );
    let one = daemon.hxe(&["metrics", "down", "--format=json"]).json();
    assert_eq!(one["program_id"], "program-2");
    let rows = daemon.hxe(&["metrics", "--all", "--format=tsv"]).tsv();
    assert_eq!((rows.len(), rows[0][1].as_str()), (1, "up"));
    until(|| {
        let rows = daemon.hxe(&["metrics", "up", "--format=tsv"]).tsv();
        rows[0][3].parse::<u64>().unwrap() > 0
    });
    daemon.hxe(&["metrics", "--all", "up"]).fails(2);
    daemon.hxe(&["metrics", "nobody"]).fails(4);
}
