use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Setup, Value, is_root, until};

/// Runs `hxe import ARGS`: its exit code, standard output and standard error.
fn import(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hxe"))
        .arg("import")
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("COLOUR", "blue")
        .output()
        .expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// As a real one is: what packages ship, and what people add.
const CONF: &str = r#"; Sample supervisor config file.
[unix_http_server]
file=/run/supervisor.sock   ; the path to the socket file
chmod=0700

[supervisord]
logfile=/var/log/supervisor/supervisord.log ; main log file
nodaemon=false
minfds=1024
environment=LANG="C.UTF-8"

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix:///run/supervisor.sock

[inet_http_server]
port=127.0.0.1:9001

[program:web]
command=/bin/sh -c "echo \"%(program_name)s in $PWD\"; exec sleep 1000"
directory=/tmp
user=nobody
autostart=true
autorestart=true
startsecs=5
startretries=10
stopsignal=QUIT
stopwaitsecs=30
stopasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/web.log
stdout_logfile_maxbytes=10MB
environment=PATH="/usr/bin:/bin",
    GREETING='hello, "world"',   ; with a comma in it
    COLOUR="%(ENV_COLOUR)s"
priority=10

[program:worker]
command=/bin/sleep 100%(process_num)d
process_name=%(program_name)s_%(process_num)02d
numprocs=3
user=nobody
exitcodes=0,2
umask=027

[program:numbered]
command=/bin/true
process_name=%(process_num)d
autostart=false
autorestart=false
user=nobody

[program:broken]
command=/bin/echo %(ENV_NOT_SET_ANYWHERE)s

[group:all]
programs=web,worker

[eventlistener:crashmail]
command=/usr/bin/crashmail
events=PROCESS_STATE

[fcgi-program:php]
command=/usr/bin/php-cgi
socket=unix:///run/php.sock

[include]
files = conf.d/*.conf
"#;

/// A configuration with a file that it includes; only root's hxe can run its programs as other users.
fn configuration(setup: &Setup) -> std::path::PathBuf {
    let own = |text: &str| match is_root() {
        true => text.to_owned(),
        false => text.replace("user=nobody\n", ""),
    };
    let conf = setup.path("supervisord.conf");
    fs::write(&conf, own(CONF)).expect("the directory can be written");
    fs::create_dir(setup.path("conf.d")).expect("it is new");
    let more = "[program:more]\ncommand = %(here)s/more.sh --flag\nuser=nobody\nautostart=no\n";
    fs::write(setup.path("conf.d/more.conf"), own(more)).expect("it can be written");
    conf
}

#[test]
fn a_configuration_of_supervisord_becomes_files_that_the_daemon_takes() {
    let setup = Setup::new();
    let conf = configuration(&setup);
    let out = setup.path("programs.d");
    let (code, stdout, stderr) = import(&[text(&conf), "--out", text(&out)]);
    assert_eq!(code, Some(1), "{stderr}");
    let files = [
        "web",
        "worker_00",
        "worker_01",
        "worker_02",
        "numbered_0",
        "more",
    ];
    let expected: Vec<String> = files
        .iter()
        .map(|name| format!("{}/{name}.toml", text(&out)))
        .collect();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
    let (code, output) = setup.run(&["--check"]);
    assert_eq!(code, Some(0), "{output}");
    let daemon = setup.start();
    let web = daemon.program("web").reaches("running");
    for (field, value) in [
        ("directory", Value::from("/tmp")),
        ("auto_restart", true.into()),
        ("restart_policy", "always".into()),
        ("max_restarts", 10.into()),
        ("stop_signal", "QUIT".into()),
        ("stop_timeout", "30s".into()),
        ("command", "/bin/sh".into()),
    ] {
        assert_eq!(web[field], value, "{field}");
    }
    let environment = &web["environment"];
    assert_eq!(environment["GREETING"], "hello, \"world\"");
    assert_eq!(environment["COLOUR"], "blue");
    assert_eq!(environment["LANG"], "C.UTF-8");
    let id = web["id"].as_str().expect("an id is text");
    daemon.program(id).says("web in /tmp");
    let worker = daemon.program("worker_02").reaches("running");
    assert_eq!(
        (&worker["args"], &worker["umask"]),
        (&"1002".into(), &"027".into())
    );
    assert_eq!(worker["restart_policy"], "on-failure");
    assert_eq!(worker["success_exit_codes"], Value::from(vec![0, 2]));
    let numbered = daemon.get("/api/program/numbered%3A0").ok(200);
    assert_eq!(
        (&numbered["enabled"], &numbered["auto_restart"]),
        (&false.into(), &false.into())
    );
    let more = daemon.program("more").get();
    assert_eq!(
        more["command"],
        format!("{}/more.sh", text(&setup.path(""))).replace("//", "/")
    );
    until(|| daemon.program("worker_00").state() == "running");
}

#[test]
fn what_cannot_be_carried_over_is_named_with_file_and_line() {
    let setup = Setup::new();
    let conf = configuration(&setup);
    let (_, _, stderr) = import(&[text(&conf), "--check", "--out", text(&setup.path("out"))]);
    let line = |wanted: &str| {
        let mut lines = CONF.lines().map(|line| line.split(" ;").next());
        let own: Vec<&str> = CONF
            .lines()
            .filter(|line| is_root() || *line != "user=nobody")
            .collect();
        assert!(lines.any(|line| line == Some(wanted)), "{wanted}");
        own.iter()
            .position(|line| *line == wanted)
            .expect("it is there")
            + 1
    };
    for (at, what) in [
        ("minfds=1024", "[supervisord] minfds: "),
        ("[inet_http_server]", "[inet_http_server]: "),
        ("startsecs=5", "[program:web] startsecs: "),
        ("redirect_stderr=true", "[program:web] redirect_stderr: "),
        (
            "stdout_logfile=/var/log/web.log",
            "[program:web] stdout_logfile: ",
        ),
        (
            "stdout_logfile_maxbytes=10MB",
            "[program:web] stdout_logfile_maxbytes: ",
        ),
        ("priority=10", "[program:web] priority: "),
        (
            "command=/bin/echo %(ENV_NOT_SET_ANYWHERE)s",
            "[program:broken] command: ",
        ),
        ("[group:all]", "[group:all]: "),
        ("[eventlistener:crashmail]", "[eventlistener:crashmail]: "),
        ("[fcgi-program:php]", "[fcgi-program:php]: "),
    ] {
        let expected = format!("{}:{}: {what}", text(&conf), line(at));
        let found = stderr
            .lines()
            .filter(|line| line.starts_with(&expected))
            .count();
        assert_eq!(found, 1, "{expected}\n{stderr}");
    }
    // And nothing else but how many.
    assert_eq!(stderr.lines().count(), 12, "{stderr}");
}

#[test]
fn nothing_is_written_by_a_check_and_nothing_is_overwritten() {
    let setup = Setup::new();
    let conf = configuration(&setup);
    let out = setup.path("out");
    let (_, stdout, _) = import(&[text(&conf), "--check", "--out", text(&out)]);
    assert_eq!(stdout.lines().count(), 6);
    assert!(!out.exists());
    fs::create_dir(&out).expect("it is new");
    fs::write(out.join("web.toml"), "mine").expect("it can be written");
    for check in [Some("--check"), None] {
        let mut args = vec![text(&conf), "--out", text(&out)];
        args.extend(check);
        let (code, stdout, stderr) = import(&args);
        assert_eq!(code, Some(1));
        assert_eq!(stdout.lines().count(), 5, "{stdout}");
        assert!(stderr.contains("web.toml: not written: "), "{stderr}");
    }
    assert_eq!(
        fs::read_to_string(out.join("web.toml")).expect("it is there"),
        "mine"
    );
    assert!(out.join("more.toml").exists());
}

#[test]
fn a_line_that_may_have_named_a_program_is_a_failure() {
    let setup = Setup::new();
    let conf = setup.path("supervisord.conf");
    let out = setup.path("out");
    fs::write(
        &conf,
        "[program:a]\ncommand=/bin/a\n[program:b\ncommand=/bin/b\n",
    )
    .expect("it can be written");
    let (code, stdout, stderr) = import(&[text(&conf), "--out", text(&out)]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(
        stderr.contains("supervisord.conf:3: is neither"),
        "{stderr}"
    );
    let written = fs::read_to_string(out.join("a.toml")).expect("it is written");
    assert!(written.contains("\"/bin/a\""), "{written}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_of_who_asks() {
    let (code, _, stderr) = import(&["/no/such/file", "--check", "--out", "/tmp"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("/no/such/file: cannot be read"), "{stderr}");
}

#[test]
fn programs_without_a_user_run_as_the_one_of_supervisord() {
    if !is_root() {
        return eprintln!("skipped: needs root");
    }
    let setup = Setup::new();
    let conf = setup.path("supervisord.conf");
    let out = setup.path("programs.d");
    let check = |text_of: &str, user: &str| {
        fs::write(&conf, text_of).expect("it can be written");
        let (code, _, stderr) = import(&[text(&conf), "--out", text(&out)]);
        assert_eq!(code, Some(0), "{stderr}");
        let written = fs::read_to_string(out.join("a.toml")).expect("it is written");
        assert!(
            written.contains(&format!("\nuser = \"{user}\"\n")),
            "{written}"
        );
        fs::remove_file(out.join("a.toml")).expect("it is there");
    };
    check("[program:a]\ncommand=/bin/true\n", "root");
    check(
        "[supervisord]\nuser=nobody\n[program:a]\ncommand=/bin/true\n",
        "nobody",
    );
}
