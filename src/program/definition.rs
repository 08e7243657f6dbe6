//! [`Definition`]: what a user says of a program, and the rules that it must keep.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ProgramId, Signal, args};

/// What a user says of a program. `None` means: left out, the configured default holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub name: String,
    pub description: String,
    pub command: String,
    /// Split into words by [`args::split`].
    pub args: String,
    pub directory: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Start with the daemon.
    pub enabled: bool,
    pub auto_restart: bool,
    pub max_restarts: Option<MaxRestarts>,
    pub environment: BTreeMap<String, String>,
    /// 0 to 0o777; default 0o022.
    pub umask: u32,
    pub stop_signal: Signal,
    pub stop_timeout: Option<Duration>,
    pub restart_delay: Option<Duration>,
    pub restart_policy: RestartPolicy,
    pub success_exit_codes: Vec<u8>,
    pub log_disk: Option<LogDisk>,
}

/// Values for what definitions leave out: `[programs]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The user to run as; not asked when the daemon is not root.
    pub user: String,
    pub directory: String,
    pub stop_timeout: Duration,
    pub restart_delay: Duration,
    pub max_restarts: MaxRestarts,
}

/// Automatic restarts in a row before a program counts as failed; written as a number, -1 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxRestarts {
    Unlimited,
    AtMost(u32),
}

impl MaxRestarts {
    /// From the number that a user writes: -1, or 0 to 1,000,000.
    pub fn from_number(number: i64) -> Option<MaxRestarts> {
        match number {
            -1 => Some(MaxRestarts::Unlimited),
            0..=1_000_000 => u32::try_from(number).ok().map(MaxRestarts::AtMost),
            _ => None,
        }
    }

    /// The number that a user writes.
    pub fn number(self) -> i64 {
        match self {
            MaxRestarts::Unlimited => -1,
            MaxRestarts::AtMost(n) => i64::from(n),
        }
    }
}

/// After which ends a program with `auto_restart` comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After any end that was not asked for.
    Always,
    /// After any end that was not asked for and is no success.
    #[default]
    OnFailure,
}

impl RestartPolicy {
    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on-failure",
        }
    }

    /// From what users write: `on-failure` or `always`.
    pub fn from_name(name: &str) -> Option<RestartPolicy> {
        [RestartPolicy::Always, RestartPolicy::OnFailure]
            .into_iter()
            .find(|policy| policy.as_str() == name)
    }
}

/// What of a program's output is written to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogDisk {
    #[default]
    All,
    /// The last before each end that was not asked for; the rest is in memory only.
    Errors,
    /// Nothing: a bounded amount is in memory.
    Memory,
}

impl LogDisk {
    const ALL: [LogDisk; 3] = [LogDisk::All, LogDisk::Errors, LogDisk::Memory];

    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogDisk::All => "all",
            LogDisk::Errors => "errors",
            LogDisk::Memory => "memory",
        }
    }

    /// From what users write: `all`, `errors` or `memory`.
    pub fn from_name(name: &str) -> Option<LogDisk> {
        LogDisk::ALL.into_iter().find(|disk| disk.as_str() == name)
    }
}

/// A rule that a definition breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {issue}")]
pub struct Invalid {
    pub field: &'static str,
    /// A sentence that says what to do, as in "Name is required".
    pub issue: String,
}

impl Invalid {
    pub fn new(field: &'static str, issue: impl Into<String>) -> Invalid {
        Invalid {
            field,
            issue: issue.into(),
        }
    }
}

