//! `hxe completions`: scripts for bash, zsh and fish, made from the table. Names of programs are asked of `hxe list`.

use std::process::ExitCode;

use super::args::Args;
use super::failure::Failure;
use super::say;
use super::table::{COMMANDS, Command, Offers, Opt, Value};

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    say(&match args.operands[0].as_str() {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        other => {
            let what = format!("there are no completions for {other:?}: bash, zsh and fish");
            return Err(Failure::usage(what));
        }
    })
}

/// A command prints the names of programs, one a line.
const NAMES: &str = "hxe list --quiet 2>/dev/null";

/// Options that are shown, of all commands or of one.
fn shown(command: &Command) -> impl Iterator<Item = &'static Opt> {
    command.options().filter(|option| !option.about.is_empty())
}

/// First words of commands, each once.
fn first_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = COMMANDS
        .iter()
        .map(|command| command.name.split(' ').next().unwrap_or_default())
        .collect();
    words.dedup();
    words.push("help");
    words
}

/// The second words of commands that have two: `auth` and `status refresh`.
fn second_words(first: &str) -> Vec<&'static str> {
    COMMANDS
        .iter()
        .filter_map(|command| command.name.strip_prefix(first)?.strip_prefix(' '))
        .collect()
}

fn pairs() -> Vec<&'static str> {
    let has_two = |word: &&str| !second_words(word).is_empty();
    first_words().into_iter().filter(has_two).collect()
}

/// `'text'` for any shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn is_file(value: Value) -> bool {
    matches!(value, Value::One("FILE" | "DIR"))
}

fn bash() -> String {
    let mut text = "# Completions of hxe(1) for bash: in /usr/share/bash-completion/completions/hxe, or source it.
_hxe() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= names= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -*) ;;
            *) command=${COMP_WORDS[i]}; break ;;
        esac
    done
"
    .to_owned();
    for first in pairs() {
        let second = second_words(first).join("|");
        text += &format!(
            "    if [[ $command == {first} && ${{COMP_WORDS[i+1]}} == @({second}) && COMP_CWORD -gt i+1 ]]; then
        command=\"$command ${{COMP_WORDS[i+1]}}\"
    fi\n"
        );
    }
    text += "    case $command:$prev in\n";
    for command in COMMANDS {
        for option in shown(command) {
            let given = match option.short {
                Some(short) => {
                    let (name, long) = (command.name, option.long);
                    format!("\"{name}:--{long}\" | \"{name}:-{short}\"")
                }
                None => format!("\"{}:--{}\"", command.name, option.long),
            };
            match option.value {
                Value::Choice(words) => {
                    let words = words.join(" ");
                    text += &format!(
                        "        {given}) mapfile -t COMPREPLY < <(compgen -W \"{words}\" -- \"$cur\"); return ;;\n"
                    );
                }
                value if is_file(value) => {
                    text += &format!(
                        "        {given}) mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n"
                    );
                }
                _ if option.takes_value() => text += &format!("        {given}) return ;;\n"),
                _ => {}
            }
        }
    }
    text += "    esac\n    case $command in\n";
    text += &format!("        \"\") words=\"{}\" ;;\n", first_words().join(" "));
    text += &format!("        help) words=\"{}\" ;;\n", first_words().join(" "));
    for first in pairs() {
        text += &format!(
            "        {first}) words=\"{}\" ;;\n",
            second_words(first).join(" ")
        );
    }
    for command in COMMANDS {
        let mut words: Vec<String> = shown(command)
            .map(|option| format!("--{}", option.long))
            .collect();
        words.push("--help".to_owned());
        let mut more = "";
        match command.offers {
            Offers::Words(more) => words.extend(more.iter().map(|word| (*word).to_owned())),
            Offers::Programs => more = " names=1",
            Offers::Files => more = " names=files",
            Offers::Nothing => {}
        }
        let words = words.join(" ");
        text += &format!("        \"{}\") words=\"{words}\"{more} ;;\n", command.name);
    }
    text += &format!(
        "    esac
    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")
    case $names in
        files) mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -f -- \"$cur\") ;;
        1)
            while IFS= read -r i; do
                if [[ $i == \"$cur\"* ]]; then
                    COMPREPLY+=(\"$(printf %q \"$i\")\")
                fi
            done < <({NAMES})
            ;;
    esac
}}
complete -F _hxe hxe
"
    );
    text
}

