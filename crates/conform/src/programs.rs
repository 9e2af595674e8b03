//! Programs on the router: sockets in the kernel's namespace.

#![forbid(unsafe_code)]

use super::netns::Namespace;
use super::trace::Frame;
use anyhow::{Context as _, Result};
use stateway_core::packet::tuple::PROTO_UDP;
use stateway_core::packet::{Offload, Packet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

const UDP_HEADER_LEN: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Those that answer, with what they say.
    listeners: Vec<(UdpSocket, Vec<u8>)>,
    /// Those that have sent something, which keep their ports.
    senders: Vec<(SocketAddr, UdpSocket)>,
}

impl Programs {
    /// Programs that listen on all addresses of the router.
    pub(super) fn new(namespace: &Namespace, ports: &[(u16, Vec<u8>)]) -> Result<Self> {
        let listen = |(port, text): &(u16, Vec<u8>)| {
            let anywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            Ok((bind(namespace, anywhere)?, text.clone()))
        };
        Ok(Self { listeners: ports.iter().map(listen).collect::<Result<_>>()?, senders: Vec::new() })
    }

    /// Answers every datagram that has come.
    pub(super) fn answer(&self) -> Result<()> {
        let mut heard = [0; 2048];
        for (socket, text) in &self.listeners {
            loop {
                match socket.recv_from(&mut heard) {
                    Ok((_, from)) => drop(socket.send_to(text, from).context("an answer")?),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("a socket in the namespace"),
                }
            }
        }
        Ok(())
    }

    /// Sends the payload of a UDP datagram, from its source to its destination.
    pub(super) fn send(&mut self, namespace: &Namespace, packet: &[u8]) -> Result<()> {
        let mut frame = Frame::of_packet(0, packet, "own").bytes;
        let pkt = Packet::parse(&mut frame, Offload::NONE).map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let ports = pkt.ports().filter(|_| pkt.proto() == PROTO_UDP);
        let (from, to) = ports.context("a program here sends UDP only")?;
        let ip = |addr: stateway_core::packet::Addr| -> IpAddr { addr.to_ip(pkt.family()) };
        let (from, to) = (SocketAddr::new(ip(pkt.src()), from), SocketAddr::new(ip(pkt.dst()), to));
        let known = self.senders.iter().position(|(known, _)| *known == from);
        let at = if let Some(at) = known {
            at
        } else {
            self.senders.push((from, bind(namespace, from)?));
            self.senders.len() - 1
        };
        let text = pkt.l4().get(UDP_HEADER_LEN..).unwrap_or_default();
        // What OUTPUT drops is an error to the program, and none here.
        let _ = self.senders[at].1.send_to(text, to);
        Ok(())
    }
}

fn bind(namespace: &Namespace, at: SocketAddr) -> Result<UdpSocket> {
    namespace.inside(|| {
        let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}
