//! Starting a program: a child in our memory (see `clone`), prepare, exec; a failing step is reported by name.
//!
//! Not `std::process::Command`: it cannot say which step failed, makes setgroups before setuid impossible, and waits by
//! itself for a child whose exec failed. The order of steps keeps this promise: whenever the daemon dies, either
//! the child has been told of to `on_forked` or it dies, too.
//!
//! The child takes on its program's user while it is in our memory, where that user could read and change what is ours,
//! if he could look into the child: posix_spawn(3) leaves that out for such reasons. He cannot: we cannot be traced or
//! dumped from before the first such child on (PR_SET_DUMPABLE), and that belongs to the memory. The kernel says so as
//! well when a process changes its user, before it does. So neither ptrace nor `/proc/PID/mem` opens for anybody
//! but root, and no signal makes a core of our memory. It stays so: switched back on for one child, it would be for
//! all. What that user may do is to stop or kill the child, which holds up this one start, or ends it. User and groups are
//! set by system call, for this process alone: the C library's functions would set them for all threads of ours.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid};

use super::clone::{Child, Permit, Presence};
use super::process::Pid;

/// Size of the kernel's signal set: 64 signals, but on MIPS, which has 128. Source: rt_sigaction(2).
const SIGNAL_SET_BYTES: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    16
} else {
    8
};

/// What to start, and as whom. Everything is made beforehand: the child may not allocate.
pub struct Spawn<'a> {
    /// Tried in this order, as execvp(3) tries the entries of PATH.
    pub candidates: Vec<CString>,
    pub argv: Vec<CString>,
    /// `NAME=value` each.
    pub environment: Vec<CString>,
    pub directory: CString,
    pub umask: u32,
    /// User, group, supplementary groups; `None`: as we are.
    pub identity: Option<Ids>,
    pub open_files: Rlimit,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// The directory of the cgroup to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// As whom a program runs.
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// The step of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Fork,
    Record,
    Session,
    Streams,
    Limits,
    Groups,
    Group,
    User,
    Directory,
    Exec,
}

impl Step {
    const ALL: [Step; 10] = [
        Step::Fork,
        Step::Record,
        Step::Session,
        Step::Streams,
        Step::Limits,
        Step::Groups,
        Step::Group,
        Step::User,
        Step::Directory,
        Step::Exec,
    ];
}

/// A start that failed, by step.
#[derive(Debug)]
pub struct SpawnError {
    pub step: Step,
    pub source: io::Error,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Step::Fork => "making a process",
            Step::Record => "writing the run record",
            Step::Session => "making a session",
            Step::Streams => "connecting its output",
            Step::Limits => "setting its limits",
            Step::Groups => "setting its supplementary groups",
            Step::Group => "setting its group",
            Step::User => "setting its user",
            Step::Directory => "changing directory",
            Step::Exec => "executing",
        })
    }
}

/// Starts a process, and returns once it runs its program.
///
/// `on_forked` is told the pid before anything of the program runs, and may refuse. The thread that calls this must live
/// on: the kernel takes its end for the daemon's until the program runs.
///
/// # Errors
/// The step that failed; no process is left.
pub fn spawn(
    spawn: &Spawn,
    on_forked: impl FnOnce(Pid) -> io::Result<()>,
) -> Result<Pid, SpawnError> {
    let at = |step| move |source: io::Error| SpawnError { step, source };
    let argv = pointers(&spawn.argv);
    let environment = pointers(&spawn.environment);
    let ids = spawn.identity.as_ref();
    if ids.is_some() {
        // See above. Only a process that may change its user comes here.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|errno| at(Step::User)(errno.into()))?;
    }
    let preparation = Preparation {
        spawn,
        argv: &argv,
        environment: &environment,
        groups: ids
            .map(|ids| ids.groups.iter().map(|gid| Gid::from_raw(*gid)).collect())
            .unwrap_or_default(),
        parent: rustix::process::getpid(),
        presence: Presence::new(),
        permit: Permit::new(),
        failed: AtomicUsize::new(NOTHING_FAILED),
        errno: AtomicI32::new(0),
    };
    let mut child = {
        // A handler of ours that ran in the child would speak for the daemon: no signal arrives before they are reset.
        let _blocked = BlockedSignals::new();
        // SAFETY: `enter` keeps to the rules: see there. What is shared outlives the child, and is atomic where it changes.
        unsafe { Child::start(enter, &preparation, &preparation.presence, spawn.cgroup) }
            .map_err(at(Step::Fork))?
    };
    let pid = child.pid;
    if let Err(source) = on_forked(pid) {
        child.end();
        return Err(at(Step::Record)(source));
    }
    preparation.permit.give();
    child.wait_until_left();
    let Some(step) = Step::ALL.get(preparation.failed.load(Ordering::Acquire)) else {
        return Ok(pid);
    };
    child.end();
    let errno = preparation.errno.load(Ordering::Acquire);
    Err(at(*step)(io::Error::from_raw_os_error(errno)))
}

