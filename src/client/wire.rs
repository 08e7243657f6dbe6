//! What answers hold and bodies are made of. Fields that are missing, null or new are no error: daemons older and newer
//! than the client are understood as far as possible, and `json` has what came, in full.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What a program is to be. What is `None` or empty gets the daemon's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    pub name: String,
    /// A path, or a name that is looked up in PATH.
    pub command: String,
    /// Split into words as a shell does.
    pub args: String,
    pub description: String,
    pub directory: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Starts with the daemon.
    pub enabled: bool,
    pub auto_restart: bool,
    /// -1: without end.
    pub max_restarts: Option<i64>,
    pub environment: BTreeMap<String, String>,
    /// Octal, `022`.
    pub umask: Option<String>,
    /// `TERM`, without `SIG`.
    pub stop_signal: Option<String>,
    /// `10s`
    pub stop_timeout: Option<String>,
    /// `1s`
    pub restart_delay: Option<String>,
    /// `on-failure` or `always`
    pub restart_policy: Option<String>,
    pub success_exit_codes: Option<Vec<u8>>,
    /// `all`, `errors` or `memory`
    pub log_disk: Option<String>,
}

impl Definition {
    /// The least that there is to say.
    pub fn new(name: impl Into<String>, command: impl Into<String>) -> Definition {
        Definition {
            name: name.into(),
            command: command.into(),
            ..Definition::default()
        }
    }

    fn read(json: &Value) -> Definition {
        let field = |name| json[name].as_str().map(str::to_owned);
        let pairs = json["environment"].as_object().into_iter().flatten();
        let codes = json["success_exit_codes"].as_array();
        Definition {
            name: text(&json["name"]),
            command: text(&json["command"]),
            args: text(&json["args"]),
            description: text(&json["description"]),
            directory: field("directory"),
            user: field("user"),
            group: field("group"),
            enabled: flag(&json["enabled"]),
            auto_restart: flag(&json["auto_restart"]),
            max_restarts: integer(&json["max_restarts"]),
            environment: pairs
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            umask: field("umask"),
            stop_signal: field("stop_signal"),
            stop_timeout: field("stop_timeout"),
            restart_delay: field("restart_delay"),
            restart_policy: field("restart_policy"),
            success_exit_codes: codes.map(|codes| {
                let codes = codes.iter().filter_map(integer);
                codes.filter_map(|code| code.try_into().ok()).collect()
            }),
            log_disk: field("log_disk"),
        }
    }

    /// The body of a request.
    pub(super) fn to_json(&self) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        for (name, value) in [
            ("name", &self.name),
            ("command", &self.command),
            ("args", &self.args),
            ("description", &self.description),
        ] {
            put(name, Value::from(value.as_str()));
        }
        for (name, value) in [
            ("directory", &self.directory),
            ("user", &self.user),
            ("group", &self.group),
            ("umask", &self.umask),
            ("stop_signal", &self.stop_signal),
            ("stop_timeout", &self.stop_timeout),
            ("restart_delay", &self.restart_delay),
            ("restart_policy", &self.restart_policy),
            ("log_disk", &self.log_disk),
        ] {
            if let Some(value) = value {
                put(name, Value::from(value.as_str()));
            }
        }
        put("enabled", self.enabled.into());
        put("auto_restart", self.auto_restart.into());
        if let Some(most) = self.max_restarts {
            put("max_restarts", most.into());
        }
        if !self.environment.is_empty() {
            let pairs = self.environment.iter();
            let pairs = pairs.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            put("environment", Value::Object(pairs.collect()));
        }
        if let Some(codes) = &self.success_exit_codes {
            let codes = codes.iter().map(|code| Value::from(*code));
            put("success_exit_codes", Value::Array(codes.collect()));
        }
        Value::Object(body)
    }
}

/// A program: what it is to be, and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// `program-1`
    pub id: String,
    /// With the values that hold where it was created without.
    pub definition: Definition,
    /// `running`, `stopped` or `error`
    pub status: String,
    /// Finer: `stopped`, `running`, `stopping`, `backoff`, `failed`, `exited`.
    pub state: String,
    pub pid: Option<i64>,
    /// Of the last run; 128 + n if signal n ended it. `None` while it runs, and where it is not known.
    pub exit_code: Option<i64>,
    /// `KILL`
    pub exit_signal: Option<String>,
    /// When the present or last run began, RFC 3339.
    pub start_time: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    /// The file that declares it, and alone changes it.
    pub declared: Option<String>,
    /// As it came.
    pub json: Value,
}

