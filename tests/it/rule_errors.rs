//! Broken rules, and what a person is told of each: where, what, and what to type next.

use expect_test::expect_file;
use stateway::filter::Ruleset;
use stateway::packet::Family;
use std::fmt::Write as _;

/// A line of the filter table, or a whole text where it has several lines.
const BROKEN: &[&str] = &[
    "-A FOWARD -j DROP",
    "-A PREROUTING -j DROP",
    "-A FORWARD -j ACEPT",
    "-A FORWARD -j nowhere",
    "-A FORWARD -g ACCEPT",
    "-A FORWARD -j ACCEPT -j DROP",
    "-A FORWARD -g one -j ACCEPT",
    "-A FORWARD -p tpc -j DROP",
    "-A FORWARD -p 300 -j DROP",
    "-A FORWARD ! -p all -j DROP",
    "-A FORWARD -p ! tcp -j DROP",
    "-A FORWARD --dport 22 -j DROP",
    "-A FORWARD -p icmp --dport 22 -j DROP",
    "-A FORWARD -p tcp --dport 22,80 -j DROP",
    "-A FORWARD -p tcp --dport 80-90 -j DROP",
    "-A FORWARD -p tcp --dport 90:80 -j DROP",
    "-A FORWARD -p tcp --dport 65536 -j DROP",
    "-A FORWARD -p tcp --dport htttp -j DROP",
    "-A FORWARD -p tcp --dport",
    "-A FORWARD -p tcp --dprot 22 -j DROP",
    "-A FORWARD -p tcp --tcp-flags SYN -j DROP",
    "-A FORWARD -p tcp --tcp-flags SYN,ACKK SYN -j DROP",
    "-A FORWARD -m udp --dport 53 -j DROP",
    "-A FORWARD -p tcp -m udp --dport 53 -j DROP",
    "-A FORWARD -s 192.0.2.256 -j DROP",
    "-A FORWARD -s 192.0.2.0/33 -j DROP",
    "-A FORWARD -s example.test -j DROP",
    "-A FORWARD -s 2001:db8::1 -j DROP",
    "-A FORWARD ! -s 192.0.2.1,192.0.2.2 -j DROP",
    "-A FORWARD -s ! 192.0.2.1 -j DROP",
    "-A FORWARD -s 192.0.2.1 -s 192.0.2.2 -j DROP",
    "-A FORWARD -i averyveryverylongname -j DROP",
    "-A FORWARD -m state --state NEW,ESTABLISHD -j ACCEPT",
    "-A FORWARD -m state --state NEW, ESTABLISHED -j ACCEPT",
    "-A FORWARD -m state -j ACCEPT",
    "-A FORWARD --state NEW -j ACCEPT",
    "-A FORWARD -m conntrakc --ctstate NEW -j ACCEPT",
    "-A FORWARD -m conntrack --ctstatus ASURED -j ACCEPT",
    "-A FORWARD -m multiport --dports 22 -j ACCEPT",
    "-A FORWARD -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16 -j ACCEPT",
    "-A FORWARD -p icmp --icmp-type echo -j ACCEPT",
    "-A FORWARD -p icmp --icmp-type echo-requets -j ACCEPT",
    "-A FORWARD -m limit --limit 5/fortnight -j ACCEPT",
    "-A FORWARD -m limit --limit 1/day -j ACCEPT",
    "-A FORWARD -m set --match-set friends src -j ACCEPT",
    "-A FORWARD -m owner --uid-owner 0 -j ACCEPT",
    "-A OUTPUT -m owner --uid-owner www-data -j ACCEPT",
    "-A OUTPUT -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT",
    "-A INPUT -m policy --dir out --pol ipsec -j ACCEPT",
    "-A FORWARD -m policy --dir in --pol ipsec --tunnel-src 192.0.2.1 -j ACCEPT",
    "-A FORWARD -p tcp -m tcpmss --mss 1400:100 -j DROP",
    "-A FORWARD -m ah --ahspi 1 -j DROP",
    "-A FORWARD -p udp --dport 0x35 -j ACCEPT",
    "-A FORWARD -m string --string x --algo bm --from 20 --to 10 -j DROP",
    "-A FORWARD -m physdev --physdev-in averyveryverylongname -j DROP",
    "-R FORWARD -j DROP",
    "-D FORWARD 1 -j DROP",
    "-N FORWARD",
    "-E FORWARD",
    "*filter\n:one - [0:0]\n:one - [0:0]\nCOMMIT",
    "-A FORWARD -m time --timestart 25:00 -j ACCEPT",
    "-A FORWARD -m statistic --mode nth --every 3 --packet 3 -j ACCEPT",
    "-A FORWARD -j REJECT --reject-with icmp-host-unreachble",
    "-A FORWARD -j REJECT --reject-with tcp-reset",
    "-A FORWARD -j MASQUERADE",
    "-A FORWARD -j CT --notrack",
    "-A FORWARD -p tcp -j TCPMSS --clamp-mss-to-pmtu",
    "-A FORWARD -j LOG --log-level loud",
    "-A FORWARD -j MARK",
    "-A FORWARD -p tcp --dpt 22 -j ACCEPT",
    "-A FORWARD --ctstat NEW -j ACCEPT",
    "-A FORWARD -p tcp -dport 22 -j ACCEPT",
    "-A FORWARD -fjACCEPT",
    "-A FORWARD -ieth0 -j ACCEPT",
    "-A FORWARD -i \"lan -j ACCEPT",
    "-A FORWARD -j ACCEPT -- -s 192.0.2.1",
    "-A FORWARD -c5 -j ACCEPT",
    "-A FORWARD -jDROP",
    "-A FORWARD \u{2014}j DROP",
    "-A FORWARD ! ! -s 192.0.2.1 -j DROP",
    "-A INPUT -o lan -j DROP",
    "-t filter -A FORWARD -j DROP",
    "-L FORWARD",
    "-D FORWARD 7",
    "-P FORWARD REJECT",
    ":FORWARD REJECT [0:0]",
    ":PREROUTING ACCEPT [0:0]",
    ":averyveryverylongnameforachain12 - [0:0]",
    "[1:2 -A FORWARD -j DROP",
    "hello",
    "*filter\n-A FORWARD -j DROP",
    "*fliter\nCOMMIT",
    "-A FORWARD -j DROP\nCOMMIT",
    "*filter\n*nat\nCOMMIT",
    "*nat\n-A POSTROUTING -j ACCEPT\nCOMMIT",
    "*filter\n:a -\n:b -\n-A a -j b\n-A b -g a\nCOMMIT",
    "*mangle\n-A FORWARD -j REJECT\nCOMMIT",
    "create s hash:mac\n*filter\nCOMMIT",
    "-A FORWARD -p sctp --dport ssh -j DROP",
    "-A FORWARD -p tcp --dport ntp -j DROP",
    "-A FORWARD -p tcp -m multiport --dports 22,ntp -j DROP",
    "-A FORWARD -m hashlimit --hashlimit-above 512kb --hashlimit-name h -j DROP",
    "-A FORWARD -m hashlimit --hashlimit-above 512KB/s --hashlimit-name h -j DROP",
    "-A FORWARD -m hashlimit --hashlimit-above 10mb/min --hashlimit-name h -j DROP",
    "-A FORWARD -m hashlimit --hashlimit-above 10mb/s --hashlimit-burst 1mb --hashlimit-name h -j DROP",
    "-A FORWARD -m hashlimit --hashlimit-above 5/s --hashlimit-rate-match --hashlimit-rate-interval 0 --hashlimit-name h",
    "-A FORWARD -j CONNMARK --left-shift-mark 2",
    "-A FORWARD -j CONNMARK --save-mark --left-shift-mark 32",
    "*raw\n-A PREROUTING -j CT --ctevents new,destory\nCOMMIT",
    "*raw\n-A PREROUTING -j CT --expevents destroy\nCOMMIT",
    "*raw\n-A PREROUTING -j CT --zone-orig 5\nCOMMIT",
    "create s hash:ip\n*filter\n-A FORWARD -j SET --map-set s src --map-mark\nCOMMIT",
    "create s hash:ip skbinfo\n*filter\n-A FORWARD -j SET --map-set s src\nCOMMIT",
    "create s hash:ip skbinfo\n*filter\n-A FORWARD -j SET --map-set s src --map-mark --map-prio=3\nCOMMIT",
    "create s hash:ip skbinfo\n*filter\n-A FORWARD -j SET --map-set s src --map-mark --map-prio\nCOMMIT",
    "-A FORWARD -m mark --mark 1 -m connmark --mark 2 -m mark --mark 3",
    "create s hash:ip\nadd s 192.0.2.1 packets 5 bytes 7\n*filter\nCOMMIT",
    "create s hash:ip,port\nadd s 192.0.2.1,icmp:redirect\n*filter\nCOMMIT",
    "create s hash:ip\n*filter\n-A FORWARD -m set --match-set s src --packets-lt 5 --packets-gt 2\nCOMMIT",
    "name: article\nrouter:\n  mode: bridge\n",
    "iptables -t filtre -A FORWARD -j DROP\niptables -A FORWARD -p tcp --dprot 22 -j DROP\n",
    "*filter\niptables -A FORWARD -j DROP\nCOMMIT",
];

#[test]
fn every_mistake_is_told_with_its_place_and_a_way_out() {
    let mut told = String::new();
    for broken in BROKEN {
        let text = if broken.contains('\n') {
            (*broken).to_owned()
        } else {
            format!("*filter\n:one - [0:0]\n{broken}\nCOMMIT\n")
        };
        let _ = writeln!(told, "{broken}");
        match Ruleset::load(&text, Family::Ipv4, &["lan".to_owned(), "wan".to_owned()]) {
            Ok(_) => told.push_str("    accepted\n"),
            Err(errors) => {
                for error in errors {
                    let _ = writeln!(told, "    {}", error.to_string().replace('\n', "\n    "));
                }
            }
        }
        told.push('\n');
    }
    assert!(!told.contains("    accepted\n"), "{told}");
    expect_file!["rule_errors.txt"].assert_eq(&told);
}
