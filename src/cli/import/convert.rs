//! From a `[program:x]` to the fields of definitions, one for each of its processes.

use std::fmt::Display;

use super::ini::{Entry, Place, Section, expand, variables};
use crate::api::{self, Json};
use crate::program::args;
use crate::sys::{process, users};

/// Keys that say nothing that hxe does otherwise.
const SILENT: &[&str] = &[
    "command",
    "process_name",
    "numprocs",
    "numprocs_start",
    "autostart",
    "autorestart",
    "exitcodes",
    "startretries",
    "stopsignal",
    "stopwaitsecs",
    "user",
    "directory",
    "umask",
    "environment",
    "serverurl",
];

/// Keys that cannot be carried over, by their beginning, and why.
const NOT_THERE: &[(&str, &str)] = &[
    (
        "startsecs",
        "a program counts as started at once, and its restart waits if it ran for less than a second",
    ),
    (
        "priority",
        "programs start in order of their ids, and stop in the reverse order",
    ),
    (
        "redirect_stderr",
        "standard error has a file of its own; \"hxe logs\" shows both in order of time",
    ),
    (
        "stdout_logfile_",
        "[logs] of hxe.toml says when log files are rotated",
    ),
    (
        "stderr_logfile_",
        "[logs] of hxe.toml says when log files are rotated",
    ),
    (
        "stdout_logfile",
        "logs are in log_dir, in a directory a program",
    ),
    (
        "stderr_logfile",
        "logs are in log_dir, in a directory a program",
    ),
    (
        "stdout_",
        "what programs write is kept as it is, and told to who follows it",
    ),
    (
        "stderr_",
        "what programs write is kept as it is, and told to who follows it",
    ),
];

/// What conversions share.
pub struct Context<'a> {
    /// The directory of the configuration.
    pub here: String,
    pub host: String,
    pub supervisord: Option<&'a Section>,
    pub groups: Vec<&'a Section>,
    /// What could not be carried over: a line each.
    pub notes: Vec<String>,
    /// Programs that could not.
    pub failed: usize,
}

/// A program, as a file can declare it.
pub struct Converted {
    pub name: String,
    pub fields: Vec<(String, Json)>,
}

impl Context<'_> {
    /// Notes what is said at a place.
    pub fn note(&mut self, place: &Place, section: &str, key: &str, what: impl Display) {
        let key = if key.is_empty() {
            String::new()
        } else {
            format!(" {key}")
        };
        let Place { file, line } = place;
        self.notes
            .push(format!("{file}:{line}: [{section}]{key}: {what}"));
    }

    /// Converts a section; the processes that it stands for, none if that is not possible.
    pub fn convert(&mut self, section: &Section) -> Vec<Converted> {
        let program = section
            .name
            .strip_prefix("program:")
            .unwrap_or_default()
            .trim();
        self.note_keys(section);
        let number = |key: &str, default: u32| {
            let entry = section.entry(key);
            entry.map_or(Ok(default), |entry| entry.value.parse().map_err(|_| entry))
        };
        let mut converted = Vec::new();
        match (number("numprocs", 1), number("numprocs_start", 0)) {
            (Ok(count @ 1..=1000), Ok(start)) => {
                for process in 0..count {
                    let one = One {
                        context: self,
                        section,
                        program,
                        number: start.saturating_add(process),
                        count,
                    };
                    match one.convert() {
                        Ok(one) => converted.push(one),
                        Err((place, key, what)) => {
                            self.failed += 1;
                            let what = format!("{what}: this program is not written");
                            self.note(&place, &section.name, &key, what);
                            break;
                        }
                    }
                }
            }
            (Err(entry), _) | (_, Err(entry)) => self.refuse(section, entry),
            _ => {
                if let Some(entry) = section.entry("numprocs") {
                    self.refuse(section, entry);
                }
            }
        }
        converted
    }

    fn refuse(&mut self, section: &Section, entry: &Entry) {
        self.failed += 1;
        let what = format!("{:?} cannot be: this program is not written", entry.value);
        self.note(&entry.place, &section.name, &entry.key, what);
    }

    fn note_keys(&mut self, section: &Section) {
        for entry in &section.entries {
            let (key, value) = (entry.key.as_str(), entry.value.as_str());
            let is_asgroup = matches!(key, "stopasgroup" | "killasgroup");
            if SILENT.contains(&key) || is_asgroup && flag(value) == Some(true) {
                continue;
            }
            let why = match NOT_THERE.iter().find(|(known, _)| key.starts_with(known)) {
                _ if is_asgroup => "signals go to the whole process group",
                Some((_, _))
                    if matches!(
                        (key, value),
                        ("startsecs", "1") | ("redirect_stderr", "false")
                    ) =>
                {
                    continue;
                }
                Some((_, why)) => why,
                None => "is no key that is known",
            };
            self.note(
                &entry.place,
                &section.name,
                key,
                format!("not carried over: {why}"),
            );
        }
    }
}

/// One process of a section.
struct One<'c, 'a> {
    context: &'c Context<'a>,
    section: &'c Section,
    program: &'c str,
    number: u32,
    count: u32,
}

/// Where something is wrong, at which key, and what.
type Wrong = (Place, String, String);

