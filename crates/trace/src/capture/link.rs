//! What stands in front of a captured packet, and the Ethernet header that it becomes.
//!
//! The link types: <https://www.tcpdump.org/linktypes.html>.

#![forbid(unsafe_code)]

use super::{Direction, Unjudged};

const ETHERNET: u32 = 1;
/// BSD loopback: the address family in the order of the machine, or of the network.
const NULL: u32 = 0;
const LOOP: u32 = 108;
/// An IP packet and nothing in front of it: a TUN, a tunnel. 12 and 14 are what some systems call it by.
const RAW: [u32; 3] = [101, 12, 14];
const IPV4: u32 = 228;
const IPV6: u32 = 229;
/// `tcpdump -i any`: a header of Linux' own, without and with the number of the interface.
const LINUX_SLL: u32 = 113;
const LINUX_SLL2: u32 = 276;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Anything that is neither IP nor ARP.
const ETHERTYPE_UNKNOWN: [u8; 2] = [0, 0];

/// What a link header told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) direction: Option<Direction>,
    /// The kernel's number of the interface.
    pub(super) index: Option<u32>,
    /// It was no Ethernet header.
    pub(super) is_made_up: bool,
}

/// Whom a packet was for, by the link (`sll_pkttype`, packet(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    One,
    Everybody,
    Group,
}

/// Puts an Ethernet header in place of the one that was captured.
///
/// # Errors
/// The link carries something else, or the frame was cut within its header.
pub(super) fn to_ethernet(link_type: u32, data: &mut Vec<u8>) -> Result<Link, Unjudged> {
    let made_up = Link { is_made_up: true, ..Link::default() };
    match link_type {
        ETHERNET => return Ok(Link::default()),
        LINUX_SLL => return cooked(data),
        LINUX_SLL2 => return cooked2(data),
        NULL | LOOP => replace_header(data, 4, ethertype_of_ip, Receiver::One)?,
        IPV4 | IPV6 => replace_header(data, 0, ethertype_of_ip, Receiver::One)?,
        raw if RAW.contains(&raw) => replace_header(data, 0, ethertype_of_ip, Receiver::One)?,
        other => return Err(Unjudged::LinkType(other)),
    }
    Ok(made_up)
}

/// `LINKTYPE_LINUX_SLL`: type, hardware, length of the address, address, protocol.
fn cooked(data: &mut Vec<u8>) -> Result<Link, Unjudged> {
    let head: [u8; 16] = data.first_chunk().copied().ok_or(Unjudged::HeadersCut)?;
    let (direction, receiver) = packet_type(u16::from_be_bytes([head[0], head[1]]));
    replace_header(data, head.len(), |_| [head[14], head[15]], receiver)?;
    Ok(Link { direction, index: None, is_made_up: true })
}

/// `LINKTYPE_LINUX_SLL2`: protocol, reserved, interface, hardware, type, length of the address, address.
fn cooked2(data: &mut Vec<u8>) -> Result<Link, Unjudged> {
    let head: [u8; 20] = data.first_chunk().copied().ok_or(Unjudged::HeadersCut)?;
    let (direction, receiver) = packet_type(head[10].into());
    let index = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    replace_header(data, head.len(), |_| [head[0], head[1]], receiver)?;
    Ok(Link { direction, index: Some(index), is_made_up: true })
}

/// `PACKET_HOST`, `PACKET_BROADCAST`, `PACKET_MULTICAST`, `PACKET_OTHERHOST`, `PACKET_OUTGOING`.
const fn packet_type(code: u16) -> (Option<Direction>, Receiver) {
    match code {
        0 | 3 => (Some(Direction::In), Receiver::One),
        1 => (Some(Direction::In), Receiver::Everybody),
        2 => (Some(Direction::In), Receiver::Group),
        4 => (Some(Direction::Out), Receiver::One),
        _ => (None, Receiver::One),
    }
}

/// By the version of the packet.
fn ethertype_of_ip(packet: &[u8]) -> [u8; 2] {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ETHERTYPE_IPV4,
        Some(6) => ETHERTYPE_IPV6,
        _ => ETHERTYPE_UNKNOWN,
    }
}

fn replace_header(
    data: &mut Vec<u8>,
    len: usize,
    ethertype: impl FnOnce(&[u8]) -> [u8; 2],
    receiver: Receiver,
) -> Result<(), Unjudged> {
    let packet = data.get(len..).ok_or(Unjudged::HeadersCut)?;
    let ethertype = ethertype(packet);
    let (src, dst) = match ethertype {
        ETHERTYPE_IPV4 => (packet.get(12..16), packet.get(16..20)),
        ETHERTYPE_IPV6 => (packet.get(8..24), packet.get(24..40)),
        ETHERTYPE_ARP => (packet.get(14..18), packet.get(24..28)),
        _ => (None, None),
    };
    let src = src.map_or([2, 0, 0, 0, 0, 0], mac_of);
    let dst = match (receiver, dst) {
        (Receiver::One, Some(dst)) => mac_of(dst),
        (Receiver::Group, Some(&[_, b, c, d])) => [1, 0, 0x5e, b & 0x7f, c, d],
        (Receiver::Group, Some(&[.., a, b, c, d])) => [0x33, 0x33, a, b, c, d],
        (Receiver::One | Receiver::Group | Receiver::Everybody, _) => [0xff; 6],
    };
    data.splice(..len, [dst, src].concat().into_iter().chain(ethertype));
    Ok(())
}

/// A link address that is the same whenever the IP address is: a bridge learns stations by it.
fn mac_of(ip: &[u8]) -> [u8; 6] {
    let mut mac = [0x02_u8, 0, 0, 0, 0, 0];
    if ip.len() == 16 {
        mac[0] = 0x06;
    }
    for (at, byte) in ip.iter().enumerate() {
        mac[2 + at % 4] = mac[2 + at % 4].rotate_left(1) ^ byte;
    }
    mac
}
