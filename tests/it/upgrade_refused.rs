use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::support::{
    Daemon, NEW, OLD, Setup, Value, another_build, children, is_alive, kill, replace, server,
    sleeper, until, upgrade, upgraded,
};

/// Puts something in place of the binary that is none.
type Spoil = fn(&Path, whole: &[u8]);

/// What is no good, and a word of the reason that is given; none where the kernel finds out in more than one way.
const SPOILT: [(&str, Spoil, &str); 9] = [
    (
        "deleted",
        |path, _| fs::remove_file(path).unwrap(),
        "No such file",
    ),
    (
        "text",
        |path, _| replace(path, b"no program"),
        "Exec format error",
    ),
    ("empty", |path, _| replace(path, b""), "Exec format error"),
    (
        "a script",
        |path, _| replace(path, b"#!/bin/sh\nexit 0\n"),
        "exit code",
    ),
    (
        "not executable",
        |path, whole| {
            replace(path, whole);
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        },
        "Permission denied",
    ),
    (
        "for another machine",
        |path, whole| {
            // Its ELF header names another one. Source: elf(5), e_machine.
            let mut foreign = whole.to_vec();
            foreign[18] ^= 0x55;
            replace(path, &foreign);
        },
        "Exec format error",
    ),
    (
        "cut off",
        |path, whole| replace(path, &whole[..100_000]),
        "",
    ),
    (
        "a directory",
        |path, _| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        "Permission denied",
    ),
    (
        "a FIFO",
        |path, _| {
            fs::remove_dir(path).unwrap();
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o755), 0).unwrap();
        },
        "Permission denied",
    ),
];

#[test]
fn what_is_no_binary_is_given_up_while_the_daemon_serves_on() {
    let (setup, path) = Setup::new().own_binary();
    let whole = fs::read(&path).unwrap();
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let before = daemon.server_pid();
    for (number, (what, spoil, word)) in (1..).zip(SPOILT) {
        spoil(&path, &whole);
        let outcome = upgraded(&daemon);
        assert_eq!(outcome["number"], number, "{what}");
        assert_eq!(outcome["state"], "given_up", "{what}");
        let reason = outcome["reason"].as_str().unwrap();
        assert!(reason.contains(word), "{what}: {reason}");
        until(|| daemon.output().contains(reason));
        assert!(is_alive(before), "{what}");
    }
    assert_eq!(program.pid(), pid);
    // Nor does anything else need the file.
    kill(before, Signal::KILL);
    until(|| !is_alive(before));
    assert_eq!(server(&daemon), OLD);
    assert_eq!(program.pid(), pid);
    replace(&path, &whole);
    assert_eq!(upgraded(&daemon)["state"], "done");
}

#[test]
fn a_mistake_in_the_configuration_is_found_before_the_daemon_leaves() {
    let daemon = Daemon::start();
    let before = daemon.server_pid();
    fs::write(daemon.setup.path("hxe.toml"), "[api]\nlisten = 1\n").unwrap();
    let outcome = upgraded(&daemon);
    assert_eq!(outcome["state"], "given_up");
    let reason = outcome["reason"].as_str().unwrap();
    assert!(
        reason.contains("--check") && reason.contains("exit code 2"),
        "{reason}"
    );
    until(|| daemon.output().contains("hxe.toml:2"));
    assert!(is_alive(before));
    daemon.setup.write();
    assert_eq!(upgraded(&daemon)["state"], "done");
}

/// A daemon whose binary is replaced by another build, with a fault there or in its own; that is waited for one second
/// where it hangs.
fn faulty(fault: &str) -> (Daemon, PathBuf) {
    patient(fault, "1")
}

/// The same, waited for so many seconds.
fn patient(fault: &str, seconds: &str) -> (Daemon, PathBuf) {
    let (setup, path) = Setup::new().own_binary();
    let file = setup.path("fault");
    let setup = setup
        .variable("HXE_FAULT", file.to_str().unwrap())
        .variable("HXE_PATIENCE", seconds);
    let daemon = setup.start();
    replace(&path, &another_build(&path));
    fs::write(&file, fault).unwrap();
    (daemon, file)
}

#[test]
fn a_new_binary_that_fails_or_hangs_is_given_up_and_the_old_one_goes_on() {
    let faults = [
        (format!("{NEW} checks"), "killed by signal 9"),
        (format!("hang {NEW} checks"), "did not end"),
        (format!("{NEW} starts"), "before it served"),
        (format!("hang {NEW} starts"), "did not serve"),
        (format!("{NEW} serves"), "soon after it served"),
    ];
    thread::scope(|scope| {
        for (fault, word) in faults {
            scope.spawn(move || is_given_up(&fault, word));
        }
    });
}

