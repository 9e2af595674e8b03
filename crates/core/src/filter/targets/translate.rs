//! `-j DNAT`, `SNAT`, `MASQUERADE`, `REDIRECT`, `NETMAP`: what a rule of the nat table decides of a connection.
//!
//! They say so and no more: what is chosen, and how packets are rewritten, is [`crate::nat`]'s concern.

#![forbid(unsafe_code)]

mod range;

use self::range::{Shift, read_ports, read_to};
use super::{Next, Place, Spec, Targeted};
use crate::filter::matches::Setting;
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value;
use crate::filter::text::value::Network;
use crate::filter::walk::context::Context;
use crate::filter::{Hook, Table, Verdict};
use crate::nat::{self, Range};
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

/// Declares the types of the targets: they differ in how they are called, where they may stand and how they are read.
macro_rules! translations {
    ($($(#[$doc:meta])* $name:ident: $word:literal at $hooks:expr, $options:expr, $read:path;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name(pub nat::Target);

            impl Targeted for $name {
                const SPEC: Spec = Spec {
                    name: $word,
                    family: None,
                    protos: &[],
                    tables: &[Table::Nat],
                    hooks: $hooks,
                    options: $options,
                };

                fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
                    $read(options, setting).map(Self)
                }

                fn apply<R: Recorder>(&self, _: &mut Packet, _: &mut Context<R>, place: Place) -> Next {
                    Next::Verdict(Verdict::Translate(place.rule))
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    range::show(&self.0, f)
                }
            }
        )*
    };
}

const INWARDS: &[Hook] = &[Hook::Prerouting, Hook::Output];
const OUTWARDS: &[Hook] = &[Hook::Input, Hook::Postrouting];

translations! {
    /// Another destination.
    Dnat: "DNAT" at INWARDS,
        &[Opt::value("to-destination"), Opt::flag("random"), Opt::flag("persistent")], dnat;
    /// Another source.
    Snat: "SNAT" at OUTWARDS,
        &[Opt::value("to-source"), Opt::flag("random"), Opt::flag("random-fully"), Opt::flag("persistent")], snat;
    /// Another source: the address of the interface where the packet leaves.
    Masquerade: "MASQUERADE" at &[Hook::Postrouting],
        &[Opt::value("to-ports"), Opt::flag("random"), Opt::flag("random-fully")], masquerade;
    /// Another destination: the router itself.
    Redirect: "REDIRECT" at INWARDS, &[Opt::value("to-ports"), Opt::flag("random")], redirect;
    /// Another network around the same host part.
    Netmap: "NETMAP" at &[Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting],
        &[Opt::value("to")], netmap;
}

/// The options that every target with a range takes, where it takes them at all.
fn flags(options: &Options<'_>) -> Range {
    Range {
        random: options.has("random"),
        random_fully: options.has("random-fully"),
        persistent: options.has("persistent"),
        ..Range::default()
    }
}

fn dnat(options: &Options<'_>, setting: &Setting) -> Result<nat::Target, Problem> {
    let to = read_to(options.require("to-destination")?, setting, Shift::Taken)?;
    Ok(nat::Target::Dnat(Range { addrs: to.addrs, ports: to.ports, base: to.base, ..flags(options) }))
}

fn snat(options: &Options<'_>, setting: &Setting) -> Result<nat::Target, Problem> {
    let to = read_to(options.require("to-source")?, setting, Shift::Lost)?;
    Ok(nat::Target::Snat(Range { addrs: to.addrs, ports: to.ports, base: to.base, ..flags(options) }))
}

fn masquerade(options: &Options<'_>, setting: &Setting) -> Result<nat::Target, Problem> {
    let to = read_ports(options, setting, Shift::Lost)?;
    Ok(nat::Target::Masquerade(Range { ports: to.ports, base: to.base, ..flags(options) }))
}

fn redirect(options: &Options<'_>, setting: &Setting) -> Result<nat::Target, Problem> {
    let to = read_ports(options, setting, Shift::Refused)?;
    Ok(nat::Target::Redirect(Range { ports: to.ports, base: to.base, ..flags(options) }))
}

fn netmap(options: &Options<'_>, setting: &Setting) -> Result<nat::Target, Problem> {
    let given = options.require("to")?;
    let family = setting.family;
    let Network { addr, mask, .. } = given.read(|text| {
        let (addr, mask) = text.split_once('/').map_or((text, None), |(addr, mask)| (addr, Some(mask)));
        let mask = value::network_mask(mask, family)?;
        Ok(Network { addr: value::addr(addr, family)?, mask, family })
    })?;
    let is_prefix = mask.leading_ones() == mask.count_ones();
    if !is_prefix {
        let warning = given.problem("the mask has holes, and stands for one address alone");
        setting.warn(warning.hint("a network is written `NETWORK/LENGTH`"));
    }
    let prefix_len = if is_prefix { mask.leading_ones() as u8 } else { family.bits() };
    let network = if is_prefix { crate::packet::Addr::from_bits(addr.bits() & mask) } else { addr };
    Ok(nat::Target::Netmap { network: network.to_ip(family), prefix_len })
}

#[cfg(test)]
mod tests;
