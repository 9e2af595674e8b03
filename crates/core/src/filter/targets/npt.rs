//! `-j SNPT` and `-j DNPT`: another IPv6 prefix, packet by packet (RFC 6296). Connection tracking does not hear of it.
//!
//! A word of the address behind the prefix makes up for the change, so that no checksum differs.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::matches::Setting;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value;
use crate::filter::text::value::Network;
use crate::filter::walk::context::Context;
use crate::filter::{Hook, Table, Verdict};
use crate::packet::tuple::PROTO_ICMPV6;
use crate::packet::{Addr, ETHERNET_LEN, Family, Packet};
use crate::record::Recorder;
use core::fmt;
use core::ops::RangeInclusive;

/// Prefixes longer than this leave no word to make up for the change.
const MAX_PREFIX_LEN: u32 = 64;
/// Up to here the word behind the prefix is that of the subnet.
const SITE_PREFIX_LEN: u32 = 48;
const SUBNET_WORD: usize = 3;

/// Which prefix takes the place of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefixes {
    from: Network,
    to: Network,
}

/// Of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snpt(Prefixes);

/// Of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnpt(Prefixes);

impl Prefixes {
    fn read(options: &Options<'_>, family: Family) -> Result<Self, Problem> {
        let read = |name| options.require(name)?.read(|text| read_prefix(text, family));
        Ok(Self { from: read("src-pfx")?, to: read("dst-pfx")? })
    }

    /// The address with the other prefix; `None` where no word can make up for the change.
    fn map(self, addr: Addr) -> Option<Addr> {
        // Of two lengths the longer one counts, for both.
        let mask = self.from.mask | self.to.mask;
        let mapped = addr.bits() & !mask | self.to.addr.bits() & mask;
        let place = if mask.leading_ones() <= SITE_PREFIX_LEN {
            SUBNET_WORD
        } else {
            (SUBNET_WORD + 1..WORDS).find(|place| word(mapped, *place) != u16::MAX)?
        };
        let change = add(sum(self.from.addr), !sum(self.to.addr));
        let made_up = match add(word(mapped, place), change) {
            // All ones are zero, and are never written.
            u16::MAX => 0,
            made_up => made_up,
        };
        let shift = shift_of(place);
        Some(Addr::from_bits(mapped & !(u128::from(u16::MAX) << shift) | u128::from(made_up) << shift))
    }

    /// Puts the mapped address in the place of the one at this byte of the IPv6 header, and leaves all checksums.
    fn apply(self, at: usize, pkt: &mut Packet, place: Place) -> Next {
        let field = &mut pkt.frame_mut()[ETHERNET_LEN + at..][..ADDR_LEN];
        let old = Addr::from_v6(core::array::from_fn(|n| field[n]));
        let Some(new) = self.map(old) else { return Next::Verdict(Verdict::Drop(place.rule)) };
        field.copy_from_slice(new.bytes(Family::Ipv6));
        self.apply_to_quote(SRC + DST - at, pkt);
        Next::Rule
    }

    /// What an error quotes went the other way: its other end, at this byte of the header, may have the prefix, too.
    fn apply_to_quote(self, at: usize, pkt: &mut Packet) {
        let packet = &mut pkt.frame_mut()[ETHERNET_LEN..];
        let is_error = packet[NEXT_HEADER] == PROTO_ICMPV6
            && packet.get(HEADER_LEN).is_some_and(|kind| ERRORS.contains(kind));
        let quote = packet.get_mut(HEADER_LEN + ICMP_HEADER_LEN..).filter(|_| is_error);
        let Some(header) = quote.and_then(|quote| quote.get_mut(..HEADER_LEN)) else { return };
        let field = &mut header[at..at + ADDR_LEN];
        let old = Addr::from_v6(core::array::from_fn(|n| field[n]));
        if self.from.contains(old)
            && let Some(new) = self.map(old)
        {
            field.copy_from_slice(new.bytes(Family::Ipv6));
        }
    }
}

const WORDS: usize = 8;
const ADDR_LEN: usize = 16;
/// Where the addresses stand in the header.
const SRC: usize = 8;
const DST: usize = 24;
const NEXT_HEADER: usize = 6;
const HEADER_LEN: usize = 40;
const ICMP_HEADER_LEN: usize = 8;
/// The ICMPv6 errors of RFC 4443; others are left alone.
const ERRORS: RangeInclusive<u8> = 1..=4;

const fn shift_of(place: usize) -> usize {
    16 * (WORDS - 1 - place)
}

const fn word(bits: u128, place: usize) -> u16 {
    (bits >> shift_of(place)) as u16
}

