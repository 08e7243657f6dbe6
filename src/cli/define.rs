//! `hxe create` and `hxe update`: definitions from options, or whole from a file.

use std::io::{self, Read};
use std::process::ExitCode;

use super::args::Args;
use super::connect::client;
use super::failure::{Code, Failure};
use super::output::{Format, Output, tsv};
use super::say;
use super::table::{Opt, Value as Kind, opt};
use super::text::clean;
use crate::client::{Program, Value};
use crate::program;

/// What a program may run as and where; `hxe run` has these, too.
#[rustfmt::skip]
pub const RUNNING: &[Opt] = &[
    opt("directory", None, Kind::One("DIR"), "the directory to run it in"),
    opt("user", None, Kind::One("USER"), "the user to run it as"),
    opt("group", None, Kind::One("GROUP"), "the group to run it as"),
    opt("env", Some('e'), Kind::Many("NAME=VALUE"), "a variable of its environment; may be given several times; for update, NAME alone removes it"),
    opt("umask", None, Kind::One("OCTAL"), "its umask"),
    opt("stop-signal", None, Kind::One("SIGNAL"), "the signal that tells it to stop"),
    opt("stop-timeout", None, Kind::One("TIME"), "how long it may take to stop before it is killed, as in 10s"),
];

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("name", None, Kind::One("NAME"), "its name"),
    opt("description", None, Kind::One("TEXT"), "what it is"),
    opt("command", None, Kind::One("COMMAND"), "a path, or a name to be found in PATH"),
    opt("args", None, Kind::One("ARGS"), "its arguments in one, split as a shell splits words"),
    opt("enabled", None, Kind::Bool, "start it with the daemon"),
    opt("auto-restart", None, Kind::Bool, "start it again when it ends without being asked to"),
    opt("max-restarts", None, Kind::One("N"), "how often in a row; -1: without end"),
    opt("restart-policy", None, Kind::Choice(&["on-failure", "always"]), "whether also after an end with success"),
    opt("restart-delay", None, Kind::One("TIME"), "how long to wait before a restart in a row; doubled each time"),
    opt("success-exit-codes", None, Kind::One("CODES"), "which exit codes are no failure, with commas between"),
    opt("log-disk", None, Kind::Choice(&["all", "errors", "memory"]), "what of its output goes to disk"),
    opt("file", Some('f'), Kind::One("FILE"), "read the definition from this file, as JSON; - is standard input; options come over it"),
    opt("quiet", Some('q'), Kind::No, "print errors only"),
];

#[rustfmt::skip]
pub const START: &[Opt] = &[
    opt("start", None, Kind::No, "start it as well"),
];

/// Bytes of a definition in a file.
const MAX_FILE: u64 = 1024 * 1024;

/// Options that set a field with their text: the option, the field.
const TEXTS: &[(&str, &str)] = &[
    ("name", "name"),
    ("description", "description"),
    ("command", "command"),
    ("args", "args"),
    ("directory", "directory"),
    ("user", "user"),
    ("group", "group"),
    ("umask", "umask"),
    ("stop-signal", "stop_signal"),
    ("stop-timeout", "stop_timeout"),
    ("restart-policy", "restart_policy"),
    ("restart-delay", "restart_delay"),
    ("log-disk", "log_disk"),
];

/// Those of them, and `env`, that a process that runs already does not see.
const OF_THE_PROCESS: &[&str] = &[
    "command",
    "args",
    "directory",
    "user",
    "group",
    "umask",
    "environment",
];

