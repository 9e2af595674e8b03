//! A witness as a story: the packets that bring its state about, and the packet itself, in the language of scenarios.

#![forbid(unsafe_code)]

use crate::condition::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, icmp_of};
use crate::describe::{address, flag_names, protocol_word};
use crate::model::Model;
use crate::space::{Field, Picked, Space};
use crate::walk::Way;
use crate::witness::{Opening, Witness};
use core::fmt::Write as _;
use stateway_core::conntrack::CtState;
use stateway_core::packet::{Family, TcpFlags};

const SYN: u128 = 2;
const ACK: u128 = 16;
/// Where sequence numbers begin: the opener's and the answerer's.
const ISS: [u32; 2] = [1000, 5000];

/// What stands around a packet.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The first line.
    pub title: &'a str,
    /// iptables-save text of the packet's family.
    pub rules: &'a str,
    /// A router, which has addresses to translate to; otherwise a bridge.
    pub is_routed: bool,
    /// As what the first packet of the connection left, if rules may have translated it.
    pub sent: Option<Sent>,
}

/// The ends of a packet that left, as numbers of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub src: u128,
    pub dst: u128,
    pub sport: u16,
    pub dport: u16,
}

/// One line about a packet: `wan → lan, tcp 198.51.100.66:22 > 192.0.2.104:80 SYN, NEW`.
pub fn summary(space: &Space, way: Way, witness: &Witness) -> String {
    let packet = &witness.packet;
    let proto = packet.get(Field::Proto) as u8;
    let name = |field| space.ifaces.get(packet.get(field) as usize).map_or("?", String::as_str);
    let ifaces = match way {
        Way::Forward => format!("{} → {}", name(Field::In), name(Field::Out)),
        Way::Input => format!("{} → the router", name(Field::In)),
        Way::Output => format!("the router → {}", name(Field::Out)),
    };
    let end = |addr, port| end(space.family, proto, packet.get(addr), packet.get(port));
    let more = match proto {
        TCP => format!(" {}", flag_names(packet.get(Field::Flags))),
        ICMP | ICMPV6 => format!(" {}/{}", packet.get(Field::Dport) >> 8, packet.get(Field::Dport) & 0xff),
        _ => String::new(),
    };
    format!(
        "{ifaces}, {} {} > {}{more}, {}",
        protocol_word(proto),
        end(Field::Src, Field::Sport),
        end(Field::Dst, Field::Dport),
        witness.state.word()
    )
}

/// The story of a witness, for `stateway replay`; `None` where stories have no words for it.
pub fn story(model: &Model<'_>, stage: Stage, witness: &Witness) -> Option<String> {
    let Witness { state, packet, opening } = witness;
    let (mut text, sides) = around(model, stage, witness)?;
    let space = model.space;
    let lines = match (state, opening) {
        (CtState::New | CtState::Untracked | CtState::Invalid, _) => alone(space, packet, *state, sides)?,
        (CtState::Established, Some(opening)) => following(space, packet, opening, (sides, stage.sent))?,
        (CtState::Related, Some(opening)) => error(space, packet, opening, (sides, stage.sent))?,
        (CtState::Established | CtState::Related, None) => return None,
    };
    text.push_str(&lines);
    Some(text)
}

/// As far as the first packet of the witness's connection.
pub fn beginning(model: &Model<'_>, stage: Stage, witness: &Witness) -> Option<String> {
    let opening = witness.opening.as_ref()?;
    let (text, sides) = around(model, stage, witness)?;
    let (opener, answerer) = sides.of(opening);
    let first = segment(model.space, &opening.packet, ISS[0], 0)?;
    Some(format!("{text}{}0 {opener}/w {first}\n", flow(model.space, &opening.packet, opener, answerer)))
}

/// Everything in front of the packets.
fn around(model: &Model<'_>, stage: Stage, witness: &Witness) -> Option<(String, Sides)> {
    let (space, packet) = (model.space, &witness.packet);
    if model.way == Way::Output {
        return None;
    }
    let (came, leaves) = (packet.get(Field::In), packet.get(Field::Out));
    let is_input = model.way == Way::Input;
    // No bridge sends a packet back where it came from.
    let is_routed = stage.is_routed || is_input || came == leaves;
    let mut text = format!("# {}\nmode {}\n", stage.title, if is_routed { "route" } else { "bridge" });
    let name = |id: u128| space.ifaces.get(id as usize).map_or("right", String::as_str);
    let right = if is_input || came == leaves {
        (0..space.ifaces.len() as u128).find(|id| *id != came).map_or("right", name)
    } else {
        name(leaves)
    };
    let _ = writeln!(text, "ports {} {right}", name(came));
    let block = if space.family == Family::Ipv4 { "rules" } else { "rules6" };
    let _ = writeln!(text, "{block}\n{}\nend", stage.rules.trim_end());
    if space.family == Family::Ipv6 {
        text.push_str("rules\n*filter\nCOMMIT\nend\n");
    }
    let sides = Sides { here: "left", there: if came == leaves && !is_input { "left" } else { "right" } };
    if is_routed {
        routes(model, &mut text, packet, sides);
    }
    Some((text, sides))
}

