//! How a stop goes: what is sent to the process when, and who waits for it.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Daemon, Program, both_ways, comes_to_rest, kill, sleeper, status_field, stubborn, until,
};

#[test]
fn what_ignores_term_is_killed_after_the_timeout() {
    for daemon in both_ways() {
        let program = daemon
            .create(&stubborn("a").with("stop_timeout", "200ms"))
            .started();
        program.says("ready");
        let begin = Instant::now();
        let json = program.stopped();
        assert!(begin.elapsed() >= Duration::from_millis(200));
        assert_eq!(json["exit_code"], 128 + 9);
        assert_eq!(json["status"], "stopped");
    }
}

#[test]
fn a_stopped_process_is_woken_to_end() {
    for daemon in both_ways() {
        let program = daemon
            .create(&sleeper("a").with("stop_timeout", "1h"))
            .started();
        let pid = program.pid();
        kill(pid, Signal::STOP);
        until(|| status_field(pid, "State").is_some_and(|s| s.starts_with('T')));
        assert_eq!(program.stopped()["exit_code"], 128 + 15);
    }
}

#[test]
fn a_second_stop_joins_the_first_and_force_kills_at_once() {
    for daemon in both_ways() {
        let program = daemon
            .create(&stubborn("a").with("stop_timeout", "1h"))
            .started();
        program.says("ready");
        let stops = [0, 1].map(|_| {
            let (path, token) = (program.path("/stop"), daemon.token());
            daemon.sent(format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            ))
        });
        program.reaches("stopping");
        assert_eq!(program.status(), "running");
        // One that came after the end would have nothing to stop.
        comes_to_rest(daemon.server_pid());
        let forced = program.post("stop?force=true").ok(200);
        for mut stop in stops {
            let json = stop.reply().ok(200);
            assert_eq!(json["exit_code"], 128 + 9);
            assert_eq!(json["message"], forced["message"]);
        }
    }
}

#[test]
fn stops_under_way_do_not_delay_other_requests() {
    let daemon = Daemon::start();
    let programs: Vec<Program> = (0..10)
        .map(|number| daemon.create(&stubborn(&number.to_string()).with("stop_timeout", "1h")))
        .map(Program::started)
        .collect();
    programs.iter().for_each(|program| program.says("ready"));
    thread::scope(|scope| {
        for program in &programs {
            scope.spawn(|| program.stopped());
        }
        programs
            .iter()
            .for_each(|program| drop(program.reaches("stopping")));
        // Each is answered while none of the stops has ended, nor can.
        for _ in 0..20 {
            assert_eq!(daemon.list("?status=running").len(), 10);
        }
        for program in &programs {
            program.post("stop?force=true").ok(200);
        }
    });
}

#[test]
fn a_traced_process_is_ended_once_its_tracer_lets_it_go() {
    for daemon in both_ways() {
        let [one, two] = ["one", "two"].map(|name| daemon.create(&sleeper(name)).started());
        // A tracer that does its work is told of each signal, and passes it on.
        let Some(mut tracer) = trace(&one) else {
            return;
        };
        assert_eq!(one.stopped()["exit_code"], 128 + 15);
        tracer.wait().expect("it is ours");
        // One that does none holds even what was killed.
        let mut tracer = trace(&two).expect("there is one");
        let pid = tracer.id().cast_signed();
        kill(pid, Signal::STOP);
        until(|| status_field(pid, "State").is_some_and(|s| s.starts_with('T')));
        thread::scope(|scope| {
            // If it takes long, the answer says that the process does not end; that it was killed holds.
            scope.spawn(|| two.post("stop?force=true"));
            two.reaches("stopping");
            assert_eq!(daemon.list("?status=stopped"), ["one"]);
            kill(pid, Signal::KILL);
        });
        tracer.wait().expect("it is ours");
        assert_eq!(two.reaches("stopped")["exit_code"], 128 + 9);
    }
}

/// Has a program traced; `None`, and says why, where that cannot be.
fn trace(program: &Program) -> Option<Child> {
    let pid = program.pid();
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "-p", &pid.to_string()]);
    let mut tracer = match command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(tracer) => tracer,
        Err(error) => {
            eprintln!("skipped: strace: {error}");
            return None;
        }
    };
    let is_traced = || status_field(pid, "TracerPid").is_some_and(|tracer| tracer != "0");
    let mut has_ended = false;
    until(|| {
        has_ended = tracer.try_wait().expect("it is ours").is_some();
        has_ended || is_traced()
    });
    if has_ended {
        eprintln!("skipped: strace may not trace here");
    }
    (!has_ended).then_some(tracer)
}