/// Longest path that the kernel takes. Source: limits.h, PATH_MAX with its NUL.
const PATH_MAX: usize = 4095;
const DESCRIPTION_MAX: usize = 4096;
const NAME_MAX: usize = 128;
/// Longest wait that can be asked for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Definition {
    /// A definition with this name and command and nothing else said.
    pub fn new(name: impl Into<String>, command: impl Into<String>) -> Definition {
        Definition {
            name: name.into(),
            description: String::new(),
            command: command.into(),
            args: String::new(),
            directory: None,
            user: None,
            group: None,
            enabled: false,
            auto_restart: false,
            max_restarts: None,
            environment: BTreeMap::new(),
            umask: 0o022,
            stop_signal: Signal::TERM,
            stop_timeout: None,
            restart_delay: None,
            restart_policy: RestartPolicy::OnFailure,
            success_exit_codes: vec![0],
            log_disk: None,
        }
    }

    /// Checks every rule that needs no look at the system; users, groups and files are checked where they are used.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        self.check_name()?;
        if self.description.chars().count() > DESCRIPTION_MAX {
            return Err(Invalid::new(
                "description",
                format!("Description must be at most {DESCRIPTION_MAX} characters long"),
            ));
        }
        no_nul("description", &self.description)?;
        if self.command.is_empty() {
            return Err(Invalid::new("command", "Command is required"));
        }
        path("command", &self.command)?;
        no_nul("args", &self.args)?;
        args::split(&self.args)
            .map_err(|issue| Invalid::new("args", format!("Args cannot be split: {issue}")))?;
        if let Some(directory) = &self.directory {
            check_directory("directory", directory)?;
        }
        for (field, value) in [("user", &self.user), ("group", &self.group)] {
            if let Some(name) = value {
                if name.is_empty() {
                    return Err(Invalid::new(
                        field,
                        format!("A {field} must not be empty: leave it out for the default"),
                    ));
                }
                no_nul(field, name)?;
            }
        }
        for (name, value) in &self.environment {
            check_variable(name, value)?;
        }
        if self.umask > 0o777 {
            return Err(Invalid::new(
                "umask",
                "Umask must be an octal number from \"000\" to \"777\"",
            ));
        }
        for (field, span) in [
            ("stop_timeout", self.stop_timeout),
            ("restart_delay", self.restart_delay),
        ] {
            if span.is_some_and(|span| span > LONGEST) {
                return Err(Invalid::new(field, "Durations must be at most 24h"));
            }
        }
        Ok(())
    }

    /// Tells apart definitions whose processes differ: two with the same one have the same command, arguments,
    /// directory, user, group, environment and umask. The same in every version of hxe and on every machine.
    pub fn fingerprint(&self) -> u64 {
        let umask = self.umask.to_string();
        let account = [&self.directory, &self.user, &self.group];
        let account = account.map(|field| field.as_deref().unwrap_or_default());
        let texts = [self.command.as_str(), &self.args].into_iter();
        let environment = self.environment.iter();
        let environment = environment.flat_map(|(name, value)| [name.as_str(), value]);
        hash(texts.chain(account).chain(environment).chain([&*umask]))
    }

    fn check_name(&self) -> Result<(), Invalid> {
        let issue = match self.name.as_str() {
            "" => "Name is required",
            name if name.chars().count() > NAME_MAX => "Name must be at most 128 characters long",
            name if name.chars().any(char::is_control) => {
                "Name must not contain control characters"
            }
            name if name.parse::<ProgramId>().is_ok() => {
                "Name must not look like an id (program-N): choose another"
            }
            _ => return Ok(()),
        };
        Err(Invalid::new("name", issue))
    }
}

