//! How a daemon is to be started, and the directory that it has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use tempfile::TempDir;

use super::build::copy_binary;
use super::running::Running;
use super::{Daemon, PATIENCE, became};

/// How a daemon is to be started. The directory is kept over restarts.
#[derive(Clone)]
pub struct Setup {
    /// hxe.toml: section, key, value as TOML.
    keys: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    variables: Vec<(&'static str, String)>,
    user: Option<u32>,
    open_files: Option<String>,
    /// Runs it as process 1 of a namespace of its own, behind this line of shell.
    prepared_by: Option<&'static str>,
    guarded: bool,
    /// Leaves it the capabilities that root has in a container.
    contained: bool,
    /// Runs a copy of the binary.
    copied: bool,
    home: Arc<TempDir>,
}

impl Setup {
    pub fn new() -> Setup {
        let home = tempfile::tempdir().expect("the temporary directory can be written");
        allow(home.path(), 0o755);
        // A place where programs of any user may write.
        let scratch = home.path().join("scratch");
        fs::create_dir(&scratch).expect("the directory is new");
        allow(&scratch, 0o777);
        let setup = Setup {
            keys: BTreeMap::new(),
            variables: Vec::new(),
            user: None,
            open_files: None,
            prepared_by: None,
            guarded: true,
            contained: false,
            copied: false,
            home: Arc::new(home),
        };
        let path = |name| format!("{:?}", setup.path(name));
        let (state, run, log) = (path("state"), path("run"), path("log"));
        // Not what is installed on the machine.
        let include = path("programs.d/*.toml");
        setup
            .key("api", "listen", "\"127.0.0.1:0\"")
            .key("api", "rate_limit", "0")
            .key("storage", "state_dir", state)
            .key("storage", "run_dir", run)
            .key("storage", "log_dir", log)
            .key("programs", "include", include)
    }

    /// Sets a key of hxe.toml; the value is written as TOML has it.
    pub fn key(mut self, section: &'static str, key: &'static str, value: impl ToString) -> Setup {
        let section = self.keys.entry(section).or_default();
        section.insert(key, value.to_string());
        self
    }

    /// Sets a password that is not the default one, so that programs may run as any user.
    pub fn own_password(self) -> Setup {
        self.key("api", "password", "\"correct horse\"")
    }

    /// The administrator's password.
    pub fn password(&self) -> &str {
        match self.keys["api"].get("password") {
            Some(own) => own.trim_matches('"'),
            None => "password",
        }
    }

    /// Runs a copy of the binary, in the daemon's directory, which may be replaced: its path.
    pub fn own_binary(mut self) -> (Setup, PathBuf) {
        self.copied = true;
        let copy = self.binary();
        (self, copy)
    }

    /// As on a machine without cgroups.
    pub fn without_cgroups() -> Setup {
        Setup::new().variable("HXE_HIDE", "cgroups")
    }

    /// Runs the daemon as root with the capabilities that it has in a container, and without cgroups; `None`, and says why,
    /// where that cannot be.
    pub fn in_container() -> Option<Setup> {
        let setup = Setup {
            contained: true,
            ..Setup::without_cgroups()
        };
        match setup.with_few_capabilities().arg("true").output() {
            Ok(output) if output.status.success() => return Some(setup),
            Ok(output) => eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("skipped: setpriv: {error}"),
        }
        None
    }

    /// What gives capabilities away and then becomes what is added.
    fn with_few_capabilities(&self) -> Command {
        const KEPT: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,\
                            +net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", KEPT, "--inh-caps", KEPT]);
        command
    }

    /// Runs the daemon without its guardian.
    pub fn no_guardian(mut self) -> Setup {
        self.guarded = false;
        self
    }

    pub fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// Sets a variable of the daemon's environment.
    pub fn variable(mut self, name: &'static str, value: &str) -> Setup {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Runs the daemon as this user, who owns its directory.
    pub fn user(mut self, uid: u32) -> Setup {
        std::os::unix::fs::chown(self.home.path(), Some(uid), Some(uid)).expect("we are root");
        self.user = Some(uid);
        self
    }

    /// Lets the daemon have only so many files open.
    pub fn open_files(mut self, limit: u32) -> Setup {
        self.open_files = Some(format!("-n {limit}"));
        self
    }

    /// Starts it with this soft limit of open files, which it may raise.
    pub fn soft_open_files(mut self, limit: u32) -> Setup {
        self.open_files = Some(format!("-S -n {limit}"));
        self
    }

    /// Lets it write files of no more than so many blocks of 512 bytes.
    pub fn file_size(mut self, blocks: u32) -> Setup {
        self.open_files = Some(format!("-f {blocks}"));
        self
    }

    /// Runs the daemon as process 1 of a pid namespace, behind a line of shell in a mount namespace, where `$HOME` is the
    /// daemon's directory.
    pub fn process_1(mut self, prepared_by: &'static str) -> Setup {
        self.prepared_by = Some(prepared_by);
        self
    }

    pub fn is_process_1(&self) -> bool {
        self.prepared_by.is_some()
    }

    /// Why no namespace can be made here as [`process_1`](Setup::process_1) needs it.
    pub fn lacks_namespaces(&self) -> Option<String> {
        let tried = self.in_namespace().arg("/bin/true").output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(format!("unshare: {error}")),
        }
    }