/// Text inside of the brackets of a specification of `_arguments`.
fn zsh_text(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if ['[', ']', ':', '\\'].contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn zsh() -> String {
    let mut text = format!(
        "#compdef hxe
# Completions of hxe(1) for zsh: as _hxe in a directory of $fpath.
_hxe_programs() {{
    local -a programs
    programs=(${{(f)\"$({NAMES})\"}})
    compadd -a programs
}}
_hxe() {{
    local -a commands
    local curcontext=$curcontext state line
    commands=(\n"
    );
    for command in COMMANDS
        .iter()
        .filter(|command| !command.name.contains(' '))
    {
        let item = format!("{}:{}", command.name, command.about);
        text += &format!("        {}\n", quoted(&item));
    }
    for first in pairs() {
        text += &format!("        {first}\n");
    }
    text += "        help
    )
    _arguments -C '1:command:->command' '*::argument:->argument' && return
    if [[ $state == command ]]; then
        _describe command commands
        return
    fi
";
    for first in pairs() {
        let second = second_words(first).join(" ");
        text += &format!(
            "    if [[ $words[1] == {first} ]]; then
        if (( CURRENT == 2 )); then
            compadd {second}
            return
        fi
        words[1,2]=(\"$words[1] $words[2]\")
        (( CURRENT-- ))
    fi\n"
        );
    }
    text += "    case $words[1] in\n        help) compadd ${commands%%:*} ;;\n";
    for command in COMMANDS {
        text += &format!("        {}) _arguments", quoted(command.name));
        for option in shown(command) {
            let value = match option.value {
                Value::No | Value::Bool => String::new(),
                Value::Choice(words) => format!(":value:({})", words.join(" ")),
                value if is_file(value) => ":file:_files".to_owned(),
                Value::One(name) | Value::Many(name) => format!(":{name}: "),
            };
            let many = match option.value {
                Value::Many(_) => "*",
                _ => "",
            };
            let about = zsh_text(option.about);
            let equals = if option.takes_value() { "=" } else { "" };
            let long = format!("{many}--{}{equals}[{about}]{value}", option.long);
            text += &format!(" \\\n            {}", quoted(&long));
            if let Some(short) = option.short {
                let short = format!("{many}-{short}[{about}]{value}");
                text += &format!(" \\\n            {}", quoted(&short));
            }
        }
        let operand = match command.offers {
            Offers::Nothing => "'--help[print help]'".to_owned(),
            Offers::Files => "'*:file:_files'".to_owned(),
            Offers::Programs => "'*:program:_hxe_programs'".to_owned(),
            Offers::Words(words) => format!("'1:word:({})'", words.join(" ")),
        };
        text += &format!(" \\\n            {operand} ;;\n");
    }
    text += "    esac
}
if [ \"$funcstack[1]\" = _hxe ]; then
    _hxe \"$@\"
else
    compdef _hxe hxe
fi
";
    text
}

fn fish() -> String {
    let firsts = first_words().join(" ");
    let mut text = format!(
        "# Completions of hxe(1) for fish: in ~/.config/fish/completions/hxe.fish.
complete -c hxe -f
set -l firsts {firsts}
complete -c hxe -n \"not __fish_seen_subcommand_from $firsts\" -a help -d 'Print help'
complete -c hxe -n '__fish_seen_subcommand_from help' -a \"$firsts\"
"
    );
    for command in COMMANDS {
        let about = quoted(command.about);
        let seen = match command.name.split_once(' ') {
            None => {
                text += &format!(
                    "complete -c hxe -n \"not __fish_seen_subcommand_from $firsts\" -a {} -d {about}\n",
                    command.name
                );
                format!("__fish_seen_subcommand_from {}", command.name)
            }
            Some((first, second)) => {
                text += &format!(
                    "complete -c hxe -n \"not __fish_seen_subcommand_from $firsts\" -a {first}
complete -c hxe -n '__fish_seen_subcommand_from {first}' -a {second} -d {about}\n"
                );
                let seen = "__fish_seen_subcommand_from";
                format!("{seen} {first}; and {seen} {second}")
            }
        };
        for option in shown(command) {
            text += &format!("complete -c hxe -n '{seen}' -l {}", option.long);
            if let Some(short) = option.short {
                text += &format!(" -s {short}");
            }
            match option.value {
                Value::No | Value::Bool => {}
                Value::Choice(words) => text += &format!(" -x -a '{}'", words.join(" ")),
                value if is_file(value) => text += " -r -F",
                Value::One(_) | Value::Many(_) => text += " -x",
            }
            text += &format!(" -d {}\n", quoted(option.about));
        }
        match command.offers {
            Offers::Nothing => {}
            Offers::Files => text += &format!("complete -c hxe -n '{seen}' -F\n"),
            Offers::Programs => text += &format!("complete -c hxe -n '{seen}' -a '({NAMES})'\n"),
            Offers::Words(words) => {
                text += &format!("complete -c hxe -n '{seen}' -a '{}'\n", words.join(" "));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::help;

    #[test]
    fn every_command_and_option_is_in_each_script_and_in_its_help() {
        let scripts = [bash(), zsh(), fish()];
        for command in COMMANDS {
            let help = help::of(command);
            for script in &scripts {
                for word in command.name.split(' ') {
                    assert!(script.contains(word), "{word}\n{script}");
                }
            }
            for option in shown(command) {
                let long = format!("--{}", option.long);
                assert!(help.contains(&long), "{long}\n{help}");
                let [bash, zsh, fish] = &scripts;
                assert!(bash.contains(&long) && zsh.contains(&long), "{long}");
                assert!(fish.contains(&format!("-l {}", option.long)), "{long}");
            }
            for option in command.options().filter(|option| option.about.is_empty()) {
                let long = format!("--{} ", option.long);
                assert!(
                    scripts.iter().all(|script| !script.contains(&long)),
                    "{long}"
                );
            }
        }
    }
}
