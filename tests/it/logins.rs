use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::command::{Ran, Running};
use crate::support::{Daemon, Setup, until};

const PASSWORD: &str = "correct horse";

fn daemon() -> Daemon {
    Setup::new().own_password().start()
}

/// `hxe ARGS` with these variables and this standard input, over TCP.
fn hxe(daemon: &Daemon, variables: &[(&str, &str)], input: &str, args: &[&str]) -> Ran {
    let mut command = daemon.command(args);
    command.env("HXE_SERVER_URL", daemon.url());
    command.envs(variables.iter().copied());
    Running::start(command, input.as_bytes()).ends()
}

fn saved(daemon: &Daemon) -> PathBuf {
    daemon.scratch(".local/state/hxe/logins")
}

#[test]
fn a_login_is_kept_for_its_owner_and_used_until_the_logout() {
    let daemon = daemon();
    let plain = |args: &[&str]| hxe(&daemon, &[], "", args);
    plain(&["list"]).fails(3);
    plain(&["auth", "status"]).fails(3);
    let out = hxe(&daemon, &[], &format!("{PASSWORD}\n"), &["login"]).ok();
    assert!(
        out.starts_with(&format!("Logged in to {}", daemon.url())),
        "{out}"
    );
    let mode = std::fs::metadata(saved(&daemon)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    plain(&["list"]).ok();
    let status = plain(&["auth", "status", "--format=json"]).json();
    assert_eq!(
        (&status["login"], &status["valid"]),
        (&"saved".into(), &true.into())
    );
    let before = std::fs::read_to_string(saved(&daemon)).unwrap();
    assert!(!before.contains(PASSWORD));
    plain(&["auth", "refresh"]).ok();
    assert_ne!(std::fs::read_to_string(saved(&daemon)).unwrap(), before);
    plain(&["list"]).ok();

    std::fs::set_permissions(saved(&daemon), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(plain(&["list"]).fails(1).contains("chmod 600"));
    std::fs::set_permissions(saved(&daemon), PermissionsExt::from_mode(0o600)).unwrap();

    let token = before.split('\t').nth(1).unwrap().to_owned();
    let of_before = || hxe(&daemon, &[("HXE_TOKEN", &token)], "", &["list"]);
    // A refresh leaves the old token good, a logout ends the one that is saved.
    of_before().ok();
    plain(&["logout"]).ok();
    plain(&["list"]).fails(3);
    plain(&["auth", "refresh"]).fails(3);
    assert!(plain(&["logout"]).ok().contains("Not logged in"));
    hxe(&daemon, &[("HXE_TOKEN", &token)], "", &["logout"]).ok();
    of_before().fails(3);
}

#[test]
fn a_wrong_password_or_user_is_refused_and_nothing_is_saved() {
    let daemon = daemon();
    hxe(&daemon, &[], "wrong\n", &["login"]).fails(3);
    hxe(&daemon, &[], "", &["login"]).fails(3);
    hxe(&daemon, &[], PASSWORD, &["login", "-u", "nobody"]).fails(3);
    hxe(&daemon, &[], "", &["login", "--token", "nonsense"]).fails(3);
    assert!(!saved(&daemon).exists());
    let variables = [("HXE_USERNAME", "admin"), ("HXE_PASSWORD", PASSWORD)];
    hxe(&daemon, &variables, "", &["login"]).ok();
    hxe(&daemon, &[], "", &["list"]).ok();
}

#[test]
fn of_several_credentials_the_first_in_order_counts() {
    let daemon = daemon();
    let token = daemon.token();
    let good = [("HXE_USERNAME", "admin"), ("HXE_PASSWORD", PASSWORD)];
    let bad = [("HXE_USERNAME", "admin"), ("HXE_PASSWORD", "wrong")];
    let list = |variables: &[(&str, &str)], args: &[&str]| {
        let mut all = vec!["list", "-q"];
        all.extend(args);
        hxe(&daemon, variables, "", &all)
    };
    list(&good, &[]).ok();
    list(&bad, &[]).fails(3);
    let with = |name: &[(&'static str, &'static str)], token: &'static str| {
        let mut all = name.to_vec();
        all.push(("HXE_TOKEN", token));
        all
    };
    list(&with(&good, "nonsense"), &[]).fails(3);
    list(&with(&bad, "nonsense"), &["--token", token]).ok();
    list(&[("HXE_TOKEN", token)], &["--token", "nonsense"]).fails(3);
    // A saved login is the last.
    hxe(&daemon, &[], PASSWORD, &["login"]).ok();
    list(&[], &[]).ok();
    list(&bad, &[]).fails(3);
    list(&[("HXE_TOKEN", "nonsense")], &[]).fails(3);
}

#[test]
fn over_the_socket_no_login_is_needed_but_one_that_is_given_counts() {
    let daemon = daemon();
    let status = daemon.hxe(&["auth", "status", "--format=json"]).json();
    assert_eq!(status["login"], "none needed");
    let socket = format!("unix:{}", daemon.setup.path("run/hxe.sock").display());
    assert_eq!(status["server"], socket.as_str());
    assert_eq!(daemon.hxe(&["-s", &socket, "list", "-q"]).ok(), "");
    // Whoever names a configuration means its daemon.
    let mut command = daemon.local_command(&["list", "-q"]);
    command.env("HXE_SERVER_URL", "http://127.0.0.1:1");
    assert_eq!(Running::start(command, b"").ends().ok(), "");
}

#[test]
fn logins_that_are_no_file_are_not_waited_for() {
    let daemon = daemon();
    let path = saved(&daemon);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
    let said = hxe(&daemon, &[], "", &["list"]).fails(1);
    assert!(said.contains("not a regular file"), "{said}");
}

#[test]
fn a_saved_login_goes_to_its_own_server_only() {
    let daemon = daemon();
    hxe(&daemon, &[], PASSWORD, &["login"]).ok();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "it has left");
            request.extend_from_slice(&piece[..count]);
        }
        let body = r#"{"error":"authentication_error","message":"Authentication required"}"#;
        let length = body.len();
        let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {length}\r\n\r\n");
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
        String::from_utf8(request).unwrap()
    });
    hxe(&daemon, &[], "", &["-s", &url, "list"]).fails(3);
    let request = asked.join().unwrap();
    assert!(request.starts_with("GET /api/program"), "{request}");
    assert!(
        !request.to_lowercase().contains("authorization"),
        "{request}"
    );
}

