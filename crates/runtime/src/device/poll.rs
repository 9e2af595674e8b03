//! Bursts by plain calls: poll, read, write. It works everywhere, and costs a system call or two a frame.

#![forbid(unsafe_code)]

use super::arena::Arena;
use super::retry::{Backoff, is_gone};
use super::{Burst, HEADROOM, Link, Port};
use rustix::event::{PollFd, PollFlags, Timespec};
use stateway_core::iface::IfaceId;
use stateway_core::packet::Offload;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Frames read from one port before the next port has its turn.
const BURST: usize = 32;

/// Poll, read, write.
///
/// A frame is written when it is queued: there is nothing to gain from keeping it.
#[derive(Debug)]
pub struct PollBurst {
    ports: Arc<[Box<dyn Port>]>,
    /// The ports that this worker reads; it may write to all.
    reads: Vec<IfaceId>,
    /// Those of them that lost their interface.
    gone: Vec<IfaceId>,
    found_gone: bool,
    arena: Arena,
    /// What came with the last turn: slot `n` holds frame `n`.
    received: Vec<(IfaceId, usize, Offload)>,
    /// Frames that were queued and could not be sent, by port.
    lost: Vec<u64>,
    /// The slot for frames that did not come in.
    spare: usize,
    backoff: Backoff,
}

impl PollBurst {
    /// Reads the ports `reads` of `ports`.
    pub fn new(ports: Arc<[Box<dyn Port>]>, reads: Vec<IfaceId>) -> Self {
        let spare = reads.len() * BURST;
        let lost = vec![0; ports.len()];
        let arena = Arena::new(spare + 1);
        let received = Vec::with_capacity(spare);
        let (gone, backoff) = (Vec::new(), Backoff::default());
        Self { ports, reads, gone, found_gone: false, arena, received, lost, spare, backoff }
    }

    /// Ports that lost their interface are not asked any more.
    fn leave(&mut self, gone: Vec<IfaceId>) {
        if !gone.is_empty() {
            self.reads.retain(|iface| !gone.contains(iface));
            self.gone.extend(gone);
            self.found_gone = true;
        }
    }

    fn send(&mut self, slot: usize, to: IfaceId, len: usize, offload: Offload) {
        let port = &*self.ports[to.index()];
        if !self.backoff.send(port, self.arena.slot(slot), len, offload) {
            self.lost[to.index()] += 1;
        }
    }
}

impl Burst for PollBurst {
    fn describe(&self) -> &'static str {
        "poll"
    }

    fn turn(&mut self) -> io::Result<usize> {
        self.received.clear();
        let mut gone = Vec::new();
        for &iface in &self.reads {
            for _ in 0..BURST {
                match self.ports[iface.index()].recv(self.arena.slot(self.received.len())) {
                    Ok((len, offload)) => self.received.push((iface, len, offload)),
                    // An interface that is down or gone is silent, and the others go on.
                    Err(error) => {
                        if is_gone(&error) {
                            gone.push(iface);
                        }
                        self.backoff.look_at(&error);
                        break;
                    }
                }
            }
        }
        self.leave(gone);
        Ok(self.received.len())
    }

    fn frame(&mut self, n: usize) -> (IfaceId, &mut [u8], Offload) {
        let (iface, len, offload) = self.received[n];
        (iface, &mut self.arena.slot(n)[HEADROOM..HEADROOM + len], offload)
    }

    fn forward(&mut self, n: usize, to: IfaceId, len: usize, offload: Offload) {
        self.send(n, to, len, offload);
    }

    fn emit(&mut self, to: IfaceId, frame: &[u8], offload: Offload) {
        let spare = self.spare;
        let Some(room) = self.arena.slot(spare).get_mut(HEADROOM..HEADROOM + frame.len()) else {
            self.lost[to.index()] += 1;
            return;
        };
        room.copy_from_slice(frame);
        self.send(spare, to, frame.len(), offload);
    }

    fn has_queued(&self) -> bool {
        false
    }

    fn take_retries(&mut self) -> u64 {
        self.backoff.take_retries()
    }

    fn take_gone(&mut self) -> bool {
        core::mem::take(&mut self.found_gone)
    }

    fn is_back(&mut self, iface: IfaceId) -> io::Result<()> {
        let before = self.gone.len();
        self.gone.retain(|gone| *gone != iface);
        if self.gone.len() < before {
            self.reads.push(iface);
        }
        Ok(())
    }

    fn lost(&mut self, tell: &mut dyn FnMut(IfaceId, u64)) {
        tell_lost(&mut self.lost, tell);
    }

    fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
        let mut gone = Vec::new();
        let any = wait_for_frames(&self.ports, &self.reads, wake, timeout, |iface, readiness| {
            if readiness == Readiness::Gone {
                gone.push(iface);
            }
        });
        self.leave(gone);
        self.backoff.slept(any)
    }
}

