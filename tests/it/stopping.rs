use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Daemon, Program, children, is_alive, json, kill, sh, sleeper, status_field, stubborn, until,
    until_some,
};

#[test]
fn what_ignores_term_is_killed_after_the_timeout() {
    let daemon = Daemon::start();
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

#[test]
fn a_stopped_process_is_woken_to_end() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sleeper("a").with("stop_timeout", "1h"))
        .started();
    let pid = program.pid();
    kill(pid, Signal::STOP);
    until(|| status_field(pid, "State").is_some_and(|s| s.starts_with('T')));
    assert_eq!(program.stopped()["exit_code"], 128 + 15);
}

#[test]
fn a_second_stop_joins_the_first_and_force_kills_at_once() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&stubborn("a").with("stop_timeout", "1h"))
        .started();
    program.says("ready");
    daemon.token();
    thread::scope(|scope| {
        let stops = [0, 1].map(|_| scope.spawn(|| program.stopped()));
        program.reaches("stopping");
        assert_eq!(program.status(), "running");
        let forced = program.post("stop?force=true").ok(200);
        for json in stops.map(|stop| stop.join().expect("each is answered")) {
            assert_eq!(json["exit_code"], 128 + 9);
            assert_eq!(json["message"], forced["message"]);
        }
    });
}

#[test]
fn stops_under_way_do_not_delay_other_requests() {
    let daemon = Daemon::start();
    let programs: Vec<Program> = (0..10)
        .map(|number| daemon.create(&stubborn(&number.to_string()).with("stop_timeout", "2s")))
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
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let begin = Instant::now();
            assert_eq!(daemon.list("?status=running").len(), 10);
            worst = worst.max(begin.elapsed());
        }
        assert!(worst < Duration::from_millis(500), "{worst:?}");
    });
}

/// Starts a program that leaves a process behind by `script`, which runs `$LEAVE` somehow, and gives that one's pid.
fn with_leftover<'d>(daemon: &'d Daemon, script: &str) -> (Program<'d>, i32) {
    let file = daemon.scratch("pid");
    let leave = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        file.display()
    );
    let definition = sh("a", script).with("environment", json!({"LEAVE": leave}));
    let program = daemon.create(&definition).started();
    let pid = until_some(|| fs::read_to_string(&file).ok()?.trim().parse().ok());
    (program, pid)
}

#[track_caller]
fn check_leaves_nothing_behind(script: &str) {
    let daemon = Daemon::start();
    let (program, left) = with_leftover(&daemon, &format!("{script}\necho ready; exec sleep 1000"));
    program.says("ready");
    assert!(is_alive(left));
    program.stopped();
    assert!(!is_alive(left), "{left} is left");
}

#[test]
fn a_stop_reaches_a_child_in_the_background() {
    check_leaves_nothing_behind(r#"sh -c "$LEAVE" &"#);
}

#[test]
fn a_stop_reaches_a_child_that_ignores_term() {
    check_leaves_nothing_behind(r#"sh -c "trap '' TERM; $LEAVE" &"#);
}

#[test]
fn a_stop_reaches_a_child_in_its_own_session() {
    check_leaves_nothing_behind(r#"setsid sh -c "$LEAVE" &"#);
}

#[test]
fn a_stop_reaches_what_has_forked_twice() {
    check_leaves_nothing_behind(r#"(setsid sh -c "$LEAVE" &)"#);
}

#[test]
fn a_stop_reaches_what_has_cleared_its_environment() {
    check_leaves_nothing_behind(r#"(env -i LEAVE="$LEAVE" setsid sh -c "$LEAVE" &)"#);
}

#[test]
fn a_stop_reaches_what_has_closed_its_output() {
    check_leaves_nothing_behind(r#"(setsid sh -c "$LEAVE" </dev/null >/dev/null 2>&1 &)"#);
}

#[test]
fn what_was_left_behind_is_reaped() {
    let daemon = Daemon::start();
    let script = r#"(setsid sh -c "$LEAVE" &); echo ready; exec sleep 1000"#;
    let (program, left) = with_leftover(&daemon, script);
    program.says("ready");
    until(|| children(daemon.server_pid()).contains(&left));
    program.stopped();
    until(|| children(daemon.server_pid()).is_empty());
}

#[test]
fn an_end_by_itself_leaves_nothing_behind_and_forking_away_is_said() {
    let daemon = Daemon::start();
    let file = daemon.scratch("pid");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", file.display());
    let script = format!(r#"(setsid sh -c "$LEAVE" &); {wait}; exit 0"#);
    let (program, left) = with_leftover(&daemon, &script);
    program.reaches("exited");
    assert!(!is_alive(left), "{left} is left");
    let notes = program.messages("hxe").join("\n");
    assert!(notes.contains("foreground"), "{notes}");
}

#[test]
fn other_programs_are_not_touched_by_a_stop() {
    let daemon = Daemon::start();
    let other = daemon.create(&sleeper("other")).started();
    let pid = other.pid();
    daemon.create(&sleeper("a")).started().stopped();
    assert_eq!(other.pid(), pid);
    assert!(is_alive(pid));
}