#[test]
fn a_password_is_not_shown_on_the_terminal() {
    let daemon = daemon();
    let mut script = Command::new("script");
    script
        .args(["-qec", "\"$BINARY\" login", "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("SHELL", "/bin/sh")
        .env("HOME", daemon.scratch(""))
        .env("BINARY", env!("CARGO_BIN_EXE_hxe"))
        .env("HXE_SERVER_URL", daemon.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let Ok(mut child) = script.spawn() else {
        eprintln!("skipped: there is no script(1) here");
        return;
    };
    let shown: Arc<Mutex<String>> = Arc::default();
    let kept = Arc::clone(&shown);
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = out.read(&mut piece) {
            let text = String::from_utf8_lossy(&piece[..count]);
            *kept.lock().unwrap() += &text;
        }
    });
    until(|| shown.lock().unwrap().contains("Password of admin"));
    let mut stdin = child.stdin.take().unwrap();
    // With a slip that is taken back.
    stdin
        .write_all(format!("{PASSWORD}x\x7f\n").as_bytes())
        .unwrap();
    stdin.flush().unwrap();
    until(|| child.try_wait().unwrap().is_some());
    drop(stdin);
    reader.join().unwrap();
    let shown = shown.lock().unwrap().clone();
    assert!(shown.contains("Logged in to"), "{shown}");
    assert!(!shown.contains("correct"), "{shown}");
    hxe(&daemon, &[], "", &["list"]).ok();
}
