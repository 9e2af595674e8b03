//! What the trackers of the protocols have in common: each is asked whether a packet is sound, what a connection begins
//! with, and what a packet makes of it.

#![forbid(unsafe_code)]

use super::table::entry::Extra;
use super::tcp::TcpOutcome as Outcome;
use super::{CtState, Direction, Entry, InvalidReason, Proto, Status, Sysctls, icmp, sctp, tcp, udp};
use crate::base::time::{Duration, Instant};
use crate::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use crate::packet::{Family, Packet, Segment, Seq, Tuple};

/// What was read of the upper-layer header while it was checked.
pub(super) enum Layer4<'a> {
    Tcp(Segment),
    Sctp(sctp::Chunks<'a>),
    Other,
}

/// INVALID packets are rare: as a cold call, this keeps their code out of the common path.
#[cold]
#[inline(never)]
pub(super) fn unsound<T>(reason: InvalidReason) -> Result<T, InvalidReason> {
    Err(reason)
}

/// What a protocol's tracker says of a packet, whatever is known of its flow.
#[inline(always)]
pub(super) fn check<'a>(
    pkt: &'a Packet,
    family: Family,
    proto: u8,
    sysctls: &Sysctls,
) -> Result<Layer4<'a>, InvalidReason> {
    match (family, proto) {
        (_, PROTO_TCP) => return tcp::check(pkt, sysctls).map(Layer4::Tcp),
        (_, PROTO_UDP) => udp::check(pkt, sysctls)?,
        (_, PROTO_UDPLITE) => udp::check_lite(pkt, sysctls)?,
        (_, PROTO_SCTP) => return sctp::Chunks::check(pkt, sysctls).map(Layer4::Sctp),
        (Family::Ipv4, PROTO_ICMPV6) | (Family::Ipv6, PROTO_ICMP) => {
            return unsound(InvalidReason::IcmpFamily);
        }
        _ => {}
    }
    Ok(Layer4::Other)
}

/// What to remember from the first packet of a flow.
pub(super) fn open(layer4: &Layer4, tuple: &Tuple, sysctls: &Sysctls) -> Result<Proto, InvalidReason> {
    Ok(match layer4 {
        Layer4::Tcp(seg) => Proto::Tcp(tcp::Tcp::open(seg, sysctls)?),
        Layer4::Sctp(chunks) => Proto::Sctp(sctp::Sctp::open(chunks)?),
        Layer4::Other if tuple.is_icmp() && !icmp::is_request(tuple) => {
            return Err(InvalidReason::IcmpUnsolicited);
        }
        Layer4::Other => Proto::Plain,
    })
}

/// What becomes of a connection of which nothing but its time is kept.
pub(super) const fn keep(timeout: Duration) -> Outcome {
    Outcome::Accept { timeout: Some(timeout), assured: false, delete: false }
}

/// By how much what the other side acknowledges is shifted, where it is.
#[cold]
pub(super) fn shift_at(extra: Option<&Extra>, direction: Direction, seq: Seq) -> u32 {
    let shifts = extra.and_then(|extra| extra.rare.as_ref()?.shifts.as_ref());
    shifts.map_or(0, |shifts| shifts[direction as usize].at(seq))
}

impl Entry {
    /// The state of a packet in `direction`, before it is taken into account.
    #[inline]
    pub(super) fn ctstate(&self, direction: Direction) -> CtState {
        if direction == Direction::Reply || self.status.contains(Status::SEEN_REPLY) {
            CtState::Established
        } else if self.status.contains(Status::EXPECTED) {
            CtState::Related
        } else {
            CtState::New
        }
    }

    /// Lets the protocol's tracker say what becomes of a packet and of the connection. `proto` is that of both.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        proto: u8,
        layer4: &Layer4,
        direction: Direction,
        now: Instant,
        sysctls: &Sysctls,
    ) -> Outcome {
        let seen_reply = self.status.contains(Status::SEEN_REPLY);
        match proto {
            PROTO_TCP => {
                let (Proto::Tcp(tcp), Layer4::Tcp(seg)) = (&mut self.proto, layer4) else {
                    return keep(sysctls.generic_timeout);
                };
                let assured = self.status.contains(Status::ASSURED);
                let seen = tcp::Seen { seen_reply, assured, put_back: 0 };
                if self.status.contains(Status::SEQ_ADJUST) {
                    let shift = shift_at(self.extra.as_deref(), direction.opposite(), seg.ack - 1);
                    let seen = tcp::Seen { put_back: shift, ..seen };
                    return tcp.track(&seg.put_back(shift), direction, seen, sysctls);
                }
                tcp.track(seg, direction, seen, sysctls)
            }
            PROTO_UDP => udp::track(seen_reply && udp::is_old(self.began_at, now), sysctls),
            PROTO_UDPLITE => udp::track(seen_reply, sysctls),
            PROTO_SCTP => self.take_chunks(layer4, direction, sysctls),
            PROTO_ICMP => keep(sysctls.icmp_timeout),
            PROTO_ICMPV6 => keep(sysctls.icmpv6_timeout),
            PROTO_GRE if seen_reply => {
                Outcome::Accept { timeout: Some(sysctls.gre_timeout_stream), assured: true, delete: false }
            }
            PROTO_GRE => keep(sysctls.gre_timeout),
            _ => keep(sysctls.generic_timeout),
        }
    }

    fn take_chunks(&mut self, layer4: &Layer4, direction: Direction, sysctls: &Sysctls) -> Outcome {
        let (Proto::Sctp(sctp), Layer4::Sctp(chunks)) = (&mut self.proto, layer4) else {
            return keep(sysctls.generic_timeout);
        };
        let outcome = sctp.track(chunks, direction, !self.status.contains(Status::CONFIRMED), sysctls);
        self.status.set(Status::ASSURED, sctp.was_established());
        outcome
    }

    #[inline]
    pub(super) fn renew(&mut self, expires_at: Instant) {
        if !self.status.contains(Status::FIXED_TIMEOUT) {
            self.expires_at = expires_at;
        }
    }

    #[inline]
    pub(super) fn count(&mut self, direction: Direction, pkt: &Packet) {
        if self.is_counted() {
            self.count_bytes(direction, pkt.l3_len() as u64);
        }
    }

    #[inline(never)]
    fn count_bytes(&mut self, direction: Direction, bytes: u64) {
        let counter = &mut self.extra_mut().rare_mut().counters[direction as usize];
        counter.packets += 1;
        counter.bytes += bytes;
    }
}
