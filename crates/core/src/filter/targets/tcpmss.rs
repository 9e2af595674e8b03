//! `-j TCPMSS`: lowers the segment size that a SYN announces, or announces one where it does not.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::matches::{Match, Setting};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::number;
use crate::filter::walk::context::Context;
use crate::filter::{Hook, Verdict};
use crate::packet::tuple::PROTO_TCP;
use crate::packet::{Family, Packet, TcpFlags};
use crate::record::Recorder;
use core::fmt;

const TCP_HEADER_LEN: usize = 20;
/// Beside the headers of IP and TCP that a packet has at least.
const MAX_MSS: [u64; 2] = [65_515, 65_495];
/// The data offset counts to 60 bytes.
const MAX_HEADER_LEN: usize = 60;
/// Kind and length of the option.
const MSS_OPTION: [u8; 2] = [2, 4];
/// What a host takes that announces nothing (RFC 9293, 3.7.1): more is never announced in its name.
const ABSENT_MSS: [u16; 2] = [536, 1220];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tcpmss {
    Set(u16),
    /// What fits the smaller MTU of the two ways.
    Clamp,
}

impl Tcpmss {
    /// Only there is the way out known, and with it its MTU.
    pub(in crate::filter) const CLAMP_HOOKS: &'static [Hook] =
        &[Hook::Forward, Hook::Output, Hook::Postrouting];

    /// Whether the target may add its option to the packet once it has none (TCPOPTSTRIP may take it first): a SYN
    /// without data.
    pub(in crate::filter) fn may_grow(pkt: &Packet<'_>) -> bool {
        let l4 = pkt.l4();
        pkt.proto() == PROTO_TCP
            && pkt.fragment().is_none()
            && (TCP_HEADER_LEN..MAX_HEADER_LEN).contains(&l4.len())
            && usize::from(l4[12] >> 4) * 4 == l4.len()
            && TcpFlags::from_bits_retain(l4[13]).contains(TcpFlags::SYN)
    }

    /// How many bytes may come to a header, however often the option is added.
    pub(in crate::filter) const GROWTH: usize = MAX_HEADER_LEN - TCP_HEADER_LEN;

    /// The kernel asks for a match on SYN, so that nobody looks for the option in every segment.
    pub(in crate::filter) fn needs_syn(listed: &[Match]) -> bool {
        !listed.iter().any(|m| match m {
            Match::Tcp(tcp) => tcp.flags.is_some_and(|f| {
                f.set.contains(TcpFlags::SYN) && f.mask.contains(TcpFlags::SYN) && !f.negated
            }),
            _ => false,
        })
    }
}

impl Targeted for Tcpmss {
    const SPEC: Spec = Spec {
        name: "TCPMSS",
        family: None,
        protos: &[PROTO_TCP],
        tables: &[],
        hooks: &[],
        options: &[Opt::value("set-mss"), Opt::flag("clamp-mss-to-pmtu")],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let most = MAX_MSS[usize::from(setting.family == Family::Ipv6)];
        let set = options.get("set-mss").map(|given| given.read(|text| number(text, most))).transpose()?;
        // The last one counts.
        match (options.given.last().map(|given| given.opt.name), set) {
            (Some("set-mss"), Some(mss)) => Ok(Self::Set(mss as u16)),
            (Some(_), _) => Ok(Self::Clamp),
            (None, _) => Err(options
                .problem("`-j TCPMSS` needs the size")
                .hint("`--clamp-mss-to-pmtu` or `--set-mss 1400`")),
        }
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, place: Place) -> Next {
        let broken = Next::Verdict(Verdict::DropTruncated(place.rule));
        if pkt.is_later_fragment() {
            return Next::Rule;
        }
        let Some(offset) = pkt.l4().get(12) else { return broken };
        let header_len = usize::from(offset >> 4) * 4;
        if header_len < TCP_HEADER_LEN || pkt.l4().len() < header_len {
            return broken;
        }
        let ip_header_len = if pkt.family() == Family::Ipv4 { 20 } else { 40 };
        let most = match self {
            Self::Set(mss) => *mss,
            Self::Clamp => {
                let mtu = |iface: Option<crate::base::iface::IfaceId>| {
                    iface.and_then(|id| ctx.at.env.ifaces.get(id.index())).map_or(65_535, |i| i.mtu_bytes)
                };
                let room =
                    mtu(ctx.at.iface).min(mtu(ctx.out_iface)).checked_sub(ip_header_len + TCP_HEADER_LEN);
                match room {
                    Some(room @ 1..) => room.min(65_535) as u16,
                    _ => return broken,
                }
            }
        };
        let Some(at) = find_mss(&pkt.l4()[TCP_HEADER_LEN..header_len]) else {
            return if Self::may_grow(pkt) && !add_mss(pkt, most) { broken } else { Next::Rule };
        };
        let at = TCP_HEADER_LEN + at + 2;
        let announced = u16::from_be_bytes([pkt.l4()[at], pkt.l4()[at + 1]]);
        // Never raised: the host knows what it can take.
        if announced > most {
            pkt.edit_l4(at, &most.to_be_bytes());
        }
        Next::Rule
    }
}

/// Puts the option in front of the others; `false` if the frame has no room.
fn add_mss(pkt: &mut Packet, most: u16) -> bool {
    let [high, low] = most.min(ABSENT_MSS[usize::from(pkt.family() == Family::Ipv6)]).to_be_bytes();
    let [kind, len] = MSS_OPTION;
    if !pkt.insert_l4(TCP_HEADER_LEN, &[kind, len, high, low]) {
        return false;
    }
    let offset = pkt.l4()[12] + 0x10;
    pkt.edit_l4(12, &[offset]);
    true
}

/// Where the option begins in a list of options.
fn find_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at + 4 <= options.len() {
        if options[at..at + 2] == MSS_OPTION {
            return Some(at);
        }
        let len = usize::from(options[at + 1]);
        at += if options[at] < 2 || len == 0 { 1 } else { len };
    }
    None
}

impl fmt::Display for Tcpmss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(mss) => write!(f, " --set-mss {mss}"),
            Self::Clamp => f.write_str(" --clamp-mss-to-pmtu"),
        }
    }
}
