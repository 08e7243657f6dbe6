//! From a definition to a process: as whom, with which environment, by which path.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::Rlimit;

use super::supervisor::Settings;
use super::{Effective, Refusal};
use crate::program::{Definition, Invalid, Program, args};
use crate::sys;
use crate::sys::process::{self, Pid};
use crate::sys::spawn::{Ids, Spawn, SpawnError, Step, c_string, exists, spawn};
use crate::sys::users::{self, Identity, LookupError};

/// Where names without a slash are looked for, unless the program's environment says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the daemon's own environment passes on.
const PASSED_ON: [&str; 2] = ["LANG", "TZ"];

/// As whom a program is to run: looked up now, and checked against what this daemon may do.
///
/// # Errors
/// `Invalid` for a user or group that is not there or cannot be had, `Forbidden` for one that the default password bars,
/// unless a file that only root can write declares it.
pub(super) fn identify(
    definition: &Definition,
    settings: &Settings,
    declared: bool,
) -> Result<Identity, Refusal> {
    if !process::is_root() {
        return identify_own(definition);
    }
    let identity = look_up(definition, settings).map_err(unknown)?;
    if settings.any_user || declared {
        return Ok(identity);
    }
    let allowed = users::lookup(&settings.defaults.user, None).map_err(unknown)?;
    let barred = |field, what: &str, name: &str| {
        Refusal::Forbidden(Invalid::new(
            field,
            format!(
                "While hxe has its default password, programs may only run as {:?} with that user's own groups, not \
                 as {what} {name:?}: set password or password_hash in [api] of hxe.toml",
                allowed.user_name
            ),
        ))
    };
    if identity.uid != allowed.uid {
        return Err(barred("user", "user", &identity.user_name));
    }
    if identity.gid != allowed.gid && !allowed.groups.contains(&identity.gid) {
        return Err(barred("group", "group", &identity.group_name));
    }
    Ok(identity)
}

/// As whom root would run it.
fn look_up(definition: &Definition, settings: &Settings) -> Result<Identity, LookupError> {
    let user = definition.user.as_ref().unwrap_or(&settings.defaults.user);
    users::lookup(user, definition.group.as_deref())
}

/// An ordinary user can run programs only as itself.
fn identify_own(definition: &Definition) -> Result<Identity, Refusal> {
    let own = users::own();
    let mine = |field, wanted: &str, name: &str| {
        let issue = format!(
            "As hxe does not run as root, its programs can only run with its own {field} {name:?}, not {wanted:?}: leave \
             {field} out"
        );
        Refusal::Invalid(Invalid::new(field, issue))
    };
    if let Some(user) = &definition.user
        && *user != own.user_name
        && users::lookup(user, Some(&own.gid.to_string()))
            .map_err(unknown)?
            .uid
            != own.uid
    {
        return Err(mine("user", user, &own.user_name));
    }
    if let Some(group) = &definition.group
        && users::lookup(&own.uid.to_string(), Some(group))
            .map_err(unknown)?
            .gid
            != own.gid
    {
        return Err(mine("group", group, &own.group_name));
    }
    Ok(own)
}

fn unknown(error: LookupError) -> Refusal {
    let field = match error {
        LookupError::NoUser(_) | LookupError::NotAnId(_) | LookupError::Unreadable { .. } => "user",
        LookupError::NoGroup(_) | LookupError::GroupNeeded(_) => "group",
    };
    let mut issue = error.to_string();
    if let LookupError::Unreadable { source, .. } = &error {
        issue = format!("{issue}: {}", sys::reason(source));
    }
    Refusal::Invalid(Invalid::new(field, issue))
}

/// Definition and defaults taken together. A user or group that cannot be looked up is shown as it was written.
pub(super) fn effective(definition: &Definition, settings: &Settings) -> Effective {
    let defaults = &settings.defaults;
    // Whether it may be had at present is not asked: that ends with the default password.
    let identity = match process::is_root() {
        true => look_up(definition, settings).ok(),
        false => identify_own(definition).ok(),
    };
    let user = definition
        .user
        .clone()
        .or_else(|| identity.as_ref().map(|i| i.user_name.clone()));
    let group = definition
        .group
        .clone()
        .or_else(|| identity.map(|i| i.group_name));
    Effective {
        directory: definition
            .directory
            .clone()
            .unwrap_or_else(|| defaults.directory.clone()),
        user: user.unwrap_or_else(|| defaults.user.clone()),
        group: group.unwrap_or_default(),
        max_restarts: definition
            .max_restarts
            .unwrap_or(defaults.max_restarts)
            .number(),
        stop_timeout: definition.stop_timeout.unwrap_or(defaults.stop_timeout),
        restart_delay: definition.restart_delay.unwrap_or(defaults.restart_delay),
    }
}

/// What all starts share.
pub(super) struct Base {
    /// Standard input of every program.
    pub null: OwnedFd,
    /// The limit of open files that the daemon was started with.
    pub open_files: Rlimit,
}

/// What a run is given to begin with.
pub(super) struct Given<'a> {
    pub run_id: &'a str,
    /// Where its output goes: stdout, stderr.
    pub output: &'a [OwnedFd; 2],
    /// To start in, if there is one.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Makes all that the start of a program's process takes.
