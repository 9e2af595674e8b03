//! Frames of noise through routers in both modes, with rules of many kinds: nothing panics.
//!
//! The input: a byte that picks the router, then for each frame a byte of time, one of port and switches, two of
//! length, and its bytes.

use super::routers;
use stateway_core::iface::IfaceId;
use stateway_core::packet::Frame;
use stateway_core::record::{NoRecord, Trace};
use stateway_core::router::Router;
use stateway_core::time::Instant;

/// Where the bits of a frame's second byte lead.
const RIGHT: u8 = 1;
const MEND_CHECKSUM: u8 = 2;
const RECORDED: u8 = 4;

pub fn run(data: &[u8]) {
    let Some((&pick, rest)) = data.split_first() else { return };
    through(&routers::pick(pick), 0, rest, &mut |_, _| {});
}

/// Takes all frames of an input through `router`, whose clock shows so many nanoseconds; `look` sees each before and
/// after, if it was forwarded.
pub fn through(router: &Router, mut now: u64, mut rest: &[u8], look: &mut dyn FnMut(&[u8], &[u8])) {
    let mut worker = router.worker();
    while let Some((&[time, switches, high, low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (frame, behind) = behind.split_at(len);
        rest = behind;
        // Up to two hours at once, so that every timer runs out.
        now += u64::from(time).pow(2) * 110_000_000;
        let port = IfaceId(u16::from(switches & RIGHT));
        let mut frame = frame.to_vec();
        if switches & MEND_CHECKSUM != 0 {
            routers::mend_checksum(&mut frame);
        }
        let now = Instant::from_nanos(now);
        router.handle_timeout(&mut worker, now);
        worker.take_emissions();
        let before = frame.clone();
        let outcome = if switches & RECORDED == 0 {
            router.process(&mut worker, now, port, Frame::new(&mut frame), &mut NoRecord)
        } else {
            router.process(&mut worker, now, port, Frame::new(&mut frame), &mut Trace::default())
        };
        if outcome.out.is_some() {
            look(&before, &frame[..outcome.len]);
        }
        worker.take_emissions();
    }
}
