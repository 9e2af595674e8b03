//! A rule in the columns of `iptables -L`, made from the rule as `iptables-save` writes it.

/// The columns of one rule. What is empty is any.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) target: String,
    pub(super) protocol: String,
    pub(super) opt: String,
    pub(super) in_iface: String,
    pub(super) out_iface: String,
    pub(super) source: String,
    pub(super) destination: String,
    /// Matches and what the target is told, in iptables' words where they differ from its options.
    pub(super) rest: String,
}

impl Columns {
    /// Reads a line such as `-A FORWARD -i lan -p tcp -m tcp --dport 22 -j ACCEPT`.
    pub(super) fn of(text: &str) -> Self {
        let mut columns = Self {
            protocol: "all".into(),
            opt: "--".into(),
            in_iface: "*".into(),
            out_iface: "*".into(),
            ..Self::default()
        };
        let words = words(text);
        let mut rest: Vec<String> = Vec::new();
        // Whose options follow: a match, or the target.
        let mut owner = String::new();
        let mut negation = "";
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let mut value = || words.next().map(|word| word.text.clone()).unwrap_or_default();
            let place = match word.text.as_str() {
                "!" => {
                    negation = "!";
                    continue;
                }
                "-A" => {
                    value();
                    continue;
                }
                "-f" => {
                    columns.opt = format!("{}f", if negation.is_empty() { "-" } else { "!" });
                    negation = "";
                    continue;
                }
                "-m" => {
                    owner = value();
                    continue;
                }
                "-j" | "-g" => {
                    columns.target = value();
                    owner.clone_from(&columns.target);
                    if word.text == "-g" {
                        rest.push("[goto]".into());
                    }
                    continue;
                }
                "-s" => &mut columns.source,
                "-d" => &mut columns.destination,
                "-i" => &mut columns.in_iface,
                "-o" => &mut columns.out_iface,
                "-p" => &mut columns.protocol,
                option => {
                    let mut values = Vec::new();
                    // A text may look like an option.
                    values.extend(words.next_if(|_| TEXTS.contains(&option)));
                    while let Some(value) = words.next_if(|next| !next.is_option()) {
                        values.push(value);
                    }
                    let values: Vec<&str> = values.iter().map(|value| value.text.as_str()).collect();
                    rest.push(said(&owner, option, negation, &values.join(" ")));
                    negation = "";
                    continue;
                }
            };
            *place = format!("{negation}{}", without_host_length(&value()));
            negation = "";
        }
        columns.rest = rest.join(" ");
        columns
    }
}

/// A single address is shown without its length.
fn without_host_length(text: &str) -> &str {
    text.strip_suffix("/32").or_else(|| text.strip_suffix("/128")).unwrap_or(text)
}

/// One option of a match or a target, in the words that iptables lists it by.
fn said(owner: &str, option: &str, not: &str, value: &str) -> String {
    let ports = |word: &str| {
        let plural = if value.contains(':') { "s" } else { "" };
        format!("{owner} {word}{plural}:{not}{value}")
    };
    match (owner, option) {
        ("state", "--state") => format!("{not}state {value}"),
        ("conntrack", "--ctstate") => format!("{not}ctstate {value}"),
        ("tcp" | "udp" | "sctp" | "dccp" | "udplite", "--dport") => ports("dpt"),
        ("tcp" | "udp" | "sctp" | "dccp" | "udplite", "--sport") => ports("spt"),
        ("tcp", "--tcp-flags") => format!("tcp flags:{not}{}", value.replace(' ', "/")),
        ("icmp", "--icmp-type") => format!("{not}icmptype {value}"),
        ("icmp6", "--icmpv6-type") => format!("{not}ipv6-icmptype {value}"),
        ("multiport", "--dports" | "--sports" | "--ports") => {
            format!("multiport {} {not}{value}", &option[2..])
        }
        ("comment", "--comment") => format!("/* {value} */"),
        ("limit", "--limit") => format!("limit: avg {value}"),
        ("limit", "--limit-burst") => format!("burst {value}"),
        ("REJECT", "--reject-with") => format!("reject-with {value}"),
        ("DNAT", "--to-destination") | ("SNAT", "--to-source") => format!("to:{value}"),
        ("LOG" | "NFLOG", "--log-prefix" | "--nflog-prefix") => format!("prefix \"{value}\""),
        ("LOG", "--log-level") => format!("level {value}"),
        _ => {
            let not = if not.is_empty() { "" } else { "! " };
            format!("{owner} {not}{} {value}", option.trim_start_matches('-')).trim_end().to_owned()
        }
    }
}

