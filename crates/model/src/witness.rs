//! One packet out of a set that can be shown: with addresses of documentation, usual ports, and what happened before it.

#![forbid(unsafe_code)]

use crate::condition::{STATES, TCP, UDP, icmp_of};
use crate::model::Model;
use crate::space::{Field, Made, Picked, Set, Space};
use stateway_core::conntrack::CtState;
use stateway_core::packet::Family;

/// A packet, and the first packet of the connection that gives it its state.
#[derive(Clone, Debug)]
pub struct Witness {
    pub state: CtState,
    pub packet: Picked,
    /// Whether this is a packet of the connection's opener or of its answerer; for errors of whom it is sent to.
    pub opening: Option<Opening>,
}

/// How a connection began.
#[derive(Clone, Debug)]
pub struct Opening {
    pub packet: Picked,
    /// The witness goes the way of this packet.
    pub is_same_way: bool,
}

/// Witnesses of a set, the plainest first, one for each state at most.
pub fn witnesses(model: &Model, set: &Set) -> Made<Vec<Witness>> {
    let space = model.space;
    let certain = space.for_certain(set)?;
    let mut found = Vec::new();
    const ORDER: [CtState; 5] =
        [CtState::New, CtState::Established, CtState::Related, CtState::Untracked, CtState::Invalid];
    for among in [&certain, set] {
        for state in ORDER {
            let number = STATES.iter().position(|known| *known == state).unwrap_or_default();
            let of_state = among.and(&space.is(Field::State, number as u128)?)?;
            if of_state.is_empty() {
                continue;
            }
            found.extend(witness(model, &of_state, state)?);
        }
    }
    Ok(found)
}

fn witness(model: &Model, set: &Set, state: CtState) -> Made<Option<Witness>> {
    let space = model.space;
    match state {
        CtState::New | CtState::Invalid | CtState::Untracked => {
            let packet = plainest(space, set, SYN)?;
            Ok(packet.map(|packet| Witness { state, packet, opening: None }))
        }
        CtState::Established => {
            let among = prefer(set, &model.in_connections()?)?;
            let Some(packet) = plainest(space, &among, ACK)? else { return Ok(None) };
            let opening = opening_of(model, &packet)?;
            Ok(Some(Witness { state, packet, opening }))
        }
        CtState::Related => related(model, set),
    }
}

/// The first packet of a connection that `packet` belongs to.
fn opening_of(model: &Model, packet: &Picked) -> Made<Option<Opening>> {
    let space = model.space;
    let is_icmp = packet.get(Field::Proto) == u128::from(icmp_of(space.family));
    for (is_same_way, pairs) in [
        (false, [(Field::Src, Field::Dst), (Field::Sport, Field::Dport), (Field::In, Field::Out)]),
        (true, [(Field::Src, Field::Src), (Field::Sport, Field::Sport), (Field::In, Field::In)]),
    ] {
        // As FORWARD sees it: the opener may have sent it to another address.
        let mut seen = space.is(Field::Proto, packet.get(Field::Proto))?;
        for (a, b) in pairs {
            let other = |field| match field {
                Field::Src => Field::Dst,
                Field::Dst => Field::Src,
                Field::Sport => Field::Dport,
                Field::Dport => Field::Sport,
                Field::In => Field::Out,
                _ => Field::In,
            };
            if is_icmp && a == Field::Sport {
                continue;
            }
            seen = seen.and(&space.is(a, packet.get(b))?)?;
            seen = seen.and(&space.is(other(a), packet.get(other(b)))?)?;
        }
        if is_icmp {
            // An answer is of the type behind its request's, or before it.
            let kind = packet.get(Field::Dport) >> 8;
            let request = match (space.family, kind) {
                (Family::Ipv4, 0) => 8,
                (Family::Ipv4, 14 | 16 | 18) | (Family::Ipv6, 129 | 140) => kind - 1,
                _ => kind,
            };
            if (request == kind) != is_same_way {
                continue;
            }
            seen = seen.and(&space.between(Field::Dport, request << 8, request << 8 | 0xff)?)?;
        }
        let set = model.opened.and(&model.destinations.before(space, &seen)?)?;
        let certain = space.for_certain(&set)?;
        if let Some(packet) = plainest(space, &prefer(&set, &certain)?, SYN)? {
            return Ok(Some(Opening { packet, is_same_way }));
        }
    }
    Ok(None)
}

/// An error about a connection, or one that was announced, which is not shown.
fn related(model: &Model, set: &Set) -> Made<Option<Witness>> {
    let space = model.space;
    let errors = set.and(&space.is(Field::Proto, icmp_of(space.family).into())?)?;
    // Whoever the error is for has sent or answered something through the same two interfaces.
    const ENDS: [Field; 4] = [Field::Src, Field::Sport, Field::Dport, Field::Proto];
    let hosts = space.forget(&model.in_connections()?, &ENDS, false)?;
    let Some(packet) = plainest(space, &prefer(&errors, &hosts)?, ACK)? else { return Ok(None) };
    for (is_same_way, to, way_in, way_out) in
        [(false, Field::Src, Field::In, Field::Out), (true, Field::Dst, Field::Out, Field::In)]
    {
        let seen = space
            .is(to, packet.get(Field::Dst))?
            .and(&space.is(way_in, packet.get(Field::Out))?)?
            .and(&space.is(way_out, packet.get(Field::In))?)?;
        let set = model.opened.and(&model.destinations.before(space, &seen)?)?;
        let certain = space.for_certain(&set)?;
        // Best about a packet to whoever sends the error.
        let other = if to == Field::Src { Field::Dst } else { Field::Src };
        let near = space.is(other, packet.get(Field::Src))?;
        let set = prefer(&prefer(&set, &certain)?, &near)?;
        if let Some(opened) = plainest(space, &set, SYN)? {
            let opening = Some(Opening { packet: opened, is_same_way });
            return Ok(Some(Witness { state: CtState::Related, packet, opening }));
        }
    }
    Ok(Some(Witness { state: CtState::Related, packet, opening: None }))
}

