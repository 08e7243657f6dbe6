use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{Daemon, Setup, need_root, sh, sleeper};

#[test]
fn programs_are_there_after_a_restart() {
    let daemon = Daemon::start();
    daemon.create(
        &sleeper("a")
            .with("description", "kept")
            .with("umask", "077"),
    );
    let b = daemon.create(&sleeper("b"));
    b.post("enable").ok(200);
    b.post("disable").ok(200);
    daemon.create(&sleeper("c"));
    daemon.delete("/api/program/c").ok(200);
    let before = daemon.get("/api/program").ok(200);
    let daemon = daemon.restart();
    assert_eq!(daemon.get("/api/program").ok(200), before);
    assert_eq!(
        daemon.create(&sleeper("c")).id,
        "program-4",
        "an id is never used again"
    );
}

#[test]
fn tokens_and_logouts_outlive_the_daemon() {
    let daemon = Daemon::start();
    let (kept, ended) = (daemon.login(), daemon.login());
    daemon
        .with_token(&ended, "POST", "/api/auth/logout", "")
        .ok(200);
    let daemon = daemon.restart();
    daemon.with_token(&kept, "GET", "/api/program", "").ok(200);
    daemon
        .with_token(&ended, "GET", "/api/program", "")
        .error(401, "authentication_error");
}

#[test]
fn a_change_that_was_answered_survives_a_kill() {
    let mut daemon = Daemon::start();
    for number in 0..20 {
        daemon.create(&sh(&number.to_string(), ""));
    }
    daemon.signal(rustix::process::Signal::KILL);
    daemon.ends();
    assert_eq!(daemon.setup.start().list("").len(), 20);
}

#[test]
fn a_damaged_database_is_moved_aside_and_said() {
    let mut daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    daemon.stop();
    let state = daemon.setup.path("state");
    fs::write(state.join("hxe.redb"), "no database at all".repeat(1000)).unwrap();
    let daemon = daemon.setup.start();
    assert!(daemon.list("").is_empty());
    daemon.create(&sleeper("b"));
    assert!(
        daemon.output().contains("hxe.redb.corrupt-"),
        "{}",
        daemon.output()
    );
    let aside = fs::read_dir(&state).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with("hxe.redb.corrupt-")
    });
    assert!(aside);
}

#[test]
fn a_link_in_place_of_the_database_is_refused() {
    let mut daemon = Daemon::start();
    daemon.stop();
    let file = daemon.setup.path("state").join("hxe.redb");
    let moved = daemon.scratch("elsewhere");
    fs::rename(&file, &moved).unwrap();
    symlink(&moved, &file).unwrap();
    let (code, output) = daemon.setup.refused();
    assert!(code.is_some_and(|code| code != 0));
    assert!(output.contains("symbolic link"), "{output}");
}

/// A small disk of its own, below a setup's directory.
struct Disk(std::path::PathBuf);

impl Disk {
    /// Mounts one; `None` where that is not allowed.
    fn mount(setup: &Setup, name: &str) -> Option<Disk> {
        let path = setup.path(name);
        fs::create_dir(&path).unwrap();
        let options = "size=512k,mode=700";
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&path);
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: mounting is not allowed here");
            return None;
        }
        Some(Disk(path))
    }

    fn fill(&self) -> std::path::PathBuf {
        let file = self.0.join("fill");
        // Ends where the room does.
        let _ = fs::write(&file, vec![0; 1 << 20]);
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_changes_are_refused_until_there_is_room() {
    if !need_root() {
        return;
    }
    let setup = Setup::new();
    let Some(disk) = Disk::mount(&setup, "state") else {
        return;
    };
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let fill = disk.fill();
    // What room the database has left is used up first.
    let refused = (0..200)
        .map(|number| daemon.try_create(&sleeper(&format!("b{number}"))))
        .find(|reply| reply.status != 201)
        .expect("the disk is full at last");
    refused.expect(507);
    let known = daemon.list("?limit=1000");
    program.stopped();
    program.post("start").ok(200);

    fs::remove_file(fill).unwrap();
    daemon.create(&sleeper("c"));
    let daemon = daemon.restart();
    assert_eq!(
        daemon.list("?limit=1000").len(),
        known.len() + 1,
        "no acknowledged change is lost"
    );
}
