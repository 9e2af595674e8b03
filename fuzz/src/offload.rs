//! Frames with whatever virtio header through routers in both modes, and what leaves them cut and finished as for a port
//! that takes no offload: nothing panics, and no piece is longer than the whole.
//!
//! The input: a byte that picks the router, then for each frame ten bytes of virtio header, two of length, one of port
//! and switches, one of time, and its bytes.

use super::routers;
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Frame, Offload};
use stateway_core::record::NoRecord;
use stateway_core::time::Instant;
use stateway_runtime::device::segment;

const RIGHT: u8 = 1;
const GROW: u8 = 2;
const MEND_CHECKSUM: u8 = 4;
/// A super-frame with its Ethernet header.
const MAX_FRAME: usize = 65_549;

pub fn run(data: &[u8]) {
    let Some((&pick, mut rest)) = data.split_first() else { return };
    let router = routers::pick(pick);
    let mut worker = router.worker();
    let mut now = 0;
    while let Some((header, behind)) = rest.split_first_chunk::<14>() {
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let offload = Offload {
            flags: header[0],
            gso_type: header[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        };
        let (frame, behind) = behind.split_at(usize::from(word(10)).min(behind.len()));
        rest = behind;
        let mut frame = frame.to_vec();
        if header[12] & GROW != 0 {
            grow(&mut frame, header[13]);
        }
        if header[12] & MEND_CHECKSUM != 0 {
            routers::mend_checksum(&mut frame);
        }
        now += u64::from(header[13]) * 100_000_000;
        let at = Instant::from_nanos(now);
        let port = IfaceId(u16::from(header[12] & RIGHT));
        let outcome = router.process(
            &mut worker,
            at,
            port,
            Frame::new(&mut frame).with_offload(offload),
            &mut NoRecord,
        );
        assert!(outcome.len <= frame.len(), "it cannot leave in the buffer that it came in");
        if outcome.out.is_some() {
            finish(&mut frame[..outcome.len], outcome.offload);
        }
        for mut emission in worker.take_emissions() {
            finish(&mut emission.frame, emission.offload);
        }
        router.handle_timeout(&mut worker, at);
        worker.take_emissions();
    }
}

/// Forty times its length, as a super-frame has, with the length of IPv4 to match.
fn grow(frame: &mut Vec<u8>, with: u8) {
    if frame.len() <= 40 {
        return;
    }
    frame.resize((frame.len() * 40).min(MAX_FRAME), with);
    if frame[12] == 8 {
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
    }
}

/// What is done for a port that takes no frame with work left to do.
fn finish(frame: &mut [u8], offload: Offload) {
    let whole = frame.len();
    if offload.is_super_frame() {
        segment::split(frame, offload, &mut |piece| assert!((1..=whole).contains(&piece.len())));
    } else if offload != Offload::NONE {
        segment::finish_checksum(frame, offload);
    }
}
