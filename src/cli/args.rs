//! Arguments: argv to a command of the table with its options and operands.

use std::ffi::OsString;

use super::help;
use super::table::{self, COMMANDS, Command, Opt, Value};
use crate::config::nearest;

/// What argv asks for.
pub enum Parsed {
    Command(Args),
    /// To standard output.
    Help(String),
    /// A message that says what is wrong and where help is.
    Wrong(String),
}

/// A command as it was given: its options are ones that it has, their number and that of the operands is right.
pub struct Args {
    pub command: &'static Command,
    options: Vec<(&'static Opt, String)>,
    pub operands: Vec<String>,
}

impl Args {
    /// The value of an option.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.all(long).next()
    }

    /// The values of an option that may be given several times.
    pub fn all<'a>(&'a self, long: &str) -> impl Iterator<Item = &'a str> {
        debug_assert!(
            self.command.options().any(|option| option.long == long),
            "{} has no --{long}",
            self.command.name
        );
        self.options
            .iter()
            .filter(move |(option, _)| option.long == long)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, long: &str) -> bool {
        self.switch(long) == Some(true)
    }

    /// What a switch says that may be switched off, too.
    pub fn switch(&self, long: &str) -> Option<bool> {
        Some(self.value(long)? != "false")
    }
}

/// Reads the arguments behind the name of the program.
pub fn parse(arguments: Vec<OsString>) -> Parsed {
    let mut words = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(word) => words.push(word),
            Err(argument) => return wrong(&format!("{argument:?} is not valid UTF-8"), ""),
        }
    }
    match words.first().map(String::as_str) {
        None => return wrong("no command was given", ""),
        Some("-h" | "--help") => return Parsed::Help(help::overview()),
        Some("help") => return help_on(&words[1..]),
        Some(_) => {}
    }
    if let Err(option) = command_first(&mut words) {
        return wrong(&format!("there is no command before {option:?}"), "");
    }
    let (command, rest) = match command(&words) {
        Ok(found) => found,
        Err(what) => return wrong(&what, ""),
    };
    let mut parsing = Parsing {
        args: Args {
            command,
            options: Vec::new(),
            operands: Vec::new(),
        },
        words: rest.iter(),
    };
    match parsing.run() {
        Ok(true) => Parsed::Help(help::of(command)),
        Ok(false) => Parsed::Command(parsing.args),
        Err(what) => wrong(&what, command.name),
    }
}

fn help_on(words: &[String]) -> Parsed {
    if words.is_empty() {
        return Parsed::Help(help::overview());
    }
    match command(words) {
        Ok((command, [])) => Parsed::Help(help::of(command)),
        Ok((_, [extra, ..])) => wrong(&format!("{extra:?} is one argument too many"), ""),
        Err(what) => wrong(&what, ""),
    }
}

/// Puts the command first, where options stand before it, as in `hxe --config hxe.toml list`, and turns options that
/// stand for a command into that.
///
/// # Errors
/// The option behind which no command comes.
fn command_first(words: &mut Vec<String>) -> Result<(), String> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let name = match word.as_str() {
            "-V" | "--version" => Some("version"),
            "-d" | "--daemon" => Some("daemon"),
            "--" => break,
            _ if !word.starts_with('-') || word == "-" => None,
            option => {
                at += 1 + usize::from(takes_next(option));
                continue;
            }
        };
        let word = words.remove(at);
        words.insert(0, name.map_or(word, str::to_owned));
        if at > 0
            && words
                .get(at + 1)
                .is_some_and(|next| is_pair(&words[0], next))
        {
            let second = words.remove(at + 1);
            words.insert(1, second);
        }
        return Ok(());
    }
    Err(words[0].clone())
}

/// Whether two words are one command's name.
fn is_pair(first: &str, second: &str) -> bool {
    table::find(&format!("{first} {second}")).is_some()
}

/// Whether an option, of any command, has its value in the next argument.
fn takes_next(option: &str) -> bool {
    COMMANDS
        .iter()
        .flat_map(Command::options)
        .any(|known| known.takes_value() && is_called(known, option))
}

fn is_called(option: &Opt, word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(long) => option.long == long,
        None => option
            .short
            .is_some_and(|short| word == format!("-{short}")),
    }
}

