use std::fs;

use crate::support::{Daemon, Definition, Setup, is_alive, json, sh, sleeper, until};

#[test]
fn a_start_answers_as_the_reference_shows() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let json = program.post("start").ok(200);
    assert_eq!(json["id"], program.id.as_str());
    assert_eq!(json["status"], "running");
    assert_eq!(json["message"], "Program started successfully");
    assert_eq!(json["pid"], program.pid());
    let shown = program.get();
    assert_eq!(json["start_time"], shown["start_time"]);
    assert_eq!(
        (shown["status"].as_str(), shown["state"].as_str()),
        (Some("running"), Some("running"))
    );
    assert!(shown["exit_code"].is_null());
    humantime::parse_rfc3339(shown["start_time"].as_str().unwrap()).expect("RFC 3339, UTC");
    assert!(is_alive(program.pid()));
}

#[test]
fn a_stop_answers_as_the_reference_shows() {
    let daemon = Daemon::start();
    let definition = sh(
        "a",
        "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done",
    );
    let program = daemon.create(&definition).started();
    program.says("ready");
    let pid = program.pid();
    let json = program.stopped();
    assert!(!is_alive(pid));
    for (field, value) in [
        ("id", json!(program.id)),
        ("status", json!("stopped")),
        ("pid", json!(null)),
        ("exit_code", json!(0)),
        ("message", json!("Program stopped successfully")),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    assert_eq!(program.state(), "stopped");
}

#[test]
fn a_stop_shows_the_signal_that_ended_it() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    assert_eq!(program.stopped()["exit_code"], 128 + 15);
    let shown = program.get();
    assert_eq!(shown["exit_code"], 128 + 15);
    assert_eq!(shown["exit_signal"], "TERM");
    assert_eq!(
        (shown["status"].as_str(), shown["state"].as_str()),
        (Some("stopped"), Some("stopped"))
    );
}

#[test]
fn a_restart_answers_with_another_process() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let json = program.post("restart").ok(200);
    assert_eq!(json["status"], "running");
    assert_eq!(json["message"], "Program restarted successfully");
    assert_eq!(json["pid"], program.pid());
    assert_ne!(program.pid(), pid);
    assert!(!is_alive(pid));
    assert!(json["start_time"].is_string());
}

#[test]
fn a_restart_of_a_stopped_program_starts_it() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    program.post("restart").ok(200);
    assert_eq!(program.status(), "running");
}

#[test]
fn what_does_not_fit_the_state_is_refused() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let not_running = program.post("stop").error(400, "invalid_state");
    assert_eq!(not_running, "Program not running");
    let program = program.started();
    let running = program.post("start").error(400, "invalid_state");
    assert_eq!(running, "Program already running");
    assert_eq!(program.status(), "running");
}

#[test]
fn autostart_is_switched_and_nothing_else() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    for (action, enabled, message) in [
        ("enable", true, "Autostart enabled successfully"),
        ("enable", true, "Autostart enabled successfully"),
        ("disable", false, "Autostart disabled successfully"),
    ] {
        let json = program.post(action).ok(200);
        let expected = json!({"id": program.id, "enabled": enabled, "message": message});
        assert_eq!(json, expected);
        assert_eq!(program.get()["enabled"], enabled);
    }
    assert_eq!(program.state(), "stopped");
}

#[test]
fn an_end_is_shown_with_its_code_or_signal() {
    let daemon = Daemon::start();
    for (index, (script, state, status, code, signal)) in [
        ("exit 0", "exited", "stopped", 0, json!(null)),
        ("exit 3", "failed", "error", 3, json!(null)),
        ("exit 255", "failed", "error", 255, json!(null)),
        ("kill -SEGV $$", "failed", "error", 139, json!("SEGV")),
        ("kill -KILL $$", "failed", "error", 137, json!("KILL")),
    ]
    .into_iter()
    .enumerate()
    {
        let program = daemon.create(&sh(&index.to_string(), script)).started();
        let shown = program.reaches(state);
        assert_eq!(shown["status"], status, "{script}");
        assert_eq!(shown["exit_code"], code, "{script}");
        assert_eq!(shown["exit_signal"], signal, "{script}");
        assert!(shown["pid"].is_null(), "{script}");
        assert!(shown["start_time"].is_string(), "{script}");
        program.post("stop").error(400, "invalid_state");
    }
}

