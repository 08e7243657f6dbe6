//! The table of all keys.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use crate::api::{Password, Secret};
use crate::program::MaxRestarts;

use super::kind::{Kind, Raw};
use super::{Config, checks, nearest};

/// One key of the configuration.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// As it stands in hxe.toml of a daemon that runs as root; empty: the key sets nothing when left out.
    pub(super) default: &'static str,
    pub(super) kind: Kind,
}

impl Key {
    /// The variable that sets it: `HXE_API_LISTEN`.
    pub(super) fn variable(&self) -> String {
        format!("HXE_{}_{}", self.section, self.name).to_ascii_uppercase()
    }

    /// Sets what holds when nobody says.
    pub(super) fn set_default(&self, config: &mut Config) -> Result<(), String> {
        if self.default.is_empty() {
            return Ok(());
        }
        match DeValue::parse(self.default) {
            Ok(value) => self.kind.set(config, &Raw::of(value.get_ref())),
            Err(error) => Err(error.message().to_owned()),
        }
    }
}

/// `[section] name`
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{}] {}", self.section, self.name)
    }
}

/// The place of a key in the table; its names are literals of this room, each of them tested.
pub(super) fn index(section: &str, name: &str) -> usize {
    KEYS.iter()
        .position(|key| key.section == section && key.name == name)
        .expect("only keys of the table are asked for")
}

/// The sections, in their order.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.chunk_by(|a, b| a.section == b.section)
        .map(|keys| keys[0].section)
}

/// What to say of a section that does not exist.
pub(super) fn unknown_section(name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!(
            "stands outside of its section: put it below [{}]",
            key.section
        );
    }
    let known: Vec<String> = sections().map(|section| format!("[{section}]")).collect();
    match nearest(name, sections()) {
        Some(meant) => format!("there is no such section: did you mean [{meant}]?"),
        None => format!("there is no such section, only {}", known.join(", ")),
    }
}

/// What to say of a key that does not exist.
pub(super) fn unknown_key(section: &str, name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("there is no such key here: it belongs to [{}]", key.section);
    }
    let of_section = || {
        KEYS.iter()
            .filter(|key| key.section == section)
            .map(|key| key.name)
    };
    match nearest(name, of_section()) {
        Some(meant) => format!("there is no such key: did you mean {meant}?"),
        None => "there is no such key: hxe.toml(5) lists them all".to_owned(),
    }
}

