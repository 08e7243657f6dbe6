//! What can be wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In order of lines, those without one last; never empty. Shown one a line.
    #[error("{}", join(.0))]
    Mistakes(Vec<Mistake>),
    #[error("{}: line {line} is not valid UTF-8", path.display())]
    NotUtf8 { path: PathBuf, line: usize },
    /// A directory, a device or a pipe, which could not be read again at a reload.
    #[error("{}: is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{}: is larger than 64KiB, which no configuration is", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

impl Error {
    /// What to tell a person: one mistake a line, with its cause.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Error::Mistakes(mistakes) => mistakes.iter().map(Mistake::to_string).collect(),
            Error::Unreadable { source, .. } => {
                vec![format!("{self}: {}", sys::reason(source))]
            }
            Error::NotUtf8 { .. } | Error::NotAFile { .. } | Error::TooLarge { .. } => {
                vec![self.to_string()]
            }
        }
    }
}

fn join(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    lines.join("\n")
}

/// One mistake, shown as `FILE:LINE: [section] key: what is wrong, what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// In the file, from 1.
    pub(super) line: Option<usize>,
    text: String,
}

impl Mistake {
    /// `label` is `[section] key`, or the name of the variable.
    pub(super) fn new(origin: &Origin, file: Option<&Path>, label: &str, what: &str) -> Mistake {
        match (origin, file) {
            (Origin::File { line }, Some(file)) => Mistake {
                line: Some(*line),
                text: format!("{}:{line}: {label}: {what}", file.display()),
            },
            _ => Mistake {
                line: None,
                text: format!("{label}: {what}"),
            },
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Who set a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    /// Lines count from 1.
    File {
        line: usize,
    },
    Variable,
}
