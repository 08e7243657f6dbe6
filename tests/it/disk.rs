use std::fs;
use std::io::Write;
use std::path::Path;

use crate::support::{
    Daemon, Disk, Follower, Program, Setup, is_alive, need_root, sh, sleeper, status_field, until,
};

/// A program that writes `line N` with N from 1, ten a second at most, to the end of the test.
fn talker(name: &str) -> crate::support::Definition {
    sh(
        name,
        "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done",
    )
}

fn has_warning(program: &Program, part: &str) -> bool {
    let warnings = program.logs("?level=warn&lines=1000");
    warnings.iter().any(|entry| {
        entry["stream"] == "hxe" && entry["message"].as_str().is_some_and(|m| m.contains(part))
    })
}

#[test]
fn on_a_full_disk_changes_are_refused_until_there_is_room() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "state", 512) else {
        return;
    };
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let filled = disk.fill();
    // What room the database has left is used up first.
    let refused = (0..200)
        .map(|number| daemon.try_create(&sleeper(&format!("b{number}"))))
        .find(|reply| reply.status != 201)
        .expect("the disk is full at last");
    let sentence = refused.error(507, "insufficient_storage");
    assert!(sentence.contains("disk"), "{sentence}");
    assert_eq!(program.pid(), pid);
    let known = daemon.list("?limit=1000").len();
    program.stopped();
    program.post("start").ok(200);
    program.post("restart").ok(200);
    daemon.login();

    filled.make_room();
    daemon.create(&sleeper("c"));
    let daemon = daemon.restart();
    assert_eq!(
        daemon.list("?limit=1000").len(),
        known + 1,
        "no acknowledged change is lost"
    );
}

#[test]
fn on_a_full_disk_programs_can_be_deleted() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "state", 768) else {
        return;
    };
    let daemon = setup.start();
    daemon.create(&sleeper("a")).started();
    let filled = disk.fill();
    let mut names = vec!["a".to_owned()];
    for number in 0..200 {
        let name = format!("b{number}");
        match daemon.try_create(&sleeper(&name)).status {
            201 => names.push(name),
            status => {
                assert_eq!(status, 507);
                break;
            }
        }
    }
    for name in names {
        daemon.delete(&format!("/api/program/{name}")).ok(200);
    }
    let daemon = daemon.restart();
    assert!(daemon.list("").is_empty());
    filled.make_room();
    daemon.create(&sleeper("c"));
}

#[test]
fn a_state_dir_that_is_not_there_refuses_changes_until_it_is_back() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    let [state, away] = ["state", "away"].map(|name| daemon.setup.path(name));
    fs::rename(&state, &away).unwrap();
    for _ in 0..3 {
        daemon
            .try_create(&sleeper("b"))
            .error(507, "insufficient_storage");
    }
    program.post("restart").ok(200);
    assert!(!state.exists(), "no other database is made");
    fs::rename(&away, &state).unwrap();
    daemon.create(&sleeper("b"));
    let daemon = daemon.restart();
    assert_eq!(daemon.list(""), ["a", "b"]);
}

#[test]
fn a_removed_state_dir_is_written_anew_with_the_next_change() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    fs::remove_dir_all(daemon.setup.path("state")).unwrap();
    daemon.create(&sleeper("b"));
    until(|| daemon.output().contains("was removed while it was in use"));
    let daemon = daemon.restart();
    assert_eq!(daemon.list(""), ["a", "b"]);
    assert_eq!(daemon.create(&sleeper("c")).id, "program-3");
}

#[test]
fn a_full_run_dir_stops_no_start_stop_or_restart() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "run", 512) else {
        return;
    };
    let daemon = setup.start();
    let running = daemon.create(&talker("running")).started();
    let new = daemon.create(&sh("new", "echo hello; exec sleep 1000"));
    let filled = disk.fill();
    daemon
        .try_create(&sleeper("refused"))
        .error(507, "insufficient_storage");
    assert_eq!(daemon.list(""), ["running", "new"]);
    for _ in 0..40 {
        running.post("restart").ok(200);
    }
    running.stopped();
    new.post("start").ok(200);
    new.says("hello");
    // What stands on record holds: a daemon that dies now finds its program.
    let (pid, new_id) = (new.pid(), new.id.clone());
    let mut daemon = daemon;
    daemon.kill();
    let daemon = daemon.succeed();
    let new = daemon.program(&new_id);
    new.reaches("running");
    assert_eq!(new.pid(), pid);

    filled.make_room();
    daemon.create(&sleeper("not refused"));
    new.post("restart").ok(200);
    until(|| {
        let messages = new.messages("hxe");
        messages
            .iter()
            .any(|message| message.contains("Program restarted"))
    });
}

#[test]
fn lines_of_hxes_own_that_a_full_run_dir_takes_not_are_counted_and_said() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "run", 512) else {
        return;
    };
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let filled = disk.fill();
    // Its file has some room left on its last page.
    let said = "cannot be written";
    until(|| {
        program.post("restart").ok(200);
        daemon.output().contains(said)
    });
    filled.make_room();
    program.post("restart").ok(200);
    until(|| {
        has_warning(
            &program,
            "of hxe's own lines could not be written before this one",
        )
    });
}

