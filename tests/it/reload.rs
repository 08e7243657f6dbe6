use std::fs;
use std::thread;

use rustix::process::Signal;

use crate::support::{Daemon, Program, Setup, Value, is_alive, kill, until};

/// Writes the file anew with one text in the place of another.
fn edit(setup: &Setup, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(setup.declared(file)).expect("it is there");
    assert!(text.contains(from), "{text}");
    let text = text.replace(from, to);
    setup.declare(
        file,
        text.strip_prefix("[program]\n").expect("it begins so"),
    );
}

fn reload(daemon: &Daemon) -> Value {
    daemon.post("/api/reload", "").ok(200)
}

/// `name action` of each program under `key`.
fn done(reloaded: &Value, key: &str) -> Vec<String> {
    let list = reloaded[key].as_array().expect("a list");
    let word = |change: &Value, key: &str| change[key].as_str().expect("a word").to_owned();
    list.iter()
        .map(|change| format!("{} {}", word(change, "name"), word(change, "action")))
        .collect()
}

/// Declares a program that ignores TERM and waits long to be killed: nothing here depends on how fast the machine is.
fn declare_stubborn(setup: &Setup) {
    let lines = "name = \"stubborn\"\ncommand = \"/bin/sh\"\nenabled = true\nstop_timeout = \"10m\"\n\
        args = \"-c 'trap \\\"\\\" TERM; echo ready; while :; do sleep 1000; done'\"\n";
    setup.declare("stubborn.toml", lines);
}

/// The stubborn program, once it ignores TERM.
fn stubborn(daemon: &Daemon) -> Program<'_> {
    let id = daemon.program("stubborn").reaches("running")["id"].clone();
    let program = daemon.program(id.as_str().expect("an id is text"));
    program.says("ready");
    program
}

#[test]
fn a_reload_does_what_the_files_changed_and_says_so() {
    let setup = Setup::new();
    for name in ["changed", "gone", "same", "settings"] {
        setup.declare_sleeper(name);
    }
    let daemon = setup.start();
    let pid = |name: &str| daemon.program(name).reaches("running")["pid"].clone();
    let (changed, gone) = (pid("changed"), pid("gone"));
    let (same, settings) = (pid("same"), pid("settings"));
    edit(&setup, "changed.toml", "1000", "1001");
    setup.undeclare("gone.toml");
    edit(
        &setup,
        "settings.toml",
        "enabled = true",
        "enabled = true\nstop_timeout = \"3s\"",
    );
    setup.declare_sleeper("new");
    setup.declare("idle.toml", "name = \"idle\"\ncommand = \"/bin/true\"\n");
    let json = reload(&daemon);
    assert_eq!(done(&json, "added"), ["idle added", "new started"]);
    assert_eq!(
        done(&json, "changed"),
        ["changed restarted", "settings updated"]
    );
    assert_eq!(done(&json, "removed"), ["gone removed"]);
    assert_eq!(json["unchanged"], 1);
    assert_eq!(json["restart_required"], Value::Array(Vec::new()));
    assert_ne!(pid("changed"), changed);
    assert_eq!(daemon.program("changed").get()["args"], "1001");
    assert_eq!((pid("same"), pid("settings")), (same, settings));
    assert_eq!(daemon.program("settings").get()["stop_timeout"], "3s");
    assert!(!is_alive(gone.as_i64().expect("a pid") as i32));
    daemon.get("/api/program/gone").error(404, "not_found");
    assert_eq!(daemon.program("new").state(), "running");
    // Nothing is left to be done.
    let json = reload(&daemon);
    for key in ["added", "changed", "removed"] {
        assert!(done(&json, key).is_empty(), "{json}");
    }
    assert_eq!(json["unchanged"], 5);
}

