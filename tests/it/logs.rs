use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Daemon, Definition, Program, Setup, json, sh, until};

/// Runs a script to its end.
fn ran<'d>(daemon: &'d Daemon, name: &str, script: &str) -> Program<'d> {
    let program = daemon.create(&sh(name, script)).started();
    program.reaches("exited");
    program
}

#[test]
fn an_entry_has_a_time_a_level_a_stream_and_the_message() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", "echo hello; echo oops >&2");
    let entries = program.logs("");
    let of = |stream: &str| {
        entries
            .iter()
            .find(|entry| entry["stream"] == stream)
            .unwrap()
    };
    for (stream, level, message) in [
        ("hxe", "info", "Program started successfully"),
        ("stdout", "info", "hello"),
        ("stderr", "error", "oops"),
    ] {
        let entry = of(stream);
        assert_eq!(
            (entry["level"].as_str(), entry["message"].as_str()),
            (Some(level), Some(message))
        );
        let time = entry["timestamp"].as_str().unwrap();
        humantime::parse_rfc3339(time).expect("RFC 3339, UTC");
        assert_eq!(time.len(), "2025-01-01T00:00:00.000Z".len());
    }
    let mut keys: Vec<&String> = entries[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["level", "message", "stream", "timestamp"]);
}

#[test]
fn the_files_hold_exactly_what_was_written() {
    let daemon = Daemon::start();
    let script = r#"printf 'a\nb\000\377\r\n\n\303(no end'; printf 'err' >&2"#;
    let program = ran(&daemon, "a", script);
    assert_eq!(program.stdout(), b"a\nb\0\xff\r\n\n\xc3(no end");
    let stderr = program.stdout_path().with_file_name("stderr.log");
    assert_eq!(fs::read(stderr).unwrap(), b"err");
}

#[test]
fn the_files_may_be_read_by_the_group_and_nobody_else() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", "echo hello");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&program.stdout_path()), 0o640);
    assert_eq!(mode(&daemon.log_dir()), 0o750);
}

#[test]
fn what_is_not_utf_8_is_replaced() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", r"printf 'caf\303\251 \377\376!\n'");
    assert_eq!(program.messages("stdout"), ["café \u{fffd}\u{fffd}!"]);
}

#[test]
fn a_line_says_its_level_itself() {
    let daemon = Daemon::start();
    let lines = [
        ("[WARN] a", "warn"),
        ("level=debug b", "debug"),
        (r#"{"level":"error","msg":"c"}"#, "error"),
        ("<3>d", "error"),
        ("ERROR: e", "error"),
        ("2025-01-01 00:00:00 INFO f", "info"),
        ("no level here", "info"),
        ("an error in the middle of a sentence", "info"),
    ];
    let script: String = lines
        .iter()
        .map(|(line, _)| format!("echo {};", shell_words::quote(line)))
        .collect();
    let program = ran(&daemon, "a", &script);
    let entries = program.logs("");
    for (line, level) in lines {
        let entry = entries
            .iter()
            .find(|entry| entry["message"] == line)
            .unwrap();
        assert_eq!(entry["level"], level, "{line}");
    }
}

#[test]
fn levels_are_selected_exactly_and_lines_are_counted_after_that() {
    let daemon = Daemon::start();
    let script =
        "for i in 1 2 3; do echo DEBUG: d$i; echo i$i; echo WARN: w$i; echo ERROR: e$i; done";
    let program = ran(&daemon, "a", script);
    let check = |query: &str, expected: &[&str]| {
        let messages: Vec<String> = program
            .logs(query)
            .into_iter()
            .filter(|entry| entry["stream"] != "hxe")
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(messages, expected, "{query}");
    };
    check("?level=error", &["ERROR: e1", "ERROR: e2", "ERROR: e3"]);
    check("?level=debug&lines=1", &["DEBUG: d3"]);
    check(
        "?level=warn,error&lines=3",
        &["ERROR: e2", "WARN: w3", "ERROR: e3"],
    );
    check("?lines=0", &[]);
    check(
        "?level=warn&lines=10000",
        &["WARN: w1", "WARN: w2", "WARN: w3"],
    );
}

#[test]
fn a_hundred_lines_are_shown_unless_told_otherwise() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", "seq 1 300");
    assert_eq!(program.logs("").len(), 100);
    assert_eq!(program.logs("?lines=250").len(), 250);
    assert_eq!(program.logs("?level=info&lines=7").len(), 7);
}

#[test]
fn a_query_that_makes_no_sense_is_refused_by_its_key() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", ""));
    for (query, field) in [
        ("lines=-1", "lines"),
        ("lines=x", "lines"),
        ("lines=", "lines"),
        ("lines=1&lines=2", "lines"),
        ("level=fatal", "level"),
        ("level=", "level"),
        ("level=warn,", "level"),
        ("follow=maybe", "follow"),
        ("tail=5", "tail"),
    ] {
        let reply = daemon.get(&program.path(&format!("/logs?{query}")));
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
        reply.issue(field);
    }
}

#[test]
fn a_program_that_never_ran_has_no_lines() {
    let daemon = Daemon::start();
    let program = daemon.create(&sh("a", ""));
    let json = daemon.get(&program.path("/logs")).ok(200);
    assert_eq!(json, json!({"program_id": program.id, "logs": []}));
}