    /// What makes the namespaces and then becomes what is added.
    fn in_namespace(&self) -> Command {
        let mut command = Command::new("unshare");
        let script = format!(
            "{}; unset HOME; exec \"$0\" \"$@\"",
            self.prepared_by.unwrap_or(":")
        );
        command
            .args([
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "/bin/sh",
                "-ec",
            ])
            .arg(script)
            .env("HOME", self.home.path());
        command
    }

    /// A path in the daemon's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The file of this name that declares a program.
    pub fn declared(&self, file: &str) -> PathBuf {
        self.path("programs.d").join(file)
    }

    /// Writes a file that declares a program: the lines below `[program]`. It is there whole or not at all.
    pub fn declare(&self, file: &str, lines: &str) -> PathBuf {
        let path = self.declared(file);
        let dir = self.path("programs.d");
        fs::create_dir_all(&dir).expect("the directory can be written");
        allow(&dir, 0o755);
        let new = path.with_extension("new");
        fs::write(&new, format!("[program]\n{lines}")).expect("the directory can be written");
        allow(&new, 0o644);
        if let Some(uid) = self.user {
            for path in [&dir, &new] {
                std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("we are root");
            }
        }
        fs::rename(&new, &path).expect("the directory can be written");
        path
    }

    /// Declares an enabled program that does nothing until it is ended.
    pub fn declare_sleeper(&self, name: &str) -> PathBuf {
        let lines =
            format!("name = {name:?}\ncommand = \"/bin/sleep\"\nargs = \"1000\"\nenabled = true\n");
        self.declare(&format!("{name}.toml"), &lines)
    }

    /// Removes a file that declares a program.
    pub fn undeclare(&self, file: &str) {
        fs::remove_file(self.declared(file)).expect("it is there");
    }

    /// Starts the daemon and waits until it can answer.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        self.try_start().unwrap_or_else(|(status, output)| {
            panic!("the daemon did not start ({status}):\n{output}")
        })
    }

    /// Starts a daemon that should refuse to: its exit code and what it said.
    #[track_caller]
    pub fn refused(&self) -> (Option<i32>, String) {
        match self.try_start() {
            Ok(_daemon) => panic!("the daemon has started"),
            Err((status, output)) => (status.code(), output),
        }
    }

    /// Runs `hxe` with these arguments after `--config FILE`, to its end: its exit code and what it said.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut running = Running::spawn(&mut self.command(args));
        let status = running.ends(PATIENCE).unwrap_or_else(|| {
            running.kill();
            panic!("hxe {args:?} did not end:\n{}", running.output())
        });
        (status.code(), running.output())
    }

    fn try_start(&self) -> Result<Daemon, (ExitStatus, String)> {
        let mut running = Running::spawn(&mut self.command(&[]));
        let mut address = None;
        let mut ended = None;
        let settled = became(PATIENCE, || {
            address = running.address();
            ended = running.ended();
            address.is_some() || ended.is_some()
        });
        if !settled {
            running.kill();
            panic!("the daemon neither listens nor ends:\n{}", running.output());
        }
        match (address, ended) {
            (Some(address), None) => Ok(Daemon::new(self.clone(), running, address)),
            _ => {
                let status = running.ends(PATIENCE).expect("it has ended");
                Err((status, running.output()))
            }
        }
    }

    /// Writes hxe.toml, and gives its path.
    pub fn write(&self) -> PathBuf {
        let mut text = String::new();
        for (section, keys) in &self.keys {
            text += &format!("[{section}]\n");
            for (key, value) in keys {
                text += &format!("{key} = {value}\n");
            }
        }
        let file = self.path("hxe.toml");
        fs::write(&file, text).expect("the directory can be written");
        allow(&file, 0o644);
        file
    }

    /// `hxe daemon --config FILE ARGS`, the file written.
    fn command(&self, args: &[&str]) -> Command {
        let file = self.write();
        let mut command = match &self.open_files {
            _ if self.is_process_1() => {
                let mut command = self.in_namespace();
                command.arg(self.binary());
                command
            }
            None if self.contained => {
                let mut command = self.with_few_capabilities();
                command.arg(self.binary());
                command
            }
            None => Command::new(self.binary()),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(self.binary());
                shell
            }
        };
        command.arg("daemon").arg("--config").arg(file).args(args);
        if !self.guarded {
            command.arg("--no-guardian");
        }
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin");
        if self.is_process_1() {
            command.env("HOME", self.home.path());
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// The binary under test; for another user a copy, as the build directory may be closed to it.
    fn binary(&self) -> PathBuf {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_hxe"));
        if self.user.is_none() && !self.copied {
            return built;
        }
        let copy = self.path("hxe");
        if !copy.exists() {
            copy_binary(&built, &copy);
        }
        copy
    }
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}
