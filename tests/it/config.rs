use std::fs;
use std::process::Command;

use crate::support::{Daemon, Setup, need_root, sh};

/// `--check` of a setup with one key more, or with one that is wrong: the exit code and what it says.
fn checked(section: &'static str, key: &'static str, value: &str) -> (Option<i32>, String) {
    Setup::new().key(section, key, value).run(&["--check"])
}

#[test]
fn a_correct_configuration_is_found_correct_and_touches_nothing() {
    let setup = Setup::new();
    let (code, output) = setup.run(&["--check"]);
    assert_eq!(code, Some(0), "{output}");
    for name in ["state", "run", "log"] {
        assert!(!setup.path(name).exists(), "{name}");
    }
}

#[test]
fn a_mistake_is_named_by_file_line_and_key() {
    for (section, key, value) in [
        ("api", "listen", "\"nonsense\""),
        ("api", "listen", "[]"),
        ("api", "listen", "8080"),
        ("api", "workers", "0"),
        ("api", "workers", "-1"),
        ("api", "workers", "\"4\""),
        ("api", "workers", "99999999999"),
        ("api", "max_connections", "0"),
        ("api", "request_timeout", "\"10\""),
        ("api", "request_timeout", "10"),
        ("api", "max_body", "\"64 kilo\""),
        ("api", "max_body", "-1"),
        ("api", "username", "\"\""),
        ("api", "password", "5"),
        ("api", "password_hash", "\"no hash\""),
        ("api", "token_lifetime", "\"0s\""),
        ("api", "rate_limit", "-1"),
        ("api", "rate_limit_window", "\"0s\""),
        ("api", "cors_origins", "[\"no origin\"]"),
        ("api", "dashboard", "1"),
        ("api", "dashboard", "\"true\""),
        ("api", "wrokers", "4"),
        ("storage", "state_dir", "\"relative\""),
        ("storage", "state_dir", "5"),
        ("logs", "max_size", "\"1 elephant\""),
        ("logs", "max_files", "-1"),
        ("logs", "pipe_size", "\"100GiB\""),
        ("logs", "on_full", "\"explode\""),
        ("programs", "directory", "\"relative\""),
        ("programs", "stop_timeout", "\"soon\""),
        ("programs", "max_restarts", "-2"),
        ("no_such_section", "key", "1"),
    ] {
        let (code, output) = checked(section, key, value);
        assert_eq!(code, Some(2), "{section}.{key} = {value}: {output}");
        let named = if section == "no_such_section" {
            section
        } else {
            key
        };
        assert!(output.contains(named), "{key} = {value}: {output}");
        assert!(output.contains("hxe.toml"), "{key} = {value}: {output}");
        assert!(
            output.contains(|c: char| c.is_ascii_digit()),
            "{key} = {value}: {output}"
        );
        assert!(!output.contains("panicked"), "{output}");
    }
}

#[test]
fn the_default_user_of_programs_must_be_there_and_not_be_root() {
    if !need_root() {
        return;
    }
    for value in ["\"root\"", "\"0\"", "\"no-such-user\""] {
        let (code, output) = checked("programs", "user", value);
        assert_eq!(code, Some(2), "{value}: {output}");
        assert!(output.contains("user"), "{output}");
    }
}

#[test]
fn the_line_of_a_mistake_is_the_right_one() {
    let setup = Setup::new();
    let file = setup.path("other.toml");
    fs::write(
        &file,
        "# a comment\n[api]\nrate_limit = 5\n\nworkers = \"many\"\n",
    )
    .unwrap();
    let (code, output) = hxe(&["daemon", "--check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("other.toml:5"), "{output}");
}

#[test]
fn what_is_no_toml_is_named_by_file_and_line() {
    let setup = Setup::new();
    let file = setup.path("broken.toml");
    fs::write(&file, "[api]\nrate_limit = \n").unwrap();
    let (code, output) = hxe(&["daemon", "--check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("broken.toml:2"), "{output}");
}

#[test]
fn a_mistake_keeps_the_daemon_from_starting() {
    let (code, output) = Setup::new().key("api", "workers", "0").refused();
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("workers"), "{output}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let (code, output) = hxe(&["daemon", "--config", "/no/such/hxe.toml"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("/no/such/hxe.toml"), "{output}");
}

#[test]
fn a_variable_sets_a_key() {
    let daemon = Setup::new()
        .variable("HXE_API_USERNAME", "operator")
        .start();
    let login = |name: &str| {
        let body = format!(r#"{{"username":"{name}","password":"password"}}"#);
        daemon.request("POST", "/api/auth/login", "", &body).status
    };
    assert_eq!((login("operator"), login("admin")), (200, 401));

    let (code, output) = Setup::new()
        .variable("HXE_API_WORKERS", "many")
        .run(&["--check"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("HXE_API_WORKERS"), "{output}");
}

#[test]
fn defaults_for_programs_hold_where_a_definition_says_nothing() {
    let daemon = Setup::new()
        .key("programs", "directory", "\"/tmp\"")
        .key("programs", "stop_timeout", "\"3s\"")
        .key("programs", "restart_delay", "\"2s\"")
        .key("programs", "max_restarts", 9)
        .start();
    let shown = daemon.create(&sh("a", "")).get();
    assert_eq!(shown["directory"], "/tmp");
    assert_eq!(shown["stop_timeout"], "3s");
    assert_eq!(shown["restart_delay"], "2s");
    assert_eq!(shown["max_restarts"], 9);
}

#[test]
fn the_example_is_correct_and_has_every_default() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hxe.toml");
    let (code, output) = hxe(&["daemon", "--check", "--config", example]);
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn the_option_alone_means_the_command() {
    let daemon = Daemon::start();
    let file = daemon.setup.path("hxe.toml");
    // The first one holds the directories, so the second one says so if it is a daemon at all.
    let (code, output) = hxe(&["--daemon", "--config", file.to_str().unwrap()]);
    assert!(code.is_some_and(|code| code != 0));
    assert!(output.contains(&daemon.pid().to_string()), "{output}");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in [
        &["no-such-command"][..],
        &["daemon", "--no-such-option"],
        &["daemon", "extra"],
    ] {
        let (code, output) = hxe(args);
        assert_eq!(code, Some(2), "{args:?}: {output}");
    }
}

/// Runs `hxe` to its end: its exit code and what it said.
fn hxe(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hxe"))
        .args(args)
        .output()
        .expect("the binary is there");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}
