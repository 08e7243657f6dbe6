//! The file: bounded reading, TOML with lines, syntax mistakes in words of our own.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use toml::de::{DeTable, DeValue};

use super::error::Error;
use super::keys::{self, KEYS};
use super::kind::{Raw, show};

/// No configuration is larger; what is, is another file.
const LARGEST: u64 = 64 << 10;

/// A file that was read.
pub(super) struct Text {
    pub(super) content: String,
    pub(super) metadata: Metadata,
}

impl Text {
    /// What an administrator should know of the file's mode.
    pub(super) fn warnings(&self, path: &Path, holds_password: bool) -> Vec<String> {
        let mode = self.metadata.permissions().mode();
        let mut warnings = Vec::new();
        if mode & 0o002 != 0 {
            warnings.push(format!(
                "{}: any user can change this file: chmod o-w it",
                path.display()
            ));
        }
        if holds_password && mode & 0o004 != 0 {
            warnings.push(format!(
                "{}: holds a password, and any user can read it: chmod o-r it",
                path.display()
            ));
        }
        warnings
    }
}

/// Reads a file that must be there.
///
/// # Errors
/// It is missing, no regular file, too large, or not UTF-8.
pub(super) fn read(path: &Path) -> Result<Text, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    // Opening a FIFO would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    let file = file.map_err(|error| unreadable(error.into()))?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(LARGEST) as usize + 1);
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
    if read.map_err(unreadable)? as u64 > LARGEST {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    match String::from_utf8(bytes) {
        Ok(content) => Ok(Text { content, metadata }),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            Err(Error::NotUtf8 {
                path: path.to_owned(),
                line: line_of(error.as_bytes(), good),
            })
        }
    }
}

/// Reads a file that may be missing.
///
/// # Errors
/// As [`read`].
pub(super) fn read_if_there(path: &Path) -> Result<Option<Text>, Error> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Unreadable { source, .. })
            if matches!(source.kind(), NotFound | NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// A place in the table of keys, the line, the value.
    pub(super) values: Vec<(usize, usize, Raw)>,
    /// The line, `[section] key`, what is wrong; in order of lines.
    pub(super) mistakes: Vec<(usize, String, String)>,
}

/// Takes a file apart. Where it is no TOML at some place, what can still be understood is checked all the same.
pub(super) fn parse(text: &str) -> Document {
    let (table, errors) = DeTable::parse_recoverable(text);
    let syntax = syntax_mistakes(text, &errors);
    let mut document = Document::default();
    if syntax.iter().all(|error| !error.breaks) {
        take_sections(text, table.get_ref(), &mut document);
        let good = |line: usize| syntax.iter().all(|error| error.line != line);
        document.values.retain(|(_, line, _)| good(*line));
        document.mistakes.retain(|(line, ..)| good(*line));
    }
    let syntax = syntax
        .into_iter()
        .map(|error| (error.line, error.label, error.what));
    document.mistakes.extend(syntax);
    document.mistakes.sort_by_key(|(line, ..)| *line);
    document
}

/// Where a text is no TOML: the line, the key, what is wrong; in order of lines.
pub(super) fn syntax(text: &str, errors: &[toml::de::Error]) -> Vec<(usize, String, String)> {
    syntax_mistakes(text, errors)
        .into_iter()
        .map(|error| (error.line, error.label, error.what))
        .collect()
}

fn syntax_mistakes(text: &str, errors: &[toml::de::Error]) -> Vec<Syntax> {
    let mut syntax: Vec<Syntax> = errors.iter().map(|error| Syntax::of(text, error)).collect();
    syntax.sort_by_key(|error| (error.line, !error.breaks));
    syntax.dedup_by_key(|error| error.line);
    // Behind a lost bracket nothing means what it seems to.
    if let Some(index) = syntax.iter().position(|error| error.breaks) {
        syntax.truncate(index + 1);
    }
    syntax
}