impl Program {
    pub(super) fn read(json: Value) -> Program {
        Program {
            id: text(&json["id"]),
            definition: Definition::read(&json),
            status: text(&json["status"]),
            state: text(&json["state"]),
            pid: integer(&json["pid"]),
            exit_code: integer(&json["exit_code"]),
            exit_signal: json["exit_signal"].as_str().map(str::to_owned),
            start_time: json["start_time"].as_str().map(str::to_owned),
            created_at: text(&json["created_at"]),
            updated_at: text(&json["updated_at"]),
            declared: json["declared"].as_str().map(str::to_owned),
            json,
        }
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }
}

/// What a start, stop, restart, enable, disable or delete came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// `program-1`; empty for a program that is gone.
    pub id: String,
    /// `running`, `stopped` or `error`; empty where that is not what was asked about.
    pub status: String,
    pub pid: Option<i64>,
    /// Of a program that was stopped.
    pub exit_code: Option<i64>,
    /// A sentence for people.
    pub message: String,
    /// Processes that a program left and that could not be ended: pid and name.
    pub left_behind: Vec<(i64, String)>,
    /// As it came.
    pub json: Value,
}

impl Outcome {
    pub(super) fn read(json: Value) -> Outcome {
        let left = json["left_behind"].as_array().into_iter().flatten();
        Outcome {
            id: text(&json["id"]),
            status: text(&json["status"]),
            pid: integer(&json["pid"]),
            exit_code: integer(&json["exit_code"]),
            message: text(&json["message"]),
            left_behind: left
                .filter_map(|process| Some((integer(&process["pid"])?, text(&process["name"]))))
                .collect(),
            json,
        }
    }
}

/// A token, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub token: String,
    /// RFC 3339.
    pub expires_at: String,
}

/// Never shows the token.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "(token until {})", self.expires_at)
    }
}

impl Token {
    pub(super) fn read(json: &Value) -> Token {
        Token {
            token: text(&json["token"]),
            expires_at: text(&json["expires_at"]),
        }
    }
}

/// A line of a program's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// RFC 3339, UTC, milliseconds.
    pub timestamp: String,
    /// `debug`, `info`, `warn` or `error`
    pub level: String,
    pub message: String,
    /// `stdout`, `stderr` or `hxe`
    pub stream: String,
}

impl LogEntry {
    pub(super) fn read(json: &Value) -> LogEntry {
        LogEntry {
            timestamp: text(&json["timestamp"]),
            level: text(&json["level"]),
            message: text(&json["message"]),
            stream: text(&json["stream"]),
        }
    }
}

/// What a program uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub program_id: String,
    /// Percent of one CPU.
    pub cpu_usage: f64,
    pub memory_bytes: u64,
    /// Seconds.
    pub uptime: u64,
    /// Automatic ones, since the last start by request.
    pub restart_count: u64,
    pub last_restart: Option<String>,
    /// As it came.
    pub json: Value,
}

impl Metrics {
    pub(super) fn read(json: Value) -> Metrics {
        let metrics = &json["metrics"];
        Metrics {
            program_id: text(&json["program_id"]),
            cpu_usage: number(&metrics["cpu_usage"]),
            memory_bytes: count(&metrics["memory_bytes"]),
            uptime: count(&metrics["uptime"]),
            restart_count: count(&metrics["restart_count"]),
            last_restart: metrics["last_restart"].as_str().map(str::to_owned),
            json,
        }
    }
}

/// How a run of a program ended, or that it could not begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Counts the ends of the program.
    pub number: u64,
    /// `exit`, `crash`, `start_failed`, or what was asked for: `stop`, `restart`, `delete`, `reload`, `shutdown`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Who asked, where somebody did who has a name.
    pub user: Option<String>,
    /// `api`, `hxe` or `signal`, where somebody asked.
    pub via: Option<String>,
    /// 128 + n where signal n ended it.
    pub exit_code: Option<i64>,
    pub exit_signal: Option<String>,
    pub pid: Option<i64>,
    /// RFC 3339, UTC, milliseconds.
    pub start_time: Option<String>,
    pub end_time: String,
    /// Seconds.
    pub run_time: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub max_memory_bytes: Option<u64>,
    /// The last 4 KiB that it wrote.
    pub output: Option<String>,
    /// As it came.
    pub json: Value,
}

