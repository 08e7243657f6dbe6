use crate::support::{Daemon, Definition, is_alive, json, sh, sleeper, until};

/// The fields that the reference shows of a program, in its order.
const SHOWN: &[&str] = &[
    "id",
    "name",
    "description",
    "command",
    "args",
    "directory",
    "user",
    "group",
    "enabled",
    "auto_restart",
    "max_restarts",
    "status",
    "pid",
    "created_at",
    "updated_at",
];

#[test]
fn a_program_is_created_as_the_reference_shows() {
    let daemon = Daemon::start();
    let own = daemon.create(&sleeper("own")).get();
    let definition = Definition(json!({
        "name": "My Program",
        "description": "A test program",
        "command": "/usr/bin/python3",
        "args": "script.py",
        "directory": "/tmp",
        "user": own["user"],
        "group": own["group"],
        "enabled": true,
        "auto_restart": true,
        "max_restarts": 3
    }));
    let json = daemon.try_create(&definition).ok(201);
    for (field, value) in definition.0.as_object().unwrap() {
        assert_eq!(json[field], *value, "{field}");
    }
    assert_eq!(json["id"], "program-2");
    assert_eq!(json["status"], "stopped");
    assert_eq!(json["state"], "stopped");
    assert_eq!(json["created_at"], json["updated_at"]);
    for null in ["pid", "exit_code", "start_time"] {
        assert!(json[null].is_null() && json.get(null).is_some(), "{null}");
    }
    let shown = daemon.get("/api/program/program-2").ok(200);
    assert_eq!(shown, json);
    assert_eq!(daemon.get("/api/program").ok(200)[1], json);
    for field in SHOWN {
        assert!(shown.get(field).is_some(), "{field}");
    }
    let created = json["created_at"].as_str().unwrap();
    humantime::parse_rfc3339(created).expect("RFC 3339, UTC");
    assert_eq!(created.len(), "2025-01-01T00:00:00Z".len());
}

#[test]
fn what_a_definition_leaves_out_is_shown_as_it_holds() {
    let daemon = Daemon::start();
    let json = daemon.create(&sleeper("a")).get();
    for (field, value) in [
        ("description", json!("")),
        ("directory", json!("/")),
        ("enabled", json!(false)),
        ("auto_restart", json!(false)),
        ("max_restarts", json!(3)),
        ("environment", json!({})),
        ("umask", json!("022")),
        ("stop_signal", json!("TERM")),
        ("stop_timeout", json!("10s")),
        ("restart_delay", json!("1s")),
        ("restart_policy", json!("on-failure")),
        ("success_exit_codes", json!([0])),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    assert!(json["user"].is_string() && json["group"].is_string());
}

#[test]
fn every_field_is_kept() {
    let daemon = Daemon::start();
    let definition = Definition(json!({
        "name": "Ünïcode \"quoted\" \\ 1",
        "description": "two\nlines",
        "command": "sleep",
        "args": "'a b' \"c\\\"d\"",
        "directory": "/tmp",
        "enabled": true,
        "auto_restart": true,
        "max_restarts": -1,
        "environment": {"A": "1", "EMPTY": "", "Ü": "=="},
        "umask": "077",
        "stop_signal": "USR1",
        "stop_timeout": "1m30s",
        "restart_delay": "500ms",
        "restart_policy": "always",
        "success_exit_codes": [0, 3, 255],
        "log_disk": "errors"
    }));
    let program = daemon.create(&definition);
    let daemon_again = &program.get();
    for (field, value) in definition.0.as_object().unwrap() {
        assert_eq!(daemon_again[field], *value, "{field}");
    }
}

#[test]
fn a_signal_is_shown_by_its_name() {
    let daemon = Daemon::start();
    for (index, signal) in ["SIGINT", "int", "2"].into_iter().enumerate() {
        let definition = sleeper(&index.to_string()).with("stop_signal", signal);
        assert_eq!(daemon.create(&definition).get()["stop_signal"], "INT");
    }
}

#[test]
fn a_name_is_taken_once() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    let b = daemon.create(&sleeper("b"));
    daemon.try_create(&sleeper("a")).error(409, "conflict");
    daemon
        .put(&b.path(""), &sleeper("a").0)
        .error(409, "conflict");
    daemon.put(&b.path(""), &sleeper("b").0).ok(200);
    daemon.create(&sleeper("A"));
    assert_eq!(daemon.list(""), ["a", "b", "A"]);
}

#[test]
fn an_id_counts_up_and_is_never_used_again() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    let b = daemon.create(&sleeper("b"));
    daemon.delete(&b.path("")).ok(200);
    assert_eq!(daemon.create(&sleeper("b")).id, "program-3");
}

#[test]
fn what_is_not_there_is_not_found() {
    let daemon = Daemon::start();
    let body = sleeper("a").0.to_string();
    for (method, below, body) in [
        ("GET", "", ""),
        ("PUT", "", body.as_str()),
        ("DELETE", "", ""),
        ("POST", "/start", ""),
        ("POST", "/stop", ""),
        ("POST", "/restart", ""),
        ("POST", "/enable", ""),
        ("POST", "/disable", ""),
        ("GET", "/logs", ""),
        ("GET", "/metrics", ""),
    ] {
        let path = format!("/api/program/program-1{below}");
        let json = daemon
            .with_token(daemon.token(), method, &path, body)
            .ok(404);
        let expected = json!({
            "error": "not_found",
            "message": "Program not found",
            "resource": "program",
            "id": "program-1"
        });
        assert_eq!(json, expected, "{method} {path}");
    }
    for id in [
        "program-0",
        "program-01",
        "program-99999999999",
        "a%2Fb",
        "%00",
        "..",
        "%F0%9F%98%80",
    ] {
        let reply = daemon.get(&format!("/api/program/{id}"));
        assert_eq!(reply.status, 404, "{id}");
    }
}

