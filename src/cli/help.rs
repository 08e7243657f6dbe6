//! What `--help` prints, from the table.

use super::table::{COMMANDS, Command, Opt};

/// How far descriptions are set in.
const COLUMN: usize = 24;
/// Longest line.
const WIDTH: usize = 100;

/// All commands.
pub fn overview() -> String {
    let mut text = "Usage: hxe COMMAND [OPTION]... [ARGUMENT]...\n\n\
        Starts programs, keeps them running, and keeps what they write. hxe(1) tells more.\n\nCommands:\n"
        .to_owned();
    for command in COMMANDS {
        line(&mut text, command.name, command.about);
    }
    line(
        &mut text,
        "help [COMMAND]",
        "Print this, or the options of a command.",
    );
    text
}

/// One command.
pub fn of(command: &Command) -> String {
    let mut text = format!("Usage: hxe {}", command.name);
    if command.options().next().is_some() {
        text += " [OPTION]...";
    }
    if !command.operands.is_empty() {
        text = text + " " + command.operands;
    }
    text += "\n\n";
    wrapped(&mut text, 0, command.about);
    text += "\nOptions:\n";
    for option in command.options().filter(|option| !option.about.is_empty()) {
        line(&mut text, &heading(option), option.about);
    }
    line(&mut text, "-h, --help", "print this");
    text
}

fn heading(option: &Opt) -> String {
    let short = match option.short {
        Some(short) => format!("-{short}, "),
        None => "    ".to_owned(),
    };
    format!("{short}--{}{}", option.long, option.value_text())
}

/// A heading, and beside it, or below it if it is long, what it is about.
fn line(text: &mut String, heading: &str, about: &str) {
    let used = 2 + heading.chars().count();
    *text = std::mem::take(text) + "  " + heading;
    match COLUMN.checked_sub(used).filter(|room| *room >= 2) {
        Some(room) => text.push_str(&" ".repeat(room)),
        None => {
            text.push('\n');
            text.push_str(&" ".repeat(COLUMN));
        }
    }
    wrapped(text, COLUMN, about);
}

/// Appends words; lines after the first are set in as far as the text stands already.
fn wrapped(text: &mut String, indent: usize, words: &str) {
    let mut column = indent;
    for (at, word) in words.split(' ').enumerate() {
        if at > 0 {
            if column + 1 + word.len() > WIDTH {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                text.push(' ');
                column += 1;
            }
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_help_is_wide() {
        for text in COMMANDS.iter().map(of).chain([overview()]) {
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert!(!line.ends_with(' '), "{line:?}");
            }
        }
    }
}
