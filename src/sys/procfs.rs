//! What `/proc` tells about processes. Every answer may be out of date when it arrives: processes come and go.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::look;
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
    let line = read(&format!("/proc/{pid}/stat"))?;
    parse(&line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether this very process lives: it is there, started then, and is no zombie.
pub fn lives(pid: i32, start_ticks: u64) -> bool {
    stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !stat.is_zombie())
}

/// Reads what the kernel says of all processes; those that end meanwhile are left out.
pub fn scan() -> io::Result<Vec<Stat>> {
    let all = pids()?.into_iter();
    Ok(all.filter_map(|pid| stat(pid.number()).ok()).collect())
}

/// All processes that there are.
///
/// # Errors
/// `/proc` cannot be read.
pub fn pids() -> io::Result<Vec<Pid>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let number = std::str::from_utf8(name.as_bytes()).ok();
        all.extend(number.and_then(|name| Pid::new(name.parse().ok()?)));
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
        match std::fs::read(format!("/proc/{thread}/children")) {
            Ok(list) => children.extend(numbers(&list).filter_map(Pid::new)),
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

/// What follows this option in the arguments that a process was started with; `None` also where we may not look.
pub fn argument_of(pid: i32, option: &[u8]) -> Option<String> {
    let line = read(&format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    words.find(|word| *word == option)?;
    Some(String::from_utf8_lossy(words.next()?).into_owned())
}

/// The environment that a process has at this moment: nothing, if it is becoming another program.
///
/// # Errors
/// We may not look, or it is gone.
pub fn environment(pid: Pid) -> io::Result<Vec<u8>> {
    look::at(pid, || read(&format!("/proc/{pid}/environ")))
}

/// The environment that a process was started with.
#[derive(Debug)]
pub struct Environment(Vec<u8>);

impl Environment {
    /// Reads it; `None` where we may not look, and of a process that has ended.
    pub fn of(pid: Pid) -> Option<Environment> {
        /// How often one is looked at that is becoming another program.
        const LOOKS: usize = 200;
        for look in 0..LOOKS {
            let text = environment(pid).ok()?;
            // In the middle of exec a process has neither arguments nor environment. One that was started without an
            // environment has arguments, and one that has ended will never have any.
            let has_begun = !text.is_empty()
                || read(&format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
            if has_begun {
                // What was empty may only have been early.
                let text = if text.is_empty() {
                    environment(pid).ok()?
                } else {
                    text
                };
                return Some(Environment(text));
            }
            if stat(pid.number()).ok()?.is_zombie() {
                return None;
            }
            if look + 1 < LOOKS {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        None
    }

    /// Whether it has this `NAME=value`.
    pub fn has(&self, variable: &[u8]) -> bool {
        self.entries().any(|entry| entry == variable)
    }

    /// Whether it has a variable of this name.
    pub fn names(&self, name: &[u8]) -> bool {
        self.entries().any(|entry| {
            entry
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(b"="))
        })
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == 0)
    }
}

/// What descends from a process now, as parents tell; those that end or are born meanwhile may be left out.
pub fn descendants(pid: Pid) -> Vec<Stat> {
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![pid.number()];
    while let Some(parent) = parents.pop() {
        let Some(children) = children(parent) else {
            // The kernel keeps no such lists.
            return descendants_among(scan().unwrap_or_default(), pid);
        };
        for stat in children.into_iter().filter_map(|child| stat(child).ok()) {
            if !found.iter().any(|known| known.pid == stat.pid) {
                parents.push(stat.pid);
                found.push(stat);
            }
        }
    }
    found
}

/// The children of all threads of a process; `None` where the kernel keeps no such lists.
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Some(children);
    };
    for thread in threads.flatten() {
        let path = format!("/proc/{pid}/task/{}/children", thread.file_name().display());
        match std::fs::read(&path) {
            Ok(list) => children.extend(numbers(&list)),
            Err(_) if !std::fs::exists("/proc/thread-self/children").unwrap_or(true) => {
                return None;
            }
            // It has ended.
            Err(_) => {}
        }
    }
    Some(children)
}

fn numbers(list: &[u8]) -> impl Iterator<Item = i32> {
    list.split(u8::is_ascii_whitespace)
        .filter_map(|number| std::str::from_utf8(number).ok()?.parse().ok())
}

fn descendants_among(all: Vec<Stat>, ancestor: Pid) -> Vec<Stat> {
    let mut found = HashSet::from([ancestor.number()]);
    close_over(&all, &mut found);
    all.into_iter()
        .filter(|stat| found.contains(&stat.pid) && stat.pid != ancestor.number())
        .collect()
}

/// Adds to `found` all that descends from it.
pub fn close_over(all: &[Stat], found: &mut HashSet<i32>) {
    loop {
        let before = found.len();
        for stat in all {
            if found.contains(&stat.ppid) {
                found.insert(stat.pid);
            }
        }
        if found.len() == before {
            return;
        }
    }
}

/// Whether a process holds a descriptor of a file, named by device and inode; no, where we may not look.
pub fn holds_file(pid: Pid, file: (u64, u64)) -> bool {
    use std::os::unix::fs::MetadataExt;
    let holds = look::at(pid, || {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            match std::fs::metadata(entry.path()) {
                Ok(meta) if (meta.dev(), meta.ino()) == file => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                // Another file, or closed meanwhile.
                _ => {}
            }
        }
        Ok(false)
    });
    holds.unwrap_or(false)
}

