//! Longest prefix match: a lookup among 100 routes and among 100,000.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stateway_core::config::{RouteConfig, RouteTarget};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::{Addr, Family, Prefix};
use stateway_core::route::Routes;
use std::hint::black_box;

/// Destinations that are asked for in turn: as many as a busy router has flows in its caches.
const DESTINATIONS: usize = 1024;

/// A number that looks random and is the same in every run.
const fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

/// `count` networks of the usual lengths, and destinations in some of them.
fn table(family: Family, count: usize) -> (Routes, Vec<Addr>) {
    const LENGTHS_V4: [u8; 8] = [24, 24, 24, 24, 22, 20, 16, 23];
    const LENGTHS_V6: [u8; 8] = [48, 48, 48, 48, 32, 40, 44, 56];
    let gateway = Addr::from_v4([192, 0, 2, 1]);
    let target = RouteTarget::Via { gateway, iface: IfaceId(0) };
    let network = |n: usize| {
        let bits = u128::from(scatter(n as u64)) << 64;
        match family {
            Family::Ipv4 => Prefix::new(Addr::from_bits(bits >> 96 << 96), LENGTHS_V4[n % 8], family),
            Family::Ipv6 => {
                Prefix::new(Addr::from_bits(0x2001 << 112 | bits >> 16), LENGTHS_V6[n % 8], family)
            }
        }
    };
    let routes: Vec<_> = (0..count).map(|n| RouteConfig { to: network(n), target }).collect();
    let host = |n: usize| {
        let Prefix { addr, .. } = network(scatter(n as u64 + 7) as usize % count);
        Addr::from_bits(addr.bits() | 1 << if family == Family::Ipv4 { 96 } else { 0 })
    };
    let ifaces = [Iface::new("left", IfaceId(0))];
    (Routes::new(&ifaces, &routes, false), (0..DESTINATIONS).map(host).collect())
}

fn lookup(c: &mut Criterion) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut group = c.benchmark_group(format!("route lookup, {family:?}"));
        for count in [100, 100_000] {
            let (routes, destinations) = table(family, count);
            assert!(destinations.iter().all(|dst| routes.lookup(*dst, family, None).is_some()));
            let mut turn = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| {
                    turn = (turn + 1) % DESTINATIONS;
                    routes.lookup(black_box(destinations[turn]), family, None)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
