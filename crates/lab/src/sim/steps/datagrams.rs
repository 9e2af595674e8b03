//! Steps without connections: `udp`, `tftp`, `ping`, `traceroute`.

#![forbid(unsafe_code)]

use super::super::Sim;
use super::super::services::{bind, new_udp};
use super::{compared, content, no_answer, unreachable};
use crate::model::{Flow, HostId, Ping, Tftp, Transfer, Udp, Word};
use crate::runner::{Observation, RunError};
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::udp::UdpMetadata;
use smoltcp::socket::{icmp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpEndpoint};
use stateway_core::packet::tuple::{PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP};
use stateway_core::time::Instant;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// Between two echo requests.
const PING_INTERVAL: Duration = Duration::from_millis(200);
/// A TFTP client asks again after this.
const TFTP_AGAIN: Duration = Duration::from_millis(500);
const TFTP_PORT: u16 = 69;
const TFTP_BLOCK: usize = 512;
/// What `traceroute` begins with.
const TRACE_PORT: u16 = 33_434;
const TRACE_HOPS: u8 = 8;

impl Sim {
    fn datagrams(&mut self, host: HostId, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.host(host).sockets.get_mut(handle)
    }

    /// Sends a datagram from the flow's own address.
    fn send_datagram(&mut self, flow: &Flow, handle: SocketHandle, to: IpEndpoint, bytes: &[u8]) {
        let meta = UdpMetadata { local_address: Some(flow.source.into()), ..to.into() };
        // A queue that is full loses it, as a network may.
        let _ = self.datagrams(flow.from, handle).send_slice(bytes, meta);
        self.wake(flow.from);
    }

    fn next_datagram(
        &mut self,
        host: HostId,
        handle: SocketHandle,
        until: Instant,
    ) -> Option<(Vec<u8>, IpEndpoint)> {
        self.run_until(until, |sim| {
            let (bytes, meta) = sim.datagrams(host, handle).recv().ok()?;
            Some((bytes.to_vec(), meta.endpoint))
        })
    }

    pub(super) fn udp(&mut self, step: &Udp) -> Observation {
        let Udp { flow, port, source_port, send } = step;
        let until = self.deadline(flow);
        let host = self.host(flow.from);
        let source_port = source_port.unwrap_or_else(|| host.new_port());
        let mut socket = new_udp();
        let _ = socket.bind((flow.source, source_port));
        // In front of the host's own services, as a bound socket is more exact than theirs.
        let handle = host.sockets.add(socket);
        self.send_datagram(flow, handle, IpEndpoint::new(flow.to.into(), *port), send.as_bytes());
        let found = self.run_until(until, |sim| {
            if let Ok((bytes, _)) = sim.datagrams(flow.from, handle).recv() {
                let stdout = String::from_utf8_lossy(bytes).into_owned();
                let note = format!("{} bytes came back", bytes.len());
                return Some(Observation { stdout, ..Observation::new(Word::Ok, note) });
            }
            sim.heard(flow, PROTO_UDP, Some(*port)).map(unreachable)
        });
        self.host(flow.from).sockets.remove(handle);
        found.unwrap_or_else(|| no_answer(flow))
    }

    /// A transfer in lock-step (RFC 1350); the server answers from a port of its own.
    pub(super) fn tftp(&mut self, step: &Tftp) -> Result<Observation, RunError> {
        let Tftp { flow, transfer } = step;
        let (code, bytes) = match transfer {
            Transfer::Get { bytes } => (1, *bytes),
            Transfer::Put { bytes } => (2, *bytes),
            Transfer::List => return Err(RunError::Unsupported("TFTP cannot list files".to_owned())),
        };
        let Some(server) = flow.to_host else {
            return Err(RunError::Broken("the server is no host of this lab".to_owned()));
        };
        let content = content(bytes);
        let gets = code == 1;
        if gets {
            self.host(server).services.files.insert("file".to_owned(), content.clone());
        } else {
            self.host(server).services.files.remove("file");
        }
        let host = self.host(flow.from);
        let port = host.new_port();
        let handle = bind(&mut host.sockets, port);
        let mut request = vec![0, code];
        request.extend(b"file\0octet\0");
        let found = self.tftp_blocks(flow, handle, request, (!gets).then_some(&content));
        self.host(flow.from).sockets.remove(handle);
        self.run_to(self.now + super::AFTERMATH);
        Ok(match found {
            Ok(got) if gets => compared(&content, Some(&got)),
            Ok(_) => compared(&content, self.host(server).services.files.get("file").map(Vec::as_slice)),
            Err(found) => found,
        })
    }