#[test]
fn a_program_is_found_by_its_name() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("Web Server/ü+?"));
    let path = "/api/program/Web%20Server%2F%c3%BC+%3F";
    let json = daemon.get(path).ok(200);
    assert_eq!(json["id"], "program-1");
    daemon.post(&format!("{path}/enable"), "").ok(200);
    daemon.get(&format!("{path}/logs")).ok(200);
}

#[test]
fn the_list_is_filtered() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("idle"));
    daemon
        .create(&Definition::new("up", "/bin/sleep", "1000"))
        .started();
    let failed = daemon
        .create(&sh("failed", "exit 3").with("enabled", true))
        .started();
    failed.reaches("failed");
    for (query, names) in [
        ("", &["idle", "up", "failed"][..]),
        ("?", &["idle", "up", "failed"]),
        ("?status=running", &["up"]),
        ("?status=stopped", &["idle"]),
        ("?status=error", &["failed"]),
        ("?enabled=true", &["failed"]),
        ("?enabled=false", &["idle", "up"]),
        ("?enabled=false&status=running", &["up"]),
        ("?enabled=true&status=running", &[]),
        ("?limit=2", &["idle", "up"]),
        ("?limit=0", &[]),
        ("?limit=1000000000000", &["idle", "up", "failed"]),
        ("?offset=1", &["up", "failed"]),
        ("?offset=1&limit=1", &["up"]),
        ("?offset=3", &[]),
        ("?enabled=false&offset=1", &["up"]),
        ("?%73tatus=%72unning", &["up"]),
    ] {
        assert_eq!(daemon.list(query), names, "{query}");
    }
}

#[test]
fn a_list_shows_100_programs_unless_told_otherwise() {
    let daemon = Daemon::start();
    for number in 0..101 {
        daemon.create(&sleeper(&number.to_string()));
    }
    assert_eq!(daemon.list("").len(), 100);
    assert_eq!(daemon.list("?limit=101").len(), 101);
    assert_eq!(daemon.list("?offset=100"), ["100"]);
}

#[test]
fn a_put_replaces_the_whole_definition() {
    let daemon = Daemon::start();
    let definition = sh("a", "old")
        .with("description", "old")
        .with("enabled", true)
        .with("auto_restart", true)
        .with("max_restarts", 7)
        .with("environment", json!({"A": "1"}));
    let program = daemon.create(&definition);
    let before = program.get();
    let body = json!({"name": "b", "command": "/bin/true"});
    let json = daemon.put(&program.path(""), &body).ok(200);
    assert_eq!(json, program.get());
    for (field, value) in [
        ("id", before["id"].clone()),
        ("created_at", before["created_at"].clone()),
        ("name", json!("b")),
        ("description", json!("")),
        ("args", json!("")),
        ("enabled", json!(false)),
        ("auto_restart", json!(false)),
        ("max_restarts", json!(3)),
        ("environment", json!({})),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
}

#[test]
fn what_get_answers_may_be_edited_and_put() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&Definition::new("a", "/bin/sleep", "1000"))
        .started();
    let mut json = program.get();
    json["description"] = json!("edited");
    let answer = daemon.put(&program.path(""), &json).ok(200);
    assert_eq!(answer["description"], "edited");
    assert_eq!(answer["pid"], json["pid"], "the process runs on");
    assert_eq!(answer["status"], "running");
}

#[test]
fn a_change_of_the_command_holds_from_the_next_start() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo one; exec sleep 1000"))
        .started();
    program.says("one");
    let two = sh("a", "echo two; exec sleep 1000");
    daemon.put(&program.path(""), &two.0).ok(200);
    assert_eq!(program.messages("stdout"), ["one"]);
    program.post("restart").ok(200);
    program.says("two");
}

#[test]
fn a_change_of_the_stop_signal_holds_at_once() {
    let daemon = Daemon::start();
    let definition = sh(
        "a",
        "trap '' TERM; trap 'exit 7' INT; echo ready; while :; do sleep 0.02; done",
    );
    let program = daemon.create(&definition).started();
    program.says("ready");
    daemon
        .put(&program.path(""), &definition.with("stop_signal", "INT").0)
        .ok(200);
    assert_eq!(program.stopped()["exit_code"], 7);
}

#[test]
fn a_deleted_program_is_stopped_and_gone_with_its_logs() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo hello; exec sleep 1000"))
        .started();
    program.says("hello");
    let pid = program.pid();
    let logs = daemon.log_dir().join(&program.id);
    assert!(logs.exists());
    let json = daemon.delete(&program.path("")).ok(200);
    assert_eq!(json, json!({"message": "Program deleted successfully"}));
    assert!(!is_alive(pid));
    daemon.get(&program.path("")).error(404, "not_found");
    daemon.delete(&program.path("")).error(404, "not_found");
    until(|| !logs.exists());
    assert!(daemon.list("").is_empty());
}
