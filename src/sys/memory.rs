//! Memory that is not needed while nothing happens, given back to the system.
//!
//! A daemon that sleeps needs next to nothing of what its start or a request took. Called where a thread is about to wait.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::{ptr, slice};

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Keeps glibc from giving each thread a heap of its own: with a handful of mostly sleeping threads that only costs memory.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and is called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back the binary's code and constants, and what is free of the heap. The code stays in the page cache, and comes
/// back from there page by page when it runs: for tens of microseconds in all.
pub fn release_unused() {
    // SAFETY: the callback keeps nothing of what it is shown.
    unsafe { libc::dl_iterate_phdr(Some(release_binary), ptr::null_mut()) };
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back what is never written of the first object that it is called for, which is the binary: its segments are in an
/// order of the linker's choosing. Source: dl_iterate_phdr(3), elf(5).
///
/// # Safety
/// To be called by dl_iterate_phdr(3).
unsafe extern "C" fn release_binary(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the object and the headers that it names are there during this call.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (
            object.dlpi_addr as usize,
            slice::from_raw_parts(object.dlpi_phdr, count),
        )
    };
    let whole = !(page_size() - 1);
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let first = base + header.p_vaddr as usize;
        let (start, end) = (first & whole, (first + header.p_memsz as usize) & whole);
        // SAFETY: such a segment is mapped privately from the binary's file and never written to, so that its pages read
        // the same afterwards. Fails for no range that is mapped, and then does nothing.
        let _ = unsafe {
            madvise(
                ptr::without_provenance_mut::<c_void>(start),
                end - start,
                Advice::LinuxDontNeed,
            )
        };
    }
    1
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn what_was_given_back_reads_as_before() {
        // Addresses, which the loader has written where the binary may be anywhere.
        static NAMES: [&str; 2] = ["one", "two"];
        for _ in 0..3 {
            release_unused();
            assert_eq!(black_box(&NAMES).join(" "), "one two");
        }
    }
}