/// Where the packet comes in, and where it leaves.
#[derive(Clone, Copy)]
struct Sides {
    here: &'static str,
    there: &'static str,
}

impl Sides {
    /// Where the opener of the witness's connection is, and where who answers.
    const fn of(self, opening: &Opening) -> (&'static str, &'static str) {
        if opening.is_same_way { (self.here, self.there) } else { (self.there, self.here) }
    }
}

/// So many hosts that a packet may be translated to get a route.
const MOST_ROUTES: usize = 16;

/// So that the router forwards between these hosts, or is the receiver itself.
fn routes(model: &Model<'_>, text: &mut String, packet: &Picked, sides: Sides) {
    let space = model.space;
    let len = space.family.bits();
    let gateway = |side: &str| match (space.family, side) {
        (Family::Ipv4, "left") => "192.0.2.254",
        (Family::Ipv4, _) => "198.51.100.254",
        (Family::Ipv6, "left") => "2001:db8:1::fffe",
        (Family::Ipv6, _) => "2001:db8:2::fffe",
    };
    let src = address(space.family, packet.get(Field::Src));
    let _ = writeln!(text, "route {src}/{len} via {} {}", gateway(sides.here), sides.here);
    if model.destinations.is_redirected(space, packet) {
        return;
    }
    let translated = model.destinations.addresses(space, packet, MOST_ROUTES);
    for dst in translated.unwrap_or_else(|| vec![packet.get(Field::Dst)]) {
        let dst = address(space.family, dst);
        if model.way == Way::Input {
            let _ = writeln!(text, "address {} {dst}/{len}", sides.here);
        } else {
            let _ = writeln!(text, "route {dst}/{len} via {} {}", gateway(sides.there), sides.there);
        }
    }
}

/// A packet that needs no other one before it.
fn alone(space: &Space, packet: &Picked, state: CtState, sides: Sides) -> Option<String> {
    let bad = if state == CtState::Invalid { " badsum" } else { "" };
    let segment = segment(space, packet, ISS[0], 1)?;
    Some(format!("{}0 left {segment}{bad}\n", flow(space, packet, sides.here, sides.there)))
}

/// A packet of a connection that has been answered.
fn following(
    space: &Space,
    packet: &Picked,
    opening: &Opening,
    (sides, sent): (Sides, Option<Sent>),
) -> Option<String> {
    let opened = &opening.packet;
    let proto = packet.get(Field::Proto) as u8;
    let (opener, answerer) = sides.of(opening);
    let mut text = flow(space, opened, opener, answerer);
    let answers = match sent {
        Some(sent) => {
            text.push_str(&flow_of_answers(space, proto, sent, [opener, answerer]));
            format!("{answerer}/v")
        }
        None => format!("{answerer}/w<"),
    };
    let _ = writeln!(text, "0 {opener}/w {}", segment(space, opened, ISS[0], 0)?);
    let is_syn_ack = packet.get(Field::Flags) & 0x17 == SYN | ACK;
    let begins = opened.get(Field::Flags) & SYN != 0;
    // Whether this is the first answer, which makes a connection answered.
    let is_first_answer = !opening.is_same_way && (proto != TCP || is_syn_ack || !begins);
    if !is_first_answer {
        match proto {
            TCP if begins => {
                let _ = writeln!(text, "+10ms {answers} S. {} ack {}", ISS[1], ISS[0] + 1);
                let _ = writeln!(text, "+10ms {opener}/w . {} ack {}", ISS[0] + 1, ISS[1] + 1);
            }
            TCP => {
                let _ = writeln!(text, "+10ms {answers} . {} ack {}", ISS[1], ISS[0]);
            }
            ICMP | ICMPV6 => {
                let answer = match (space.family, opened.get(Field::Dport) >> 8) {
                    (Family::Ipv4, 8) => 0,
                    (_, kind) => kind + 1,
                };
                let _ = writeln!(text, "+10ms {answers} {answer}/0");
            }
            SCTP => return None,
            _ => {
                let _ = writeln!(text, "+10ms {answers} (8)");
            }
        }
    }
    let after = u32::from(begins);
    let [opener_next, answerer_next] = [ISS[0] + after, ISS[1] + after];
    let (from, seq, ack) = if opening.is_same_way {
        (format!("{opener}/w"), opener_next, answerer_next)
    } else if is_syn_ack {
        (answers, ISS[1], opener_next)
    } else {
        (answers, answerer_next, opener_next)
    };
    let _ = writeln!(text, "+10ms {from} {}", segment(space, packet, seq, ack)?);
    Some(text)
}

