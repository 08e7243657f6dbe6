use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::support::command::{Running, command};
use crate::support::{Daemon, Setup, is_root, sh, sleeper, until};

#[test]
fn a_program_is_led_through_its_life_by_name_and_id() {
    let daemon = Daemon::start();
    let out = daemon.hxe(&["create", "web server", "sleep", "1000"]).ok();
    assert_eq!(out, "web server: created (program-1)\n");
    let rows = daemon.hxe(&["list", "--format", "tsv"]).tsv();
    let row = [
        "program-1",
        "web server",
        "stopped",
        "-",
        "-",
        "-",
        "false",
        "sleep 1000",
    ];
    assert_eq!(rows, [row]);

    let out = daemon.hxe(&["start", "web server"]).ok();
    let pid = daemon.program("program-1").pid();
    assert_eq!(out, format!("web server: started (pid {pid})\n"));
    let shown = daemon.hxe(&["info", "program-1", "--format=json"]).json();
    assert_eq!(
        (&shown["pid"], &shown["state"]),
        (&pid.into(), &"running".into())
    );
    let lines = daemon.hxe(&["info", "program-1", "--format=tsv"]).tsv();
    assert!(lines.contains(&vec!["name".to_owned(), "web server".to_owned()]));

    daemon.hxe(&["restart", "program-1"]).ok();
    assert_ne!(daemon.program("program-1").pid(), pid);
    daemon.hxe(&["enable", "program-1"]).ok();
    assert_eq!(daemon.program("program-1").get()["enabled"], true);
    assert_eq!(
        daemon.hxe(&["list", "-q", "--enabled"]).ok(),
        "web server\n"
    );
    assert_eq!(daemon.hxe(&["list", "-q", "--disabled"]).ok(), "");
    daemon.hxe(&["disable", "program-1"]).ok();
    assert_eq!(daemon.program("program-1").get()["enabled"], false);
    daemon.hxe(&["signal", "KILL", "web server"]).ok();
    let ended = daemon.program("program-1").reaches("failed");
    assert_eq!(ended["exit_signal"], "KILL");
    assert_eq!(
        daemon.hxe(&["list", "-q", "--status", "error"]).ok(),
        "web server\n"
    );

    daemon.hxe(&["start", "-q", "web server"]).ok();
    let out = daemon
        .hxe(&["stop", "--force", "web server", "--format=tsv"])
        .tsv();
    assert_eq!(out, [["web server", "stopped", "-"]]);
    assert_eq!(
        daemon.hxe(&["delete", "web server"]).ok(),
        "web server: deleted\n"
    );
    assert!(daemon.list("").is_empty());
}

#[test]
fn a_start_that_waits_fails_if_the_program_ends_at_once() {
    let daemon = Daemon::start();
    daemon.create(&sh("short", "exit 3"));
    daemon.create(&sleeper("long"));
    let said = daemon.hxe(&["start", "--wait", "short"]).fails(1);
    assert!(
        said.contains("short") && said.contains("exit code 3"),
        "{said}"
    );
    daemon.hxe(&["start", "--wait", "long"]).ok();
}

#[test]
fn many_programs_are_stopped_at_once() {
    let daemon = Daemon::start();
    let names = ["a", "b", "c", "d"];
    // Each ends only once all have been told to.
    let told = |name: &str| daemon.scratch(name).display().to_string();
    let all: Vec<String> = names
        .iter()
        .map(|name| format!("[ -e {} ]", told(name)))
        .collect();
    let all = all.join(" && ");
    let mut programs = Vec::new();
    for name in names {
        let script = format!(
            "trap 'touch {}; until {all}; do sleep 0.02; done; exit 0' TERM
             echo ready; while :; do sleep 0.02; done",
            told(name)
        );
        let definition = sh(name, &script).with("stop_timeout", "60s");
        programs.push(daemon.create(&definition));
    }
    let mut start = vec!["start"];
    start.extend(names);
    assert_eq!(daemon.hxe(&start).ok().lines().count(), names.len());
    for program in programs {
        program.says("ready");
    }
    let mut stop = vec!["stop"];
    stop.extend(names);
    let out = daemon.hxe(&stop).ok();
    for name in names {
        assert!(
            out.contains(&format!("{name}: stopped (exit code 0)\n")),
            "{out}"
        );
    }
}

