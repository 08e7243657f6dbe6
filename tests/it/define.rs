use crate::support::command::Running;
use crate::support::{Daemon, json};

#[test]
fn every_option_reaches_the_definition() {
    let daemon = Daemon::start();
    let created = daemon
        .hxe(&[
            "create",
            "--name=all",
            "--description=what it is",
            "--command=/bin/sh",
            "--args=-c 'exit 0'",
            "--directory=/tmp",
            "--enabled",
            "--auto-restart",
            "--max-restarts=-1",
            "--restart-policy=always",
            "--restart-delay=2s",
            "--success-exit-codes=0,3",
            "--log-disk=memory",
            "--stop-signal=INT",
            "--stop-timeout=5s",
            "--umask=027",
            "-eA=1",
            "--env",
            "B=x=y",
            "--format=json",
        ])
        .json();
    for (field, value) in [
        ("name", json!("all")),
        ("description", json!("what it is")),
        ("command", json!("/bin/sh")),
        ("args", json!("-c 'exit 0'")),
        ("directory", json!("/tmp")),
        ("enabled", json!(true)),
        ("auto_restart", json!(true)),
        ("max_restarts", json!(-1)),
        ("restart_policy", json!("always")),
        ("restart_delay", json!("2s")),
        ("success_exit_codes", json!([0, 3])),
        ("log_disk", json!("memory")),
        ("stop_signal", json!("INT")),
        ("stop_timeout", json!("5s")),
        ("umask", json!("027")),
        ("environment", json!({"A": "1", "B": "x=y"})),
    ] {
        assert_eq!(created[field], value, "{field}");
    }
}

#[test]
fn words_behind_the_command_are_its_own() {
    let daemon = Daemon::start();
    daemon
        .hxe(&[
            "create", "--start", "a", "echo", "--name", "x y", "it's", "", "-q",
        ])
        .ok();
    let program = daemon.program("program-1");
    program.says("--name x y it's  -q");
    assert_eq!(program.get()["command"], "echo");
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let daemon = Daemon::start();
    daemon
        .hxe(&[
            "create",
            "--auto-restart",
            "-eA=1",
            "-eB=2",
            "a",
            "sleep",
            "1000",
        ])
        .ok();
    let before = daemon.program("a").get();
    let out = daemon.hxe(&["update", "a", "--stop-timeout=3s"]).ok();
    assert_eq!(out, "a: updated (program-1)\n");
    let mut expected = before.clone();
    expected["stop_timeout"] = json!("3s");
    let after = daemon.program("a").get();
    expected["updated_at"] = after["updated_at"].clone();
    assert_eq!(after, expected);

    daemon
        .hxe(&[
            "update",
            "a",
            "--auto-restart=false",
            "-eA",
            "-eC=3",
            "--name=b",
        ])
        .ok();
    let after = daemon.program("b").get();
    assert_eq!(after["auto_restart"], false);
    assert_eq!(after["environment"], json!({"B": "2", "C": "3"}));
    daemon.hxe(&["start", "b"]).ok();
    let out = daemon.hxe(&["update", "b", "--args=2000"]).ok();
    assert!(out.contains("next start"), "{out}");
    let out = daemon.hxe(&["update", "b", "--enabled"]).ok();
    assert!(!out.contains("next start"), "{out}");
    daemon.hxe(&["update", "nobody", "--enabled"]).fails(4);
    daemon.hxe(&["create", "other", "sleep"]).ok();
    daemon.hxe(&["update", "b", "--name", "other"]).fails(5);
}

#[test]
fn a_definition_can_come_from_a_file_or_standard_input() {
    let daemon = Daemon::start();
    let body = json!({"name": "a", "command": "/bin/sleep", "args": "1000", "description": "d"});
    let path = daemon.scratch("a.json");
    std::fs::write(&path, body.to_string()).unwrap();
    let path = path.to_str().unwrap();
    daemon
        .hxe(&["create", "-f", path, "--description=other"])
        .ok();
    assert_eq!(daemon.program("a").get()["description"], "other");
    let command = daemon.local_command(&["create", "--file=-", "--name=b"]);
    Running::start(command, body.to_string().as_bytes())
        .ends()
        .ok();
    assert_eq!(daemon.program("b").get()["description"], "d");
    // The whole definition, as info shows it and somebody changed it.
    let mut shown = daemon.hxe(&["info", "b", "--format=json"]).json();
    shown["description"] = json!("edited");
    let command = daemon.local_command(&["update", "b", "-f-"]);
    Running::start(command, shown.to_string().as_bytes())
        .ends()
        .ok();
    assert_eq!(daemon.program("b").get()["description"], "edited");

    for (file, what) in [("/nowhere.json", "/nowhere.json"), ("/etc/passwd", "JSON")] {
        let said = daemon.hxe(&["create", "--file", file]).fails(2);
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let daemon = Daemon::start();
    for (args, what) in [
        (&["create"][..], "NAME"),
        (&["create", "a"], "COMMAND"),
        (
            &["create", "--max-restarts=many", "a", "sleep"],
            "--max-restarts",
        ),
        (
            &["create", "--success-exit-codes=0;1", "a", "sleep"],
            "--success-exit-codes",
        ),
        (&["create", "--env=A", "a", "sleep"], "--env"),
        (
            &["create", "--stop-timeout=soon", "a", "sleep"],
            "stop_timeout",
        ),
        (
            &["create", "--restart-policy=never", "a", "sleep"],
            "--restart-policy",
        ),
        (&["create", "--log-disk=none", "a", "sleep"], "--log-disk"),
        (&["create", "program-7", "sleep"], "name"),
    ] {
        let said = daemon.hxe(args).fails(2);
        assert!(said.contains(what), "{args:?}: {said}");
    }
    assert!(daemon.list("").is_empty());
}
