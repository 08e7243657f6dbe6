//! A daemon for the examples in the documentation of [`client`](crate::client): the example itself, run once more as hxe.
//!
//! Hidden from the documentation, and in no binary. Called by examples only.

use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::sys::{process, random};

/// Says to the process that it is to be hxe.
const MARK: &str = "HXE_EXAMPLE";
/// Source: signal(7); the same on all machines.
const TERM: i32 = 15;

/// A running daemon with a directory of its own, ended when it is dropped.
pub struct Daemon {
    child: Child,
    dir: PathBuf,
    /// `http://127.0.0.1:PORT`
    pub address: String,
    pub socket: PathBuf,
}

/// Starts a daemon. In the process that this starts it does not come back.
///
/// # Errors
/// The system's, or what the daemon says.
pub fn daemon() -> io::Result<Daemon> {
    if std::env::var_os(MARK).is_some() {
        // Its status is of no interest: it has said what there is to be said.
        let _ = crate::cli::main();
        std::process::exit(0);
    }
    let name = random::bytes::<8>()?.map(|byte| format!("{byte:02x}"));
    let dir = std::env::temp_dir().join(format!("hxe-example-{}", name.concat()));
    std::fs::DirBuilder::new().mode(0o755).create(&dir)?;
    // The umask had its say; programs of other users open their pipes below it.
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755))?;
    let (child, address) = start(&dir).inspect_err(|_| drop(std::fs::remove_dir_all(&dir)))?;
    Ok(Daemon {
        child,
        address,
        socket: dir.join("run/hxe.sock"),
        dir,
    })
}

fn start(dir: &Path) -> io::Result<(Child, String)> {
    let config = dir.join("hxe.toml");
    let mut text = "[api]\nlisten = \"127.0.0.1:0\"\n[storage]\n".to_owned();
    for name in ["state", "run", "log"] {
        text += &format!("{name}_dir = {:?}\n", dir.join(name));
    }
    std::fs::write(&config, text)?;
    let mut child = Command::new("/proc/self/exe")
        .args(["daemon", "--no-guardian", "--config"])
        .arg(&config)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match line.trim_end().strip_prefix("hxe: listening on ") {
        Some(address) => Ok((child, address.to_owned())),
        None => {
            child.wait()?;
            Err(io::Error::other("the daemon of the example did not start"))
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not KILL: programs would run on.
        if let Some(pid) = process::Pid::new(self.child.id().cast_signed()) {
            let _ = process::kill(pid, TERM);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