/// A new binary with this fault is given up, for a reason that has this word.
fn is_given_up(fault: &str, word: &str) {
    let (daemon, _) = faulty(fault);
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let outcome = upgraded(&daemon);
    assert_eq!(outcome["state"], "given_up", "{fault}");
    let reason = outcome["reason"].as_str().unwrap();
    assert!(reason.contains(word), "{fault}: {reason}");
    assert_eq!(server(&daemon), OLD, "{fault}");
    assert_eq!(program.pid(), pid, "{fault}");
    until(|| daemon.output().contains(reason));
    // Without that fault it is as good as any.
    assert_eq!(upgraded(&daemon)["state"], "done", "{fault}");
    assert_eq!(server(&daemon), NEW, "{fault}");
    assert_eq!(program.pid(), pid, "{fault}");
}

#[test]
fn a_daemon_that_does_not_leave_is_killed_for_the_new_one() {
    let (daemon, _) = faulty(&format!("hang {OLD} leaves"));
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let before = daemon.server_pid();
    daemon.signal(Signal::USR2);
    until(|| !is_alive(before));
    until(|| server(&daemon) == NEW);
    assert_eq!(program.pid(), pid);
}

/// The moments of an upgrade at which it can be held up, and one that lasts for a second.
fn moments() -> [String; 4] {
    [
        format!("hang {NEW} checks"),
        format!("hang {OLD} leaves"),
        format!("hang {NEW} starts"),
        String::new(),
    ]
}

/// At each moment of an upgrade, all at a time: a daemon with a running program, whose id and pid are given, too.
fn at_each_moment(then: impl Fn(Daemon, &str, i32) + Sync) {
    thread::scope(|scope| {
        for moment in moments() {
            let then = &then;
            scope.spawn(move || {
                let (daemon, fault) = faulty(&moment);
                let program = daemon.create(&sleeper("a")).started();
                let (id, pid) = (program.id.clone(), program.pid());
                daemon.signal(Signal::USR2);
                match moment.is_empty() {
                    true => until(|| server(&daemon) == NEW),
                    false => until(|| !fault.exists()),
                }
                then(daemon, &id, pid);
            });
        }
    });
}

#[test]
fn an_end_asked_for_during_an_upgrade_is_one() {
    at_each_moment(|mut daemon, _, pid| {
        assert_eq!(daemon.stop(), Some(0));
        assert!(!is_alive(pid));
    });
}

#[test]
fn a_leave_asked_for_during_an_upgrade_is_one() {
    at_each_moment(|mut daemon, id, pid| {
        daemon.signal(Signal::QUIT);
        assert_eq!(daemon.ends(), Some(0));
        assert!(is_alive(pid));
        let daemon = daemon.succeed();
        assert_eq!(daemon.program(id).pid(), pid);
    });
}

#[test]
fn a_reload_and_another_upgrade_during_an_upgrade_end_with_a_daemon_that_serves() {
    at_each_moment(|daemon, id, pid| {
        daemon.signal(Signal::HUP);
        daemon.signal(Signal::USR2);
        until(|| {
            let upgrade = upgrade(&daemon);
            upgrade["number"] == 2 && upgrade["state"] == "done"
        });
        assert_eq!(server(&daemon), NEW);
        assert_eq!(daemon.program(id).pid(), pid);
    });
}

#[test]
fn a_kill_during_an_upgrade_leaves_the_programs_to_the_next_daemon() {
    at_each_moment(|mut daemon, id, pid| {
        let hung = children(daemon.pid());
        daemon.signal(Signal::KILL);
        // What hangs in a check is not the daemon, and has nobody who would end it.
        for child in hung.into_iter().filter(|child| *child != pid) {
            kill(child, Signal::KILL);
        }
        assert_eq!(daemon.ends(), None);
        assert!(is_alive(pid));
        let daemon = daemon.succeed();
        assert_eq!(daemon.program(id).pid(), pid);
    });
}

#[test]
fn the_daemons_death_during_an_upgrade_costs_no_program() {
    at_each_moment(|daemon, id, pid| {
        let children = children(daemon.pid()).into_iter();
        for child in children.filter(|child| *child != pid) {
            kill(child, Signal::KILL);
            until(|| !is_alive(child));
        }
        let ended = |state: &Value| *state == "done" || *state == "given_up";
        until(|| ended(&upgrade(&daemon)["state"]));
        assert_eq!(daemon.program(id).pid(), pid);
        assert_eq!(upgraded(&daemon)["state"], "done");
        assert_eq!(daemon.program(id).pid(), pid);
    });
}

#[test]
fn who_asks_for_an_end_does_not_wait_for_a_new_binary_that_hangs() {
    let hang = format!("hang {NEW} starts");
    for signal in [Signal::TERM, Signal::QUIT] {
        let (mut daemon, fault) = patient(&hang, "1000");
        daemon.signal(Signal::USR2);
        until(|| !fault.exists());
        daemon.signal(signal);
        assert_eq!(daemon.ends(), Some(0));
        let said = daemon.output();
        assert!(
            said.contains("hxe was asked to end; the old one goes on"),
            "{said}"
        );
    }
}
