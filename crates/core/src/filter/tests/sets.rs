//! What each type of set holds. The answers are those of Linux 6.18 for the same sets and packets.

#![forbid(unsafe_code)]
use super::*;

/// Whether a datagram from 192.0.2.1:1 to 198.51.100.1:53, from `lan` to `wan0`, meets a rule behind these sets.
fn meets(sets: &str, rule: &str) -> Vec<bool> {
    let text = format!("{sets}*mangle\n-A FORWARD {rule} -j MARK --set-mark 7\nCOMMIT\n");
    let (rules, place) = (load(&text).ruleset, WithoutRouter::default());
    let meets = |frame: &mut [u8]| {
        let (at, mut rec) = (place.arrival(Instant::from_secs(1), 0), NoRecord);
        let mut ctx = Context::new(&at, &mut rec);
        ctx.out_iface = Some(IfaceId(1));
        let mut pkt = Packet::parse(frame, Offload::NONE).unwrap();
        let _ = rules.run(Table::Mangle, Hook::Forward, &mut pkt, &mut ctx);
        ctx.mark == 7
    };
    let mut from_elsewhere = datagram();
    from_elsewhere[11] = 0x77;
    vec![meets(&mut datagram()), meets(&mut from_elsewhere), meets(&mut datagram())]
}

fn datagram() -> Vec<u8> {
    frame(17, &[0, 1, 0, 53, 0, 8, 0, 0])
}

#[test]
fn each_type_holds_what_its_elements_say() {
    for (set, element, sides, holds) in [
        ("hash:net,port", "198.51.100.0/24,udp:53", "dst,dst", true),
        ("hash:net,port", "198.51.100.0/24,udp:53", "dst,src", false),
        ("hash:net,port", "198.51.100.0/24,tcp:53", "dst,dst", false),
        ("hash:net,port", "198.51.100.0/24,udp:50-60", "dst,dst", true),
        ("hash:net,port", "198.51.100.0-198.51.100.1,udp:53", "dst,dst", true),
        ("hash:net,port", "198.51.100.2-198.51.100.9,udp:53", "dst,dst", false),
        ("hash:net,port", "198.51.100.0/24,udp:53 nomatch", "dst,dst", false),
        ("hash:ip,port,ip", "192.0.2.1,udp:53,198.51.100.1", "src,dst,dst", true),
        ("hash:ip,port,ip", "192.0.2.1,udp:53,198.51.100.1", "src,dst,src", false),
        ("hash:ip,port,ip", "192.0.2.0/30,udp:53,198.51.100.1", "src,dst,dst", true),
        ("hash:ip,port,ip", "192.0.2.1,udp:53,198.51.100.1", "src,dst", false),
        ("hash:ip,port,net", "192.0.2.1,udp:53,198.51.100.0/25", "src,dst,dst", true),
        ("hash:ip,port,net", "192.0.2.1,udp:53,198.51.100.128/25", "src,dst,dst", false),
        ("hash:net,iface", "192.0.2.0/24,lan", "src,src", true),
        ("hash:net,iface", "192.0.2.0/24,lan", "src,dst", false),
        ("hash:net,iface", "192.0.2.0/24,wan0", "src,dst", true),
        ("hash:net,iface", "0.0.0.0/0,wan0", "src,dst", true),
        ("hash:net,iface", "192.0.2.0/24,wan", "src,dst", false),
        ("hash:net,iface", "192.0.2.0/24,wan wildcard", "src,dst", true),
        ("hash:net,iface", "192.0.2.0/24,eth0", "src,src", false),
        // The narrowest network decides, whatever is behind a wider one.
        ("hash:net,iface", "192.0.2.0/24,lan\nadd t 192.0.2.1,eth0", "src,src", false),
        ("hash:net,iface", "192.0.2.0/24,lan\nadd t 192.0.2.1,eth0\nadd t 192.0.2.1,lan", "src,src", true),
        ("bitmap:ip range 192.0.2.0/24", "192.0.2.0-192.0.2.3", "src", true),
        ("bitmap:ip range 192.0.2.0/24", "192.0.2.1", "dst", false),
        ("bitmap:ip range 192.0.0.0/16 netmask 24", "192.0.2.99", "src", true),
        ("bitmap:ip,mac range 192.0.2.0/24", "192.0.2.1,02:00:00:00:00:01", "src,src", true),
        ("bitmap:ip,mac range 192.0.2.0/24", "192.0.2.1,02:00:00:00:00:02", "src,dst", true),
        ("bitmap:ip,mac range 192.0.2.0/24", "192.0.2.1,02:00:00:00:00:02", "src,src", false),
        ("bitmap:port range 1-100", "53", "dst", true),
        ("bitmap:port range 1-100", "53", "src", false),
        ("bitmap:port range 1-100", "domain", "dst", true),
    ] {
        let sets = format!("create t {set}\nadd t {element}\n");
        let rule = format!("-m set --match-set t {sides}");
        assert_eq!(meets(&sets, &rule)[0], holds, "{sets}{rule}");
    }
}