#[test]
fn what_cannot_be_started_says_the_step_and_the_reason() {
    let daemon = Daemon::start();
    let file = daemon.scratch("file");
    fs::write(&file, "no program").unwrap();
    let garbage = daemon.scratch("garbage");
    fs::write(&garbage, "\u{7f}ELF and nothing more").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&garbage, mode).unwrap();
    let command = |path: &std::path::Path| Definition::new("", path.to_str().unwrap(), "");
    for (index, (definition, reason)) in [
        (Definition::new("", "/no/such/file", ""), "No such file"),
        (Definition::new("", "no-such-command", ""), "No such file"),
        (command(&file), "Permission denied"),
        (Definition::new("", "/tmp", ""), "Permission denied"),
        (command(&garbage), "Exec format error"),
        (
            sleeper("").with("directory", "/no/such/dir"),
            "/no/such/dir",
        ),
        (
            sleeper("").with("directory", "/etc/passwd"),
            "Not a directory",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let definition = definition
            .with("name", format!("n{index}"))
            .with("auto_restart", true);
        let program = daemon.create(&definition);
        for action in ["start", "restart"] {
            let message = program.post(action).error(400, "start_failed");
            assert!(message.contains(reason), "{message}");
        }
        let shown = program.get();
        assert_eq!(shown["status"], "error", "{reason}");
        assert_eq!(
            shown["state"], "failed",
            "asked for by a person it is not tried again"
        );
        assert!(shown["pid"].is_null());
    }
}

#[test]
fn a_restart_that_cannot_start_again_leaves_the_program_failed() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let gone = Definition::new("a", "/no/such/file", "");
    daemon.put(&program.path(""), &gone.0).ok(200);
    program.post("restart").error(400, "start_failed");
    assert!(!is_alive(pid));
    assert_eq!(program.status(), "error");
}

#[test]
fn a_program_says_of_its_life_in_its_log() {
    let daemon = Setup::new().start();
    let program = daemon.create(&sh("a", "exit 3")).started();
    program.reaches("failed");
    until(|| program.messages("hxe").len() == 2);
    let notes = program.messages("hxe");
    assert_eq!(
        notes,
        ["Program started successfully", "Program exited with code 3"]
    );
}

#[test]
fn a_signal_reaches_the_program_itself() {
    let daemon = Daemon::start();
    let definition = sh(
        "a",
        "trap 'echo got it' HUP; echo ready; while :; do sleep 0.02; done",
    );
    let program = daemon.create(&definition).started();
    program.says("ready");
    for name in ["HUP", "SIGHUP", "1"] {
        let path = program.path("/signal");
        let body = json!({"signal": name}).to_string();
        let answer = daemon.post(&path, &body).ok(200);
        assert_eq!(answer["id"], program.id.as_str());
        assert_eq!(answer["status"], "running");
        assert_eq!(answer["pid"], program.pid());
        assert_eq!(answer["message"], "Signal HUP sent successfully");
    }
    program.says("got it");
    let noted = program.messages("hxe");
    assert!(
        noted.contains(&"Signal HUP was sent".to_owned()),
        "{noted:?}"
    );
}

#[test]
fn a_signal_that_cannot_be_sent_is_refused() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let post = |path: &str, body: &str| daemon.post(path, body);
    let path = program.path("/signal");
    post(&path, r#"{"signal":"HUP"}"#).error(400, "invalid_state");
    for body in [r#"{"signal":"NOSUCH"}"#, r#"{"signal":9}"#, "{}"] {
        post(&path, body).error(400, "validation_error");
    }
    post("/api/program/nobody/signal", r#"{"signal":"HUP"}"#).error(404, "not_found");
}
