//! Where the kernel may choose a port, the router is told what it chose: it has to come to the same by its own rules.

#![forbid(unsafe_code)]

use crate::compare::Mismatch;
use crate::ctnetlink::KernelExpectation;
use crate::kernel::Answer;
use stateway_core::conntrack::CtState;
use stateway_core::nat::{How, Picker, Range, Side};
use stateway_core::record::Translated;
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

/// A choice that the router left to chance where the kernel leaves nothing to it. Told what the kernel has, it would come to
/// the same.
pub(super) fn chance_in_vain(translated: &Translated, range: &Range) -> Option<Mismatch> {
    // So many ports are tried in order before chance has its turn.
    const IN_ORDER: u32 = 128;
    let (from, to) = (translated.from, translated.choice.tuple);
    if translated.choice.how != How::Drawn || range.is_random() {
        return None;
    }
    let is_known = match translated.side {
        // Its own port would have been kept.
        Side::Source => from.left == to.left,
        Side::Destination => {
            let ports = range.ports.map(|(first, last)| u32::from(last.abs_diff(first)) + 1);
            ports.is_some_and(|count| count <= IN_ORDER)
        }
    };
    let kernel = "takes the first that is free".to_owned();
    let ours = format!("draws a {}: {from:?} becomes {to:?}", translated.side.word());
    is_known.then_some(Mismatch { aspect: "chance", kernel, ours })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateway_core::nat::Choice;
    use stateway_core::packet::{Addr, Family, Tuple};

    fn drawn(side: Side, ports: (u16, u16), range: Range) -> bool {
        let host = |n| Addr::from_v4([192, 0, 2, n]);
        let (left, right) = (5000, 53);
        let from =
            Tuple { src: host(1), dst: host(2), left, right, zone: 0, proto: 17, family: Family::Ipv4 };
        let choice = Choice { tuple: Tuple { left: ports.0, right: ports.1, ..from }, how: How::Drawn };
        chance_in_vain(&Translated { side, by: None, from, choice }, &range).is_some()
    }

    #[test]
    fn chance_is_a_difference_where_the_kernel_leaves_nothing_to_it() {
        let range = |first, last| Range { ports: Some((first, last)), ..Range::default() };
        assert!(drawn(Side::Destination, (5000, 3001), range(3000, 3003)));
        assert!(!drawn(Side::Destination, (5000, 3001), Range { random: true, ..range(3000, 3003) }));
        assert!(!drawn(Side::Destination, (5000, 3001), range(3000, 3128)), "chance comes after 128");
        assert!(drawn(Side::Source, (5000, 53), Range::default()), "its own port");
        assert!(!drawn(Side::Source, (2000, 53), Range::default()));
    }
}
