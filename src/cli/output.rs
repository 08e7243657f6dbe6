//! What commands print: tables that fit the terminal, tab-separated values, JSON as the daemon gave it.
//!
//! Nothing that a program or its definition says reaches a terminal as a control character.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use rustix::termios::tcgetwinsize;

use super::args::Args;
use super::failure::Failure;
use super::say;
use super::table::{Opt, Value, opt};
use super::text::{clean, cut, width};

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("format", None, Value::Choice(FORMATS), "how to print it: a table to read, or JSON or tab-separated values for scripts; default: HXE_FORMAT, or a table"),
    opt("no-color", None, Value::No, "no colours; they are used on a terminal only, and not where NO_COLOR or HXE_NO_COLOR is set"),
];

const FORMATS: &[&str] = &["table", "json", "tsv"];

/// Blanks between columns.
const GAP: usize = 2;
/// A column that is made narrower to fit the terminal keeps so much.
const NARROWEST: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Tsv,
}

/// How to print.
#[derive(Clone, Copy)]
pub struct Output {
    pub format: Format,
    pub color: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
}

/// A column of a table.
pub struct Column {
    pub title: &'static str,
    /// It may be made narrower.
    pub gives_way: bool,
    pub numbers: bool,
}

/// A column whose values are short words.
pub const fn column(title: &'static str) -> Column {
    Column {
        title,
        gives_way: false,
        numbers: false,
    }
}

/// A column that gives way to others on a narrow terminal.
pub const fn wide(title: &'static str) -> Column {
    Column {
        gives_way: true,
        ..column(title)
    }
}

/// A column of numbers.
pub const fn number(title: &'static str) -> Column {
    Column {
        numbers: true,
        ..column(title)
    }
}

impl Output {
    /// As options and environment have it.
    ///
    /// # Errors
    /// HXE_FORMAT is no format.
    pub fn of(args: &Args) -> Result<Output, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let format = match args.value("format") {
            Some(format) => Some(format.to_owned()),
            None => variable("HXE_FORMAT"),
        };
        let format = match format.as_deref() {
            None | Some("table") => Format::Table,
            Some("json") => Format::Json,
            Some("tsv") => Format::Tsv,
            Some(other) => {
                let what = format_args!("HXE_FORMAT must be table, json or tsv, not {other:?}");
                return Err(Failure::usage(what));
            }
        };
        let terminal = io::stdout().is_terminal();
        let color = terminal
            && !args.is_on("no-color")
            && variable("NO_COLOR").is_none()
            && variable("HXE_NO_COLOR").is_none()
            && variable("TERM").is_none_or(|term| term != "dumb");
        Ok(Output {
            format,
            color,
            terminal,
        })
    }

    /// Prints rows, as a table or tab-separated; `json` is what is printed as JSON.
    pub fn rows(
        &self,
        columns: &[Column],
        rows: &[Vec<String>],
        json: &str,
    ) -> Result<ExitCode, Failure> {
        say(&match self.format {
            Format::Json => line(json),
            Format::Tsv => rows.iter().map(|row| tsv(row)).collect(),
            Format::Table => self.table(columns, rows),
        })
    }

    /// Prints names and values of one thing; `json` as for [`Output::rows`].
    pub fn fields(&self, fields: &[(&str, String)], json: &str) -> Result<ExitCode, Failure> {
        let longest = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        say(&match self.format {
            Format::Json => line(json),
            Format::Tsv => fields
                .iter()
                .map(|(name, value)| tsv(&[(*name).to_owned(), value.clone()]))
                .collect(),
            Format::Table => fields
                .iter()
                .map(|(name, value)| {
                    let value = self.painted(&clean(value));
                    format!("{name:>longest$}  {value}").trim_end().to_owned() + "\n"
                })
                .collect(),
        })
    }

    fn table(&self, columns: &[Column], rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|text| clean(text)).collect())
            .collect();
        let room = self.terminal.then(terminal_width);
        let widths = widths(columns, &rows, room);
        let titles: Vec<String> = columns
            .iter()
            .map(|column| column.title.to_owned())
            .collect();
        let mut text = String::new();
        for (at, row) in [&titles].into_iter().chain(&rows).enumerate() {
            let mut left = room.unwrap_or(usize::MAX);
            let last = row.len().saturating_sub(1);
            for (index, cell) in row.iter().enumerate() {
                let gap = if index == 0 { 0 } else { GAP };
                if left <= gap {
                    break;
                }
                let own = widths[index].min(left - gap);
                let shown = cut(cell, own);
                let blanks = " ".repeat(own.saturating_sub(width(&shown)));
                let shown = match at {
                    0 => self.bold(&shown),
                    _ => self.painted(&shown),
                };
                text.push_str(&" ".repeat(gap));
                match columns[index].numbers {
                    true => text.extend([blanks, shown]),
                    false if index == last => text.push_str(&shown),
                    false => text.extend([shown, blanks]),
                }
                left = left.saturating_sub(own + gap);
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// A word that tells how a program is, in its colour; any other text as it is.
    pub fn painted(&self, text: &str) -> String {
        match text {
            "running" => self.paint("32", text),
            "error" | "failed" => self.paint("31", text),
            "backoff" | "stopping" | "warn" => self.paint("33", text),
            _ => text.to_owned(),
        }
    }

    pub fn paint(&self, code: &str, text: &str) -> String {
        match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// How wide columns are so that they fit, if they can: those that give way do, the widest first.
fn widths(columns: &[Column], rows: &[Vec<String>], room: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|cell| width(cell)).max().unwrap_or(0);
            widest.max(column.title.len())
        })
        .collect();
    let room = room.unwrap_or(usize::MAX);
    loop {
        let total: usize = widths.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
        let widest = (0..columns.len())
            .filter(|index| columns[*index].gives_way && widths[*index] > NARROWEST)
            .max_by_key(|index| widths[*index]);
        match widest {
            Some(index) if total > room => widths[index] -= 1,
            _ => return widths,
        }
    }
}

