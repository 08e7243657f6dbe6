use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Daemon, Definition, Program, json, kill, sh, sleeper, until};

/// A program that says so each time it runs, and ends with `code`.
fn ending(name: &str, code: u8) -> Definition {
    sh(name, &format!("echo run; exit {code}"))
        .with("auto_restart", true)
        .with("restart_delay", "10ms")
}

/// How often it has run.
fn runs(program: &Program) -> usize {
    program.stdout().len() / "run\n".len()
}

#[test]
fn a_killed_program_comes_back_with_another_pid() {
    let daemon = Daemon::start();
    let definition = sleeper("a")
        .with("auto_restart", true)
        .with("restart_delay", "10ms");
    let program = daemon.create(&definition).started();
    let pid = program.pid();
    kill(pid, Signal::KILL);
    program.other_pid(pid);
    let metrics = daemon.get(&program.path("/metrics")).ok(200);
    assert_eq!(metrics["metrics"]["restart_count"], 1);
    assert!(metrics["metrics"]["last_restart"].is_string());
}

#[test]
fn without_auto_restart_an_end_is_the_end() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "echo run; exit 1")).started();
    program.reaches("failed");
    assert_eq!(runs(&program), 1);
}

#[test]
fn restarts_end_after_max_restarts_in_a_row() {
    let daemon = Daemon::start();
    for (name, most) in [("none", 0), ("two", 2)] {
        let program = daemon
            .create(&ending(name, 1).with("max_restarts", most))
            .started();
        program.reaches("failed");
        assert_eq!(runs(&program), most + 1);
        assert_eq!(program.status(), "error");
    }
}

#[test]
fn a_manual_start_clears_the_row() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&ending("a", 1).with("max_restarts", 1))
        .started();
    program.reaches("failed");
    program.post("start").ok(200);
    until(|| runs(&program) == 4);
    program.reaches("failed");
    let metrics = daemon.get(&program.path("/metrics")).ok(200);
    assert_eq!(metrics["metrics"]["restart_count"], 1);
}

#[test]
fn max_restarts_of_minus_one_has_no_end() {
    let daemon = Daemon::start();
    let definition = ending("a", 1)
        .with("max_restarts", -1)
        .with("restart_delay", "1ms");
    let program = daemon.create(&definition).started();
    until(|| runs(&program) > 6);
    program.stopped();
    assert_eq!(program.state(), "stopped");
}

#[test]
fn a_success_is_restarted_only_if_always_is_asked_for() {
    let daemon = Daemon::start();
    let zero = daemon.create(&ending("zero", 0)).started();
    zero.reaches("exited");
    assert_eq!(runs(&zero), 1);

    let three = ending("three", 3).with("success_exit_codes", json!([0, 3]));
    let three = daemon.create(&three).started();
    let shown = three.reaches("exited");
    assert_eq!(
        (shown["status"].as_str(), shown["exit_code"].as_i64()),
        (Some("stopped"), Some(3))
    );

    let always = ending("always", 0).with("restart_policy", "always");
    let always = daemon.create(&always).started();
    until(|| runs(&always) == 4);
    always.reaches("failed");
}

#[test]
fn the_wait_before_a_restart_doubles() {
    let daemon = Daemon::start();
    let definition = ending("a", 1).with("restart_delay", "100ms");
    let begin = Instant::now();
    let program = daemon.create(&definition).started();
    program.reaches("failed");
    assert_eq!(runs(&program), 4);
    assert!(begin.elapsed() >= Duration::from_millis(100 + 200 + 400));
}

#[test]
fn after_a_run_of_a_second_the_first_restart_is_immediate() {
    let daemon = Daemon::start();
    let definition = sh("a", "sleep 1.1; exit 1")
        .with("auto_restart", true)
        .with("restart_delay", "1h");
    let program = daemon.create(&definition).started();
    program.other_pid(program.pid());
}

#[test]
fn a_stop_in_backoff_cancels_the_restart() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&ending("a", 1).with("restart_delay", "1h"))
        .started();
    let shown = program.reaches("backoff");
    assert_eq!(shown["status"], "error");
    assert_eq!(shown["exit_code"], 1);
    assert_eq!(program.stopped()["status"], "stopped");
    assert_eq!(program.state(), "stopped");
    assert_eq!(runs(&program), 1);
    program.post("stop").error(400, "invalid_state");
}

#[test]
fn a_start_in_backoff_does_not_wait() {
    let daemon = Daemon::start();
    let definition = ending("a", 1).with("restart_delay", "1h");
    let program = daemon.create(&definition).started();
    program.reaches("backoff");
    program.post("start").ok(200);
    until(|| runs(&program) == 2);
}
