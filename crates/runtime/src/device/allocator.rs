//! Memory, asked of the system, and an end with a reason where there is none left: under a memory limit
//! (`ulimit -v`, a container's) a program would otherwise end by a signal.

#![allow(unsafe_code, reason = "an allocator hands out bare memory")]

use std::alloc::{GlobalAlloc, Layout, System};

/// The exit code for "this machine cannot do it".
const NO_MEMORY: i32 = 3;
const LAST_WORDS: &[u8] =
    b"error: no memory is left\n  hint: is there a limit (`ulimit -v`, a container's)?\n";

/// The system's allocator, which never fails to return.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

fn some(memory: *mut u8) -> *mut u8 {
    if memory.is_null() { end() } else { memory }
}

#[cold]
fn end() -> ! {
    // Nothing may be allocated here; whoever cannot read it sees the exit code.
    let _ = rustix::io::write(rustix::stdio::stderr(), LAST_WORDS);
    signal_hook::low_level::exit(NO_MEMORY)
}

// SAFETY: all memory comes from the system's allocator and goes back to it, with the layouts that it was asked for.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the system's.
        some(unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from the system's allocator, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        some(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `memory` came from the system's allocator with this layout, and the caller vouches for the size.
        some(unsafe { System.realloc(memory, layout, size) })
    }
}
