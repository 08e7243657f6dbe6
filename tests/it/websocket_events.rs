use rustix::process::Signal;

use crate::support::{
    Daemon, Definition, Setup, Value, WebSocket, json, kill, kinds, sh, sleeper, sorted, until,
};

/// A WebSocket that hears what happens to programs, and no log.
fn lifecycle(daemon: &Daemon) -> WebSocket {
    WebSocket::subscribed(daemon, json!(["program.*"]), json!(null))
}

/// Checks an event but for its time.
#[track_caller]
fn check(event: &Value, kind: &str, data: Value) {
    let mut keys: Vec<_> = event.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["data", "program_id", "timestamp", "type"]);
    assert_eq!(event["type"], kind, "{event}");
    assert_eq!(event["data"], data, "{event}");
    let time = event["timestamp"].as_str().unwrap();
    humantime::parse_rfc3339(time).expect("RFC 3339, UTC");
    assert_eq!(time.len(), "2025-01-01T00:00:00.000Z".len());
}

#[test]
fn a_start_and_a_stop_are_told() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let event = socket.message();
    assert_eq!(event["program_id"], program.id.as_str());
    check(
        &event,
        "program.started",
        json!({
            "name": "a", "status": "running", "pid": pid,
            "message": "Program started successfully", "reason": "requested",
        }),
    );
    program.stopped();
    check(
        &socket.message(),
        "program.stopped",
        json!({
            "name": "a", "status": "stopped", "pid": null, "exit_code": 143, "exit_signal": "TERM",
            "message": "Program stopped successfully (was ended by signal TERM)", "reason": "requested",
        }),
    );
    assert!(socket.reached().is_empty());
}

#[test]
fn an_end_with_success_is_a_stop_that_nobody_asked_for() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    daemon.create(&sh("a", "exit 0")).started();
    socket.until("program.started");
    check(
        &socket.message(),
        "program.stopped",
        json!({
            "name": "a", "status": "stopped", "pid": null, "exit_code": 0,
            "message": "Program exited with code 0",
        }),
    );
}

#[test]
fn a_crash_is_an_error_and_then_a_restart() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    let definition = sleeper("a")
        .with("auto_restart", true)
        .with("restart_delay", "10ms");
    let program = daemon.create(&definition).started();
    let pid = program.pid();
    socket.until("program.started");
    kill(pid, Signal::KILL);
    check(
        &socket.message(),
        "program.error",
        json!({
            "name": "a", "status": "error", "pid": null, "exit_code": 137, "exit_signal": "KILL",
            "message": "Program was ended by signal KILL; restarting in 10ms", "reason": "crash",
        }),
    );
    let event = socket.message();
    check(
        &event,
        "program.restarted",
        json!({
            "name": "a", "status": "running", "pid": program.other_pid(pid),
            "message": "Program restarted successfully", "reason": "crash",
        }),
    );
    assert!(socket.reached().is_empty());
}

#[test]
fn a_crash_without_a_restart_is_an_error() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    daemon.create(&sh("a", "exit 3")).started();
    socket.until("program.started");
    check(
        &socket.message(),
        "program.error",
        json!({
            "name": "a", "status": "error", "pid": null, "exit_code": 3,
            "message": "Program exited with code 3", "reason": "crash",
        }),
    );
}

#[test]
fn a_restart_is_one_event() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    let program = daemon.create(&sleeper("a")).started();
    socket.until("program.started");
    program.post("restart").ok(200);
    check(
        &socket.message(),
        "program.restarted",
        json!({
            "name": "a", "status": "running", "pid": program.pid(),
            "message": "Program restarted successfully", "reason": "requested",
        }),
    );
    assert!(socket.reached().is_empty());
}

#[test]
fn a_start_that_fails_is_an_error() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    let program = daemon.create(&Definition::new("a", "/nowhere/at/all", ""));
    program.post("start").error(400, "start_failed");
    let event = socket.message();
    let message = event["data"]["message"].clone();
    assert!(
        message.as_str().unwrap().contains("/nowhere/at/all"),
        "{event}"
    );
    check(
        &event,
        "program.error",
        json!({
            "name": "a", "status": "error", "pid": null, "message": message, "reason": "requested",
        }),
    );
    assert!(socket.reached().is_empty());
}

#[test]
fn a_restart_that_is_called_off_is_a_stop() {
    let daemon = Daemon::start();
    let mut socket = lifecycle(&daemon);
    let definition = sh("a", "exit 1")
        .with("auto_restart", true)
        .with("restart_delay", "1h");
    let program = daemon.create(&definition).started();
    program.reaches("backoff");
    socket.until("program.error");
    program.stopped();
    check(
        &socket.message(),
        "program.stopped",
        json!({
            "name": "a", "status": "stopped", "pid": null,
            "message": "Automatic restart cancelled", "reason": "requested",
        }),
    );
}

