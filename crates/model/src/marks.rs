//! The mark of a packet, which rules set on its way: a set of packets for each bit.

#![forbid(unsafe_code)]

use crate::space::{Field, Made, Set, Space};

/// For each bit the packets that have it set.
#[derive(Clone, Debug)]
pub(crate) struct Marks(Vec<Set>);

impl Marks {
    /// Every packet comes without a mark.
    pub(crate) fn none(space: &Space) -> Self {
        Self(vec![space.empty(); 32])
    }

    /// Of the bits in `mask` exactly those in `value` are set.
    pub(crate) fn masked(&self, space: &Space, value: u32, mask: u32) -> Made<Set> {
        if value & !mask != 0 {
            return Ok(space.empty());
        }
        let mut set = space.full();
        for (bit, of) in self.0.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1) {
            set = if value >> bit & 1 == 1 { set.and(of)? } else { set.without(of)? };
        }
        Ok(set)
    }

    /// For the packets in `set`: clears the bits of `mask`, then turns over those of `value`.
    pub(crate) fn change(&mut self, set: &Set, value: u32, mask: u32) -> Made<()> {
        for (bit, of) in self.0.iter_mut().enumerate() {
            let (clears, turns) = (mask >> bit & 1 == 1, value >> bit & 1 == 1);
            *of = match (clears, turns) {
                (false, false) => continue,
                (true, false) => of.without(set)?,
                (true, true) => of.or(set)?,
                (false, true) => of.xor(set)?,
            };
        }
        Ok(())
    }

    /// For the packets in `set`: any mark, as that of a connection is.
    pub(crate) fn restore(&mut self, space: &Space, set: &Set) -> Made<()> {
        for (bit, of) in self.0.iter_mut().enumerate() {
            *of = set.choose(&space.bit(Field::Connmark, bit as u32), of)?;
        }
        Ok(())
    }
}