/// Null-ended, as exec(2) takes them.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Blocks all signals in this thread until dropped.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> BlockedSignals {
        // SAFETY: all-zero bytes are a valid sigset_t, filled in by the calls; the pointers are to locals.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
            BlockedSignals(old)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the mask is the one that the kernel gave us.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// In place of a step.
const NOTHING_FAILED: usize = usize::MAX;

/// What the child does, and shares with its parent until it has become its program.
struct Preparation<'a> {
    spawn: &'a Spawn<'a>,
    argv: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    groups: Vec<Gid>,
    parent: rustix::process::Pid,
    presence: Presence,
    /// Given once the child is on record.
    permit: Permit,
    /// The index of the step that failed, and why.
    failed: AtomicUsize,
    errno: AtomicI32,
}

/// The child's first function. Until the permit is given it makes system calls by rustix, which reports their errors
/// without errno, and others that cannot fail; from then on its parent looks at no errno before it has left.
extern "C" fn enter(preparation: *mut c_void) -> c_int {
    // SAFETY: the parent passes this, and keeps it until we have left its memory.
    let preparation = unsafe { &*preparation.cast_const().cast::<Preparation>() };
    preparation.presence.begin();
    let (step, errno) = preparation.prepare_and_exec();
    preparation
        .errno
        .store(errno.raw_os_error(), Ordering::Release);
    preparation.failed.store(step as usize, Ordering::Release);
    // SAFETY: ends this process without running any destructor: what is shared is its parent's.
    unsafe { libc::_exit(127) }
}

impl Preparation<'_> {
    /// Returns only if a step failed.
    fn prepare_and_exec(&self) -> (Step, Errno) {
        match self.prepare() {
            Ok(()) => (Step::Exec, self.exec()),
            Err(failed) => failed,
        }
    }

    fn prepare(&self) -> Result<(), (Step, Errno)> {
        let at = |step| move |errno| (step, errno);
        let spawn = self.spawn;
        // Until the parent has told of us, its death is ours.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(at(Step::Fork))?;
        if rustix::process::getppid() != Some(self.parent) {
            return Err((Step::Fork, Errno::SRCH));
        }
        rustix::process::setsid().map_err(at(Step::Session))?;
        // A descriptor that is its own target would keep its close-on-exec flag; ours are above 2 by then.
        rustix::stdio::dup2_stdin(spawn.stdin).map_err(at(Step::Streams))?;
        rustix::stdio::dup2_stdout(spawn.stdout).map_err(at(Step::Streams))?;
        rustix::stdio::dup2_stderr(spawn.stderr).map_err(at(Step::Streams))?;
        rustix::process::setrlimit(Resource::Nofile, spawn.open_files).map_err(at(Step::Limits))?;
        rustix::process::umask(Mode::from_raw_mode(spawn.umask));

        // If the parent dies or refuses, there is no record of us, and we are killed.
        self.permit.wait();
        rustix::process::set_parent_process_death_signal(None).map_err(at(Step::Fork))?;

        if let Some(ids) = &spawn.identity {
            rustix::thread::set_thread_groups(&self.groups).map_err(at(Step::Groups))?;
            rustix::thread::set_thread_gid(Gid::from_raw(ids.gid)).map_err(at(Step::Group))?;
            rustix::thread::set_thread_uid(Uid::from_raw(ids.uid)).map_err(at(Step::User))?;
        }
        // As the program's user: root's reach is not lent to it.
        rustix::process::chdir(spawn.directory.as_c_str()).map_err(at(Step::Directory))?;
        reset_signals();
        Ok(())
    }

    /// Tries the candidates as execvp(3) does; returns why none could be run.
    fn exec(&self) -> Errno {
        let mut failure = Errno::NOENT;
        for candidate in &self.spawn.candidates {
            // SAFETY: a C string, and null-ended arrays of C strings that outlive the call.
            let errno = unsafe {
                libc::execve(
                    candidate.as_ptr(),
                    self.argv.as_ptr(),
                    self.environment.as_ptr(),
                );
                Errno::from_raw_os_error(*libc::__errno_location())
            };
            match errno {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => failure = Errno::ACCESS,
                other => return other,
            }
        }
        failure
    }
}

