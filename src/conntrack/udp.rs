//! UDP and UDP-Lite: replies seen, and two seconds of life before a flow counts as more than a question.

#![forbid(unsafe_code)]

use super::{InvalidReason, Outcome, Status, Sysctls};
use crate::packet::checksum::Sum;
use crate::packet::tuple::{PROTO_UDP, PROTO_UDPLITE};
use crate::packet::{Family, Packet};
use crate::time::{Duration, Instant};

const HEADER_LEN: usize = 8;
/// A flow that lives longer than this is a stream; a question with its answer is not.
const QUESTION: Duration = Duration::from_secs(2);

/// Looks at a datagram before any flow is looked for.
///
/// # Errors
/// Why it is INVALID whatever is known.
#[inline(always)]
pub(super) fn check(pkt: &Packet, sysctls: &Sysctls) -> Result<(), InvalidReason> {
    let l4 = pkt.l4();
    let Some(&[_, _, _, _, len_high, len_low, sum_high, sum_low]) = l4.first_chunk::<HEADER_LEN>() else {
        return Err(InvalidReason::Truncated);
    };
    // UDP's length; UDP-Lite has the checksum's coverage there instead.
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let is_lite = pkt.proto() == PROTO_UDPLITE;
    let fits = len >= HEADER_LEN && len <= l4.len();
    if is_lite && len != 0 && !fits {
        return Err(InvalidReason::UdpliteCoverage);
    }
    if !is_lite && !fits {
        return Err(InvalidReason::UdpLength);
    }
    if [sum_high, sum_low] == [0, 0] {
        return if is_lite { Err(InvalidReason::UdpliteNoChecksum) } else { Ok(()) };
    }
    let is_sound = || if is_lite { udplite_checksum_ok(pkt, len) } else { pkt.l4_checksum_ok() };
    if sysctls.checksum && !pkt.offload().skips_checksum() && !is_sound() {
        return Err(InvalidReason::Checksum);
    }
    Ok(())
}

/// The kernel's tracker sums the pseudo-header of UDP-Lite with the protocol number of UDP, and in IPv4 with the last
/// byte alone of the length. Hosts do neither (RFC 3828 §3.2), so what they send in earnest is INVALID to both of us.
#[cold]
fn udplite_checksum_ok(pkt: &Packet, coverage: usize) -> bool {
    let l4 = pkt.l4();
    let covered = if coverage == 0 { l4 } else { l4.get(..coverage).unwrap_or(l4) };
    let len = if pkt.family() == Family::Ipv4 { l4.len() & 0xff } else { l4.len() };
    let sum = Sum::pseudo_header(pkt.src(), pkt.dst(), pkt.family(), PROTO_UDP, len);
    sum.bytes(covered).folded() == 0xffff
}

/// Takes a datagram of a flow that began at `began_at`. UDP-Lite is a stream once it was answered.
#[inline(always)]
pub(super) fn track(
    proto: u8,
    status: Status,
    began_at: Instant,
    now: Instant,
    sysctls: &Sysctls,
) -> Outcome {
    let is_old = proto == PROTO_UDPLITE || now > began_at + QUESTION;
    let is_stream = status.contains(Status::SEEN_REPLY) && is_old;
    let timeout = if is_stream { sysctls.udp_timeout_stream } else { sysctls.udp_timeout };
    Outcome::Accept { timeout: Some(timeout), assured: is_stream, delete: false }
}