/// What to say of a variable that would set a key that does not exist.
pub(super) fn unknown_variable(name: &str) -> String {
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("there is no such setting: did you mean {meant}?"),
        None => "there is no such setting: hxe.toml(5) lists them all".to_owned(),
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A number that the table has kept small and positive.
fn small(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// Every key, in the order of conf/hxe.toml.
pub(super) static KEYS: &[Key] = &[
    Key {
        section: "api",
        name: "listen",
        default: r#"["127.0.0.1:8080", "[::1]:8080"]"#,
        kind: Kind::List {
            allowed: "an address with a port or a list of them, such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\"",
            put: |config, items| checks::listen(items).map(|listen| config.listen = listen),
        },
    },
    Key {
        section: "api",
        name: "hosts",
        default: "[]",
        kind: Kind::List {
            allowed: "a list of host names without port, such as \"device.example.org\"",
            put: |config, items| checks::hosts(items).map(|hosts| config.api.hosts = hosts),
        },
    },
    Key {
        section: "api",
        name: "workers",
        default: "4",
        kind: Kind::Integer {
            range: 1..=64,
            put: |config, n| config.limits.workers = small(n),
        },
    },
    Key {
        section: "api",
        name: "max_connections",
        default: "256",
        kind: Kind::Integer {
            range: 8..=65_536,
            put: |config, n| config.limits.max_connections = small(n),
        },
    },
    Key {
        section: "api",
        name: "max_streams",
        default: "32",
        kind: Kind::Integer {
            range: 1..=1024,
            put: |config, n| config.limits.max_streams = small(n),
        },
    },
    Key {
        section: "api",
        name: "request_timeout",
        default: r#""10s""#,
        kind: Kind::Duration {
            range: Duration::from_millis(100)..=Duration::from_secs(600),
            put: |config, span| config.limits.request_timeout = span,
        },
    },
    Key {
        section: "api",
        name: "max_body",
        default: r#""64KiB""#,
        kind: Kind::Size {
            range: KIB..=16 * MIB,
            put: |config, bytes| {
                // Fits: at most 16 MiB.
                config.limits.max_body = bytes as usize;
                config.api.max_body = bytes as usize;
            },
        },
    },
    Key {
        section: "api",
        name: "username",
        default: r#""admin""#,
        kind: Kind::Text {
            allowed: "1 to 128 characters, none of them a control character",
            put: |config, text| checks::username(text).map(|name| config.api.username = name),
        },
    },
    Key {
        section: "api",
        name: "password",
        default: r#""password""#,
        kind: Kind::Text {
            allowed: "text of 1 to 1024 bytes",
            put: |config, text| {
                checks::password(text)?;
                config.api.password = Password::Plain(text.to_owned());
                Ok(())
            },
        },
    },
    Key {
        section: "api",
        name: "password_hash",
        default: "",
        kind: Kind::Text {
            allowed: "a bcrypt hash of 60 characters that begins with $2a$, $2b$ or $2y$ and a cost from 04 to 14",
            put: |config, text| {
                checks::password_hash(text)?;
                config.api.password = Password::Bcrypt(text.to_owned());
                Ok(())
            },
        },
    },
    Key {
        section: "api",
        name: "token_lifetime",
        default: r#""24h""#,
        kind: Kind::Duration {
            range: Duration::from_secs(1)..=Duration::from_secs(8760 * 3600),
            put: |config, span| config.api.token_lifetime = span,
        },
    },
    Key {
        section: "api",
        name: "rate_limit",
        default: "100",
        kind: Kind::Integer {
            range: 0..=1_000_000,
            put: |config, n| config.api.rate_limit = u32::try_from(n).unwrap_or(0),
        },
    },
    Key {
        section: "api",
        name: "rate_limit_window",
        default: r#""1m""#,
        kind: Kind::Duration {
            range: Duration::from_secs(1)..=DAY,
            put: |config, span| config.api.rate_limit_window = span,
        },
    },
    Key {
        section: "api",
        name: "cors_origins",
        default: "[]",
        kind: Kind::List {
            allowed: "\"*\", or a list of origins without path, such as \"https://example.org\" or \"http://localhost:3000\"",
            put: |config, items| {
                checks::origins(items).map(|origins| config.api.cors_origins = origins)
            },
        },
    },
    Key {
        section: "api",
        name: "socket_group",
        default: r#""""#,
        kind: Kind::Text {
            allowed: "the name or number of a group in /etc/group, or \"\" for none",
            put: |config, text| checks::account(text, true).map(|name| config.socket_group = name),
        },
    },
    Key {
        section: "api",
        name: "metrics_token",
        default: r#""""#,
        kind: Kind::Text {
            allowed: "16 to 1024 letters, digits and other signs of ASCII without spaces, or \"\" for none",
            put: |config, text| {
                checks::metrics_token(text)?;
                config.api.metrics_token = Secret(text.to_owned());
                Ok(())
            },
        },
    },
    Key {
        section: "api",
        name: "dashboard",
        default: "true",
        kind: Kind::Flag {
            put: |config, flag| config.api.dashboard = flag,
        },
    },
    Key {
        section: "storage",
        name: "state_dir",
        default: r#""/var/lib/hxe""#,
        kind: Kind::Text {
            allowed: "an absolute path",
            put: |config, text| checks::storage(text).map(|path| config.storage.state_dir = path),
        },
    },
    Key {
        section: "storage",
        name: "run_dir",
        default: r#""/run/hxe""#,
        kind: Kind::Text {
            allowed: "an absolute path",
            put: |config, text| checks::storage(text).map(|path| config.storage.run_dir = path),
        },
    },
    Key {
        section: "storage",
        name: "log_dir",
        default: r#""/var/log/hxe""#,
        kind: Kind::Text {
            allowed: "an absolute path",
            put: |config, text| checks::storage(text).map(|path| config.storage.log_dir = path),
        },
    },
    Key {
        section: "logs",
        name: "max_size",
        default: r#""1MiB""#,
        kind: Kind::Size {
            range: 4 * KIB..=GIB,
            put: |config, bytes| config.logs.max_size = bytes,
        },
    },
    Key {
        section: "logs",
        name: "max_files",
        default: "5",
        kind: Kind::Integer {
            range: 0..=1000,
            put: |config, n| config.logs.max_files = u32::try_from(n).unwrap_or(0),
        },
    },
    Key {
        section: "logs",
        name: "pipe_size",
        default: r#""64KiB""#,
        kind: Kind::Size {
            range: 4 * KIB..=GIB,
            // Fits: at most 1 GiB.
            put: |config, bytes| config.logs.pipe_size = bytes as usize,
        },
    },
    Key {
        section: "logs",
        name: "on_full",
        default: r#""drop""#,
        kind: Kind::Text {
            allowed: "\"drop\" or \"block\"",
            put: |config, text| checks::on_full(text).map(|on_full| config.logs.on_full = on_full),
        },
    },
    Key {
        section: "logs",
        name: "disk",
        default: r#""all""#,
        kind: Kind::Text {
            allowed: "\"all\", \"errors\" or \"memory\"",
            put: |config, text| checks::log_disk(text).map(|disk| config.logs.disk = disk),
        },
    },
    Key {
        section: "logs",
        name: "ring_size",
        default: r#""64KiB""#,
        kind: Kind::Size {
            range: 8 * KIB..=16 * MIB,
            put: |config, bytes| config.logs.ring_size = bytes,
        },
    },
    Key {
        section: "programs",
        name: "user",
        default: r#""nobody""#,
        kind: Kind::Text {
            allowed: "the name or number of a user in /etc/passwd, but not root",
            put: |config, text| {
                checks::account(text, false).map(|name| config.programs.user = name)
            },
        },
    },
    Key {
        section: "programs",
        name: "directory",
        default: r#""/""#,
        kind: Kind::Text {
            allowed: "an absolute path",
            put: |config, text| checks::path(text).map(|path| config.programs.directory = path),
        },
    },
    Key {
        section: "programs",
        name: "stop_timeout",
        default: r#""10s""#,
        kind: Kind::Duration {
            range: Duration::ZERO..=DAY,
            put: |config, span| config.programs.stop_timeout = span,
        },
    },
    Key {
        section: "programs",
        name: "restart_delay",
        default: r#""1s""#,
        kind: Kind::Duration {
            range: Duration::ZERO..=DAY,
            put: |config, span| config.programs.restart_delay = span,
        },
    },
    Key {
        section: "programs",
        name: "max_restarts",
        default: "3",
        kind: Kind::Integer {
            range: -1..=1_000_000,
            put: |config, n| {
                if let Some(max) = MaxRestarts::from_number(n) {
                    config.programs.max_restarts = max;
                }
            },
        },
    },
    Key {
        section: "programs",
        name: "include",
        default: r#""/etc/hxe/programs.d/*.toml""#,
        kind: Kind::Text {
            allowed: "a path, in which * and ? stand for any characters, or \"\" for none",
            put: |config, text| checks::include(text).map(|pattern| config.include = pattern),
        },
    },
];
