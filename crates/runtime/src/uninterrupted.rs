//! Calls that the kernel broke off for no reason of their own.

use std::io;

/// Makes a call, and again as long as it is interrupted.
///
/// A read from a socket with a timeout ends with EINTR when the process was stopped and goes on, or when its control group
/// was frozen, even if no signal has a handler. `read_exact`, `read_line`, `write_all` and the like go on by themselves;
/// plain `read`, `recv`, `recv_from` and `write` do not.
///
/// # Errors
/// The call's own, except [`io::ErrorKind::Interrupted`].
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn what_is_interrupted_is_done_again_and_nothing_else() {
        for (ends, calls) in [
            (vec![Ok(5)], 1),
            (vec![Err(ErrorKind::Interrupted), Err(ErrorKind::Interrupted), Ok(5)], 3),
            (vec![Err(ErrorKind::Interrupted), Err(ErrorKind::WouldBlock), Ok(5)], 2),
            (vec![Err(ErrorKind::TimedOut), Ok(5)], 1),
        ] {
            let mut made = 0;
            let result = uninterrupted(|| {
                made += 1;
                ends[made - 1].map_err(io::Error::from)
            });
            assert_eq!(made, calls, "{ends:?}");
            assert_eq!(result.map_err(|error| error.kind()), ends[calls - 1], "{ends:?}");
        }
    }
}
