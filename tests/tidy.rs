//! The rules of the house that reading the source can check: who may name whom, where crates and unsafe code live.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms in the order of dependency, as lib.rs draws it: each sees only those further down.
const ORDER: &[&[&str]] = &[
    // The daemon of the examples in the documentation is hxe from the top, too; what runs at build time sees nothing.
    &["main", "example", "build"],
    &["cli"],
    &["client", "daemon"],
    &["config"],
    &["api"],
    &["http", "supervise"],
    &["logs", "store", "metrics"],
    &["guardian"],
    &["program"],
];

/// Rooms that all may see, and that see nothing of the crate.
const GROUND: &[&str] = &["sys", "clock", "report"];

/// Where each external crate may be named: a room, a file, or everywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("base64", &["api"]),
    ("bcrypt", &["api", "config"]),
    ("hmac", &["api", "store"]),
    ("httparse", &["client", "http"]),
    ("humantime", &["clock"]),
    ("libc", &["sys", "program/signal"]),
    ("miniz_oxide", &["api", "build"]),
    ("redb", &["store"]),
    // Safe system calls: everywhere but in the domain.
    (
        "rustix",
        &[
            "sys",
            "clock",
            "report",
            "http",
            "guardian",
            "logs",
            "store",
            "metrics",
            "supervise",
            "api",
            "config",
            "daemon",
            "client",
            "cli",
        ],
    ),
    ("serde", &["api", "store"]),
    ("serde_json", &["api", "client", "store"]),
    ("sha2", &["api", "store"]),
    ("shell_words", &["program/args"]),
    ("signal_hook", &["cli/run", "supervise/signals"]),
    ("thiserror", &[""]),
    ("tiny_http", &["http"]),
    ("toml", &["config"]),
    ("tungstenite", &["client/events", "http/websocket"]),
];

/// Packages in Cargo.lock, those of the tests and of other systems included.
const MOST_PACKAGES: usize = 130;

/// Lines of code in a file, without its tests, comments and blank lines.
const MOST_LINES: usize = 400;

/// A file below `src`.
struct Source {
    /// Below `src`, without `.rs` and `/mod`: `store`, `supervise/machine`.
    name: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        self.name
            .split('/')
            .next()
            .expect("a split has a first part")
    }

    /// Whether it is in this place, a room or a file.
    fn is_in(&self, place: &str) -> bool {
        place.is_empty()
            || self
                .name
                .strip_prefix(place)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Its lines with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .map(|line| line.split("//").next().expect("a split has a first part"))
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// The same without its inline tests.
    fn code_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self
            .text
            .lines()
            .position(|line| line.trim() == "mod tests {")
            .unwrap_or(usize::MAX);
        let own = if self.name.ends_with("/tests") {
            0
        } else {
            end
        };
        self.code().take_while(move |(number, _)| *number <= own)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust below `src` but lib.rs, which is only the map.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut sources = Vec::new();
    let mut dirs = vec![src.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && path != src.join("lib.rs") {
                sources.push(Source {
                    name: name_of(path.strip_prefix(&src).expect("it is below src")),
                    text: read(&path),
                });
            }
        }
    }
    assert!(sources.len() > 10, "src is not where it should be");
    sources
}

fn name_of(path: &Path) -> String {
    let without_ending: PathBuf = path.with_extension("");
    let name = without_ending.to_str().expect("names are UTF-8");
    name.strip_suffix("/mod").unwrap_or(name).to_owned()
}

/// Fails with all that was found, one line each.
#[track_caller]
fn check(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// The words that follow `prefix` in a line: of `crate::{api, http::Reply}` and `crate::` they are `api` and `http`.
fn words_after(line: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut words = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => words.push(word(rest)),
            Some(group) => words.extend(members(group).into_iter().map(word)),
        }
    }
    words
}

/// The members of a group, up to its closing brace, each with what is nested in it.
fn members(group: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(group[begin..at].trim());
                begin = at + 1;
                if sign == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

#[test]
fn words_after_a_prefix_are_found() {
    let line = "use crate::{api::{self, x}, http}; crate::clock::now()";
    assert_eq!(words_after(line, "crate::"), ["api", "http", "clock"]);
}

#[test]
fn each_room_sees_only_the_rooms_below_it() {
    let rank = |room: &str| ORDER.iter().position(|layer| layer.contains(&room));
    let mut found = Vec::new();
    for source in sources() {
        let room = source.room();
        // A `use` may go over several lines: comments away, then all in one.
        let code: String = source.code().map(|(_, line)| line.trim()).collect();
        for seen in words_after(&code, "crate::") {
            let may = seen == room
                || GROUND.contains(&seen.as_str()) && !GROUND.contains(&room)
                || rank(room).zip(rank(&seen)).is_some_and(|(own, its)| {
                    // The wire knows nothing of what is sent over it; the client knows only what comes to it.
                    own < its && room != "http" && room != "client"
                });
            if !may {
                found.push(format!("src/{}: {room} names crate::{seen}", source.name));
            }
        }
    }
    check(found);
}

#[test]
fn every_room_has_a_place_in_the_order() {
    let known =
        |room: &str| GROUND.contains(&room) || ORDER.iter().any(|layer| layer.contains(&room));
    check(
        sources()
            .iter()
            .filter(|source| !known(source.room()))
            .map(|source| {
                format!(
                    "src/{} has no place in the order of dependency",
                    source.name
                )
            })
            .collect(),
    );
}

/// Whether a line names a crate: `redb::` that is no part of a longer path.
fn names_crate(line: &str, name: &str) -> bool {
    let path = format!("{name}::");
    line.match_indices(&path).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || ['_', ':', '"'].contains(&c))
    })
}

