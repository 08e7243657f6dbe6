//! Files that declare programs: found by the pattern of `[programs] include`, believed only if nobody else can write them,
//! each with one `[program]` of the API's fields.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::api::{self, Json};
use crate::clock::Timestamp;
use crate::program::{Declaration, Declarations};
use crate::sys;

use super::document::{self, line_of};
use super::{Config, kind};

impl Config {
    /// Reads all files that declare programs, in order of their paths. Where there are none, nothing is declared.
    pub fn declared(&self) -> Declarations {
        let mut reading = Reading::default();
        each_file(&self.include, true, &mut |found| match found {
            Ok(path) => reading.read(path),
            Err(mistake) => {
                reading.found.mistakes.push(mistake);
                reading.found.unreadable.any = true;
            }
        });
        reading.found
    }
}

/// The files whose paths fit a pattern, which is absolute, sorted.
///
/// # Errors
/// A directory cannot be read.
pub fn matching(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut mistake = None;
    each_file(pattern, false, &mut |found| match found {
        Ok(path) => files.push(path.to_owned()),
        Err(what) => mistake = Some(what),
    });
    mistake.map_or(Ok(files), Err)
}

/// What is found: a file, or what is wrong with a directory.
type Visit<'v> = &'v mut dyn FnMut(Result<&Path, String>);

/// Visits all files whose paths fit a pattern, in order. Where only `trusted` ones will do, their directory must be nobody
/// else's, too: who can write it chooses what is there.
fn each_file(pattern: &str, trusted: bool, visit: Visit) {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    expand(Path::new("/"), &parts, trusted, visit);
}

fn expand(base: &Path, parts: &[&str], trusted: bool, visit: Visit) {
    let Some((part, rest)) = parts.split_first() else {
        return;
    };
    let is_file = rest.is_empty();
    if !is_file && !part.contains(['*', '?']) {
        return expand(&base.join(part), rest, trusted, visit);
    }
    let names = match names_in(base, part, trusted && is_file) {
        Ok(names) => names,
        Err(what) => return visit(Err(format!("{}: {what}", base.display()))),
    };
    for name in names {
        let path = base.join(name);
        match is_file {
            true => visit(Ok(&path)),
            false => expand(&path, rest, trusted, visit),
        }
    }
}

#[derive(Default)]
struct Reading {
    found: Declarations,
    /// Which file declares a name.
    names: HashMap<String, Arc<str>>,
}

impl Reading {
    fn read(&mut self, path: &Path) {
        let file: Arc<str> = path.to_string_lossy().into();
        let mistakes = match read(path, &file) {
            Ok(None) => return,
            Ok(Some(declaration)) => {
                let name = &declaration.definition.name;
                match self.names.get(name) {
                    None => {
                        self.names.insert(name.clone(), file);
                        return self.found.programs.push(declaration);
                    }
                    Some(other) => {
                        let what = format!(
                            "{name:?} is the name of the program in {other}, too: choose another"
                        );
                        vec![declaration.mistake("name", &what)]
                    }
                }
            }
            Err(mistakes) => mistakes,
        };
        self.found.mistakes.extend(mistakes);
        self.found.unreadable.files.push(file);
    }
}

/// The names in a directory that fit a pattern, sorted; none where there is no directory.
///
/// # Errors
/// It cannot be read or, where that is asked for, is not `trusted`.
fn names_in(dir: &Path, pattern: &str, trusted: bool) -> Result<Vec<std::ffi::OsString>, String> {
    let unreadable = |error: &io::Error| format!("cannot be read: {}", sys::reason(error));
    let gone = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if gone(&error) => return Ok(Vec::new()),
        entries => entries.map_err(|error| unreadable(&error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(&error))?.file_name();
        if fits(pattern.as_bytes(), name.as_encoded_bytes()) {
            names.push(name);
        }
    }
    if trusted && !names.is_empty() {
        let metadata = std::fs::metadata(dir).map_err(|error| unreadable(&error))?;
        check_owner(&metadata)?;
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a file's name fits a pattern of `*`, `?` and letters. A dot at the beginning must be there in both.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    fn rest(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', after)), _) => {
                (0..=name.len()).any(|skipped| rest(after, &name[skipped..]))
            }
            (Some((b'?', after)), Some((_, left))) => rest(after, left),
            (Some((wanted, after)), Some((letter, left))) => wanted == letter && rest(after, left),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
    name.starts_with(b".") == pattern.starts_with(b".") && rest(pattern, name)
}

