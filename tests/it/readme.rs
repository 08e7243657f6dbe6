use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::command::Running;
use crate::support::{Daemon, PATIENCE};

/// A command of the README, with what it shows below it.
struct Step {
    line: usize,
    command: String,
    shown: String,
}

/// The commands of blocks that are marked as `console`: "$ " begins one, "> " goes on with it.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: index + 1,
                command: command.to_owned(),
                shown: String::new(),
            });
        } else {
            let step = steps.last_mut().expect("a block begins with a command");
            match line.strip_prefix("> ") {
                Some(more) if step.shown.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => {
                    step.shown.push_str(line);
                    step.shown.push('\n');
                }
            }
        }
    }
    steps
}

/// A text without what differs each time: durations, the width of columns, and numbers of more than one digit.
fn settled(text: &str) -> String {
    let is_duration = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with(['d', 'h', 'm', 's'])
            && word
                .chars()
                .all(|c| c.is_ascii_digit() || "dhms".contains(c))
    };
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let word = match is_duration(word) {
                true => "TIME".to_owned(),
                false => without_numbers(word),
            };
            if word != "TIME" || words.last() != Some(&word) {
                words.push(word);
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

fn without_numbers(word: &str) -> String {
    let mut settled = String::new();
    let mut digits = String::new();
    for c in word.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        match digits.len() {
            0 | 1 => settled.push_str(&digits),
            _ => settled.push('#'),
        }
        digits.clear();
        settled.push(c);
    }
    settled.trim_end().to_owned()
}

/// Whether a command has printed what is shown, where "..." stands for anything.
fn is_shown(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (settled(shown), settled(printed));
    let parts: Vec<&str> = shown.split("...").collect();
    let [first, others @ ..] = &parts[..] else {
        unreachable!("a split has a part");
    };
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    let Some((last, middle)) = others.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether a command only looks, so that it can be given again until things are as they will be.
fn only_looks(command: &str) -> bool {
    let looks = ["hxe list", "hxe logs", "hxe status", "curl ", "cat /"];
    looks.iter().any(|begin| command.starts_with(begin))
        && !command.contains(" -d ")
        && !command.contains(" -X ")
}

#[test]
fn what_is_shown_is_what_is_printed_but_for_numbers_and_what_is_left_out() {
    for (shown, printed) in [
        ("pid 4711  12s\n", "pid   30123 1m 3s\n"),
        (
            "{\"a\":\"...\",\"b\":1,...}",
            "{\"a\":\"x\",\"b\":1,\"c\":2}",
        ),
        ("", ""),
    ] {
        assert!(is_shown(shown, printed), "{shown} {printed}");
    }
    for (shown, printed) in [
        ("3\n", "4\n"),
        ("{\"b\":1,...}", "{\"b\":2,\"c\":2}"),
        ("one\n", "one\ntwo\n"),
        ("one\n", ""),
    ] {
        assert!(!is_shown(shown, printed), "{shown} {printed}");
    }
}

#[test]
fn the_commands_of_the_readme_print_what_it_shows() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let steps = steps(&std::fs::read_to_string(readme).expect("it can be read"));
    assert!(steps.len() > 20, "{}", steps.len());
    for tool in ["curl", "awk"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("skipped: there is no {tool}");
            return;
        }
    }
    let daemon = Daemon::start();
    let here = |path: &str| daemon.setup.path(path).display().to_string();
    std::fs::create_dir_all(here("programs.d")).unwrap();
    std::fs::create_dir(here("scratch/bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hxe"), here("scratch/bin/hxe")).unwrap();
    // What stands in the README, and what is in its place here.
    let places = [
        ("http://localhost:8080".to_owned(), daemon.url()),
        ("/run/hxe/hxe.sock".to_owned(), here("run/hxe.sock")),
        ("/etc/hxe/programs.d".to_owned(), here("programs.d")),
        ("/var/log/hxe".to_owned(), here("log")),
    ];
    let mut token = String::new();
    let mut run = |step: &Step| {
        let mut text = step.command.clone();
        for (there, here) in &places {
            text = text.replace(there, here);
        }
        let sets_token = text.starts_with("TOKEN=");
        if sets_token {
            text.push_str("; echo \"$TOKEN\"");
        }
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("exec 2>&1\n{text}")])
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", here("scratch/bin")),
            )
            .env("HOME", here("scratch"))
            .env("HXE_SERVER_URL", format!("unix:{}", here("run/hxe.sock")))
            .env("TOKEN", &token)
            .current_dir("/");
        let ran = Running::start(shell, b"").ends();
        let mut printed = String::from_utf8(ran.stdout).expect("it is text");
        if sets_token {
            token = printed.trim().to_owned();
            printed.clear();
        }
        for (there, here) in &places {
            printed = printed.replace(here, there);
        }
        printed
    };
    for step in &steps {
        let deadline = Instant::now() + PATIENCE;
        let mut printed = run(step);
        while !is_shown(&step.shown, &printed) {
            let Step {
                line,
                command,
                shown,
            } = step;
            assert!(
                only_looks(command) && Instant::now() < deadline,
                "README.md, line {line}: {command}\nshows:\n{shown}\nbut printed:\n{printed}"
            );
            std::thread::sleep(Duration::from_millis(50));
            printed = run(step);
        }
    }
}