/// In ones' complement: what is carried out comes in again.
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carried) = a.overflowing_add(b);
    sum + carried as u16
}

fn sum(addr: Addr) -> u16 {
    (0..WORDS).fold(0, |sum, place| add(sum, word(addr.bits(), place)))
}

fn read_prefix(text: &str, family: Family) -> Result<Network, Complaint> {
    let (addr, mask) = text.split_once('/').map_or((text, None), |(addr, mask)| (addr, Some(mask)));
    let mask = value::network_mask(mask, family)?;
    let prefix = Network { addr: value::addr(addr, family)?, mask, family };
    match prefix.prefix_len() {
        None => Err(Complaint::new(format!("the mask of `{text}` has holes"))
            .hint("a prefix is written `PREFIX/LENGTH`")),
        Some(len) if len > MAX_PREFIX_LEN => Err(Complaint::new(format!(
            "the prefix `{text}` is too long: nothing could make up for its change"
        ))
        .hint(format!("at most /{MAX_PREFIX_LEN}"))),
        Some(_) if prefix.addr.bits() & !mask != 0 => {
            let whole = Network { addr: Addr::from_bits(prefix.addr.bits() & mask), ..prefix };
            Err(Complaint::new(format!("`{text}` has bits behind its prefix")).hint(format!("`{whole}`")))
        }
        Some(_) => Ok(prefix),
    }
}

const OPTIONS: &[Opt] = &[Opt::value("src-pfx"), Opt::value("dst-pfx")];

impl Targeted for Snpt {
    const SPEC: Spec = Spec {
        name: "SNPT",
        family: Some(Family::Ipv6),
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[Hook::Input, Hook::Postrouting],
        options: OPTIONS,
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        Prefixes::read(options, setting.family).map(Self)
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, place: Place) -> Next {
        self.0.apply(SRC, pkt, place)
    }
}

impl Targeted for Dnpt {
    const SPEC: Spec = Spec {
        name: "DNPT",
        family: Some(Family::Ipv6),
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[Hook::Prerouting, Hook::Output],
        options: OPTIONS,
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        Prefixes::read(options, setting.family).map(Self)
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, place: Place) -> Next {
        self.0.apply(DST, pkt, place)
    }
}

/// The tools leave out a prefix that is all zeros, though they do not take the rule without it again.
impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (option, prefix) in [("src-pfx", self.from), ("dst-pfx", self.to)] {
            if prefix.addr != Addr::UNSPECIFIED {
                write!(f, " --{option} {prefix}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Snpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Dnpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(from: &str, to: &str) -> Prefixes {
        let read = |text| read_prefix(text, Family::Ipv6).expect("a prefix");
        Prefixes { from: read(from), to: read(to) }
    }

    fn addr(text: &str) -> Addr {
        value::addr(text, Family::Ipv6).expect("an address")
    }

    #[test]
    fn a_word_behind_the_prefix_makes_up_for_the_change() {
        for (from, to, old, new) in [
            ("2001:db8:1::/64", "2001:db8:2:5::/64", "2001:db8:1::10", "2001:db8:2:5:fff9::10"),
            // The subnet's word, where the prefix leaves it (RFC 6296 §2.2).
            ("2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:1:7::1", "2001:db8:2:6::1"),
            // All ones are no word to change.
            ("2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:1:0:ffff::1", "2001:db8:2:0:ffff:fffe:0:1"),
            // And are never what comes out.
            ("2001:db8:2::/64", "2001:db8:1::/64", "2001:db8:2:0:fffe::1", "2001:db8:1::1"),
            // Of two lengths the longer one counts.
            ("2001:db8:1::/48", "2001:db8:2::/64", "2001:db8:1:9::1", "2001:db8:2:0:fffe::1"),
        ] {
            let mapped = prefixes(from, to).map(addr(old)).expect("there is a word");
            assert_eq!(value::show_addr(mapped, Family::Ipv6), new, "{from} {to} {old}");
        }
        let full = addr("2001:db8:1:0:ffff:ffff:ffff:ffff");
        assert_eq!(prefixes("2001:db8:1::/64", "2001:db8:2::/64").map(full), None);
    }

    #[test]
    fn the_way_back_gives_the_address_back() {
        let (inner, outer) = ("2001:db8:1::/56", "2001:db8:2:500::/56");
        for host in ["2001:db8:1:77:1:2:3:4", "2001:db8:1:1::", "2001:db8:1:2:fff0::9"] {
            let there = prefixes(inner, outer).map(addr(host)).expect("there is a word");
            assert_eq!(sum(there), sum(addr(host)), "{host}");
            assert_eq!(prefixes(outer, inner).map(there), Some(addr(host)), "{host}");
        }
    }
}
