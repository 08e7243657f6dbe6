use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::{Daemon, Setup, WebSocket, is_alive, sh, sleeper, until};

/// What the binary under test says that it is.
const OLD: &str = concat!("hxe/", env!("CARGO_PKG_VERSION"));
/// The same of another build, as long.
const NEW: &str = "hxe/9.9.9";

/// Puts something else where the binary was, at once, as a package manager does.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// Another build: the one under test, but for what it says that it is.
fn another_build(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let (old, new) = (OLD.as_bytes(), NEW.as_bytes());
    assert_eq!(old.len(), new.len());
    let mut found = 0;
    for start in 0..bytes.len() - old.len() {
        if bytes[start..].starts_with(old) {
            bytes[start..start + new.len()].copy_from_slice(new);
            found += 1;
        }
    }
    assert!(found > 0);
    bytes
}

/// What serves now.
fn server(daemon: &Daemon) -> String {
    let reply = daemon.get("/api/program");
    reply
        .header("server")
        .expect("it is always there")
        .to_owned()
}

#[test]
fn an_upgrade_keeps_the_pid_the_programs_and_refuses_no_request() {
    let (setup, path) = Setup::new().own_binary();
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let (pid, service) = (program.pid(), daemon.pid());
    let token = daemon.token().to_owned();
    replace(&path, &another_build(&path));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                daemon.with_token(&token, "GET", "/api/program", "").ok(200);
                answers += 1;
            }
            answers
        });
        assert_eq!(server(&daemon), OLD);
        daemon.signal(Signal::USR2);
        until(|| server(&daemon) == NEW);
        over.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
    });
    assert_eq!(program.pid(), pid);
    assert_eq!(daemon.pid(), service);
    // The guardian is the new one, too, and goes on as one.
    let exe = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    until(|| exe(service) == path);
    let server = daemon.server_pid();
    crate::support::kill(server, Signal::KILL);
    until(|| !is_alive(server));
    assert_eq!(program.pid(), pid);
}

#[test]
fn a_binary_that_does_not_come_up_is_given_up() {
    for bad in [
        "#!/bin/sh\nexit 3\n",
        "no program",
        "#!/bin/sh\nexec sleep 1000\n",
    ] {
        let (setup, path) = Setup::new().own_binary();
        let daemon = setup.start();
        let program = daemon.create(&sleeper("a")).started();
        let pid = program.pid();
        let before = daemon.server_pid();
        replace(&path, bad.as_bytes());
        daemon.signal(Signal::USR2);
        until(|| !is_alive(before));
        assert_eq!(server(&daemon), OLD, "{bad}");
        assert_eq!(program.pid(), pid);
        program.stopped();
    }
}

#[test]
fn who_waits_for_a_stop_during_an_upgrade_is_told_to_ask_again() {
    let daemon = Daemon::start();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let program = daemon
        .create(&sh("a", script).with("stop_timeout", "3s"))
        .started();
    program.says("ready");
    thread::scope(|scope| {
        let asking = scope.spawn(|| program.post("stop"));
        program.reaches("stopping");
        daemon.signal(Signal::USR2);
        let reply = asking.join().unwrap();
        assert_eq!(reply.status, 503);
        assert!(reply.header("retry-after").is_some());
    });
    program.reaches("stopped");
}

#[test]
fn quit_leaves_the_programs_running_for_the_next_start() {
    let mut daemon = Daemon::start();
    let id = daemon.create(&sleeper("a")).started().id;
    let pid = daemon.program(&id).pid();
    daemon.signal(Signal::QUIT);
    assert_eq!(daemon.ends(), Some(0));
    assert!(is_alive(pid));
    let daemon = daemon.succeed();
    assert_eq!(daemon.program(&id).pid(), pid);
}

#[test]
fn websockets_are_closed_by_an_upgrade_and_can_come_back_with_the_same_token() {
    let daemon = Daemon::start();
    let mut socket = WebSocket::logged_in(&daemon);
    let token = daemon.token().to_owned();
    daemon.signal(Signal::USR2);
    let reason = socket.is_closed_with(1012);
    assert!(reason.contains("again"), "{reason}");
    WebSocket::open(&daemon).auth(&token);
}
