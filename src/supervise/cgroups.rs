//! A cgroup of its own for each run, where the kernel has them and lets us: whatever a program forks stays in it, and all of
//! it is killed at once. Where it cannot be, `leftovers` finds the same by its traces.
//!
//! A run's cgroup is a directory below the daemon's own, `hxe-<run_dir>-<run>`. It is removed once the run has ended, and
//! found again by its name by a daemon that comes later. Others' are never touched: what is killed is what this run's name
//! names, and what is cleared away at the start has our `run_dir` in its name and is empty.
//!
//! Only version 2, from Linux 5.14 on, which has `cgroup.kill`. Not where systemd runs and has not left the daemon's cgroup to
//! it (`Delegate=yes`): there the tree is systemd's alone. Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::sys::fault;
use crate::sys::process::Pid;

/// How long killed processes may take to go; those that are left then are found and named by their traces.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the runs of this daemon have their cgroups.
pub(super) struct Cgroups {
    /// The daemon's own.
    own: PathBuf,
    /// `hxe-<run_dir>-`.
    prefix: String,
}

/// The cgroup of a run.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroups {
    /// Finds the daemon's own cgroup; `None` where runs cannot have theirs below it. `run_dir` is held by this daemon alone.
    pub(super) fn find(run_dir: impl AsFd) -> Option<Cgroups> {
        if fault::hides("cgroups") {
            return None;
        }
        let own = path_of("self", &fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let is_ours = !fs::exists("/run/systemd/system").unwrap_or(true) || is_delegated(&own);
        let stat = rustix::fs::fstat(run_dir).ok().filter(|_| is_ours)?;
        let cgroups = Cgroups {
            own,
            prefix: format!("hxe-{:x}.{:x}-", stat.st_dev, stat.st_ino),
        };
        // Whether it may be, and the kernel is new enough.
        let (probe, _) = cgroups.create("probe").ok()?;
        let can_kill = probe.0.join("cgroup.kill").exists();
        probe.remove();
        can_kill.then_some(cgroups)
    }

    /// Makes the cgroup of a run that begins, and opens it.
    ///
    /// # Errors
    /// The system's: there may be too many.
    pub(super) fn create(&self, run_id: &str) -> io::Result<(Cgroup, OwnedFd)> {
        let cgroup = self.named(run_id);
        fs::create_dir(&cgroup.0)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(&cgroup.0, flags, Mode::empty()) {
            Ok(dir) => Ok((cgroup, dir)),
            Err(error) => {
                cgroup.remove();
                Err(error.into())
            }
        }
    }

    /// The cgroup that an earlier daemon gave this run, if it is there. The daemon's own may have been another one then: a
    /// process that lives tells.
    pub(super) fn of_run(&self, run_id: &str, pid: Pid) -> Option<Cgroup> {
        let cgroup = self.named(run_id);
        if cgroup.0.exists() {
            return Some(cgroup);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let elsewhere = path_of(&pid.to_string(), &mounts)?;
        let name = elsewhere.file_name()?.to_str()?;
        // Also `run_dir` may have been another one.
        let is_its = is_name_of_a_run(name) && name.ends_with(&format!("-{run_id}"));
        is_its.then_some(Cgroup(elsewhere))
    }

    fn named(&self, run_id: &str) -> Cgroup {
        Cgroup(self.own.join(format!("{}{run_id}", self.prefix)))
    }

    /// Removes what earlier daemons left empty. Takes a look at all that others have there, which may be thousands.
    pub(super) fn clear(&self) {
        let Ok(entries) = fs::read_dir(&self.own) else {
            return;
        };
        // Those of this daemon may be about to be used. Source: the id of a run, in `watcher::run`.
        let own_pid = format!("-{}-", Pid::own());
        for entry in entries.flatten() {
            let cgroup = Cgroup(entry.path());
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let run_id = name.strip_prefix(&self.prefix);
            let is_earlier = run_id.is_some_and(|id| !id.contains(&own_pid));
            if is_earlier && !cgroup.is_populated() {
                cgroup.remove();
            }
        }
    }
}

impl Cgroup {
    /// Kills all that is in it, and what that forks meanwhile; how many there were.
    pub(super) fn kill(&self) -> usize {
        let killed = self.processes();
        if killed > 0 && fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            let end = Instant::now() + PATIENCE;
            let mut pause = Duration::from_micros(200);
            while self.is_populated() && Instant::now() < end {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
        }
        killed
    }

    /// Removes it, and what the run made below it. One with a living process stays.
    pub(super) fn remove(&self) {
        remove(&self.0);
    }

    /// How many live in it and below.
    fn processes(&self) -> usize {
        let mut dirs = vec![self.0.clone()];
        let mut count = 0;
        while let Some(dir) = dirs.pop() {
            let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            count += list.lines().count();
            dirs.extend(below(&dir));
        }
        count
    }

    fn is_populated(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }
}

/// Whether a process is in the cgroup of a run, of this daemon or of another.
pub(super) fn is_of_a_run(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|lines| {
        unified(&lines).is_some_and(|path| path.split('/').any(is_name_of_a_run))
    })
}

