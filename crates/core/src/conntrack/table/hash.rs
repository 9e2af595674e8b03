//! Where a flow falls: one number for a tuple and for its reply, seeded, and found with few multiplications.
//!
//! The two ends of a flow are put in order, so that both directions hash the same words. What mixes them is the folded
//! product of foldhash and wyhash: both halves of a 128-bit product, under a secret that comes from outside.

#![forbid(unsafe_code)]

use crate::packet::{Family, Tuple};

/// The secret of one table.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::conntrack) struct Seed([u64; 2]);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Seed {
    /// Spreads one number over as many as are needed (Steele et al., `SplitMix`, 2014).
    pub(in crate::conntrack) const fn new(seed: u64) -> Self {
        Self([scatter(seed.wrapping_add(STEP)), scatter(seed.wrapping_add(STEP.wrapping_mul(2)))])
    }

    #[inline]
    pub(in crate::conntrack) fn hash(&self, tuple: &Tuple) -> u64 {
        let Self([first, second]) = *self;
        // An ICMP query and its answer have the identifier in common; of GRE and the rest, left and right change places.
        let (left, right) = (tuple.left, if tuple.is_icmp() { tuple.left } else { tuple.right });
        let (zone, proto) = (u64::from(tuple.zone) << 48, u64::from(tuple.proto) << 48);
        match tuple.family {
            Family::Ipv4 => {
                let end =
                    |addr: [u8; 4], port: u16| u64::from(u32::from_be_bytes(addr)) << 16 | u64::from(port);
                let (a, b) = (end(tuple.src.v4(), left), end(tuple.dst.v4(), right));
                fold(a.min(b) ^ zone ^ first, a.max(b) ^ proto ^ second)
            }
            Family::Ipv6 => {
                let (a, b) = ((tuple.src.bits(), left), (tuple.dst.bits(), right));
                let ((low, low_port), (high, high_port)) = if a <= b { (a, b) } else { (b, a) };
                let half = |addr: u128| fold(addr as u64 ^ first, (addr >> 64) as u64 ^ second);
                let (low, high) = (half(low).rotate_left(32), half(high));
                fold(low ^ u64::from(low_port) ^ zone ^ first, high ^ u64::from(high_port) ^ proto ^ second)
            }
        }
    }

    /// A number of 32 bits for the flow of `tuple` that began at a time.
    pub(in crate::conntrack) fn number(&self, tuple: &Tuple, began_at: u64) -> u32 {
        (scatter(self.hash(tuple) ^ began_at.wrapping_mul(STEP)) >> 32) as u32
    }
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

const fn scatter(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Addr;
    use crate::packet::tuple::{PROTO_ICMP, PROTO_TCP, PROTO_UDP};

    fn tuple(family: Family, proto: u8, client: u16, port: u16) -> Tuple {
        let [high, low] = client.to_be_bytes();
        let (src, dst) = match family {
            Family::Ipv4 => (Addr::from_v4([198, 18, high, low]), Addr::from_v4([198, 19, 0, 1])),
            Family::Ipv6 => {
                let net = 0x2001_0db8_u128 << 96;
                (Addr::from_bits(net | 1 << 64 | u128::from(client)), Addr::from_bits(net | 1))
            }
        };
        Tuple { src, dst, left: port, right: 53, zone: 0, proto, family }
    }

    #[test]
    fn both_directions_fall_together_and_everything_else_apart() {
        let seed = Seed::new(7);
        for family in [Family::Ipv4, Family::Ipv6] {
            let udp = tuple(family, PROTO_UDP, 1, 5000);
            assert_eq!(seed.hash(&udp), seed.hash(&udp.reply()));
            let others = [
                Tuple { src: Addr::from_bits(udp.src.bits() ^ 1 << 96), ..udp },
                Tuple { dst: Addr::from_bits(udp.dst.bits() ^ 1 << 96), ..udp },
                Tuple { left: 5001, ..udp },
                Tuple { right: 54, ..udp },
                Tuple { left: udp.right, right: udp.left, ..udp },
                Tuple { zone: 1, ..udp },
                Tuple { proto: PROTO_TCP, ..udp },
            ];
            for other in others {
                assert_ne!(seed.hash(&udp), seed.hash(&other), "{other:?}");
            }
            assert_ne!(seed.hash(&udp), Seed::new(8).hash(&udp), "the seed counts");
        }
        let echo = Tuple { left: 7, right: 0x0800, ..tuple(Family::Ipv4, PROTO_ICMP, 1, 0) };
        assert_eq!(seed.hash(&echo), seed.hash(&echo.reply()));
    }

    /// What hosts send in earnest counts up, in addresses and in ports.
    #[test]
    fn flows_that_count_up_spread_evenly() {
        for family in [Family::Ipv4, Family::Ipv6] {
            for seed in [0, 1, u64::MAX] {
                let seed = Seed::new(seed);
                // The bits that pick a shard, a bucket and a tag.
                for shift in [0, 16, 25, 32] {
                    let mut buckets = [0_u32; 64];
                    for n in 0..64_000_u32 {
                        let tuple = tuple(family, PROTO_UDP, (n / 640) as u16, (n % 640) as u16);
                        buckets[(seed.hash(&tuple) >> shift) as usize % 64] += 1;
                    }
                    // A thousand each, more or less: six standard deviations.
                    assert!(
                        buckets.iter().all(|n| (810..1190).contains(n)),
                        "{family:?} {shift} {buckets:?}"
                    );
                }
            }
        }
    }
}
