use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::support::{Daemon, Program, Setup, Value, is_alive, kill, need_root, sleeper, until};

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Waits until a declared program runs.
#[track_caller]
fn running<'d>(daemon: &'d Daemon, name: &str) -> Program<'d> {
    let program = daemon.program(name);
    program.reaches("running");
    program
}

#[test]
fn declared_programs_are_there_at_start_and_the_enabled_ones_run() {
    let setup = Setup::new();
    let file = setup.declare_sleeper("a");
    setup.declare(
        "b.toml",
        "name = \"b\"\ncommand = \"/bin/true\"\numask = \"027\"\n",
    );
    let daemon = setup.start();
    let a = running(&daemon, "a").get();
    assert_eq!(a["declared"], text(&file));
    assert_eq!(a["enabled"], true);
    let b = daemon.program("b").get();
    assert_eq!(
        (&b["state"], &b["umask"]),
        (&"stopped".into(), &"027".into())
    );
    daemon.program("b").post("start").ok(200);
    assert!(daemon.create(&sleeper("c")).get().get("declared").is_none());
}

#[test]
fn ids_are_kept_over_restarts_and_never_used_again() {
    let setup = Setup::new();
    setup.declare_sleeper("b");
    let daemon = setup.start();
    let id = |daemon: &Daemon, name: &str| daemon.program(name).get()["id"].clone();
    let (b, c) = (id(&daemon, "b"), daemon.create(&sleeper("c")).id);
    // Before b in order of files.
    setup.declare_sleeper("a");
    let daemon = daemon.restart();
    assert_eq!(id(&daemon, "b"), b);
    assert_eq!(id(&daemon, "c"), c.as_str());
    let a = id(&daemon, "a");
    let daemon = daemon.restart();
    assert_eq!((id(&daemon, "a"), id(&daemon, "b")), (a.clone(), b.clone()));
    setup.undeclare("a.toml");
    daemon.post("/api/reload", "").ok(200);
    setup.declare_sleeper("a");
    daemon.post("/api/reload", "").ok(200);
    let again = id(&daemon, "a");
    assert!(![&a, &b, &Value::from(c)].contains(&&again), "{again}");
}

#[test]
fn only_its_file_changes_a_declared_program() {
    let setup = Setup::new();
    let file = setup.declare_sleeper("a");
    let daemon = setup.start();
    let program = running(&daemon, "a");
    let before = program.get();
    for reply in [
        daemon.put(&program.path(""), &before),
        daemon.delete(&program.path("")),
        program.post("enable"),
        program.post("disable"),
    ] {
        let json = reply.ok(409);
        assert_eq!(json["error"], "conflict");
        assert_eq!(json["details"]["issue"], text(&file), "{json}");
    }
    assert_eq!(program.get(), before);
    program.post("restart").ok(200);
    program.stopped();
    assert_eq!(program.state(), "stopped");
}

#[test]
fn what_a_get_shows_of_it_can_be_made_a_program_of_the_api() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let daemon = setup.start();
    let mut body = running(&daemon, "a").get();
    body["name"] = "b".into();
    let made = daemon.post("/api/program", &body.to_string()).ok(201);
    assert!(made.get("declared").is_none(), "{made}");
}

#[test]
fn a_stop_of_a_declared_program_lasts_over_a_death_of_the_daemon_and_over_reloads() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let daemon = setup.start();
    running(&daemon, "a").stopped();
    daemon.post("/api/reload", "").ok(200);
    assert_eq!(daemon.program("a").state(), "stopped");
    let mut daemon = daemon;
    daemon.kill();
    let daemon = daemon.succeed();
    assert_eq!(daemon.program("a").state(), "stopped");
}

