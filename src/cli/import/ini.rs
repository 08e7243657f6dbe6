//! supervisord's configuration as text: sections, keys with their lines, and `%(name)s` in values.
//!
//! Source: Python's configparser, as supervisor/options.py sets it up: comments begin with `;` or `#`, alone or behind a
//! blank; indented lines go on; what is there twice is one, and the last value holds.

use std::rc::Rc;

/// A section: all that stands under its name, in whichever files.
pub struct Section {
    pub name: String,
    pub place: Place,
    pub entries: Vec<Entry>,
}

pub struct Entry {
    /// In lower case.
    pub key: String,
    pub value: String,
    pub place: Place,
}

/// A line, from 1, of a file.
#[derive(Clone)]
pub struct Place {
    pub file: Rc<str>,
    pub line: usize,
}

impl Section {
    /// The entry of this key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Adds what a text says to `sections`. Returns the lines that cannot be understood.
pub fn parse(text: &str, file: &Rc<str>, sections: &mut Vec<Section>) -> Vec<Place> {
    let mut odd = Vec::new();
    // The section and the entry that an indented line goes on with, and how far that is indented.
    let mut section: Option<usize> = None;
    let mut open: Option<(usize, usize)> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let place = Place {
            file: Rc::clone(file),
            line: index + 1,
        };
        let indent = line.len() - line.trim_start().len();
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        if let (Some(at), Some((entry, first))) = (section, open)
            && indent > first
        {
            let value = &mut sections[at].entries[entry].value;
            value.push('\n');
            value.push_str(line);
            continue;
        }
        open = None;
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let name = name.0.trim();
            let known = sections.iter().position(|section| section.name == name);
            section = Some(known.unwrap_or_else(|| {
                sections.push(Section {
                    name: name.to_owned(),
                    place,
                    entries: Vec::new(),
                });
                sections.len() - 1
            }));
            continue;
        }
        // A name that is not closed: what follows is not the section's before.
        if line.starts_with('[') {
            section = None;
        }
        let (Some(at), Some((key, value))) = (section, line.split_once(['=', ':'])) else {
            odd.push(place);
            continue;
        };
        let entry = Entry {
            key: key.trim().to_lowercase(),
            value: value.trim().to_owned(),
            place,
        };
        let entries = &mut sections[at].entries;
        entries.retain(|earlier| earlier.key != entry.key);
        entries.push(entry);
        open = Some((entries.len() - 1, indent));
    }
    odd
}

/// A line up to a `;` or `#` at its beginning or behind a blank.
fn without_comment(line: &str) -> &str {
    let mut blank = true;
    for (at, letter) in line.char_indices() {
        if blank && matches!(letter, ';' | '#') {
            return &line[..at];
        }
        blank = letter.is_whitespace();
    }
    line
}

/// Puts in what `%(name)s` and, for numbers, `%(name)02d` stand for.
///
/// # Errors
/// What is wrong.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            expanded.push('%');
            rest = after;
            continue;
        }
        let parts = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        let (name, after) = parts.ok_or("a % that stands for itself must be written %%")?;
        let value =
            lookup(name).ok_or_else(|| format!("%({name})s stands for nothing that is known"))?;
        let letter = after.find(|letter: char| !letter.is_ascii_digit());
        let (width, after) = after.split_at(letter.unwrap_or(after.len()));
        let Some(after) = after.strip_prefix(['s', 'd']) else {
            return Err(format!("behind %({name}) there must be an s or a d"));
        };
        let fill = if width.starts_with('0') { "0" } else { " " };
        let wanted = width.parse::<usize>().unwrap_or(0).min(64);
        expanded.push_str(&fill.repeat(wanted.saturating_sub(value.chars().count())));
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `A="1",B='x y',C=z`: names and values.
///
/// # Errors
/// What cannot be understood.
pub fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let odd = || format!("{rest:?} is not of the form NAME=\"value\"");
        let (name, after) = rest.split_once('=').ok_or_else(odd)?;
        let after = after.trim_start();
        let quote = after
            .chars()
            .next()
            .filter(|first| matches!(first, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => after[1..].split_once(quote).ok_or_else(odd)?,
            None => after.split_at(after.find([',', '\n']).unwrap_or(after.len())),
        };
        variables.push((
            name.trim().to_owned(),
            value.trim_end_matches('\n').to_owned(),
        ));
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err(odd()),
        };
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_comments_and_continued_lines_are_read_as_python_reads_them() {
        let text = "\u{feff}; a comment\n[program:a]  ; another\r\ncommand=/bin/a ; b ;c\n\n# x\nenvironment =\n  A=\"1\",\n\
                    ; not a part\n  B=\"x;y\"\nURL: http://a#b\n[x]\nodd\n[program:a]\nCommand = c\n";
        let file: Rc<str> = "f".into();
        let mut sections = Vec::new();
        let odd = parse(text, &file, &mut sections);
        assert_eq!(odd.iter().map(|place| place.line).collect::<Vec<_>>(), [12]);
        let names: Vec<&str> = sections
            .iter()
            .map(|section| section.name.as_str())
            .collect();
        assert_eq!(names, ["program:a", "x"]);
        let value = |key| sections[0].entry(key).map(|entry| entry.value.as_str());
        assert_eq!(value("command"), Some("c"));
        assert_eq!(value("environment"), Some("\nA=\"1\",\nB=\"x;y\""));
        assert_eq!(value("url"), Some("http://a#b"));
        assert_eq!(
            sections[0].entry("command").map(|entry| entry.place.line),
            Some(14)
        );
    }

    #[test]
    fn what_stands_for_something_is_put_in() {
        let lookup = |name: &str| match name {
            "n" => Some("7".to_owned()),
            "here" => Some("/etc".to_owned()),
            _ => None,
        };
        let expand = |text| expand(text, &lookup);
        assert_eq!(
            expand("%(here)s/a_%(n)02d %(n)d%%").as_deref(),
            Ok("/etc/a_07 7%")
        );
        for wrong in ["%", "%Y", "%(here", "%(nothing)s", "%(n)", "%(n)x"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_are_read_with_and_without_quotes() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            variables("A=\"1,2\", B='x \"y\"',\nC=/a/b,D=\"\",").unwrap(),
            [
                pair("A", "1,2"),
                pair("B", "x \"y\""),
                pair("C", "/a/b"),
                pair("D", "")
            ]
        );
        assert_eq!(variables(" \n").unwrap(), []);
        for wrong in ["A", "A=\"1", "A=\"1\"B=\"2\""] {
            assert!(variables(wrong).is_err(), "{wrong}");
        }
    }
}
