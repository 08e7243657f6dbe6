use std::fs;

use rustix::process::Signal;

use crate::support::{
    Daemon, Definition, Disk, Program, Setup, Value, is_alive, json, kill, sh, sleeper, until,
    upgraded,
};

/// Starts it, and waits until it has ended.
fn run(program: &Program, state: &str) {
    program.post("start").ok(200);
    program.reaches(state);
}

#[track_caller]
fn newest(program: &Program) -> Value {
    program.exits()[0].clone()
}

#[test]
fn the_last_ten_ends_are_kept_newest_first() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "echo run $$; exit 3"));
    assert!(program.exits().is_empty());
    for _ in 0..12 {
        run(&program, "failed");
    }
    let exits = program.exits();
    let numbers: Vec<_> = exits.iter().map(|end| end["number"].as_u64()).collect();
    assert_eq!(numbers, (3..=12).rev().map(Some).collect::<Vec<_>>());
    for end in &exits {
        assert_eq!(end["reason"], "crash", "{end}");
        assert_eq!(end["message"], "Program exited with code 3");
        assert_eq!(
            (&end["exit_code"], &end["exit_signal"]),
            (&json!(3), &json!(null))
        );
        assert_eq!(end["by"], json!(null));
        assert_eq!(end["output"], format!("run {}\n", end["pid"]));
        assert!(end["max_memory_bytes"].as_u64() > Some(0), "{end}");
        assert!(end["cpu_seconds"].as_f64() >= Some(0.0), "{end}");
        assert!(end["run_time"].as_f64() >= Some(0.0), "{end}");
    }
    daemon.delete(&program.path("")).ok(200);
    daemon.get(&program.path("/exits")).expect(404);
    assert!(!daemon.setup.path("run").join(&program.id).exists());
}

#[test]
fn each_end_says_why_and_who_asked() {
    let setup = Setup::new();
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let by = |user: &str, via: &str| json!({"user": user, "via": via});
    let check = |reason: &str, by: Value| {
        let end = newest(&program);
        assert_eq!((&end["reason"], &end["by"]), (&json!(reason), &by), "{end}");
        end
    };
    program.post("stop").ok(200);
    let end = check("stop", by("admin", "api"));
    assert_eq!(
        (&end["exit_code"], &end["exit_signal"]),
        (&json!(143), &json!("TERM"))
    );
    assert_eq!(
        end["message"],
        "Program was stopped by admin (was ended by signal TERM)"
    );
    assert_eq!(end["output"], "");

    program.post("start").ok(200);
    program.post("restart").ok(200);
    check("restart", by("admin", "api"));

    // What it said before is not said of who comes later.
    kill(program.pid(), Signal::KILL);
    program.reaches("failed");
    assert_eq!(check("crash", json!(null))["exit_signal"], "KILL");

    program.post("start").ok(200);
    daemon.local_command(&["stop", "a"]).status().unwrap();
    let end = newest(&program);
    assert_eq!(
        (&end["reason"], &end["by"]["via"]),
        (&json!("stop"), &json!("hxe")),
        "{end}"
    );
    assert!(!end["by"]["user"].as_str().unwrap().is_empty());

    let gone = daemon.create(&Definition::new("b", "/no/such", ""));
    gone.post("start").error(400, "start_failed");
    let end = newest(&gone);
    assert_eq!(end["reason"], "start_failed");
    assert!(
        end["message"].as_str().unwrap().contains("No such file"),
        "{end}"
    );
    for field in [
        "exit_code",
        "pid",
        "start_time",
        "run_time",
        "output",
        "max_memory_bytes",
    ] {
        assert_eq!(end[field], json!(null), "{end}");
    }

    let done = daemon.create(&sh("c", "exit 0"));
    run(&done, "exited");
    assert_eq!(done.reasons(), ["exit"]);
}

#[test]
fn a_reload_is_a_reason() {
    let setup = Setup::new();
    setup.declare_sleeper("a");
    let daemon = setup.start();
    let program = daemon.program("program-1");
    program.reaches("running");
    let pid = program.pid();
    let lines = "name = \"a\"\ncommand = \"/bin/sleep\"\nargs = \"1001\"\nenabled = true\n";
    daemon.setup.declare("a.toml", lines);
    daemon.post("/api/reload", "").ok(200);
    program.other_pid(pid);
    let end = newest(&program);
    let by = json!({"user": "admin", "via": "api"});
    assert_eq!(
        (&end["reason"], &end["by"]),
        (&json!("reload"), &by),
        "{end}"
    );
}

#[test]
fn ends_outlive_the_daemon_however_that_ends() {
    let (setup, _) = Setup::new().own_binary();
    let daemon = setup.start();
    let program = daemon.create(&sh("a", "echo last words; exit 3"));
    let id = program.id.clone();
    run(&program, "failed");
    let runs = daemon
        .create(&sleeper("b").with("enabled", true))
        .started()
        .id;
    let before = program.exits();

    kill(daemon.server_pid(), Signal::KILL);
    assert_eq!(program.exits(), before);
    assert_eq!(upgraded(&daemon)["state"], "done");
    assert_eq!(program.exits(), before);
    let mut daemon = daemon;
    daemon.kill();
    let daemon = daemon.succeed();
    assert_eq!(daemon.program(&id).exits(), before);

    // Who is stopped with it knows that.
    let daemon = daemon.restart();
    assert_eq!(daemon.program(&id).exits(), before);
    let end = newest(&daemon.program(&runs));
    let by = json!({"user": null, "via": "signal"});
    assert_eq!(
        (&end["reason"], &end["by"]),
        (&json!("shutdown"), &by),
        "{end}"
    );
    daemon.program(&runs).reaches("running");
}