/// Options that take a text, or a name: whatever it begins with. It has no quotes unless it has to.
const TEXTS: [&str; 10] = [
    "--comment",
    "--log-prefix",
    "--nflog-prefix",
    "--string",
    "--hex-string",
    "--name",
    "--hashlimit-name",
    "--match-set",
    "--add-set",
    "--del-set",
];

#[derive(Debug, Default)]
struct Word {
    text: String,
    was_quoted: bool,
}

impl Word {
    fn is_option(&self) -> bool {
        !self.was_quoted && (self.text.starts_with('-') || self.text == "!")
    }
}

/// The words of a line; one in quotes may hold blanks.
fn words(text: &str) -> Vec<Word> {
    let (mut words, mut word) = (Vec::new(), None::<Word>);
    let mut is_quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default().was_quoted = true;
            }
            '\\' if is_quoted => word.get_or_insert_default().text.extend(chars.next()),
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().text.push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_what_iptables_lists() {
        for (text, rest) in [
            ("-A F -p tcp -m tcp --sport 1024:65535 --dport 22 -j ACCEPT", "tcp spts:1024:65535 tcp dpt:22"),
            ("-A F -p tcp -m tcp ! --dport 22 -j ACCEPT", "tcp dpt:!22"),
            ("-A F -m comment --comment \"a \\\"b\\\" c\" -j DROP", "/* a \"b\" c */"),
            ("-A F -m conntrack ! --ctstate INVALID -j ACCEPT", "!ctstate INVALID"),
            ("-A F -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "tcp flags:FIN,SYN,RST,ACK/SYN"),
            (
                "-A F -m limit --limit 3/min --limit-burst 5 -j LOG --log-prefix \"in: \"",
                "limit: avg 3/min burst 5 prefix \"in: \"",
            ),
            ("-A F -m set --match-set ours src -j ACCEPT", "set match-set ours src"),
            ("-A F -m owner ! --uid-owner 5 -j ACCEPT", "owner ! uid-owner 5"),
            ("-A F -g there", "[goto]"),
            ("-A F -m comment --comment \"-j is no target\" -j DROP", "/* -j is no target */"),
            ("-A F -m comment --comment -x -m state --state NEW", "/* -x */ state NEW"),
            ("-A F -m comment --comment \"!\" -j DROP", "/* ! */"),
            ("-A F -j LOG --log-prefix \"-> \" --log-level 4", "prefix \"-> \" level 4"),
            ("-A F -j LOG --log-prefix --in", "prefix \"--in\""),
        ] {
            assert_eq!(Columns::of(text).rest, rest, "{text}");
        }
    }

    #[test]
    fn what_every_rule_has_stands_in_columns() {
        let columns =
            Columns::of("-A F -s 192.0.2.1/32 ! -d 198.51.100.0/24 -i lan ! -o wan+ -p udp -f -j log");
        let expected = Columns {
            target: "log".into(),
            protocol: "udp".into(),
            opt: "-f".into(),
            in_iface: "lan".into(),
            out_iface: "!wan+".into(),
            source: "192.0.2.1".into(),
            destination: "!198.51.100.0/24".into(),
            rest: String::new(),
        };
        assert_eq!(columns, expected);
    }
}