#[test]
fn a_declared_program_may_run_as_root_while_the_password_is_the_default_one() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let lines = "name = \"a\"\ncommand = \"/bin/sleep\"\nargs = \"1000\"\nuser = \"root\"\nenabled = true\n";
    setup.declare("a.toml", lines);
    let daemon = setup.start();
    let pid = running(&daemon, "a").pid();
    let uids = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(uids.contains("Uid:\t0\t0\t0\t0"), "{uids}");
    // And one that does not say so does not.
    setup.declare_sleeper("b");
    daemon.post("/api/reload", "").ok(200);
    assert_eq!(running(&daemon, "b").get()["user"], "nobody");
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let setup = Setup::new();
    let file = setup.declare_sleeper("a");
    let mode = |path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    for bad in [0o666, 0o664] {
        mode(&file, bad);
        let (code, output) = setup.run(&["--check"]);
        assert_eq!(code, Some(2), "{output}");
        assert!(
            output.contains(&format!("{}: can be written", text(&file))),
            "{output}"
        );
    }
    mode(&file, 0o644);
    let dir = setup.path("programs.d");
    mode(&dir, 0o777);
    let (code, output) = setup.run(&["--check"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(
        output.contains(&format!("{}: can be written", text(&dir))),
        "{output}"
    );
    mode(&dir, 0o755);
    assert_eq!(setup.run(&["--check"]).0, Some(0));
    if need_root() {
        std::os::unix::fs::chown(&file, Some(12345), None).expect("we are root");
        let (code, output) = setup.run(&["--check"]);
        assert_eq!(code, Some(2), "{output}");
        assert!(output.contains("is owned by user 12345"), "{output}");
    }
}

#[test]
fn a_mistake_in_a_file_is_found_by_check_and_keeps_no_other_program_from_running() {
    let setup = Setup::new();
    setup.declare_sleeper("good");
    let file = setup.declare("bad.toml", "name = \"bad\"\ncomand = \"/bin/true\"\n");
    let expected = format!("{}:3: [program] comand: Unknown field", text(&file));
    let (code, output) = setup.run(&["--check"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains(&expected), "{output}");
    let daemon = setup.start();
    running(&daemon, "good");
    until(|| daemon.output().contains(&expected));
    daemon.get("/api/program/bad").error(404, "not_found");
}

#[test]
fn a_user_that_is_not_there_is_found_by_check_and_fails_only_its_own_start() {
    let setup = Setup::new();
    setup.declare_sleeper("good");
    let lines =
        "name = \"bad\"\ncommand = \"/bin/true\"\nuser = \"no-such-user\"\nenabled = true\n";
    let file = setup.declare("bad.toml", lines);
    let (code, output) = setup.run(&["--check"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(
        output.contains(&format!("{}:4: [program] user: ", text(&file))),
        "{output}"
    );
    let daemon = setup.start();
    running(&daemon, "good");
    daemon.program("bad").reaches("failed");
}

#[test]
fn a_program_whose_file_is_broken_while_the_daemon_is_away_goes_on_as_it_was() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let mut daemon = setup.start();
    let pid = running(&daemon, "a").pid();
    daemon.kill();
    setup.declare("a.toml", "name = \"a\n");
    let daemon = daemon.succeed();
    assert_eq!(daemon.program("a").pid(), pid);
    until(|| daemon.output().contains("a.toml:2: "));
}

#[test]
fn what_is_changed_and_removed_while_the_daemon_is_away_is_carried_out_by_the_next_one() {
    let setup = Setup::new();
    setup.declare_sleeper("changed");
    setup.declare_sleeper("gone");
    setup.declare_sleeper("same");
    let mut daemon = setup.start();
    let pids = ["changed", "gone", "same"].map(|name| running(&daemon, name).pid());
    let gone = daemon.program("gone").get()["id"].clone();
    daemon.kill();
    let lines = fs::read_to_string(setup.declared("changed.toml")).expect("it is there");
    let lines = lines.replace("1000", "1001").replace("[program]\n", "");
    setup.declare("changed.toml", &lines);
    setup.undeclare("gone.toml");
    setup.declare_sleeper("new");
    let daemon = daemon.succeed();
    daemon.program("changed").other_pid(pids[0]);
    until(|| !is_alive(pids[1]) && daemon.get("/api/program/gone").status == 404);
    let gone = gone.as_str().expect("an id is text");
    until(|| !daemon.log_dir().join(gone).exists());
    assert_eq!(daemon.program("same").pid(), pids[2]);
    running(&daemon, "new");
}

#[test]
fn a_program_whose_file_is_gone_or_changed_before_the_start_does_not_run_as_it_was() {
    let setup = Setup::new();
    let marks = setup.path("scratch");
    let declare = |name: &str, mark: &str| {
        let script = format!("touch {}; exec sleep 1000", text(&marks.join(mark)));
        let lines = format!(
            "name = {name:?}\ncommand = \"/bin/sh\"\nargs = \"-c '{script}'\"\nenabled = true\n"
        );
        setup.declare(&format!("{name}.toml"), &lines);
    };
    declare("gone", "gone");
    declare("changed", "old");
    setup.declare("later.toml", "name = \"later\"\ncommand = \"/bin/true\"\n");
    let mut daemon = setup.start();
    running(&daemon, "gone");
    running(&daemon, "changed");
    until(|| marks.join("gone").exists() && marks.join("old").exists());
    assert_eq!(daemon.stop(), Some(0));
    drop(daemon);
    for mark in ["gone", "old"] {
        fs::remove_file(marks.join(mark)).expect("it is there");
    }
    setup.undeclare("gone.toml");
    declare("changed", "new");
    setup.declare_sleeper("later");
    let daemon = setup.start();
    running(&daemon, "changed");
    running(&daemon, "later");
    until(|| marks.join("new").exists() && daemon.get("/api/program/gone").status == 404);
    assert!(!marks.join("gone").exists() && !marks.join("old").exists());
}

#[test]
fn a_name_of_a_file_and_of_the_api_is_refused_and_both_are_named() {
    let setup = Setup::new();
    let file = setup.declare_sleeper("a");
    let daemon = setup.start();
    let json = daemon.try_create(&sleeper("a")).ok(409);
    let issue = json["details"]["issue"].as_str().expect("a sentence");
    assert!(
        issue.contains(text(&file)) && issue.contains("\"a\""),
        "{json}"
    );
    let other = daemon.create(&sleeper("b"));
    let file = setup.declare_sleeper("b");
    let issue = daemon.post("/api/reload", "").issue("configuration");
    let expected = format!(
        "{}:2: [program] name: \"b\" is the name of {}",
        text(&file),
        other.id
    );
    assert!(issue.starts_with(&expected), "{issue}");
    // A start has what it can have.
    let daemon = daemon.restart();
    until(|| daemon.output().contains(&expected));
    assert!(daemon.program("b").get().get("declared").is_none());
    running(&daemon, "a");
}

#[test]
fn a_name_in_two_files_is_refused_and_both_are_named() {
    let setup = Setup::new();
    let first = setup.declare("1.toml", "name = \"a\"\ncommand = \"/bin/true\"\n");
    let second = setup.declare("2.toml", "command = \"/bin/true\"\nname = \"a\"\n");
    let (code, output) = setup.run(&["--check"]);
    assert_eq!(code, Some(2), "{output}");
    assert!(
        output.contains(&format!("{}:3: [program] name: ", text(&second))),
        "{output}"
    );
    assert!(output.contains(text(&first)), "{output}");
}

#[test]
fn a_relative_pattern_begins_where_hxe_toml_is() {
    let setup = Setup::new().key("programs", "include", "\"programs.d/a?.toml\"");
    setup.declare("a1.toml", "name = \"a1\"\ncommand = \"/bin/true\"\n");
    setup.declare("b1.toml", "name = \"b1\"\ncommand = \"/bin/true\"\n");
    let daemon = setup.start();
    daemon.get("/api/program/a1").ok(200);
    daemon.get("/api/program/b1").error(404, "not_found");
}

#[test]
fn an_enabled_program_starts_also_if_the_daemon_dies_before_it_has() {
    // One that holds up the start of the others, as long as its program cannot be begun.
    let setup = Setup::new();
    for name in ["a", "b", "c"] {
        setup.declare_sleeper(name);
    }
    let daemon = setup.start();
    kill(daemon.server_pid(), Signal::KILL);
    for name in ["a", "b", "c"] {
        until(|| daemon.program(name).state() == "running");
    }
}

#[test]
fn two_hundred_declared_programs_take_one_commit_and_a_reload_none() {
    let setup = Setup::new();
    for number in 0..200 {
        let lines = format!("name = \"p{number}\"\ncommand = \"/bin/true\"\n");
        setup.declare(&format!("{number:03}.toml"), &lines);
    }
    let daemon = setup.start();
    assert_eq!(
        daemon
            .get("/api/program?limit=1000")
            .ok(200)
            .as_array()
            .map(Vec::len),
        Some(200)
    );
    let database = setup.path("state/hxe.redb");
    let changed = || {
        fs::metadata(&database)
            .expect("it is there")
            .modified()
            .expect("it has a time")
    };
    let before = (changed(), fs::read(&database).expect("it can be read"));
    let json = daemon.post("/api/reload", "").ok(200);
    assert_eq!(json["unchanged"], 200);
    assert_eq!(
        (changed(), fs::read(&database).expect("it can be read")),
        before
    );
}

/// Lets the directory of an ordinary user, as root may write everywhere, be written or not.
fn with_read_only_state(setup: &Setup, read_only: bool) {
    let (dir, file) = match read_only {
        true => (0o500, 0o400),
        false => (0o700, 0o600),
    };
    let mode = |path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("we are root");
    };
    let state = setup.path("state");
    if !state.exists() {
        fs::create_dir(&state).expect("the directory can be written");
        std::os::unix::fs::chown(&state, Some(1234), Some(1234)).expect("we are root");
    }
    mode(&state, dir);
    if state.join("hxe.redb").exists() {
        mode(&state.join("hxe.redb"), file);
    }
}

#[test]
fn declared_programs_need_no_state_dir_that_can_be_written() {
    if !need_root() {
        return;
    }
    let setup = Setup::new().user(1234);
    with_read_only_state(&setup, true);
    setup.declare_sleeper("b");
    let mut daemon = setup.start();
    let b = running(&daemon, "b").get();
    daemon
        .try_create(&sleeper("x"))
        .error(507, "insufficient_storage");
    // Before b in order of files, so that only what is kept tells them apart.
    setup.declare_sleeper("a");
    daemon.post("/api/reload", "").ok(200);
    let a = running(&daemon, "a").get();
    daemon.kill();
    let mut daemon = daemon.succeed();
    for (name, before) in [("a", &a), ("b", &b)] {
        let after = daemon.program(name).get();
        assert_eq!(
            (&after["id"], &after["pid"]),
            (&before["id"], &before["pid"])
        );
    }
    // And when it can be written again, without a boot in between.
    daemon.kill();
    with_read_only_state(&setup, false);
    let daemon = daemon.succeed();
    for (name, before) in [("a", &a), ("b", &b)] {
        let after = daemon.program(name).get();
        assert_eq!(
            (&after["id"], &after["pid"]),
            (&before["id"], &before["pid"])
        );
    }
    let x = daemon.create(&sleeper("x")).id;
    assert!(a["id"] != x.as_str() && b["id"] != x.as_str());
    assert!(!setup.path("run/hxe.redb").exists());
}

#[test]
fn what_a_state_dir_holds_that_cannot_be_written_is_run_and_not_changed() {
    if !need_root() {
        return;
    }
    let setup = Setup::new().user(1234);
    let mut daemon = setup.start();
    let id = daemon.create(&sleeper("api").with("enabled", true)).id;
    assert_eq!(daemon.stop(), Some(0));
    with_read_only_state(&setup, true);
    let before = fs::read(setup.path("state/hxe.redb")).expect("we are root");
    setup.declare_sleeper("a");
    let daemon = daemon.succeed();
    let program = daemon.program(&id);
    program.reaches("running");
    running(&daemon, "a");
    let definition = program.get();
    daemon
        .put(&program.path(""), &definition)
        .error(507, "insufficient_storage");
    program.post("disable").error(507, "insufficient_storage");
    program.stopped();
    daemon
        .delete(&program.path(""))
        .error(507, "insufficient_storage");
    assert_eq!(
        fs::read(setup.path("state/hxe.redb")).expect("we are root"),
        before
    );
}