fn terminal_width() -> usize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// Text as a line.
fn line(text: &str) -> String {
    text.trim_end().to_owned() + "\n"
}

/// A line of values, in which blanks other than the space, and backslashes, are escaped as in C.
pub fn tsv(values: &[String]) -> String {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push('\t');
        }
        for character in value.chars() {
            match character {
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\\' => text.push_str("\\\\"),
                other => text.push(other),
            }
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter()
            .map(|row| row.iter().map(|text| (*text).to_owned()).collect())
            .collect()
    }

    const PLAIN: Output = Output {
        format: Format::Table,
        color: false,
        terminal: false,
    };

    #[test]
    fn columns_stand_below_each_other_also_with_wide_characters() {
        let columns = [wide("NAME"), number("PID"), column("STATUS")];
        let rows = rows(&[&["web", "12", "running"], &["日本", "3456", "-"]]);
        assert_eq!(
            PLAIN.table(&columns, &rows),
            "NAME   PID  STATUS\nweb     12  running\n日本  3456  -\n"
        );
    }

    #[test]
    fn wide_columns_give_way_until_all_fits_or_nothing_can() {
        let columns = [wide("NAME"), column("STATUS"), wide("COMMAND")];
        let rows = rows(&[&["a name of some length", "running", "/usr/bin/a/command"]]);
        assert_eq!(widths(&columns, &rows, None), [21, 7, 18]);
        for room in 23..80 {
            let widths = widths(&columns, &rows, Some(room));
            assert!(
                widths.iter().sum::<usize>() + 4 <= room,
                "{room}: {widths:?}"
            );
        }
        assert_eq!(widths(&columns, &rows, Some(1)), [6, 7, 6]);
    }

    #[test]
    fn a_value_cannot_break_out_of_its_place() {
        let rows = rows(&[&["a\tb\nc\\", "\x1b[2J"]]);
        assert_eq!(tsv(&rows[0]), "a\\tb\\nc\\\\\t\x1b[2J\n");
        let table = PLAIN.table(&[column("A"), column("B")], &rows);
        assert_eq!(table.lines().count(), 2);
        assert!(
            !table.contains('\x1b') && !table.contains('\t'),
            "{table:?}"
        );
    }
}