/// Checks that nobody but root and the daemon's user can write it: it may say that a program runs as root.
fn check_owner(metadata: &Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(format!(
            "is owned by user {}: it must be root's, or that of the user that hxe runs as",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("can be written by group or others: chmod go-w it".to_owned());
    }
    Ok(())
}

/// Reads a file; `None` if it is gone by now.
///
/// # Errors
/// What is wrong, each as `FILE:LINE: [program] field: issue`.
fn read(path: &Path, file: &Arc<str>) -> Result<Option<Declaration>, Vec<String>> {
    let text = match document::read_if_there(path) {
        Ok(None) => return Ok(None),
        Ok(Some(text)) => text,
        Err(error) => return Err(error.lines()),
    };
    check_owner(&text.metadata).map_err(|what| vec![format!("{file}: {what}")])?;
    let modified = text.metadata.mtime().saturating_mul(1_000_000);
    parse(&text.content, file, Timestamp::from_micros(modified)).map(Some)
}

fn parse(text: &str, file: &Arc<str>, modified: Timestamp) -> Result<Declaration, Vec<String>> {
    let line_at = |at: usize| line_of(text.as_bytes(), at);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<String> = document::syntax(text, &errors)
        .into_iter()
        .map(|(line, label, what)| format!("{file}:{line}: {label}: {what}"))
        .collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut program = None;
    for (name, value) in table.get_ref().iter() {
        let line = line_at(name.span().start);
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("program", DeValue::Table(fields)) => program = Some(fields),
            ("program", _) => mistakes.push(format!(
                "{file}:{line}: [program]: must be one section: each program has a file of its own"
            )),
            (other, _) => mistakes.push(format!(
                "{file}:{line}: {}: does not belong here: there is only [program], with its fields below",
                kind::show(other)
            )),
        }
    }
    let Some(program) = program.filter(|_| mistakes.is_empty()) else {
        if mistakes.is_empty() {
            mistakes.push(format!(
                "{file}:1: [program]: is missing: write it, and the program's fields below"
            ));
        }
        return Err(mistakes);
    };
    let mut lines = Vec::new();
    let mut pairs = Vec::new();
    for (name, value) in program.iter() {
        let field = name.get_ref().to_string();
        lines.push((field.clone(), line_at(name.span().start)));
        pairs.push((field, json(value.get_ref())));
    }
    let mut declaration = Declaration {
        definition: crate::program::Definition::new("", ""),
        file: Arc::clone(file),
        modified,
        lines,
    };
    declaration.definition =
        api::declared(pairs).map_err(|(field, issue)| vec![declaration.mistake(&field, &issue)])?;
    Ok(declaration)
}