fn take_sections(text: &str, table: &DeTable, document: &mut Document) {
    for (name, value) in table.iter() {
        let line = line_of(text.as_bytes(), name.span().start);
        let name = name.get_ref().as_ref();
        if !keys::sections().any(|section| section == name) {
            let label = match value.get_ref() {
                DeValue::Table(_) => format!("[{}]", plain(name)),
                _ => plain(name),
            };
            document
                .mistakes
                .push((line, label, keys::unknown_section(name)));
            continue;
        }
        let DeValue::Table(section) = value.get_ref() else {
            let what = format!("must be a section: write [{name}], and its keys below");
            document.mistakes.push((line, format!("[{name}]"), what));
            continue;
        };
        take_keys(text, name, section, document);
    }
}

fn take_keys(text: &str, section: &str, table: &DeTable, document: &mut Document) {
    for (name, value) in table.iter() {
        let line = line_of(text.as_bytes(), name.span().start);
        let name = name.get_ref().as_ref();
        let known = KEYS
            .iter()
            .position(|key| key.section == section && key.name == name);
        match known {
            Some(index) => document
                .values
                .push((index, line, Raw::of(value.get_ref()))),
            None => document.mistakes.push((
                line,
                format!("[{section}] {}", plain(name)),
                keys::unknown_key(section, name),
            )),
        }
    }
}

/// A place where the file is no TOML.
struct Syntax {
    line: usize,
    label: String,
    what: String,
    /// What follows cannot be understood, either.
    breaks: bool,
}

impl Syntax {
    fn of(text: &str, error: &toml::de::Error) -> Syntax {
        let span = error.span().unwrap_or(0..0);
        let line = line_of(text.as_bytes(), span.start);
        let header = is_header(text, &span);
        let (what, breaks) = match error.message() {
            "duplicate key" if header => (
                "this section is there already: put its keys there".to_owned(),
                false,
            ),
            "duplicate key" => ("is set twice: remove one of the two".to_owned(), false),
            // The parser guesses what a bare word was meant to be by its first letter.
            message
                if message.starts_with("string values must be quoted")
                    || message.starts_with("invalid boolean")
                    || message.starts_with("invalid float") =>
            {
                ("text must be in quotes, as in \"text\"".to_owned(), false)
            }
            message => (format!("is not valid TOML: {message}"), true),
        };
        Syntax {
            line,
            label: label(text, span.start, header),
            what,
            breaks,
        }
    }
}

/// Whether the span is the name in a `[name]`.
fn is_header(text: &str, span: &Range<usize>) -> bool {
    text.get(..span.start)
        .is_some_and(|before| before.trim_end_matches([' ', '\t']).ends_with('['))
}

/// `[section] key` for a place in the file, as far as its line and the nearest header above tell.
fn label(text: &str, at: usize, header: bool) -> String {
    let start = text
        .get(..at)
        .map_or(0, |before| before.rfind('\n').map_or(0, |n| n + 1));
    let line = text[start..].lines().next().unwrap_or_default().trim();
    let section = text[..start]
        .lines()
        .rev()
        .find_map(|line| {
            let name = line.trim().strip_prefix('[')?.split(']').next()?.trim();
            // A file that declares a program has this one.
            let mut known = keys::sections().chain(["program"]);
            known.find(|section| *section == name)
        })
        .map(|section| format!("[{section}]"));
    if header || line.starts_with('[') {
        return show_line(line);
    }
    let key = line.split(['=', ' ', '\t']).next().unwrap_or_default();
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    // A line that sets nothing may be the rest of a text, which is nobody's business.
    let sets = line[key.len()..].trim_start().starts_with('=');
    let named = sets || KEYS.iter().any(|known| known.name == key);
    let key = Some(key).filter(|key| named && !key.is_empty() && key.chars().all(bare));
    match (section, key) {
        (Some(section), Some(key)) => format!("{section} {}", plain(key)),
        (Some(section), None) => section,
        (None, Some(key)) => plain(key),
        (None, None) => "syntax".to_owned(),
    }
}

/// A header line without its comment.
fn show_line(line: &str) -> String {
    plain(line.split('#').next().unwrap_or_default().trim_end())
}

/// A name for a message: quoted only if it must be.
fn plain(name: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "_-.[]".contains(c);
    if !name.is_empty() && name.len() <= 60 && name.chars().all(simple) {
        name.to_owned()
    } else {
        show(name)
    }
}

/// The line, from 1, of a place in the file.
pub(super) fn line_of(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
