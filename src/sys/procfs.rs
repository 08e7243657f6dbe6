//! What `/proc` tells about processes. Every answer may be out of date when it arrives: processes come and go.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::process::Pid;

/// One line of `/proc/PID/stat`. Source: proc_pid_stat(5), with its field numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// Field 2, without its parentheses.
    pub comm: String,
    /// Field 3: `R`, `S`, `D`, `Z`, `T`, ...
    pub state: u8,
    /// Field 4.
    pub ppid: i32,
    /// Field 5.
    pub pgrp: i32,
    /// Field 6.
    pub session: i32,
    /// Fields 14 to 17: CPU time of its threads and of the ended children that it has waited for, in clock ticks.
    pub cpu_ticks: u64,
    /// Field 22: when it started, in clock ticks since boot. With the pid it names a process for ever.
    pub start_ticks: u64,
    /// Field 24: resident memory, in pages.
    pub rss_pages: u64,
    /// Field 52: how a zombie ended, as wait(2) has it; 0 also where we may not know.
    pub exit_code: i32,
}

impl Stat {
    /// It has ended and waits to be reaped.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads what the kernel says of one process.
///
/// # Errors
/// `NotFound` once it is reaped; `InvalidData` for a line that is not as proc_pid_stat(5) has it.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let line = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse(&line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether this very process lives: it is there, started then, and is no zombie.
pub fn lives(pid: i32, start_ticks: u64) -> bool {
    stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !stat.is_zombie())
}

/// Reads what the kernel says of all processes; those that end meanwhile are left out.
pub fn scan() -> io::Result<Vec<Stat>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = std::str::from_utf8(name.as_bytes())
            .ok()
            .and_then(|name| name.parse().ok());
        if let Some(stat) = pid.and_then(|pid: i32| stat(pid).ok()) {
            all.push(stat);
        }
    }
    Ok(all)
}

/// Our children that we may not have started, ended or not: the orphans that a subreaper gets are its main thread's
/// children (before Linux 3.19 those of the thread that started an ancestor), while others are those of the thread that
/// started them. All of our children where the kernel keeps no such lists (CONFIG_PROC_CHILDREN).
/// Source: proc_tid_children(5); find_new_reaper in the kernel's exit.c.
///
/// # Errors
/// `/proc` cannot be read.
pub fn adopted() -> io::Result<Vec<Pid>> {
    let own = Pid::own();
    let mut children = Vec::new();
    for thread in [format!("self/task/{own}"), "thread-self".to_owned()] {
        match std::fs::read_to_string(format!("/proc/{thread}/children")) {
            Ok(text) => children.extend(
                text.split_ascii_whitespace()
                    .filter_map(|pid| Pid::new(pid.parse().ok()?)),
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let all = scan()?.into_iter();
                let ours = all.filter(|stat| stat.ppid == own.number());
                return Ok(ours.filter_map(|stat| Pid::new(stat.pid)).collect());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// The binary that a process runs, as a path, also where that has been replaced since; `None` where we may not look.
pub fn exe(pid: i32) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let bytes = path.as_os_str().as_bytes();
    let known = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Some(PathBuf::from(OsStr::from_bytes(known)))
}

/// Whether a process was started with this argument; no, where we may not look.
pub fn has_argument(pid: i32, argument: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument))
}

/// Whether the environment that a process was started with has this `NAME=value`; no, where we may not look.
pub fn has_variable(pid: Pid, variable: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable)
    })
}

/// Whether the environment that a process was started with has a variable of this name; no, where we may not look.
pub fn has_variable_named(pid: Pid, name: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ.split(|byte| *byte == 0).any(|entry| {
            entry
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(b"="))
        })
    })
}

/// Whether a process holds a descriptor of a file, named by device and inode; no, where we may not look.
pub fn holds_file(pid: Pid, file: (u64, u64)) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .flatten()
        .filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .any(|meta| (meta.dev(), meta.ino()) == file)
}

fn parse(line: &[u8]) -> Option<Stat> {
    // The name may hold spaces and parentheses: it ends at the last one.
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?)
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of `fields` is field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let id = |field: usize| fields.get(field - 3)?.parse::<i32>().ok();
    Some(Stat {
        pid,
        comm: String::from_utf8_lossy(line.get(open + 1..close)?).into_owned(),
        state: *fields.first()?.as_bytes().first()?,
        ppid: id(4)?,
        pgrp: id(5)?,
        session: id(6)?,
        cpu_ticks: (14..=17)
            .try_fold(0u64, |sum, field| Some(sum.saturating_add(number(field)?)))?,
        start_ticks: number(22)?,
        rss_pages: number(24)?,
        exit_code: id(52).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        b"42 (a) b (c)) S 1 40 41 0 -1 4194560 1 2 3 4 50 7 3 2 20 0 1 0 1234 8192 99 1844";

    #[test]
    fn a_line_is_read_whatever_the_process_calls_itself() {
        let stat = parse(LINE).unwrap();
        assert_eq!(
            (stat.pid, stat.comm.as_str(), stat.state),
            (42, "a) b (c)", b'S')
        );
        assert_eq!((stat.ppid, stat.pgrp, stat.session), (1, 40, 41));
        assert_eq!(
            (stat.cpu_ticks, stat.start_ticks, stat.rss_pages),
            (62, 1234, 99)
        );
    }

    #[test]
    fn a_broken_line_is_refused() {
        for end in 0..LINE.len() - 8 {
            assert_eq!(parse(&LINE[..end]), None);
        }
        assert_eq!(parse(b")("), None);
    }

    #[test]
    fn we_find_ourselves() {
        let own = Pid::own();
        assert!(
            scan()
                .unwrap()
                .iter()
                .any(|stat| stat.pid == own.number() && !stat.is_zombie())
        );
    }
}
