//! Rules that look at the headers between IPv6 and what it carries.

#![forbid(unsafe_code)]

use super::*;

/// An IPv6 frame from `2001:db8::1` to `2001:db8::2` with this behind its header.
fn frame(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend((rest.len() as u16).to_be_bytes());
    frame.extend([next, 64]);
    for last in [1, 2] {
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    frame.extend(rest);
    frame
}

/// What one rule of the FORWARD chain makes of a frame: `yes`, `no`, or `drop` where it cannot tell.
fn says(rule: &str, frame: Vec<u8>) -> &'static str {
    let text = format!("*filter\n-A FORWARD {rule} -j DROP\nCOMMIT\n");
    let loaded = Ruleset::load(&text, Family::Ipv6, &ifaces());
    let rules = loaded.unwrap_or_else(|e| panic!("{rule}: {}", e[0])).ruleset;
    match verdict(&rules, frame, CtState::New) {
        Verdict::Accept => "no",
        Verdict::Drop(_) => "yes",
        Verdict::DropTruncated(_) => "drop",
        Verdict::DropByPolicy(_) | Verdict::Reject(..) | Verdict::Translate(_) => "?",
    }
}

const UDP: [u8; 8] = [0, 7, 0, 9, 0, 8, 0, 0];

#[test]
fn the_headers_of_ipv6_are_looked_into() {
    // Hop-by-hop with a padding of one and one of five bytes; routing, type 0, one address and one segment left;
    // authentication with 12 bytes to check.
    let hop = |next: u8| vec![next, 0, 0, 1, 3, 0, 0, 0];
    let mut routing = vec![17, 2, 0, 1, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let auth = [[17, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1].as_slice(), &[9; 12]].concat();
    let plain = frame(17, &UDP);
    let with_hop = frame(0, &[hop(17).as_slice(), &UDP].concat());
    let with_routing = frame(0, &[hop(43).as_slice(), &routing, &UDP].concat());
    let with_auth = frame(51, &[auth.as_slice(), &UDP].concat());
    routing.truncate(16);
    let cut = frame(43, &routing);
    let nothing = frame(43, &[]);
    for (rule, frame, expected) in [
        ("-m rt", &plain, "no"),
        ("-m rt", &with_routing, "yes"),
        ("-m rt", &cut, "drop"),
        ("-m rt", &nothing, "drop"),
        ("-m rt --rt-type 0", &with_routing, "yes"),
        ("-m rt ! --rt-type 0", &with_routing, "no"),
        ("-m rt --rt-segsleft 2:", &with_routing, "no"),
        ("-m rt --rt-segsleft :1", &with_routing, "yes"),
        ("-m rt --rt-len 24", &with_routing, "yes"),
        ("-m rt --rt-type 0 --rt-0-res", &with_routing, "yes"),
        ("-m rt --rt-type 0 --rt-0-addrs 2001:db8::9", &with_routing, "yes"),
        ("-m rt --rt-type 0 --rt-0-addrs 2001:db8::8", &with_routing, "no"),
        ("-m hbh", &plain, "no"),
        ("-m hbh --hbh-len 8", &with_hop, "yes"),
        ("-m hbh --hbh-opts 0,1:3", &with_hop, "yes"),
        ("-m hbh --hbh-opts 0,1:4", &with_hop, "no"),
        ("-m hbh --hbh-opts 0,1,0", &with_hop, "no"),
        ("-m dst", &with_hop, "no"),
        ("-m frag", &with_hop, "no"),
        ("-m ipv6header --header hop,prot", &with_hop, "yes"),
        ("-m ipv6header --header hop", &with_hop, "no"),
        ("-m ipv6header --header hop --soft", &with_hop, "yes"),
        ("-m ipv6header ! --header hop,route --soft", &with_hop, "no"),
        ("-m ipv6header ! --header auth --soft", &with_hop, "yes"),
        ("-m ipv6header --header esp", &frame(50, &UDP), "yes"),
        ("-m ipv6header --header esp", &frame(50, &[]), "no"),
        ("-m ipv6header ! --header route --soft", &frame(50, &[]), "no"),
        ("-m ah --ahspi 256", &with_auth, "yes"),
        ("-m ah ! --ahspi 256", &with_auth, "no"),
        ("-m ah --ahlen 24 --ahres", &with_auth, "yes"),
        ("-m ah ! --ahlen 24", &with_auth, "no"),
        // No length at all stands for any, and cannot be turned round.
        ("-m ah --ahlen 0", &with_auth, "yes"),
        ("-m ah ! --ahlen 0", &with_auth, "yes"),
        ("-m ah", &with_hop, "no"),
        // Without an upper layer there is no protocol to ask for, whichever it is.
        ("-p udp", &nothing, "drop"),
        ("! -p udp", &nothing, "drop"),
        ("-p udp", &with_routing, "yes"),
    ] {
        assert_eq!(says(rule, frame.clone()), expected, "{rule}");
    }
}

#[test]
fn an_address_made_from_the_link_address_is_known() {
    let mut made = frame(17, &UDP);
    made[14 + 8 + 8..14 + 8 + 16].copy_from_slice(&[0, 0, 0, 0xff, 0xfe, 0, 0, 1]);
    assert_eq!(says("-m eui64", made.clone()), "yes");
    made[14 + 8 + 15] = 2;
    assert_eq!(says("-m eui64", made), "no");
}
