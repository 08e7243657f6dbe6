//! A daemon that comes after another one: what became of hxe.toml meanwhile does not keep it from serving.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Daemon, Setup, is_alive, kill, sleeper, until};

/// What is wrong with the configuration, as the daemon says.
fn mistakes(daemon: &Daemon) -> Vec<String> {
    let json = daemon.get("/api/daemon").ok(200);
    let mistakes = json["mistakes"].as_array().expect("it is a list").iter();
    mistakes
        .map(|line| line.as_str().expect("a line is text").to_owned())
        .collect()
}

/// Has the guardian bring the next daemon.
fn die(daemon: &Daemon) {
    let server = daemon.server_pid();
    kill(server, Signal::KILL);
    until(|| !is_alive(server));
}

#[test]
fn a_mistake_on_disk_does_not_keep_the_next_daemon_from_serving() {
    let daemon = Setup::new()
        .own_password()
        .key("api", "username", "\"admin\"")
        .start();
    let file = daemon.setup.path("hxe.toml");
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    assert_eq!(mistakes(&daemon), [""; 0]);
    let wrong: [(&dyn Fn(), &str); 4] = [
        (
            &|| fs::write(&file, "[api]\nworkers = \"many\"\n").unwrap(),
            "hxe.toml:2: [api] workers",
        ),
        (&|| fs::write(&file, "[[[").unwrap(), "hxe.toml:1"),
        (
            &|| fs::remove_file(&file).unwrap(),
            "hxe.toml: cannot be read",
        ),
        (
            // Not for any address but loopback, and this one is not to be listened on, either.
            &|| fs::write(&file, "[api]\nlisten = \"0.0.0.0:0\"\n").unwrap(),
            "password",
        ),
    ];
    for (spoil, what) in wrong {
        spoil();
        // The one after that, too.
        for _ in 0..2 {
            die(&daemon);
            let said = mistakes(&daemon);
            assert!(said.iter().any(|line| line.contains(what)), "{said:?}");
            assert!(daemon.output().contains(&said[0]), "{}", daemon.output());
            assert_eq!(program.pid(), pid);
            // The password is the same as ever.
            daemon.login();
        }
        assert_eq!(daemon.post("/api/reload", "").status, 400);
    }
    daemon.setup.write();
    daemon.post("/api/reload", "").ok(200);
    assert_eq!(mistakes(&daemon), [""; 0]);
    die(&daemon);
    assert_eq!(mistakes(&daemon), [""; 0]);
    assert_eq!(program.pid(), pid);
}

#[test]
fn what_a_reload_took_holds_for_the_next_daemon_where_the_file_is_spoilt_since() {
    let mut daemon = Setup::new().own_password().start();
    let setup = daemon.setup.clone().key("api", "rate_limit", 1000);
    daemon.reload(setup);
    fs::write(daemon.setup.path("hxe.toml"), "[api]\nlisten = 1\n").unwrap();
    // Neither what is wrong nor what was at the beginning.
    assert_eq!(daemon.post("/api/reload", "").status, 400);
    die(&daemon);
    let reply = daemon.get("/api/daemon");
    assert_eq!(reply.header("x-ratelimit-limit"), Some("1000"));
    assert!(mistakes(&daemon)[0].contains("hxe.toml:2: [api] listen"));
}

#[test]
fn keys_that_need_a_restart_wait_for_one_also_if_the_daemon_dies_or_is_upgraded() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    let pid = program.pid();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("{:?}", taken.local_addr().unwrap().to_string());
    let elsewhere = format!("{:?}", daemon.setup.path("elsewhere"));
    let setup = daemon.setup.clone().key("api", "listen", address);
    setup.key("storage", "run_dir", elsewhere).write();
    die(&daemon);
    assert_eq!(program.pid(), pid);
    for key in ["[api] listen", "[storage] run_dir"] {
        let said = format!("{key} has changed: it holds once hxe has been stopped and started");
        assert!(daemon.output().contains(&said), "{}", daemon.output());
    }
    let before = daemon.server_pid();
    daemon.signal(Signal::USR2);
    let state = |json: &Value| json["upgrade"]["state"].clone();
    until(|| state(&daemon.get("/api/daemon").ok(200)) == "done");
    assert_ne!(daemon.server_pid(), before);
    assert_eq!(program.pid(), pid);
    assert!(!daemon.setup.path("elsewhere").exists());
}