#[test]
fn an_end_that_only_the_guardian_saw_is_known_as_any_other() {
    let daemon = Daemon::start();
    let script = "trap 'echo last words; exit 3' USR1; echo ready; while :; do sleep 0.05; done";
    let program = daemon.create(&sh("a", script)).started();
    program.says("ready");
    let pid = program.pid();
    daemon.without_server(|| {
        kill(pid, Signal::USR1);
        until(|| !is_alive(pid));
    });
    program.reaches("failed");
    assert_eq!(program.reasons(), ["crash"]);
    let end = newest(&program);
    assert_eq!((&end["exit_code"], &end["pid"]), (&json!(3), &json!(pid)));
    assert_eq!(end["output"], "ready\nlast words\n");
    assert!(end["max_memory_bytes"].as_u64() > Some(0), "{end}");
    assert!(end["cpu_seconds"].is_number(), "{end}");
}

#[test]
fn what_nobody_could_see_is_null() {
    let mut daemon = Setup::new().no_guardian().start();
    let id = daemon.create(&sleeper("a")).started().id;
    let pid = daemon.program(&id).pid();
    daemon.kill();
    kill(pid, Signal::KILL);
    until(|| !is_alive(pid));
    let daemon = daemon.succeed();
    let program = daemon.program(&id);
    program.reaches("failed");
    let end = newest(&program);
    assert_eq!(program.reasons(), ["crash"]);
    assert_eq!(end["pid"], pid);
    // Known only where it is a zombie that somebody else forgot.
    assert_eq!(end["exit_code"], program.get()["exit_code"]);
    if end["exit_code"].is_null() {
        assert_eq!(end["message"], "Program ended, and nobody saw how");
        assert_eq!(end["cpu_seconds"], json!(null));
    }
    assert_eq!(end["max_memory_bytes"], json!(null));
}

#[test]
fn last_words_outlive_the_rotation_of_the_log() {
    for kept in [0, 2] {
        let setup =
            Setup::new()
                .key("logs", "max_size", "\"64KiB\"")
                .key("logs", "max_files", kept);
        let daemon = setup.start();
        let script =
            "if [ -e gone ]; then yes more | head -c 1000000; else echo last words >&2; fi; exit 3";
        let definition = sh(
            "a",
            &script.replace("gone", daemon.scratch("gone").to_str().unwrap()),
        );
        let program = daemon.create(&definition);
        run(&program, "failed");
        fs::write(daemon.scratch("gone"), "").unwrap();
        run(&program, "failed");
        let log = String::from_utf8(
            fs::read(daemon.log_dir().join(&program.id).join("stderr.log")).unwrap(),
        );
        assert_eq!(log.unwrap(), "last words\n");
        // It is its own stream that is rotated away.
        fs::remove_file(daemon.log_dir().join(&program.id).join("stderr.log")).unwrap();
        let exits = program.exits();
        assert_eq!(exits[1]["output"], "last words\n", "{kept}");
        let more = exits[0]["output"].as_str().unwrap();
        assert!(
            more.len() <= 4096 && more.lines().all(|line| line == "more"),
            "{more}"
        );
        assert!(more.len() > 4000 || kept == 0, "{}", more.len());
    }
}

#[test]
fn a_full_run_dir_keeps_no_end_from_being_known() {
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "run", 512) else {
        return;
    };
    let daemon = setup.start();
    let program = daemon.create(&sh("a", "echo last words; exit 3"));
    let filled = disk.fill();
    for _ in 0..12 {
        run(&program, "failed");
    }
    let exits = program.exits();
    assert_eq!((exits.len(), &exits[0]["number"]), (10, &json!(12)));
    assert_eq!(exits[9]["output"], "last words\n");
    drop(filled);
}

#[test]
fn the_commands_show_ends() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "echo one; echo two >&2; exit 3"));
    assert_eq!(daemon.hxe(&["exits", "a", "--format=tsv"]).ok(), "");
    run(&program, "failed");
    let shown = daemon.hxe(&["exits", "a", "--format=json"]).json();
    assert_eq!(shown, json!(program.exits()));
    let rows = daemon.hxe(&["exits", "a", "--format=tsv"]).tsv();
    assert_eq!((rows.len(), rows[0].len()), (1, 9));
    assert_eq!(
        (&*rows[0][0], &*rows[0][2], &*rows[0][3], &*rows[0][8]),
        ("1", "crash", "3", "Program exited with code 3")
    );
    let told = daemon.hxe(&["exits", "a", "-o"]).ok();
    assert!(
        told.contains(": Program exited with code 3 after "),
        "{told}"
    );
    assert!(
        told.contains("\n    one\n") && told.contains("\n    two\n"),
        "{told}"
    );
    let info = daemon.hxe(&["info", "a"]).ok();
    assert!(
        info.contains(" crash: Program exited with code 3 after "),
        "{info}"
    );
    let mut info = daemon.hxe(&["info", "a", "--format=json"]).json();
    assert_eq!(info["exits"], shown);
    // And back.
    info["description"] = json!("new");
    daemon.put(&program.path(""), &info).ok(200);
    daemon.hxe(&["exits", "nobody"]).fails(4);
}
