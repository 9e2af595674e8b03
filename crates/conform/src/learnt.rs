//! Where the kernel may choose a port, the router is told what it chose: it has to come to the same by its own rules.

#![forbid(unsafe_code)]

use crate::ctnetlink::KernelExpectation;
use crate::kernel::Answer;
use stateway_core::conntrack::CtState;
use stateway_core::nat::{Picker, Side};
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel's choices of the frame at hand, shared with the router that asks for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Learnt(Arc<Mutex<Choices>>);

#[derive(Debug, Default)]
struct Choices {
    source: Option<u16>,
    destination: Option<u16>,
    /// Ports at which connections are expected.
    announced: Vec<u16>,
}

impl Learnt {
    /// Takes in what the kernel made of a frame.
    pub(super) fn learn(&self, theirs: &Answer, expected: &[KernelExpectation]) {
        let mut choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = theirs.entry.as_ref().and_then(|entry| entry.reply);
        choices.source = reply.map(|reply| if reply.is_icmp() { reply.left } else { reply.right });
        // A connection that is dropped later has no entry, but its packet was seen with the port that was chosen.
        let bound = theirs.bound.map(|bound| if bound.is_icmp() { bound.left } else { bound.right });
        choices.destination = reply.map(|reply| reply.left).or(bound);
        choices.announced.clear();
        if theirs.state == Some(CtState::Established) {
            choices.announced.extend(expected.iter().rev().map(|e| e.tuple.right));
        }
    }
}

impl Picker for Learnt {
    fn pick(&self, side: Side, first: u16, count: u32) -> u16 {
        let mut choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_inside = |port: &u16| u32::from(port.wrapping_sub(first)) < count;
        let chosen = match side {
            Side::Source => choices.source,
            Side::Destination if choices.announced.is_empty() => choices.destination,
            // One of them is new; those that are taken are asked for in vain.
            Side::Destination => {
                choices.announced.rotate_left(1);
                choices.announced.iter().copied().find(is_inside)
            }
        };
        chosen.filter(is_inside).unwrap_or(first)
    }
}