#[test]
fn a_removed_run_dir_is_there_again_at_the_next_need() {
    let daemon = Daemon::start();
    let runs_on = daemon.create(&talker("runs on")).started();
    let other = daemon.create(&sh("other", "echo hello; exec sleep 1000"));
    let pid = runs_on.pid();
    fs::remove_dir_all(daemon.setup.path("run")).unwrap();

    // All that needs it works, and makes it anew.
    other.post("start").ok(200);
    other.says("hello");
    daemon.create(&sleeper("new")).started();
    assert_eq!(runs_on.pid(), pid);
    let lines = runs_on.messages("stdout").len();
    until(|| runs_on.messages("stdout").len() > lines);
    // Who was not asked for anything is on record again, too.
    let record = daemon.setup.path("run").join(&runs_on.id).join("record");
    until(|| fs::read_to_string(&record).is_ok_and(|text| text.contains(&format!("pid {pid}\n"))));

    let socket = daemon.setup.path("run/hxe.sock");
    until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());

    runs_on.post("restart").ok(200);
    assert!(!is_alive(pid));
    runs_on.says("line 1");
    let found = [&runs_on, &other].map(|program| (program.id.clone(), program.pid()));
    let mut daemon = daemon;
    daemon.kill();
    let daemon = daemon.succeed();
    for (id, pid) in found {
        let program = daemon.program(&id);
        program.reaches("running");
        assert_eq!(program.pid(), pid);
    }
}

#[test]
fn a_removed_log_dir_is_there_again_with_the_next_line() {
    let daemon = Daemon::start();
    let program = daemon.create(&talker("a")).started();
    program.says("line 3");
    let pid = program.pid();
    // It is written to meanwhile.
    until(|| fs::remove_dir_all(daemon.log_dir()).is_ok());
    until(|| program.stdout().ends_with(b"\n"));
    assert!(!String::from_utf8_lossy(&program.stdout()).contains("line 3\n"));
    let other = daemon.create(&sh("b", "echo hello")).started();
    other.says("hello");
    assert_eq!(program.pid(), pid);
}

#[test]
fn a_read_only_log_dir_loses_lines_counts_them_and_is_written_again() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "log", 512) else {
        return;
    };
    let daemon = setup.start();
    let program = daemon.create(&talker("a"));
    // No file may be open to write when the disk is made read-only.
    disk.set_read_only(true);
    let program = program.started();
    let pid = program.pid();
    until(|| {
        daemon
            .output()
            .contains("cannot be written to its log file")
    });
    disk.set_read_only(false);
    until(|| has_warning(&program, "dropped "));
    until(|| !program.messages("stdout").is_empty());
    assert_eq!(program.pid(), pid);
}

#[test]
fn on_a_full_log_dir_lines_are_dropped_counted_and_said_in_the_log() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "log", 512) else {
        return;
    };
    let daemon = setup.start();
    // Each line needs a page of its own, or nearly so.
    let script = "p=$(printf %04000d 0); while :; do echo $p; sleep 0.02; done";
    let program = daemon.create(&sh("a", script)).started();
    until(|| program.stdout().len() > 8000);
    let pid = program.pid();
    let filled = disk.fill();
    until(|| daemon.output().contains("it is dropped"));
    let other = daemon.create(&sleeper("b")).started();
    other.stopped();
    filled.make_room();
    until(|| has_warning(&program, "dropped "));
    let bytes = program.stdout().len();
    until(|| program.stdout().len() > bytes);
    assert_eq!(program.pid(), pid);
}

#[test]
fn with_block_a_full_log_dir_holds_the_program_and_loses_nothing() {
    if !need_root() {
        return;
    }
    let setup = Setup::new().key("logs", "on_full", "\"block\"");
    let Some(disk) = Disk::mount(&setup, "log", 2048) else {
        return;
    };
    let daemon = setup.start();
    let filled = disk.fill();
    let script = "seq 1 30000; echo done; exec sleep 1000";
    let program = daemon.create(&sh("a", script)).started();
    until(|| daemon.output().contains("it waits"));
    // The pipe holds some of it, and the shell waits for seq.
    assert!(!String::from_utf8_lossy(&program.stdout()).contains("done"));
    filled.make_room();
    until(|| program.stdout().ends_with(b"done\n"));
    let expected: String = (1..=30000).map(|n| format!("{n}\n")).collect();
    assert_eq!(
        String::from_utf8(program.stdout()).unwrap(),
        expected + "done\n"
    );
}

/// Asks until the answers have come to this number.
fn goes_on_to(program: &Program, ask: &impl Fn(), number: u32) {
    until(|| {
        ask();
        let lines = program.messages("stdout");
        let last = lines.last().and_then(|line| line.split_once(' '));
        last.is_some_and(|(n, _)| n.parse::<u32>().is_ok_and(|n| n >= number))
    });
}

