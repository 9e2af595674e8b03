//! Bursts through io_uring: one system call sends all that is queued and reads whatever waits on all ports.
//!
//! A turn submits the queued writes and then a number of reads for each port. All of them are done within the call,
//! since they are asked not to wait; how many reads a port gets follows how many frames its last turn had. When
//! nothing waits anywhere the worker sleeps in poll(2), and what wakes it is read and written directly: for a lone
//! frame that is the shortest way.
//!
//! The kernel may take fewer entries than were queued, or none while memory is short. What it did not take stays in
//! the queue, in its order, and keeps its slot; until all is taken, no further frame is read.

#![allow(unsafe_code, reason = "the ring is given pointers to the slots")]

use super::arena::Arena;
use super::offload::{read_header, write_header};
use super::poll::{Readiness, tell_lost, wait_for_frames};
use super::retry::{Backoff, is_gone, is_transient};
use super::{Burst, HEADROOM, Port, SLOT_LEN};
use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use stateway_core::iface::IfaceId;
use stateway_core::packet::Offload;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// The most frames read from one port in a turn.
const BATCH: usize = 64;
/// All slots for frames that come in: with many ports, each has a smaller share.
const MAX_SLOTS: usize = 4096;
/// Slots for frames that the router writes itself; when they are full, what is queued is sent at once.
const SPARE: usize = 64;
/// How often in a row the kernel is offered what it does not take, before it is left alone for a while.
const ATTEMPTS: usize = 8;
/// Reads that a port gets when it was just found readable.
const FIRST_READS: usize = 4;
/// `preadv2(2)`, `pwritev2(2)`: fail rather than wait.
const RWF_NOWAIT: i32 = 8;
/// Marks the completion of a write; only those that failed complete.
const WRITE: u64 = 1 << 32;

/// Reads and writes through one ring, which belongs to one worker's thread.
pub struct RingBurst {
    ring: IoUring,
    ports: Arc<[Box<dyn Port>]>,
    /// What each port answered when it was asked, once for all, whether it takes offloads.
    takes_offload: Vec<bool>,
    reads: Vec<Reads>,
    /// `batch` slots for each of `reads`, then the spare ones.
    arena: Arena,
    batch: usize,
    received: Vec<Received>,
    /// Writes that are in the submission queue.
    queued: usize,
    /// Reads that were asked of the kernel and have not completed.
    asked: usize,
    spares: usize,
    mode: Mode,
    lost: Vec<u64>,
    /// A port lost its interface since somebody asked.
    found_gone: bool,
    backoff: Backoff,
    /// What the next calls are to come to instead; then the kernel is asked again.
    #[cfg(test)]
    faults: std::collections::VecDeque<Fault>,
}