/// The value as the API would have it.
fn json(value: &DeValue) -> Json {
    match value {
        DeValue::String(text) => Json::String(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Json::Number, Json::Integer)
        }
        DeValue::Float(_) | DeValue::Datetime(_) => Json::Number,
        DeValue::Boolean(flag) => Json::Bool(*flag),
        DeValue::Array(items) => {
            Json::Array(items.iter().map(|item| json(item.get_ref())).collect())
        }
        DeValue::Table(pairs) => Json::Object(
            pairs
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref())))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        let file: Arc<str> = "a.toml".into();
        let parsed = parse(text, &file, Timestamp::default());
        parsed.map(drop).unwrap_err().join("\n")
    }

    #[test]
    fn patterns_fit_names() {
        for (pattern, name) in [
            ("*.toml", "a.toml"),
            ("*.toml", "a.b.toml"),
            ("*", "a"),
            ("a?c", "abc"),
            ("a*b*c", "aXbYbc"),
            ("", ""),
            (".*", ".a"),
        ] {
            assert!(
                fits(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
        for (pattern, name) in [
            ("*.toml", "a.toml~"),
            ("*.toml", ".toml"),
            ("*.toml", ".a.toml"),
            ("a?c", "ac"),
            ("a", "ab"),
            ("ab", "a"),
            ("[a]", "a"),
        ] {
            assert!(
                !fits(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_file_says_what_a_body_says() {
        let text = "# a comment\n[program]\nname = \"web\"\ncommand = '/bin/a'\numask = \"027\"\nmax_restarts = -1\n\
                    enabled = true\nsuccess_exit_codes = [0, 3]\n\n[program.environment]\nA = \"1\"\n";
        let file: Arc<str> = "/x/a.toml".into();
        let found = parse(text, &file, Timestamp::from_micros(5)).unwrap();
        let definition = &found.definition;
        assert_eq!(definition.name, "web");
        assert_eq!(definition.umask, 0o027);
        assert!(definition.enabled);
        assert_eq!(definition.success_exit_codes, [0, 3]);
        assert_eq!(definition.environment["A"], "1");
        assert_eq!(found.modified, Timestamp::from_micros(5));
        assert_eq!(
            found.mistake("umask", "x"),
            "/x/a.toml:5: [program] umask: x"
        );
        assert_eq!(found.mistake("user", "x"), "/x/a.toml:3: [program] user: x");
    }

    #[test]
    fn the_example_file_is_one_with_and_without_its_signs() {
        let text = include_str!("../../conf/programs.d/example.toml");
        let file: Arc<str> = "example.toml".into();
        let plain = parse(text, &file, Timestamp::default()).unwrap();
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(field) if !field.is_empty() && !field.starts_with(' ') => {
                    field.to_owned() + "\n"
                }
                _ => line.to_owned() + "\n",
            })
            .collect();
        let set = parse(&uncommented, &file, Timestamp::default()).unwrap();
        let names: Vec<&str> = set.lines.iter().map(|(name, _)| name.as_str()).collect();
        for field in api::FILE_FIELDS {
            assert!(names.contains(field), "{field}");
        }
        // What has a fixed default is there with it.
        let mut expected = plain.definition;
        assert_eq!(expected.umask, set.definition.umask);
        expected.name.clone_from(&set.definition.name);
        assert_eq!(expected.auto_restart, set.definition.auto_restart);
        assert_eq!(expected.restart_policy, set.definition.restart_policy);
        assert_eq!(
            expected.success_exit_codes,
            set.definition.success_exit_codes
        );
        assert_eq!(expected.stop_signal, set.definition.stop_signal);
    }

    #[test]
    fn each_mistake_names_file_line_and_field() {
        for (text, expected) in [
            ("", "a.toml:1: [program]: is missing"),
            (
                "[program]\nname = \"a\"\n",
                "a.toml:2: [program] command: Command is required",
            ),
            (
                "[program]\ncommand = \"a\"\n",
                "a.toml:1: [program] name: Name is required",
            ),
            (
                "[program]\nname = \"a\"\ncommand = \"b\"\nuser = 1\n",
                "a.toml:4: [program] user: Must be a string, not a number",
            ),
            (
                "[program]\nname = \"a\"\ncomand = \"b\"\n",
                "a.toml:3: [program] comand: Unknown field",
            ),
            (
                "[program]\nname = \"a\"\ncommand = \"b\"\nid = \"program-1\"\n",
                "a.toml:4: [program] id: Unknown field",
            ),
            (
                "[program]\nname = \"a\"\ncommand = \"b\"\n[program.environment]\nHXE_X = \"1\"\n",
                "a.toml:4: [program] environment: HXE_X cannot be set",
            ),
            (
                "[programs]\nuser = \"a\"\n",
                "a.toml:1: \"programs\": does not belong here",
            ),
            (
                "[[program]]\nname = \"a\"\n",
                "a.toml:1: [program]: must be one section",
            ),
            (
                "[program]\nname = a\n",
                "a.toml:2: [program] name: text must be in quotes",
            ),
            (
                "[program]\nname = \"a\"\nname = \"b\"\n",
                "a.toml:3: [program] name: is set twice",
            ),
            ("[program\n", "a.toml:1: "),
        ] {
            let found = mistakes(text);
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
    }
}