///
/// # Errors
/// A sentence with the reason.
pub(super) fn prepare<'a>(
    base: &'a Base,
    program: &Program,
    effective: &Effective,
    identity: &Identity,
    given: &Given<'a>,
) -> Result<Spawn<'a>, String> {
    let definition = &program.definition;
    let environment = environment(program, identity, given.run_id);
    let candidates = candidates(
        &definition.command,
        environment.get("PATH").map_or("", String::as_str),
    );
    let mut argv = vec![definition.command.clone()];
    argv.extend(args::split(&definition.args)?);
    let variables: Vec<String> = environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let failed = |error: io::Error| format!("preparing the start: {}", sys::reason(&error));
    Ok(Spawn {
        candidates: c_strings(&candidates).map_err(failed)?,
        argv: c_strings(&argv).map_err(failed)?,
        environment: c_strings(&variables).map_err(failed)?,
        directory: c_string(&effective.directory).map_err(failed)?,
        umask: definition.umask,
        identity: process::is_root().then(|| Ids {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups.clone(),
        }),
        open_files: base.open_files,
        stdin: base.null.as_fd(),
        stdout: given.output[0].as_fd(),
        stderr: given.output[1].as_fd(),
        cgroup: given.cgroup,
    })
}

/// Starts a program's process.
///
/// # Errors
/// A sentence with the step and the system's reason: "changing directory to /nowhere: No such file or directory".
pub(super) fn launch(
    request: &Spawn,
    definition: &Definition,
    effective: &Effective,
    on_forked: impl FnOnce(Pid) -> io::Result<()>,
) -> Result<Pid, String> {
    spawn(request, on_forked).map_err(|error| describe(&error, request, definition, effective))
}

fn describe(
    error: &SpawnError,
    request: &Spawn,
    definition: &Definition,
    effective: &Effective,
) -> String {
    let reason = sys::reason(&error.source);
    match error.step {
        Step::Directory => format!("{} to {}: {reason}", error.step, effective.directory),
        Step::Exec => {
            let missing = error.source.kind() == io::ErrorKind::NotFound;
            let hint = if missing && request.candidates.iter().any(|path| exists(path)) {
                " (the interpreter or loader that it names is missing)"
            } else if missing && !definition.command.contains('/') {
                " (it is in no directory of PATH)"
            } else {
                ""
            };
            format!("{} {}: {reason}{hint}", error.step, definition.command)
        }
        Step::Fork
        | Step::Record
        | Step::Session
        | Step::Streams
        | Step::Limits
        | Step::Groups
        | Step::Group
        | Step::User => format!("{}: {reason}", error.step),
    }
}

/// A clean environment: nothing of the daemon's own but its language and time zone.
fn environment(program: &Program, identity: &Identity, run_id: &str) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
    set("PATH", PATH);
    set("HOME", &identity.home);
    set("USER", &identity.user_name);
    set("LOGNAME", &identity.user_name);
    set("SHELL", &identity.shell);
    variables.extend(program.definition.environment.clone());
    variables.insert(super::RUN_ID.to_owned(), run_id.to_owned());
    variables.insert("HXE_PROGRAM_ID".to_owned(), program.id.to_string());
    variables
}

/// The paths that exec is to try, as execvp(3) does.
fn candidates(command: &str, path: &str) -> Vec<String> {
    if command.contains('/') {
        return vec![command.to_owned()];
    }
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .filter_map(|directory| {
            Path::new(directory)
                .join(command)
                .to_str()
                .map(str::to_owned)
        })
        .collect()
}

fn c_strings(texts: &[String]) -> io::Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::program::ProgramId;

    #[test]
    fn a_name_is_looked_up_in_path_and_a_path_is_taken_as_it_is() {
        assert_eq!(
            candidates("sleep", "/bin::/usr/bin"),
            ["/bin/sleep", "./sleep", "/usr/bin/sleep"]
        );
        assert_eq!(candidates("./run", "/bin"), ["./run"]);
    }

    #[test]
    fn the_environment_is_clean_and_the_definition_has_the_last_word_but_on_our_names() {
        let mut definition = Definition::new("a", "b");
        definition.environment.insert("PATH".into(), "/opt".into());
        let zero = Timestamp::default();
        let program = Program {
            id: ProgramId(3),
            definition,
            created_at: zero,
            updated_at: zero,
            declared: None,
        };
        let identity = Identity {
            uid: 1,
            gid: 1,
            groups: vec![1],
            user_name: "eve".into(),
            group_name: "eve".into(),
            home: "/home/eve".into(),
            shell: "/bin/sh".into(),
        };
        let found = environment(&program, &identity, "run");
        let get = |name: &str| found.get(name).map(String::as_str);
        assert_eq!(
            (get("PATH"), get("HOME"), get("USER")),
            (Some("/opt"), Some("/home/eve"), Some("eve"))
        );
        assert_eq!(
            (get("HXE_RUN_ID"), get("HXE_PROGRAM_ID")),
            (Some("run"), Some("program-3"))
        );
        assert_eq!(get("CARGO"), None);
    }
}