/// The command that words begin with, and the words behind it.
fn command(words: &[String]) -> Result<(&'static Command, &[String]), String> {
    if let [first, second, rest @ ..] = words
        && let Some(command) = table::find(&format!("{first} {second}"))
    {
        return Ok((command, rest));
    }
    let (first, rest) = words.split_first().ok_or("no command was given")?;
    if let Some(command) = table::find(first) {
        return Ok((command, rest));
    }
    let below: Vec<&str> = COMMANDS
        .iter()
        .filter_map(|command| command.name.strip_prefix(first.as_str())?.strip_prefix(' '))
        .collect();
    if !below.is_empty() {
        let below = below.join(" or ");
        return Err(format!("{first:?} must be followed by {below}"));
    }
    let what = format!("there is no command {first:?}");
    let names = COMMANDS.iter().map(|command| command.name);
    Err(match nearest(first, names) {
        Some(meant) => format!("{what}: did you mean \"{meant}\"?"),
        None => what,
    })
}

struct Parsing<'a> {
    args: Args,
    words: std::slice::Iter<'a, String>,
}

impl Parsing<'_> {
    /// Takes all words. `true`: help was asked for.
    fn run(&mut self) -> Result<bool, String> {
        let command = self.args.command;
        let mut only_operands = false;
        while let Some(word) = self.words.next() {
            only_operands |= self.args.operands.len() >= command.ends_after;
            match word.as_str() {
                word if only_operands => self.operand(word)?,
                "--" => only_operands = true,
                "-h" | "--help" => return Ok(true),
                word => match (word.strip_prefix("--"), word.strip_prefix('-')) {
                    (Some(long), _) => self.long(word, long)?,
                    (None, Some(short)) if !short.is_empty() => self.short(word, short)?,
                    _ => self.operand(word)?,
                },
            }
        }
        match self.args.operands.len() < command.least {
            true => Err(format!("{} is missing", command.operands)),
            false => Ok(false),
        }
    }

    fn operand(&mut self, word: &str) -> Result<(), String> {
        if self.args.operands.len() >= self.args.command.most {
            return Err(format!("{word:?} is one argument too many"));
        }
        self.args.operands.push(word.to_owned());
        Ok(())
    }

    fn long(&mut self, word: &str, long: &str) -> Result<(), String> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let mut options = self.args.command.options();
        let Some(option) = options.find(|option| option.long == name) else {
            let names = self.args.command.options().map(|option| option.long);
            return Err(match nearest(name, names) {
                Some(meant) => format!("there is no option --{name}: did you mean --{meant}?"),
                None => format!("there is no option {word}"),
            });
        };
        let value = match (option.value, value) {
            (Value::No, Some(_)) => return Err(format!("--{name} takes no value: {word}")),
            (Value::Bool, Some(value)) if !["true", "false"].contains(&value) => {
                return Err(format!("--{name} is true or false, not {value:?}"));
            }
            (_, Some(value)) => value.to_owned(),
            (_, None) => self.next_value(option)?,
        };
        self.take(option, value)
    }

    /// `-f`, `-n 5`, `-n5`, `-fn5`.
    fn short(&mut self, word: &str, cluster: &str) -> Result<(), String> {
        for (at, letter) in cluster.char_indices() {
            let mut options = self.args.command.options();
            let Some(option) = options.find(|option| option.short == Some(letter)) else {
                return Err(match cluster.chars().count() {
                    1 => format!("there is no option {word}"),
                    _ => format!("there is no option -{letter} (in {word})"),
                });
            };
            let rest = &cluster[at + letter.len_utf8()..];
            if option.takes_value() && !rest.is_empty() {
                return self.take(option, rest.to_owned());
            }
            let value = self.next_value(option)?;
            self.take(option, value)?;
        }
        Ok(())
    }

    fn next_value(&mut self, option: &Opt) -> Result<String, String> {
        match option.takes_value() {
            false => Ok("true".to_owned()),
            true => match self.words.next() {
                Some(value) => Ok(value.clone()),
                None => Err(format!("--{} has no value", option.long)),
            },
        }
    }

    fn take(&mut self, option: &'static Opt, value: String) -> Result<(), String> {
        let long = option.long;
        if let Value::Choice(words) = option.value
            && !words.contains(&value.as_str())
        {
            let words = words.join(", ");
            return Err(format!("--{long} must be one of {words}, not {value:?}"));
        }
        let is_given = self
            .args
            .options
            .iter()
            .any(|(given, _)| given.long == long);
        if is_given && !matches!(option.value, Value::Many(_) | Value::No) {
            return Err(format!("--{long} was given twice"));
        }
        self.args.options.push((option, value));
        Ok(())
    }
}

