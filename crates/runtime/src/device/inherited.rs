//! Descriptors that whoever started this process left open.

#![allow(
    unsafe_code,
    reason = "they are bare numbers that nobody owns, and Rust's runtime changes them before `main`"
)]

use rustix::io::{FdFlags, fcntl_getfd};
use std::fs;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Standard error; up to it, descriptors are meant for us.
const LAST_OF_OURS: RawFd = 2;

/// Closes what this process was started with, beyond standard input, output and error. Whatever it opened by itself is
/// told from that by its close-on-exec flag, with which nothing survives a start.
pub fn close() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    let numbers: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > LAST_OF_OURS) {
        // SAFETY: it is only asked for its flags; if it is closed meanwhile, as the folder's own is, that fails.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
        if flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            // SAFETY: nothing in this process owns it: all that Rust's and our own code opens is close-on-exec.
            unsafe { rustix::io::close(number) };
        }
    }
}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed (`>&-`) when this process began. Rust's runtime puts /dev/null in its place: what is
/// written there is lost, and nothing says so.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

/// Called when the program is loaded, before Rust's runtime looks at descriptors.
// SAFETY: this section is a list of functions, which the system calls once each, with arguments that C lets a function
// ignore. This one makes a system call and sets a flag: it takes nothing that is made ready later.
#[unsafe(link_section = ".init_array")]
#[used]
static AT_LOAD: extern "C" fn() = note_stdout;

extern "C" fn note_stdout() {
    let closed = fcntl_getfd(rustix::stdio::stdout()).is_err();
    STDOUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
}
