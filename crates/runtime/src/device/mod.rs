//! Where frames come from and go to: TAP devices, and ports in memory.
//!
//! A [`Port`] carries single frames. A [`Burst`] moves many at once between the ports of one worker and its slots,
//! and is what the forwarding loop drives. Unsafe code lives in this folder alone: ioctls, and buffers that the
//! kernel writes to.

use serde::{Deserialize, Serialize};
use stateway_core::iface::IfaceId;
use stateway_core::packet::Offload;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub mod allocator;
mod arena;
#[cfg(test)]
pub(crate) mod faulty;
pub mod inherited;
pub mod link;
pub mod memory;
pub mod offload;
pub mod poll;
mod retry;
pub mod ring;
pub mod segment;
pub mod tap;

pub use arena::{HEADROOM, SLOT_LEN};

/// One port: it takes and gives single frames, without ever waiting.
pub trait Port: AsFd + fmt::Debug + Send + Sync {
    /// What `-i` and `-o` match, whatever becomes of the interface.
    fn name(&self) -> &str;

    /// How it is done, for people.
    fn kind(&self) -> Kind;

    /// Whether a frame may leave here with work left to do: a partial checksum, a super-frame.
    fn takes_offload(&self) -> bool {
        false
    }

    /// How its interface stands now.
    fn link(&self) -> Link {
        poll::link(self.as_fd())
    }

    /// Takes the interface behind `by` for its own from now on, under the descriptor that it has.
    ///
    /// # Errors
    /// With the kernel's reason; not every port can.
    fn replace(&self, _by: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads one frame to `slot[HEADROOM..]`; what stands before it is the port's own.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if none waits.
    fn recv(&self, slot: &mut [u8]) -> io::Result<(usize, Offload)>;

    /// Sends the `len` bytes at `slot[HEADROOM..]`; what stands before them is the port's own.
    ///
    /// # Errors
    /// The frame is lost: the interface is down, or its queue is full.
    fn send(&self, slot: &mut [u8], len: usize, offload: Offload) -> io::Result<()>;
}

/// How the interface of a port stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Up,
    /// It exists, and carries nothing.
    Down,
    /// It was deleted.
    Gone,
}

impl Link {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Gone => "gone",
        }
    }
}

/// How a port is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// One read, one frame.
    Tap,
    /// TAP with virtio header.
    Offload,
    Memory,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Offload => "fast",
            Self::Memory => "memory",
        }
    }
}

/// Makes the TAP `name` in the current network namespace, or attaches to it; the descriptor alone, so that it can be
/// passed to another process.
///
/// # Errors
/// With the kernel's reason; there is no memory port of a name.
pub fn open_fd(name: &str, kind: Kind) -> io::Result<OwnedFd> {
    match kind {
        Kind::Tap => tap::open_fd(name),
        Kind::Offload => offload::open_fd(name),
        Kind::Memory => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The port on a descriptor from [`open_fd`].
///
/// # Panics
/// If `kind` is [`Kind::Memory`], which [`open_fd`] never opens.
pub fn port_on(name: &str, kind: Kind, fd: OwnedFd) -> Box<dyn Port> {
    match kind {
        Kind::Tap => Box::new(tap::TapPort::from_fd(name, fd)),
        Kind::Offload => Box::new(offload::OffloadPort::from_fd(name, fd)),
        Kind::Memory => panic!("a port in memory has no descriptor of its own"),
    }
}

/// Moves frames in bursts between the ports of one worker and its slots.
///
/// A round: [`Burst::turn`] sends what was queued and reads what waits; the worker looks at each frame of it and
/// queues what is to be sent. Frames leave in the order in which they were queued.
pub trait Burst {
    /// How frames are moved, for people.
    fn describe(&self) -> &'static str;

    /// Sends what was queued, then reads what waits. Says how many frames came.
    ///
    /// # Errors
    /// The worker cannot go on. Errors of a single frame are counted, see [`Burst::lost`].
    fn turn(&mut self) -> io::Result<usize>;

    /// The `n`th frame of the last turn.
    fn frame(&mut self, n: usize) -> (IfaceId, &mut [u8], Offload);

    /// Queues the `n`th frame of the last turn, as it now stands. Once per turn and frame.
    fn forward(&mut self, n: usize, to: IfaceId, len: usize, offload: Offload);

    /// Queues a frame that did not come in with the last turn.
    fn emit(&mut self, to: IfaceId, frame: &[u8], offload: Offload);

    /// Whether anything is queued.
    fn has_queued(&self) -> bool;

    /// System calls that failed for the moment and were made again, since the last call.
    fn take_retries(&mut self) -> u64;

    /// Whether a port of this worker lost its interface since the last call. It is not read any more.
    fn take_gone(&mut self) -> bool;

    /// A port has another interface, see [`Port::replace`]: it is read and written again.
    ///
    /// # Errors
    /// The worker cannot use it.
    fn is_back(&mut self, iface: IfaceId) -> io::Result<()>;

    /// Frames that could not be sent since the last call, as `(port, how many)`.
    fn lost(&mut self, tell: &mut dyn FnMut(IfaceId, u64));

    /// Sleeps until a frame waits, `wake` is readable, or the time is over. Says whether a frame waits.
    ///
    /// # Errors
    /// The worker cannot go on.
    fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool>;
}
