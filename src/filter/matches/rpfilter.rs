//! `-m rpfilter`: whether the way back to the source leads through the interface that the packet came in on.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::options::{Opt, Options, Problem};
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
        let route = view.routes.and_then(|r| r.lookup(view.pkt.src(), view.pkt.family(), view.in_iface));
        let holds = match route {
            Some(Route::Via(hop)) => self.loose || Some(hop.iface) == view.in_iface,
            Some(Route::Local) => self.accept_local,
            _ => false,
        };
        (holds != self.invert).into()
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
