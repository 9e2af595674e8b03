//! UDP and UDP-Lite: replies seen, and two seconds of life before a flow counts as more than a question.

#![forbid(unsafe_code)]

use super::protocol::unsound;
use super::tcp::TcpOutcome as Outcome;
use super::{InvalidReason, Sysctls};
use crate::base::time::{Duration, Instant};
use crate::packet::checksum::Sum;
use crate::packet::tuple::PROTO_UDP;
use crate::packet::{Family, Packet};

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
    let Some(&[.., len_high, len_low, sum_high, sum_low]) = l4.first_chunk::<HEADER_LEN>() else {
        return unsound(InvalidReason::Truncated);
    };
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    if len < HEADER_LEN || len > l4.len() {
        return unsound(InvalidReason::UdpLength);
    }
    let has_checksum = [sum_high, sum_low] != [0, 0] && !pkt.is_later_fragment();
    if has_checksum && sysctls.checksum && !pkt.offload().skips_checksum() && !pkt.adds_up() {
        return unsound(InvalidReason::Checksum);
    }
    Ok(())
}

/// The same for UDP-Lite, which has the checksum's coverage where UDP has its length (RFC 3828 §3.1).
///
/// # Errors
/// Why it is INVALID whatever is known.
pub(super) fn check_lite(pkt: &Packet, sysctls: &Sysctls) -> Result<(), InvalidReason> {
    let l4 = pkt.l4();
    let Some(&[.., len_high, len_low, sum_high, sum_low]) = l4.first_chunk::<HEADER_LEN>() else {
        return Err(InvalidReason::Truncated);
    };
    let coverage = usize::from(u16::from_be_bytes([len_high, len_low]));
    if coverage != 0 && (coverage < HEADER_LEN || coverage > l4.len()) {
        return Err(InvalidReason::UdpliteCoverage);
    }
    if [sum_high, sum_low] == [0, 0] {
        return Err(InvalidReason::UdpliteNoChecksum);
    }
    if sysctls.checksum && !pkt.offload().skips_checksum() && !udplite_checksum_ok(pkt, coverage) {
        return Err(InvalidReason::Checksum);
    }
    Ok(())
}

/// The kernel's tracker sums the pseudo-header of UDP-Lite with the protocol number of UDP, and in IPv4 with the last
/// byte alone of the length. Hosts do neither (RFC 3828 §3.2), so what they send in earnest is INVALID to both of us.
fn udplite_checksum_ok(pkt: &Packet, coverage: usize) -> bool {
    let l4 = pkt.l4();
    let covered = if coverage == 0 { l4 } else { l4.get(..coverage).unwrap_or(l4) };
    let len = if pkt.family() == Family::Ipv4 { l4.len() & 0xff } else { l4.len() };
    let sum = Sum::pseudo_header(pkt.src(), pkt.dst(), pkt.family(), PROTO_UDP, len);
    sum.bytes(covered).is_all_ones()
}

/// Whether a flow that was answered is more than a question with its answer.
#[inline]
pub(super) const fn is_old(began_at: Instant, now: Instant) -> bool {
    now.as_nanos().saturating_sub(began_at.as_nanos()) > QUESTION.as_nanos() as u64
}

/// Takes a datagram of a flow. UDP-Lite is a stream once it was answered; UDP then must also be old.
#[inline]
pub(super) fn track(is_stream: bool, sysctls: &Sysctls) -> Outcome {
    let timeout = if is_stream { sysctls.udp_timeout_stream } else { sysctls.udp_timeout };
    Outcome::Accept { timeout: Some(timeout), assured: is_stream, delete: false }
}
