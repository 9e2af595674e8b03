//! Descriptors that whoever started this process left open.

#![allow(unsafe_code, reason = "they are bare numbers that nobody owns")]

use rustix::io::{FdFlags, fcntl_getfd};
use std::fs;
use std::os::fd::{BorrowedFd, RawFd};

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