/// A call of `io_uring_enter(2)` that does not go well.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
enum Fault {
    Fails(Errno),
    /// The kernel takes so many entries, and says so.
    Takes(usize),
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
    /// This kernel has no io_uring, forbids it, or has an old one; or a port is neither a TAP nor a socket.
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
        // Borrowed until the kernel has them: what was looked at is what is registered.
        let fds: Vec<BorrowedFd<'_>> = ports.iter().map(|port| port.as_fd()).collect();
        fds.iter().try_for_each(|fd| never_waits(*fd))?;
        if !fds.is_empty() {
            let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&raw)?;
        }
        let takes_offload = ports.iter().map(|port| port.takes_offload()).collect();
        restrict(&ring)?;
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
            takes_offload,
            reads: reads.collect(),
            arena: Arena::new(slots + SPARE),
            batch,
            received: Vec::with_capacity(slots),
            queued: 0,
            asked: 0,
            spares: 0,
            mode: Mode::New,
            lost,
            found_gone: false,
            backoff: Backoff::default(),
            #[cfg(test)]
            faults: std::collections::VecDeque::new(),
        })
    }

    /// What was queued leaves; says whether all of it did, so that no slot is in use any more.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.has_queued() {
            return Ok(true);
        }
        let all = self.submit()?;
        if self.asked == 0 {
            // Only of writes that failed.
            self.gather();
        }
        Ok(all)
    }

    /// Hands the submission queue to the kernel, which does all that it takes before it returns. Says whether it took
    /// everything.
    fn submit(&mut self) -> io::Result<bool> {
        for _ in 0..ATTEMPTS {
            match self.enter() {
                Ok(_) => {}
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
            if self.ring.submission().is_empty() {
                self.queued = 0;
                self.spares = 0;
                self.backoff.went_well();
                return Ok(true);
            }
            self.backoff.count();
        }
        self.backoff.pause();
        Ok(false)
    }

    /// `io_uring_enter(2)`, once.
    fn enter(&mut self) -> io::Result<usize> {
        #[cfg(test)]
        match self.faults.pop_front() {
            None => {}
            Some(Fault::Fails(errno)) => return Err(errno.into()),
            Some(Fault::Takes(count)) => {
                self.ring.submission().sync();
                // SAFETY: so many entries are in the queue, and what holds of all of them holds of the first.
                return unsafe { self.ring.submitter().enter::<()>(count as u32, 0, 0, None) };
            }
        }
        self.ring.submit_and_wait(self.asked)
    }

    /// Puts an entry into the submission queue, if there is room.
    fn push(&mut self, entry: &Entry) -> bool {
        // SAFETY: the entry points into a slot of the arena, which lives as long as the ring. The kernel touches it
        // only within `enter`, during which nobody else can, since it takes `self` exclusively. After that it is done
        // with all that it took: reads and writes alike are asked not to wait (RWF_NOWAIT), so that each completes at
        // once or fails, whether or not its file has O_NONBLOCK; and what could go on behind that, direct I/O to a
        // disk, is no TAP and no socket (see `never_waits`).
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Queues the write of a slot.
    fn write(&mut self, slot: usize, to: IfaceId, len: usize, offload: Offload) {
        let bytes = self.arena.slot(slot);
        let start = if self.takes_offload[to.index()] {
            write_header(bytes, offload);
            0
        } else {
            HEADROOM
        };
        let entry = bytes.get(start..HEADROOM + len).map(|frame| {
            opcode::Write::new(types::Fixed(to.0.into()), frame.as_ptr(), frame.len() as u32)
                .offset(u64::MAX)
                .rw_flags(RWF_NOWAIT)
                .build()
                .flags(Flags::SKIP_SUCCESS)
                .user_data(WRITE | u64::from(to.0))
        });
        if entry.is_some_and(|entry| self.push(&entry)) {
            self.queued += 1;
        } else {
            self.lost[to.index()] += 1;
        }
    }

    /// Submits what is queued and the reads of a turn, and gathers what came.
    fn turn_ring(&mut self) -> io::Result<()> {
        // Otherwise the kernel did not take all of the last turn: that one goes on.
        if self.asked == 0 {
            self.ask();
        }
        self.submit()?;
        self.gather();
        if self.asked == 0 {
            for reads in &mut self.reads {
                // Twice as many while they come in full, else one more than there were.
                reads.want =
                    if reads.got == reads.want { 2 * reads.want } else { reads.got + 1 }.min(self.batch);
            }
        }
        Ok(())
    }

    /// Queues the reads of a turn.
    fn ask(&mut self) {
        for index in 0..self.reads.len() {
            let Reads { iface, want, gone, .. } = self.reads[index];
            if gone {
                continue;
            }
            let start = if self.takes_offload[iface.index()] { 0 } else { HEADROOM };
            self.reads[index].got = 0;
            for slot in index * self.batch..index * self.batch + want {
                let bytes = &mut self.arena.slot(slot)[start..];
                let entry =
                    opcode::Read::new(types::Fixed(iface.0.into()), bytes.as_mut_ptr(), bytes.len() as u32)
                        .offset(u64::MAX)
                        .rw_flags(RWF_NOWAIT)
                        .build()
                        .user_data(slot as u64);
                let pushed = self.push(&entry);
                assert!(pushed, "the submission queue has room for every slot twice");
                self.asked += 1;
            }
        }
    }

    /// Reads the completions: a frame's place is its slot's, since a later read may find what an earlier one missed.
    fn gather(&mut self) {
        for completion in self.ring.completion() {
            let (data, result) = (completion.user_data(), completion.result());
            if data & WRITE != 0 {
                self.lost[(data & !WRITE) as usize] += 1;
                continue;
            }
            self.asked -= 1;
            let slot = data as usize;
            let reads = &mut self.reads[slot / self.batch];
            let iface = reads.iface;
            let header = if self.takes_offload[iface.index()] { HEADROOM } else { 0 };
            if result == -Errno::BADFD.raw_os_error() {
                reads.gone = true;
                self.found_gone = true;
            }
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
                Ok(_) => self.reads[index].ready = false,
                Err(error) => {
                    self.reads[index].ready = false;
                    self.reads[index].gone = is_gone(&error);
                    self.found_gone |= is_gone(&error);
                    self.backoff.look_at(&error);
                }
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

/// Whether a file is of a kind whose reads and writes are over when they return, if they are asked not to wait.
fn never_waits(fd: BorrowedFd<'_>) -> io::Result<()> {
    match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        FileType::CharacterDevice | FileType::Socket => Ok(()),
        other => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("io_uring moves the frames of TAPs and sockets, not of {other:?}"),
        )),
    }
}

impl Drop for RingBurst {
    fn drop(&mut self) {
        // The kernel takes a ring apart some time after it was closed. Without this its hold on the files, and so the
        // interfaces, would outlive us for that long, and whoever runs a router again would find them busy.
        let _ = self.ring.submitter().unregister_files();
    }
}

/// Lets the ring read and write the files that are registered with it, and nothing else: what it is told passes by
/// every filter of system calls, so whoever got hold of a worker could have it open files and sockets.
fn restrict(ring: &IoUring) -> io::Result<()> {
    // `IORING_UNREGISTER_FILES`, `IORING_REGISTER_FILES_UPDATE`, `IORING_REGISTER_ENABLE_RINGS`
    let register = [3, 6, 12].map(Restriction::register_op);
    let submit = [opcode::Read::CODE, opcode::Write::CODE].map(Restriction::sqe_op);
    let flags = [
        Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()),
        Restriction::sqe_flags_allowed(Flags::SKIP_SUCCESS.bits()),
    ];
    let mut all: Vec<Restriction> = register.into_iter().chain(submit).chain(flags).collect();
    ring.submitter().register_restrictions(&mut all)
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
                if self.flush()? {
                    self.turn_direct(rounds);
                }
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
        } else {
            let port = &*self.ports[to.index()];
            if !self.backoff.send(port, self.arena.slot(slot), len, offload) {
                self.lost[to.index()] += 1;
            }
        }
    }

    fn emit(&mut self, to: IfaceId, frame: &[u8], offload: Offload) {
        if frame.len() > SLOT_LEN - HEADROOM {
            self.lost[to.index()] += 1;
            return;
        }
        // Where that fails for good, the next turn says so.
        if self.spares == SPARE && !self.flush().unwrap_or(false) {
            self.lost[to.index()] += 1;
            return;
        }
        let slot = self.reads.len() * self.batch + self.spares;
        self.spares += 1;
        self.arena.slot(slot)[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        self.write(slot, to, frame.len(), offload);
    }

    fn has_queued(&self) -> bool {
        self.queued > 0 || self.asked > 0
    }

    fn take_retries(&mut self) -> u64 {
        self.backoff.take_retries()
    }

    fn take_gone(&mut self) -> bool {
        core::mem::take(&mut self.found_gone)
    }

    fn is_back(&mut self, iface: IfaceId) -> io::Result<()> {
        let fd = self.ports[iface.index()].as_fd();
        never_waits(fd)?;
        self.ring.submitter().register_files_update(iface.0.into(), &[fd.as_raw_fd()])?;
        if let Some(reads) = self.reads.iter_mut().find(|reads| reads.iface == iface) {
            reads.gone = false;
        }
        Ok(())
    }

    fn lost(&mut self, tell: &mut dyn FnMut(IfaceId, u64)) {
        tell_lost(&mut self.lost, tell);
    }

    fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
        if !self.flush()? || self.asked > 0 {
            return Ok(true);
        }
        let ifaces: Vec<IfaceId> = self.reads.iter().filter(|r| !r.gone).map(|r| r.iface).collect();
        let (all, found_gone) = (&mut self.reads, &mut self.found_gone);
        let any = wait_for_frames(&self.ports, &ifaces, wake, timeout, |iface, readiness| {
            if let Some(reads) = all.iter_mut().find(|r| r.iface == iface) {
                reads.ready = readiness == Readiness::Readable;
                reads.gone = readiness == Readiness::Gone;
                *found_gone |= reads.gone;
            }
        });
        self.mode = Mode::Direct(0);
        self.backoff.slept(any)
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
                        || error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()),
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

    /// Faults in an order of chance, sometimes so many in a row that a turn gives up.
    fn faults(rng: &mut fastrand::Rng) -> Vec<Fault> {
        let fault = |rng: &mut fastrand::Rng| match rng.u8(..7) {
            0 => Fault::Fails(Errno::AGAIN),
            1 => Fault::Fails(Errno::BUSY),
            2 => Fault::Fails(Errno::INTR),
            3 => Fault::Fails(Errno::NOMEM),
            4 => Fault::Takes(0),
            5 => Fault::Takes(1),
            _ => Fault::Takes(rng.usize(2..6)),
        };
        let count = rng.usize(..2 * ATTEMPTS);
        std::iter::repeat_with(|| fault(rng)).take(count).collect()
    }

    #[test]
    fn what_the_kernel_does_not_take_at_once_goes_once_in_order_and_to_the_right_port() {
        let Some((mut burst, [left, right])) = ring() else { return };
        let mut rng = fastrand::Rng::with_seed(5);
        let mut retries = 0;
        for round in 0..200_u8 {
            // To the right what came from the left, to the left what the router says itself.
            let count = rng.usize(1..=8);
            for n in 0..count {
                left.send(&[round, n as u8, 1]).unwrap();
            }
            let (mut came, mut said) = (0, 0);
            while came < count || said < count || burst.has_queued() {
                burst.faults.extend(faults(&mut rng));
                let frames = burst.turn().unwrap();
                for n in 0..frames {
                    let len = burst.frame(n).1.len();
                    burst.forward(n, IfaceId(1), len, Offload::NONE);
                }
                came += frames;
                if said < count {
                    burst.emit(IfaceId(0), &[round, said as u8, 2], Offload::NONE);
                    said += 1;
                }
            }
            burst.faults.clear();
            burst.turn().unwrap();
            for n in 0..count {
                assert_eq!(right.recv(SOON).unwrap(), Some(vec![round, n as u8, 1]), "round {round}");
                assert_eq!(left.recv(SOON).unwrap(), Some(vec![round, n as u8, 2]), "round {round}");
            }
            retries += burst.take_retries();
        }
        for far in [&left, &right] {
            assert_eq!(far.recv(Duration::from_millis(1)).unwrap(), None, "nothing went twice");
        }
        burst.lost(&mut |iface, n| panic!("{n} frames lost at {iface:?}"));
        assert!(retries > 1000, "{retries} calls did not go well");
    }

    #[test]
    fn an_error_that_stays_ends_the_worker() {
        let Some((mut burst, _far)) = ring() else { return };
        burst.turn().unwrap();
        burst.faults.push_back(Fault::Fails(Errno::BADF));
        assert_eq!(burst.turn().unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }

    #[test]
    fn a_file_whose_writes_could_go_on_is_no_port_of_a_ring() {
        let (_reader, writer) = io::pipe().unwrap();
        let (a, _far) = memory::port("a").unwrap();
        let ports: Vec<Box<dyn Port>> = vec![Box::new(a), Box::new(PipePort(writer))];
        let error = RingBurst::new(ports.into(), &[IfaceId(0)]).unwrap_err();
        if is_available().is_ok() {
            assert!(error.to_string().contains("TAPs and sockets"), "{error}");
        }
    }

    #[test]
    fn a_port_that_could_wait_is_asked_not_to() {
        if is_available().is_err() {
            return;
        }
        let (near, full) = std::os::unix::net::UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        while near.send(&[0]).is_ok() {}
        // From here on a plain write would wait, and the kernel would read the slot when the far end is read.
        near.set_nonblocking(false).unwrap();
        let ((a, far), ports) = (memory::port("a").unwrap(), near);
        let ports: Vec<Box<dyn Port>> = vec![Box::new(a), Box::new(SocketPort(ports))];
        let mut burst = RingBurst::new(ports.into(), &[IfaceId(0)]).unwrap();
        far.send(b"first").unwrap();
        assert_eq!(burst.turn().unwrap(), 1);
        burst.forward(0, IfaceId(1), 5, Offload::NONE);
        far.send(b"second").unwrap();
        assert_eq!(burst.turn().unwrap(), 1);
        let mut lost = 0;
        burst.lost(&mut |_, n| lost += n);
        assert_eq!(lost, 1, "the write is over, and failed");
        drop(full);
    }

    #[test]
    fn a_frame_longer_than_its_slot_is_lost() {
        let Some((mut burst, [left, _right])) = ring() else { return };
        left.send(&[1, 2, 3]).unwrap();
        assert_eq!(burst.turn().unwrap(), 1);
        burst.forward(0, IfaceId(1), SLOT_LEN, Offload::NONE);
        burst.turn().unwrap();
        let mut lost = 0;
        burst.lost(&mut |_, n| lost += n);
        assert_eq!(lost, 1);
    }

    #[derive(Debug)]
    struct PipePort(io::PipeWriter);

    #[derive(Debug)]
    struct SocketPort(std::os::unix::net::UnixDatagram);

    macro_rules! is_a_port {
        ($port:ty) => {
            impl std::os::fd::AsFd for $port {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.0.as_fd()
                }
            }

            impl Port for $port {
                fn name(&self) -> &str {
                    "odd"
                }

                fn kind(&self) -> super::super::Kind {
                    super::super::Kind::Memory
                }

                fn recv(&self, _: &mut [u8]) -> io::Result<(usize, Offload)> {
                    Err(io::ErrorKind::WouldBlock.into())
                }

                fn send(&self, _: &mut [u8], _: usize, _: Offload) -> io::Result<()> {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            }
        };
    }

    is_a_port!(PipePort);
    is_a_port!(SocketPort);

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

    #[test]
    fn the_ring_does_nothing_but_read_and_write_its_ports() {
        let Some((mut burst, _far)) = ring() else { return };
        burst.turn().unwrap();
        let root = types::Fd(rustix::fs::CWD.as_raw_fd());
        let opens = opcode::OpenAt::new(root, c"/".as_ptr()).build();
        let mut byte = 0_u8;
        let any_file = opcode::Read::new(types::Fd(0), &raw mut byte, 1).build();
        for entry in [opens, opcode::Socket::new(1, 1, 0).build(), any_file] {
            // SAFETY: what the entry points to outlives `submit_and_wait`, and it is refused before anything is read.
            unsafe { burst.ring.submission().push(&entry).unwrap() };
            burst.ring.submit_and_wait(1).unwrap();
            let result = burst.ring.completion().next().unwrap().result();
            assert_eq!(result, -Errno::ACCESS.raw_os_error());
        }
    }
}
