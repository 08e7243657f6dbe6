//! A child that shares our memory until it execs or ends: nothing is copied, so that a start costs the same however big we
//! are (fork(2) of a daemon with many threads takes 1.8 to 7 ms of CPU).
//!
//! Not CLONE_VFORK: that holds the thread that starts the child, which has the run record to write before the child may
//! go on. The child has a stack of its own and shares all else, our thread's errno and TLS too, so both sides keep to rules:
//!
//! - the child makes system calls, and none of those that report by errno may fail as long as its parent looks at errno;
//! - it allocates nothing and takes no lock: whoever holds one in our memory may not run before the child has gone;
//! - what it uses lives until [`Child::has_left`], which the kernel tells. [`Child`] sees to that, also in a panic.
//!
//! It is its own process otherwise: its own descriptors, signal handlers, working directory and credentials. A mistake
//! of it ends it alone.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::thread::{Timespec, futex};

use super::process::{self, Pid};

/// The child's stack. It calls the kernel and little else: a debug build uses some 2 KiB.
const STACK_SIZE: usize = 32 * 1024;
/// How long to wait before a child is looked at that the kernel has not told of: it can be killed before it asks the kernel
/// to tell. Doubled each time.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Whether a child is in our memory: 1 until the kernel clears it. Source: set_tid_address(2).
#[derive(Debug)]
pub(super) struct Presence(AtomicU32);

impl Presence {
    pub(super) fn new() -> Presence {
        Presence(AtomicU32::new(1))
    }

    /// Has the kernel tell of the calling process's leaving: the child's first deed.
    pub(super) fn begin(&self) {
        // SAFETY: the word lives until the child has left; this call cannot fail.
        unsafe { libc::syscall(libc::SYS_set_tid_address, self.0.as_ptr()) };
    }
}

/// A word that one side waits for.
#[derive(Debug)]
pub(super) struct Permit(AtomicU32);

impl Permit {
    pub(super) fn new() -> Permit {
        Permit(AtomicU32::new(0))
    }

    pub(super) fn give(&self) {
        self.0.store(1, Ordering::Release);
        // Cannot fail: the word is there.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
    }

    pub(super) fn wait(&self) {
        while self.0.load(Ordering::Acquire) == 0 {
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, 0, None);
        }
    }
}

/// A child in our memory; killed when dropped before it has left.
pub(super) struct Child<'a> {
    pub(super) pid: Pid,
    presence: &'a Presence,
    has_left: bool,
    _stack: Vec<u128>,
}

impl<'a> Child<'a> {
    /// Starts a child that runs `enter` with `shared`; in this cgroup if it can be.
    ///
    /// # Errors
    /// There is no room for another process.
    ///
    /// # Safety
    /// `enter` begins with [`Presence::begin`] of `presence`, keeps to the rules above, and never returns nor unwinds. What
    /// `shared` points to lives as long as `presence`, and is only read by both sides, or atomic.
    pub(super) unsafe fn start<T>(
        enter: extern "C" fn(*mut c_void) -> c_int,
        shared: &'a T,
        presence: &'a Presence,
        cgroup: Option<BorrowedFd>,
    ) -> io::Result<Child<'a>> {
        let mut stack: Vec<u128> = Vec::with_capacity(STACK_SIZE / size_of::<u128>());
        let bottom = stack.as_mut_ptr();
        let shared = (&raw const *shared).cast_mut().cast::<c_void>();
        // Where the kernel cannot, or may not.
        let born_inside = cgroup.and_then(|cgroup| {
            // SAFETY: the stack is `STACK_SIZE` bytes that nobody else uses; the rest is our caller's promise.
            unsafe { into_cgroup(enter, shared, bottom, cgroup) }
        });
        let pid = match born_inside {
            Some(pid) => pid,
            None => {
                let flags = libc::CLONE_VM | libc::SIGCHLD;
                // SAFETY: as above; a stack grows down from its end, which is aligned as u128 is.
                let pid = unsafe {
                    let top = bottom.add(stack.capacity());
                    libc::clone(enter, top.cast(), flags, shared)
                };
                process::cvt(pid)?;
                pid
            }
        };
        let child = Child {
            pid: Pid::new(pid).expect("clone returns a pid above 0"),
            presence,
            has_left: false,
            _stack: stack,
        };
        if let Some(cgroup) = cgroup.filter(|_| born_inside.is_none()) {
            // Outside it is found by its traces.
            let _ = move_into(cgroup, child.pid);
        }
        Ok(child)
    }

    /// Waits until the child is in our memory no more: it has become its program, or has ended.
    pub(super) fn wait_until_left(&mut self) {
        let present = &self.presence.0;
        let mut pause = FIRST_LOOK;
        while present.load(Ordering::Acquire) != 0 {
            let timeout = Timespec::try_from(pause).ok();
            pause = (pause * 2).min(LONGEST_LOOK);
            // The kernel wakes as for one shared between processes.
            let _ = futex::wait(present, futex::Flags::empty(), 1, timeout.as_ref());
            if !matches!(process::peek_exit(self.pid), Ok(None)) {
                break;
            }
        }
        self.has_left = true;
    }

    /// Ends a child that did not become its program; nothing is left of it.
    pub(super) fn end(mut self) {
        kill_and_reap(self.pid);
        self.has_left = true;
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        if !self.has_left {
            kill_and_reap(self.pid);
        }
    }
}

