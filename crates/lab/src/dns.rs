//! The answer of the service `dns`, the same on simulated hosts and on real ones.

#![forbid(unsafe_code)]

/// Answers every question for an address with 192.0.2.53 (RFC 1035 §4.1).
pub(crate) fn answer(request: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let header = request.get(..HEADER)?;
    let name_len = request.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = request.get(HEADER..HEADER + name_len + 4)?;
    let mut reply = header.to_vec();
    // An answer, recursion available; one question, one answer.
    reply[2..].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    // The name is a pointer to the question; type A, class IN, 60 seconds, 4 bytes.
    reply.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53]);
    Some(reply)
}
