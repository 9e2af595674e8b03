//! What helpers announce: taken as expectations, and where the connection is translated, rewritten in the packet.

#![forbid(unsafe_code)]

use super::expect::{Follows, Refused};
use super::helper::{Announced, Heard, Outcome, Silence, ftp};
use super::{Conntrack, CtState, Direction, EventKind, Expectation, Helper, Status, Tracked};
use crate::base::fate::{DropReason, Fate, Stage};
use crate::base::time::Instant;
use crate::nat::Side;
use crate::nat::seqadj::{Shift, shift_segment};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Packet, Segment, Tuple};
use core::ops::ControlFlow::{Break, Continue};
use core::sync::atomic::Ordering;

/// Ports that are tried besides the one that was announced.
const MORE_PORTS: u16 = 128;
/// By how much a rewritten announcement is longer than the one that came, at most.
const LONGEST_GROWTH: usize = 64;

/// An announcement, with what of its connection it takes to act on it.
struct Announcement {
    announced: Announced,
    expectation: Expectation,
    /// How packets of the other direction go: this side sees the announcer there.
    far: Tuple,
}

impl Conntrack {
    /// How many bytes helpers may add to a packet.
    #[inline]
    pub(crate) fn room_for(&self, pkt: &Packet) -> usize {
        let may_grow = pkt.proto() == PROTO_TCP && self.rewrites_payloads.load(Ordering::Relaxed);
        if may_grow { LONGEST_GROWTH } else { 0 }
    }

    /// Shows a packet that passed FORWARD to its connection's helper, which may announce a connection, rewrite the
    /// announcement or drop the packet. Returns what was announced.
    #[inline]
    pub fn help(&self, pkt: &mut Packet, ct: &mut Tracked, now: Instant) -> Stage<Heard> {
        match (ct.helper, ct.tuple) {
            (Some(helper), Some(tuple)) => self.read(helper, tuple, pkt, ct, now),
            _ => Continue(Heard::Unread),
        }
    }

    fn read(
        &self,
        helper: Helper,
        tuple: Tuple,
        pkt: &mut Packet,
        ct: &mut Tracked,
        now: Instant,
    ) -> Stage<Heard> {
        let (state, direction) = (ct.state, ct.direction);
        let read = self.with_entry(ct, |entry| {
            let outcome = helper.read(entry, (state, direction), &tuple, pkt);
            let is_translated = entry.status.intersects(Status::SRC_NAT | Status::DST_NAT);
            let far = entry.tuple(direction.opposite());
            (outcome, entry.original, entry.told(), is_translated.then_some(far))
        });
        let Some((outcome, master, told, far)) = read else { return Continue(Heard::Unread) };
        let announced = match outcome {
            Outcome::Nothing(Silence::NothingToRead) => return Continue(Heard::Unread),
            Outcome::Nothing(silence) => return Continue(Heard::Nothing(silence)),
            Outcome::Partial(_) => return Break(Fate::Dropped(DropReason::Helper)),
            Outcome::Announces(announced) => announced,
        };
        let expectation = Expectation {
            tuple: announced.tuple,
            master,
            helper,
            expires_at: now + helper.patience(),
            follows: far.map(|_| match helper {
                Helper::Ftp => Follows { announcer: direction, port: announced.tuple.right },
                Helper::Tftp => Follows { announcer: Direction::Original, port: master.left },
            }),
            is_told: told.map(|told| told.announced),
        };
        match far {
            Some(far) if helper == Helper::Ftp => {
                self.rewrite(pkt, ct, Announcement { announced, expectation, far }, now)
            }
            _ => match self.expect(ct, expectation.clone(), now) {
                Ok(()) => Continue(Heard::Announced(expectation)),
                Err(refused) => Break(Fate::Dropped(refusal(refused))),
            },
        }
    }

