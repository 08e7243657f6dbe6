//! The table of commands: what each is called, takes and does. Parsing, help, completions and the test of the manual all
//! follow it; a command or an option that is not here does not exist.

use std::process::ExitCode;

use super::args::Args;
use super::failure::Failure;
use super::{
    completions, connect, control, daemon, define, exits, import, measure, output, run, service,
    session, show, version, watch,
};

/// A command.
pub struct Command {
    /// One word or two: `list`, `auth status`.
    pub name: &'static str,
    /// What follows the options, as usage shows it: `PROGRAM...`.
    pub operands: &'static str,
    /// How many operands there must be, and may be.
    pub least: usize,
    pub most: usize,
    /// What completions offer for an operand.
    pub offers: Offers,
    /// Behind so many operands nothing is an option any more: it is another command's.
    pub ends_after: usize,
    /// What it does, a sentence.
    pub about: &'static str,
    pub options: &'static [&'static [Opt]],
    pub run: fn(&Args) -> Result<ExitCode, Failure>,
}

impl Command {
    /// All its options.
    pub fn options(&self) -> impl Iterator<Item = &'static Opt> {
        self.options.iter().copied().flatten()
    }
}

/// What an operand can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Offers {
    Nothing,
    Files,
    Programs,
    /// One of these.
    Words(&'static [&'static str]),
}

/// An option.
pub struct Opt {
    pub long: &'static str,
    pub short: Option<char>,
    pub value: Value,
    /// Lower case, no full stop; empty: not shown, as it is between processes of hxe.
    pub about: &'static str,
}