/// A number for a list of texts, the same in every version of hxe and on every machine.
pub fn hash<'t>(texts: impl IntoIterator<Item = &'t str>) -> u64 {
    // Source: FNV-1a, 64 bits.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in texts {
        // No text has this byte, so that no two lists of texts look alike.
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// Checks a working directory: absolute, no NUL, of a length that the kernel takes.
///
/// # Errors
/// What is wrong, under the name `field`.
pub fn check_directory(field: &'static str, directory: &str) -> Result<(), Invalid> {
    if !directory.starts_with('/') {
        return Err(Invalid::new(
            field,
            "Directory must be an absolute path, beginning with \"/\"",
        ));
    }
    path(field, directory)
}

fn check_variable(name: &str, value: &str) -> Result<(), Invalid> {
    let issue = if name.is_empty() || name.contains('=') {
        format!("{name:?} cannot be the name of a variable: it must not be empty or contain \"=\"")
    } else if name.starts_with("HXE_") {
        format!("{name} cannot be set: names that begin with HXE_ are hxe's own")
    } else if name.contains('\0') || value.contains('\0') {
        format!("{name:?} must not contain a NUL character")
    } else {
        return Ok(());
    };
    Err(Invalid::new("environment", issue))
}

fn path(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.len() > PATH_MAX {
        return Err(Invalid::new(
            field,
            format!("A path must be at most {PATH_MAX} bytes long"),
        ));
    }
    no_nul(field, text)
}

fn no_nul(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(field, "A NUL character is not allowed here"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: &str, change: impl FnOnce(&mut Definition)) {
        let mut definition = Definition::new("Web Server", "/usr/sbin/nginx");
        assert_eq!(definition.check(), Ok(()));
        change(&mut definition);
        assert_eq!(definition.check().unwrap_err().field, field);
    }

    #[test]
    fn names_have_rules() {
        check("name", |d| d.name = String::new());
        check("name", |d| d.name = "x".repeat(129));
        check("name", |d| d.name = "a\nb".into());
        check("name", |d| d.name = "program-3".into());
        assert_eq!(Definition::new("é".repeat(128), "x").check(), Ok(()));
        assert_eq!(Definition::new("program-x", "x").check(), Ok(()));
    }

    #[test]
    fn nul_is_nowhere_allowed() {
        check("description", |d| d.description = "\0".into());
        check("command", |d| d.command = "a\0".into());
        check("args", |d| d.args = "\0".into());
        check("directory", |d| d.directory = Some("/\0".into()));
        check("user", |d| d.user = Some("a\0".into()));
        check("group", |d| d.group = Some("a\0".into()));
        check("environment", |d| {
            drop(d.environment.insert("A".into(), "\0".into()))
        });
        check("environment", |d| {
            drop(d.environment.insert("A\0".into(), String::new()))
        });
    }

    #[test]
    fn the_rest_has_rules_too() {
        check("command", |d| d.command = String::new());
        check("command", |d| d.command = "x".repeat(5000));
        check("args", |d| d.args = "'".into());
        check("directory", |d| d.directory = Some("tmp".into()));
        check("directory", |d| d.directory = Some(String::new()));
        check("user", |d| d.user = Some(String::new()));
        check("environment", |d| {
            drop(d.environment.insert("HXE_RUN_ID".into(), "1".into()))
        });
        check("environment", |d| {
            drop(d.environment.insert("A=B".into(), "1".into()))
        });
        check("environment", |d| {
            drop(d.environment.insert(String::new(), "1".into()))
        });
        check("umask", |d| d.umask = 0o1000);
        check("stop_timeout", |d| {
            d.stop_timeout = Some(Duration::from_secs(86_401))
        });
        check("restart_delay", |d| {
            d.restart_delay = Some(Duration::from_secs(86_401))
        });
    }

    #[test]
    fn the_fingerprint_tells_what_matters_to_the_process() {
        let first = Definition::new("a", "/bin/true");
        let differs = |change: fn(&mut Definition)| {
            let mut other = first.clone();
            change(&mut other);
            other.fingerprint() != first.fingerprint()
        };
        assert!(differs(|d| d.command.push('x')));
        assert!(differs(|d| d.args.push('x')));
        assert!(differs(|d| d.directory = Some("/".into())));
        assert!(differs(|d| d.user = Some("a".into())));
        assert!(differs(|d| d.group = Some("a".into())));
        assert!(differs(|d| d.umask = 0));
        assert!(differs(|d| {
            d.environment.insert("A".into(), String::new());
        }));
        assert!(!differs(|d| d.name.push('x')));
        assert!(!differs(|d| d.enabled = true));
        assert!(!differs(|d| d.stop_timeout = Some(Duration::ZERO)));
        assert!(!differs(|d| d.max_restarts = Some(MaxRestarts::Unlimited)));
        // It is kept over upgrades.
        assert_eq!(first.fingerprint(), 0x283dafb000aae539);
    }

    #[test]
    fn max_restarts_is_minus_one_or_a_count() {
        assert_eq!(MaxRestarts::from_number(-1), Some(MaxRestarts::Unlimited));
        assert_eq!(MaxRestarts::from_number(3), Some(MaxRestarts::AtMost(3)));
        assert_eq!(MaxRestarts::from_number(-2), None);
        assert_eq!(MaxRestarts::from_number(1_000_001), None);
        assert_eq!(MaxRestarts::Unlimited.number(), -1);
    }
}
