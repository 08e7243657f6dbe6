use std::fs;
use std::io::Read;
use std::process::{ChildStdout, Stdio};

use rustix::process::Signal;

use crate::support::command::Running;
use crate::support::{Daemon, Setup, is_alive, kill, sh, until, until_some};

/// Starts `hxe run` with these arguments.
fn start(daemon: &Daemon, args: &[&str]) -> Running {
    let mut command = daemon.local_command(&["run"]);
    command.args(args);
    Running::start(command, b"")
}

#[test]
fn a_command_has_its_output_and_its_exit_code_and_is_gone_afterwards() {
    let daemon = Daemon::start();
    let script = r"printf 'a\0b\377\033[2Jno line end'; printf 'to stderr' >&2; exit 7";
    let ran = start(&daemon, &["sh", "-c", script]).ends();
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert_eq!(ran.stdout, b"a\0b\xff\x1b[2Jno line end");
    assert_eq!(ran.stderr, "to stderr");
    assert!(daemon.list("").is_empty());
    let ran = start(&daemon, &["sh", "-c", "kill -KILL $$"]).ends();
    assert_eq!(ran.code, Some(128 + 9), "{ran:?}");
    assert_eq!(start(&daemon, &["true"]).ends().ok(), "");
    assert!(daemon.list("").is_empty());
}

#[test]
fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let daemon = Daemon::start();
    for args in [&["/nowhere/at/all"][..], &["-b", "/nowhere/at/all"]] {
        let said = start(&daemon, args).ends().fails(1);
        assert!(said.contains("No such file"), "{said}");
    }
    start(&daemon, &[]).ends().fails(2);
    daemon.create(&sh("taken", "exit 0"));
    start(&daemon, &["-n", "taken", "true"]).ends().fails(5);
    assert_eq!(daemon.list(""), ["taken"]);
}

#[test]
fn options_behind_the_command_are_its_own_and_those_before_it_ours() {
    let daemon = Daemon::start();
    let script = "echo $A $(pwd) $1";
    let args = [
        "-eA=b",
        "--directory",
        "/tmp",
        "sh",
        "-c",
        script,
        "sh",
        "--name",
    ];
    assert_eq!(start(&daemon, &args).ends().ok(), "b /tmp --name\n");
}