const SYN: u128 = 2;
const ACK: u128 = 16;

/// What of `set` is in `wish`, if anything is.
fn prefer(set: &Set, wish: &Set) -> Made<Set> {
    let both = set.and(wish)?;
    Ok(if both.is_empty() { set.clone() } else { both })
}

/// A packet of the set as a reader expects one.
fn plainest(space: &Space, set: &Set, flags: u128) -> Made<Option<Picked>> {
    let mut among = set.clone();
    among = prefer(&among, &space.crossing()?)?;
    for proto in [TCP, UDP, icmp_of(space.family)] {
        among = prefer(&among, &space.is(Field::Proto, proto.into())?)?;
    }
    let mut wishes = vec![
        space.is(Field::Flags, flags)?,
        space.is(Field::Flags, SYN | ACK)?,
        space.is(Field::Flags, ACK)?,
        space.is(Field::Tos, 0)?,
        space.is(Field::Ttl, 0)?,
        space.is(Field::Connmark, 0)?,
        space.between(Field::Length, 0, 1500)?,
    ];
    wishes.extend(addresses(space)?);
    let (near, far) = if flags == ACK { (Field::Dport, Field::Sport) } else { (Field::Sport, Field::Dport) };
    let is_icmp = space.is(Field::Proto, icmp_of(space.family).into())?;
    wishes.extend([
        is_icmp
            .not()?
            .or(&space.is(Field::Dport, if space.family == Family::Ipv4 { 8 << 8 } else { 128 << 8 })?)?,
        is_icmp
            .not()?
            .or(&space
                .is(Field::Dport, if space.family == Family::Ipv4 { 3 << 8 | 3 } else { 1 << 8 | 4 })?)?,
        is_icmp.or(&space.is(far, 80)?)?,
        is_icmp.or(&space.is(far, 7)?)?,
        is_icmp.or(&space.between(far, 1, 0xffff)?)?,
        is_icmp.or(&space.is(near, 40_000)?)?,
        is_icmp.or(&space.between(near, 1024, 0xffff)?)?,
        is_icmp.or(&space.between(near, 1, 0xffff)?)?,
    ]);
    for wish in &wishes {
        among = prefer(&among, wish)?;
    }
    // As short as it may be.
    for bit in (0..16).rev() {
        among = prefer(&among, &space.bit(Field::Length, bit).not()?)?;
    }
    Ok(space.pick(&among))
}

/// Addresses of documentation where they may be, else of hosts.
fn addresses(space: &Space) -> Made<Vec<Set>> {
    let mut wishes = Vec::new();
    match space.family {
        Family::Ipv4 => {
            let of = |a: u128, b: u128, c: u128, d: u128| a << 24 | b << 16 | c << 8 | d;
            for field in [Field::Src, Field::Dst] {
                // Not nowhere, not the router's own loopback, no group.
                wishes.push(
                    space.between(field, of(1, 0, 0, 1), of(126, 255, 255, 254))?.or(&space.between(
                        field,
                        of(128, 0, 0, 1),
                        of(223, 255, 255, 254),
                    )?)?,
                );
            }
            let last = |field| -> Made<Set> {
                space.masked(field, 0, 255)?.or(&space.masked(field, 255, 255)?)?.not()
            };
            wishes.push(space.between(Field::Dst, of(192, 0, 2, 104), of(192, 0, 2, 104))?);
            wishes.push(space.between(Field::Dst, of(198, 51, 100, 2), of(198, 51, 100, 253))?);
            wishes.push(space.between(Field::Dst, of(203, 0, 113, 2), of(203, 0, 113, 126))?);
            wishes.push(space.between(Field::Dst, of(198, 18, 0, 1), of(198, 19, 255, 254))?);
            wishes.push(space.between(Field::Src, of(198, 51, 100, 66), of(198, 51, 100, 66))?);
            wishes.push(space.between(Field::Src, of(192, 0, 2, 2), of(192, 0, 2, 253))?);
            wishes.push(space.between(Field::Src, of(203, 0, 113, 2), of(203, 0, 113, 126))?);
            wishes.push(space.between(Field::Src, of(198, 18, 0, 1), of(198, 19, 255, 254))?);
            wishes.extend([last(Field::Src)?, last(Field::Dst)?]);
        }
        Family::Ipv6 => {
            let doc = 0x2001_0db8_u128 << 96;
            for (field, host) in [(Field::Src, doc | 2 << 80 | 0x66), (Field::Dst, doc | 1 << 80 | 0x104)] {
                wishes.push(space.is(field, host)?);
                wishes.push(space.between(field, doc | 0x10, doc | (u128::MAX >> 32))?);
                wishes.push(space.between(field, 0x2000_u128 << 112, (0x4000_u128 << 112) - 1)?);
                wishes.push(space.between(field, 2, 0xfe7f_u128 << 112)?);
            }
        }
    }
    Ok(wishes)
}
