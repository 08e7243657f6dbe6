//! Starting a program: fork, prepare, exec; a failing step is reported by name.
//!
//! Not `std::process::Command`: it cannot say which step failed, makes setgroups before setuid impossible, and waits by
//! itself for a child whose exec failed. The order of steps keeps this promise: whenever the daemon dies, either
//! the child has been told of to `on_forked` or it dies, too.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Rlimit;

use super::process::{Pid, reap};

/// Size of the kernel's signal set: 64 signals, but on MIPS, which has 128. Source: rt_sigaction(2).
const SIGNAL_SET_BYTES: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    16
} else {
    8
};

/// What to start, and as whom. Everything is made before the fork: between fork and exec nothing may allocate.
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
    let (mut failure, failed) = pipe().map_err(at(Step::Fork))?;
    let (go, mut permit) = pipe().map_err(at(Step::Fork))?;
    let child = Child {
        spawn,
        argv: &argv,
        environment: &environment,
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        failed: failed.as_raw_fd(),
        go: go.as_raw_fd(),
        permit: permit.as_raw_fd(),
    };

    let pid = {
        // A handler of ours that ran in the child would speak for the daemon: no signal arrives before they are reset.
        let _blocked = BlockedSignals::new();
        // SAFETY: the child only makes async-signal-safe calls (`Child::run` allocates nothing, takes no lock) and
        // never returns from it.
        match unsafe { libc::fork() } {
            -1 => return Err(at(Step::Fork)(io::Error::last_os_error())),
            0 => child.run(),
            pid => Pid::new(pid).expect("fork returns a pid above 0 to the parent"),
        }
    };
    drop(failed);
    drop(go);

    if let Err(source) = on_forked(pid).and_then(|()| permit.write_all(&[1])) {
        wait_for(pid);
        return Err(at(Step::Record)(source));
    }
    drop(permit);
    let mut report = Vec::new();
    let read = failure.read_to_end(&mut report);
    let error = match (read, report.as_slice()) {
        (Ok(_), []) => return Ok(pid),
        (_, [step, errno @ ..]) if errno.len() == 4 => SpawnError {
            step: Step::ALL
                .get(usize::from(*step))
                .copied()
                .unwrap_or(Step::Exec),
            source: io::Error::from_raw_os_error(i32::from_ne_bytes([
                errno[0], errno[1], errno[2], errno[3],
            ])),
        },
        (Err(source), _) => at(Step::Exec)(source),
        (Ok(_), _) => at(Step::Exec)(io::ErrorKind::InvalidData.into()),
    };
    wait_for(pid);
    Err(error)
}

/// Ends a child that did not become its program.
fn wait_for(pid: Pid) {
    let _ = super::process::kill(pid, libc::SIGKILL);
    let id = rustix::process::Pid::from_raw(pid.number()).expect("a Pid is above 0");
    let until_ended =
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    // Whoever else reaps it: it is gone, and that is what is wanted.
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(rustix::process::WaitId::Pid(id), until_ended)
    });
    let _ = reap(pid);
}

fn pipe() -> io::Result<(std::fs::File, std::fs::File)> {
    let (reader, writer): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// What exec(2) takes: pointers to the strings, ended by a null one. Valid as long as `strings` is.
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

/// The child's side, between fork and exec.
struct Child<'a> {
    spawn: &'a Spawn<'a>,
    argv: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    parent: i32,
    failed: i32,
    go: i32,
    /// The parent's end of `go`, which would keep it from ever ending.
    permit: i32,
}

