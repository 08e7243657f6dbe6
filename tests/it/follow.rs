use rustix::process::Signal;

use crate::support::{
    Daemon, Definition, Follower, Program, Setup, Value, json, sh, sleeper, sorted, stubborn, until,
};

/// A program that writes what is written to a FIFO in its directory, line by line.
fn echo(daemon: &Daemon, name: &str) -> Definition {
    let input = daemon.scratch(name);
    let script = format!(
        "mkfifo -m 666 {0:?}; exec 3<>{0:?}; while read line <&3; do echo \"$line\"; done",
        input
    );
    sh(name, &script)
}

/// Has it write these lines.
fn write(daemon: &Daemon, name: &str, lines: &str) {
    use std::io::Write;
    let input = daemon.scratch(name);
    until(|| input.exists());
    let mut file = std::fs::OpenOptions::new().write(true).open(input).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

#[test]
fn the_last_lines_come_first_and_then_each_new_one() {
    let daemon = Daemon::start();
    let program = daemon.create(&echo(&daemon, "a")).started();
    write(&daemon, "a", "1\n2\n3\n4\n");
    Follower::open(&program, "", "").until("4");
    let mut follower = Follower::open(&program, "&lines=2", "");
    assert_eq!([follower.message(), follower.message()], ["3", "4"]);
    for line in ["5", "6"] {
        write(&daemon, "a", &format!("{line}\n"));
        assert_eq!(follower.message(), line);
    }
    let mut all = Follower::open(&program, "", "");
    assert_eq!(all.until("6").len(), 6);
    let mut none = Follower::open(&program, "&lines=0", "");
    write(&daemon, "a", "7\n");
    assert_eq!(none.message(), "7");
}

#[test]
fn an_entry_is_as_in_the_list() {
    let daemon = Daemon::start();
    let script = r#"echo hello; echo '[WARN] "so" so'; printf 'caf\303\251 \377\001\n'; echo oops >&2; printf end"#;
    let program = daemon.create(&sh("a", script));
    let mut live = Follower::open(&program, "", "");
    program.post("start").ok(200);
    program.reaches("exited");
    let mut late = Follower::open(&program, "", "");
    assert_eq!(
        live.head.header("content-type"),
        Some("application/x-ndjson")
    );
    let entries = program.logs("");
    assert_eq!(entries.len(), 7);
    for follower in [&mut live, &mut late] {
        let followed: Vec<_> = entries.iter().map(|_| follower.entry()).collect();
        assert_eq!(sorted(followed), sorted(&entries));
    }
}

#[test]
fn text_is_as_without_following() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh(
        "a",
        r"printf 'a\tb\033[1m\001\n'; echo oops >&2; printf end",
    ));
    let accept = "Accept: text/plain\r\n";
    let mut live = Follower::open(&program, "", accept);
    assert_eq!(
        live.head.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    program.post("start").ok(200);
    program.reaches("exited");
    let headers = format!("Authorization: Bearer {}\r\n{accept}", daemon.token());
    let whole = daemon
        .request("GET", &program.path("/logs"), &headers, "")
        .expect(200);
    let lines: Vec<_> = whole.text().split_terminator('\n').collect();
    assert_eq!(lines.len(), 5);
    let followed: Vec<_> = lines.iter().map(|_| live.line().unwrap()).collect();
    assert_eq!(sorted(followed), sorted(lines));
}

#[test]
fn what_is_asked_for_first_decides_the_format() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    for (accept, content_type) in [
        ("application/x-ndjson, text/plain", "application/x-ndjson"),
        (
            "text/plain;q=0.5, application/x-ndjson",
            "application/x-ndjson",
        ),
        ("application/json", "application/x-ndjson"),
        (
            "text/plain, application/x-ndjson",
            "text/plain; charset=utf-8",
        ),
    ] {
        let follower = Follower::open(&program, "", &format!("Accept: {accept}\r\n"));
        assert_eq!(
            follower.head.header("content-type"),
            Some(content_type),
            "{accept}"
        );
    }
}

#[test]
fn levels_hold_for_what_comes_too() {
    let daemon = Daemon::start();
    let program = daemon.create(&echo(&daemon, "a")).started();
    write(&daemon, "a", "ERROR: 1\ninfo\nWARN: 2\nERROR: 3\n");
    Follower::open(&program, "", "").until("ERROR: 3");
    let mut follower = Follower::open(&program, "&level=warn,error&lines=2", "");
    assert_eq!(
        [follower.message(), follower.message()],
        ["WARN: 2", "ERROR: 3"]
    );
    write(&daemon, "a", "info\nDEBUG: 4\nERROR: 5\n");
    assert_eq!(follower.message(), "ERROR: 5");
}

