//! The codes of `stateway rules check`, a page for each.

use crate::cli::render;
use crate::cli::{Failure, Result};
use anyhow::anyhow;

/// One kind of finding.
pub(super) struct Code {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) page: &'static str,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `SW012`; without one, all codes are listed
    #[arg(value_name = "CODE")]
    code: Option<String>,
}

pub(super) static ALL: &[Code] = &[
    Code {
        name: "SW001",
        title: "a rule never holds: rules before it take all of its packets",
        page: "\
Every packet that this rule asks for has met its end before: one rule is as wide as this one, or several are together, or the
jumps to its chain stand behind rules that let nothing through. It does nothing, and hides what its author thought.

Move it in front of them, narrow them, or delete it.

    -A FORWARD -p tcp -j ACCEPT
    -A FORWARD -p tcp --dport 23 -j DROP        # never holds",
    },
    Code {
        name: "SW002",
        title: "a rule's conditions contradict each other",
        page: "\
No packet agrees with all that this rule asks, wherever it stands.

    -A FORWARD -s 192.0.2.0/24 -m iprange --src-range 198.51.100.1-198.51.100.9 -j ACCEPT",
    },
    Code {
        name: "SW003",
        title: "nothing jumps to a chain",
        page: "\
The chain has rules, and no rule of its table leads to it: they are never asked. Either the jump was forgotten, and packets
that the chain should refuse pass, or the chain is left over.",
    },
    Code {
        name: "SW004",
        title: "a rule is a copy",
        page: "\
Two rules of one chain log the same packets in the same words. One will do.",
    },
    Code {
        name: "SW005",
        title: "a value in the list of a rule never holds",
        page: "\
The rule names several ports or states, and all packets of one of them are decided before, and otherwise: the rule accepts, and what is
before it drops them, or the other way round. Exceptions in front of a wider rule are no finding; a value that somebody wrote
out and that does nothing is.

Take the value out, or move the rule in front.

    -A FORWARD -p tcp --dport 22 -j DROP
    -A FORWARD -p tcp -m multiport --dports 22,80,443 -j ACCEPT                # 22 never holds",
    },
    Code {
        name: "SW010",
        title: "answers are let in by their source port",
        page: "\
A first try to let answers of servers in: whatever comes from port 22 or 80 is accepted. But the sender chooses its source
port. Whoever sends from port 22 reaches every port behind the router, unasked.

    -A FORWARD -i world -p tcp --sport 22 -j ACCEPT                            # lets strangers in
    -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT            # lets answers in",
    },
    Code {
        name: "SW011",
        title: "one rule for each trusted host, where one for the state would do",
        page: "\
Each host that may answer has a rule of its own. It does not scale: host 31 is kept out until somebody writes another rule. And
each of them may open whatever it likes, since nothing asks whether it was asked.

    -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    -A FORWARD -i inside -m conntrack --ctstate NEW -j ACCEPT",
    },
    Code {
        name: "SW012",
        title: "the first handshake is refused by its flags, and nothing else is",
        page: "\
A SYN without ACK opens a TCP connection, so refusing it keeps strangers from opening one. But UDP and ICMP have no such flag,
and a probe with ACK passes. Connection tracking knows for all of them what is an answer.

    -A FORWARD -i world -p tcp --syn -j DROP
    -A FORWARD -i world -j ACCEPT                                              # UDP, ICMP, probes
    -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT            # instead of both",
    },
    Code {
        name: "SW013",
        title: "ESTABLISHED is accepted, RELATED is not",
        page: "\
Errors about a connection (port unreachable, fragmentation needed, time exceeded) are RELATED to it, as is FTP's data connection with
its helper. Without them a connection that meets a smaller MTU hangs with its first large packet, and nobody is told.

    -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    },
    Code {
        name: "SW014",
        title: "INVALID is accepted, or never dropped",
        page: "\
INVALID packets fit no connection: segments beyond a window, answers that nobody waits for, broken checksums. A router cannot
translate them, and a host behind it answers them with what a scan wants to know.

    -A FORWARD -m conntrack --ctstate INVALID -j DROP",
    },
    Code {
        name: "SW015",
        title: "NEW is accepted from everywhere",
        page: "\
A rule that accepts NEW and asks for nothing else lets both sides open connections. The state says that somebody opens one, not
who may.

    -A FORWARD -i inside -m conntrack --ctstate NEW -j ACCEPT",
    },
    Code {
        name: "SW016",
        title: "one family of addresses is closed, and the other is open",
        page: "\
The rules for IPv4 refuse what they do not name, those for IPv6 refuse nothing, or the reverse. Whoever is kept out by one address
comes in by the other: hosts have both, and names lead to both. `rules check FILE --rules6 FILE` compares them.

    *filter
    :FORWARD DROP [0:0]                                                        # for IPv6 as well
    -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    -A FORWARD -p ipv6-icmp -j ACCEPT
    COMMIT",
    },
    Code {
        name: "SW017",
        title: "nobody can log in to the router, though a rule accepts ssh",
        page: "\
A rule of INPUT accepts port 22, but every first packet is refused before, or the rule waits for ESTABLISHED and nobody may open; or
OUTPUT refuses every answer. Loaded on a router far away, such rules lock out who loaded them.

    -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    -A INPUT -i lan -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT     # in front of what drops
    -A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    },
];

/// A code as it is written, or `all`.
pub(super) fn parse(text: &str) -> std::result::Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if text == "all" || ALL.iter().any(|code| code.name == upper) {
        return Ok(if text == "all" { text.to_owned() } else { upper });
    }
    Err(format!("there is no code `{text}`; `stateway rules explain-code` lists them"))
}

pub(super) fn run(args: &Args) -> Result {
    let Some(asked) = &args.code else {
        for code in ALL {
            render::line(&format!("{}  {}", code.name, code.title));
        }
        return Ok(());
    };
    let found = ALL.iter().find(|code| code.name.eq_ignore_ascii_case(asked));
    let code = found.ok_or_else(|| {
        Failure::Input(anyhow!(
            "there is no code `{asked}`\n  hint: `stateway rules explain-code` lists them"
        ))
    })?;
    render::line(&format!("{}: {}\n\n{}", code.name, code.title, code.page));
    Ok(())
}
