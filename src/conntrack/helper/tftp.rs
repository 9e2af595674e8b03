//! TFTP: the server answers a request from a port of its own choice (RFC 1350 §4).

#![forbid(unsafe_code)]

use super::{Announced, Outcome};
use crate::packet::{Tuple, tuple::PROTO_UDP};

const READ_REQUEST: [u8; 2] = [0, 1];
const WRITE_REQUEST: [u8; 2] = [0, 2];

/// Reads one datagram; `original` is its connection's.
pub(super) fn read(original: &Tuple, payload: &[u8]) -> Outcome {
    if payload.starts_with(&READ_REQUEST) || payload.starts_with(&WRITE_REQUEST) {
        let expected = Tuple { left: 0, proto: PROTO_UDP, ..original.reply() };
        return Outcome::Announces(Announced { tuple: expected });
    }
    Outcome::Nothing
}
