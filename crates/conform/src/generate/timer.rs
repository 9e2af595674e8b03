//! Every timer of connection tracking, just before and just after its end.

#![forbid(unsafe_code)]

use super::packet::Tcp;
use super::{Ends, Ip, chance, frame, pick, sctp, udp};
use crate::Setup;
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::Family;
use stateway_core::packet::tuple::{PROTO_GRE, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A timer, how long it is where nobody has set it, and what makes it run.
struct Timer {
    name: &'static str,
    usual_seconds: u32,
    story: Story,
}

/// Who sends what: 0 is the opener.
#[derive(Clone, Copy)]
enum Story {
    /// Flags.
    Tcp(&'static [(usize, u8)]),
    /// Chunks.
    Sctp(&'static [(usize, u8)]),
    /// Packets of a protocol.
    Packets(u8, &'static [usize]),
    /// Questions and answers of ICMP.
    Echo(Family),
}

const fn tcp(name: &'static str, usual_seconds: u32, flags: &'static [(usize, u8)]) -> Timer {
    Timer { name, usual_seconds, story: Story::Tcp(flags) }
}

const fn sctp(name: &'static str, usual_seconds: u32, chunks: &'static [(usize, u8)]) -> Timer {
    Timer { name, usual_seconds, story: Story::Sctp(chunks) }
}

const fn packets(name: &'static str, usual_seconds: u32, proto: u8, senders: &'static [usize]) -> Timer {
    Timer { name, usual_seconds, story: Story::Packets(proto, senders) }
}

const S: (usize, u8) = (0, SYN);
const SA: (usize, u8) = (1, SYN | ACK);
const A: (usize, u8) = (0, ACK);
const D: (usize, u8) = (0, PSH | ACK);
/// Nobody's protocol (RFC 3692).
const OTHER: u8 = 253;

static TIMERS: [Timer; 29] = [
    tcp("tcp_timeout_syn_sent", 120, &[S]),
    tcp("tcp_timeout_syn_recv", 60, &[S, SA]),
    tcp("tcp_timeout_established", 432_000, &[S, SA, A]),
    tcp("tcp_timeout_established", 432_000, &[S, SA, A, D, (1, ACK)]),
    tcp("tcp_timeout_fin_wait", 120, &[S, SA, A, (0, FIN | ACK)]),
    tcp("tcp_timeout_close_wait", 60, &[S, SA, A, (0, FIN | ACK), (1, ACK)]),
    tcp("tcp_timeout_last_ack", 30, &[S, SA, A, (0, FIN | ACK), (1, ACK), (1, FIN | ACK)]),
    tcp("tcp_timeout_time_wait", 120, &[S, SA, A, (0, FIN | ACK), (1, ACK), (1, FIN | ACK), A]),
    tcp("tcp_timeout_close", 10, &[S, SA, A, (1, RST | ACK)]),
    tcp("tcp_timeout_close", 10, &[S, (1, RST | ACK)]),
    tcp("tcp_timeout_max_retrans", 300, &[S, SA, A, D, (2, 0), (2, 0), (2, 0), (2, 0)]),
    tcp("tcp_timeout_unacknowledged", 300, &[S, SA, A, D]),
    tcp("tcp_timeout_unacknowledged", 300, &[D]),
    packets("udp_timeout", 30, PROTO_UDP, &[0]),
    packets("udp_timeout", 30, PROTO_UDP, &[0, 1]),
    packets("udp_timeout", 30, PROTO_UDPLITE, &[0]),
    packets("udp_timeout_stream", 120, PROTO_UDPLITE, &[0, 1, 0]),
    packets("generic_timeout", 600, OTHER, &[0]),
    packets("generic_timeout", 600, OTHER, &[0, 1]),
    packets("gre_timeout", 30, PROTO_GRE, &[0]),
    packets("gre_timeout_stream", 180, PROTO_GRE, &[0, 1]),
    Timer { name: "icmp_timeout", usual_seconds: 30, story: Story::Echo(Family::Ipv4) },
    Timer { name: "icmpv6_timeout", usual_seconds: 30, story: Story::Echo(Family::Ipv6) },
    sctp("sctp_timeout_cookie_wait", 3, &[(0, 1)]),
    sctp("sctp_timeout_cookie_echoed", 3, &[(0, 1), (1, 2), (0, 10)]),
    sctp("sctp_timeout_established", 210, &[(0, 1), (1, 2), (0, 10), (1, 11)]),
    sctp("sctp_timeout_shutdown_sent", 3, &[(0, 1), (1, 2), (0, 10), (1, 11), (0, 7)]),
    sctp("sctp_timeout_shutdown_ack_sent", 3, &[(0, 1), (1, 2), (0, 10), (1, 11), (0, 7), (1, 8)]),
    sctp("sctp_timeout_closed", 10, &[(0, 1), (1, 6)]),
];

pub(super) fn trace(rng: &mut Rng, ends: &Ends, setup: &Setup) -> Trace {
    let timer = &TIMERS[rng.usize(..TIMERS.len())];
    let mut ends = ends.clone();
    if let Story::Echo(family) = timer.story
        && family != ends.family
    {
        return trace(rng, &ends, setup);
    }
    // Ports that some worlds do not track, or put elsewhere, tell nothing of timers.
    ends.numbers[1] = 4000;
    let seconds = seconds_of(setup, timer);
    let mut steps = play(rng, &ends, timer.story);
    // A second before it ends, when it ends, and a second after; and halfway, so that it begins anew.
    for _ in 0..rng.usize(1..4) {
        let near = seconds.saturating_sub(1) + rng.u32(..3);
        steps.push(Step::Elapse(*pick(rng, &[near, near, near, seconds / 2]).max(&1)));
        if chance(rng, 80) {
            let again = play(rng, &ends, timer.story);
            steps.extend(again.into_iter().filter(|_| chance(rng, 60)));
        }
    }
    let waits = matches!(timer.story, Story::Packets(PROTO_UDP | PROTO_UDPLITE, _));
    Trace { steps, waiting: if waits { Waiting::Streams } else { Waiting::Timers } }
}

/// How long the timer is in this world.
fn seconds_of(setup: &Setup, timer: &Timer) -> u32 {
    let set = setup.sysctl.iter().find(|(name, _)| name.strip_prefix("nf_conntrack_") == Some(timer.name));
    set.and_then(|(_, value)| value.parse().ok()).unwrap_or(timer.usual_seconds)
}

fn play(rng: &mut Rng, ends: &Ends, story: Story) -> Vec<Step> {
    let kind = "timer";
    match story {
        Story::Tcp(flags) => segments(rng, ends, flags, kind),
        Story::Sctp(chunks) => {
            let tags = [77, 99];
            chunks
                .iter()
                .map(|&(sender, chunk)| sctp::packet(rng, ends, sender, tags, &[chunk], kind))
                .collect()
        }
        Story::Packets(proto, senders) => {
            let packet = |rng: &mut Rng, sender: usize| {
                let packet = udp::datagram(rng, ends, sender, proto, 1);
                frame(rng, ends, sender, &packet, kind)
            };
            senders.iter().map(|&sender| packet(rng, sender)).collect()
        }
        Story::Echo(family) => {
            let kinds = if family == Family::Ipv4 { [8, 0] } else { [128, 129] };
            (0..rng.usize(1..3)).map(|n| echo(rng, ends, n, kinds[n], kind)).collect()
        }
    }
}

fn echo(rng: &mut Rng, ends: &Ends, sender: usize, message: u8, kind: &'static str) -> Step {
    let ip = ends.ip(sender, Ip::icmp_proto(ends.family));
    let [high, low] = ends.numbers[0].to_be_bytes();
    let mut l4 = vec![message, 0, 0, 0, high, low, 0, 1];
    ip.fill_checksum(&mut l4, 2);
    frame(rng, ends, sender, &ip.build(&l4), kind)
}

/// Segments with the numbers that belong there. A sender of 2 repeats the last one.
fn segments(rng: &mut Rng, ends: &Ends, flags: &[(usize, u8)], kind: &'static str) -> Vec<Step> {
    let (mut next, mut steps) = ([1000_u32, 5000], Vec::<Step>::new());
    for &(sender, flags) in flags {
        if sender > 1 {
            steps.extend(steps.last().cloned());
            continue;
        }
        let payload = if flags & PSH == 0 { Vec::new() } else { vec![0x2e; 10] };
        let len = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let tcp = Tcp {
            ports: (ends.numbers[sender], ends.numbers[1 - sender]),
            seq: next[sender],
            ack: if flags & ACK == 0 { 0 } else { next[1 - sender] },
            flags,
            win: 30_000,
            options: Vec::new(),
            payload,
            offset: None,
        };
        next[sender] += len;
        let ip = ends.ip(sender, PROTO_TCP);
        let mut l4 = tcp.build();
        ip.fill_checksum(&mut l4, 16);
        steps.push(frame(rng, ends, sender, &ip.build(&l4), kind));
    }
    steps
}
