//! `-m addrtype`: what an address is to this router: its own, a broadcast, a group, somebody's.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::base::iface::IfaceId;
use crate::filter::text::options::{Complaint, Given, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{abbreviates, not};
use crate::packet::{Addr, Family};
use crate::route::Route;
use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// As `rtnetlink` counts them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Types: u16 {
        const UNSPEC = 1 << 0;
        const UNICAST = 1 << 1;
        const LOCAL = 1 << 2;
        const BROADCAST = 1 << 3;
        const ANYCAST = 1 << 4;
        const MULTICAST = 1 << 5;
        const BLACKHOLE = 1 << 6;
        const UNREACHABLE = 1 << 7;
        const PROHIBIT = 1 << 8;
        const THROW = 1 << 9;
        const NAT = 1 << 10;
        const XRESOLVE = 1 << 11;
    }
}

impl Types {
    /// What the kernel refuses in IPv6 rules.
    const NOT_IPV6: Self = Self::BROADCAST
        .union(Self::BLACKHOLE)
        .union(Self::PROHIBIT)
        .union(Self::THROW)
        .union(Self::NAT)
        .union(Self::XRESOLVE);

    fn parse(text: &str, family: Family) -> Result<Self, Complaint> {
        let mut types = Self::empty();
        for word in text.split(',') {
            let names = || Self::all().iter_names().map(|(name, _)| name);
            let found = Self::all().iter_names().find(|(name, _)| abbreviates(word, name));
            let Some((name, bit)) = found else {
                let all = || format!("the types are {}", names().collect::<Vec<_>>().join(", "));
                return Err(Complaint::new(format!("no type of address named `{word}`"))
                    .hint(did_you_mean(word, names()).unwrap_or_else(all)));
            };
            if family == Family::Ipv6 && Self::NOT_IPV6.intersects(bit) {
                return Err(Complaint::new(format!("IPv6 has no addresses of type {name}")));
            }
            types |= bit;
        }
        Ok(types)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addrtype {
    /// The types, and whether turned round.
    pub src: Option<(Types, bool)>,
    pub dst: Option<(Types, bool)>,
    pub limit: Limit,
}

/// Only addresses of this interface count as the router's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    None,
    In,
    Out,
}

impl Matcher for Addrtype {
    const SPEC: Spec = Spec {
        name: "addrtype",
        family: None,
        protos: &[],
        options: &[
            Opt::value("src-type").or_not(),
            Opt::value("dst-type").or_not(),
            Opt::flag("limit-iface-in"),
            Opt::flag("limit-iface-out"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["limit-iface-in", "limit-iface-out"])?;
        let types = |name| {
            let read = |given: &Given<'_>| {
                given.read(|text| Types::parse(text, setting.family)).map(|types| (types, given.negated))
            };
            options.get(name).map(read).transpose()
        };
        let (src, dst) = (types("src-type")?, types("dst-type")?);
        if src.is_none() && dst.is_none() {
            return Err(options.problem("`addrtype` needs `--src-type` or `--dst-type`"));
        }
        let limit = match (options.has("limit-iface-in"), options.has("limit-iface-out")) {
            (true, _) => Limit::In,
            (_, true) => Limit::Out,
            _ => Limit::None,
        };
        Ok(Self { src, dst, limit })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Self { src, dst, limit } = self;
        let link = match limit {
            Limit::None => None,
            Limit::In => view.in_iface,
            Limit::Out => view.out_iface,
        };
        let fits = |wanted: &Option<(Types, bool)>, addr: Addr| {
            wanted.is_none_or(|(types, negated)| is_of(types, addr, link, view) != negated)
        };
        (fits(src, view.pkt.src()) && fits(dst, view.pkt.dst())).into()
    }
}

fn is_of(types: Types, addr: Addr, link: Option<IfaceId>, view: &View<'_>) -> bool {
    match view.pkt.family() {
        Family::Ipv4 => types.intersects(type_v4(addr, link, view)),
        Family::Ipv6 => is_of_v6(types, addr, link, view),
    }
}

/// The kernel asks its table of own addresses alone: what is not in there is somebody's.
fn type_v4(addr: Addr, link: Option<IfaceId>, view: &View<'_>) -> Types {
    match addr.v4() {
        [0, 0, 0, 0] | [255, 255, 255, 255] => return Types::BROADCAST,
        [224..=239, ..] => return Types::MULTICAST,
        // They are the loopback interface's, which no packet passes.
        [127, ..] => return if link.is_none() { Types::LOCAL } else { Types::UNICAST },
        _ => {}
    }
    let Some(routes) = view.routes else { return Types::UNICAST };
    let is_there = |iface: IfaceId| link.is_none_or(|link| link == iface);
    match routes.lookup(addr, Family::Ipv4, view.in_iface) {
        Some(Route::Local) if routes.is_own(addr, Family::Ipv4, link) => Types::LOCAL,
        Some(Route::Broadcast(iface)) if is_there(iface) => Types::BROADCAST,
        _ => Types::UNICAST,
    }
}

/// Every type that is asked for must be right, not only one.
fn is_of_v6(types: Types, addr: Addr, link: Option<IfaceId>, view: &View<'_>) -> bool {
    let is_multicast = addr.v6()[0] == 0xff;
    let is_mapped_v4 = addr.bits() >> 32 == 0xffff;
    let is_unicast = !is_multicast && !is_mapped_v4 && !addr.is_unspecified();
    if types.contains(Types::MULTICAST) && !is_multicast
        || types.contains(Types::UNICAST) && !is_unicast
        || types.contains(Types::UNSPEC) && !addr.is_unspecified()
    {
        return false;
    }
    let asked = types & (Types::LOCAL | Types::ANYCAST | Types::UNREACHABLE);
    asked.is_empty() || asked.intersects(routed_as_v6(addr, link, view))
}

/// What the routes say of an address; with `link`, those alone that lead there.
fn routed_as_v6(addr: Addr, link: Option<IfaceId>, view: &View<'_>) -> Types {
    let Some(routes) = view.routes else { return Types::UNREACHABLE };
    if addr.v6()[0] == 0xff {
        return Types::empty();
    }
    if routes.is_own(addr, Family::Ipv6, link) {
        return Types::LOCAL;
    }
    // Link-local addresses are on every link: any will do.
    let near = view.in_iface.unwrap_or(IfaceId(0));
    let route = match link {
        Some(link) => routes.lookup_through(addr, link),
        None => routes.lookup(addr, Family::Ipv6, Some(near)),
    };
    match route {
        Some(Route::Local) if link.is_none_or(|link| routes.has_anycast(link, addr)) => Types::ANYCAST,
        // The first address of a network is its routers', wherever there is no gateway to it (RFC 4291 §2.6.1).
        Some(Route::Via(hop)) if hop.gateway.is_none() && is_first(addr, hop.prefix_len) => Types::ANYCAST,
        Some(Route::Via(_)) => Types::empty(),
        _ => Types::UNREACHABLE,
    }
}

fn is_first(addr: Addr, prefix_len: u8) -> bool {
    prefix_len < 127 && addr.bits() << prefix_len == 0
}

impl fmt::Display for Addrtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, limit } = self;
        for (name, types) in [("src-type", src), ("dst-type", dst)] {
            if let Some((types, negated)) = types {
                let words: Vec<&str> = types.iter_names().map(|(name, _)| name).collect();
                write!(f, "{} --{name} {}", not(*negated), words.join(","))?;
            }
        }
        match limit {
            Limit::None => Ok(()),
            Limit::In => f.write_str(" --limit-iface-in"),
            Limit::Out => f.write_str(" --limit-iface-out"),
        }
    }
}
