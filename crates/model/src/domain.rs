//! Which packets there are: what the fields of one packet have to do with one another, with its state, and with the
//! packets that came before.

#![forbid(unsafe_code)]

use crate::condition::{ICMP, ICMPV6, STATES, TCP, UDP, WITH_PORTS, icmp_of};
use crate::space::{Field, Made, Set, Space};
use stateway_core::conntrack::CtState;
use stateway_core::packet::Family;

const FIN: u128 = 1;
const SYN: u128 = 2;
const RST: u128 = 4;
const ACK: u128 = 16;
const URG: u128 = 32;
/// PSH says nothing of a connection.
const MEANING: u128 = FIN | SYN | RST | ACK | URG;
/// The combinations of flags that a segment may have; every other one is INVALID.
const SOUND: [u128; 9] =
    [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
/// Those among them that begin a connection: a SYN, or a segment of one that began before the router did.
const OPENING: [u128; 4] = [SYN, SYN | URG, ACK, ACK | URG];
/// What may be the next header of IPv6 and is no protocol of its own.
const EXTENSIONS: [u128; 6] = [0, 43, 44, 51, 59, 60];

impl Space {
    /// Packets of a protocol with ports.
    pub fn have_ports(&self) -> Made<Set> {
        self.one_of(Field::Proto, WITH_PORTS.map(u128::from))
    }

    /// Packets of connections that are known, and errors about them.
    pub(crate) fn of_known_connections(&self) -> Made<Set> {
        self.is(Field::State, 1)?.or(&self.is(Field::State, 2)?)
    }

    /// Packets that leave by another interface than they came in on.
    pub fn crossing(&self) -> Made<Set> {
        let mut same = self.full();
        for bit in 0..self.width(Field::In) {
            same = same.without(&self.bit(Field::In, bit).xor(&self.bit(Field::Out, bit))?)?;
        }
        same.not()
    }

    /// The packets whose fields fit together, in any state: with whole headers, and no fragments, which are joined first.
    pub fn packets(&self) -> Made<Set> {
        let has_ports = self.have_ports()?;
        let is_icmp = self.is(Field::Proto, icmp_of(self.family).into())?;
        let is_tcp = self.is(Field::Proto, TCP.into())?;
        let last_iface = self.ifaces.len().max(1) as u128 - 1;
        let header = if self.family == Family::Ipv4 { 20 } else { 40 };
        let long_enough = is_tcp.choose(
            &self.between(Field::Length, header + 20, 0xffff)?,
            &self.between(Field::Length, header + 8, 0xffff)?,
        )?;
        let mut set = self.between(Field::State, 0, STATES.len() as u128 - 1)?;
        for part in [
            self.between(Field::In, 0, last_iface)?,
            self.between(Field::Out, 0, last_iface)?,
            self.bit(Field::Fragment, 0).not()?,
            has_ports.or(&self.is(Field::Sport, 0)?)?,
            has_ports.or(&is_icmp)?.or(&self.is(Field::Dport, 0)?)?,
            is_tcp.or(&self.is(Field::Flags, 0)?)?,
            long_enough,
        ] {
            set = set.and(&part)?;
        }
        if self.family == Family::Ipv6 {
            set = set.without(&self.one_of(Field::Proto, EXTENSIONS)?)?;
        }
        Ok(set)
    }

    /// The packets that can have the state that they have, seen by themselves; `untracked` are exempted by rules.
    pub fn can_be_so(&self, untracked: &Set, has_helpers: bool) -> Made<Set> {
        let of = |state: CtState| {
            let number = STATES.iter().position(|known| *known == state).unwrap_or_default();
            self.is(Field::State, number as u128)
        };
        let is_tcp = self.is(Field::Proto, TCP.into())?;
        let is_icmp = self.is(Field::Proto, icmp_of(self.family).into())?;
        let others = if self.family == Family::Ipv4 { ICMPV6 } else { ICMP };
        let is_foreign = self.is(Field::Proto, others.into())?;
        let flags = |list: &[u128]| -> Made<Set> {
            let sets: Made<Vec<Set>> =
                list.iter().map(|flags| self.masked(Field::Flags, *flags, MEANING)).collect();
            self.any(sets?)
        };
        let types = |list: &[(u128, u128)]| -> Made<Set> {
            let sets: Made<Vec<Set>> = list
                .iter()
                .map(|(low, high)| self.between(Field::Dport, low << 8, high << 8 | 0xff))
                .collect();
            self.any(sets?)?.and(&is_icmp)
        };
        let (requests, answers, errors, neighbours) = match self.family {
            Family::Ipv4 => (
                types(&[(8, 8), (13, 13), (15, 15), (17, 17)])?,
                types(&[(0, 0), (14, 14), (16, 16), (18, 18)])?,
                types(&[(3, 5), (11, 12)])?,
                self.empty(),
            ),
            Family::Ipv6 => (
                types(&[(128, 128), (139, 139)])?,
                types(&[(129, 129), (140, 140)])?,
                types(&[(0, 127), (137, 137)])?,
                types(&[(130, 136), (143, 143), (151, 152)])?,
            ),
        };
        let tracked = untracked.or(&neighbours)?.not()?;
        let ordinary = is_tcp.or(&is_icmp)?.or(&is_foreign)?.not()?;
        let new = ordinary.or(&is_tcp.and(&flags(&OPENING)?)?)?.or(&requests)?;
        let established = ordinary.or(&is_tcp.and(&flags(&SOUND)?)?)?.or(&requests)?.or(&answers)?;
        let related = if has_helpers {
            errors.or(&self.one_of(Field::Proto, [TCP, UDP].map(u128::from))?)?
        } else {
            errors
        };
        let checked = self.one_of(Field::Proto, [TCP, UDP, ICMP, ICMPV6, 132, 136].map(u128::from))?;
        let mut all = of(CtState::Untracked)?.without(&tracked)?;
        for (state, set) in [
            (CtState::New, new),
            (CtState::Established, established),
            (CtState::Related, related),
            (CtState::Invalid, checked),
        ] {
            all = all.or(&of(state)?.and(&set)?.and(&tracked)?)?;
        }
        Ok(all)
    }

    /// The packets whose state packets before them can bring about, when `opened` are the NEW ones that pass.
    ///
    /// A connection is known by its ends, not by interfaces: its packets may come in anywhere.
    pub fn follow_from(&self, opened: &Set, has_helpers: bool) -> Made<Set> {
        let of = |state: usize| self.is(Field::State, state as u128);
        let opened = self.forget(&opened.and(&of(0)?)?, &[Field::In, Field::Out], false)?;
        let connections = self.connections(&opened)?;
        let hosts =
            self.forget(&connections, &[Field::Src, Field::Sport, Field::Dport, Field::Proto], false)?;
        let related = if has_helpers { self.full() } else { hosts };
        let (established, related) = (of(1)?.and(&connections)?, of(2)?.and(&related)?);
        let others = of(0)?.or(&of(3)?)?.or(&of(4)?)?;
        others.or(&established)?.or(&related)
    }

    /// Packets of the connections that these open, and the answers the other way round.
    pub(crate) fn connections(&self, opened: &Set) -> Made<Set> {
        const BESIDE: [Field; 7] = [
            Field::State,
            Field::Fragment,
            Field::Flags,
            Field::Length,
            Field::Tos,
            Field::Ttl,
            Field::Connmark,
        ];
        let ends = self.forget(opened, &BESIDE, true)?;
        // Answers of ICMP are of another type.
        let is_icmp = self.is(Field::Proto, icmp_of(self.family).into())?;
        let of_icmp = self.forget(&ends.and(&is_icmp)?, &[Field::Dport, Field::Sport], false)?;
        let ends = is_icmp.choose(&of_icmp, &ends)?;
        ends.or(&self.mirrored(&ends)?)
    }
}
