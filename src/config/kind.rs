//! [`Kind`]: how the value of a key is read, checked and put into the [`Config`].

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::clock::{format_duration, parse_duration};

use super::{Config, size};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// From the environment, where everything is text.
    Word(String),
    Text(String),
    /// One that does not fit is at the nearest end: out of every range.
    Integer(i128),
    List(Vec<Raw>),
    Flag(bool),
    /// Of no use to any key; named for the message.
    Other(&'static str),
}

impl Raw {
    pub(super) fn of(value: &DeValue) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                let parsed = i128::from_str_radix(number.as_str(), number.radix());
                let negative = number.as_str().starts_with('-');
                Raw::Integer(parsed.unwrap_or(if negative { i128::MIN } else { i128::MAX }))
            }
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| Raw::of(item.get_ref())).collect())
            }
            DeValue::Float(_) => Raw::Other("a number with a fraction"),
            DeValue::Boolean(flag) => Raw::Flag(*flag),
            DeValue::Datetime(_) => Raw::Other("a date or time"),
            DeValue::Table(_) => Raw::Other("a table"),
        }
    }

    /// What it is, without showing it: it may be a secret.
    fn type_name(&self) -> &'static str {
        match self {
            Raw::Word(_) | Raw::Text(_) => "text",
            Raw::Integer(_) => "a number",
            Raw::List(_) => "a list",
            Raw::Flag(_) => "true or false",
            Raw::Other(name) => name,
        }
    }
}

/// How the value of a key is read, what it may be, and where it goes.
pub(super) enum Kind {
    Integer {
        range: RangeInclusive<i64>,
        put: fn(&mut Config, i64),
    },
    /// In bytes.
    Size {
        range: RangeInclusive<u64>,
        put: fn(&mut Config, u64),
    },
    Duration {
        range: RangeInclusive<Duration>,
        put: fn(&mut Config, Duration),
    },
    Text {
        /// What it may be, as in "it must be ...".
        allowed: &'static str,
        put: fn(&mut Config, &str) -> Result<(), String>,
    },
    /// One text, or several.
    List {
        allowed: &'static str,
        put: fn(&mut Config, &[String]) -> Result<(), String>,
    },
    Flag {
        put: fn(&mut Config, bool),
    },
}

impl Kind {
    /// What a value may be, as in "it must be ...".
    pub(super) fn allowed(&self) -> String {
        match self {
            Kind::Integer { range, .. } => {
                format!("a number from {} to {}", range.start(), range.end())
            }
            Kind::Size { range, .. } => format!(
                "a size from {} to {}, such as 4096 or \"64KiB\"",
                size::format(*range.start()),
                size::format(*range.end())
            ),
            Kind::Duration { range, .. } => format!(
                "a duration from {} to {}, such as \"10s\" or \"5m\"",
                format_duration(*range.start()),
                format_duration(*range.end())
            ),
            Kind::Text { allowed, .. } | Kind::List { allowed, .. } => (*allowed).to_owned(),
            Kind::Flag { .. } => "true or false".to_owned(),
        }
    }

    /// Checks a value and puts it into `config`.
    ///
    /// # Errors
    /// What is wrong, and what is allowed. Nothing is put then.
    pub(super) fn set(&self, config: &mut Config, raw: &Raw) -> Result<(), String> {
        let refused = |what: String| format!("{what}: it must be {}", self.allowed());
        let misplaced = |type_name| refused(format!("{type_name} does not belong here"));
        let wrong_type = || misplaced(raw.type_name());
        match self {
            Kind::Integer { range, put } => {
                let number = match raw {
                    Raw::Integer(number) => *number,
                    Raw::Word(text) => match text.trim().parse() {
                        Ok(number) => number,
                        Err(_) => return Err(refused(format!("{} is not a number", show(text)))),
                    },
                    _ => return Err(wrong_type()),
                };
                match i64::try_from(number) {
                    Ok(number) if range.contains(&number) => put(config, number),
                    _ => return Err(refused(out_of_range(number))),
                }
            }
            Kind::Size { range, put } => {
                let bytes = match raw {
                    Raw::Integer(number) => {
                        u64::try_from(*number).map_err(|_| refused(out_of_range(*number)))?
                    }
                    Raw::Text(text) | Raw::Word(text) => size::parse(text)
                        .ok_or_else(|| refused(format!("{} is not a size", show(text))))?,
                    _ => return Err(wrong_type()),
                };
                if !range.contains(&bytes) {
                    return Err(refused(format!("{} is out of range", size::format(bytes))));
                }
                put(config, bytes);
            }
            Kind::Duration { range, put } => {
                let span = match raw {
                    Raw::Text(text) | Raw::Word(text) => parse_duration(text)
                        .map_err(|_| refused(format!("{} is not a duration", show(text))))?,
                    Raw::Integer(_) => return Err(refused("the unit is missing".to_owned())),
                    _ => return Err(wrong_type()),
                };
                if !range.contains(&span) {
                    return Err(refused(format!(
                        "{} is out of range",
                        format_duration(span)
                    )));
                }
                put(config, span);
            }
            Kind::Text { put, .. } => match raw {
                Raw::Text(text) | Raw::Word(text) => put(config, text)?,
                _ => return Err(wrong_type()),
            },
            Kind::List { put, .. } => put(config, &texts(raw).map_err(misplaced)?)?,
            Kind::Flag { put } => match raw {
                Raw::Flag(flag) => put(config, *flag),
                Raw::Word(text) => match text.trim().parse() {
                    Ok(flag) => put(config, flag),
                    Err(_) => return Err(refused(show(text))),
                },
                _ => return Err(wrong_type()),
            },
        }
        Ok(())
    }
}

/// The texts of a list; one text alone is a list, too. A variable holds them separated by commas, or a list as in TOML.
///
/// # Errors
/// The type of what is no text.
fn texts(raw: &Raw) -> Result<Vec<String>, &'static str> {
    match raw {
        Raw::Text(text) => Ok(vec![text.clone()]),
        Raw::List(items) => items
            .iter()
            .map(|item| match item {
                Raw::Text(text) => Ok(text.clone()),
                other => Err(other.type_name()),
            })
            .collect(),
        Raw::Word(word) => {
            let word = word.trim();
            // Not every word in brackets is a list: an IPv6 address has them, too.
            match DeValue::parse(word).map(Spanned::into_inner) {
                Ok(list @ DeValue::Array(_)) if word.starts_with('[') => texts(&Raw::of(&list)),
                _ if word.is_empty() => Ok(Vec::new()),
                _ => Ok(word.split(',').map(|item| item.trim().to_owned()).collect()),
            }
        }
        Raw::Integer(_) | Raw::Flag(_) | Raw::Other(_) => Err(raw.type_name()),
    }
}

fn out_of_range(number: i128) -> String {
    match number {
        i128::MAX => "this number is out of range".to_owned(),
        number => format!("{number} is out of range"),
    }
}

/// A text in quotes for a message: control characters escaped, and cut off where it is long.
pub(super) fn show(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
