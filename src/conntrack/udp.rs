//! UDP and UDP-Lite: replies seen, and two seconds of life before a flow counts as more than a question.

#![forbid(unsafe_code)]

use super::{InvalidReason, Outcome, Status, Sysctls};
use crate::packet::{Packet, tuple::PROTO_UDPLITE};
use crate::time::{Duration, Instant};

const HEADER_LEN: usize = 8;
/// A flow that lives longer than this is a stream; a question with its answer is not.
const QUESTION: Duration = Duration::from_secs(2);

/// Looks at a datagram before any flow is looked for.
///
/// # Errors
/// Why it is INVALID whatever is known.
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
    if sysctls.checksum && !pkt.offload().skips_checksum() && !pkt.l4_checksum_ok() {
        return Err(InvalidReason::Checksum);
    }
    Ok(())
}

/// Takes a datagram of a flow that began at `began_at`.
pub(super) fn track(status: Status, began_at: Instant, now: Instant, sysctls: &Sysctls) -> Outcome {
    let is_stream = status.contains(Status::SEEN_REPLY) && now > began_at + QUESTION;
    let timeout = if is_stream { sysctls.udp_timeout_stream } else { sysctls.udp_timeout };
    Outcome::Accept { timeout: Some(timeout), assured: is_stream, delete: false }
}