/// Every signal does what it does by default, and none is blocked.
fn reset_signals() {
    // The kernel's struct sigaction, all zero: the default. By system call, as the C library hides two signals of its
    // own, which who started us may have had ignored all the same.
    let default = [0u64; 8];
    for signal in 1..=64 {
        // SAFETY: plain numbers and a local. KILL and STOP cannot be set, and need not be.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGNAL_SET_BYTES,
            );
        }
    }
    super::signals::unblock_all();
}

/// The string as exec(2) takes it.
///
/// # Errors
/// It holds a NUL.
pub fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Whether a file is there at all: exec says ENOENT also for a script whose interpreter is missing.
pub fn exists(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn strings(texts: &[&str]) -> Vec<CString> {
        texts.iter().map(|text| c_string(text).unwrap()).collect()
    }

    /// Starts `/bin/sh -c script` in `directory`; returns its pid and what it wrote.
    fn run(directory: &str, command: &[&str], script: &str) -> Result<(Pid, String), SpawnError> {
        // Whoever runs the tests may have left something open.
        super::super::background::keep_inherited();
        let null = File::open("/dev/null").unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let request = Spawn {
            candidates: strings(command),
            argv: strings(&["sh", "-c", script]),
            environment: strings(&["A=b"]),
            directory: c_string(directory).unwrap(),
            umask: 0o027,
            identity: None,
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile),
            stdin: null.as_fd(),
            stdout: writer.as_fd(),
            stderr: writer.as_fd(),
            cgroup: None,
        };
        let pid = spawn(&request, |_| Ok(()))?;
        drop(request);
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        super::super::clone::kill_and_reap(pid);
        Ok((pid, output))
    }

    /// A shell that ends at once.
    fn plain(null: &File) -> Spawn<'_> {
        Spawn {
            candidates: strings(&["/bin/sh"]),
            argv: strings(&["sh"]),
            environment: Vec::new(),
            directory: c_string("/").unwrap(),
            umask: 0,
            identity: None,
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile),
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            cgroup: None,
        }
    }

    #[test]
    fn a_program_has_what_it_was_given_and_nothing_else() {
        let script = "pwd; umask; echo $A; ls -l /proc/self/fd | grep -c -- '->'; cat; cut -d' ' -f6 /proc/$$/stat";
        let (pid, output) = run("/usr", &["/nowhere/sh", "/bin/sh"], script).unwrap();
        let mut lines = output.lines();
        assert_eq!(lines.next(), Some("/usr"));
        assert_eq!(lines.next(), Some("0027"));
        assert_eq!(lines.next(), Some("b"));
        // Standard input, output and error, and the directory that ls reads.
        assert_eq!(lines.next(), Some("4"));
        let session = lines.next().map(|line| line.trim().to_owned());
        assert_eq!(session, Some(pid.to_string()));
    }

    #[test]
    fn a_failing_step_is_named_and_leaves_no_process() {
        let error = run("/nowhere", &["/bin/sh"], "").unwrap_err();
        assert_eq!(
            (error.step, error.source.kind()),
            (Step::Directory, io::ErrorKind::NotFound)
        );
        let error = run("/", &["/nowhere/sh"], "").unwrap_err();
        assert_eq!(
            (error.step, error.source.kind()),
            (Step::Exec, io::ErrorKind::NotFound)
        );
        let error = run("/", &["/etc/passwd", "/nowhere/sh"], "").unwrap_err();
        assert_eq!(
            (error.step, error.source.kind()),
            (Step::Exec, io::ErrorKind::PermissionDenied)
        );
    }

    #[test]
    fn a_refusal_ends_the_child_before_it_runs() {
        let null = File::open("/dev/null").unwrap();
        let request = plain(&null);
        let mut told = None;
        let error = spawn(&request, |pid| {
            told = Some(pid);
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert_eq!(error.step, Step::Record);
        let stat = super::super::procfs::stat(told.unwrap().number());
        assert_eq!(stat.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_child_that_is_killed_before_it_runs_holds_up_nobody() {
        let null = File::open("/dev/null").unwrap();
        let request = plain(&null);
        for _ in 0..20 {
            // Its watcher sees its end, as that of one that ran.
            let pid = spawn(&request, |pid| {
                super::super::process::kill(pid, libc::SIGKILL)
            })
            .unwrap();
            super::super::clone::kill_and_reap(pid);
        }
    }

    #[test]
    fn a_panic_of_the_parent_ends_the_child_before_its_memory_goes() {
        let null = File::open("/dev/null").unwrap();
        let request = plain(&null);
        let mut told = None;
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            spawn(&request, |pid| {
                told = Some(pid);
                panic!("as a bug would have it")
            })
        }));
        assert!(started.is_err());
        let stat = super::super::procfs::stat(told.unwrap().number());
        assert_eq!(stat.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
