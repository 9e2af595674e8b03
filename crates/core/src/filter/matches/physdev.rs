//! `-m physdev`: the ports of the bridge that a packet crosses.
//!
//! In bridge mode `-i` and `-o` name the ports too; a router without a bridge has no such ports.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::base::iface::IfaceId;
use crate::filter::rule::IfaceMatch;
use crate::filter::text::options::{Given, Opt, Options, Problem};
use crate::filter::text::value::{self, not};
use core::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Physdev {
    pub in_port: Option<IfaceMatch>,
    pub out_port: Option<IfaceMatch>,
    /// `Some(true)`: turned round.
    pub is_in: Option<bool>,
    pub is_out: Option<bool>,
    pub is_bridged: Option<bool>,
}

impl Matcher for Physdev {
    const SPEC: Spec = Spec {
        name: "physdev",
        family: None,
        protos: &[],
        options: &[
            Opt::value("physdev-in").or_not(),
            Opt::value("physdev-out").or_not(),
            Opt::flag("physdev-is-in").or_not(),
            Opt::flag("physdev-is-out").or_not(),
            Opt::flag("physdev-is-bridged").or_not(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.require_any()?;
        let port = |name| {
            let read = |given: &Given<'_>| {
                given
                    .read(value::iface_name)
                    .map(|name| IfaceMatch::new(&name, given.negated, setting.ifaces))
            };
            options.get(name).map(read).transpose()
        };
        let flag = |name| options.get(name).map(|given| given.negated);
        Ok(Self {
            in_port: port("physdev-in")?,
            out_port: port("physdev-out")?,
            is_in: flag("physdev-is-in"),
            is_out: flag("physdev-is-out"),
            is_bridged: flag("physdev-is-bridged"),
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Self { in_port, out_port, is_in, is_out, is_bridged } = self;
        let (ingress, egress): (Option<IfaceId>, Option<IfaceId>) =
            if view.bridged { (view.in_iface, view.out_iface) } else { (None, None) };
        let flag = |wanted: Option<bool>, is: bool| wanted.is_none_or(|negated| is != negated);
        let port = |wanted: &Option<IfaceMatch>, iface: Option<IfaceId>| match (wanted, iface) {
            (None, _) => true,
            (Some(wanted), None) => wanted.negated,
            (Some(wanted), Some(_)) => wanted.holds(iface),
        };
        (flag(*is_bridged, ingress.is_some() && egress.is_some())
            && flag(*is_in, ingress.is_some())
            && flag(*is_out, egress.is_some())
            && port(in_port, ingress)
            && port(out_port, egress))
        .into()
    }
}

impl Physdev {
    /// The kernel refuses the port on the way out where no packet has been through the bridge.
    pub(in crate::filter) fn needs_a_bridge(&self) -> bool {
        (self.out_port.is_some() || self.is_out.is_some()) && self.is_bridged != Some(false)
    }
}

impl fmt::Display for Physdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_port, out_port, is_in, is_out, is_bridged } = self;
        let flag = |f: &mut fmt::Formatter<'_>, wanted: &Option<bool>, name| {
            wanted.map_or(Ok(()), |negated| write!(f, "{} --{name}", not(negated)))
        };
        let port = |f: &mut fmt::Formatter<'_>, wanted: &Option<IfaceMatch>, name| {
            wanted.as_ref().map_or(Ok(()), |p| write!(f, "{} --{name} {}", not(p.negated), p.name))
        };
        flag(f, is_in, "physdev-is-in")?;
        port(f, in_port, "physdev-in")?;
        flag(f, is_out, "physdev-is-out")?;
        port(f, out_port, "physdev-out")?;
        flag(f, is_bridged, "physdev-is-bridged")
    }
}