impl Child<'_> {
    /// Becomes the program, or says which step failed and ends. Async-signal-safe throughout.
    fn run(&self) -> ! {
        let (step, errno) = self.prepare_and_exec();
        let mut report = [step as u8, 0, 0, 0, 0];
        report[1..].copy_from_slice(&errno.to_ne_bytes());
        // SAFETY: writes a local array to a descriptor of ours, then ends without running any destructor.
        unsafe {
            libc::write(self.failed, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    }

    /// Returns only if a step failed.
    fn prepare_and_exec(&self) -> (Step, i32) {
        match self.prepare() {
            Ok(()) => (Step::Exec, self.exec()),
            Err(failed) => failed,
        }
    }

    fn prepare(&self) -> Result<(), (Step, i32)> {
        let spawn = self.spawn;
        // SAFETY: system calls on plain numbers, on strings and arrays made before the fork, and on locals.
        unsafe {
            // Until the parent has told of us, its death is ours.
            check(
                Step::Fork,
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL),
            )?;
            if libc::getppid() != self.parent {
                libc::_exit(127);
            }
            check(Step::Session, libc::setsid())?;
            // A descriptor that is its own target would keep its close-on-exec flag; ours are above 2 by then.
            for (fd, target) in [(spawn.stdin, 0), (spawn.stdout, 1), (spawn.stderr, 2)] {
                check(Step::Streams, libc::dup2(fd.as_raw_fd(), target))?;
            }
            let limit = libc::rlimit64 {
                rlim_cur: spawn.open_files.current.unwrap_or(libc::RLIM64_INFINITY),
                rlim_max: spawn.open_files.maximum.unwrap_or(libc::RLIM64_INFINITY),
            };
            check(
                Step::Limits,
                libc::setrlimit64(libc::RLIMIT_NOFILE, &raw const limit),
            )?;
            libc::umask(spawn.umask as libc::mode_t);

            libc::close(self.permit);
            let mut byte = 0u8;
            // All signals are blocked, so this is not interrupted. No permit: the parent died or refused, there is no
            // record of us, so there must be no process.
            if libc::read(self.go, (&raw mut byte).cast(), 1) != 1 {
                libc::_exit(127);
            }
            check(Step::Fork, libc::prctl(libc::PR_SET_PDEATHSIG, 0))?;

            if let Some(ids) = &spawn.identity {
                check(
                    Step::Groups,
                    libc::setgroups(ids.groups.len() as _, ids.groups.as_ptr()),
                )?;
                check(Step::Group, libc::setgid(ids.gid))?;
                check(Step::User, libc::setuid(ids.uid))?;
            }
            // As the program's user: root's reach is not lent to it.
            check(Step::Directory, libc::chdir(spawn.directory.as_ptr()))?;

            // The kernel's struct sigaction, all zero: the default. By system call, as the C library hides two signals
            // of its own, which who started us may have had ignored all the same.
            let default = [0u64; 8];
            for signal in 1..=64 {
                // KILL and STOP cannot be set, and need not be.
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    default.as_ptr(),
                    std::ptr::null_mut::<u64>(),
                    SIGNAL_SET_BYTES,
                );
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
        Ok(())
    }

    /// Tries the candidates as execvp(3) does; returns why none could be run.
    fn exec(&self) -> i32 {
        let mut failure = libc::ENOENT;
        for candidate in &self.spawn.candidates {
            // SAFETY: a C string, and null-ended arrays of C strings that outlive the call.
            unsafe {
                libc::execve(
                    candidate.as_ptr(),
                    self.argv.as_ptr(),
                    self.environment.as_ptr(),
                );
            }
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => failure = libc::EACCES,
                other => return other,
            }
        }
        failure
    }
}

fn check(step: Step, result: i32) -> Result<(), (Step, i32)> {
    if result == -1 {
        Err((step, errno()))
    } else {
        Ok(())
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
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
    use std::os::fd::AsFd;

    fn strings(texts: &[&str]) -> Vec<CString> {
        texts.iter().map(|text| c_string(text).unwrap()).collect()
    }

    /// Starts `/bin/sh -c script` in `directory`; returns its pid and what it wrote.
    fn run(directory: &str, command: &[&str], script: &str) -> Result<(Pid, String), SpawnError> {
        // Whoever runs the tests may have left something open.
        super::super::background::keep_inherited();
        let null = File::open("/dev/null").unwrap();
        let (mut reader, writer) = pipe().unwrap();
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
        };
        let pid = spawn(&request, |_| Ok(()))?;
        drop(request);
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        wait_for(pid);
        Ok((pid, output))
    }

    #[test]
    fn a_program_has_what_it_was_given_and_nothing_else() {
        let script = "pwd; umask; echo $A; ls -l /proc/self/fd | grep -c -- '->'; cat; ps -o sid= $$ 2>/dev/null";
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
        let request = Spawn {
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
        };
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
}
