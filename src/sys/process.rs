//! Processes: their ids, ends and signals, and what the daemon asks of the kernel for itself.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{
    PidfdFlags, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, pidfd_open, setrlimit, waitid,
};

/// See [`is_of_the_last`].
const KEPT_DESCRIPTORS: u64 = 32;

/// The id of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(i32);

impl Pid {
    /// A process id as the kernel gives it: above 0, so that no signal ever goes to a group or to everybody.
    pub fn new(number: i32) -> Option<Pid> {
        (number > 0).then_some(Pid(number))
    }

    /// The daemon itself.
    pub fn own() -> Pid {
        Pid(rustix::process::getpid().as_raw_nonzero().get())
    }

    pub const fn number(self) -> i32 {
        self.0
    }

    fn raw(self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.0).expect("a Pid is above 0")
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a process ended. Source: waitid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(u8),
    Signal(i32),
}

impl ExitStatus {
    /// What wait(2) calls a status, of a process that has ended.
    pub fn from_wait(status: i32) -> ExitStatus {
        match status & 0x7f {
            // The code is 8 bits wide.
            0 => ExitStatus::Code((status >> 8) as u8),
            signal => ExitStatus::Signal(signal),
        }
    }
}

/// Looks whether our child has ended, without reaping it: it stays a zombie and its pid stays its own.
///
/// # Errors
/// `ECHILD` if it is not our child (any more).
pub fn peek_exit(pid: Pid) -> io::Result<Option<ExitStatus>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    wait(pid, options)
}

/// What a process used that has ended, with what it has waited for. Source: getrusage(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub cpu_micros: u64,
    /// The most that one of them had resident, where that is known.
    pub max_rss_kib: Option<u64>,
}

/// As the kernel has it, and not libc, where times may be wider. Source: waitid(2), getrusage(2).
#[repr(C)]
#[derive(Default)]
struct KernelRusage {
    user: [libc::c_long; 2],
    system: [libc::c_long; 2],
    maxrss: libc::c_long,
    rest: [libc::c_long; 13],
}

/// Looks what our child used, which has ended and stays as it is; `None`: it has not, or is not our child.
pub fn usage_of(pid: Pid) -> Option<Usage> {
    let mut usage = KernelRusage::default();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel takes plain numbers, no place for siginfo, and writes a struct of this layout.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PID,
            pid.0,
            std::ptr::null_mut::<libc::siginfo_t>(),
            options,
            &raw mut usage,
        )
    };
    // Field widths differ between platforms; none is negative.
    #[allow(clippy::unnecessary_cast)]
    let wide = |field: libc::c_long| field as u64;
    let micros = |[seconds, micros]: [libc::c_long; 2]| wide(seconds) * 1_000_000 + wide(micros);
    // One that runs leaves it untouched, and every process that ran has had a page.
    (result == 0 && usage.maxrss > 0).then(|| Usage {
        cpu_micros: micros(usage.user) + micros(usage.system),
        max_rss_kib: Some(wide(usage.maxrss)),
    })
}

/// Reaps our child if it has ended. From here on its pid may be somebody else's.
///
/// # Errors
/// `ECHILD` if it is not our child (any more).
pub fn reap(pid: Pid) -> io::Result<Option<ExitStatus>> {
    wait(pid, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait(pid: Pid, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid.raw()), options))?;
    Ok(status.map(|status| match status.terminating_signal() {
        Some(signal) => ExitStatus::Signal(signal),
        // An exit status is 8 bits wide.
        None => ExitStatus::Code(status.exit_status().unwrap_or_default() as u8),
    }))
}

/// Sends a signal to one process.
///
/// # Errors
/// `ESRCH` if there is none, `EPERM` if it may not be signalled. Source: kill(2).
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes plain numbers; `pid` is above 0, so it names one process.
    cvt(unsafe { libc::kill(pid.0, signal) })
}