fn wrong(what: &str, command: &str) -> Parsed {
    let space = if command.is_empty() { "" } else { " " };
    Parsed::Wrong(format!("{what}\nTry 'hxe{space}{command} --help'."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[track_caller]
    fn args(line: &str) -> Args {
        match parse(words(line)) {
            Parsed::Command(args) => args,
            Parsed::Help(text) | Parsed::Wrong(text) => panic!("{line}: {text}"),
        }
    }

    #[track_caller]
    fn refused(line: &str) -> String {
        match parse(words(line)) {
            Parsed::Wrong(message) => message,
            _ => panic!("{line} is understood"),
        }
    }

    #[test]
    fn a_value_may_follow_a_blank_or_an_equals_sign() {
        for line in [
            "daemon --config /a=b --check --pid-file --x=y",
            "daemon --config=/a=b --check --pid-file=--x=y",
            "daemon -c /a=b --pid-file=--x=y --check",
            "daemon -c/a=b --pid-file=--x=y --check",
            "--daemon --config=/a=b --pid-file --x=y --check",
            "-d --config=/a=b --pid-file --x=y --check",
            "--config=/a=b --pid-file --x=y --check --daemon",
            "-c /a=b --pid-file --x=y daemon --check",
        ] {
            let args = args(line);
            assert_eq!(args.command.name, "daemon", "{line}");
            assert_eq!(args.value("config"), Some("/a=b"), "{line}");
            assert_eq!(args.value("pid-file"), Some("--x=y"), "{line}");
            assert!(args.is_on("check") && !args.is_on("background"), "{line}");
        }
    }

    #[test]
    fn help_is_help_however_it_is_asked_for() {
        for line in ["help", "--help", "-h"] {
            let Parsed::Help(text) = parse(words(line)) else {
                panic!("{line}");
            };
            for command in COMMANDS {
                assert!(text.contains(command.name), "{text}");
            }
        }
        for line in [
            "help daemon",
            "daemon --help",
            "daemon -h",
            "--daemon --help",
        ] {
            let Parsed::Help(text) = parse(words(line)) else {
                panic!("{line}");
            };
            assert!(
                text.contains("--pid-file") && !text.contains("ready"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_version_is_a_command_and_an_option() {
        for line in ["version", "-V", "--version"] {
            assert_eq!(args(line).command.name, "version", "{line}");
        }
    }

    #[test]
    fn wrong_usage_says_what_is_wrong_and_where_help_is() {
        for (line, what, hint) in [
            ("", "no command", "'hxe --help'"),
            ("demon", "did you mean \"daemon\"", "'hxe --help'"),
            ("xyzzy", "no command \"xyzzy\"", "'hxe --help'"),
            ("--config", "--config", "'hxe --help'"),
            ("--frobnicate", "--frobnicate", "'hxe --help'"),
            ("daemon --frobnicate", "--frobnicate", "'hxe daemon --help'"),
            (
                "daemon --frobnicate=1",
                "--frobnicate=1",
                "'hxe daemon --help'",
            ),
            (
                "daemon --pidfile x",
                "did you mean --pid-file?",
                "'hxe daemon --help'",
            ),
            ("daemon -x", "-x", "'hxe daemon --help'"),
            ("daemon --check=yes", "--check=yes", "'hxe daemon --help'"),
            ("daemon extra", "extra", "'hxe daemon --help'"),
            ("daemon -- --check", "--check", "'hxe daemon --help'"),
            ("daemon --config", "no value", "'hxe daemon --help'"),
            ("daemon -c a -c b", "--config", "'hxe daemon --help'"),
            ("version 2", "2", "'hxe version --help'"),
            ("help xyzzy", "xyzzy", "'hxe --help'"),
        ] {
            let message = refused(line);
            assert!(message.contains(what), "{line}: {message}");
            assert!(
                message.ends_with(&format!("Try {hint}.")),
                "{line}: {message}"
            );
        }
    }

    #[test]
    fn an_argument_that_is_not_utf_8_is_refused() {
        let argument = OsString::from_vec(vec![b'a', 0xff]);
        assert!(matches!(parse(vec![argument]), Parsed::Wrong(_)));
    }
}