#[test]
fn a_program_that_does_not_run_is_followed_into_its_runs() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "echo run; printf 'no end'"));
    let mut follower = Follower::open(&program, "", "");
    for _ in 0..3 {
        program.post("start").ok(200);
        program.reaches("exited");
        let before = follower.until("Program exited with code 0");
        let expected = ["Program started successfully", "no end", "run"];
        assert_eq!(sorted(before), expected);
    }
}

/// The numbers that a follower gives next, up to `last`.
fn numbers(follower: &mut Follower, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let entry = follower.entry();
        if entry["stream"] == "stdout" {
            let message = entry["message"].as_str().expect("a message is text");
            numbers.push(message.parse().expect("a number"));
        }
    }
    numbers
}

#[test]
fn rotation_leaves_no_gap_and_gives_nothing_twice() {
    const LINES: u64 = 20_000;
    let daemon = Setup::new()
        .key("logs", "max_size", "\"4KiB\"")
        .key("logs", "max_files", 1000)
        .start();
    let program = daemon.create(&sh("a", &format!("exec seq 1 {LINES}")));
    let mut follower = Follower::open(&program, "&lines=0", "");
    program.post("start").ok(200);
    assert!(numbers(&mut follower, LINES).into_iter().eq(1..=LINES));
    assert!(
        program.stdout_path().with_extension("log.1").exists(),
        "it was rotated"
    );
}

#[test]
fn there_is_no_gap_between_the_last_lines_and_the_new_ones() {
    const LINES: u64 = 30_000;
    let daemon = Setup::new()
        .key("logs", "max_size", "\"64KiB\"")
        .key("logs", "max_files", 1000)
        .start();
    let script = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done");
    let program = daemon.create(&sh("a", &script)).started();
    for _ in 0..20 {
        let mut follower = Follower::open(&program, "&lines=5", "");
        let mut numbers = Vec::new();
        while numbers.len() < 200 {
            match follower.message().parse::<u64>() {
                Ok(number) => numbers.push(number),
                // A line of hxe's own: the program has begun or ended.
                Err(_) if numbers.last() == Some(&LINES) => break,
                Err(_) => {}
            }
        }
        let whole: Vec<u64> = (numbers[0]..).take(numbers.len()).collect();
        assert_eq!(numbers, whole);
    }
}

#[test]
fn several_lines_that_are_there_at_once_come_in_few_pieces() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", "exec seq 1 5000")).started();
    program.reaches("exited");
    let mut connection = daemon.sent(format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        program.path("/logs?follow=true&lines=5000"),
        daemon.token()
    ));
    connection.head_reply().expect(200);
    let (mut lines, mut pieces) = (0, 0);
    while lines < 5000 {
        let piece = connection.chunk().expect("the stream goes on");
        assert!(piece.len() < 20 * 1024, "{}", piece.len());
        lines += piece.iter().filter(|byte| **byte == b'\n').count();
        pieces += 1;
    }
    assert!(pieces < 50, "{pieces}");
}

#[test]
fn the_end_of_the_program_s_definition_ends_it_after_the_last_line() {
    let daemon = Daemon::start();
    // The shell would say that its sleep was terminated.
    let script = "exec 2>/dev/null; trap 'echo last words; exit 0' TERM; echo ready; \
                  while :; do sleep 0.1; done";
    let program = daemon.create(&sh("a", script)).started();
    program.says("ready");
    let mut follower = Follower::open(&program, "", "");
    daemon.delete(&program.path("")).expect(200);
    let before = follower.until("Program stopped successfully (exited with code 0)");
    assert_eq!(before.last().map(String::as_str), Some("last words"));
    assert!(follower.is_over());
    until(|| daemon.threads("hxe-stream") == 0);
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a")).started();
    let followers: Vec<_> = (0..5).map(|_| Follower::open(&program, "", "")).collect();
    assert_eq!(daemon.threads("hxe-stream"), 5);
    drop(followers);
    until(|| daemon.threads("hxe-stream") == 0);
}

fn follow_as(program: &Program, token: &str) -> Follower {
    Follower::with_token(token, program, &program.path("/logs?follow=true"), "")
}