#[test]
fn log_entries_are_told_as_they_are_read() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::subscribed(&daemon, json!(["log.new"]), json!(null));
    let script = r#"echo hello; echo '[WARN] "so" so'; printf 'caf\303\251 \377\001\n'; echo oops >&2; printf end"#;
    let program = daemon.create(&sh("a", script)).started();
    program.reaches("exited");
    let entries = program.logs("");
    assert_eq!(entries.len(), 7, "{entries:?}");
    let events: Vec<_> = entries.iter().map(|_| socket.message()).collect();
    for event in &events {
        assert_eq!(event["program_id"], program.id.as_str());
        assert_eq!(event["timestamp"], event["data"]["timestamp"]);
        check(event, "log.new", event["data"].clone());
    }
    let told = events.iter().map(|event| &event["data"]);
    assert_eq!(sorted(told), sorted(&entries));
    assert!(socket.reached().is_empty());
}

#[test]
fn what_was_written_before_is_not_told() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo before; read x; echo $x"))
        .started();
    program.reaches("exited");
    let mut socket = WebSocket::logged_in(&daemon);
    program.post("start").ok(200);
    let (before, _) = socket.until("program.stopped");
    let again = before
        .iter()
        .filter(|event| event["data"]["message"] == "before")
        .count();
    assert_eq!(again, 1, "{before:?}");
    assert_eq!(before[0]["type"], "program.started", "{before:?}");
}

#[test]
fn a_subscription_narrows_what_is_told_and_replaces_the_one_before() {
    let daemon = Daemon::start();
    let [a, b] = ["a", "b"].map(|name| daemon.create(&sh(name, "echo hello; exec sleep 1000")));
    let mut socket = WebSocket::logged_in(&daemon);
    let shown = |event: &Value| {
        let id = event["program_id"].as_str().unwrap();
        format!("{id} {}", event["type"].as_str().unwrap())
    };
    let mut last = Vec::new();
    let mut check = |events: Value, programs: Value, expected: &[String]| {
        // Lines of before may still be on their way, but nothing that was not asked for then.
        for late in socket.subscribe(events, programs) {
            assert!(last.contains(&shown(&late)), "{late}");
        }
        last = expected.to_vec();
        for program in [&a, &b] {
            let before = program.messages("stdout").len();
            program.post("start").ok(200);
            until(|| program.messages("stdout").len() > before);
            program.stopped();
        }
        let mut told: Vec<String> = Vec::new();
        until(|| {
            told.extend(socket.reached().iter().map(shown));
            // How many lines there are is another matter.
            told.dedup();
            told == expected
        });
    };
    let (a, b) = ("program-1", "program-2");
    let both = |kinds: &[&str]| -> Vec<String> {
        let of = |id: &str| {
            kinds
                .iter()
                .map(|kind| format!("{id} {kind}"))
                .collect::<Vec<_>>()
        };
        [of(a), of(b)].concat()
    };
    let ends = &["program.started", "program.stopped"][..];
    let all = &["program.started", "log.new", "program.stopped"][..];
    let one = |id: &str, kind: &str| [format!("{id} {kind}")];
    check(json!(["program.*"]), json!(null), &both(ends));
    check(json!(["log.*"]), json!([a]), &one(a, "log.new"));
    check(json!(["log.new"]), json!(["b"]), &one(b, "log.new"));
    check(
        json!(["program.stopped"]),
        json!(["b", "nobody"]),
        &one(b, "program.stopped"),
    );
    check(json!([]), json!(null), &[]);
    check(json!(null), json!([]), &[]);
    check(json!(["*"]), json!(null), &both(all));
    check(json!(null), json!([a, "a"]), &both(all)[..3]);
}

#[test]
fn a_name_is_compared_when_something_happens() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::subscribed(&daemon, json!(null), json!(["later"]));
    let first = daemon.create(&sh("early", "echo early")).started();
    first.reaches("exited");
    // What was written until then is looked at before the program has the other name.
    let before = socket.subscribe(json!(null), json!(["later"]));
    assert!(before.is_empty(), "{before:?}");
    let renamed = sh("later", "echo renamed");
    daemon.put(&first.path(""), &renamed.0).ok(200);
    first.post("start").ok(200);
    let (before, end) = socket.until("program.stopped");
    assert_eq!(before[0]["type"], "program.started", "{before:?}");
    assert_eq!(end["data"]["name"], "later");
    let said: Vec<_> = before
        .iter()
        .filter(|event| event["data"]["stream"] == "stdout")
        .collect();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0]["data"]["message"], "renamed");

    daemon.delete(&first.path("")).expect(200);
    let second = daemon.create(&sh("later", "echo second")).started();
    let (before, end) = socket.until("program.stopped");
    assert_eq!(end["program_id"], second.id.as_str());
    assert!(
        before
            .iter()
            .any(|event| event["data"]["message"] == "second"),
        "{before:?}"
    );
}

