//! Other builds than the one under test, and changing to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, until_some};

/// What the binary under test says that it is.
pub const OLD: &str = concat!("hxe/", env!("CARGO_PKG_VERSION"));
/// The same of another build, as long.
pub const NEW: &str = "hxe/9.9.9";

/// Another build: the one at this path, but for what it says that it is.
pub fn another_build(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).expect("the binary is there");
    let (old, new) = (OLD.as_bytes(), NEW.as_bytes());
    assert_eq!(old.len(), new.len());
    let mut found = 0;
    let mut start = 0;
    // Byte by byte it would take a second.
    while let Some(at) = bytes[start..].iter().position(|byte| *byte == old[0]) {
        let at = start + at;
        if bytes[at..].starts_with(old) {
            bytes[at..at + new.len()].copy_from_slice(new);
            found += 1;
        }
        start = at + 1;
    }
    assert!(found > 0);
    bytes
}

/// Puts something else where the binary was, at once, as a package manager does.
pub fn replace(path: &Path, content: &[u8]) {
    let (source, new) = (path.with_extension("source"), path.with_extension("new"));
    fs::write(&source, content).expect("the directory can be written");
    copy_binary(&source, &new);
    fs::rename(new, path).expect("both are in one directory");
}

/// Copies a file that is to be executed. In a process of its own: one that another test forks at that moment would hold
/// ours open for writing, and what is open for writing cannot be executed.
#[track_caller]
pub fn copy_binary(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.expect("cp is there").success());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// What serves now.
pub fn server(daemon: &Daemon) -> String {
    let reply = daemon.get("/api/program");
    reply
        .header("server")
        .expect("it is always there")
        .to_owned()
}

/// How the last upgrade went, or goes; null where the daemon dies over the answer.
pub fn upgrade(daemon: &Daemon) -> Value {
    let token = daemon.token();
    let mut asked = daemon.sent(format!(
        "GET /api/daemon HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    ));
    match asked.reply_or_end() {
        Some(reply) => reply.ok(200)["upgrade"].clone(),
        None => Value::Null,
    }
}

/// Asks for an upgrade, and waits until it is over: how it went.
#[track_caller]
pub fn upgraded(daemon: &Daemon) -> Value {
    let before = upgrade(daemon)["number"].as_u64().unwrap_or(0);
    daemon.signal(Signal::USR2);
    until_some(|| {
        let now = upgrade(daemon);
        let is_over = now["number"].as_u64() > Some(before) && now["state"] != "under_way";
        is_over.then_some(now)
    })
}
