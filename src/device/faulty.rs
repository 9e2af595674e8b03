//! Ports that fail, for tests.

use super::{Kind, Port, memory};
use crate::packet::Offload;
use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A port in memory that does something else when it is read.
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
        }
        Ok(read)
    }

    fn send(&self, slot: &mut [u8], len: usize, offload: Offload) -> io::Result<()> {
        self.port.send(slot, len, offload)
    }
}