/// `hxe run seq 1 200000`, far more than its daemon keeps: `first` says when to read, and reads as much as it likes.
fn read_late(first: impl Fn(&Daemon, &mut ChildStdout, &mut Vec<u8>)) {
    let setup = Setup::new()
        .key("logs", "max_size", "\"64KiB\"")
        .key("logs", "max_files", 2);
    let daemon = setup.start();
    let mut command = daemon.local_command(&["run", "seq", "1", "200000"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut out = Vec::new();
    first(&daemon, &mut stdout, &mut out);
    stdout.read_to_end(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let (got, wanted) = (out.len(), expected.len());
    assert!(out == expected.as_bytes(), "{got} bytes of {wanted}");
}

#[test]
fn more_than_is_kept_comes_whole_also_to_one_who_reads_late() {
    read_late(|daemon, _, _| {
        let rotated = daemon.log_dir().join("program-1/stdout.log.2");
        until(|| rotated.exists());
    });
}

#[test]
fn what_a_run_that_has_ended_left_in_its_pipe_comes_too() {
    read_late(|daemon, stdout, out| {
        let program = daemon.program("program-1");
        until(|| daemon.get(&program.path("")).status == 200);
        let pid = until_some(|| program.try_pid());
        let mut piece = [0; 16 * 1024];
        // As slowly as it takes for the process to end before its output is read.
        while is_alive(pid) {
            let count = stdout.read(&mut piece).unwrap();
            assert!(count > 0, "it has ended before");
            out.extend_from_slice(&piece[..count]);
        }
        until(|| program.state() == "exited");
    });
}

#[test]
fn an_interrupt_before_it_is_started_is_not_lost() {
    let daemon = Daemon::start();
    let server = daemon.server_pid();
    kill(server, Signal::STOP);
    let mut command = daemon.local_command(&["run", "sleep", "1000"]);
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    until(|| {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        caught & 1 << (Signal::TERM.as_raw() - 1) != 0
    });
    kill(child.id().cast_signed(), Signal::TERM);
    kill(server, Signal::CONT);
    let ended = until_some(|| child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(128 + 15));
    assert!(daemon.list("").is_empty());
}

#[test]
fn an_interrupt_stops_it() {
    let daemon = Daemon::start();
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.02; done";
    let running = start(&daemon, &["-n", "a", "sh", "-c", script]);
    daemon.program("program-1").comes_and_says("ready");
    running.signal(Signal::INT);
    let ran = running.ends();
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert_eq!(ran.stdout, b"ready\nbye\n");
    assert!(daemon.list("").is_empty());
}

#[test]
fn it_is_gone_also_where_the_command_is_killed() {
    let daemon = Daemon::start();
    let running = start(
        &daemon,
        &["-n", "a", "sh", "-c", "echo ready; exec sleep 1000"],
    );
    daemon.program("program-1").comes_and_says("ready");
    let pid = until_some(|| daemon.program("a").try_pid());
    running.signal(Signal::KILL);
    assert_eq!(running.ends().code, None);
    until(|| daemon.list("").is_empty());
    until(|| !is_alive(pid));
}

#[test]
fn in_the_background_it_stays() {
    let daemon = Daemon::start();
    let out = start(&daemon, &["-b", "--name=a", "sleep", "1000"])
        .ends()
        .ok();
    assert!(out.starts_with("a: started (program-1, pid "), "{out}");
    assert_eq!(daemon.program("a").status(), "running");
    let out = start(&daemon, &["-b", "sleep", "1000"]).ends().ok();
    assert!(out.starts_with("run-sleep-"), "{out}");
    assert_eq!(daemon.list("").len(), 2);
}

#[test]
fn it_goes_on_over_another_daemon() {
    let daemon = Daemon::start();
    let go = daemon.scratch("go");
    let script = format!(
        "echo first; until [ -e {} ]; do sleep 0.02; done; echo second; exit 4",
        go.display()
    );
    let running = start(&daemon, &["-n", "a", "sh", "-c", &script]);
    daemon.program("program-1").comes_and_says("first");
    let pid = daemon.server_pid();
    kill(pid, Signal::KILL);
    until(|| daemon.server_pid() != pid && daemon.program("a").status() == "running");
    std::fs::write(&go, "").unwrap();
    let ran = running.ends();
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(ran.stdout, b"first\nsecond\n");
}

#[test]
fn a_reader_that_leaves_ends_it() {
    let daemon = Daemon::start();
    let mut command = daemon.local_command(&["run", "sh", "-c", "while :; do echo y; done"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    std::io::Read::read_exact(&mut child.stdout.as_mut().unwrap(), &mut some).unwrap();
    drop(child.stdout.take());
    let mut status = None;
    until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(daemon.list("").is_empty());
}

#[test]
fn output_is_given_from_where_it_is_asked_for() {
    let setup = Setup::new()
        .key("logs", "max_size", "\"64KiB\"")
        .key("logs", "max_files", 2);
    let daemon = setup.start();
    let program = daemon
        .create(&sh("a", "printf abcdef; printf xyz >&2"))
        .started();
    program.reaches("exited");
    let output = |query: &str| daemon.get(&program.path(&format!("/output{query}")));
    for (query, expected) in [
        ("", "abcdef"),
        ("?stream=stdout&from=0", "abcdef"),
        ("?stream=stderr", "xyz"),
        ("?from=4", "ef"),
        ("?from=6", ""),
        ("?from=700", ""),
        ("?from=end", ""),
    ] {
        assert_eq!(output(query).expect(200).text(), expected, "{query}");
    }
    for query in ["?stream=hxe", "?from=-1", "?from=x", "?lines=1"] {
        output(query).error(400, "validation_error");
    }
    let path = program.path("/output");
    daemon
        .request("GET", &path, "", "")
        .error(401, "authentication_error");
    daemon
        .get("/api/program/nobody/output")
        .error(404, "not_found");
    // Once some may be gone, nobody knows where a place is.
    let program = daemon.create(&sh("b", "seq 1 60000")).started();
    program.reaches("exited");
    let path = |query: &str| program.path(&format!("/output{query}"));
    daemon.get(&path("?from=1000")).error(400, "invalid_state");
    let kept = daemon.get(&path("")).expect(200).text().to_owned();
    assert!(kept.ends_with("\n59999\n60000\n"), "{}", kept.len());
}
