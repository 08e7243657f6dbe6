//! Arguments, as they are written and as commands take them.
//!
//! argh reads them; what people expect beyond it is rewritten before: `--option=value`, `-V`, `hxe --daemon`. The only
//! file that names argh.

use std::ffi::OsString;
use std::path::PathBuf;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfoKind, FromArgs};

use crate::config::nearest;

/// What argv asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Command(Command),
    /// To standard output.
    Help(String),
    /// A message that says what is wrong and where help is.
    Wrong(String),
}

/// Starts programs, keeps them running, and keeps what they write. hxe(1) tells more.
#[derive(FromArgs, ArgsInfo)]
#[argh(help_triggers("-h", "--help", "help"))]
struct Hxe {
    #[argh(subcommand)]
    command: Command,
}

/// A command with its options.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum Command {
    Daemon(Daemon),
    Version(Version),
}

/// Run the daemon; in the foreground, unless told otherwise.
#[derive(Debug, Default, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "daemon")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Daemon {
    /// the configuration; default: /etc/hxe/hxe.toml as root, else ~/.config/hxe/hxe.toml, if it exists
    #[argh(option, short = 'c', arg_name = "file", from_str_fn(path))]
    pub config: Option<PathBuf>,

    /// say what is wrong with the configuration, and exit; nothing is started or changed
    #[argh(switch)]
    pub check: bool,

    /// return when the daemon listens, and leave it running
    #[argh(switch)]
    pub background: bool,

    /// write the daemon's process id to this file, and remove it at the end
    #[argh(option, arg_name = "file", from_str_fn(path))]
    pub pid_file: Option<PathBuf>,

    /// run without the guardian, which starts the daemon again should it die
    #[argh(switch)]
    pub no_guardian: bool,

    /// the descriptor of the link to the guardian
    #[argh(option, arg_name = "number", hidden_help)]
    pub guarded: Option<i32>,

    /// the descriptor in which a guardian that becomes another binary has written down what it holds
    #[argh(option, arg_name = "number", hidden_help)]
    pub handover: Option<i32>,

    /// the soft limit of open files that programs get: the one that the guardian was started with
    #[argh(option, arg_name = "number", hidden_help)]
    pub open_files: Option<u64>,

    /// let go of standard error once the daemon listens
    #[argh(switch, hidden_help)]
    pub in_background: bool,

    /// standard output is the pipe on which to say that the daemon listens
    #[argh(switch, hidden_help)]
    pub ready_on_stdout: bool,
}

impl Daemon {
    /// The options that name files, and those.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [("--config", &self.config), ("--pid-file", &self.pid_file)]
            .into_iter()
            .filter_map(|(option, path)| Some((option, path.as_ref()?)))
    }
}

/// Print the version.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "version")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Version {}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("a path must not be empty".to_owned());
    }
    Ok(PathBuf::from(text))
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
    let hxe = Hxe::get_args_info();
    alias(&mut words);
    let command = match words.first() {
        None => return wrong("no command was given", ""),
        Some(first) if first.starts_with('-') || first == "help" => String::new(),
        Some(first) => first.clone(),
    };
    let names = || hxe.commands.iter().map(|command| command.name);
    if !command.is_empty() && !names().any(|name| name == command) {
        return match nearest(&command, names()) {
            Some(meant) => wrong(
                &format!("there is no command {command:?}: did you mean \"{meant}\"?"),
                "",
            ),
            None => wrong(&format!("there is no command {command:?}"), ""),
        };
    }
    let words = split_values(words, &hxe);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match Hxe::from_args(&["hxe"], &words) {
        Ok(hxe) => Parsed::Command(hxe.command),
        Err(exit) if exit.status.is_ok() => Parsed::Help(exit.output.trim_end().to_owned() + "\n"),
        Err(exit) => wrong(&in_lower_case(exit.output.trim_end()), &command),
    }
}

