//! What `-j NFLOG` says, as a capture: each packet as the rule saw it, with group, prefix and rule as its comment.

#![forbid(unsafe_code)]

use super::Writer;
use stateway_core::base::log::{Logged, Speaker};
use stateway_core::iface::IfaceId;
use stateway_core::packet::Family;
use stateway_core::router::Router;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

/// Writes a capture whose interfaces are the router's.
#[expect(missing_debug_implementations, reason = "the writer within has none")]
pub struct Nflog<W: Write> {
    writer: Writer<W>,
}

impl<W: Write> Nflog<W> {
    /// # Errors
    /// `out` cannot be written.
    pub fn new(out: W, router: &Router) -> io::Result<Self> {
        let ports = router.ifaces().iter().map(|iface| iface.name.as_str());
        Ok(Self { writer: Writer::new(out, ports)? })
    }

    /// Writes the packet, if NFLOG spoke of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, logged: &Logged, router: &Router) -> io::Result<()> {
        let Speaker::Nflog { prefix, group } = &logged.by else { return Ok(()) };
        let name = |id: IfaceId| router.ifaces().get(id.index()).map_or("?", |iface| iface.name.as_str());
        let mut comment = format!("NFLOG group {group}");
        // Writing to a string cannot fail.
        if !prefix.is_empty() {
            let _ = write!(comment, " \"{prefix}\"");
        }
        if let Some(rule) = router.rule_name(logged.rule) {
            let _ = write!(comment, " by {rule}");
        }
        for (word, iface) in [("in", logged.in_iface), ("out", logged.out_iface)] {
            let _ = iface.map_or(Ok(()), |iface| write!(comment, " {word} {}", name(iface)));
        }
        if logged.mark != 0 {
            let _ = write!(comment, " mark {:#x}", logged.mark);
        }
        let ethertype: u16 = match logged.rule.family {
            Family::Ipv4 => 0x0800,
            Family::Ipv6 => 0x86dd,
        };
        let link = [&logged.dst_mac.0[..], &logged.src_mac.0, &ethertype.to_be_bytes()].concat();
        let original_len = link.len() + logged.packet_len;
        let frame = [link, logged.packet.clone()].concat();
        let port = logged.in_iface.or(logged.out_iface).map_or(0, IfaceId::index);
        let at = Duration::from_nanos(router.unix_nanos(logged.at));
        self.writer.cut_frame(port, at, &frame, original_len, &comment)
    }

    /// What was written to.
    pub fn get_mut(&mut self) -> &mut W {
        self.writer.get_mut()
    }
}
