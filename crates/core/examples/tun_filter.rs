//! The packet filter of a VPN: bare IP packets go between the TUN of this machine and the tunnel to the peer, under
//! iptables rules. A stateful filter asks no more of the VPN than one call per packet.
//!
//! `cargo run -p stateway-core --example tun_filter`

use core::ops::Range;
use stateway_core::{
    Duration, Fate, Frame, Iface, IfaceId, Instant, Medium, Mode, NoRecord, Router, RouterConfig,
    RouterError, Worker,
};
use std::fmt::Write as _;

/// This machine may ask for anything but SMTP; the peer may answer, and ping.
const RULES: &str = "\
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i tun -p tcp --dport 25 -j REJECT --reject-with tcp-reset
-A FORWARD -i tun -j ACCEPT
-A FORWARD -i peer -p icmp --icmp-type echo-request -j ACCEPT
COMMIT
";
const TUN: IfaceId = IfaceId(0);
const PEER: IfaceId = IfaceId(1);

/// What stands between the TUN and the tunnel.
struct Filter {
    router: Router,
    worker: Worker,
}

impl Filter {
    fn new(rules: &str) -> Result<Self, Vec<RouterError>> {
        let port = |name, id| Iface::new(name, id).with_medium(Medium::Ip);
        let mut config = RouterConfig::new(vec![port("tun", TUN), port("peer", PEER)]);
        config.mode = Mode::Bridge; // what comes in at one port leaves by the other, or not at all
        config.rules = Some(rules.to_owned()); // without rules for IPv6, IPv6 is dropped
        config.seed = 7; // a real program takes a random number
        let router = Router::new(config)?;
        let worker = router.worker();
        Ok(Self { router, worker })
    }

    /// Filters a packet of `len` bytes behind [`Frame::HEADROOM`] in `buf`. What is left of it goes to the other port;
    /// `answer` takes what goes back to the sender.
    fn pass(
        &mut self,
        now: Instant,
        from: IfaceId,
        (buf, len): (&mut [u8], usize),
        mut answer: impl FnMut(&[u8]),
    ) -> (Fate, Option<Range<usize>>) {
        let frame = Frame::bare(buf, len);
        let outcome = self.router.process(&mut self.worker, now, from, frame, &mut NoRecord);
        for emission in self.worker.take_emissions() {
            answer(&emission.frame);
        }
        (outcome.fate, outcome.out.map(|_| outcome.range()))
    }
}

/// An IPv4 packet between this machine (1) and the peer's (2).
fn packet(proto: u8, (from, to): (u8, u8), payload: &[u8]) -> Vec<u8> {
    let len = 20 + payload.len() as u8;
    let mut packet = vec![0x45, 0, 0, len, 0, 0, 0, 0, 64, proto, 0, 0, 198, 51, 100, from, 198, 51, 100, to];
    let checksum = checksum(&packet);
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(payload);
    packet
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

fn ping(ends: (u8, u8), kind: u8) -> Vec<u8> {
    let mut echo = [kind, 0, 0, 0, 0, 9, 0, 1];
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum);
    packet(1, ends, &echo)
}

fn syn(ends: (u8, u8), dport: u16) -> Vec<u8> {
    let mut segment = vec![0x30, 0x39, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    segment[2..4].copy_from_slice(&dport.to_be_bytes());
    let pseudo = [&[198, 51, 100, ends.0, 198, 51, 100, ends.1, 0, 6, 0, 20][..], &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo));
    packet(6, ends, &segment)
}

pub(crate) fn story() -> Result<String, Vec<RouterError>> {
    let mut filter = Filter::new(RULES)?;
    let mut told = String::new();
    let steps = [
        (PEER, syn((2, 1), 22), "the peer connects to SSH here"),
        (PEER, ping((2, 1), 8), "the peer pings"),
        (TUN, ping((1, 2), 0), "this machine answers"),
        (TUN, syn((1, 2), 443), "this machine connects to HTTPS there"),
        (TUN, syn((1, 2), 25), "this machine connects to SMTP there"),
    ];
    for (second, (from, packet, what)) in steps.into_iter().enumerate() {
        let now = Instant::ZERO + Duration::from_secs(second as u64);
        // A driver reads from its TUN into such a buffer, behind the headroom.
        let mut buf = [&[0; Frame::HEADROOM][..], &packet].concat();
        let mut answers = Vec::new();
        let (fate, rest) =
            filter.pass(now, from, (&mut buf, packet.len()), |bytes| answers.push(bytes.to_vec()));
        let _ = write!(told, "{what}: {}", fate.word());
        if let Some(range) = rest {
            let _ = write!(told, ", {} bytes", buf[range].len());
        }
        for answer in answers {
            let _ = write!(told, ", {} bytes back", answer.len());
        }
        told.push('\n');
    }
    Ok(told)
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<(), RouterError> {
    print!("{}", story().map_err(|errors| errors[0].clone())?);
    Ok(())
}
