//! TFTP: the server answers a request from a port of its own choice (RFC 1350 §4).

#![forbid(unsafe_code)]

use super::{Announced, Outcome, Silence};
use crate::packet::{Tuple, tuple::PROTO_UDP};

const READ_REQUEST: [u8; 2] = [0, 1];
const WRITE_REQUEST: [u8; 2] = [0, 2];

/// Reads one datagram; `reply` is how answers of its connection go.
pub(super) fn read(reply: &Tuple, payload: &[u8]) -> Outcome {
    if payload.starts_with(&READ_REQUEST) || payload.starts_with(&WRITE_REQUEST) {
        let expected = Tuple { left: 0, proto: PROTO_UDP, ..*reply };
        return Outcome::Announces(Announced { tuple: expected, written: None });
    }
    Outcome::Nothing(Silence::NoAnnouncement)
}