/// Ends our child at once, and reaps it; whoever else does: it is gone, and that is what is wanted.
pub(super) fn kill_and_reap(pid: Pid) {
    let _ = process::kill(pid, libc::SIGKILL);
    let id = rustix::process::Pid::from_raw(pid.number()).expect("a Pid is above 0");
    let until_ended =
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(rustix::process::WaitId::Pid(id), until_ended)
    });
    let _ = process::reap(pid);
}

/// Moves a process into a cgroup: takes the kernel 5 to 15 ms, and 0.2 ms of CPU.
fn move_into(cgroup: BorrowedFd, pid: Pid) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let list = openat(cgroup, c"cgroup.procs", flags, Mode::empty())?;
    rustix::io::write(list, pid.to_string().as_bytes())?;
    Ok(())
}

/// Starts a child inside a cgroup; `None` where that cannot be.
///
/// # Safety
/// As [`Child::start`]; the stack begins at `bottom`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
unsafe fn into_cgroup(
    enter: extern "C" fn(*mut c_void) -> c_int,
    shared: *mut c_void,
    bottom: *mut u128,
    cgroup: BorrowedFd,
) -> Option<i32> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = CloneArguments {
        flags: libc::CLONE_VM as u64 | INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        stack: bottom.expose_provenance() as u64,
        stack_size: STACK_SIZE as u64,
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArguments::default()
    };
    // SAFETY: the struct is the kernel's; the stack is free and aligned; `enter` does not return.
    let pid = unsafe { clone3(&raw const arguments, enter, shared) };
    // From -4095 to -1 it is an error.
    i32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// There, clone3 has not been written yet: the child is moved.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
unsafe fn into_cgroup(
    _enter: extern "C" fn(*mut c_void) -> c_int,
    _shared: *mut c_void,
    _bottom: *mut u128,
    _cgroup: BorrowedFd,
) -> Option<i32> {
    None
}

/// Source: clone3(2), `struct clone_args` in its third version.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Calls clone3(2), which no C library offers; the child runs `enter` on the new stack.
///
/// # Safety
/// `arguments` name a stack that is free; `enter` does not return.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    arguments: *const CloneArguments,
    enter: extern "C" fn(*mut c_void) -> c_int,
    shared: *mut c_void,
) -> isize {
    let result;
    // SAFETY: the parent's side changes what it says that it changes; the child's never comes back.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r12") shared,
            in("r13") enter,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    arguments: *const CloneArguments,
    enter: extern "C" fn(*mut c_void) -> c_int,
    shared: *mut c_void,
) -> isize {
    let result;
    // SAFETY: the parent's side changes what it says that it changes; the child's never comes back.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x0, {shared}",
            "blr {enter}",
            "brk 1",
            "2:",
            inlateout("x0") arguments => result,
            in("x1") size_of::<CloneArguments>(),
            in("x8") libc::SYS_clone3,
            shared = in(reg) shared,
            enter = in(reg) enter,
        );
    }
    result
}

/// As above. r7 takes the call's number, and may be the frame pointer: the parent gets it back. The others are named, as in
/// ARM code the compiler could choose r7 for one of them.
///
/// # Safety
/// As above.
#[cfg(target_arch = "arm")]
unsafe fn clone3(
    arguments: *const CloneArguments,
    enter: extern "C" fn(*mut c_void) -> c_int,
    shared: *mut c_void,
) -> isize {
    let result;
    // SAFETY: the parent's side changes what it says that it changes; the child's never comes back.
    unsafe {
        std::arch::asm!(
            "mov r3, r7",
            "mov r7, r2",
            "svc 0",
            "mov r7, r3",
            "cmp r0, #0",
            "bne 2f",
            "mov r0, r4",
            "blx r5",
            "udf #0",
            "2:",
            inlateout("r0") arguments => result,
            in("r1") size_of::<CloneArguments>(),
            in("r2") libc::SYS_clone3,
            out("r3") _,
            in("r4") shared,
            in("r5") enter,
        );
    }
    result
}
