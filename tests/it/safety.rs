use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Daemon, Setup, need_root, sh, sleeper, until};

/// A start that must fail, with one clear line that names all of these.
#[track_caller]
fn check_refused(setup: &Setup, names: &[&str]) {
    let (code, output) = setup.refused();
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    for name in names {
        assert!(output.contains(name), "{name:?} is not in {output:?}");
    }
    assert!(!output.contains("panicked"), "{output}");
    let errors = output.lines().filter(|line| line.contains("error")).count();
    assert_eq!(errors, 1, "one line says it: {output}");
}

#[test]
fn with_the_default_password_only_loopback_is_listened_on() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let open = Setup::new().key("api", "listen", format!("{address:?}"));
        check_refused(&open, &["password"]);
        let (code, output) = open.run(&["--check"]);
        assert_eq!(code, Some(2), "{output}");
        assert!(output.contains("password"), "{output}");
    }
}

#[test]
fn the_default_password_is_mentioned_at_each_start() {
    let said = |daemon: &Daemon| daemon.output().to_lowercase().contains("default password");
    let default = Daemon::start();
    until(|| said(&default));
    assert!(!said(&Setup::new().own_password().start()));
}

#[test]
fn with_the_default_password_programs_run_as_the_default_user_only() {
    if !need_root() {
        return;
    }
    let daemon = Daemon::start();
    for (user, group) in [
        ("root", None),
        ("0", None),
        ("daemon", None),
        ("nobody", Some("root")),
        ("nobody", Some("0")),
    ] {
        let mut definition = sleeper("a").with("user", user);
        if let Some(group) = group {
            definition = definition.with("group", group);
        }
        let reply = daemon.try_create(&definition);
        assert_eq!(reply.status, 403, "{user} {group:?}: {}", reply.text());
    }
    assert!(daemon.list("").is_empty());
    let program = daemon.create(&sleeper("a").with("user", "nobody").with("group", "nogroup"));
    let root = sleeper("a").with("user", "root");
    assert_eq!(daemon.put(&program.path(""), &root.0).status, 403);
    assert_eq!(program.get()["user"], "nobody");
}

#[test]
fn a_program_of_another_user_does_not_start_once_the_password_is_the_default_again() {
    if !need_root() {
        return;
    }
    let mut daemon = Setup::new().own_password().start();
    daemon.create(&sleeper("a").with("user", "daemon").with("enabled", true));
    daemon.stop();
    let daemon = daemon
        .setup
        .clone()
        .key("api", "password", "\"password\"")
        .start();
    let program = daemon.program("a");
    let shown = program.reaches("failed");
    assert_ne!(program.post("start").status, 200);
    assert_eq!(shown["group"], "daemon", "as it stands, not as it may run");
    let sent_back = daemon.put(&program.path(""), &shown);
    assert_eq!(sent_back.error(403, "forbidden"), "Permission denied");
}

#[test]
fn the_directories_are_closed_to_others() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    for (name, mode) in [("state", 0o700), ("run", 0o711), ("log", 0o750)] {
        let metadata = fs::metadata(daemon.setup.path(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!(
            metadata.uid(),
            rustix::process::geteuid().as_raw(),
            "{name}"
        );
    }
    let file = fs::metadata(daemon.setup.path("state").join("hxe.redb")).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    for name in ["state", "run", "log"] {
        for mode in [0o770, 0o707] {
            let setup = Setup::new();
            let path = setup.path(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            check_refused(&setup, &[path.to_str().unwrap()]);
        }
    }
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    if !need_root() {
        return;
    }
    for name in ["state", "run", "log"] {
        let setup = Setup::new();
        let path = setup.path(name);
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), Some(12345)).unwrap();
        check_refused(&setup, &[path.to_str().unwrap()]);
    }
}

#[test]
fn a_file_in_place_of_a_directory_is_refused() {
    for name in ["state", "run", "log"] {
        let setup = Setup::new();
        let path = setup.path(name);
        fs::write(&path, "").unwrap();
        check_refused(&setup, &[path.to_str().unwrap()]);
    }
}

/// A directory elsewhere with one file, and whether both are as they were.
fn precious(daemon: &Daemon) -> impl Fn() -> bool + use<> {
    let dir = daemon.scratch("precious");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("stdout.log"), "precious").unwrap();
    move || {
        let names = fs::read_dir(&dir).unwrap().count();
        names == 1 && fs::read(dir.join("stdout.log")).unwrap() == b"precious"
    }
}

#[test]
fn links_below_the_log_directory_are_not_followed() {
    let daemon = Daemon::start();
    let untouched = precious(&daemon);
    let elsewhere = daemon.scratch("precious");
    symlink(&elsewhere, daemon.log_dir().join("program-1")).unwrap();
    // Whether it can be created at all is the daemon's choice; what lies elsewhere must stay.
    let created = daemon.try_create(&sh("a", "echo hello"));
    if created.status == 201 {
        let program = daemon.program("a");
        program.post("start");
        daemon.delete(&program.path(""));
    }
    assert!(untouched());
    assert!(Path::new(&elsewhere).exists());
}

#[test]
fn a_link_in_place_of_a_log_file_is_not_followed() {
    let daemon = Daemon::start();
    let untouched = precious(&daemon);
    let program = daemon.create(&sh("a", "echo hello"));
    let file = program.stdout_path();
    let _ = fs::remove_file(&file);
    symlink(daemon.scratch("precious").join("stdout.log"), &file).unwrap();
    program.post("start");
    program.reaches("exited");
    daemon.delete(&program.path("")).ok(200);
    assert!(untouched());
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused() {
    let daemon = Daemon::start();
    check_refused(&daemon.setup, &[&daemon.pid().to_string()]);
    daemon.get("/api/program").ok(200);
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setup = Setup::new().key("api", "listen", format!("{address:?}"));
    check_refused(&setup, &[&address]);
}

#[test]
fn a_directory_that_cannot_be_written_is_one_clear_line() {
    let setup = Setup::new().key("storage", "state_dir", "\"/proc/no/such/dir\"");
    check_refused(&setup, &["/proc/no/such/dir"]);
    if need_root() {
        let closed = Setup::new()
            .key("storage", "log_dir", "\"/usr/hxe-test\"")
            .user(12345);
        check_refused(&closed, &["/usr/hxe-test"]);
    }
}

#[test]
fn a_refused_start_leaves_no_daemon_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setup = Setup::new().key("api", "listen", format!("{address:?}"));
    setup.refused();
    drop(taken);
    setup.start().get("/api/program").ok(200);
}

#[test]
fn no_secret_is_said() {
    let daemon = Setup::new().own_password().start();
    let token = daemon.login();
    daemon.with_token(&token, "GET", "/api/program", "").ok(200);
    let output = daemon.output();
    assert!(!output.contains("correct horse"));
    assert!(!output.contains(&token));
}