#[test]
fn an_unended_line_counts_once_the_program_has_ended_and_is_not_joined_to_the_next() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", "printf 'no end'");
    assert_eq!(program.messages("stdout"), ["no end"]);
    program.post("start").ok(200);
    until(|| program.messages("stdout").len() == 2);
    assert_eq!(program.messages("stdout"), ["no end", "no end"]);
    assert_eq!(program.stdout(), b"no endno end");
}

#[test]
fn a_long_line_is_given_in_pieces_and_nothing_is_lost() {
    let daemon = Daemon::start();
    let program = ran(
        &daemon,
        "a",
        "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short",
    );
    let messages = program.messages("stdout");
    assert!(messages.iter().all(|message| message.len() <= 16 * 1024));
    assert_eq!(messages.concat(), format!("{}short", "x".repeat(40_000)));
    assert_eq!(messages.last().unwrap(), "short");
}

#[test]
fn streams_are_merged_in_order_of_time() {
    let daemon = Daemon::start();
    let script = "for i in 1 2 3; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done";
    let program = ran(&daemon, "a", script);
    let entries = program.logs("");
    let messages: Vec<&str> = entries
        .iter()
        .map(|entry| entry["message"].as_str().unwrap())
        .collect();
    let expected = [
        "Program started successfully",
        "o1",
        "e1",
        "o2",
        "e2",
        "o3",
        "e3",
        "Program exited with code 0",
    ];
    assert_eq!(messages, expected);
    let times: Vec<&str> = entries
        .iter()
        .map(|entry| entry["timestamp"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn plain_text_is_given_to_who_asks_for_it() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", "echo hello; echo oops >&2");
    let header = format!(
        "Authorization: Bearer {}\r\nAccept: text/plain\r\n",
        daemon.token()
    );
    let reply = daemon
        .request("GET", &program.path("/logs"), &header, "")
        .expect(200);
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let lines: Vec<&str> = reply.text().lines().collect();
    assert!(
        lines.iter().any(|line| line.ends_with("Z info hello")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.ends_with("Z error oops")),
        "{lines:?}"
    );
}

#[test]
fn lines_are_there_before_the_program_ends() {
    let daemon = Daemon::start();
    let program = daemon
        .create(&sh("a", "echo early; exec sleep 1000"))
        .started();
    program.says("early");
    assert_eq!(program.state(), "running");
}

#[test]
fn logs_outlive_the_daemon() {
    let daemon = Daemon::start();
    let program = ran(&daemon, "a", "echo hello");
    let before: Vec<_> = program
        .logs("")
        .into_iter()
        .filter(|e| e["stream"] == "stdout")
        .collect();
    let id = program.id.clone();
    let daemon = daemon.restart();
    let program = daemon.program(&id);
    let after: Vec<_> = program
        .logs("")
        .into_iter()
        .filter(|e| e["stream"] == "stdout")
        .collect();
    assert_eq!(after, before);
}

/// The rotated files of a program's stdout and the present one, oldest first.
fn files(program: &Program) -> Vec<Vec<u8>> {
    let path = program.stdout_path();
    let rotated = (1..).map_while(|number| fs::read(format!("{}.{number}", path.display())).ok());
    let mut files: Vec<Vec<u8>> = rotated.collect();
    files.reverse();
    files.push(program.stdout());
    files
}

#[test]
fn files_are_rotated_at_line_ends_and_the_oldest_go() {
    let daemon = Setup::new()
        .key("logs", "max_size", "\"64KiB\"")
        .key("logs", "max_files", 3)
        .start();
    let program = ran(&daemon, "a", "seq 1 200000");
    let files = files(&program);
    assert_eq!(files.len(), 4);
    for file in &files[..3] {
        assert!(file.ends_with(b"\n"), "cut at a line end");
        assert!(file.len() <= 128 * 1024, "{}", file.len());
    }
    let kept = String::from_utf8(files.concat()).unwrap();
    let numbers: Vec<u32> = kept.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&200_000));
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "no gap between the files"
    );

    let shown = program.messages("stdout");
    assert_eq!(shown.last().unwrap(), "200000");
    let first: u32 = shown[0].parse().unwrap();
    assert_eq!(
        first as usize,
        200_000 - shown.len() + 1,
        "read across the files"
    );
}

#[test]
fn no_line_is_lost_at_full_speed_and_others_do_not_notice() {
    let daemon = Setup::new().key("logs", "max_size", "\"64MiB\"").start();
    let quiet = daemon
        .create(&sh("quiet", "while :; do echo tick; sleep 0.05; done"))
        .started();
    let last = 2_500_000;
    let program = daemon
        .create(&Definition::new("loud", "seq", &format!("1 {last}")))
        .started();
    until(|| program.state() == "exited");
    let written = String::from_utf8(files(&program).concat()).unwrap();
    let mut expected = 0;
    for line in written.lines() {
        expected += 1;
        assert_eq!(line.parse(), Ok(expected));
    }
    assert_eq!(expected, last);
    assert!(quiet.messages("stdout").len() > 1);
}