/// Names the ports that lost frames, and begins to count anew.
pub(super) fn tell_lost(lost: &mut [u64], tell: &mut dyn FnMut(IfaceId, u64)) {
    for (index, n) in lost.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
        tell(IfaceId(index as u16), core::mem::take(n));
    }
}

/// What poll(2) says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Silent,
    Readable,
    /// The interface was deleted. poll(2) would say so for ever, so it is not to be asked about again.
    Gone,
}

/// How the interface behind a descriptor stands.
pub(super) fn link(fd: BorrowedFd<'_>) -> Link {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(&now)) {
        // Without an answer nothing is known to be wrong.
        Err(_) => Link::Up,
        Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => Link::Gone,
        // A TAP takes frames while its interface is up, in whatever namespace that is.
        Ok(_) if fds[0].revents().contains(PollFlags::OUT) => Link::Up,
        Ok(_) => Link::Down,
    }
}

/// Sleeps until a port of `reads` or `wake` is readable; says whether a port is, and of each port how it stands.
pub(super) fn wait_for_frames(
    ports: &[Box<dyn Port>],
    reads: &[IfaceId],
    wake: BorrowedFd<'_>,
    timeout: Option<Duration>,
    mut tell: impl FnMut(IfaceId, Readiness),
) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(reads.len() + 1);
    fds.push(PollFd::from_borrowed_fd(wake, PollFlags::IN));
    fds.extend(reads.iter().map(|id| PollFd::from_borrowed_fd(ports[id.index()].as_fd(), PollFlags::IN)));
    let timeout = timeout.map(|t| Timespec {
        tv_sec: t.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    rustix::event::poll(&mut fds, timeout.as_ref())?;
    let mut any = false;
    for (&iface, fd) in reads.iter().zip(&fds[1..]) {
        let readiness = match fd.revents() {
            e if e.contains(PollFlags::IN) => Readiness::Readable,
            e if e.intersects(PollFlags::ERR | PollFlags::HUP) => Readiness::Gone,
            _ => Readiness::Silent,
        };
        any |= readiness == Readiness::Readable;
        tell(iface, readiness);
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Kind;
    use crate::device::memory::{self, MemoryPort};
    use std::os::fd::AsFd;

    /// A port on which a frame always waits.
    #[derive(Debug)]
    struct Flooded(MemoryPort);

    impl AsFd for Flooded {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Port for Flooded {
        fn name(&self) -> &str {
            self.0.name()
        }

        fn kind(&self) -> Kind {
            Kind::Memory
        }

        fn recv(&self, _: &mut [u8]) -> io::Result<(usize, Offload)> {
            Ok((60, Offload::NONE))
        }

        fn send(&self, _: &mut [u8], _: usize, _: Offload) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flooded_port_takes_its_share_of_a_turn_and_no_more() {
        let (flooded, _far) = memory::port("flooded").expect("sockets");
        let (quiet, host) = memory::port("quiet").expect("sockets");
        let ports: Vec<Box<dyn Port>> = vec![Box::new(Flooded(flooded)), Box::new(quiet)];
        let mut burst = PollBurst::new(ports.into(), vec![IfaceId(0), IfaceId(1)]);
        for n in 0..3 {
            host.send(&[n]).expect("room for one");
            assert_eq!(burst.turn().expect("it reads"), BURST + 1);
            let (iface, frame, _) = burst.frame(BURST);
            assert_eq!((iface, &*frame), (IfaceId(1), &[n][..]));
        }
    }
}