#[test]
fn an_address_without_link_address_gets_that_of_its_first_packet() {
    const MAP: &str = "create t bitmap:ip,mac range 192.0.2.0/24\n";
    let rule = "-m set --match-set t src,src";
    assert_eq!(meets(&format!("{MAP}add t 192.0.2.1\n"), rule), [true, false, true]);
    // It is not asked what it has counted.
    let counts = format!("{MAP}add t 192.0.2.1 packets 9\n").replace("0/24", "0/24 counters");
    assert_eq!(meets(&counts, &format!("{rule} --packets-lt 3")), [true, false, true]);
    // What is learnt by a rule is that of the packet, too.
    assert_eq!(meets(MAP, "-m set ! --match-set t src,src"), [true; 3]);
}

#[test]
fn a_list_holds_what_one_of_its_sets_holds() {
    const SETS: &str = "create hosts hash:ip counters\nadd hosts 192.0.2.1\ncreate six hash:ip family inet6\n\
                        create ports hash:ip,port\nadd ports 198.51.100.1,udp:53\n";
    for (list, rule, holds) in [
        ("create t list:set\nadd t hosts", "--match-set t src", [true; 3]),
        ("create t list:set\nadd t hosts", "--match-set t dst", [false; 3]),
        ("create t list:set\nadd t six\nadd t hosts", "--match-set t src", [true; 3]),
        // It asks for two sides.
        ("create t list:set\nadd t ports", "--match-set t dst", [false; 3]),
        ("create t list:set\nadd t ports", "--match-set t dst,dst", [true; 3]),
        ("create t list:set counters\nadd t hosts", "--match-set t src --packets-gt 1", [false, true, true]),
        (
            "create t list:set counters\nadd t hosts packets 5",
            "--match-set t src --packets-gt 5 ! --update-counters",
            [false; 3],
        ),
        // The sets within count, unless they are told not to; what they counted is not asked for.
        (
            "create t list:set\nadd t hosts",
            "--match-set t src -m set --match-set hosts src --packets-gt 2",
            [false, true, true],
        ),
        (
            "create t list:set\nadd t hosts",
            "--match-set t src ! --update-subcounters -m set --match-set hosts src --packets-gt 2",
            [false, false, true],
        ),
    ] {
        let sets = format!("{SETS}{list}\n");
        assert_eq!(meets(&sets, &format!("-m set {rule}")), holds, "{list} {rule}");
    }
}

#[test]
fn a_packet_is_added_to_the_first_set_of_a_list_that_takes_it() {
    const LIST: &str = "create six hash:ip family inet6\ncreate pairs hash:ip,port\ncreate small hash:ip maxelem 1\n\
                        add small 192.0.2.9\ncreate large hash:ip\ncreate t list:set\nadd t six\nadd t pairs\n\
                        add t large\nadd t small before large\n";
    // It names one side, `small` is full: `large` it is.
    let text = format!(
        "{LIST}*raw\n-A PREROUTING -j SET --add-set t src\nCOMMIT\n*mangle\n-A FORWARD -m set --match-set large src \
         -m set ! --match-set small src -j MARK --set-mark 7\n-A FORWARD -j SET --del-set t src\n\
         -A FORWARD -m set --match-set large src -j MARK --set-mark 8\nCOMMIT\n"
    );
    let (rules, place) = (load(&text).ruleset, WithoutRouter::default());
    let (at, mut rec) = (place.arrival(Instant::from_secs(1), 0), NoRecord);
    let mut ctx = Context::new(&at, &mut rec);
    ctx.out_iface = Some(IfaceId(1));
    let mut frame = datagram();
    let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    for (table, hook) in [(Table::Raw, Hook::Prerouting), (Table::Mangle, Hook::Forward)] {
        let _ = rules.run(table, hook, &mut pkt, &mut ctx);
    }
    assert_eq!(ctx.mark, 7);
}

#[test]
fn a_script_may_make_the_sets_that_it_names() {
    let script = "#!/bin/sh\nset -e\nsudo ipset -N -exist t iphash\nipset create t hash:ip -exist\nipset flush t\n\
                  ipset -A t 192.0.2.1\nipset add -! t 192.0.2.9\niptables -t mangle -A FORWARD -m set --match-set t src \
                  -j DROP\nexit 0\n";
    let loaded = load(script);
    assert_eq!(loaded.warnings, []);
    assert!(loaded.ruleset.render(false).contains("-A FORWARD -m set --match-set t src -j DROP"));
}