/// Sends a signal to the process group that `leader` leads.
///
/// # Errors
/// `ESRCH` if the group is empty, `EPERM` if none in it may be signalled. Source: kill(2).
pub fn kill_group(leader: Pid, signal: i32) -> io::Result<()> {
    // -1 is everybody: no program of ours is 1, but a forged run record may say so.
    if leader.0 == 1 {
        return Err(rustix::io::Errno::SRCH.into());
    }
    // SAFETY: kill takes plain numbers; `-pid` is below -1.
    cvt(unsafe { libc::kill(-leader.0, signal) })
}

/// A descriptor that names this very process, whatever becomes of its number; `None` where the kernel has none.
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn open_pidfd(pid: Pid) -> io::Result<Option<OwnedFd>> {
    match pidfd_open(pid.raw(), PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        // Before Linux 5.3, or where a sandbox forbids it.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends KILL to the process that a descriptor names.
///
/// # Errors
/// `ESRCH` if it has been reaped, `EPERM` if it may not be signalled.
pub fn kill_pidfd(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(
        fd,
        rustix::process::Signal::KILL,
    )?)
}

/// What the kernel tells by a pidfd. Source: include/uapi/linux/pidfd.h, `struct pidfd_info` in its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    /// As wait(2) has it.
    exit_code: i32,
}

/// How a process ended that is not our child, by a descriptor of it; `None` where that cannot be known (yet): the kernel
/// tells from Linux 6.15 on, and only once its parent has reaped it.
pub fn exit_of(pidfd: impl AsFd) -> Option<ExitStatus> {
    const EXIT: u64 = 1 << 3;
    const GET_INFO: rustix::ioctl::Opcode =
        rustix::ioctl::opcode::read_write::<PidfdInfo>(0xff, 11);
    let mut info = PidfdInfo {
        mask: EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the operation reads and writes a struct of this layout, whose size is part of its number.
    let asked = unsafe {
        let update = rustix::ioctl::Updater::<GET_INFO, PidfdInfo>::new(&mut info);
        rustix::ioctl::ioctl(pidfd, update)
    };
    (asked.is_ok() && info.mask & EXIT != 0).then(|| ExitStatus::from_wait(info.exit_code))
}

/// Makes orphans of our programs our children, so that nothing that they leave behind is lost from sight.
pub fn become_subreaper() -> io::Result<()> {
    // Any pid switches it on.
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// Has the kernel kill this process when its parent ends.
///
/// # Errors
/// `NotConnected` if the parent is not `parent`: it has ended already.
pub fn end_with_parent(parent: Pid) -> io::Result<()> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)?;
    match rustix::process::getppid() {
        Some(now) if now == parent.raw() => Ok(()),
        _ => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// The soft limit of open files; `None`: there is none.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit of open files to the hard one, and returns the limits as they were, for programs.
pub fn raise_open_files() -> (Rlimit, io::Result<()>) {
    let old = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: old.maximum,
            maximum: old.maximum,
        },
    );
    (old, raised.map_err(Into::into))
}

/// Whether a descriptor is one of the last that this process may have: those are kept for starting programs and writing
/// their logs.
pub fn is_of_the_last(fd: impl AsFd) -> bool {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u64::from(fd.as_fd().as_raw_fd().unsigned_abs()) >= limit.saturating_sub(KEPT_DESCRIPTORS)
}

/// Gives this process its name, for those who look for it: one executed by a descriptor bears that number.
pub fn name_main_thread() {
    // Fails for no name of ours. Source: prctl(2), PR_SET_NAME.
    let _ = rustix::thread::set_name(c"hxe");
}

/// Ignores SIGXFSZ: under a limit on the size of files, a write to a log then fails like any other.
pub fn ignore_file_size_signal() {
    // SAFETY: sets a disposition, with no handler of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Microseconds of `CLOCK_MONOTONIC`, as sd_notify(3) wants them.
pub fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// Whether the process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The result of a system call that answers -1 where it failed.
pub(super) fn cvt(result: i32) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_signal_ever_goes_to_everybody() {
        let init = Pid::new(1).unwrap();
        // Signal 0 asks only whether it could be sent.
        let error = kill_group(init, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
