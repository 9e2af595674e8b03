//! Sequence numbers behind a payload whose length was changed.
//!
//! As Linux does it only the latest change is remembered, with the shift in front of it and the one behind: what lies
//! before an earlier change is shifted too far.

#![forbid(unsafe_code)]

use crate::packet::Seq;
use crate::packet::checksum::adjust_bytes;
use serde::{Deserialize, Serialize};

const TCP_HEADER_LEN: usize = 20;
const CHECKSUM: usize = 16;
const ACK: u8 = 0x10;

/// How one direction's numbers are shifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// The number of the latest segment that became longer or shorter.
    position: u32,
    before: i32,
    after: i32,
}

impl Shift {
    /// The segment at `seq` became longer by so many bytes.
    pub fn change(&mut self, seq: Seq, longer: i32) {
        if self.before == self.after || Seq(self.position).is_before(seq) {
            self.position = seq.0;
            self.before = self.after;
            self.after = self.after.wrapping_add(longer);
        }
    }

    /// By how much what its sender calls `seq` is shifted.
    pub fn at(&self, seq: Seq) -> u32 {
        let shift = if seq.is_after(Seq(self.position)) { self.after } else { self.before };
        shift as u32
    }

    /// By how much an acknowledgement from the other side is to be put back.
    fn of_answer(&self, ack: Seq) -> u32 {
        self.at(ack - self.before as u32)
    }
}

/// Shifts a segment: `own` is its direction's shift, `other` that of what it acknowledges. The checksum follows unless
/// it is `partial`, and so covers nothing of this yet.
///
/// Whatever `l4` is, it is taken for a segment. `false`: its header goes on beyond the packet, or an option beyond its header:
/// Linux drops such a packet.
pub fn shift_segment(l4: &mut [u8], own: &Shift, other: &Shift, partial: bool) -> bool {
    if l4.len() < TCP_HEADER_LEN {
        return false;
    }
    shift_word(l4, 4, partial, |seq| seq + own.at(seq));
    if l4[13] & ACK == 0 {
        return true;
    }
    shift_word(l4, 8, partial, |ack| ack - other.of_answer(ack));
    shift_sack(l4, other, partial)
}

fn shift_sack(l4: &mut [u8], other: &Shift, partial: bool) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const SACK: u8 = 5;
    let end = usize::from(l4[12] >> 4) * 4;
    if end > l4.len() {
        return false;
    }
    let mut at = TCP_HEADER_LEN;
    while at < end {
        match l4[at] {
            END => return true,
            NOP => at += 1,
            kind => {
                let len = l4.get(at + 1).map_or(0, |&len| usize::from(len));
                if at + 1 >= end || len < 2 || at + len > end {
                    return false;
                }
                if kind == SACK && len >= 10 && (len - 2).is_multiple_of(8) {
                    for edge in (at + 2..at + len).step_by(4) {
                        shift_word(l4, edge, partial, |seq| seq - other.of_answer(seq));
                    }
                }
                at += len;
            }
        }
    }
    true
}

fn shift_word(l4: &mut [u8], at: usize, partial: bool, shift: impl FnOnce(Seq) -> Seq) {
    let old: [u8; 4] = core::array::from_fn(|n| l4[at + n]);
    let new = shift(Seq(u32::from_be_bytes(old))).0.to_be_bytes();
    l4[at..at + 4].copy_from_slice(&new);
    if !partial {
        let checksum = u16::from_be_bytes([l4[CHECKSUM], l4[CHECKSUM + 1]]);
        // A word at an odd place has its bytes in two words of the sum.
        let adjusted = if at.is_multiple_of(2) {
            adjust_bytes(checksum, &old, &new)
        } else {
            let wide = |word: [u8; 4]| [0, word[0], word[1], word[2], word[3], 0];
            adjust_bytes(checksum, &wide(old), &wide(new))
        };
        l4[CHECKSUM..CHECKSUM + 2].copy_from_slice(&adjusted.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment that grew by 3 at 1000, and another one by 2 at 1100.
    fn twice() -> Shift {
        let mut shift = Shift::default();
        shift.change(Seq(1000), 3);
        shift.change(Seq(1100), 2);
        shift
    }

    #[test]
    fn only_the_latest_change_is_remembered() {
        let shift = twice();
        assert_eq!([900, 1000, 1001, 1100, 1101].map(|seq| shift.at(Seq(seq))), [3, 3, 3, 3, 5]);
        let mut again = shift;
        again.change(Seq(1000), 3);
        assert_eq!(again, shift, "the first one comes again");
    }

    #[test]
    fn an_acknowledgement_and_its_blocks_are_put_back_each_on_its_own() {
        let mut l4 = vec![0; 32];
        l4[8..12].copy_from_slice(&1103_u32.to_be_bytes());
        (l4[12], l4[13]) = (0x80, ACK);
        l4[20..24].copy_from_slice(&[1, 1, 5, 10]);
        l4[24..28].copy_from_slice(&1103_u32.to_be_bytes());
        l4[28..32].copy_from_slice(&1110_u32.to_be_bytes());
        assert!(shift_segment(&mut l4, &Shift::default(), &twice(), true));
        let word = |at: usize| u32::from_be_bytes(core::array::from_fn(|n| l4[at + n]));
        assert_eq!([word(8), word(24), word(28)], [1100, 1100, 1105]);
        l4[12] = 0x90;
        assert!(!shift_segment(&mut l4, &Shift::default(), &twice(), true), "it ends in its header");
        l4[12] = 0x80;
        for option in [[8, 0], [8, 1], [8, 11]] {
            l4[22..24].copy_from_slice(&option);
            assert!(!shift_segment(&mut l4, &Shift::default(), &twice(), true), "{option:?} does not fit");
        }
    }
}
