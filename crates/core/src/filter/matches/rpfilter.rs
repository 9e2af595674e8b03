//! `-m rpfilter`: whether the way back to the source leads through the interface that the packet came in on.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::packet::{Addr, Family};
use crate::route::Route;
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rpfilter {
    /// Any way back will do.
    pub loose: bool,
    /// The mark takes part in the choice of the route; there is only one table here.
    pub validmark: bool,
    /// Packets with a source of the router's own hold too.
    pub accept_local: bool,
    pub invert: bool,
}

impl Matcher for Rpfilter {
    const SPEC: Spec = Spec {
        name: "rpfilter",
        family: None,
        protos: &[],
        options: &[
            Opt::flag("loose"),
            Opt::flag("validmark"),
            Opt::flag("accept-local"),
            Opt::flag("invert"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self {
            loose: options.has("loose"),
            validmark: options.has("validmark"),
            accept_local: options.has("accept-local"),
            invert: options.has("invert"),
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let holds = match view.pkt.family() {
            Family::Ipv4 => self.holds_v4(view.pkt.src(), view.pkt.dst(), view),
            Family::Ipv6 => self.holds_v6(view.pkt.src(), view),
        };
        (holds != self.invert).into()
    }
}

impl Rpfilter {
    fn holds_v4(&self, src: Addr, dst: Addr, view: &View<'_>) -> bool {
        let is_to_all = matches!(dst.v4(), [255, 255, 255, 255] | [224, 0, 0, _]);
        match src.v4() {
            // A host that has no address yet asks everybody.
            [0, 0, 0, 0] if is_to_all => return true,
            // The way back leads to the loopback interface, which no packet passes.
            [127, ..] => return self.accept_local && self.loose,
            _ => {}
        }
        let (Some(routes), Some(iface)) = (view.routes, view.in_iface) else { return false };
        match routes.lookup(src, Family::Ipv4, Some(iface)) {
            Some(Route::Via(hop)) => self.loose || hop.iface == iface,
            Some(Route::Local) => self.accept_local && (self.loose || routes.has(iface, src, Family::Ipv4)),
            _ => false,
        }
    }

    fn holds_v6(&self, src: Addr, view: &View<'_>) -> bool {
        if src.is_unspecified() {
            return true;
        }
        let (Some(routes), Some(iface)) = (view.routes, view.in_iface) else { return false };
        match routes.lookup(src, Family::Ipv6, Some(iface)) {
            Some(Route::Via(hop)) => self.loose || hop.iface == iface,
            // Unlike in IPv4, of whichever interface; but an anycast address speaks for nobody.
            Some(Route::Local) => self.accept_local && routes.is_own(src, Family::Ipv6, None),
            _ => false,
        }
    }
}

impl fmt::Display for Rpfilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loose, validmark, accept_local, invert } = self;
        for (is_set, name) in
            [(loose, "loose"), (validmark, "validmark"), (accept_local, "accept-local"), (invert, "invert")]
        {
            if *is_set {
                write!(f, " --{name}")?;
            }
        }
        Ok(())
    }
}