#[test]
fn a_mistake_in_any_file_changes_nothing() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    setup.declare_sleeper("gone");
    let daemon = setup.start();
    let before = daemon.program("a").reaches("running");
    daemon.program("gone").reaches("running");
    edit(&setup, "a.toml", "1000", "1001");
    setup.undeclare("gone.toml");
    setup.declare_sleeper("new");
    let bad = setup.declare(
        "bad.toml",
        "name = \"bad\"\ncommand = \"/bin/true\"\numask = 22\n",
    );
    let issue = daemon.post("/api/reload", "").issue("configuration");
    let expected = format!("{}:4: [program] umask: Must be a string", bad.display());
    assert!(issue.starts_with(&expected), "{issue}");
    assert_eq!(daemon.program("a").get(), before);
    assert_eq!(daemon.program("gone").state(), "running");
    daemon.get("/api/program/new").error(404, "not_found");
    // Nor does a file that nobody's program can run by.
    setup.declare(
        "bad.toml",
        "name = \"bad\"\ncommand = \"/bin/true\"\nuser = \"no-such-user\"\n",
    );
    let issue = daemon.post("/api/reload", "").issue("configuration");
    assert!(issue.contains("bad.toml:4: [program] user: "), "{issue}");
    assert_eq!(daemon.program("a").get(), before);
    setup.undeclare("bad.toml");
    let json = reload(&daemon);
    assert_eq!(done(&json, "changed"), ["a restarted"]);
    assert_eq!(done(&json, "removed"), ["gone removed"]);
    assert_eq!(done(&json, "added"), ["new started"]);
}

#[test]
fn a_file_of_brackets_harms_nobody() {
    let setup = Setup::new();
    let daemon = setup.start();
    let pid = daemon.server_pid();
    for depth in [79, 3000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let lines = format!("name = \"a\"\ncommand = \"b\"\nargs = {open}{close}\n");
        setup.declare("a.toml", &lines);
        daemon.post("/api/reload", "").issue("configuration");
        let inline = "{ a = ".repeat(depth) + "1" + &" }".repeat(depth);
        let lines = format!("name = \"a\"\ncommand = \"b\"\nenvironment = {inline}\n");
        setup.declare("a.toml", &lines);
        daemon.post("/api/reload", "").issue("configuration");
    }
    assert_eq!(daemon.server_pid(), pid);
}

#[test]
fn a_mistake_in_hxe_toml_changes_nothing_either() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let daemon = setup.start();
    let before = daemon.program("a").reaches("running");
    edit(&setup, "a.toml", "1000", "1001");
    setup.clone().key("api", "rate_limit", "-1").write();
    let issue = daemon.post("/api/reload", "").issue("configuration");
    assert!(
        issue.contains("hxe.toml:") && issue.contains("rate_limit"),
        "{issue}"
    );
    assert_eq!(daemon.program("a").get(), before);
    setup.write();
    assert_eq!(done(&reload(&daemon), "changed"), ["a restarted"]);
}

#[test]
fn keys_that_need_a_restart_are_named_and_the_others_hold() {
    let setup = Setup::new();
    let daemon = setup.start();
    let changed =
        setup
            .clone()
            .key("api", "workers", "2")
            .key("programs", "stop_timeout", "\"7s\"");
    changed.write();
    let json = reload(&daemon);
    assert_eq!(json["restart_required"], Value::from(vec!["[api] workers"]));
    setup.declare_sleeper("a");
    reload(&daemon);
    assert_eq!(daemon.program("a").get()["stop_timeout"], "7s");
}

#[test]
fn a_hangup_does_the_same() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let mut daemon = setup.start();
    daemon.program("a").reaches("running");
    setup.undeclare("a.toml");
    setup.declare_sleeper("b");
    daemon.reload(setup.clone());
    daemon.get("/api/program/a").error(404, "not_found");
    assert_eq!(daemon.program("b").state(), "running");
}