    /// Announces to the other side where it finds the announcer, instead of what that wrote.
    fn rewrite(
        &self,
        pkt: &mut Packet,
        ct: &mut Tracked,
        announcement: Announcement,
        now: Instant,
    ) -> Stage<Heard> {
        let Announcement { announced, mut expectation, far } = announcement;
        self.expect_at_a_free_port(ct, &mut expectation, now)?;
        let Some(written) = &announced.written else { return Continue(Heard::Announced(expectation)) };
        let argument = ftp::write(written.form, far.dst, expectation.tuple.right);
        let Some(segment) = Segment::parse(pkt.l4()) else { return Continue(Heard::Announced(expectation)) };
        let payload_at = pkt.l4().len() - segment.len as usize;
        let (begin, end) = (payload_at + written.place.start, payload_at + written.place.end);
        if !pkt.replace_l4(begin..end, argument.as_bytes()) {
            return Break(Fate::Dropped(DropReason::Helper));
        }
        let longer = argument.len() as i32 - written.place.len() as i32;
        if longer != 0 {
            let direction = ct.direction;
            self.with_entry(ct, |entry| {
                entry.status.insert(Status::SEQ_ADJUST);
                let shifts = entry.extra_mut().rare_mut().shifts.get_or_insert_default();
                shifts[direction as usize].change(segment.seq, longer);
            });
            ct.status.insert(Status::SEQ_ADJUST);
        }
        Continue(Heard::Announced(expectation))
    }

    /// Takes an expectation at the port that was announced, or at another one if somebody else has announced that.
    fn expect_at_a_free_port(
        &self,
        ct: &mut Tracked,
        expectation: &mut Expectation,
        now: Instant,
    ) -> Stage<()> {
        let announced = expectation.tuple.right;
        let mut refused = self.expect(ct, expectation.clone(), now);
        for _ in 0..MORE_PORTS.min(u16::MAX - announced) {
            if refused != Err(Refused::Clash) {
                break;
            }
            expectation.tuple.right =
                self.picker.pick(Side::Destination, announced, u32::from(u16::MAX - announced));
            refused = self.expect(ct, expectation.clone(), now);
        }
        match refused {
            // To Linux no port is the same as none that is free, though what was announced is expected from now on.
            Ok(()) if expectation.tuple.right == 0 => Break(Fate::Dropped(DropReason::HelperPorts)),
            Ok(()) => Continue(()),
            Err(Refused::Clash) => Break(Fate::Dropped(DropReason::HelperPorts)),
            Err(Refused::Limit) => Break(Fate::Dropped(DropReason::ExpectationLimit)),
        }
    }

    /// Takes an expectation of the packet's connection; of one that is not confirmed yet, when it is.
    pub(super) fn expect(
        &self,
        ct: &mut Tracked,
        expectation: Expectation,
        now: Instant,
    ) -> Result<(), Refused> {
        let total_max = self.sysctls.load().expect_max;
        let Some(master) = ct.id else {
            self.expectations.would_add(&expectation, total_max, now)?;
            if let Some(entry) = &mut ct.new {
                entry.extra_mut().rare_mut().pending = Some(expectation);
            }
            return Ok(());
        };
        for replaced in self.expectations.add(master, expectation.clone(), total_max, now)? {
            self.events.expectation(EventKind::Destroy, now, &replaced);
        }
        self.events.expectation(EventKind::New, now, &expectation);
        Ok(())
    }

    /// Shifts the numbers of a packet whose connection has a payload that changed its length.
    ///
    /// As in Linux every packet of the connection is taken for a segment, an ICMP error that goes the way of its first
    /// packet included. `false`: it is too short to be one.
    #[inline]
    pub fn shift(&self, pkt: &mut Packet, ct: &Tracked) -> bool {
        if ct.status.contains(Status::SEQ_ADJUST) { self.shift_numbers(pkt, ct) } else { true }
    }

    #[cold]
    fn shift_numbers(&self, pkt: &mut Packet, ct: &Tracked) -> bool {
        if ct.state == CtState::Related && ct.direction == Direction::Reply {
            return true;
        }
        let Some(shifts) = self.read_entry(ct, |entry| entry.shifts().copied()).flatten() else {
            return true;
        };
        let own: &Shift = &shifts[ct.direction as usize];
        let other = &shifts[ct.direction.opposite() as usize];
        let is_partial = pkt.offload().needs_checksum();
        shift_segment(pkt.l4_mut(), own, other, is_partial)
    }
}

const fn refusal(refused: Refused) -> DropReason {
    match refused {
        Refused::Clash => DropReason::ExpectationClash,
        Refused::Limit => DropReason::ExpectationLimit,
    }
}