    /// Gets, or puts `give`, block by block. Gives back what was got.
    fn tftp_blocks(
        &mut self,
        flow: &Flow,
        handle: SocketHandle,
        request: Vec<u8>,
        give: Option<&Vec<u8>>,
    ) -> Result<Vec<u8>, Observation> {
        let mut until = self.deadline(flow);
        let (mut peer, mut last) = (IpEndpoint::new(flow.to.into(), TFTP_PORT), request);
        let (mut got, mut block) = (Vec::new(), u16::from(give.is_none()));
        self.send_datagram(flow, handle, peer, &last);
        loop {
            let again = until.min(self.now + TFTP_AGAIN);
            let Some((packet, from)) = self.next_datagram(flow.from, handle, again) else {
                if let Some(error) = self.heard(flow, PROTO_UDP, None) {
                    return Err(unreachable(error));
                }
                if self.now >= until {
                    return Err(no_answer(flow));
                }
                self.send_datagram(flow, handle, peer, &last);
                continue;
            };
            let number = packet.get(2..4).map(|n| u16::from_be_bytes([n[0], n[1]]));
            let wanted = if give.is_some() { 4 } else { 3 };
            if packet.get(1) != Some(&wanted) || number != Some(block) {
                continue;
            }
            peer = from;
            until = self.deadline(flow);
            let [high, low] = block.to_be_bytes();
            if let Some(bytes) = give {
                // The block before this one is acknowledged; a short one ends it.
                let start = usize::from(block) * TFTP_BLOCK;
                if start > bytes.len() {
                    return Ok(got);
                }
                block += 1;
                let [high, low] = block.to_be_bytes();
                last = [&[0, 3, high, low], &bytes[start..(start + TFTP_BLOCK).min(bytes.len())]].concat();
            } else {
                got.extend_from_slice(&packet[4..]);
                last = vec![0, 4, high, low];
                block = block.wrapping_add(1);
            }
            self.send_datagram(flow, handle, peer, &last);
            if give.is_none() && packet.len() < 4 + TFTP_BLOCK {
                return Ok(got);
            }
        }
    }

    pub(super) fn ping(&mut self, step: &Ping) -> Observation {
        let Ping { flow, count, size, dont_fragment, ttl } = step;
        let headers = if flow.to.is_ipv4() { 28 } else { 48 };
        if *dont_fragment && usize::from(*size) + headers > self.lab.host(flow.from).mtu_bytes {
            return Observation::new(Word::Unreachable, "message too long");
        }
        let proto = if flow.to.is_ipv4() { PROTO_ICMP } else { PROTO_ICMPV6 };
        let host = self.host(flow.from);
        let ident = host.new_port();
        let buffer = || {
            icmp::PacketBuffer::new(
                vec![icmp::PacketMetadata::EMPTY; usize::from(*count).max(1)],
                vec![0; (usize::from(*size) + 64) * usize::from(*count).max(1)],
            )
        };
        let mut socket = icmp::Socket::new(buffer(), buffer());
        let _ = socket.bind(icmp::Endpoint::Ident(ident));
        socket.set_hop_limit(*ttl);
        let handle = host.sockets.add(socket);
        let mut received = 0;
        for number in 1..=*count {
            self.echo_request(flow, handle, ident, number, usize::from(*size));
            let until = if number == *count { self.deadline(flow) } else { self.now + PING_INTERVAL };
            let start = received;
            self.run_until(until, |sim| {
                while sim.host(flow.from).sockets.get_mut::<icmp::Socket>(handle).recv().is_ok() {
                    received += 1;
                }
                let last = number == *count;
                let heard = sim.heard(flow, proto, None).is_some();
                (last && (received > start || heard)).then_some(())
            });
        }
        self.host(flow.from).sockets.remove(handle);
        let note = format!("{count} packets transmitted, {received} received");
        match self.heard(flow, proto, None) {
            _ if received > 0 => {
                Observation { stdout: format!("{note}\n"), ..Observation::new(Word::Ok, note) }
            }
            Some(error) => unreachable(error),
            None => Observation::new(Word::Blocked, "no answer"),
        }
    }

    fn echo_request(&mut self, flow: &Flow, handle: SocketHandle, ident: u16, seq_no: u16, size: usize) {
        let data = vec![0x20; size];
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; 8 + size];
        match (flow.source, flow.to) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => Icmpv6Repr::EchoRequest { ident, seq_no, data: &data }
                .emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(&mut packet), &checksums),
            _ => Icmpv4Repr::EchoRequest { ident, seq_no, data: &data }
                .emit(&mut Icmpv4Packet::new_unchecked(&mut packet), &checksums),
        }
        let to: IpAddress = flow.to.into();
        let _ = self.host(flow.from).sockets.get_mut::<icmp::Socket>(handle).send_slice(&packet, to);
        self.wake(flow.from);
    }

    /// One datagram for each number of hops, until the destination itself answers.
    pub(super) fn traceroute(&mut self, flow: &Flow) -> Observation {
        let host = self.host(flow.from);
        let source_port = host.new_port();
        let handle = bind(&mut host.sockets, source_port);
        let mut hops: Vec<String> = Vec::new();
        for ttl in 1..=TRACE_HOPS {
            let port = TRACE_PORT + u16::from(ttl) - 1;
            self.datagrams(flow.from, handle).set_hop_limit(Some(ttl));
            self.send_datagram(flow, handle, IpEndpoint::new(flow.to.into(), port), &[0; 32]);
            let until = self.now + Duration::from_secs(1);
            let answer =
                self.run_until(until, |sim| sim.heard(flow, PROTO_UDP, Some(port)).map(|error| error.from));
            hops.push(answer.map_or("*".to_owned(), |from| from.to_string()));
            if answer == Some(flow.to) {
                break;
            }
        }
        self.host(flow.from).sockets.remove(handle);
        let arrived = hops.last() == Some(&flow.to.to_string());
        let mut note = String::new();
        for hop in &hops {
            let _ = write!(note, "{}{hop}", if note.is_empty() { "" } else { " " });
        }
        let word = if arrived { Word::Ok } else { Word::Blocked };
        Observation { stdout: hops.join("\n"), ..Observation::new(word, note) }
    }
}