#[test]
fn a_logout_ends_it_and_leaves_those_of_other_tokens() {
    let daemon = Daemon::start();
    let program = daemon.create(&echo(&daemon, "a"));
    let token = daemon.login();
    let mut ended = follow_as(&program, &token);
    let mut other = Follower::open(&program, "", "");
    daemon
        .with_token(&token, "POST", "/api/auth/logout", "")
        .ok(200);
    assert!(ended.is_over());
    program.post("start").ok(200);
    assert_eq!(other.message(), "Program started successfully");
}

#[test]
fn the_end_of_the_token_ends_it() {
    let daemon = Setup::new().key("api", "token_lifetime", "\"2s\"").start();
    let token = daemon.login();
    let created = daemon.with_token(&token, "POST", "/api/program", &sleeper("a").0.to_string());
    let id = created.ok(201)["id"].as_str().unwrap().to_owned();
    assert!(follow_as(&daemon.program(&id), &token).is_over());
}

#[test]
fn a_new_password_ends_it() {
    let mut daemon = Daemon::start();
    let mut follower = Follower::open(&daemon.create(&sleeper("a")), "", "");
    daemon.reload(daemon.setup.clone().own_password());
    assert!(follower.is_over());
}

#[test]
fn the_end_of_the_daemon_ends_it_after_the_last_line() {
    let mut daemon = Daemon::start();
    let mut follower = Follower::open(
        &daemon
            .create(&stubborn("a").with("stop_timeout", "100ms"))
            .started(),
        "",
        "",
    );
    follower.until("ready");
    daemon.signal(Signal::TERM);
    follower.until("Program stopped successfully (was ended by signal KILL)");
    assert!(follower.is_over());
    assert_eq!(daemon.ends(), Some(0));
}

#[test]
fn the_33rd_is_refused_until_one_leaves() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let mut followers: Vec<_> = (0..32).map(|_| Follower::open(&program, "", "")).collect();
    let path = program.path("/logs?follow=true");
    let refused = daemon.get(&path);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let message = refused.error(503, "service_unavailable");
    assert!(message.contains("max_streams"), "{message}");
    // Logs that are not followed are read as ever.
    program.logs("");
    followers.pop();
    until(|| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            daemon.token()
        );
        daemon.sent(head).head_reply().status == 200
    });
}

#[test]
fn mistakes_are_answered_before_anything_is_followed() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let path = program.path("/logs?follow=true");
    daemon
        .request("GET", &path, "", "")
        .error(401, "authentication_error");
    daemon
        .get("/api/program/nobody/logs?follow=true")
        .error(404, "not_found");
    daemon
        .get(&program.path("/logs?follow=yes"))
        .issue("follow");
    daemon.get(&format!("{path}&follow=true")).issue("follow");
    daemon.get(&format!("{path}&lines=-1")).issue("lines");
    daemon.get(&format!("{path}&level=loud")).issue("level");
    assert_eq!(daemon.threads("hxe-stream"), 0);
}

#[test]
fn follow_false_is_as_without() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let json = daemon.get(&program.path("/logs?follow=false")).ok(200);
    assert_eq!(json, json!({"program_id": program.id, "logs": []}));
}

#[test]
fn head_has_the_headers_and_no_stream() {
    let daemon = Daemon::start();
    let program = daemon.create(&sleeper("a"));
    let reply = daemon.with_token(
        daemon.token(),
        "HEAD",
        &program.path("/logs?follow=true"),
        "",
    );
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    reply.expect(200);
    assert_eq!(daemon.threads("hxe-stream"), 0);
}

#[test]
fn http_1_0_gets_it_without_chunks_until_the_connection_closes() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo hello; exec sleep 1000"))
        .started();
    program.says("hello");
    let mut connection = daemon.sent(format!(
        "GET {} HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n",
        program.path("/logs?follow=true"),
        daemon.token()
    ));
    until(|| daemon.threads("hxe-stream") == 1);
    daemon.delete(&program.path("")).expect(200);
    let reply = connection.reply().expect(200);
    assert_eq!(reply.header("transfer-encoding"), None);
    let entries: Vec<Value> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let messages: Vec<_> = entries
        .iter()
        .map(|entry| entry["message"].as_str().unwrap())
        .collect();
    assert!(messages.contains(&"hello"), "{messages:?}");
    assert!(
        messages
            .last()
            .unwrap()
            .starts_with("Program stopped successfully")
    );
}