impl One<'_, '_> {
    fn convert(&self) -> Result<Converted, Wrong> {
        let mut fields = Vec::new();
        let mut put = |name: &str, value: Json| fields.push((name.to_owned(), value));
        let name = match self.text("process_name")? {
            None => self.program.to_owned(),
            // supervisorctl calls it so, where its own name does not tell whose it is.
            Some(name) if !name.contains(self.program) => format!("{}:{name}", self.program),
            Some(name) => name,
        };
        put("name", Json::String(name.clone()));
        let command = self.text("command")?.unwrap_or_default();
        let words = args::split(&command).map_err(|what| self.wrong("command", what))?;
        let (first, rest) = words
            .split_first()
            .ok_or_else(|| self.wrong("command", "there is none"))?;
        put("command", Json::String(first.clone()));
        if !rest.is_empty() {
            put("args", Json::String(args::join(rest)));
        }
        if let Some(directory) = self
            .text("directory")?
            .or(self.of_supervisord("directory")?)
        {
            put("directory", Json::String(directory));
        }
        if let Some(user) = self.user()? {
            put("user", Json::String(user));
        }
        put(
            "enabled",
            Json::Bool(self.flag("autostart")?.unwrap_or(true)),
        );
        let restart = self
            .text("autorestart")?
            .unwrap_or_else(|| "unexpected".to_owned());
        let always = match restart.to_lowercase().as_str() {
            "unexpected" => Some(false),
            other => match flag(other)
                .ok_or_else(|| self.wrong("autorestart", format!("{other:?} cannot be")))?
            {
                true => Some(true),
                false => None,
            },
        };
        put("auto_restart", Json::Bool(always.is_some()));
        if always == Some(true) {
            put("restart_policy", Json::String("always".to_owned()));
        }
        if let Some(retries) = self.text("startretries")? {
            put("max_restarts", self.number("startretries", &retries)?);
        }
        if let Some(codes) = self.text("exitcodes")? {
            let codes = codes
                .split(',')
                .map(str::trim)
                .filter(|code| !code.is_empty());
            let codes: Result<_, _> = codes.map(|code| self.number("exitcodes", code)).collect();
            put("success_exit_codes", Json::Array(codes?));
        }
        if let Some(signal) = self.text("stopsignal")? {
            put("stop_signal", Json::String(signal));
        }
        if let Some(seconds) = self.text("stopwaitsecs")? {
            self.number("stopwaitsecs", &seconds)?;
            put("stop_timeout", Json::String(format!("{seconds}s")));
        }
        if let Some(umask) = self.text("umask")?.or(self.of_supervisord("umask")?) {
            put("umask", Json::String(umask));
        }
        let mut environment: Vec<(String, Json)> = Vec::new();
        for text in [
            self.of_supervisord("environment")?,
            self.text("environment")?,
        ] {
            let set = variables(&text.unwrap_or_default());
            for (name, value) in set.map_err(|what| self.wrong("environment", what))? {
                environment.retain(|(earlier, _)| *earlier != name);
                environment.push((name, Json::String(value)));
            }
        }
        if !environment.is_empty() {
            put("environment", Json::Object(environment));
        }
        // What the daemon would not take is not written.
        api::declared(fields.clone()).map_err(|(field, issue)| self.wrong(&field, issue))?;
        Ok(Converted { name, fields })
    }

    /// As whom: as supervisord where nothing is said. Only root's hxe can run it as somebody else.
    fn user(&self) -> Result<Option<String>, Wrong> {
        let user = self.text("user")?.or(self.of_supervisord("user")?);
        if process::is_root() {
            return Ok(Some(user.unwrap_or_else(|| "root".to_owned())));
        }
        let own = users::own();
        match user {
            Some(user) if user != own.user_name && user != own.uid.to_string() => Err(self.wrong(
                "user",
                format!("only root's hxe can run it as {user:?}: import as root"),
            )),
            _ => Ok(None),
        }
    }

    /// The value of a key, with all put in that it names.
    fn text(&self, key: &str) -> Result<Option<String>, Wrong> {
        self.expanded(self.section, key)
    }

    fn of_supervisord(&self, key: &str) -> Result<Option<String>, Wrong> {
        let section = self.context.supervisord;
        section.map_or(Ok(None), |section| self.expanded(section, key))
    }

    fn expanded(&self, section: &Section, key: &str) -> Result<Option<String>, Wrong> {
        let Some(entry) = section.entry(key).filter(|entry| !entry.value.is_empty()) else {
            return Ok(None);
        };
        let wrong = |what| (entry.place.clone(), key.to_owned(), what);
        expand(&entry.value, &|name| self.lookup(name))
            .map(Some)
            .map_err(wrong)
    }

    fn lookup(&self, name: &str) -> Option<String> {
        Some(match name {
            "program_name" => self.program.to_owned(),
            "process_num" => self.number.to_string(),
            "numprocs" => self.count.to_string(),
            "group_name" => {
                let mut groups = self.context.groups.iter();
                let group = groups.find(|group| {
                    let programs = group
                        .entry("programs")
                        .map_or("", |entry| entry.value.as_str());
                    programs
                        .split([',', ' ', '\n'])
                        .any(|name| name == self.program)
                });
                group
                    .map_or(self.program, |group| {
                        group.name.trim_start_matches("group:")
                    })
                    .to_owned()
            }
            "here" => self.context.here.clone(),
            "host_node_name" => self.context.host.clone(),
            _ => std::env::var(name.strip_prefix("ENV_")?).ok()?,
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Wrong> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let value = flag(&text)
            .ok_or_else(|| self.wrong(key, format!("{text:?} is neither true nor false")))?;
        Ok(Some(value))
    }

    fn number(&self, key: &str, text: &str) -> Result<Json, Wrong> {
        let number = text.parse().map(Json::Integer);
        number.map_err(|_| self.wrong(key, format!("{text:?} is not a number")))
    }

    fn wrong(&self, key: &str, what: impl Display) -> Wrong {
        let entry = self.section.entry(key);
        let place = entry.map_or(&self.section.place, |entry| &entry.place);
        (place.clone(), key.to_owned(), what.to_string())
    }
}

/// Source: supervisor/datatypes.py, boolean.
fn flag(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}