impl Exit {
    pub(super) fn read(json: Value) -> Exit {
        let some = |value: &Value| value.as_str().map(str::to_owned);
        Exit {
            number: count(&json["number"]),
            reason: text(&json["reason"]),
            message: text(&json["message"]),
            user: some(&json["by"]["user"]),
            via: some(&json["by"]["via"]),
            exit_code: integer(&json["exit_code"]),
            exit_signal: some(&json["exit_signal"]),
            pid: integer(&json["pid"]),
            start_time: some(&json["start_time"]),
            end_time: text(&json["end_time"]),
            run_time: json["run_time"].as_f64(),
            cpu_seconds: json["cpu_seconds"].as_f64(),
            max_memory_bytes: json["max_memory_bytes"].as_u64(),
            output: some(&json["output"]),
            json,
        }
    }
}

/// What the machine and all programs use, and used before.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// For [`Client::history`](super::Client::history) the next time.
    pub next: u64,
    /// When samples were taken, in seconds since 1970, in order.
    pub times: Vec<f64>,
    /// Percent of the machine, at each of these times.
    pub cpu_usage: Vec<f64>,
    pub memory_bytes: Vec<u64>,
    pub programs: Vec<ProgramHistory>,
    /// As it came.
    pub json: Value,
}

/// The same of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramHistory {
    /// Now.
    pub metrics: Metrics,
    /// Percent of one CPU, at each of the times; `None` where it did not run.
    pub cpu_usage: Vec<Option<f64>>,
    pub memory_bytes: Vec<Option<u64>>,
}

impl History {
    pub(super) fn read(json: Value) -> History {
        let programs = list(&json["programs"]).map(|program| {
            let metrics = Metrics::read(json!({
                "program_id": program["program_id"],
                "metrics": program["metrics"],
            }));
            ProgramHistory {
                metrics,
                cpu_usage: list(&program["cpu_usage"]).map(Value::as_f64).collect(),
                memory_bytes: list(&program["memory_bytes"]).map(Value::as_u64).collect(),
            }
        });
        History {
            next: count(&json["next"]),
            times: list(&json["times"]).map(number).collect(),
            cpu_usage: list(&json["system"]["cpu_usage"]).map(number).collect(),
            memory_bytes: list(&json["system"]["memory_bytes"]).map(count).collect(),
            programs: programs.collect(),
            json,
        }
    }
}

/// What the machine uses, and how many programs there are.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemMetrics {
    /// Percent of the whole machine.
    pub cpu_usage: f64,
    pub memory_bytes: u64,
    /// Percent of the file system that holds the daemon's state; `None` where it cannot be known.
    pub disk_usage: Option<f64>,
    /// Seconds.
    pub uptime: u64,
    pub total: u64,
    pub running: u64,
    pub stopped: u64,
    pub error: u64,
    /// As it came.
    pub json: Value,
}

impl SystemMetrics {
    pub(super) fn read(json: Value) -> SystemMetrics {
        let (system, programs) = (&json["system"], &json["programs"]);
        SystemMetrics {
            cpu_usage: number(&system["cpu_usage"]),
            memory_bytes: count(&system["memory_bytes"]),
            disk_usage: system["disk_usage"].as_f64(),
            uptime: count(&system["uptime"]),
            total: count(&programs["total"]),
            running: count(&programs["running"]),
            stopped: count(&programs["stopped"]),
            error: count(&programs["error"]),
            json,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `program.started`, `.stopped`, `.restarted`, `.error`, `log.new`, `log.dropped`; others may come to be.
    pub kind: String,
    pub program_id: String,
    /// RFC 3339, UTC, milliseconds.
    pub timestamp: String,
    /// Of `program.*`: `name`, `status`, `pid`, `exit_code`, `message` and the like. Of `log.new`: the entry.
    pub data: Value,
    /// As it came.
    pub json: Value,
}

impl Event {
    pub(super) fn read(json: Value) -> Event {
        Event {
            kind: text(&json["type"]),
            program_id: text(&json["program_id"]),
            timestamp: text(&json["timestamp"]),
            data: json["data"].clone(),
            json,
        }
    }

    /// The line that a `log.new` is about.
    pub fn log_entry(&self) -> Option<LogEntry> {
        (self.kind == "log.new").then(|| LogEntry::read(&self.data))
    }
}

fn list(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

/// A text; empty where there is none.
pub fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

/// A whole number, also one that is written as `3.0`.
pub fn integer(json: &Value) -> Option<i64> {
    json.as_i64().or_else(|| {
        let number = json.as_f64()?;
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

fn count(json: &Value) -> u64 {
    integer(json)
        .and_then(|n| n.try_into().ok())
        .unwrap_or_default()
}

fn number(json: &Value) -> f64 {
    json.as_f64().unwrap_or_default()
}

fn flag(json: &Value) -> bool {
    json.as_bool().unwrap_or_default()
}
