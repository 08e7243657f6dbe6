//! What of programs' output goes to disk, and what is in memory only: `[logs] disk` and `log_disk`.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{Disk, Follower, Program, Setup, is_alive, is_root, kill, sh, until};

/// Bytes of all files below a directory, without FIFOs.
fn bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes(&entry.path()),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    };
    entries.map(size).sum()
}

/// All files and directories below a directory.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let mut found = names(&entry.path());
            found.push(entry.file_name().to_string_lossy().into_owned());
            found
        })
        .collect()
}

fn with(disk: &str) -> Setup {
    Setup::new().key("logs", "disk", format!("\"{disk}\""))
}

/// Many numbers at once, then more without end.
const COUNT: &str =
    "seq 0 39999; i=40000; while :; do seq $i $((i+99)); i=$((i+100)); sleep 0.02; done";

/// What a program wrote to stdout, as far as it is kept, as numbers.
fn numbers(program: &Program) -> Vec<u64> {
    let logs = program.logs("?lines=10000");
    let stdout = logs.iter().filter(|entry| entry["stream"] == "stdout");
    let text = stdout.map(|entry| entry["message"].as_str().expect("a message is a string"));
    text.map(|line| line.parse().expect("a number")).collect()
}

/// No number is missing between the first and the last, and none there twice.
#[track_caller]
fn check_in_order(numbers: &[u64]) {
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "{} numbers", numbers.len());
    }
}

#[test]
fn in_memory_nothing_is_on_disk_however_much_is_written_and_whatever_dies() {
    let daemon = with("memory").start();
    let definition = sh("a", COUNT)
        .with("auto_restart", true)
        .with("restart_policy", "always");
    let program = daemon.create(&definition).started();
    until(|| numbers(&program).last() > Some(&40_000));
    kill(daemon.server_pid(), Signal::KILL);
    let before = numbers(&program);
    until(|| numbers(&program).last() > before.last());
    check_in_order(&numbers(&program));
    let pid = program.pid();
    kill(pid, Signal::KILL);
    program.other_pid(pid);
    program.stopped();
    assert_eq!(names(&daemon.log_dir()), Vec::<String>::new());
    // Three files of 32 KiB for each stream, and their times.
    let run = daemon.setup.path("run").join(&program.id);
    assert!(bytes(&run) < 256 * 1024, "{}", bytes(&run));
    daemon.delete(&program.path("")).ok(200);
    until(|| !run.exists());
}

#[test]
fn with_errors_an_end_nobody_asked_for_keeps_the_last_on_disk_for_after_a_reboot() {
    let mut daemon = with("errors").start();
    let script = "seq 1 30000; echo $$ breaks >&2; exec sleep 1000";
    let program = daemon.create(&sh("a", script)).started();
    program.says("30000");
    program.stopped();
    assert_eq!(names(&daemon.log_dir()), Vec::<String>::new());
    program.post("start");
    let (pid, breaks) = (program.pid(), format!("{} breaks", program.pid()));
    until(|| program.messages("stderr").last() == Some(&breaks));
    kill(pid, Signal::SEGV);
    program.reaches("failed");
    let (id, log) = (program.id.clone(), daemon.log_dir().join(&program.id));
    let text = String::from_utf8(program.stdout()).unwrap();
    let stderr = fs::read_to_string(log.join("stderr.log")).unwrap();
    assert!(stderr.ends_with(&format!("{breaks}\n")));
    let size = text.len() + stderr.len();
    assert!((65_000..=65_536).contains(&size), "{size}");
    assert!(text.ends_with("\n29999\n30000\n"));
    daemon.stop();
    fs::remove_dir_all(daemon.setup.path("run")).unwrap();
    let daemon = daemon.succeed();
    let program = daemon.program(&id);
    let kept = numbers(&program);
    check_in_order(&kept);
    assert!(kept.len() > 9_000 && kept.last() == Some(&30_000));
    assert_eq!(program.messages("stderr").last(), Some(&breaks));
}

