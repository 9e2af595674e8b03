//! Rules of table `nat`, and of the targets that change addresses elsewhere: what is printed of each, or why it is
//! refused. With root the kernel's own tools are asked as well.

use expect_test::expect_file;
#[cfg(target_os = "linux")]
use stateway_conform::compare::whatever_version;
use stateway_core::filter::Ruleset;
use stateway_core::packet::Family;
use std::fmt::Write as _;

/// A family, a table and the commands in it.
type Case = (Family, &'static str, &'static str);

/// More cases, each with what becomes of it: every option of every target, in all its spellings. `;` stands between the
/// commands of one case.
const LINES: &str = include_str!("nat_lines.txt");

fn cases() -> Vec<(Family, String, String)> {
    let listed =
        CASES.iter().map(|(family, table, rules)| (*family, (*table).to_owned(), (*rules).to_owned()));
    listed.chain(lines()).collect()
}

fn lines() -> impl Iterator<Item = (Family, String, String)> {
    LINES.lines().filter(|line| line.starts_with("IPv")).map(|line| {
        let (head, rules) = line.split_once(": ").expect("FAMILY TABLE: COMMANDS");
        let (family, table) = head.split_once(' ').expect("FAMILY TABLE");
        let family = if family == "IPv4" { Family::Ipv4 } else { Family::Ipv6 };
        (family, table.to_owned(), rules.replace(" ; ", "\n"))
    })
}

const fn v4(rule: &'static str) -> Case {
    (Family::Ipv4, "nat", rule)
}

const fn v6(rule: &'static str) -> Case {
    (Family::Ipv6, "nat", rule)
}

const fn mangle6(rule: &'static str) -> Case {
    (Family::Ipv6, "mangle", rule)
}

const fn raw(rule: &'static str) -> Case {
    (Family::Ipv4, "raw", rule)
}

const fn filter(rule: &'static str) -> Case {
    (Family::Ipv4, "filter", rule)
}

