//! `hxe import`: files that declare what a supervisord.conf does.

mod convert;
mod ini;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use super::args::Args;
use super::failure::{Code, Failure};
use super::say;
use super::table::{Opt, Value, opt};
use crate::api::Json;
use crate::config::{self, Config, Environment};
use crate::sys;

use convert::{Context, Converted};
use ini::Section;

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("out", Some('o'), Value::One("DIR"), "where to write the files; default: where [programs] include looks for them"),
    opt("check", None, Value::No, "say what would be written and what cannot be carried over; nothing is written"),
];

/// Sections that only tell supervisord and supervisorctl what to do for themselves.
const SILENT: &[&str] = &[
    "supervisord",
    "supervisorctl",
    "unix_http_server",
    "include",
    "rpcinterface:supervisor",
];

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let check = args.is_on("check");
    let path = std::path::absolute(&args.operands[0])
        .map_err(|error| unreadable(Path::new(&args.operands[0]), &error))?;
    let out = match args.value("out") {
        Some(dir) => PathBuf::from(dir),
        None => usual_directory()?,
    };
    let here = path
        .parent()
        .unwrap_or(Path::new("/"))
        .to_string_lossy()
        .into_owned();
    let mut sections = Vec::new();
    let mut notes = Vec::new();
    read(&path, &mut sections, &mut notes)?;
    for file in included(&sections, &here)? {
        read(&file, &mut sections, &mut notes)?;
    }
    let named = |name: &str| sections.iter().find(|section| section.name == name);
    let mut context = Context {
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        here,
        supervisord: named("supervisord"),
        groups: sections
            .iter()
            .filter(|section| section.name.starts_with("group:"))
            .collect(),
        // A line that says nothing may have been one that names a program.
        failed: notes.len(),
        notes,
    };
    let mut files: Vec<(PathBuf, String, Converted)> = Vec::new();
    for section in &sections {
        if !section.name.starts_with("program:") {
            note_section(&mut context, section);
            continue;
        }
        for program in context.convert(section) {
            if files.iter().any(|(_, _, other)| other.name == program.name) {
                context.failed += 1;
                let what = format!(
                    "{:?} is the name of another program: this one is not written",
                    program.name
                );
                context.note(&section.place, &section.name, "", what);
                continue;
            }
            let name = out.join(file_name(&program.name, files.len(), &files));
            files.push((name, text(section, &program), program));
        }
    }
    for note in &context.notes {
        eprintln!("{note}");
    }
    let mut failed = context.failed;
    let mut said = String::new();
    for (path, text, _) in &files {
        let path_shown = path.display();
        let done = match check {
            true if path.exists() => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            true => Ok(()),
            false => write(&out, path, text),
        };
        match done {
            Ok(()) => drop(writeln!(said, "{path_shown}")),
            Err(error) => {
                failed += 1;
                eprintln!("{path_shown}: not written: {}", sys::reason(&error));
            }
        }
    }
    say(&said)?;
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        _ => Err(Failure::new(
            Code::General,
            format_args!("not all of it was carried over"),
        )),
    }
}

/// Where the daemon looks for declared programs.
fn usual_directory() -> Result<PathBuf, Failure> {
    let config = Config::load(None, &Environment::of_process())
        .map_err(|error| super::daemon::wrong(&error))?;
    let dir = Path::new(&config.include)
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty());
    dir.map(Path::to_owned).ok_or_else(|| {
        Failure::usage("[programs] include of hxe.toml names no directory: name one with --out")
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Code::Usage,
        format_args!("{}: cannot be read: {}", path.display(), sys::reason(error)),
    )
}

fn read(path: &Path, sections: &mut Vec<Section>, notes: &mut Vec<String>) -> Result<(), Failure> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let file: Rc<str> = path.to_string_lossy().into();
    for place in ini::parse(&text, &file, sections) {
        notes.push(format!(
            "{file}:{}: is neither a section nor a key with a value",
            place.line
        ));
    }
    Ok(())
}