#[test]
fn on_a_full_disk_logs_are_rotated() {
    if !need_root() {
        return;
    }
    let setup = Setup::new()
        .key("logs", "max_size", "\"16KiB\"")
        .key("logs", "max_files", 2);
    let Some(disk) = Disk::mount(&setup, "log", 512) else {
        return;
    };
    let daemon = setup.start();
    let script = "n=0; while read l; do n=$((n+1)); seq -f \"$n %06g\" 1 1000; done";
    let fifo = daemon.scratch("asks");
    let script = format!("mkfifo {0}; exec 3<>{0}; ({script}) <&3", fifo.display());
    let program = daemon.create(&sh("a", &script)).started();
    until(|| fifo.exists());
    let ask = || {
        let mut fifo = fs::File::options().write(true).open(&fifo).unwrap();
        fifo.write_all(b"more\n").unwrap();
    };
    for _ in 0..5 {
        ask();
    }
    program.says("5 001000");
    // Room for the rest of the current file. Rotation frees what the next one takes, so that lines go on coming.
    let filled = disk.fill();
    filled.give(24 * 1024);
    goes_on_to(&program, &ask, 20);
    filled.make_room();
    goes_on_to(&program, &ask, 30);
    let files = fs::read_dir(disk.path().join(&program.id)).unwrap();
    let logs = files.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("stdout.log")
    });
    assert!(logs.count() <= 3);
}

/// A program that writes one line for each that it is told.
fn echo<'d>(daemon: &'d Daemon) -> (Program<'d>, impl Fn(&str)) {
    let fifo = daemon.scratch("told");
    let script = format!("mkfifo {0}; exec cat 0<>{0}", fifo.display());
    let program = daemon.create(&sh("echo", &script)).started();
    until(|| fifo.exists());
    let tell = move |line: &str| {
        let mut fifo = fs::File::options().write(true).open(&fifo).unwrap();
        writeln!(fifo, "{line}").unwrap();
    };
    (program, tell)
}

#[test]
fn a_log_file_that_somebody_removes_or_truncates_loses_nothing_that_comes_after() {
    let daemon = Daemon::start();
    let (program, tell) = echo(&daemon);
    let mut follower = Follower::open(&program, "&lines=0", "");
    let path = program.stdout_path();
    tell("one");
    assert_eq!(follower.message(), "one");
    until(|| program.stdout() == b"one\n");
    // As logrotate does with copytruncate.
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    tell("two");
    assert_eq!(follower.message(), "two");
    until(|| program.stdout() == b"two\n");
    fs::remove_file(&path).unwrap();
    tell("three");
    assert_eq!(follower.message(), "three");
    until(|| program.stdout() == b"three\n");
    fs::rename(&path, path.with_extension("away")).unwrap();
    tell("four");
    until(|| program.stdout() == b"four\n");
    assert_eq!(follower.message(), "four");
    assert_eq!(program.messages("stdout"), ["four"]);
    assert!(Path::new(&copy).exists());
}

#[test]
fn a_log_that_the_system_lets_grow_no_more_is_rotated() {
    let daemon = Setup::new()
        .key("logs", "max_size", "\"64MiB\"")
        .file_size(8192)
        .start();
    let script = "head -c 6000000 /dev/zero | tr '\\0' x | fold -w 999; echo; echo last";
    let program = daemon.create(&sh("a", script)).started();
    program.says("last");
    let dir = daemon.log_dir().join(&program.id);
    let size = |name: &str| fs::metadata(dir.join(name)).map_or(0, |meta| meta.len());
    let expected = 6_000_000 + 6_000_000 / 999 + "\nlast\n".len() as u64;
    assert_eq!(size("stdout.log.1") + size("stdout.log"), expected);
    assert!(size("stdout.log.1") > 4_000_000, "{}", size("stdout.log.1"));
    // What the guardian says may go to such a file, too.
    let ignored = status_field(daemon.pid(), "SigIgn").expect("it runs");
    let ignored = u64::from_str_radix(&ignored, 16).expect("a set is hexadecimal");
    assert_ne!(ignored & (1 << (25 - 1)), 0, "SIGXFSZ is ignored");
}

#[test]
fn a_log_dir_that_became_a_file_does_not_keep_the_next_daemon_from_serving() {
    let daemon = Daemon::start();
    let program = daemon.create(&talker("a")).started();
    program.says("line 1");
    let pid = program.pid();
    let log = daemon.log_dir();
    // Nobody makes it anew meanwhile.
    daemon.without_server(|| {
        fs::remove_dir_all(&log).unwrap();
        fs::write(&log, "in the way").unwrap();
    });
    assert_eq!(program.pid(), pid);
    daemon.without_server(|| ());
    assert_eq!(program.pid(), pid);
    assert!(
        daemon.output().contains("(log_dir) cannot be opened"),
        "{}",
        daemon.output()
    );
    // What has no place to log to is not created, and what is there runs.
    assert_eq!(daemon.try_create(&sleeper("b")).status, 507);
    program.post("restart").ok(200);
    fs::remove_file(&log).unwrap();
    until(|| program.stdout_path().exists());
    daemon.create(&sleeper("b")).started().stopped();
}