/// Where a descriptor of a process leads to; `None` also where we may not look.
pub fn descriptor(pid: Pid, fd: u32) -> Option<PathBuf> {
    look::at(pid, || std::fs::read_link(format!("/proc/{pid}/fd/{fd}"))).ok()
}

/// Whether a process runs in our memory: a child that has not become its program yet.
pub fn shares_our_memory(pid: Pid) -> bool {
    let same = |what: &str, get: fn(&str) -> io::Result<Vec<u8>>| {
        let theirs = get(&format!("/proc/{pid}/{what}"));
        theirs.map(|theirs| get(&format!("/proc/self/{what}")).is_ok_and(|own| own == theirs))
    };
    let exe = |path: &str| Ok(std::fs::read_link(path)?.into_os_string().into_vec());
    // Nobody but root with CAP_SYS_PTRACE may see the binary; everybody sees the arguments.
    same("exe", exe)
        .or_else(|_| same("cmdline", read))
        .unwrap_or(false)
}

/// Reads what a process has at one moment, at once: what is read in pieces may be of two programs, as a process can become
/// another one in between.
fn read(path: &str) -> io::Result<Vec<u8>> {
    /// More than nearly all processes have in arguments or environment.
    const AT_ONCE: usize = 32 * 1024;
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::with_capacity(AT_ONCE);
    loop {
        let room = bytes.capacity() - bytes.len();
        let length = rustix::io::retry_on_intr(|| {
            rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))
        })?;
        if length < room {
            return Ok(bytes);
        }
        bytes.reserve(bytes.len());
    }
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

    /// A child that is ended with the test.
    struct Ended(std::process::Child);

    impl Ended {
        fn start(command: &mut std::process::Command) -> Ended {
            Ended(command.spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::new(self.0.id().cast_signed()).unwrap()
        }
    }

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_environment_is_known_at_each_moment_of_a_process_that_goes_on_becoming_another() {
        let script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); env -u X env -u Y true; done; exec sleep 1000";
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", &format!("exec env env env sh -c '{script}'")]);
        let process = Ended::start(
            command
                .env_clear()
                .envs([("A", "b"), ("PATH", "/usr/bin:/bin")]),
        );
        let mut looks = 0;
        loop {
            if let Some(environment) = Environment::of(process.pid()) {
                assert!(environment.has(b"A=b") && environment.names(b"A"));
                assert!(!environment.has(b"A=") && !environment.names(b""));
            }
            looks += 1;
            if looks > 200 && argument_of(process.pid().number(), b"1000").is_some() {
                return;
            }
            for stat in descendants(process.pid()) {
                let found = Pid::new(stat.pid).and_then(Environment::of);
                assert!(found.is_none_or(|environment| environment.has(b"A=b")));
            }
        }
    }

    #[test]
    fn a_process_without_an_environment_has_an_empty_one() {
        let mut command = std::process::Command::new("/bin/sleep");
        let process = Ended::start(command.arg("1000").env_clear());
        let environment = (0..100).find_map(|_| Environment::of(process.pid()));
        assert!(!environment.expect("it is there").names(b"PATH"));
    }

    #[test]
    fn descendants_are_found_with_and_without_the_lists_of_the_kernel() {
        let mut command = std::process::Command::new("/bin/sh");
        let process = Ended::start(command.args([
            "-c",
            "sh -c 'sleep 1000 & exec sleep 1000' & exec sleep 1000",
        ]));
        let count = || descendants(process.pid()).len();
        let patience = std::time::Instant::now() + Duration::from_secs(30);
        while count() != 2 {
            assert!(std::time::Instant::now() < patience, "{}", count());
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut found = descendants(process.pid());
        assert_eq!(descendants_among(scan().unwrap(), process.pid()).len(), 2);
        found.retain(|stat| stat.ppid == process.pid().number());
        assert_eq!(found.len(), 1);
        for stat in descendants(process.pid()) {
            let _ = super::super::process::kill(Pid::new(stat.pid).unwrap(), 9);
        }
    }
}
