//! TFTP (RFC 1350): the server's side of one transfer, from a port of its own.

#![forbid(unsafe_code)]

use super::bind;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp::{self, UdpMetadata};
use std::collections::BTreeMap;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
/// Bytes in each block but the last.
pub(in crate::sim) const BLOCK: usize = 512;
/// The port of the first transfer.
const FIRST_PORT: u16 = 50_000;

#[derive(Debug)]
pub(super) struct Transfer {
    handle: SocketHandle,
    peer: UdpMetadata,
    name: String,
    /// What is given, or what was taken so far.
    bytes: Vec<u8>,
    gives: bool,
    /// The block under way.
    block: u16,
    over: bool,
}

impl Transfer {
    /// Begins what a request asks for; a file that is not there is answered by silence.
    pub(super) fn serve(
        request: &[u8],
        from: UdpMetadata,
        sockets: &mut SocketSet<'static>,
        files: &mut BTreeMap<String, Vec<u8>>,
    ) -> Option<Self> {
        let code = word(request, 0)?;
        let end = request.get(2..)?.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&request[2..2 + end]).into_owned();
        let gives = code == READ;
        let bytes = match code {
            READ => files.get(&name)?.clone(),
            WRITE => Vec::new(),
            _ => return None,
        };
        // The client's port tells transfers apart, so that the same lab gives the same ports.
        let port = FIRST_PORT + from.endpoint.port % 10_000;
        let handle = bind(sockets, port);
        let peer = UdpMetadata { local_address: from.local_address, ..from.endpoint.into() };
        let mut transfer = Self { handle, peer, name, bytes, gives, block: u16::from(gives), over: false };
        transfer.send(sockets);
        Some(transfer)
    }

    /// Sends the block under way, or acknowledges it.
    fn send(&mut self, sockets: &mut SocketSet<'static>) {
        let [high, low] = self.block.to_be_bytes();
        let mut packet = vec![0, if self.gives { DATA } else { ACK } as u8, high, low];
        if self.gives {
            packet.extend_from_slice(self.chunk());
        }
        let _ = sockets.get_mut::<udp::Socket>(self.handle).send_slice(&packet, self.peer);
    }

    fn chunk(&self) -> &[u8] {
        let start = (usize::from(self.block) - 1) * BLOCK;
        &self.bytes[start.min(self.bytes.len())..(start + BLOCK).min(self.bytes.len())]
    }

    pub(super) fn run(
        &mut self,
        sockets: &mut SocketSet<'static>,
        files: &mut BTreeMap<String, Vec<u8>>,
    ) -> bool {
        let mut busy = false;
        while let Ok((packet, from)) = sockets.get_mut::<udp::Socket>(self.handle).recv() {
            busy = true;
            if from.endpoint != self.peer.endpoint {
                continue;
            }
            let packet = packet.to_vec();
            let (Some(code), Some(block)) = (word(&packet, 0), word(&packet, 2)) else { continue };
            match code {
                ACK if self.gives && block == self.block => {
                    if self.chunk().len() < BLOCK {
                        self.over = true;
                        continue;
                    }
                    self.block += 1;
                }
                DATA if !self.gives && block == self.block + 1 => {
                    self.block = block;
                    self.bytes.extend_from_slice(&packet[4..]);
                    if packet.len() < 4 + BLOCK {
                        files.insert(self.name.clone(), self.bytes.clone());
                    }
                }
                // The client asks again: what it waits for was lost.
                _ => {}
            }
            self.send(sockets);
        }
        busy
    }

    /// Whether it came to its end; then its port is free again.
    pub(super) fn is_over(&self, sockets: &mut SocketSet<'static>) -> bool {
        if self.over {
            sockets.remove(self.handle);
        }
        self.over
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
