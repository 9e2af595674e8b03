//! Bursts through io_uring: one system call sends all that is queued and reads whatever waits on all ports.
//!
//! A turn submits the queued writes and then a number of reads for each port. All of them are done within the call,
//! since they are asked not to wait; how many reads a port gets follows how many frames its last turn had. When
//! nothing waits anywhere the worker sleeps in poll(2), and what wakes it is read and written directly: for a lone
//! frame that is the shortest way.

#![allow(unsafe_code, reason = "the ring is given pointers to the slots")]

use super::arena::Arena;
use super::offload::{read_header, write_header};
use super::poll::{Readiness, tell_lost, wait_for_frames};
use super::{Burst, HEADROOM, Port, SLOT_LEN};
use crate::iface::IfaceId;
use crate::packet::Offload;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// The most frames read from one port in a turn.
const BATCH: usize = 64;
/// All slots for frames that come in: with many ports, each has a smaller share.
const MAX_SLOTS: usize = 4096;
/// Slots for frames that the router writes itself; when they are full, what is queued is sent at once.
const SPARE: usize = 64;
/// Reads that a port gets when it was just found readable.
const FIRST_READS: usize = 4;
/// `preadv2(2)`: fail rather than wait.
const RWF_NOWAIT: i32 = 8;
/// Marks the completion of a write; only those that failed complete.
const WRITE: u64 = 1 << 32;

/// Reads and writes through one ring, which belongs to one worker's thread.
pub struct RingBurst {
    ring: IoUring,
    ports: Arc<[Box<dyn Port>]>,
    reads: Vec<Reads>,
    /// `batch` slots for each of `reads`, then the spare ones.
    arena: Arena,
    batch: usize,
    received: Vec<Received>,
    /// Writes that are in the submission queue.
    queued: usize,
    spares: usize,
    mode: Mode,
    lost: Vec<u64>,
}

impl std::fmt::Debug for RingBurst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingBurst")
            .field("reads", &self.reads)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// One port that this worker reads.
#[derive(Debug)]
struct Reads {
    iface: IfaceId,
    /// How many reads it gets in the next turn.
    want: usize,
    got: usize,
    /// poll(2) or the last direct read found it readable.
    ready: bool,
    /// Its interface was deleted.
    gone: bool,
}

/// A frame of the last turn.
#[derive(Clone, Copy, Debug)]
struct Received {
    iface: IfaceId,
    slot: usize,
    len: usize,
    offload: Offload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The ring is not yet bound to the worker's thread.
    New,
    Ring,
    /// Woken from sleep: so many frames came directly since.
    Direct(u32),
}

