//! What a host of the WebAssembly module calls.
//!
//! The host has room made with [`stateway_room`], writes its question there, calls [`stateway_ask`] with the question's length, and
//! finds an answer of the length that this returns where [`stateway_answer`] says. There is one buffer for both.

#![allow(
    unsafe_code,
    reason = "a function has a name for the host only by `no_mangle`; nothing here is unsafe otherwise"
)]

use crate::{Answer, Question, Session};
use parking_lot::Mutex;
use std::sync::LazyLock;

static BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static SESSION: LazyLock<Mutex<Session>> = LazyLock::new(Mutex::default);

/// Makes room for a question, and says where.
#[unsafe(no_mangle)]
pub extern "C" fn stateway_room(len: usize) -> *mut u8 {
    let mut buffer = BUFFER.lock();
    buffer.clear();
    buffer.resize(len, 0);
    buffer.as_mut_ptr()
}

/// Answers the question that was written, and says how long the answer is.
#[unsafe(no_mangle)]
pub extern "C" fn stateway_ask() -> usize {
    let question = std::mem::take(&mut *BUFFER.lock());
    let answer = match serde_json::from_slice::<Question>(&question) {
        Ok(question) => SESSION.lock().answer(question),
        Err(error) => Answer::Refused { message: format!("not a question: {error}") },
    };
    let mut buffer = BUFFER.lock();
    *buffer = serde_json::to_vec(&answer).unwrap_or_default();
    buffer.len()
}

/// Where the answer is.
#[unsafe(no_mangle)]
pub extern "C" fn stateway_answer() -> *const u8 {
    BUFFER.lock().as_ptr()
}