#[test]
fn a_program_that_failed_is_started_again_once_its_file_is_right() {
    let setup = Setup::new();
    let lines = "name = \"a\"\ncommand = \"/no/such/file\"\nargs = \"1000\"\nenabled = true\n";
    setup.declare("a.toml", lines);
    let daemon = setup.start();
    daemon.program("a").reaches("failed");
    edit(&setup, "a.toml", "/no/such/file", "/bin/sleep");
    assert_eq!(done(&reload(&daemon), "changed"), ["a restarted"]);
    assert_eq!(daemon.program("a").state(), "running");
}

#[test]
fn a_program_that_was_stopped_stays_so_when_it_is_changed() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let daemon = setup.start();
    daemon.program("a").reaches("running");
    daemon.program("a").stopped();
    edit(&setup, "a.toml", "1000", "1001");
    assert_eq!(done(&reload(&daemon), "changed"), ["a updated"]);
    assert_eq!(daemon.program("a").state(), "stopped");
}

#[test]
fn others_are_answered_while_a_reload_waits_for_a_program_to_stop() {
    let setup = Setup::new();
    declare_stubborn(&setup);
    let daemon = setup.start();
    let stubborn = stubborn(&daemon);
    setup.undeclare("stubborn.toml");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| reload(&daemon));
        stubborn.reaches("stopping");
        daemon.get("/api/metrics").ok(200);
        assert!(!waiting.is_finished());
        kill(stubborn.pid(), Signal::KILL);
        let json = waiting.join().expect("it is answered");
        assert_eq!(done(&json, "removed"), ["stubborn removed"]);
    });
}

#[test]
fn many_reloads_at_the_same_time_come_to_the_same() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let daemon = setup.start();
    let pid = daemon.program("a").reaches("running")["pid"].clone();
    setup.declare_sleeper("b");
    let added: Vec<String> = thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| done(&reload(&daemon), "added")))
            .collect();
        all.into_iter()
            .flat_map(|one| one.join().expect("it is answered"))
            .collect()
    });
    assert_eq!(added, ["b started"]);
    assert_eq!(daemon.program("a").get()["pid"], pid);
}

#[test]
fn a_reload_that_a_death_of_the_daemon_cuts_off_is_finished_by_the_next_one() {
    let setup = Setup::new();
    declare_stubborn(&setup);
    setup.declare_sleeper("changed");
    let daemon = setup.start();
    let gone = stubborn(&daemon);
    let pid = gone.pid();
    let changed = daemon.program("changed").reaches("running")["pid"].clone();
    setup.undeclare("stubborn.toml");
    edit(&setup, "changed.toml", "1000", "1001");
    setup.declare_sleeper("new");
    // What is gone must have stopped before the rest is done.
    daemon.signal(Signal::HUP);
    gone.reaches("stopping");
    assert_eq!(daemon.program("changed").get()["pid"], changed);
    kill(daemon.server_pid(), Signal::KILL);
    gone.reaches("stopping");
    kill(pid, Signal::KILL);
    until(|| daemon.get("/api/program/stubborn").status == 404);
    assert!(!is_alive(pid));
    daemon.program("new").reaches("running");
    until(|| {
        let program = daemon.program("changed").get();
        program["args"] == "1001" && program["state"] == "running" && program["pid"] != changed
    });
}

#[test]
fn a_daemon_that_is_to_end_does_not_wait_for_a_reload() {
    let setup = Setup::new();
    declare_stubborn(&setup);
    let mut daemon = setup.start();
    let gone = stubborn(&daemon);
    let (id, pid) = (gone.id.clone(), gone.pid());
    setup.undeclare("stubborn.toml");
    daemon.signal(Signal::HUP);
    gone.reaches("stopping");
    daemon.signal(Signal::QUIT);
    assert_eq!(daemon.ends(), Some(0));
    assert!(is_alive(pid));
    let daemon = daemon.succeed();
    daemon.program(&id).reaches("stopping");
    kill(pid, Signal::KILL);
    until(|| daemon.get("/api/program/stubborn").status == 404);
}

#[test]
fn a_reload_needs_a_token() {
    let daemon = Daemon::start();
    daemon
        .request("POST", "/api/reload", "", "")
        .error(401, "authentication_error");
}
