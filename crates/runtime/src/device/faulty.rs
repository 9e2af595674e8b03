//! Ports that fail, for tests.

use super::{Kind, Port, memory};
use crossbeam_channel::{Receiver, Sender};
use rustix::io::Errno;
use stateway_core::packet::Offload;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

/// A port in memory that does something else when it is read or written.
#[derive(Debug)]
pub(crate) struct FaultyPort {
    pub(crate) port: memory::MemoryPort,
    pub(crate) fault: Fault,
}

#[derive(Debug)]
pub(crate) enum Fault {
    Panics,
    /// Says that it is being read, and then waits for a word.
    Hangs(Sender<()>, Receiver<()>),
    /// Takes no frame until these are used up, the last one first.
    Refuses(Mutex<Vec<Errno>>),
}

impl AsFd for FaultyPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl Port for FaultyPort {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn recv(&self, slot: &mut [u8]) -> io::Result<(usize, Offload)> {
        let read = self.port.recv(slot)?;
        match &self.fault {
            Fault::Panics => panic!("a fault that was injected"),
            Fault::Hangs(hangs, word) => {
                hangs.send(()).unwrap();
                word.recv().unwrap();
            }
            Fault::Refuses(_) => {}
        }
        Ok(read)
    }

    fn send(&self, slot: &mut [u8], len: usize, offload: Offload) -> io::Result<()> {
        if let Fault::Refuses(errors) = &self.fault
            && let Some(errno) = errors.lock().unwrap().pop()
        {
            return Err(errno.into());
        }
        self.port.send(slot, len, offload)
    }
}
