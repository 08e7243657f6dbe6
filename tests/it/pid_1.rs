use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{
    Daemon, Setup, is_alive, kill, need_root, sh, sleeper, status_field, stubborn, until,
};

/// With its guardian as process 1, and without one; none where namespaces cannot be made.
fn setups(prepared_by: &'static str) -> Vec<Setup> {
    if !need_root() {
        return Vec::new();
    }
    let setup = Setup::new().process_1(prepared_by);
    if let Some(reason) = setup.lacks_namespaces() {
        eprintln!("skipped: no namespaces here: {reason}");
        return Vec::new();
    }
    let alone = Setup::new().process_1(prepared_by).no_guardian();
    vec![setup, alone]
}

/// The processes of the daemon's namespace, as seen from outside: the pid in there, and whether it is a zombie.
fn inside(daemon: &Daemon) -> Vec<(i32, i32, bool)> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(daemon.pid());
    assert!(own.is_some());
    let pids = fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| namespace(*pid) == own)
        .filter_map(|pid| {
            let number = status_field(pid, "NSpid")?
                .rsplit(' ')
                .next()?
                .parse()
                .ok()?;
            let zombie = status_field(pid, "State")?.starts_with('Z');
            Some((pid, number, zombie))
        })
        .collect()
}

/// The pid from outside of one that is known inside.
fn outside(daemon: &Daemon, number: i32) -> i32 {
    let mut inside = inside(daemon).into_iter();
    inside.find(|process| process.1 == number).unwrap().0
}

#[test]
fn as_process_1_it_stops_all_programs_and_exits_when_it_is_told_to() {
    for signal in [Signal::TERM, Signal::INT] {
        for setup in setups(":") {
            let mut daemon = setup.start();
            assert_eq!(
                status_field(daemon.pid(), "NSpid")
                    .unwrap()
                    .rsplit(' ')
                    .next(),
                Some("1")
            );
            let slow = daemon
                .create(&stubborn("slow").with("stop_timeout", "1s"))
                .started();
            slow.says("ready");
            let pids = [slow.pid(), daemon.create(&sleeper("a")).started().pid()];
            let pids = pids.map(|pid| outside(&daemon, pid));
            daemon.signal(signal);
            until(|| daemon.output().contains("stopping"));
            // These change nothing.
            for again in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
                daemon.signal(again);
            }
            assert_eq!(daemon.ends(), Some(0), "{}", daemon.output());
            assert!(!pids.into_iter().any(is_alive));
        }
    }
}

#[test]
fn as_process_1_it_reaps_whoever_becomes_its_child() {
    for setup in setups(":") {
        let daemon = setup.start();
        // Orphans of a program, in its session and in one of their own.
        let script = "(true &); (setsid true &); (setsid sh -c 'true & exit' &); echo ready; exec sleep 1000";
        let program = daemon.create(&sh("a", script)).started();
        program.says("ready");
        // And one that has nothing to do with hxe: its parent comes from outside, and leaves it.
        let target = daemon.pid().to_string();
        let script = "sleep 1000 & echo $!";
        let stranger = Command::new("nsenter")
            .args(["--target", &target, "--pid", "--mount", "sh", "-c", script])
            .stderr(std::process::Stdio::inherit())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut shell = stranger.expect("nsenter comes with unshare");
        assert!(shell.wait().unwrap().success());
        let strangers = || {
            let mut inside = inside(&daemon);
            let own = status_field(daemon.pid(), "Pid").unwrap();
            inside.retain(|process| status_field(process.0, "PPid").as_ref() == Some(&own));
            inside.retain(|process| {
                let line = fs::read(format!("/proc/{}/cmdline", process.0)).unwrap_or_default();
                line.starts_with(b"sleep\0") && process.1 != program.pid()
            });
            inside
        };
        until(|| !strangers().is_empty());
        for (pid, ..) in strangers() {
            kill(pid, Signal::KILL);
        }
        until(|| strangers().is_empty() && !inside(&daemon).iter().any(|process| process.2));
        assert_eq!(program.state(), "running");
    }
}

#[test]
fn as_process_1_it_comes_back_and_is_upgraded() {
    let setup = setups(":").into_iter().find(Setup::is_guarded);
    let Some(setup) = setup else { return };
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let server = daemon.server_pid();
    kill(server, Signal::KILL);
    until(|| !is_alive(server));
    assert_eq!(program.pid(), pid);
    assert_eq!(crate::support::upgraded(&daemon)["state"], "done");
    assert_eq!(program.pid(), pid);
    assert_eq!(daemon.get("/api/daemon").ok(200)["pid"], 1);
}

/// As a container has it: of the whole system, only the daemon's directory can be written, and nothing of the kernel's.
const READ_ONLY: &str = "mount --bind \"$HOME\" \"$HOME\"; mount -o remount,bind,ro /; \
     mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";

#[test]
fn as_process_1_it_needs_no_root_that_can_be_written() {
    for setup in setups(READ_ONLY) {
        let mut daemon = setup.start();
        let script = "touch /read-only 2>/dev/null || echo closed; exec sleep 1000";
        let program = daemon.create(&sh("a", script)).started();
        program.says("closed");
        let environ = fs::read(format!("/proc/{}/environ", daemon.server_pid())).unwrap();
        assert!(!environ.starts_with(b"HOME=") && !environ.windows(6).any(|w| w == b"\0HOME="));
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.output());
    }
}