#[test]
fn a_program_that_is_deleted_while_it_runs_is_told_to_have_stopped() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::logged_in(&daemon);
    let script = "trap 'echo last words; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let program = daemon.create(&sh("a", script)).started();
    program.says("ready");
    daemon.delete(&program.path("")).expect(200);
    let (before, _) = socket.until("program.stopped");
    // Whoever is told late is told that there was something.
    let is_told = |event: &Value| match event["type"] == "log.dropped" {
        true => event["data"]["stream"] == "stdout",
        false => event["data"]["message"] == "last words",
    };
    assert!(before.iter().any(is_told), "{before:?}");
    assert!(socket.reached().is_empty());
}

/// Checks that each run's lines stand between its begin and its end. Gives how many runs there were.
fn check_runs(events: &[Value]) -> usize {
    let mut runs = 0;
    let mut lines: Option<Vec<String>> = None;
    for event in events {
        let data = &event["data"];
        match event["type"].as_str().unwrap() {
            "program.started" | "program.restarted" => {
                // A restart by request has no event for the end of the run before.
                if let Some(lines) = lines.replace(Vec::new()) {
                    assert_eq!(lines.last().map(String::as_str), Some("end"), "run {runs}");
                }
                runs += 1;
            }
            "program.error" | "program.stopped" => {
                let lines = lines.take().expect("a run has begun");
                let own = |name: &str| lines.iter().position(|line| line == name);
                assert_eq!(
                    sorted(&lines),
                    ["1", "2", "3", "begin", "end"],
                    "run {runs}"
                );
                assert!(
                    own("begin") < own("2") && own("2") < own("end"),
                    "{lines:?}"
                );
            }
            "log.new" if data["stream"] != "hxe" => {
                let lines = lines
                    .as_mut()
                    .unwrap_or_else(|| panic!("{event} outside of run {runs}"));
                lines.push(data["message"].as_str().unwrap().to_owned());
            }
            "log.new" => {}
            _ => panic!("{event}"),
        }
    }
    runs
}

#[test]
fn hundreds_of_quick_runs_are_told_with_their_lines_in_order() {
    const RUNS: usize = 300;
    let daemon = Setup::new().key("logs", "max_files", 1000).start();
    let definition = sh(
        "a",
        "echo begin; echo 1 >&2; echo 2; echo 3 >&2; echo end; exit 3",
    )
    .with("auto_restart", true)
    .with("max_restarts", RUNS - 1)
    .with("restart_delay", "0s");
    let mut socket = WebSocket::logged_in(&daemon);
    let program = daemon.create(&definition).started();
    let mut events = Vec::new();
    loop {
        let event = socket.message();
        let message = event["data"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let is_last = event["type"] == "program.error" && message.contains("given up");
        events.push(event);
        if is_last {
            break;
        }
    }
    assert_eq!(check_runs(&events), RUNS);
    // hxe's own lines, which its file of 64 KiB keeps the last of, came along.
    let own = events
        .iter()
        .filter(|event| event["data"]["stream"] == "hxe")
        .count();
    assert_eq!(own, 2 * RUNS);
    program.reaches("failed");
}

#[test]
fn restarts_by_request_come_between_the_lines_of_their_runs() {
    const RUNS: usize = 60;
    let daemon = Daemon::start();
    let script = "trap 'echo end; exit 0' TERM; echo begin; while :; do sleep 1000 & wait; done";
    let program = daemon.create(&sh("a", script));
    let mut socket = WebSocket::logged_in(&daemon);
    let mut events = Vec::new();
    for run in 1..=RUNS {
        program.post("restart").ok(200);
        // It has said that it can be ended.
        loop {
            let event = socket.message();
            let is_ready = event["data"]["message"] == "begin";
            events.push(event);
            if is_ready {
                break;
            }
        }
        assert_eq!(check_runs(&events), run);
    }
    assert_eq!(
        kinds(&events)
            .iter()
            .filter(|kind| **kind == "program.restarted")
            .count(),
        RUNS - 1
    );
}

#[test]
fn all_who_listen_hear_the_same() {
    let daemon = Daemon::start();
    let mut sockets: Vec<_> = (0..8).map(|_| WebSocket::logged_in(&daemon)).collect();
    for name in ["a", "b", "c"] {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; done";
        daemon.create(&sh(name, script)).started().reaches("exited");
    }
    const EVENTS: usize = 3 * (2 + 2 + 9);
    let mut heard = sockets
        .iter_mut()
        .map(|socket| sorted((0..EVENTS).map(|_| socket.message())));
    let first = heard.next().unwrap();
    assert!(heard.all(|other| other == first));
}
