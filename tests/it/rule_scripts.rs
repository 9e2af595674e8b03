//! Scripts in the manner of public firewalls, and what a person is told of each: nothing of them is run, and the first thing
//! that is said shall be the right one.

use expect_test::expect_file;
use stateway_core::filter::Ruleset;
use stateway_core::packet::Family;
use std::fmt::Write as _;

/// What it is, and its text.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "gateway-masq",
        "#!/bin/bash\necho 1 > /proc/sys/net/ipv4/ip_forward\nmodprobe ip_conntrack_ftp\niptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE\niptables -A FORWARD -i eth1 -o eth0 -j ACCEPT\niptables -A FORWARD -i eth0 -o eth1 -m state --state RELATED,ESTABLISHED -j ACCEPT\n",
    ),
    (
        "var-ipt",
        "#!/bin/bash\nIPT=/sbin/iptables\nWAN=eth0\n$IPT -F\n$IPT -P INPUT DROP\n$IPT -A INPUT -i $WAN -p tcp --dport 22 -j ACCEPT\n",
    ),
    (
        "for-ports",
        "#!/bin/bash\nfor port in 22 80 443; do\n    iptables -A INPUT -p tcp --dport $port -j ACCEPT\ndone\niptables -A INPUT -j DROP\n",
    ),
    (
        "functions-start-stop",
        "#!/bin/bash\nstart() {\n  iptables -P INPUT DROP\n  iptables -A INPUT -i lo -j ACCEPT\n}\nstop() {\n  iptables -P INPUT ACCEPT\n  iptables -F\n}\ncase \"$1\" in\n  start) start ;;\n  stop) stop ;;\n  restart) stop; start ;;\n  *) echo \"Usage: $0 {start|stop|restart}\"; exit 1 ;;\nesac\n",
    ),
    (
        "heredoc-cat-file",
        "#!/bin/bash\ncat > /etc/iptables.rules <<EOF\n*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\nEOF\niptables-restore < /etc/iptables.rules\n",
    ),
    (
        "heredoc-usage",
        "#!/bin/bash\nusage() {\ncat <<EOF\nUsage: $0 [-h]\n  iptables -F is run first; it's safe\nEOF\n}\niptables -F\niptables -A INPUT -j DROP\n",
    ),
    (
        "command-subst",
        "#!/bin/bash\nIP=$(ip -4 addr show eth0 | grep -oP '(?<=inet )\\S+' | cut -d/ -f1)\niptables -A INPUT -d $IP -j ACCEPT\niptables -A INPUT -j DROP\n",
    ),
    ("fullwidth-colon", "#!/bin/sh\n# 端口范围\niptables -A INPUT -p tcp --dport 8000：8080 -j ACCEPT\n"),
    (
        "perl",
        "#!/usr/bin/perl\nuse strict;\nsystem(\"iptables -F\");\nsystem(\"iptables -A INPUT -j DROP\");\n",
    ),
    (
        "crlf-heredoc-restore",
        "#!/bin/bash\r\niptables-restore <<EOF\r\n*filter\r\n:INPUT DROP [0:0]\r\n:FORWARD DROP [0:0]\r\n:OUTPUT ACCEPT [0:0]\r\n-A INPUT -i lo -j ACCEPT\r\nCOMMIT\r\nEOF\r\n",
    ),
];

#[test]
fn of_every_script_the_first_message_says_what_it_is() {
    let mut told = String::new();
    for (name, script) in SCRIPTS {
        let _ = writeln!(told, "== {name}");
        for line in script.lines() {
            let _ = writeln!(told, "{}", format!("  | {line}").trim_end());
        }
        match Ruleset::load(script, Family::Ipv4, &[]) {
            Ok(_) => told.push_str("nothing to report\n"),
            Err(errors) => errors.iter().for_each(|error| {
                let _ = writeln!(told, "{error}");
            }),
        }
        told.push('\n');
    }
    expect_file!["rule_scripts.txt"].assert_eq(&told);
}