/// `hxe create`.
pub fn create(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let mut body = from_file(args)?.unwrap_or_else(object);
    if let [name, rest @ ..] = args.operands.as_slice() {
        body["name"] = Value::from(name.as_str());
        command_of(rest, &mut body);
    }
    fill(args, &mut body)?;
    for (field, what) in [("name", "NAME"), ("command", "COMMAND")] {
        if body[field].is_null() {
            let what = format!("{what} is missing\nTry 'hxe create --help'.");
            return Err(Failure::usage(what));
        }
    }
    let client = client(args)?;
    let program = client.create_json(&body)?;
    tell(args, &output, &program, "created")?;
    if args.is_on("start") {
        let started = client.start(&program.id);
        started.map_err(|error| Failure::from(error).of(program.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `hxe update`.
pub fn update(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let name = &args.operands[0];
    let client = client(args)?;
    let failed = |error| Failure::from(error).of(name);
    let before = client.get(name).map_err(failed)?;
    let mut body = match from_file(args)? {
        Some(body) => body,
        None => before.json.clone(),
    };
    fill(args, &mut body)?;
    let after = client.update_json(&before.id, &body).map_err(failed)?;
    let is_other = |field: &str| before.json[field] != after.json[field];
    let waits = after.pid.is_some() && OF_THE_PROCESS.iter().any(|field| is_other(field));
    let done = match waits {
        true => "updated; what its process is started with holds from its next start",
        false => "updated",
    };
    tell(args, &output, &after, done)
}

fn tell(args: &Args, output: &Output, program: &Program, done: &str) -> Result<ExitCode, Failure> {
    if args.is_on("quiet") {
        return Ok(ExitCode::SUCCESS);
    }
    say(&match output.format {
        Format::Json => program.json.to_string() + "\n",
        Format::Tsv => tsv(&[program.id.clone(), program.name().to_owned()]),
        Format::Table => format!("{}: {done} ({})\n", clean(program.name()), program.id),
    })
}

/// An empty definition.
pub fn object() -> Value {
    Value::Object(Default::default())
}

/// Sets command and arguments from words.
pub fn command_of(words: &[String], body: &mut Value) {
    if let [command, args @ ..] = words {
        body["command"] = Value::from(command.as_str());
        body["args"] = Value::from(program::args::join(args));
    }
}

fn from_file(args: &Args) -> Result<Option<Value>, Failure> {
    let Some(path) = args.value("file") else {
        return Ok(None);
    };
    let mut text = String::new();
    let read = match path {
        "-" => io::stdin().lock().take(MAX_FILE).read_to_string(&mut text),
        path => {
            std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        }
    };
    if let Err(error) = read {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::Permission,
            _ => Code::Usage,
        };
        return Err(Failure::new(
            code,
            format!("{path} cannot be read: {error}"),
        ));
    }
    let json: Value = text
        .parse()
        .map_err(|error| Failure::usage(format!("{path} is not JSON: {error}")))?;
    match json.is_object() {
        true => Ok(Some(json)),
        false => Err(Failure::usage(format!("{path} is no JSON object"))),
    }
}

/// Puts what options say over a definition.
///
/// # Errors
/// A value that the daemon could not be sent.
pub fn fill(args: &Args, body: &mut Value) -> Result<(), Failure> {
    let has = |long: &str| args.command.options().any(|option| option.long == long);
    for (option, field) in TEXTS {
        if has(option)
            && let Some(text) = args.value(option)
        {
            body[*field] = Value::from(text);
        }
    }
    for (option, field) in [("enabled", "enabled"), ("auto-restart", "auto_restart")] {
        if has(option)
            && let Some(is_on) = args.switch(option)
        {
            body[field] = Value::from(is_on);
        }
    }
    let wrong = |option: &str| Failure::usage(format!("--{option} must be a number"));
    if has("max-restarts")
        && let Some(number) = args.value("max-restarts")
    {
        let number: i64 = number.parse().map_err(|_| wrong("max-restarts"))?;
        body["max_restarts"] = Value::from(number);
    }
    if has("success-exit-codes")
        && let Some(codes) = args.value("success-exit-codes")
    {
        let codes = codes.split(',').map(|code| code.trim().parse::<i64>());
        let codes: Result<Vec<i64>, _> = codes.collect();
        let codes = codes.map_err(|_| {
            Failure::usage("--success-exit-codes must be numbers with commas between")
        })?;
        body["success_exit_codes"] = Value::from(codes);
    }
    for pair in args.all("env") {
        if !body["environment"].is_object() {
            body["environment"] = object();
        }
        match (pair.split_once('='), body["environment"].as_object_mut()) {
            (Some((name, value)), _) => body["environment"][name] = Value::from(value),
            (None, Some(map)) if args.command.name == "update" => {
                map.remove(pair);
            }
            _ => {
                let what = format!("--env must be NAME=VALUE, not {pair:?}");
                return Err(Failure::usage(what));
            }
        }
    }
    Ok(())
}