/// Turns options that stand for a command into that command.
fn alias(words: &mut Vec<String>) {
    let is = |word: &str, names: [&str; 2]| names.contains(&word);
    match words.first() {
        Some(first) if is(first, ["-V", "--version"]) => words[0] = "version".to_owned(),
        // Also behind other options, as in `hxe --config hxe.toml --daemon`.
        Some(first) if first.starts_with('-') => {
            if let Some(index) = words.iter().position(|word| is(word, ["-d", "--daemon"])) {
                words.remove(index);
                words.insert(0, "daemon".to_owned());
            }
        }
        _ => {}
    }
}

/// Splits `--option=value` in two, for options that take a value. What follows `--`, or an option as its value, is left
/// as it is.
fn split_values(words: Vec<String>, hxe: &CommandInfoWithArgs) -> Vec<String> {
    let mut command = hxe;
    let mut split = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            split.push(word);
            break;
        }
        let takes_value = |name: &str| {
            command.flags.iter().any(|flag| {
                let short = flag.short.is_some_and(|short| name == format!("-{short}"));
                matches!(flag.kind, FlagInfoKind::Option { .. }) && (short || flag.long == name)
            })
        };
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") && takes_value(name) => {
                split.extend([name.to_owned(), value.to_owned()]);
            }
            _ if takes_value(&word) => {
                split.push(word);
                split.extend(words.next());
            }
            _ => {
                let below = command.commands.iter().find(|below| below.name == word);
                command = below.map_or(command, |below| &below.command);
                split.push(word);
            }
        }
    }
    split.extend(words);
    split
}

fn wrong(what: &str, command: &str) -> Parsed {
    let space = if command.is_empty() { "" } else { " " };
    Parsed::Wrong(format!("{what}\nTry 'hxe{space}{command} --help'."))
}

/// Messages of ours begin with a small letter; argh's do not.
fn in_lower_case(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn daemon(line: &str) -> Daemon {
        match parse(words(line)) {
            Parsed::Command(Command::Daemon(daemon)) => daemon,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_value_may_follow_a_blank_or_an_equals_sign() {
        let expected = Daemon {
            config: Some("/a=b".into()),
            pid_file: Some("--x=y".into()),
            check: true,
            ..Daemon::default()
        };
        for line in [
            "daemon --config /a=b --check --pid-file --x=y",
            "daemon --config=/a=b --check --pid-file=--x=y",
            "daemon -c /a=b --pid-file=--x=y --check",
            "--daemon --config=/a=b --pid-file --x=y --check",
            "-d --config=/a=b --pid-file --x=y --check",
            "--config=/a=b --pid-file --x=y --check --daemon",
        ] {
            assert_eq!(daemon(line), expected, "{line}");
        }
    }

    #[test]
    fn help_is_help_however_it_is_asked_for() {
        for line in ["help", "--help", "-h"] {
            let Parsed::Help(text) = parse(words(line)) else {
                panic!("{line}");
            };
            assert!(
                text.contains("daemon") && text.contains("version"),
                "{text}"
            );
        }
        for line in [
            "help daemon",
            "daemon help",
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
            let expected = Parsed::Command(Command::Version(Version {}));
            assert_eq!(parse(words(line)), expected, "{line}");
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
            ("daemon --check=yes", "--check=yes", "'hxe daemon --help'"),
            ("daemon extra", "extra", "'hxe daemon --help'"),
            ("daemon -- --check", "--check", "'hxe daemon --help'"),
            ("daemon --config", "no value", "'hxe daemon --help'"),
            (
                "daemon --config=",
                "must not be empty",
                "'hxe daemon --help'",
            ),
            ("daemon -c a -c b", "-c", "'hxe daemon --help'"),
            ("version 2", "2", "'hxe version --help'"),
            ("help xyzzy", "xyzzy", "'hxe --help'"),
        ] {
            let Parsed::Wrong(message) = parse(words(line)) else {
                panic!("{line}");
            };
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
