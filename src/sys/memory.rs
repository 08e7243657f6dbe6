//! Memory that is not needed while nothing happens, given back to the system.
//!
//! A daemon that sleeps needs next to nothing of what its start or a request took. Called where a thread is about to wait.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

// SAFETY: each linker for Linux makes these two; only their addresses are taken.
unsafe extern "C" {
    /// The first byte of this binary in memory, and the first behind its code: made by the linker. Source: end(3), ld(1).
    static __executable_start: u8;
    static etext: u8;
}

/// Keeps glibc from giving each thread a heap of its own: with a handful of mostly sleeping threads that only costs memory.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and is called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back the binary's code and what is free of the heap. The code stays in the page cache, and comes back from there
/// page by page when it runs: for tens of microseconds in all.
pub fn release_unused() {
    let start = &raw const __executable_start as usize;
    let end = (&raw const etext as usize) & !(page_size() - 1);
    // SAFETY: from its start to the end of its code a binary is mapped privately from its file and never written to, so
    // that its pages read the same afterwards. Fails for no range that is mapped, and then does nothing.
    let _ = unsafe {
        madvise(
            ptr::without_provenance_mut::<c_void>(start),
            end.saturating_sub(start),
            Advice::LinuxDontNeed,
        )
    };
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the frames of [`Stack::release`] and of what it calls take at the most, many times over.
const OWN_FRAMES: usize = 1024;

/// The stack of one thread, and of use to that one only.
#[derive(Debug)]
pub struct Stack {
    /// Its lowest byte that may be used; 0: not known.
    lowest: usize,
    _of_this_thread: PhantomData<*const u8>,
}

impl Stack {
    /// The calling thread's.
    pub fn of_this_thread() -> Stack {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        let mut lowest = ptr::null_mut();
        let mut size = 0;
        // SAFETY: the attributes are read only if they were written, and destroyed then; the thread is our own.
        unsafe {
            if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 {
                libc::pthread_attr_getstack(attributes.as_ptr(), &mut lowest, &mut size);
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
            }
        }
        Stack {
            lowest: lowest as usize,
            _of_this_thread: PhantomData,
        }
    }

    /// Gives back what lies below the caller's frame: what deeper calls have used.
    #[inline(never)]
    pub fn release(&self) {
        let here = 0_u8;
        let end = (&raw const here as usize - OWN_FRAMES) & !(page_size() - 1);
        if self.lowest == 0 || end <= self.lowest {
            return;
        }
        // SAFETY: the type cannot leave its thread, so this is the stack that we are on, and nothing is alive from its lowest
        // byte to a while below this frame, where the call of the kernel has its own.
        let _ = unsafe {
            madvise(
                ptr::without_provenance_mut::<c_void>(self.lowest),
                end - self.lowest,
                Advice::LinuxDontNeed,
            )
        };
    }
}