#[test]
fn where_some_fail_the_others_are_done_and_the_exit_code_says_why() {
    let daemon = Daemon::start();
    for name in ["a", "b"] {
        daemon.create(&sleeper(name)).started();
    }
    let ran = daemon.hxe(&["stop", "a", "nobody", "nothing"]);
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        "a: stopped (exit code 143)\n"
    );
    let said = ran.fails(4);
    assert!(
        said.contains("nobody: ") && said.contains("nothing: "),
        "{said}"
    );
    // For different reasons.
    daemon.hxe(&["stop", "a", "nobody", "b"]).fails(1);
    assert_eq!(daemon.program("b").status(), "stopped");
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("a"));
    daemon.create(&sh("broken", "").with("command", "/nowhere/at/all"));
    let fails = |args: &[&str], code: i32| daemon.hxe(args).fails(code);
    assert!(fails(&["start", "broken"], 1).contains("No such file"));
    for args in [
        &["list", "--frobnicate"][..],
        &["list", "--format", "xml"],
        &["frobnicate"],
        &["start"],
        &["info", "a", "b"],
        &["signal", "NOSUCH", "a"],
        &["create", "--umask=999", "x", "sleep"],
        &["stop", "a", "--timeout=soon"],
        &["list", "--enabled", "--disabled"],
    ] {
        fails(args, 2);
    }
    let mut wrong = daemon.local_command(&["list"]);
    wrong.env("HXE_FORMAT", "xml");
    assert!(
        Running::start(wrong, b"")
            .ends()
            .fails(2)
            .contains("HXE_FORMAT")
    );
    assert!(fails(&["--server", &daemon.url(), "list"], 3).contains("hxe login"));
    fails(&["info", "nobody"], 4);
    fails(&["create", "a", "sleep"], 5);
    fails(&["stop", "a"], 6);
    daemon.hxe(&["start", "a"]).ok();
    assert!(fails(&["start", "a"], 6).contains("a: "));
}

#[test]
fn who_may_not_is_told_so() {
    let daemon = Daemon::start();
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let said = daemon
        .hxe(&["create", "--user", "root", "x", "sleep"])
        .fails(8);
    assert!(said.contains("user"), "{said}");
}

#[test]
fn where_there_is_no_daemon_it_is_said_where_it_was_looked_for() {
    let setup = Setup::new();
    let config = setup.write();
    let home = setup.path("scratch");
    let config = config.to_str().unwrap();
    let run = |args: &[&str]| Running::start(command(&home, args), b"").ends();
    let said = run(&["-c", config, "list"]).fails(7);
    let socket = setup.path("run").join("hxe.sock");
    assert!(said.contains(socket.to_str().unwrap()), "{said}");
    assert!(said.contains("hxe daemon"), "{said}");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let said = run(&["-s", &url, "list"]).fails(7);
    assert!(said.contains(&url), "{said}");
    assert!(
        run(&["-s", "nonsense", "list"])
            .fails(2)
            .contains("nonsense")
    );
    let missing = setup.path("missing.toml");
    run(&["-c", missing.to_str().unwrap(), "list"]).fails(2);
}