/// The files that `[include]` names, in their order.
fn included(sections: &[Section], here: &str) -> Result<Vec<PathBuf>, Failure> {
    let include = sections.iter().find(|section| section.name == "include");
    let Some(entry) = include.and_then(|section| section.entry("files")) else {
        return Ok(Vec::new());
    };
    let lookup = |name: &str| match name {
        "here" => Some(here.to_owned()),
        "host_node_name" => Some(
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        ),
        _ => std::env::var(name.strip_prefix("ENV_")?).ok(),
    };
    let wrong = |what: String| {
        let (file, line) = (&entry.place.file, entry.place.line);
        Failure::new(
            Code::Usage,
            format_args!("{file}:{line}: [include] files: {what}"),
        )
    };
    let patterns = ini::expand(&entry.value, &lookup).map_err(wrong)?;
    let mut files = Vec::new();
    for pattern in patterns.split_whitespace() {
        let pattern = Path::new(here).join(pattern);
        files.extend(config::matching(&pattern.to_string_lossy()).map_err(wrong)?);
    }
    Ok(files)
}

/// Says what becomes of a section that is no program.
fn note_section(context: &mut Context, section: &Section) {
    let name = section.name.as_str();
    if name == "supervisord" {
        for key in ["minfds", "minprocs"] {
            if let Some(entry) = section.entry(key) {
                let what = "not carried over: programs have the limits that hxe was started with";
                context.note(&entry.place, name, key, what);
            }
        }
    }
    if SILENT.contains(&name) {
        return;
    }
    let kind = name.split(':').next().unwrap_or_default();
    let why = match kind {
        "group" => "there are no groups, and its programs are on their own",
        "eventlistener" => {
            "events are told over the WebSocket /api/ws, to \"hxe events\" for example"
        }
        "fcgi-program" => "hxe opens no sockets for programs",
        "inet_http_server" => "[api] of hxe.toml says where hxe listens, and who may log in",
        _ => "no such section is known",
    };
    context.note(
        &section.place,
        name,
        "",
        format_args!("not carried over: {why}"),
    );
}

/// A name for the file that no other one has.
fn file_name(name: &str, index: usize, files: &[(PathBuf, String, Converted)]) -> String {
    let plain = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => letter,
        _ => '_',
    };
    let mut plain: String = name.chars().take(100).map(plain).collect();
    if plain.starts_with('.') {
        plain.insert(0, '_');
    }
    let file = format!("{plain}.toml");
    match files.iter().any(|(path, _, _)| path.ends_with(&file)) {
        true => format!("{plain}-{index}.toml"),
        false => file,
    }
}

fn text(section: &Section, program: &Converted) -> String {
    let mut text = format!(
        "# From {}, line {}, by \"hxe import\".\n\n[program]\n",
        section.place.file, section.place.line
    );
    // A table goes last.
    let (tables, plain): (Vec<_>, Vec<_>) = program
        .fields
        .iter()
        .partition(|(_, value)| matches!(value, Json::Object(_)));
    for (name, value) in plain {
        let _ = writeln!(text, "{name} = {}", toml(value));
    }
    for (name, value) in tables {
        let _ = writeln!(text, "\n[program.{name}]");
        if let Json::Object(pairs) = value {
            for (name, value) in pairs {
                let _ = writeln!(text, "{} = {}", quoted(name), toml(value));
            }
        }
    }
    text
}

fn toml(value: &Json) -> String {
    match value {
        Json::Bool(flag) => flag.to_string(),
        Json::Integer(number) => number.to_string(),
        Json::String(text) => quoted(text),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        // A definition has none.
        Json::Null | Json::Number | Json::Object(_) => String::new(),
    }
}

/// A basic string. Source: TOML 1.0, String.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a file that must not be there yet.
fn write(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)?;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text.as_bytes())
}
