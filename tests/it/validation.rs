use crate::support::{Daemon, json, sleeper};

#[test]
fn what_is_wrong_in_a_body_is_named_and_nothing_is_made() {
    let daemon = Daemon::start();
    let long = "x".repeat(129);
    let path = format!("/{}", "x".repeat(5000));
    for (field, value) in [
        ("name", json!("")),
        ("name", json!(null)),
        ("name", json!(5)),
        ("name", json!(long)),
        ("name", json!("a\nb")),
        ("name", json!("a\u{0}b")),
        ("name", json!("a\u{7f}")),
        ("name", json!("program-1")),
        ("name", json!("program-77")),
        ("description", json!(["a"])),
        ("description", json!("\u{0}")),
        ("command", json!("")),
        ("command", json!(null)),
        ("command", json!(true)),
        ("command", json!("/bin/\u{0}")),
        ("command", json!(path)),
        ("args", json!("'open")),
        ("args", json!("\"open")),
        ("args", json!("a\u{0}")),
        ("args", json!(["a", "b"])),
        ("directory", json!("relative")),
        ("directory", json!("")),
        ("directory", json!("/a\u{0}")),
        ("directory", json!(path)),
        ("user", json!("")),
        ("user", json!("no-such-user")),
        ("user", json!("4294967296")),
        ("user", json!("-1")),
        ("user", json!(0)),
        ("group", json!("no-such-group")),
        ("group", json!("")),
        ("enabled", json!("true")),
        ("enabled", json!(1)),
        ("auto_restart", json!("yes")),
        ("max_restarts", json!(-2)),
        ("max_restarts", json!(1.5)),
        ("max_restarts", json!("3")),
        ("max_restarts", json!(1_000_001)),
        ("max_restarts", json!(9_999_999_999_999_i64)),
        ("environment", json!({"HXE_RUN_ID": "1"})),
        ("environment", json!({"HXE_": ""})),
        ("environment", json!({"A=B": "1"})),
        ("environment", json!({"": "1"})),
        ("environment", json!({"A": "\u{0}"})),
        ("environment", json!({"A": 1})),
        ("environment", json!(["A=1"])),
        ("umask", json!("8")),
        ("umask", json!("1000")),
        ("umask", json!("-1")),
        ("umask", json!(22)),
        ("stop_signal", json!("TERMINATE")),
        ("stop_signal", json!("0")),
        ("stop_signal", json!("65")),
        ("stop_timeout", json!("10")),
        ("stop_timeout", json!(10)),
        ("stop_timeout", json!("-1s")),
        ("stop_timeout", json!("25h")),
        ("restart_delay", json!("soon")),
        ("restart_delay", json!("99999999999999999999s")),
        ("restart_policy", json!("never")),
        ("log_disk", json!("disk")),
        ("success_exit_codes", json!([256])),
        ("success_exit_codes", json!([-1])),
        ("success_exit_codes", json!(0)),
        ("nmae", json!("a")),
        ("exec", json!("/bin/sh")),
    ] {
        let definition = sleeper("a").with(field, value.clone());
        let reply = daemon.try_create(&definition);
        assert_eq!(reply.status, 400, "{field} {value}: {}", reply.text());
        reply.issue(field);
    }
    assert!(daemon.list("").is_empty());
}

#[test]
fn a_missing_name_is_answered_as_the_reference_shows() {
    let daemon = Daemon::start();
    let reply = daemon.post("/api/program", r#"{"command":"/bin/true"}"#);
    assert_eq!(
        reply.ok(400),
        json!({
            "error": "validation_error",
            "message": "Invalid request body",
            "details": {"field": "name", "issue": "Name is required"}
        })
    );
    daemon
        .post("/api/program", r#"{"name":"a"}"#)
        .issue("command");
}

#[test]
fn what_is_no_json_object_is_refused() {
    let daemon = Daemon::start();
    let deep = "[".repeat(60_000);
    let nested = format!(r#"{{"name":{}"#, r#"{"a":"#.repeat(10_000));
    let double = r#"{"name":"a","name":"b","command":"c"}"#;
    for body in [
        "", " ", "{", "null", "[]", "1", "\"a\"", "{}x", "\u{0}", double, &deep, &nested,
    ] {
        let reply = daemon.post("/api/program", body);
        assert_eq!(reply.status, 400, "{:.40}", body);
        reply.error(400, "validation_error");
    }
    assert!(daemon.list("").is_empty());
}

#[test]
fn a_query_that_makes_no_sense_is_refused_by_its_key() {
    let daemon = Daemon::start();
    for (query, field) in [
        ("status=up", "status"),
        ("status=", "status"),
        ("enabled=yes", "enabled"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit", "limit"),
        ("offset=1.5", "offset"),
        ("limit=1&limit=2", "limit"),
        ("sort=name", "sort"),
        ("Status=running", "Status"),
    ] {
        let reply = daemon.get(&format!("/api/program?{query}"));
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
        reply.issue(field);
    }
}

#[test]
fn a_put_of_another_id_or_with_a_mistake_changes_nothing() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let before = program.get();
    let other = sleeper("b").with("id", "program-2");
    daemon.put(&program.path(""), &other.0).issue("id");
    let wrong = sleeper("b").with("args", "'");
    daemon.put(&program.path(""), &wrong.0).issue("args");
    assert_eq!(program.get(), before);
}