#[test]
fn a_daemon_that_does_not_get_round_to_answer_is_waited_for_no_longer_than_said() {
    let setup = Setup::new();
    let config = setup.write();
    let run_dir = setup.path("run");
    fs::create_dir_all(&run_dir).unwrap();
    let path = run_dir.join("hxe.sock");
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let address = SocketAddrUnix::new(&path).unwrap();
    let listener = socket();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // Until nobody more may wait there.
    let mut waiting = Vec::new();
    loop {
        let one = socket();
        match rustix::net::connect(&one, &address) {
            Ok(()) => waiting.push(one),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let args = ["-c", config.to_str().unwrap(), "start", "x", "--timeout=1s"];
    let said = Running::start(command(&setup.path("scratch"), &args), b"")
        .ends()
        .fails(7);
    assert!(said.contains(path.to_str().unwrap()), "{said}");
}

#[test]
fn status_exits_as_init_scripts_do() {
    let daemon = Daemon::start();
    daemon.create(&sleeper("up")).started();
    daemon.create(&sleeper("down"));
    let code = |args: &[&str]| daemon.hxe(args).code;
    for command in ["status", "info", "stop"] {
        let said = daemon.hxe(&[command, ""]).fails(4);
        assert!(said.contains("name of a program is empty"), "{said}");
    }
    let out = daemon.hxe(&["status"]).ok();
    assert!(
        out.contains("running") && out.contains("2 programs"),
        "{out}"
    );
    assert_eq!(code(&["status", "up"]), Some(0));
    assert_eq!(code(&["status", "up", "down"]), Some(3));
    assert_eq!(code(&["status", "up", "nobody"]), Some(4));
    let rows = daemon.hxe(&["status", "up", "--format=tsv"]).tsv();
    assert_eq!(rows[0][..4], ["program-1", "up", "running", "running"]);
    assert_eq!(
        daemon.hxe(&["status", "--format=json"]).json()["status"],
        "running"
    );
    let quiet = daemon.hxe(&["status", "-q", "down"]);
    assert_eq!((quiet.code, quiet.stdout.len()), (Some(3), 0));
    // Who answers runs, also if it does not know who asks.
    assert_eq!(code(&["--server", &daemon.url(), "status"]), Some(0));
    assert_eq!(code(&["--server", &daemon.url(), "status", "up"]), Some(4));
    let setup = daemon.setup.clone();
    drop(daemon);
    let config = setup.path("hxe.toml");
    let config = config.to_str().unwrap();
    let home = setup.path("scratch");
    let gone = |args: &[&str]| Running::start(command(&home, args), b"").ends();
    let ran = gone(&["-c", config, "status"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(ran.stdout, b"hxe: stopped\n");
    assert_eq!(gone(&["-c", config, "status", "up"]).code, Some(4));
}

#[test]
fn values_keep_their_place_whatever_they_hold() {
    let daemon = Daemon::start();
    let odd = "a\tb\nc \x1b[2J\\";
    let definition = sleeper("odd")
        .with("description", odd)
        .with("args", "'1000\t\n'");
    daemon.create(&definition);
    let rows = daemon.hxe(&["list", "--format", "tsv"]).tsv();
    assert_eq!((rows.len(), rows[0].len()), (1, 8));
    assert_eq!(rows[0][7], "/bin/sleep '1000\\t\\n'");
    let json = daemon.hxe(&["list", "--format", "json"]).json();
    assert_eq!(json[0]["description"], odd);
    let table = daemon.hxe(&["info", "odd"]).ok();
    assert!(
        !table.contains('\x1b') && table.contains("\\x1b[2J"),
        "{table}"
    );
}

/// What a command shows on a terminal of this width, as script(1) has one; `None` where there is no script.
fn on_terminal(
    daemon: &Daemon,
    columns: u32,
    args: &str,
    variables: &[(&str, &str)],
) -> Option<String> {
    let config = daemon.setup.path("hxe.toml");
    let line = format!("stty cols {columns} && \"$BINARY\" -c \"$CONFIG\" {args}");
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env("BINARY", env!("CARGO_BIN_EXE_hxe"))
        .env("CONFIG", config)
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: there is no script(1) here");
        return None;
    }
    let ran = Running::start(script, b"").ends();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    Some(String::from_utf8(ran.stdout).unwrap().replace('\r', ""))
}

#[test]
fn a_table_fits_the_terminal_and_has_colours_on_one_only() {
    let daemon = Daemon::start();
    let long = "x".repeat(100);
    daemon.create(&sleeper(&long)).started();
    daemon.create(&sleeper("日本語のプログラム"));
    let plain = daemon.hxe(&["list"]).ok();
    assert!(plain.contains(&long) && !plain.contains('\x1b'), "{plain}");
    for columns in [20, 40, 80, 120] {
        let Some(shown) = on_terminal(&daemon, columns, "list --no-color", &[]) else {
            return;
        };
        assert_eq!(shown.lines().count(), 3, "{shown}");
        for line in shown.lines() {
            let wide = line.chars().filter(|c| *c >= '\u{3000}').count();
            assert!(
                line.chars().count() + wide <= columns as usize,
                "{columns}: {line}"
            );
        }
        assert!(!shown.contains('\x1b'), "{shown}");
    }
    let shown = on_terminal(&daemon, 120, "list", &[]).unwrap();
    assert!(shown.contains("\x1b[32mrunning\x1b[0m"), "{shown:?}");
    for variable in ["NO_COLOR", "HXE_NO_COLOR"] {
        let shown = on_terminal(&daemon, 120, "list", &[(variable, "1")]).unwrap();
        assert!(!shown.contains('\x1b'), "{variable}: {shown:?}");
    }
}

#[test]
fn what_programs_write_cannot_reach_a_terminal() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("evil", "printf 'a\\033[2Jb\\n'"));
    let program = program.started();
    program.reaches("exited");
    let raw = daemon.hxe(&["logs", "evil"]).ok();
    assert!(raw.contains("a\x1b[2Jb\n"), "{raw:?}");
    if let Some(shown) = on_terminal(&daemon, 80, "logs --no-color evil", &[]) {
        assert!(
            shown.contains("a\\x1b[2Jb\n") && !shown.contains('\x1b'),
            "{shown:?}"
        );
    }
}

#[test]
fn help_is_there_for_every_command() {
    let home = std::env::temp_dir();
    let run = |args: &[&str]| Running::start(command(&home, args), b"").ends();
    let overview = run(&["--help"]).ok();
    let (_, commands) = overview.split_once("Commands:\n").unwrap();
    let names = commands.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        (!name.starts_with([' ', 'h'])).then(|| name.split("  ").next().unwrap())
    });
    let mut count = 0;
    for name in names {
        count += 1;
        let mut args: Vec<&str> = name.split(' ').collect();
        args.push("--help");
        let text = run(&args).ok();
        assert!(text.starts_with(&format!("Usage: hxe {name}")), "{text}");
    }
    assert!(count >= 25, "{overview}");
}