#[test]
fn each_crate_has_one_home() {
    let mut found = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            if homes.iter().any(|home| source.is_in(home)) {
                continue;
            }
            let uses = source.code().filter(|(_, line)| names_crate(line, name));
            found.extend(uses.map(|(number, _)| {
                format!("src/{}:{number}: {name} lives in {homes:?}", source.name)
            }));
        }
    }
    check(found);
}

/// The dependencies in Cargo.toml: the name, and the comment above or behind it.
fn dependencies() -> Vec<(String, String)> {
    let text = read(&root().join("Cargo.toml"));
    let mut dependencies = Vec::new();
    let (mut inside, mut comment) = (false, String::new());
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let Some(text) = line.strip_prefix('#') {
            comment += text;
        } else if let Some((name, rest)) = line.split_once('=').filter(|_| inside) {
            comment += rest.rsplit_once('#').map_or("", |(_, text)| text);
            dependencies.push((name.trim().to_owned(), std::mem::take(&mut comment)));
        } else {
            comment.clear();
        }
    }
    dependencies
}

#[test]
fn each_dependency_says_where_it_lives_and_why() {
    check(
        dependencies()
            .into_iter()
            .filter(|(_, comment)| comment.trim().len() < 10)
            .map(|(name, _)| format!("Cargo.toml: {name} has no comment with its home and reason"))
            .collect(),
    );
}

#[test]
fn each_dependency_has_a_home_in_this_table() {
    const OF_TESTS: &[&str] = &["proptest", "tempfile"];
    let known = |name: &str| {
        OF_TESTS.contains(&name)
            || HOMES
                .iter()
                .any(|(home, _)| *home == name.replace('-', "_"))
    };
    check(
        dependencies()
            .into_iter()
            .filter(|(name, _)| !known(name))
            .map(|(name, _)| format!("Cargo.toml: {name} has no home in tests/tidy.rs"))
            .collect(),
    );
}

#[test]
fn there_are_few_packages() {
    let count = read(&root().join("Cargo.lock"))
        .matches("[[package]]")
        .count();
    assert!(count <= MOST_PACKAGES, "{count} packages in Cargo.lock");
}

/// Whether a line of code has this word.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|part| part == word)
}

#[test]
fn unsafe_code_is_in_sys_only_and_says_why_it_is_sound() {
    /// How far above the reason may begin.
    const REACH: usize = 8;
    let mut found = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code() {
            let text = line.replace("\"unsafe\"", "");
            if !has_word(&text, "unsafe") {
                continue;
            }
            let above = &lines[number.saturating_sub(REACH)..number];
            if source.room() != "sys" {
                found.push(format!(
                    "src/{}:{number}: unsafe code outside of sys",
                    source.name
                ));
            } else if !above
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
            {
                found.push(format!("src/{}:{number}: no SAFETY comment", source.name));
            }
        }
    }
    check(found);
    let manifest = read(&root().join("Cargo.toml"));
    assert!(
        manifest.contains("unsafe_code = \"deny\""),
        "unsafe code is to be denied"
    );
}

#[test]
fn nothing_is_left_to_be_done() {
    const LEFT: &[&str] = &[
        "todo!",
        "unimplemented!",
        "dbg!",
        "TODO",
        "FIXME",
        "XXX",
        "allow(dead_code)",
    ];
    let mut found = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let left = LEFT.iter().filter(|left| line.contains(**left));
            found.extend(left.map(|left| format!("src/{}:{}: {left}", source.name, index + 1)));
        }
    }
    check(found);
}

#[test]
fn no_file_is_long() {
    let length = |source: &Source| {
        source
            .code_without_tests()
            .filter(|(_, line)| !line.trim().is_empty())
            .count()
    };
    check(
        sources()
            .iter()
            .filter(|source| length(source) > MOST_LINES)
            .map(|source| format!("src/{}: {} lines of code", source.name, length(source)))
            .collect(),
    );
}

#[test]
fn each_module_says_what_it_owns() {
    check(
        sources()
            .iter()
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| format!("src/{} has no header", source.name))
            .collect(),
    );
}

#[test]
fn the_state_machine_is_pure() {
    const IMPURE: &[&str] = &["fs", "io", "net", "os", "process", "sync", "thread"];
    let sources = sources();
    let machine = sources
        .iter()
        .filter(|source| source.is_in("supervise/machine"));
    let mut found = Vec::new();
    let mut count = 0;
    for source in machine {
        count += 1;
        let code: String = source
            .code_without_tests()
            .map(|(_, line)| line.trim())
            .collect();
        // A pid is a number; its type is where the kernel is.
        let code = code.replace("crate::sys::process::Pid;", "");
        let of_std = words_after(&code, "std::")
            .into_iter()
            .filter(|name| IMPURE.contains(&name.as_str()));
        let of_crate = words_after(&code, "crate::")
            .into_iter()
            .filter(|name| !["clock", "program", "supervise"].contains(&name.as_str()));
        let clocks = ["::now()", "Instant", "SystemTime"]
            .into_iter()
            .filter(|clock| code.contains(clock));
        found.extend(of_std.chain(of_crate).chain(clocks.map(str::to_owned)));
    }
    assert!(count > 0, "supervise/machine.rs is there");
    check(found);
}

#[test]
fn no_atomic_is_wider_than_small_machines_have() {
    let wide = |line: &str| has_word(line, "AtomicU64") || has_word(line, "AtomicI64");
    check(
        sources()
            .iter()
            .flat_map(|source| {
                let lines = source.code().filter(|(_, line)| wide(line));
                lines.map(|(number, _)| format!("src/{}:{number}: a 64-bit atomic", source.name))
            })
            .collect(),
    );
}