/// An error about a packet of a connection.
fn error(
    space: &Space,
    packet: &Picked,
    opening: &Opening,
    (sides, sent): (Sides, Option<Sent>),
) -> Option<String> {
    if packet.get(Field::Proto) != u128::from(icmp_of(space.family)) {
        return None;
    }
    // The error goes to the opener, or to the answerer where the connection goes its way.
    let (opener, answerer) = sides.of(opening);
    let proto = opening.packet.get(Field::Proto) as u8;
    let mut text = flow(space, &opening.packet, opener, answerer);
    let mut about = if opening.is_same_way { "w<" } else { "w" };
    if let Some(sent) = sent.filter(|_| !opening.is_same_way) {
        // It quotes the packet as it left.
        text.push_str(&flow_of_answers(space, proto, sent, [opener, answerer]));
        about = "v<";
    }
    let _ = writeln!(text, "0 {opener}/w {}", segment(space, &opening.packet, ISS[0], 0)?);
    let (kind, code) = (packet.get(Field::Dport) >> 8, packet.get(Field::Dport) & 0xff);
    let from = address(space.family, packet.get(Field::Src));
    let _ = writeln!(text, "+10ms left error {kind}/{code} about {about} from {from}");
    Some(text)
}

/// The line that says who talks to whom.
fn flow(space: &Space, packet: &Picked, from: &str, to: &str) -> String {
    let proto = packet.get(Field::Proto) as u8;
    let end = |addr, port| end(space.family, proto, packet.get(addr), packet.get(port));
    let [src, dst] = [end(Field::Src, Field::Sport), end(Field::Dst, Field::Dport)];
    format!("flow w {from} {src} {to} {dst} {}\n", flow_word(space, proto))
}

/// The same connection as who answers sees it, behind the router.
fn flow_of_answers(space: &Space, proto: u8, sent: Sent, [opener, answerer]: [&str; 2]) -> String {
    let from = end(space.family, proto, sent.dst, sent.dport.into());
    let to = end(space.family, proto, sent.src, sent.sport.into());
    format!("flow v {answerer} {from} {opener} {to} {}\n", flow_word(space, proto))
}

fn flow_word(space: &Space, proto: u8) -> String {
    match proto {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        UDPLITE => "udplite".to_owned(),
        SCTP => "sctp".to_owned(),
        ICMP | ICMPV6 if proto == icmp_of(space.family) => "icmp id 7".to_owned(),
        47 => "gre".to_owned(),
        other => other.to_string(),
    }
}

/// An address, with its port where the protocol has ports.
fn end(family: Family, proto: u8, addr: u128, port: u128) -> String {
    if has_ports(proto) { socket(family, addr, port) } else { address(family, addr) }
}

/// The packet in the words of its protocol.
fn segment(space: &Space, packet: &Picked, seq: u32, ack: u32) -> Option<String> {
    let proto = packet.get(Field::Proto) as u8;
    let ip = if space.family == Family::Ipv4 { 20 } else { 40 };
    let over = match proto {
        TCP => 20,
        UDP | UDPLITE | ICMP | ICMPV6 => 8,
        47 => 4,
        _ => 0,
    };
    let len = (packet.get(Field::Length) as usize).saturating_sub(ip + over);
    let payload = if len > 0 { format!(" ({len})") } else { String::new() };
    let mut text = match proto {
        TCP => {
            let flags = packet.get(Field::Flags);
            let letters = TcpFlags::from_bits_retain(flags as u8);
            let end = u64::from(seq) + len as u64;
            let acks = if flags & ACK != 0 { format!(" ack {ack}") } else { String::new() };
            format!("{letters} {seq}:{end}({len}){acks} win 64240")
        }
        UDP | UDPLITE => {
            if payload.is_empty() {
                "(0)".to_owned()
            } else {
                payload.trim().to_owned()
            }
        }
        ICMP | ICMPV6 if proto == icmp_of(space.family) => {
            format!("{}/{}{payload}", packet.get(Field::Dport) >> 8, packet.get(Field::Dport) & 0xff)
        }
        SCTP => "INIT vtag 0".to_owned(),
        _ => format!("({len})"),
    };
    if packet.get(Field::Tos) != 0 {
        let _ = write!(text, " tos {}", packet.get(Field::Tos));
    }
    Some(text)
}

const fn has_ports(proto: u8) -> bool {
    matches!(proto, TCP | UDP | UDPLITE | SCTP)
}

fn socket(family: Family, addr: u128, port: u128) -> String {
    let addr = address(family, addr);
    if family == Family::Ipv4 { format!("{addr}:{port}") } else { format!("[{addr}]:{port}") }
}
