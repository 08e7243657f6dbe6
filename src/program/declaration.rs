//! [`Declaration`]: a definition that a file holds, and [`Declarations`]: what all files hold.

use std::sync::Arc;

use super::Definition;
use crate::clock::Timestamp;

/// A program as a file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub definition: Definition,
    pub file: Arc<str>,
    /// When the file was last changed.
    pub modified: Timestamp,
    /// The line, from 1, of each field that the file sets.
    pub lines: Vec<(String, usize)>,
}

impl Declaration {
    /// `FILE:LINE: [program] field: what is wrong`, the line of the name where the field is left out.
    pub fn mistake(&self, field: &str, what: &str) -> String {
        let line = |field: &str| {
            let found = self.lines.iter().find(|(name, _)| name == field);
            found.map(|(_, line)| *line)
        };
        let line = line(field).or_else(|| line("name")).unwrap_or(1);
        format!("{}:{line}: [program] {field}: {what}", self.file)
    }
}

/// What all files declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    /// In order of files; no two of the same name.
    pub programs: Vec<Declaration>,
    /// What is wrong, as [`Declaration::mistake`] has it; what is said here of a file is all that is known of it.
    pub mistakes: Vec<String>,
    pub unreadable: Unreadable,
}

/// Files of which it is not known what they declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    pub files: Vec<Arc<str>>,
    /// A directory cannot be read, so it may be any file.
    pub any: bool,
}

impl Unreadable {
    /// Whether this file is one of them.
    pub fn covers(&self, file: &Arc<str>) -> bool {
        self.any || self.files.contains(file)
    }
}