/// Whether a name is of the form that [`Cgroups`] gives.
fn is_name_of_a_run(name: &str) -> bool {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let rest = name.strip_prefix("hxe-");
    let id = rest.and_then(|rest| rest.split_once('-')?.0.split_once('.'));
    id.is_some_and(|(device, inode)| is_hex(device) && is_hex(inode))
}

fn remove(dir: &Path) {
    for dir in below(dir) {
        remove(&dir);
    }
    // One that is not empty stays.
    let _ = fs::remove_dir(dir);
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Whether systemd has left this cgroup to who runs in it. Source: CGROUP_DELEGATION in systemd's documentation.
fn is_delegated(dir: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(dir, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// The directory of a process's cgroup, by what `mountinfo` says of the mount.
fn path_of(pid: &str, mounts: &str) -> Option<PathBuf> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    locate(unified(&lines)?, mounts)
}

/// Of version 2 in `/proc/PID/cgroup`: `0::/system.slice/hxe.service`. Source: cgroups(7).
fn unified(lines: &str) -> Option<&str> {
    lines.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Where a path of the hierarchy is in the file system; `None` where that is not mounted, or the path is outside of it.
/// Source: proc_pid_mountinfo(5): `41 31 0:38 ROOT MOUNT_POINT rw,relatime - cgroup2 cgroup2 rw`.
fn locate(path: &str, mounts: &str) -> Option<PathBuf> {
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let fields: Vec<&str> = mount.split(' ').collect();
        let (root, point) = (*fields.get(3)?, *fields.get(4)?);
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        if !below.is_empty() && !below.starts_with('/') {
            return None;
        }
        // Blanks and the like are written in octal: nobody mounts it there.
        (!point.contains('\\')).then(|| PathBuf::from(format!("{point}{below}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_cgroup_is_found_where_it_is_mounted() {
        let find = |path| locate(path, MOUNTS).map(|path| path.display().to_string());
        let at = |path: &str| Some(format!("/sys/fs/cgroup/unified{path}"));
        assert_eq!(find("/"), at("/"));
        assert_eq!(
            find("/system.slice/hxe.service"),
            at("/system.slice/hxe.service")
        );
        assert_eq!(find("/../outside"), None);
        assert_eq!(locate("/a", ""), None);
    }

    #[test]
    fn a_mount_of_a_part_has_only_that_part() {
        let mounts = "41 31 0:38 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let find = |path| locate(path, mounts);
        assert_eq!(find("/a/b"), Some(PathBuf::from("/sys/fs/cgroup/b")));
        assert_eq!(find("/a"), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(find("/ab"), None);
        assert_eq!(find("/"), None);
    }

    #[test]
    fn the_cgroup_of_a_run_is_known_by_its_name() {
        assert!(is_name_of_a_run("hxe-fe01.12ab-6391f-17-3"));
        for other in [
            "hxe-ab",
            "hxe-a.b",
            "hxe-web.service",
            "hxe-.-x",
            "hxe-web.io-1",
            "x",
        ] {
            assert!(!is_name_of_a_run(other), "{other}");
        }
    }

    #[test]
    fn of_many_hierarchies_it_is_that_of_version_2() {
        assert_eq!(unified("9:name=systemd:/x\n0::/y\n"), Some("/y"));
        assert_eq!(unified("4:memory:/x\n"), None);
    }
}