#[test]
fn completions_are_right_for_each_shell() {
    let home = std::env::temp_dir();
    let daemon = Daemon::start();
    for shell in ["bash", "zsh", "fish"] {
        let text = Running::start(command(&home, &["completions", shell]), b"")
            .ends()
            .ok();
        let path = daemon.scratch(shell);
        std::fs::write(&path, &text).unwrap();
        let mut check = Command::new(shell);
        check.arg("-n").arg(&path);
        match check.output() {
            Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
            Err(_) => eprintln!("skipped: there is no {shell} here"),
        }
        for word in ["restart", "refresh", "stop-signal"] {
            assert!(text.contains(word), "{shell} lacks {word}");
        }
    }
    Running::start(command(&home, &["completions", "tcsh"]), b"")
        .ends()
        .fails(2);
    if Command::new("bash").arg("--version").output().is_err() {
        return;
    }
    // What bash offers behind these words.
    let offered = |line: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _hxe; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            daemon.scratch("bash").display()
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &script]);
        Running::start(bash, b"").ends().ok()
    };
    assert_eq!(offered("hxe sto"), "stop\n");
    assert_eq!(offered("hxe list --form"), "--format\n");
    assert_eq!(offered("hxe list --format t"), "table\ntsv\n");
    assert_eq!(offered("hxe auth re"), "refresh\n");
    assert_eq!(offered("hxe completions z"), "zsh\n");
}

#[test]
fn reload_says_what_has_changed() {
    let setup = Setup::new();
    let pattern = format!("{:?}", setup.declared("*.toml"));
    let setup = setup.key("programs", "include", pattern);
    let daemon = setup.start();
    assert!(
        daemon
            .hxe(&["reload"])
            .ok()
            .contains("no program has changed")
    );
    let file = setup.declare_sleeper("declared");
    let out = daemon.hxe(&["reload"]).ok();
    assert!(out.starts_with("declared: added"), "{out}");
    let rows = daemon.hxe(&["reload", "--format=tsv"]).tsv();
    assert!(rows.is_empty(), "{rows:?}");
    // It belongs to its file.
    let said = daemon.hxe(&["delete", "declared"]).fails(6);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    setup.declare("declared.toml", "nonsense = 1\n");
    let said = daemon.hxe(&["reload"]).fails(2);
    assert!(said.contains("declared.toml"), "{said}");
}

#[test]
fn an_upgrade_tells_what_came_of_it() {
    let (setup, binary) = Setup::new().own_binary();
    let daemon = setup.start();
    let program = daemon.create(&sleeper("a")).started();
    let (pid, server) = (program.pid(), daemon.server_pid());
    let version = env!("CARGO_PKG_VERSION");
    let out = daemon.hxe(&["upgrade"]).ok();
    assert_eq!(out, format!("hxe: upgraded from {version} to {version}\n"));
    assert_ne!(daemon.server_pid(), server);
    let broken = setup.path("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&broken, &binary).unwrap();
    let said = daemon.hxe(&["upgrade"]).fails(1);
    assert!(
        said.contains("given up") && said.contains("goes on"),
        "{said}"
    );
    assert_eq!(program.pid(), pid);
    daemon.hxe(&["--server", &daemon.url(), "upgrade"]).fails(2);
}

#[test]
fn an_upgrade_signals_nobody_but_the_daemon() {
    let setup = Setup::new();
    let config = setup.write();
    fs::create_dir_all(setup.path("run")).unwrap();
    let listener = UnixListener::bind(setup.path("run/hxe.sock")).unwrap();
    // As of a daemon in a container: somebody else has its number here.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let body = format!(
        r#"{{"version":"0.1.0","pid":{},"server_pid":{}}}"#,
        other.id(),
        std::process::id()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len());
            let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        }
    });
    let args = ["-c", config.to_str().unwrap(), "upgrade"];
    let ran = Running::start(command(&setup.path("scratch"), &args), b"").ends();
    let signalled = other.try_wait().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    let said = ran.fails(1);
    assert!(said.contains("container"), "{said}");
    assert_eq!(signalled, None);
}

#[test]
fn who_reads_no_further_is_no_error() {
    let daemon = Daemon::start();
    let mut follow = daemon.local_command(&["events", "--type=*"]);
    let mut child = follow
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything comes.
    drop(child.stdout.take());
    let program = daemon.create(&sh("a", "while :; do echo x; sleep 0.02; done"));
    let _program = program.started();
    let mut status = None;
    until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((status.unwrap().code(), said.as_str()), (Some(0), ""));
}
