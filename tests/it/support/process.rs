//! Processes as `/proc` shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Sends a signal; to a process that has gone it is nothing.
pub fn kill(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a pid is not 0");
    let _ = rustix::process::kill_process(pid, signal);
}

/// Whether the process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    status_field(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

/// A line of `/proc/PID/status`, without its name. Source: proc_pid_status(5).
pub fn status_field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// Waits until no thread of a process has anything to do: what it was sent before has arrived wherever it was to.
pub fn comes_to_rest(pid: i32) {
    // Each sleeps, as often as at the look before: one that was passed something meanwhile has been awake.
    let look = || -> Option<Vec<(PathBuf, String)>> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let mut all = Vec::new();
        for thread in threads {
            let path = thread.ok()?.path();
            let status = fs::read_to_string(path.join("status")).ok()?;
            let is_of_use = |line: &&str| line.contains("ctxt_switches");
            let switches = status.lines().filter(is_of_use).collect();
            status.contains("\nState:\tS").then_some(())?;
            all.push((path, switches));
        }
        Some(all)
    };
    let mut before = None;
    super::until(|| {
        let now = look();
        let is_at_rest = now.is_some() && now == before;
        before = now;
        is_at_rest
    });
}

/// The children of a process, ended or not.
pub fn children(parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    pids()
        .filter(|pid| status_field(*pid, "PPid").as_ref() == Some(&parent))
        .collect()
}

/// All processes.
fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The living processes that were started with an argument that has this in it.
pub fn processes_with(mark: &str) -> Vec<i32> {
    pids()
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark) && is_alive(*pid)
        })
        .collect()
}

/// The other processes that hold something below a directory open: a daemon's programs hold its FIFOs.
pub fn processes_using(dir: &Path) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    pids()
        .filter(|pid| *pid != own && holds_something_below(*pid, dir))
        .collect()
}

fn holds_something_below(pid: i32, dir: &Path) -> bool {
    // A process that has gone meanwhile, or may not be looked at, holds nothing that we could know of.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.starts_with(dir))
}

/// The cgroup of version 2 that a process is in.
pub fn cgroup_of(pid: i32) -> Option<String> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    lines
        .lines()
        .find_map(|line| Some(line.strip_prefix("0::")?.to_owned()))
}

/// The directory of a process's cgroup, where cgroups of version 2 are mounted as a whole.
pub fn cgroup_dir(pid: i32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let fields: Vec<&str> = mount.split(' ').collect();
    let path = cgroup_of(pid)?;
    (fields[3] == "/").then(|| PathBuf::from(fields[4]).join(path.trim_start_matches('/')))
}

/// The cgroups that the daemons of this `run_dir` have given their runs; none where it has gone.
pub fn cgroups_of_runs(run_dir: &Path) -> Vec<PathBuf> {
    let own = cgroup_dir(std::process::id().cast_signed());
    let (Some(own), Ok(meta)) = (own, fs::metadata(run_dir)) else {
        return Vec::new();
    };
    let prefix = format!("hxe-{:x}.{:x}-", meta.dev(), meta.ino());
    let entries = fs::read_dir(own).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}