impl RingBurst {
    /// Reads the ports `reads` of `ports`. May be made in one thread and used in another, but then only there.
    ///
    /// # Errors
    /// This kernel has no io_uring, forbids it, or an old one.
    pub fn new(ports: Arc<[Box<dyn Port>]>, reads: &[IfaceId]) -> io::Result<Self> {
        let batch = (MAX_SLOTS / reads.len().max(1)).clamp(1, BATCH);
        let slots = reads.len() * batch;
        // Every slot may be read into and written from in one turn.
        let entries = (2 * slots + SPARE).next_power_of_two() as u32;
        let ring = build(entries)?;
        if !ring.params().is_feature_skip_cqe_on_success() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "io_uring is too old: Linux 5.17 is needed",
            ));
        }
        let fds: Vec<_> = ports.iter().map(|port| port.as_fd().as_raw_fd()).collect();
        if !fds.is_empty() {
            ring.submitter().register_files(&fds)?;
        }
        let lost = vec![0; ports.len()];
        let reads = reads.iter().map(|&iface| Reads {
            iface,
            want: FIRST_READS.min(batch),
            got: 0,
            ready: false,
            gone: false,
        });
        Ok(Self {
            ring,
            ports,
            reads: reads.collect(),
            arena: Arena::new(slots + SPARE),
            batch,
            received: Vec::with_capacity(slots),
            queued: 0,
            spares: 0,
            mode: Mode::New,
            lost,
        })
    }

    /// What was queued leaves, and no slot is in use any more.
    fn flush(&mut self) -> io::Result<()> {
        if self.queued > 0 {
            self.submit(0)?;
        }
        Ok(())
    }

    /// Hands the submission queue to the kernel, which does all of it before it returns.
    fn submit(&mut self, reads: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(reads) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.queued = 0;
        self.spares = 0;
        Ok(())
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: the entry points into a slot of the arena, which lives as long as the ring. The kernel touches it
        // only within `submit`, during which nobody else can: it takes `self` exclusively, reads are asked not to
        // wait (RWF_NOWAIT) and all of them are waited for; writes to a descriptor with O_NONBLOCK never wait either,
        // so both are over when the call returns.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "the submission queue has room for every slot twice");
    }

    /// Queues the write of a slot.
    fn write(&mut self, slot: usize, to: IfaceId, len: usize, offload: Offload) {
        let bytes = self.arena.slot(slot);
        let (start, len) = if self.ports[to.index()].takes_offload() {
            write_header(bytes, offload);
            (0, HEADROOM + len)
        } else {
            (HEADROOM, len)
        };
        let entry = opcode::Write::new(types::Fixed(to.0.into()), bytes[start..].as_ptr(), len as u32)
            .offset(u64::MAX)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(WRITE | u64::from(to.0));
        self.push(&entry);
        self.queued += 1;
    }

    /// Submits what is queued and the reads of a turn, and gathers what came.
    fn turn_ring(&mut self) -> io::Result<()> {
        let mut asked = 0;
        for index in 0..self.reads.len() {
            let Reads { iface, want, gone, .. } = self.reads[index];
            if gone {
                continue;
            }
            let start = if self.ports[iface.index()].takes_offload() { 0 } else { HEADROOM };
            for slot in index * self.batch..index * self.batch + want {
                let bytes = &mut self.arena.slot(slot)[start..];
                let entry =
                    opcode::Read::new(types::Fixed(iface.0.into()), bytes.as_mut_ptr(), bytes.len() as u32)
                        .offset(u64::MAX)
                        .rw_flags(RWF_NOWAIT)
                        .build()
                        .user_data(slot as u64);
                self.push(&entry);
            }
            asked += want;
            self.reads[index].got = 0;
        }
        self.submit(asked)?;
        self.gather();
        for reads in &mut self.reads {
            // Twice as many while they come in full, else one more than there were.
            reads.want = if reads.got == reads.want { 2 * reads.want } else { reads.got + 1 }.min(self.batch);
        }
        Ok(())
    }

    /// Reads the completions: a frame's place is its slot's, since a later read may find what an earlier one missed.
    fn gather(&mut self) {
        for completion in self.ring.completion() {
            let (data, result) = (completion.user_data(), completion.result());
            if data & WRITE != 0 {
                self.lost[(data & !WRITE) as usize] += 1;
                continue;
            }
            let slot = data as usize;
            let reads = &mut self.reads[slot / self.batch];
            let iface = reads.iface;
            let header = if self.ports[iface.index()].takes_offload() { HEADROOM } else { 0 };
            // A negative result is an error, nearly always that nothing waits.
            let Some(len) = usize::try_from(result).ok().and_then(|n| n.checked_sub(header)) else {
                continue;
            };
            if len == 0 {
                continue;
            }
            let offload = if header > 0 { read_header(self.arena.slot(slot)) } else { Offload::NONE };
            reads.got += 1;
            self.received.push(Received { iface, slot, len, offload });
        }
    }

    /// Reads one frame from each port that poll(2) found readable.
    fn turn_direct(&mut self, rounds: u32) {
        for index in 0..self.reads.len() {
            if !self.reads[index].ready {
                continue;
            }
            let (slot, iface) = (index * self.batch, self.reads[index].iface);
            match self.ports[iface.index()].recv(self.arena.slot(slot)) {
                Ok((len, offload)) if len > 0 => self.received.push(Received { iface, slot, len, offload }),
                _ => self.reads[index].ready = false,
            }
        }
        // The second frame in a row: this is no lone one, so the ring is the better way from here.
        if rounds > 0 && !self.received.is_empty() {
            self.mode = Mode::Ring;
            for reads in &mut self.reads {
                reads.want = if reads.ready { FIRST_READS.min(self.batch) } else { 1 };
            }
        } else {
            self.mode = Mode::Direct(rounds + 1);
        }
    }

    /// Binds the ring to this thread.
    fn enable(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        self.mode = Mode::Ring;
        Ok(())
    }
}

