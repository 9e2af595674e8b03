//! A bridge between two ports that are queues in memory, under rules of its own: what became of each packet, and why.
//!
//! `cargo run -p stateway-core --example embed`

use stateway_core::{Decision, Duration, Frame, Iface, IfaceId, Instant, Router, RouterConfig, RouterError};
use std::collections::VecDeque;
use std::fmt::Write as _;

const RULES: &str = "\
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i lan -p udp --dport 53 -j ACCEPT
-A FORWARD -i lan -j REJECT
COMMIT
";

/// Frames that have come in and wait for the router, and frames that it has sent.
#[derive(Default)]
struct Port {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

/// A datagram without payload between `192.0.2.FROM` and `192.0.2.TO`, in an Ethernet frame.
fn datagram((from, sport): (u8, u16), (to, dport): (u8, u16)) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
    let words = frame[14..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16; // one carry is all there can be of ten words
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend([sport, dport, 8, 0].map(u16::to_be_bytes).as_flattened());
    frame
}

/// Carries what waits at the ports, first come, first served, and tells of each packet.
fn carry(router: &Router, ports: &mut [Port], now: Instant, told: &mut String) {
    let mut worker = router.worker();
    let name = |id: IfaceId| router.ifaces()[id.index()].name.as_str();
    for at in 0..ports.len() {
        let from = IfaceId(at as u16);
        while let Some(mut frame) = ports[at].incoming.pop_front() {
            let mut decision = Decision::default();
            let outcome = router.process(&mut worker, now, from, Frame::new(&mut frame), &mut decision);
            let state = decision.ctstate.map_or("", |state| state.word());
            let rule = decision.rule(outcome.fate, router).unwrap_or_default();
            let _ = write!(told, "{}: {state} {} by {rule}", name(from), outcome.fate.word());
            if let Some(reason) = decision.reason(outcome.fate) {
                let _ = write!(told, ": {}", reason.sentence());
            }
            if let Some(out) = outcome.out {
                let _ = write!(told, ", to {}", name(out));
                ports[out.index()].outgoing.push(frame[outcome.range()].to_vec());
            }
            for answer in worker.take_emissions() {
                let _ = write!(told, "; {} bytes to {}", answer.frame.len(), name(answer.iface));
                ports[answer.iface.index()].outgoing.push(answer.frame);
            }
            told.push('\n');
        }
    }
    // A driver would sleep until the next frame or `poll_timeout`, and then do what is due.
    router.handle_timeout(&mut worker, now);
}

/// A client on `lan` and a server on `wan`.
pub(crate) fn story() -> Result<String, Vec<RouterError>> {
    let (lan, wan) = (IfaceId(0), IfaceId(1));
    let ifaces = vec![Iface::new("lan", lan), Iface::new("wan", wan)];
    let router = Router::new(RouterConfig::new(ifaces).with_rules(RULES, RULES))?;
    let (client, server) = ((1, 5000), (2, 53));
    let mut ports = [Port::default(), Port::default()];
    let mut told = String::new();
    let steps = [
        (wan, datagram(server, client), "the server speaks first"),
        (lan, datagram(client, server), "the client asks"),
        (wan, datagram(server, client), "the server answers"),
        (lan, datagram(client, (2, 123)), "the client asks for what it may not have"),
    ];
    for (second, (iface, frame, what)) in steps.into_iter().enumerate() {
        let _ = writeln!(told, "# {what}");
        ports[iface.index()].incoming.push_back(frame);
        carry(&router, &mut ports, Instant::ZERO + Duration::from_secs(second as u64), &mut told);
    }
    let connections = router.conntrack().count();
    let sent = ports.map(|port| port.outgoing.len());
    let _ = writeln!(told, "{connections} connection; {} frames left by lan, {} by wan", sent[0], sent[1]);
    Ok(told)
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<(), RouterError> {
    print!("{}", story().map_err(|errors| errors[0].clone())?);
    Ok(())
}
