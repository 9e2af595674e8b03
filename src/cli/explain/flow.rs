//! The two ends of a packet, as people write them and as tcpdump prints them.

use stateway_core::filter::service_port;
use std::net::{IpAddr, SocketAddr};

/// Both ends of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ports: (u16, u16),
}

/// What may stand between the ends of a flow. The comma comes first in all that we say, since it means nothing to a
/// shell: there `>` makes a file, unless it is quoted. The others are how traces and people write it.
const BETWEEN: [&str; 5] = [",", "→", "->", ">", " to "];

fn ends(text: &str) -> Option<(&str, &str)> {
    if let Some(both) = of_tcpdump(text) {
        return Some(both);
    }
    BETWEEN.iter().find_map(|between| text.split_once(between))
}

/// The ends in a line of tcpdump, whatever stands before and behind them: `… IP SRC > DST: Flags [S], …`.
fn of_tcpdump(text: &str) -> Option<(&str, &str)> {
    let (before, behind) = text.split_once(" > ")?;
    let src = before.split_whitespace().next_back()?;
    let dst = behind.split_whitespace().next()?;
    Some((src, dst.strip_suffix(':').unwrap_or(dst)))
}

pub(super) fn with_ports(text: &str) -> Result<Flow, String> {
    let (src, dst) = ends(text).ok_or_else(|| no_flow(text))?;
    let (src, dst) = (end(text, src)?, end(text, dst)?);
    same_family(Flow { src: src.0, dst: dst.0, ports: (src.1, dst.1) })
}

pub(super) fn of_icmp(text: &str) -> Result<Flow, String> {
    let wrong = || format!("`{text}` is no flow such as 192.0.2.10,198.51.100.10");
    let (src, dst) = ends(text).ok_or_else(wrong)?;
    let end = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
    same_family(Flow { src: end(src)?, dst: end(dst)?, ports: (0, 0) })
}

fn no_flow(text: &str) -> String {
    format!("`{text}` is no flow such as 192.0.2.10:40000,198.51.100.10:22")
}

/// `192.0.2.10:40000`, `[2001:db8::1]:40000`, or tcpdump's `192.0.2.10.40000` and `2001:db8::1.40000`; ports by number or
/// by name.
fn end(flow: &str, text: &str) -> Result<(IpAddr, u16), String> {
    let text = text.trim();
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Ok((end.ip(), end.port()));
    }
    let address = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    // A bare address with colons would lose its last group, and one with dots its last byte.
    if address(text).is_some() {
        return Err(no_flow(flow));
    }
    let split = |at: char| text.rsplit_once(at).and_then(|(addr, port)| Some((address(addr)?, port)));
    let (addr, port) = split('.').or_else(|| split(':')).ok_or_else(|| no_flow(flow))?;
    match port.parse::<u16>().ok().or_else(|| service_port(port)) {
        Some(port) => Ok((addr, port)),
        None => Err(format!("`{port}` is no port: a number up to 65535, or a service such as `ssh`")),
    }
}

fn same_family(flow: Flow) -> Result<Flow, String> {
    if flow.src.is_ipv4() == flow.dst.is_ipv4() {
        Ok(flow)
    } else {
        Err("both addresses must be of one family".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_between_the_ends_it_is_one_flow() {
        for text in [
            "192.0.2.10:40000,198.51.100.10:22",
            "192.0.2.10:40000 , 198.51.100.10:22",
            "192.0.2.10:40000>198.51.100.10:22",
            "192.0.2.10:40000 > 198.51.100.10:22",
            "192.0.2.10:40000->198.51.100.10:22",
            "192.0.2.10:40000 → 198.51.100.10:22",
            "192.0.2.10:40000 to 198.51.100.10:22",
            "192.0.2.10.40000 > 198.51.100.10.22",
            "192.0.2.10.40000 > 198.51.100.10.ssh",
            "192.0.2.10.40000,198.51.100.10:ssh",
            "IP 192.0.2.10.40000 > 198.51.100.10.22: Flags [S], seq 1, win 64240, length 0",
            "12:00:00.000000 eth0  In  IP 192.0.2.10.40000 > 198.51.100.10.22: UDP, length 9",
        ] {
            let Flow { src, dst, ports } = with_ports(text).unwrap();
            assert_eq!((src.to_string().as_str(), dst.to_string().as_str()), ("192.0.2.10", "198.51.100.10"));
            assert_eq!(ports, (40000, 22), "{text}");
        }
        let six = with_ports("IP6 2001:db8::1.40000 > 2001:db8::2.domain: UDP").unwrap();
        assert_eq!((six.dst, six.ports), ("2001:db8::2".parse().unwrap(), (40000, 53)));
        for text in ["2001:db8::1,2001:db8::2", "IP6 2001:db8::1 > 2001:db8::2: ICMP6, echo request"] {
            let flow = of_icmp(text).unwrap();
            assert_eq!(
                (flow.src, flow.dst),
                ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
            );
        }
    }

    #[test]
    fn what_is_no_flow_is_answered_with_one_that_needs_no_quotes() {
        for wrong in
            ["192.0.2.10:40000", "192.0.2.10:40000,198.51.100.10", "192.0.2.10:40000;198.51.100.10:22"]
        {
            let told = with_ports(wrong).unwrap_err();
            assert_eq!(told, format!("`{wrong}` is no flow such as 192.0.2.10:40000,198.51.100.10:22"));
        }
        assert!(with_ports("192.0.2.10.40000 > 198.51.100.10.nosuch").unwrap_err().contains("`nosuch`"));
    }
}