/// Whether this kernel has what [`RingBurst`] needs, and lets us have it.
///
/// # Errors
/// Why not.
pub fn is_available() -> io::Result<()> {
    RingBurst::new(Arc::new([]), &[]).map(drop)
}

impl Drop for RingBurst {
    fn drop(&mut self) {
        // The kernel takes a ring apart some time after it was closed. Without this its hold on the files, and so the
        // interfaces, would outlive us for that long, and whoever runs a router again would find them busy.
        let _ = self.ring.submitter().unregister_files();
    }
}

/// Asks for all that makes a ring cheap; an older kernel gets to do without.
fn build(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_r_disabled().setup_submit_all();
    let mut cheap = builder.clone();
    cheap.setup_single_issuer().setup_defer_taskrun();
    cheap.build(entries).or_else(|_| builder.build(entries))
}

impl Burst for RingBurst {
    fn describe(&self) -> &'static str {
        "io_uring"
    }

    fn turn(&mut self) -> io::Result<usize> {
        self.received.clear();
        match self.mode {
            Mode::New => {
                self.enable()?;
                self.turn_ring()?;
            }
            Mode::Ring => self.turn_ring()?,
            // A worker that stays awake asks again although nothing was found readable: the ring looks at all ports.
            Mode::Direct(_) if !self.reads.iter().any(|reads| reads.ready) => {
                self.mode = Mode::Ring;
                self.reads.iter_mut().for_each(|reads| reads.want = 1);
                self.turn_ring()?;
            }
            Mode::Direct(rounds) => {
                self.flush()?;
                self.turn_direct(rounds);
            }
        }
        Ok(self.received.len())
    }

    fn frame(&mut self, n: usize) -> (IfaceId, &mut [u8], Offload) {
        let Received { iface, slot, len, offload } = self.received[n];
        (iface, &mut self.arena.slot(slot)[HEADROOM..HEADROOM + len], offload)
    }

    fn forward(&mut self, n: usize, to: IfaceId, len: usize, offload: Offload) {
        let slot = self.received[n].slot;
        if self.mode == Mode::Ring || self.queued > 0 {
            self.write(slot, to, len, offload);
        } else if self.ports[to.index()].send(self.arena.slot(slot), len, offload).is_err() {
            self.lost[to.index()] += 1;
        }
    }

    fn emit(&mut self, to: IfaceId, frame: &[u8], offload: Offload) {
        if frame.len() > SLOT_LEN - HEADROOM {
            self.lost[to.index()] += 1;
            return;
        }
        if self.spares == SPARE && self.flush().is_err() {
            self.lost[to.index()] += 1;
            return;
        }
        let slot = self.reads.len() * self.batch + self.spares;
        self.spares += 1;
        self.arena.slot(slot)[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        self.write(slot, to, frame.len(), offload);
    }

    fn has_queued(&self) -> bool {
        self.queued > 0
    }

    fn lost(&mut self, tell: &mut dyn FnMut(IfaceId, u64)) {
        tell_lost(&mut self.lost, tell);
    }

    fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
        self.flush()?;
        let ifaces: Vec<IfaceId> = self.reads.iter().filter(|r| !r.gone).map(|r| r.iface).collect();
        let all = &mut self.reads;
        let any = wait_for_frames(&self.ports, &ifaces, wake, timeout, |iface, readiness| {
            if let Some(reads) = all.iter_mut().find(|r| r.iface == iface) {
                reads.ready = readiness == Readiness::Readable;
                reads.gone = readiness == Readiness::Gone;
            }
        })?;
        self.mode = Mode::Direct(0);
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory;

    const SOON: Duration = Duration::from_secs(10);

    /// A ring between two ports in memory, or nothing where io_uring is forbidden.
    fn ring() -> Option<(RingBurst, [memory::FarEnd; 2])> {
        let ((a, far_a), (b, far_b)) = (memory::port("a").unwrap(), memory::port("b").unwrap());
        let ports: Vec<Box<dyn Port>> = vec![Box::new(a), Box::new(b)];
        match RingBurst::new(ports.into(), &[IfaceId(0), IfaceId(1)]) {
            Ok(burst) => Some((burst, [far_a, far_b])),
            Err(error) => {
                assert!(
                    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
                        || error.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error()),
                    "{error}"
                );
                None
            }
        }
    }

    /// Takes turns until `frames` have crossed from the first port to the second.
    fn carry(burst: &mut RingBurst, mut frames: usize) {
        let never = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        while frames > 0 {
            let n = burst.turn().unwrap();
            for i in 0..n {
                let (_, frame, offload) = burst.frame(i);
                let len = frame.len();
                burst.forward(i, IfaceId(1), len, offload);
            }
            frames -= n;
            if n == 0 {
                assert!(burst.wait(std::os::fd::AsFd::as_fd(&never), Some(SOON)).unwrap(), "frames wait");
            }
        }
        burst.turn().unwrap();
    }

    #[test]
    fn frames_cross_in_order_whether_alone_or_many() {
        let Some((mut burst, [left, right])) = ring() else { return };
        for (round, count) in [1, 8, 1, 1, 5, 10].into_iter().enumerate() {
            let frame = |n: usize| vec![round as u8, n as u8, 7];
            for n in 0..count {
                left.send(&frame(n)).unwrap();
            }
            carry(&mut burst, count);
            for n in 0..count {
                assert_eq!(right.recv(SOON).unwrap(), Some(frame(n)), "round {round}");
            }
        }
    }

    #[test]
    fn who_stays_awake_sees_frames_on_all_ports() {
        let Some((mut burst, [left, right])) = ring() else { return };
        left.send(&[0]).unwrap();
        carry(&mut burst, 1);
        let never = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        burst.wait(std::os::fd::AsFd::as_fd(&never), Some(Duration::ZERO)).unwrap();
        for far in [&left, &right, &left] {
            far.send(&[1]).unwrap();
            assert_eq!(burst.turn().unwrap(), 1, "without a wait");
        }
    }

    #[test]
    fn what_the_router_writes_leaves_in_order_even_if_there_is_much_of_it() {
        let Some((mut burst, [_left, right])) = ring() else { return };
        burst.turn().unwrap();
        let reader = std::thread::spawn(move || {
            (0..3 * SPARE).map(|_| right.recv(SOON).unwrap().unwrap()[0]).collect::<Vec<u8>>()
        });
        for n in 0..3 * SPARE {
            burst.emit(IfaceId(1), &[n as u8, 1, 2], Offload::NONE);
            if n % 4 == 3 {
                // A socket in memory holds few datagrams: let the reader follow.
                burst.turn().unwrap();
                std::thread::yield_now();
            }
        }
        burst.turn().unwrap();
        let mut lost = 0;
        burst.lost(&mut |_, n| lost += n);
        if lost == 0 {
            assert_eq!(reader.join().unwrap(), (0..3 * SPARE).map(|n| n as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_write_that_fails_is_counted() {
        let Some((mut burst, [left, right])) = ring() else { return };
        drop(right);
        left.send(&[1, 2, 3]).unwrap();
        carry(&mut burst, 1);
        let mut lost = Vec::new();
        burst.lost(&mut |iface, n| lost.push((iface, n)));
        assert_eq!(lost, [(IfaceId(1), 1)]);
    }
}
