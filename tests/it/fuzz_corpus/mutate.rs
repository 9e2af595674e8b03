//! Inputs made from others, the same ones each time: bytes changed, left out, said twice, and two inputs joined.

/// No longer than what `scripts/fuzz` makes.
const MAX_LEN: usize = 8192;
/// Numbers at which something may change.
const EDGES: [u8; 8] = [0, 1, 0x10, 0x20, 0x7f, 0x80, 0xfe, 0xff];

#[derive(Debug)]
pub(super) struct Mutator<'a> {
    inputs: &'a [Vec<u8>],
    rng: fastrand::Rng,
}

impl<'a> Mutator<'a> {
    pub(super) fn new(target: &str, inputs: &'a [Vec<u8>]) -> Self {
        let seed = target.bytes().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(byte));
        Self { inputs, rng: fastrand::Rng::with_seed(seed) }
    }

    /// The next input.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut input = self.pick().to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(MAX_LEN);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        let most = 1 << self.below(7);
        let len = self.below(most).min(input.len() - at);
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = EDGES[self.below(EDGES.len())],
            2 if at < input.len() => input[at] = self.rng.u8(..),
            3 => drop(input.drain(at..at + len)),
            4 => input.extend_from_within(at..at + len),
            5 => {
                let piece = input[at..at + len].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, piece);
            }
            6 => {
                let other = self.pick();
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at + len),
        }
    }

    fn pick(&mut self) -> &'a [u8] {
        &self.inputs[self.below(self.inputs.len())]
    }

    /// A number below `most`, or 0.
    fn below(&mut self, most: usize) -> usize {
        self.rng.usize(..most.max(1))
    }
}