#[test]
fn a_daemon_that_is_killed_loses_and_doubles_nothing_in_any_mode() {
    for mode in ["all", "errors", "memory"] {
        let daemon = with(mode).start();
        let program = daemon.create(&sh("a", COUNT)).started();
        for _ in 0..3 {
            let last = numbers(&program).last().copied().unwrap_or_default();
            until(|| numbers(&program).last() > Some(&(last + 2_000)));
            let server = daemon.server_pid();
            kill(server, Signal::KILL);
            until(|| !is_alive(server));
            check_in_order(&numbers(&program));
        }
        let pid = program.pid();
        kill(pid, Signal::KILL);
        program.reaches("failed");
        check_in_order(&numbers(&program));
    }
}

/// How many numbers are on disk, in files of the stream that lie in order behind each other.
fn on_disk(program: &Program) -> usize {
    String::from_utf8(program.stdout()).map_or(0, |text| text.lines().count())
}

#[test]
fn a_change_of_the_mode_holds_at_once_and_loses_nothing() {
    let mut daemon = Setup::new()
        .key("logs", "max_size", "\"1GiB\"")
        // However slow the test is.
        .key("logs", "ring_size", "\"16MiB\"")
        .start();
    let program = daemon.create(&sh("a", COUNT)).started();
    let id = program.id.clone();
    let put = |daemon: &crate::support::Daemon, disk: &str| {
        let definition = sh("a", COUNT).with("log_disk", disk);
        daemon
            .put(&daemon.program(&id).path(""), &definition.0)
            .ok(200);
    };
    until(|| numbers(&daemon.program(&id)).last() > Some(&41_000));
    let mut follower = Follower::open(&daemon.program(&id), "&lines=1", "");
    let mut next = None;
    let mut goes_on = |count: usize| {
        for _ in 0..count {
            let entry = follower.entry();
            let text = entry["message"].as_str().expect("a message is a string");
            let number: u64 = text.parse().unwrap_or_else(|_| panic!("{entry}"));
            assert_eq!(number, next.unwrap_or(number));
            next = Some(number + 1);
        }
    };
    put(&daemon, "memory");
    goes_on(1_000);
    let size = on_disk(&daemon.program(&id));
    goes_on(1_000);
    assert_eq!(on_disk(&daemon.program(&id)), size);
    check_in_order(&numbers(&daemon.program(&id)));
    put(&daemon, "all");
    goes_on(1_000);
    until(|| on_disk(&daemon.program(&id)) > size + 2_000);
    let text = String::from_utf8(daemon.program(&id).stdout()).unwrap();
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    let all: Vec<u64> = whole.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(all[0], 0);
    check_in_order(&all);
    // What the definition does not say, the configuration does.
    daemon
        .put(&daemon.program(&id).path(""), &sh("a", COUNT).0)
        .ok(200);
    goes_on(100);
    let setup = daemon.setup.clone().key("logs", "disk", "\"memory\"");
    daemon.reload(setup);
    goes_on(1_000);
    let size = on_disk(&daemon.program(&id));
    goes_on(1_000);
    assert_eq!(on_disk(&daemon.program(&id)), size);
}

#[test]
fn a_full_run_dir_holds_or_drops_as_a_full_disk_does() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    for (on_full, says) in [("block", "it waits"), ("drop", "it is dropped")] {
        let setup = with("memory").key("logs", "ring_size", "\"16MiB\"").key(
            "logs",
            "on_full",
            format!("\"{on_full}\""),
        );
        let Some(_disk) = Disk::mount(&setup, "run", 2048) else {
            return;
        };
        let daemon = setup.start();
        let script = "seq 1 400000; while :; do echo more; sleep 0.1; done";
        let program = daemon.create(&sh("a", script)).started();
        until(|| daemon.output().contains(says));
        let definition = sh("a", script).with("log_disk", "all");
        daemon.put(&program.path(""), &definition.0).ok(200);
        program.says("more");
        if on_full == "block" {
            let messages = program.messages("stdout");
            let last: Vec<u64> = messages
                .iter()
                .filter_map(|line| line.parse().ok())
                .collect();
            assert_eq!(last.last(), Some(&400_000));
            check_in_order(&last);
        }
    }
}