/// What an option takes.
#[derive(Clone, Copy)]
pub enum Value {
    /// Nothing.
    No,
    /// Nothing, or `=true` or `=false`.
    Bool,
    /// A value, shown by this name.
    One(&'static str),
    /// A value, and the option may be given several times.
    Many(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Opt {
    /// Whether a value follows as the next argument.
    pub fn takes_value(&self) -> bool {
        !matches!(self.value, Value::No | Value::Bool)
    }

    /// How usage shows its value: ` FILE`, or nothing.
    pub fn value_text(&self) -> String {
        match self.value {
            Value::No => String::new(),
            Value::Bool => "[=false]".to_owned(),
            Value::One(name) | Value::Many(name) => format!(" {name}"),
            Value::Choice(words) => format!(" {}", words.join("|")),
        }
    }
}

pub(super) const fn opt(
    long: &'static str,
    short: Option<char>,
    value: Value,
    about: &'static str,
) -> Opt {
    Opt {
        long,
        short,
        value,
        about,
    }
}

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// A command that takes no operands and no options.
const PLAIN: Command = Command {
    name: "",
    operands: "",
    least: 0,
    most: 0,
    offers: Offers::Nothing,
    ends_after: usize::MAX,
    about: "",
    options: &[],
    run: version,
};

/// A command that is about programs, of which several may be named.
const MANY: Command = Command {
    operands: "PROGRAM...",
    least: 1,
    most: usize::MAX,
    offers: Offers::Programs,
    ..PLAIN
};

pub static COMMANDS: &[Command] = &[
    Command {
        name: "list",
        about: "List programs: how they are, and what they run.",
        options: &[show::LIST, output::OPTIONS, connect::OPTIONS],
        run: show::list,
        ..PLAIN
    },
    Command {
        name: "info",
        operands: "PROGRAM",
        most: 1,
        about: "Show all that is known of a program.",
        options: &[output::OPTIONS, connect::OPTIONS],
        run: show::info,
        ..MANY
    },
    Command {
        name: "exits",
        operands: "PROGRAM",
        most: 1,
        about: "Show how the last runs of a program ended, and what they wrote last.",
        options: &[exits::OPTIONS, output::OPTIONS, connect::OPTIONS],
        run: exits::exits,
        ..MANY
    },
    Command {
        name: "status",
        operands: "[PROGRAM...]",
        least: 0,
        about: "Say how programs are, or the daemon itself; exits with 0, 3 or 4 as init scripts do.",
        options: &[show::STATUS, output::OPTIONS, connect::OPTIONS],
        run: show::status,
        ..MANY
    },
    Command {
        name: "start",
        about: "Start programs.",
        options: &[
            control::WAIT,
            control::OPTIONS,
            output::OPTIONS,
            connect::OPTIONS,
        ],
        run: control::start,
        ..MANY
    },
    Command {
        name: "stop",
        about: "Stop programs; comes back when they have ended.",
        options: &[
            control::FORCE,
            control::OPTIONS,
            output::OPTIONS,
            connect::OPTIONS,
        ],
        run: control::stop,
        ..MANY
    },
    Command {
        name: "restart",
        about: "Stop programs and start them again; those that do not run are started.",
        options: &[
            control::WAIT,
            control::OPTIONS,
            output::OPTIONS,
            connect::OPTIONS,
        ],
        run: control::restart,
        ..MANY
    },
    Command {
        name: "enable",
        about: "Have programs start with the daemon.",
        options: &[control::OPTIONS, output::OPTIONS, connect::OPTIONS],
        run: control::enable,
        ..MANY
    },
    Command {
        name: "disable",
        about: "Do not have programs start with the daemon.",
        options: &[control::OPTIONS, output::OPTIONS, connect::OPTIONS],
        run: control::disable,
        ..MANY
    },
    Command {
        name: "delete",
        about: "Stop programs, and remove them with their logs.",
        options: &[control::OPTIONS, output::OPTIONS, connect::OPTIONS],
        run: control::delete,
        ..MANY
    },
    Command {
        name: "signal",
        operands: "SIGNAL PROGRAM...",
        least: 2,
        about: "Send a signal, such as HUP, to the processes of programs.",
        options: &[control::OPTIONS, output::OPTIONS, connect::OPTIONS],
        run: control::signal,
        ..MANY
    },
    Command {
        name: "create",
        operands: "[NAME [COMMAND [ARG...]]]",
        least: 0,
        ends_after: 2,
        offers: Offers::Files,
        about: "Create a program.",
        options: &[
            define::OPTIONS,
            define::RUNNING,
            define::START,
            output::OPTIONS,
            connect::OPTIONS,
        ],
        run: define::create,
        ..MANY
    },
    Command {
        name: "update",
        operands: "PROGRAM",
        most: 1,
        about: "Change the definition of a program.",
        options: &[
            define::OPTIONS,
            define::RUNNING,
            output::OPTIONS,
            connect::OPTIONS,
        ],
        run: define::update,
        ..MANY
    },
    Command {
        name: "run",
        operands: "COMMAND [ARG...]",
        least: 0,
        ends_after: 1,
        offers: Offers::Files,
        about: "Run a command as a program, in the foreground: with its output, its exit code, and gone afterwards.",
        options: &[run::OPTIONS, define::RUNNING, connect::OPTIONS],
        run: run::run,
        ..MANY
    },
    Command {
        name: "logs",
        operands: "PROGRAM",
        most: 1,
        about: "Print what a program has written.",
        options: &[watch::LOGS, output::OPTIONS, connect::OPTIONS],
        run: watch::logs,
        ..MANY
    },
    Command {
        name: "events",
        operands: "[PROGRAM...]",
        least: 0,
        about: "Print what happens, as it happens.",
        options: &[watch::EVENTS, output::OPTIONS, connect::OPTIONS],
        run: watch::events,
        ..MANY
    },
    Command {
        name: "metrics",
        operands: "[PROGRAM...]",
        least: 0,
        about: "Show what programs use, or the machine.",
        options: &[measure::OPTIONS, output::OPTIONS, connect::OPTIONS],
        run: measure::metrics,
        ..MANY
    },
    Command {
        name: "reload",
        about: "Have the daemon read its configuration and the declared programs again.",
        options: &[output::OPTIONS, connect::OPTIONS],
        run: service::reload,
        ..PLAIN
    },
    Command {
        name: "upgrade",
        about: "Have the daemon change to the binary now on disk, without any program noticing.",
        options: &[service::UPGRADE, connect::OPTIONS],
        run: service::upgrade,
        ..PLAIN
    },
    Command {
        name: "login",
        about: "Log in to a daemon, and save that.",
        options: &[session::LOGIN, connect::OPTIONS],
        run: session::login,
        ..PLAIN
    },
    Command {
        name: "logout",
        about: "Log out again.",
        options: &[connect::OPTIONS],
        run: session::logout,
        ..PLAIN
    },
    Command {
        name: "auth status",
        about: "Show which daemon commands speak to, and as whom.",
        options: &[output::OPTIONS, connect::OPTIONS],
        run: session::status,
        ..PLAIN
    },
    Command {
        name: "auth refresh",
        about: "Prolong a login.",
        options: &[connect::OPTIONS],
        run: session::refresh,
        ..PLAIN
    },
    Command {
        name: "daemon",
        about: "Run the daemon; in the foreground, unless told otherwise.",
        options: &[daemon::OPTIONS],
        run: daemon::run,
        ..PLAIN
    },
    Command {
        name: "import",
        operands: "FILE",
        least: 1,
        most: 1,
        offers: Offers::Files,
        about: "Write files that declare what a supervisord.conf does.",
        options: &[import::OPTIONS],
        run: import::run,
        ..PLAIN
    },
    Command {
        name: "version",
        about: "Print the version.",
        run: version,
        ..PLAIN
    },
    Command {
        name: "completions",
        operands: "SHELL",
        least: 1,
        most: 1,
        offers: Offers::Words(SHELLS),
        about: "Print completions for bash, zsh or fish.",
        run: completions::run,
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the manual, macros without their dot.
    fn manual() -> Vec<&'static str> {
        let words = include_str!("../../man/hxe.1").split_whitespace();
        words.map(|word| word.trim_start_matches('.')).collect()
    }

    fn has(manual: &[&str], words: &str) -> bool {
        let words: Vec<&str> = words.split(' ').collect();
        manual.windows(words.len()).any(|window| window == words)
    }

    #[test]
    fn the_manual_has_every_command_and_option() {
        let manual = manual();
        for command in COMMANDS {
            let name = command.name;
            assert!(has(&manual, &format!("It Cm {name}")), "hxe(1): {name}");
            let shown = command.options().filter(|option| !option.about.is_empty());
            for Opt { long, short, .. } in shown {
                let has_long = has(&manual, &format!("Fl -{long}"));
                assert!(has_long, "hxe(1): --{long} of {name}");
                // Alone or with others: -ft.
                let has_letter = |letter: char| {
                    let mut pairs = manual.windows(2);
                    pairs.any(|pair| {
                        pair[0] == "Fl" && !pair[1].starts_with('-') && pair[1].contains(letter)
                    })
                };
                let has_short = short.is_none_or(has_letter);
                assert!(has_short, "hxe(1): -{short:?} of {name}");
            }
        }
    }

    #[test]
    fn the_manual_has_no_command_and_no_option_that_is_not_there() {
        let is_option = |long: &str| {
            let mut all = COMMANDS.iter().flat_map(Command::options);
            ["help", "version", "daemon"].contains(&long) || all.any(|option| option.long == long)
        };
        let manual = manual();
        for words in manual.windows(2) {
            if let ["Fl", option] = words
                && let Some(long) = option.strip_prefix('-').filter(|long| !long.is_empty())
            {
                assert!(is_option(long), "hxe(1) has --{long}");
            }
        }
        for words in manual.windows(4) {
            if let ["It", "Cm", first, second] = words {
                let pair = format!("{first} {second}");
                let known = *first == "help" || find(first).is_some() || find(&pair).is_some();
                assert!(known, "hxe(1) has {pair}");
            }
        }
    }

    #[test]
    fn names_are_found_and_no_letter_stands_for_two_options() {
        for command in COMMANDS {
            assert!(std::ptr::eq(find(command.name).unwrap(), command));
            let options: Vec<&Opt> = command.options().collect();
            for (at, option) in options.iter().enumerate() {
                for other in &options[at + 1..] {
                    let letters = option.short.is_some() && option.short == other.short;
                    assert!(
                        option.long != other.long && !letters,
                        "{}: {} and {}",
                        command.name,
                        option.long,
                        other.long
                    );
                }
            }
            assert!(command.about.ends_with('.'), "{}", command.about);
        }
    }
}
