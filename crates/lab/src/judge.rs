//! Which packet decided what came of a step, and what the connection table must hold.

#![forbid(unsafe_code)]

use super::model::{Expect, Flow, Word};
use super::runner::{Observation, Seen};
use stateway_core::packet::TcpFlags;
use stateway_core::packet::tuple::{PROTO_ICMPV6, PROTO_TCP};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A connection of TCP or UDP: its protocol, and its ends in their order.
type Connection = (u8, [(IpAddr, u16); 2]);

/// What earlier steps have seen.
pub(crate) type Flows = BTreeSet<Connection>;

/// Which packets between its ends are a step's own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    pub(crate) protocol: Option<u8>,
    /// A port at either end.
    pub(crate) port: Option<u16>,
    /// Whether it goes on with a connection that an earlier step opened.
    pub(crate) continues: bool,
}

impl Own {
    pub(crate) const fn of(protocol: u8, port: Option<u16>) -> Self {
        Self { protocol: Some(protocol), port, continues: false }
    }
}

/// Of the packets between the ends of a flow, the first that the router stopped, else the one that opened.
pub(crate) fn of_flow<'a>(flow: &Flow, own: Own, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
    let Own { protocol, port, continues } = own;
    let own = seen.packets.iter().filter(|packet| {
        belongs(packet, flow)
            && protocol.is_none_or(|protocol| packet.protocol == protocol)
            && port.is_none_or(|port| packet.ports.is_some_and(|(a, b)| a == port || b == port))
            && !is_neighbour_discovery(packet)
    });
    let own: Vec<&Seen> = own.collect();
    // An earlier step may still have had packets under way, such as a SYN that nobody answers and that is sent again. A
    // step that takes the same ports again looks like that too.
    let is_new = |packet: &&Seen| flow_of(packet).is_none_or(|flow| !earlier.contains(&flow));
    let new: Vec<&Seen> = own.iter().copied().filter(|packet| is_new(packet)).collect();
    let own = if continues || new.is_empty() { own } else { new };
    // The end of an earlier connection may still be under way: a new one begins with its SYN.
    let start = if protocol == Some(PROTO_TCP) && !continues {
        own.iter().position(|packet| opens(packet))
    } else {
        None
    };
    stopped_or_first(own.into_iter().skip(start.unwrap_or(0)), seen.result)
}

/// Whether it is the SYN that opens a TCP connection.
fn opens(packet: &Seen) -> bool {
    let is_syn =
        |flags: TcpFlags| flags.contains(TcpFlags::SYN) && !flags.intersects(TcpFlags::ACK | TcpFlags::FIN);
    packet.gist.tcp_flags.is_some_and(is_syn)
}

pub(crate) fn flow_of(packet: &Seen) -> Option<Connection> {
    let (from, to) = packet.ports?;
    let mut ends = [(packet.src, from), (packet.dst, to)];
    ends.sort_unstable();
    Some((packet.protocol, ends))
}

/// Nothing is known of what a program sends: it is not what earlier steps still had under way before it, such as the end
/// of a connection, or a SYN that nobody answers and that is sent again.
pub(crate) fn of_a_program<'a>(expect: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
    let is_own = |packet: &&Seen| flow_of(packet).is_none_or(|flow| !earlier.contains(&flow));
    let own = stopped_or_first(seen.packets.iter().filter(is_own), seen.result);
    // A program that takes the same ports again looks like that too: who expects its packets is told of them.
    let asks = expect.state.is_some() || expect.rule.is_some() || expect.reason.is_some();
    own.or_else(|| asks.then(|| stopped_or_first(seen.packets.iter(), seen.result)).flatten())
}

fn stopped_or_first<'a>(mut packets: impl Iterator<Item = &'a Seen>, result: Word) -> Option<&'a Seen> {
    let first = packets.next()?;
    if result == Word::Ok || first.was_stopped() {
        return Some(first);
    }
    Some(packets.find(|packet| packet.was_stopped()).unwrap_or(first))
}

fn belongs(packet: &Seen, flow: &Flow) -> bool {
    (packet.src, packet.dst) == (flow.source, flow.to) || (packet.src, packet.dst) == (flow.to, flow.source)
}

/// Its types are 133 to 137 (RFC 4861 §4).
fn is_neighbour_discovery(packet: &Seen) -> bool {
    packet.protocol == PROTO_ICMPV6 && packet.gist.icmp.is_some_and(|(kind, _)| (133..=137).contains(&kind))
}

pub(crate) fn table_differs(
    wrong: &mut Vec<String>,
    table: &[String],
    contains: &[String],
    lacks: &[String],
) {
    for words in contains.iter().filter(|words| !table.iter().any(|line| has_words(line, words))) {
        wrong.push(format!("no connection has `{words}`"));
    }
    for words in lacks {
        if let Some(line) = table.iter().find(|line| has_words(line, words)) {
            wrong.push(format!("there is a connection with `{words}`: {line}"));
        }
    }
}

