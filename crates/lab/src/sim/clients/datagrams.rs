//! Datagrams of simulated clients.

#![forbid(unsafe_code)]

use super::super::Sim;
use crate::model::{Flow, HostId};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use smoltcp::socket::udp::UdpMetadata;
use smoltcp::wire::IpEndpoint;
use stateway_core::time::Instant;

impl Sim {
    pub(crate) fn datagrams(&mut self, host: HostId, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.host(host).sockets.get_mut(handle)
    }

    /// Sends a datagram from the flow's own address.
    pub(crate) fn send_datagram(&mut self, flow: &Flow, handle: SocketHandle, to: IpEndpoint, bytes: &[u8]) {
        let meta = UdpMetadata { local_address: Some(flow.source.into()), ..to.into() };
        // A queue that is full loses it, as a network may.
        let _ = self.datagrams(flow.from, handle).send_slice(bytes, meta);
        self.wake(flow.from);
    }

    pub(crate) fn next_datagram(
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
}
