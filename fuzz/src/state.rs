//! State files: nothing panics, neither reading one nor forwarding with what it says, and what is then saved can be read.
//!
//! The input: a byte that picks the router, one of switches and of time passed, two for the length of frames as in the
//! target `frames`, those frames, and a state file, whose head is made right unless a switch says otherwise.

use super::{frames, routers};
use stateway_core::router::Router;
use stateway_core::time::{Duration, Instant};
use stateway_runtime::statefile::{self, State};
use std::io::Cursor;

/// Leaves the head as it is.
const AS_IT_IS: u8 = 1;
/// Where the head has the length of the body, its CRC and its own, and where the body begins.
const LENGTH_AT: usize = 24;
const CRC_AT: usize = 32;
const HEAD_CRC_AT: usize = 40;
const BODY_AT: usize = 44;
/// The clock shows the age of the oldest connection, as that of a router does which starts; a year at most.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

pub fn run(data: &[u8]) {
    let Some((&[pick, switches, high, low], rest)) = data.split_first_chunk() else { return };
    let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    let (packets, file) = rest.split_at(len);
    let mut file = file.to_vec();
    if switches & AS_IT_IS == 0 {
        seal(&mut file);
    }
    let Ok(state) = State::parse(file) else { return };
    let router = routers::pick_any(pick);
    let passed = Duration::from_secs(u64::from(switches >> 1).pow(3));
    let now = Instant::ZERO + (state.oldest() + passed).min(LONGEST);
    state.restore(&router, passed, now);
    saved(&router, now);
    frames::through(&router, now.as_nanos(), packets, &mut |_, _| {});
    saved(&router, now);
}

/// Saves what a router knows, which can be read.
fn saved(router: &Router, now: Instant) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    statefile::write(&mut file, router, now, 1).expect("memory can be written");
    let file = file.into_inner();
    if let Err(error) = State::parse(&file) {
        panic!("what was saved cannot be read: {error}");
    }
    file
}

/// Makes the head right for the body, where there is one.
fn seal(file: &mut [u8]) {
    let Some((head, body)) = file.split_at_mut_checked(BODY_AT) else { return };
    let len = body.len() as u64;
    head[LENGTH_AT..CRC_AT].copy_from_slice(&len.to_le_bytes());
    head[CRC_AT..CRC_AT + 4].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&head[..HEAD_CRC_AT]);
    head[HEAD_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// An input with `packets`, and the state file of a router that forwarded them.
#[allow(dead_code, reason = "it is for `seeds` alone")]
pub fn input_of(pick: u8, packets: &[u8]) -> Vec<u8> {
    let router = routers::pick_any(pick);
    frames::through(&router, 0, packets, &mut |_, _| {});
    let file = saved(&router, Instant::ZERO + Duration::from_secs(1));
    let len = u16::try_from(packets.len()).unwrap_or(0);
    [&[pick, 2][..], &len.to_be_bytes(), &packets[..usize::from(len)], &file].concat()
}
