use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hxe::client::{Client, Error, ListFilter, LogFilter};
use rustix::process::Signal;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::support::{Daemon, PATIENCE, Setup, is_alive, kill, need_root, sh, until};

/// Somebody who is neither root nor known to this machine.
const STRANGER: u32 = 54_321;

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.setup.path("run").join("hxe.sock")
}

fn client(daemon: &Daemon) -> Client {
    Client::local(socket(daemon))
}

fn names(client: &Client) -> Result<Vec<String>, Error> {
    let programs = client.list(&ListFilter::default())?;
    Ok(programs.into_iter().map(|program| program.id).collect())
}

/// Asks as somebody else: the answer to its end, head and all.
fn ask_as(uid: u32, gid: u32, groups: &[u32], path: &Path, headers: &str) -> io::Result<String> {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            // Of this thread alone.
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            ask(path, headers)
        });
        asked.join().expect("it does not panic")
    })
}

fn ask(path: &Path, headers: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    let head = "GET /api/program HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n";
    stream.write_all(format!("{head}{headers}\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn our_own_user_needs_no_token_and_has_no_limit() {
    let setup = Setup::new().key("api", "rate_limit", 1);
    let daemon = setup.start();
    let path = socket(&daemon);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(mode(&path), 0o600);
    for _ in 0..3 {
        let answer = ask(&path, "").unwrap();
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(!answer.to_lowercase().contains("x-ratelimit"), "{answer}");
    }
    let refreshed = client(&daemon).refresh();
    assert!(
        matches!(refreshed, Err(Error::Unauthorized(_))),
        "that is about a token"
    );
}

#[test]
fn strangers_may_not_connect_and_need_a_token_where_they_can() {
    if !need_root() {
        return;
    }
    let daemon = Setup::new().key("api", "rate_limit", 5).start();
    let path = socket(&daemon);
    let refused = ask_as(STRANGER, STRANGER, &[], &path, "").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let answer = ask_as(STRANGER, STRANGER, &[], &path, "").unwrap();
    assert_eq!(status(&answer), "401", "{answer}");
    assert!(answer.contains("X-RateLimit-Remaining: 4"), "{answer}");
    let token = format!("Authorization: Bearer {}\r\n", daemon.token());
    let answer = ask_as(STRANGER, STRANGER, &[], &path, &token).unwrap();
    assert_eq!(status(&answer), "200", "{answer}");
}

/// A group that is no root's, with its name.
fn some_group() -> Option<(String, u32)> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        (gid != 0).then(|| (name.to_owned(), gid))
    })
}

#[test]
fn who_is_in_the_group_is_let_in_from_the_reload_on_that_names_it() {
    if !need_root() {
        return;
    }
    let Some((name, gid)) = some_group() else {
        eprintln!("skipped: /etc/group has no group");
        return;
    };
    let setup = Setup::new();
    let mut daemon = setup.start();
    let path = socket(&daemon);
    assert!(ask_as(STRANGER, STRANGER, &[gid], &path, "").is_err());

    daemon.reload(
        setup
            .clone()
            .key("api", "socket_group", format!("{name:?}")),
    );
    assert_eq!(mode(&path), 0o660);
    for (own, further) in [(gid, &[][..]), (STRANGER, &[1, gid])] {
        let answer = ask_as(STRANGER, own, further, &path, "").unwrap();
        assert_eq!(status(&answer), "200", "{answer}");
    }
    assert!(ask_as(STRANGER, STRANGER, &[], &path, "").is_err());

    daemon.reload(setup);
    assert_eq!(mode(&path), 0o600);
    assert!(ask_as(STRANGER, STRANGER, &[gid], &path, "").is_err());
}

#[test]
fn it_outlives_a_daemon_that_is_killed() {
    let daemon = Daemon::start();
    let path = socket(&daemon);
    let before = fs::symlink_metadata(&path).unwrap().ino();
    let server = daemon.server_pid();
    kill(server, Signal::KILL);
    until(|| !is_alive(server));
    // Waits in the socket, if nobody is there.
    assert_eq!(names(&client(&daemon)).unwrap(), [""; 0]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
}

#[test]
fn it_goes_on_over_an_upgrade() {
    let daemon = Daemon::start();
    let path = socket(&daemon);
    let before = fs::symlink_metadata(&path).unwrap().ino();
    daemon.signal(Signal::USR2);
    until(|| daemon.output().contains("hxe has been upgraded"));
    assert_eq!(names(&client(&daemon)).unwrap(), [""; 0]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
}

#[test]
fn what_a_life_before_has_left_is_replaced() {
    for setup in [Setup::new(), Setup::new().no_guardian()] {
        let mut daemon = setup.start();
        daemon.kill();
        assert!(socket(&daemon).exists());
        let daemon = daemon.succeed();
        assert_eq!(names(&client(&daemon)).unwrap(), [""; 0]);
        assert_eq!(mode(&socket(&daemon)), 0o600);
    }
}

#[test]
fn it_is_gone_with_the_daemon() {
    let mut daemon = Daemon::start();
    assert!(socket(&daemon).exists());
    assert_eq!(daemon.stop(), Some(0));
    assert!(!socket(&daemon).exists());
}

#[test]
fn one_that_somebody_took_away_is_there_again_after_a_reload() {
    let setup = Setup::new();
    let mut daemon = setup.start();
    let path = socket(&daemon);
    for _ in 0..2 {
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            names(&client(&daemon)),
            Err(Error::CannotConnect { .. })
        ));
        daemon.reload(setup.clone());
        assert_eq!(names(&client(&daemon)).unwrap(), [""; 0]);
    }
    // Another file in its place is no socket of ours.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    daemon.reload(setup);
    assert_eq!(names(&client(&daemon)).unwrap(), [""; 0]);
    // The guardian holds the new one.
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    let before = daemon.server_pid();
    kill(before, Signal::KILL);
    until(|| daemon.server_pid() != before);
    assert_eq!(names(&client(&daemon)).unwrap(), [""; 0]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
}

#[test]
fn a_directory_in_its_place_is_named() {
    let setup = Setup::new();
    let run_dir = setup.path("run");
    fs::create_dir(&run_dir).unwrap();
    fs::set_permissions(&run_dir, fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(run_dir.join("hxe.sock")).unwrap();
    let (status, output) = setup.refused();
    assert_eq!(status, Some(1));
    assert!(output.contains("run/hxe.sock: Is a directory"), "{output}");
}

#[test]
fn its_path_may_be_longer_than_a_socket_s_address() {
    let setup = Setup::new();
    let run_dir = setup.path(&"long".repeat(40)).join("run");
    let setup = setup.key("storage", "run_dir", format!("{run_dir:?}"));
    let daemon = setup.start();
    let client = Client::local(run_dir.join("hxe.sock"));
    assert_eq!(names(&client).unwrap(), [""; 0]);
    drop(daemon);
}

#[test]
fn logs_are_followed_and_events_heard_over_it() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let program = daemon.create(&sh("a", "echo hello; exec sleep 1000"));
    let mut events = client.events(&["program.started"], &[]).unwrap();
    let followed = client.follow("a", &LogFilter::default()).unwrap();
    client.start("a").unwrap();
    let event = events.next().unwrap().unwrap();
    assert_eq!(event.program_id, program.id);
    let mut lines = followed.map(|entry| entry.unwrap().message);
    assert!(lines.any(|line| line == "hello"));
}
