use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Daemon, Setup, kill, sh, sleeper, until};

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

/// Random enough for moments, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// Creates programs and deletes every third, until the connection ends: what was answered.
fn change(daemon: &Daemon, first: u64, count: &AtomicU64) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut created, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    let mut connection = daemon.connect();
    let token = daemon.token();
    for number in first.. {
        let name = format!("n{number}");
        let body = sh(&name, "").0.to_string();
        let mut ask = |method: &str, path: &str, body: &str| {
            let length = body.len();
            connection.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            let reply = connection.reply_or_end();
            count.fetch_add(1, Ordering::Relaxed);
            reply.map(|reply| reply.status)
        };
        match ask("POST", "/api/program", &body) {
            Some(status) => assert_eq!(status, 201),
            None => break,
        }
        if number % 3 > 0 {
            created.insert(name);
            continue;
        }
        match ask("DELETE", &format!("/api/program/{name}"), "") {
            Some(status) => assert_eq!(status, 200),
            // It may be there or not.
            None => break,
        }
        deleted.insert(name);
    }
    (created, deleted)
}

#[test]
fn kills_at_any_moment_lose_no_change_that_was_answered() {
    let mut daemon = Setup::new().no_guardian().start();
    let mut dice = Dice(7);
    let (mut created, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..8 {
        daemon.token();
        let pid = daemon.pid();
        let (changes, moment) = (5 + dice.below(25), dice.below(5_000));
        let count = AtomicU64::new(0);
        let (more, fewer) = std::thread::scope(|scope| {
            scope.spawn(|| {
                until(|| count.load(Ordering::Relaxed) >= changes);
                std::thread::sleep(Duration::from_micros(moment));
                kill(pid, Signal::KILL);
            });
            change(&daemon, round * 100_000, &count)
        });
        created.extend(more);
        deleted.extend(fewer);
        assert_eq!(daemon.ends(), None);
        daemon = daemon.succeed();
        let found: BTreeSet<String> = daemon.list("?limit=1000").into_iter().collect();
        let lost: Vec<_> = created.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        let back: Vec<_> = deleted.intersection(&found).collect();
        assert!(back.is_empty(), "round {round}: {back:?}");
        assert!(found.len() <= created.len() + round as usize + 1);
    }
    assert!(created.len() >= 8, "{created:?}");
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
    until(|| daemon.output().contains("hxe.redb.corrupt-"));
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

#[test]
fn a_lost_database_brings_no_id_back_whose_logs_are_still_there() {
    let mut daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo from an earlier life"))
        .started();
    program.reaches("exited");
    daemon.create(&sleeper("b"));
    daemon.stop();
    fs::write(daemon.setup.path("state/hxe.redb"), "damaged").unwrap();
    let daemon = daemon.setup.start();
    assert_eq!(daemon.create(&sleeper("c")).id, "program-3");
    daemon.delete("/api/program/c").ok(200);
    assert_eq!(daemon.create(&sleeper("d")).id, "program-4");
}
