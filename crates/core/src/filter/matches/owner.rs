//! `-m owner`: whose program sent a packet. What the router forwards and answers is nobody's.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Given, Opt, Options, Problem};
use crate::filter::text::value::{not, number, unsigned};
use crate::packet::Family;
use crate::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP};
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: Option<Ids>,
    pub group: Option<Ids>,
    pub other_groups: bool,
}

/// From `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub low: u32,
    pub high: u32,
    pub negated: bool,
}

impl Ids {
    fn read(given: &Given<'_>) -> Result<Self, Problem> {
        let one = |text: &str| match text {
            "root" => Ok(0),
            // The largest number stands for nobody.
            _ => number(text, u64::from(u32::MAX - 1)).map(|id| id as u32).map_err(|_| {
                Complaint::new(format!("`{text}` is no number of a user or group"))
                    .hint("names are not looked up: write the number")
            }),
        };
        let (low, high) = given.read(|text| {
            // Names may have a dash, and none begins with a digit.
            let is_number = unsigned(text).starts_with(|c: char| c.is_ascii_digit());
            let (low, high) = text.split_once(['-', ':']).filter(|_| is_number).unwrap_or((text, text));
            match (one(low)?, one(high)?) {
                (low, high) if low > high => {
                    Err(Complaint::new(format!("the range `{text}` ends before it begins"))
                        .hint(format!("`{high}-{low}`")))
                }
                range => Ok(range),
            }
        })?;
        Ok(Self { low, high, negated: given.negated })
    }

    fn write(ids: Option<Self>, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Self { low, high, negated }) = ids else { return Ok(()) };
        write!(f, "{} --{name} {low}", not(negated))?;
        if low == high { Ok(()) } else { write!(f, "-{high}") }
    }
}

impl Matcher for Owner {
    const SPEC: Spec = Spec {
        name: "owner",
        family: None,
        protos: &[],
        options: &[
            Opt::value("uid-owner").or_not(),
            Opt::value("gid-owner").or_not(),
            Opt::flag("suppl-groups"),
            Opt::flag("socket-exists").or_not().refused("what the router sends has no socket"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let ids = |name| options.get(name).map(Ids::read).transpose();
        let it = Self {
            user: ids("uid-owner")?,
            group: ids("gid-owner")?,
            other_groups: options.has("suppl-groups"),
        };
        let place = |name| options.given.iter().position(|given| given.opt.name == name);
        if it.other_groups && place("gid-owner").is_none_or(|group| place("suppl-groups") < Some(group)) {
            return Err(options.problem("`--suppl-groups` needs `--gid-owner` in front of it"));
        }
        options.require_any()?;
        Ok(it)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let is_nobodys = [self.user, self.group].into_iter().flatten().all(|ids| ids.negated);
        // Without a socket Linux says of no packet that somebody's other groups are not meant.
        (is_nobodys && (!self.other_groups || has_socket(view))).into()
    }
}

/// Whether Linux sends such a packet by a socket, which is its own and nobody's: its ICMP messages and, in IPv4, its
/// resets of what no program wants; but no resets by rules.
fn has_socket(view: &View<'_>) -> bool {
    let is_own = view.in_iface.is_none();
    match view.pkt.proto() {
        PROTO_ICMP | PROTO_ICMPV6 => is_own,
        PROTO_TCP => is_own && view.pkt.family() == Family::Ipv4 && !view.is_rules_reset,
        _ => false,
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ids::write(self.user, "uid-owner", f)?;
        Ids::write(self.group, "gid-owner", f)?;
        if self.other_groups { f.write_str(" --suppl-groups") } else { Ok(()) }
    }
}
