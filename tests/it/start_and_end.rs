use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Daemon, Definition, Program, is_alive, kill, sh, sleeper, stubborn, until_some,
};

#[test]
fn enabled_programs_start_with_the_daemon_in_order_of_id() {
    let daemon = Daemon::start();
    for (name, enabled) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        daemon.create(&sleeper(name).with("enabled", enabled));
    }
    let daemon = daemon.restart();
    let pids = ["a", "c", "d"].map(|name| until_some(|| daemon.program(name).try_pid()));
    assert!(pids.is_sorted(), "{pids:?}");
    assert_eq!(daemon.program("b").state(), "stopped");
}

#[test]
fn an_autostart_that_fails_counts_as_an_end_not_asked_for() {
    let daemon = Daemon::start();
    daemon.create(&Definition::new("a", "/no/such/file", "").with("enabled", true));
    let retried = Definition::new("b", "/no/such/file", "")
        .with("enabled", true)
        .with("auto_restart", true)
        .with("restart_delay", "1h");
    daemon.create(&retried);
    let daemon = daemon.restart();
    daemon.program("a").reaches("failed");
    daemon.program("b").reaches("backoff");
}

#[test]
fn a_hundred_programs_run_at_a_time() {
    let daemon = Daemon::start();
    let programs: Vec<Program> = (0..100)
        .map(|number| daemon.create(&sleeper(&number.to_string())))
        .collect();
    thread::scope(|scope| {
        for some in programs.chunks(25) {
            scope.spawn(move || {
                some.iter()
                    .for_each(|program| drop(program.post("start").ok(200)))
            });
        }
    });
    assert_eq!(daemon.list("?status=running&limit=200").len(), 100);
    let counts = &daemon.get("/api/metrics").ok(200)["programs"];
    assert_eq!(
        (counts["total"].as_i64(), counts["running"].as_i64()),
        (Some(100), Some(100))
    );
}

#[test]
fn term_and_int_stop_every_program_and_the_daemon() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start();
        let pids = ["a", "b"].map(|name| daemon.create(&sleeper(name)).started().pid());
        daemon.signal(signal);
        assert_eq!(daemon.ends(), Some(0));
        assert!(!pids.into_iter().any(is_alive));
    }
}

#[test]
fn programs_that_end_together_are_not_taken_for_each_others_leftovers() {
    let mut daemon = Daemon::start();
    let names: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for name in &names {
        // The shell leaves its sleep behind, so that each end looks for leftovers while others end.
        daemon.create(&sh(name, "sleep 1000; :")).started();
    }
    assert_eq!(daemon.stop(), Some(0));
    assert!(
        !daemon.output().contains("left behind"),
        "{}",
        daemon.output()
    );
}

#[test]
fn while_the_daemon_stops_reads_are_answered_and_changes_are_not() {
    let mut daemon = Daemon::start();
    let program = daemon
        .create(&stubborn("a").with("stop_timeout", "1h"))
        .started();
    program.says("ready");
    let pid = program.pid();
    daemon.signal(Signal::TERM);
    program.reaches("stopping");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.try_create(&sleeper("b")).status, 503);
    assert_eq!(program.post("start").status, 503);
    assert_eq!(daemon.list(""), ["a"]);
    kill(pid, Signal::KILL);
    assert_eq!(daemon.ends(), Some(0));
}

#[test]
fn all_programs_are_stopped_by_one_common_deadline() {
    let mut daemon = Daemon::start();
    // So many that a busy machine is faster with all of them together than any with one after the other.
    const PROGRAMS: u32 = 20;
    const TIMEOUT: Duration = Duration::from_secs(1);
    for number in 0..PROGRAMS {
        let definition = stubborn(&number.to_string()).with("stop_timeout", "1s");
        daemon.create(&definition).started().says("ready");
    }
    let begin = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    let took = begin.elapsed();
    assert!(took >= TIMEOUT && took < PROGRAMS * TIMEOUT, "{took:?}");
}