const CASES: &[Case] = &[
    // Addresses.
    v4("-A PREROUTING -d 203.0.113.1 -j DNAT --to-destination 198.51.100.7"),
    v4("-A PREROUTING -j DNAT --to-destination=198.51.100.7"),
    v4("-A OUTPUT -j DNAT --to 198.51.100.7"),
    v4("-A PREROUTING -j DNAT --to-dest 198.51.100.7-198.51.100.7"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.9-198.51.100.7 --persistent"),
    v4("-A PREROUTING -j DNAT --to-destination 0.0.0.0-255.255.255.255"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.07"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.0/24"),
    v4("-A PREROUTING -j DNAT --to-destination www.example"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.7-"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.7,198.51.100.8"),
    v4("-A PREROUTING -j DNAT --to-destination 2001:db8::7"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination [198.51.100.7]:80"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:80:90"),
    v4("-A PREROUTING -j DNAT --to-destination \"\""),
    v4("-A PREROUTING -j DNAT"),
    v4("-A PREROUTING -j DNAT --persistent"),
    v4("-A PREROUTING -j DNAT ! --to-destination 198.51.100.7"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.7 --to-destination 198.51.100.8"),
    // Ports.
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:8443"),
    v4("-A PREROUTING -p udp -m udp --dport 53 -j DNAT --to-destination :5353"),
    v4("-A PREROUTING -p sctp -j DNAT --to-destination 198.51.100.7:100-200 --persistent --random"),
    v4("-A PREROUTING -p 33 -j DNAT --to-destination 198.51.100.7:0"),
    v4("-A PREROUTING -p icmp -j DNAT --to-destination 198.51.100.7:7-9"),
    v4("-A PREROUTING ! -p udp -j DNAT --to-destination 198.51.100.7:443-443"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:0x1bb"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:010"),
    v4("-A PREROUTING -p udp -j DNAT --to-destination 198.51.100.7:ssh"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:http-alt"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:http-https"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:80-https"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:no-such-service"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:70000"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:80-70000"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:200-100"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:22,80"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7:22-23x"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.7:22"),
    v4("-A PREROUTING -p udplite -j DNAT --to-destination 198.51.100.7:22"),
    v4("-A PREROUTING -j DNAT --to-destination 198.51.100.7:22 -p tcp"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000-9099/8000 --random"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000-9099/http"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000-9000/8000"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000/8000"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000-9099/0"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000-9099/"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination :9000-9099/8000x"),
    v4("-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.7 --random-fully"),
    // The other targets.
    v4("-A POSTROUTING -o wan -j SNAT --to-source 203.0.113.4-203.0.113.6 --persistent --random-fully"),
    v4("-A INPUT -p tcp -j SNAT --to-source 203.0.113.4:1024-65535 --random-f --random"),
    v4("-A POSTROUTING -p udp -j SNAT --to-source :40000-50000"),
    v4("-A POSTROUTING -p udp -j SNAT --to-source :40000-50000/9"),
    v4("-A POSTROUTING -j SNAT --to-source 203.0.113.4 --rando"),
    v4("-A POSTROUTING -o wan -j MASQUERADE"),
    v4("-A POSTROUTING -p tcp -j MASQUERADE --random-fully --to 30000-30999"),
    v4("-A POSTROUTING -p icmp -j MASQUERADE --to-ports 5-9 --random"),
    v4("-A POSTROUTING -p tcp -j MASQUERADE --to-ports 5-9/7"),
    v4("-A POSTROUTING -p tcp -j MASQUERADE --to-ports :5"),
    v4("-A POSTROUTING -j MASQUERADE --to-ports 5"),
    v4("-A POSTROUTING -j MASQUERADE --persistent"),
    v4("-A POSTROUTING -j MASQUERADE ! --random"),
    v4("-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-port 3128"),
    v4("-A OUTPUT -p udp -j REDIRECT --random --to-ports domain"),
    v4("-A PREROUTING -j REDIRECT"),
    v4("-A PREROUTING -p tcp -j REDIRECT --to-ports 100-200/50"),
    v4("-A PREROUTING -p gre -j REDIRECT --to-ports 5"),
    v4("-A PREROUTING -d 192.0.2.0/25 -j NETMAP --to 198.51.100.130/25"),
    v4("-A POSTROUTING -s 192.0.2.0/25 -j NETMAP --to 198.51.100.0/255.255.255.128"),
    v4("-A INPUT -j NETMAP --to 198.51.100.9"),
    v4("-A OUTPUT -j NETMAP --to 198.51.100.9/255.0.0.255"),
    v4("-A OUTPUT -j NETMAP --to 198.51.100/24"),
    v4("-A OUTPUT -j NETMAP --to 198.51.100.0/33"),
    v4("-A OUTPUT -j NETMAP --to 198.51.100.0/"),
    v4("-A OUTPUT -j NETMAP --to www.example/24"),
    v4("-A OUTPUT -j NETMAP"),
    // Where they may stand.
    v4("-A INPUT -j DNAT --to-destination 198.51.100.7"),
    v4("-A POSTROUTING -j REDIRECT"),
    v4("-A PREROUTING -j SNAT --to-source 203.0.113.4"),
    v4("-A OUTPUT -j MASQUERADE"),
    v4("-A FORWARD -j ACCEPT"),
    v4("-A POSTROUTING -i lan -j MASQUERADE"),
    v4("-A INPUT -o lan -j ACCEPT"),
    v4("-A PREROUTING -j DROP"),
    v4("-A PREROUTING -j REJECT"),
    v4("-A PREROUTING -j CT --notrack"),
    v4("-A PREROUTING -m rpfilter -j ACCEPT"),
    v4("-A PREROUTING -j LOG --log-prefix new"),
    v4("-A PREROUTING -j CONNMARK --set-mark 7"),
    v4("-A POSTROUTING -m owner --uid-owner 0 -j RETURN"),
    v4("-P POSTROUTING DROP"),
    v4(":POSTROUTING DROP [0:0]"),
    v4("-N web\n-A PREROUTING -j web\n-A web -j DNAT --to-destination 198.51.100.7"),
    v4("-N web\n-A POSTROUTING -j web\n-A web -j DNAT --to-destination 198.51.100.7"),
    v4("-N web\n-N site\n-A INPUT -j site\n-A site -g web\n-A web -j MASQUERADE"),
    v4("-N web\n-A web -j DNAT --to-destination 198.51.100.7\n-A web -j MASQUERADE"),
    v4("-N web\n-A web -j DROP"),
    filter("-A FORWARD -j DNAT --to-destination 198.51.100.7"),
    filter("-N web\n-A web -j MASQUERADE"),
    filter("-A INPUT -j NETMAP --to 198.51.100.0/24"),
    (Family::Ipv4, "security", "-A INPUT -j ACCEPT"),
    (Family::Ipv4, "security", ":INPUT DROP [0:0]"),
    (Family::Ipv4, "security", ":INPUT ACCEPT [0:0]"),
    // Zones, which belong to translation.
    raw("-A PREROUTING -j CT --zone 5"),
    raw("-A PREROUTING -j CT --zone 0"),
    raw("-A PREROUTING -j CT --zone MARK"),
    raw("-A PREROUTING -i lan -j CT --zone-orig 5"),
    raw("-A PREROUTING -i lan -j CT --zone-reply 65535"),
    raw("-A PREROUTING -j CT --zone-orig mark"),
    raw("-A PREROUTING -j CT --zone-orig 0"),
    raw("-A PREROUTING -j CT --zone-orig 4 --zone 5"),
    raw("-A PREROUTING -j CT --zone-orig 4 --zone-reply 5"),
    raw("-A PREROUTING -j CT --zone-orig 4 --ctevents new --notrack"),
    raw("-A PREROUTING -j CT --zone-orig 65536"),
    raw("-A PREROUTING -j CT --zone-orig"),
    raw("-A PREROUTING -j CT --zone-reply lan"),
    // IPv6.
    v6("-A PREROUTING -j DNAT --to-destination 2001:0db8::0:7"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::7]:443"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::7-2001:db8::9]:443-445/80 --persistent"),
    v6("-A PREROUTING -j DNAT --to-destination [2001:db8::7-2001:db8::9]"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination 2001:db8::7:443"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination []:443"),
    v6("-A PREROUTING -j DNAT --to-destination []"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::7"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::7]-[2001:db8::9]:443"),
    v6("-A PREROUTING -j DNAT --to-destination 2001:db8::/64"),
    v6("-A PREROUTING -j DNAT --to-destination 192.0.2.7"),
    v6("-A PREROUTING -p tcp -j DNAT --to-destination 192.0.2.7:80"),
    v6("-A PREROUTING -p ipv6-icmp -j DNAT --to-destination [2001:db8::7]:5"),
    v6("-A POSTROUTING -p tcp -j SNAT --to-source [2001:db8::7]:1024-2048"),
    v6("-A POSTROUTING -p tcp -j MASQUERADE --to-ports 1024-2048"),
    v6("-A PREROUTING -p tcp -j REDIRECT --to-ports 1024"),
    v6("-A PREROUTING -j NETMAP --to 2001:db8:5::7/48"),
    v6("-A PREROUTING -j NETMAP --to 2001:db8:5::7"),
    v6("-A PREROUTING -j NETMAP --to 2001:db8:5::7/129"),
    mangle6("-A POSTROUTING -j SNPT --dst-pfx 2001:db8:2::/48 --src-pfx 2001:db8:1::/48"),
    mangle6("-A INPUT -j SNPT --src-p 2001:db8:1::/48 --dst-p 2001:db8:2:7::/64"),
    mangle6("-A PREROUTING -j DNPT --src-pfx 2001:db8:2::/48 --dst-pfx 2001:db8:1::/48"),
    mangle6("-A POSTROUTING -j SNPT --src-pfx 2001:db8:1::5/64 --dst-pfx 2001:db8:2::/64"),
    mangle6("-A POSTROUTING -j SNPT --src-pfx 2001:db8:1::/65 --dst-pfx 2001:db8:2::/64"),
    mangle6("-A POSTROUTING -j SNPT --src-pfx 2001:db8:1::/64"),
    mangle6("-A FORWARD -j SNPT --src-pfx 2001:db8:1::/64 --dst-pfx 2001:db8:2::/64"),
    mangle6("-A POSTROUTING -j DNPT --src-pfx 2001:db8:1::/64 --dst-pfx 2001:db8:2::/64"),
    v6("-A POSTROUTING -j SNPT --src-pfx 2001:db8:1::/64 --dst-pfx 2001:db8:2::/64"),
    (Family::Ipv4, "mangle", "-A POSTROUTING -j SNPT --src-pfx 2001:db8:1::/64 --dst-pfx 2001:db8:2::/64"),
];

/// The tools take these for something else than they say.
const STRICTER_THAN_THE_TOOLS: &[&str] = &[
    "-A PREROUTING -p tcp -j DNAT --to-destination :9000-9099/8000x",
    "-A OUTPUT -j NETMAP --to 198.51.100.0/33",
    "-A INPUT -j ACCEPT",
    ":INPUT DROP [0:0]",
];

fn text(table: &str, rules: &str) -> String {
    format!("*{table}\n{rules}\nCOMMIT\n")
}

/// The rules as they are printed, or everything that is wrong.
fn show(family: Family, table: &str, rules: &str) -> Result<String, String> {
    match Ruleset::load(&text(table, rules), family, &[]) {
        Ok(loaded) => {
            let printed = loaded.ruleset.render(false);
            Ok(printed
                .lines()
                .filter(|line| line.starts_with("-A"))
                .fold(String::new(), |all, l| all + l + "\n"))
        }
        Err(errors) => Err(errors.iter().fold(String::new(), |all, error| all + &format!("{error}\n"))),
    }
}

#[test]
fn each_rule_is_printed_as_the_tools_print_it_or_refused_with_its_place_and_a_reason() {
    let mut told = String::new();
    for (family, table, rules) in CASES {
        tell(&mut told, (*family, table, rules), rules);
    }
    expect_file!["nat_rules.txt"].assert_eq(&told);
}

#[test]
fn every_spelling_of_every_option_is_printed_or_refused() {
    let mut told = String::new();
    for (family, table, rules) in lines() {
        tell(&mut told, (family, &table, &rules), &rules.replace('\n', " ; "));
    }
    assert!(lines().count() > 120, "the cases are there");
    expect_file!["nat_lines.txt"].assert_eq(&told);
}

fn tell(told: &mut String, (family, table, rules): (Family, &str, &str), named: &str) {
    let (Ok(said) | Err(said)) = show(family, table, rules);
    let _ = writeln!(
        told,
        "{} {table}: {named}\n    {}\n",
        family.name(),
        said.trim_end().replace('\n', "\n    ")
    );
}

/// What a newer iptables prints, and 1.8.9 instead.
#[cfg(target_os = "linux")]
const NEWER: &[(&str, &str)] = &[
    ("NETMAP --to 198.0.0.9/255.0.0.255\n", "NETMAP --to 198.51.100.9/32\n"),
    ("NETMAP --to 198.0.100.0/255.0.255.0\n", "NETMAP --to 198.51.100.0/32\n"),
];

/// What iptables 1.8.9 prints, which newer ones print otherwise.
#[cfg(target_os = "linux")]
fn as_it_was_printed(answer: &str) -> String {
    let named: String = answer.lines().map(|line| whatever_version(line) + "\n").collect();
    NEWER.iter().fold(named, |answer, (newer, older)| answer.replace(newer, older))
}

/// All cases in one namespace: what is taken is saved, and flushed again.
#[cfg(target_os = "linux")]
#[test]
fn the_tools_of_this_machine_agree() {
    use std::process::Command;

    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let mut script = String::new();
    let cases = cases();
    for (family, table, rules) in &cases {
        let tool = if *family == Family::Ipv4 { "iptables" } else { "ip6tables" };
        let quoted = text(table, rules).replace('\'', r"'\''");
        let _ = writeln!(
            script,
            "if printf %s '{quoted}' | {tool}-legacy-restore -w 2>/dev/null; then {tool}-legacy-save -t {table} | grep ^-A; else echo refused; fi\n\
             echo =; printf '*%s\\nCOMMIT\\n' {table} | {tool}-legacy-restore -w"
        );
    }
    let output = Command::new("unshare").args(["-n", "sh", "-c", &script]).output().expect("unshare runs");
    let answers = String::from_utf8(output.stdout).expect("text");
    let answers: Vec<&str> = answers.split_terminator("=\n").collect();
    assert_eq!(answers.len(), cases.len(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut wrong = String::new();
    for ((family, table, rules), answer) in cases.iter().zip(answers) {
        let answer = as_it_was_printed(answer);
        let is_refused = answer == "refused\n";
        let (agrees, ours) = match show(*family, table, rules) {
            Ok(printed) => (printed == answer, printed),
            Err(why) => {
                (is_refused != STRICTER_THAN_THE_TOOLS.contains(&rules.as_str()), format!("refused: {why}\n"))
            }
        };
        if !agrees {
            _ = write!(wrong, "{rules}\n  we: {ours}  it: {answer}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