/// Whether every word is among the words of the line.
fn has_words(line: &str, words: &str) -> bool {
    words.split_whitespace().all(|word| line.split_whitespace().any(|have| have == word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Session, Step, Tcp};
    use stateway_core::conntrack::CtState;
    use stateway_core::packet::summary::Gist;
    use std::time::Duration;

    #[test]
    fn a_line_has_words_in_any_order() {
        let line =
            "tcp      6 431999 ESTABLISHED src=192.0.2.104 dst=192.0.2.77 sport=40000 dport=22 [ASSURED]";
        assert!(has_words(line, "tcp ESTABLISHED dport=22"));
        assert!(has_words(line, "[ASSURED] src=192.0.2.104"));
        assert!(!has_words(line, "dport=2"), "a word is a whole word");
    }

    fn seen(summary: &str, state: CtState, fate: &str) -> Seen {
        let ends: Vec<std::net::SocketAddr> =
            summary.split(' ').filter_map(|word| word.parse().ok()).collect();
        let flags = [("S", TcpFlags::SYN), ("S.", TcpFlags::SYN | TcpFlags::ACK), (".", TcpFlags::ACK)];
        let word = summary.split(' ').nth(1).unwrap_or_default();
        let tcp_flags = flags.iter().find(|(name, _)| *name == word).map(|(_, flags)| *flags);
        Seen {
            gist: Gist { tcp_flags, ..Gist::default() },
            time: Duration::ZERO,
            in_port: "a".into(),
            out_port: None,
            src: ends[0].ip(),
            dst: ends[1].ip(),
            protocol: 6,
            ports: Some((ends[0].port(), ends[1].port())),
            summary: summary.into(),
            state: Some(state),
            direction: None,
            fate: fate.into(),
            rule: None,
            reason: None,
        }
    }

    fn step(action: Action) -> Step {
        let (path, expect) = (String::new(), Expect::default());
        Step { path, action, expect, within: None, impair: Vec::new() }
    }

    #[test]
    fn the_packet_that_decides_is_the_first_that_was_stopped_or_the_one_that_opened() {
        let tail = seen("tcp F. 192.0.2.1:4000 → 192.0.2.2:22", CtState::Established, "forwarded");
        let syn = seen("tcp S 192.0.2.1:4001 → 192.0.2.2:22", CtState::New, "forwarded");
        let answer = seen("tcp S. 192.0.2.2:22 → 192.0.2.1:4001", CtState::Established, "dropped");
        let flow = Flow {
            from: crate::model::HostId(0),
            source: syn.src,
            to: syn.dst,
            to_host: None,
            timeout: None,
        };
        let tcp = Tcp { flow, port: 22, source_port: None, send: None, session: Session::Once };
        for (result, packets, want) in [
            (Word::Ok, vec![&tail, &syn], &syn),
            (Word::Ok, vec![&syn, &answer], &syn),
            (Word::Blocked, vec![&tail, &syn, &answer], &answer),
            (Word::Blocked, vec![&tail], &tail),
        ] {
            let packets: Vec<Seen> = packets.into_iter().cloned().collect();
            let observed = Observation { packets, ..Observation::new(result, "") };
            let action = Action::Tcp(tcp.clone());
            let step = step(action);
            let found = step.action.deciding(&step.expect, &observed, &Flows::new());
            assert_eq!(found, Some(want), "{}", result.text());
        }
    }

    #[test]
    fn what_an_earlier_step_still_had_under_way_decides_nothing() {
        let again = seen("tcp S 192.0.2.2:22 → 192.0.2.1:3999", CtState::New, "dropped");
        let syn = seen("tcp S 192.0.2.1:4001 → 192.0.2.2:22", CtState::New, "forwarded");
        let (source, to, to_host) = (syn.src, syn.dst, None);
        let flow = Flow { from: crate::model::HostId(0), source, to, to_host, timeout: None };
        let tcp = Tcp { flow, port: 22, source_port: None, send: None, session: Session::Once };
        let step = step(Action::Tcp(tcp));
        let earlier: Flows = flow_of(&again).into_iter().collect();
        for (packets, want) in [(vec![&again, &syn], &syn), (vec![&again], &again)] {
            let packets: Vec<Seen> = packets.into_iter().cloned().collect();
            let observed = Observation { packets, ..Observation::new(Word::Ok, "") };
            assert_eq!(step.action.deciding(&step.expect, &observed, &earlier), Some(want));
        }
    }

    #[test]
    fn of_a_program_the_first_packet_decides_that_no_earlier_connection_left_behind() {
        let old = seen("tcp S 192.0.2.1:4000 → 192.0.2.2:2121", CtState::New, "forwarded");
        let tail = seen("tcp . 192.0.2.2:2121 → 192.0.2.1:4000", CtState::Established, "forwarded");
        let again = seen("tcp S 192.0.2.1:4000 → 192.0.2.2:2121", CtState::New, "dropped");
        let syn = seen("tcp S 192.0.2.1:4001 → 192.0.2.2:22", CtState::New, "forwarded");
        let ping = Seen {
            protocol: 1,
            ports: None,
            ..seen("icmp 192.0.2.1:1 → 192.0.2.2:1", CtState::New, "forwarded")
        };
        let earlier: Flows = flow_of(&old).into_iter().collect();
        let asks = Expect { state: Some(CtState::New), ..Expect::default() };
        for (packets, expect, want) in [
            (vec![&syn, &tail], Expect::default(), Some(&syn)),
            (vec![&tail, &syn], Expect::default(), Some(&syn)),
            (vec![&again, &tail, &ping], Expect::default(), Some(&ping)),
            (vec![&again, &tail], Expect::default(), None),
            (vec![&again, &tail], asks, Some(&again)),
        ] {
            let packets: Vec<Seen> = packets.into_iter().cloned().collect();
            let observed = Observation { packets, ..Observation::new(Word::Ok, "") };
            assert_eq!(of_a_program(&expect, &observed, &earlier), want);
        }
    }
}
