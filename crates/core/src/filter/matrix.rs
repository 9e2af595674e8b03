//! The table of `docs/IPTABLES.md`, from the code that honours what it lists.

#![forbid(unsafe_code)]

use super::{matches, targets};
use crate::packet::Family;
use std::fmt::Write as _;

const SETS: &str = "
## Sets

`-m set` and `-j SET` take sets as `ipset save` writes them, in front of the tables or in a file of `--sets`. These types are honoured:

| type | elements | `--match-set` |
|---|---|---|
| `hash:ip` | addresses; `netmask` cuts them | `src` |
| `hash:net` | networks, and exceptions with `nomatch` | `src` |
| `hash:ip,port` | addresses with a protocol and its port | `src,dst` |
| `hash:net,port` | networks with a protocol and its port, and exceptions | `src,dst` |
| `hash:ip,port,ip` | an address, a port, an address | `src,dst,dst` |
| `hash:ip,port,net` | an address, a port, a network, and exceptions | `src,dst,dst` |
| `hash:net,iface` | networks behind an interface, or with `wildcard` behind all whose names begin so, and exceptions | `src,src` |
| `bitmap:ip` | addresses of a range, or with `netmask` networks of one size | `src` |
| `bitmap:ip,mac` | addresses of a range with a link address: that of the first packet, where none is given | `src,src` |
| `bitmap:port` | ports of TCP and UDP | `dst` |
| `list:set` | other sets, one of which must hold | as they want |

All take `counters`, `timeout`, `comment` and `skbinfo`. An element may be a range where `ipset add` takes one. A rule may name
more sides than the type has; one that names fewer never holds.

Refused: `hash:mac`, `hash:ip,mac`, `hash:ip,mark`, `hash:net,net`, `hash:net,port,net`; `forceadd`, `markmask`, `bitmask`; elements with
`physdev:`, for which no rule ever asks.
";

const HEAD: &str = "# iptables

Every match and target of iptables 1.8, honoured or refused. This page is written by the program itself: the test
`docs_iptables_is_what_the_code_honours` compares them, and `UPDATE_EXPECT=1` rewrites it.

What is refused is refused when a ruleset is loaded, with its place and the reason; nothing is accepted and then ignored.

Spelling is that of iptables-restore 1.8.9. What follows one letter may stand in the same word, `-AFORWARD`, but for
`-s -d -p -i -o -j`, whose values those tools misread so.

## What is read otherwise than by the tools

Taken though they refuse it: lines that end in CRLF; a comment, `COMMIT` or empty line with blanks around it; a last line
that does not end; with `-c`, a policy without counters; a long name with its value in one word where they want two,
`--source=192.0.2.1`; names of protocols in capitals; whatever stands in a line with `-4` or `-6` that is not for this
family.

Refused, though they take it, is what they take for something else than it says, or pass over:

| written | what they make of it |
|---|---|
| `--dport 65536` of UDP, `--dst-opts 256`, `--hashlimit-srcmask 4294967295`, `4294967297/s`, counters of more than 64 bits | what is left in the bits that they keep: port 0 |
| `--limit 1.5/s`, `--hashlimit-above 10b/m`, `--hashlimit-burst 1:2`, `--hashlimit-burst 1kb` of a rate in packets, `--monthdays 255` | the number in front: 1/s, 10/min, 1, 1024, 25 |
| `--ahspi=`, `--dport=` of UDP: a value that is empty | 0 |
| `--ctorigsrc 192.0.2.1/33`, `--connlimit-mask 255.0.255.0` | the whole address |
| `--datestart 2030-00-01` | the day before the month began |
| `--weekdays 9`, `--monthdays 0` | no day at all |
| `--hashlimit-above 15b/s` and slower, `5000mb/s` | a rate of 0, one of 4095mb/s |
| `--probability nan` | 0 |
| `-j SET --map-set` with a set that has no `skbinfo` | nothing to set |
| `-s ::ffff:192.0.2.1` of IPv4 | 192.0.2.1 |
| a `--name` or `--hashlimit-name` that is too long, `--match-set NAME srcx` | cut |
| `!` in front of `--add-set` and `--del-set`; `--nfmask` beside `--set-mark`; `--left-shift-mark` beside `--right-shift-mark` | passed over |
| `--ecn-ip-ect` in front of `--ecn-tcp-remove` | undone by it |
| `!` behind its option, `-i ! eth0`; names of interfaces with blanks or quotes | an interface named so |
| a quote that is never closed | all that follows is text, and the rule has no target |
| bytes that are no UTF-8 | kept |
| counters that are cut short, `[1:2` | what can be read of them, if they are asked for |
| `--to-destination x[2001:db8::1]y:80`, `:80-90/7x` | what stands around is passed over |
| `-j NETMAP --to 192.0.2.0/33` | 192.0.2.0/32 |
| `:INPUT - [0:0]` in table `raw`; a quote in the name of a chain | a chain named so |

Names of hosts, networks, users and groups are not looked up, but for `root`. `-C`, `-L` and `-S`, which change nothing,
are refused, and so is `--helper` of a helper that is not there.

## Tables

`raw`, `mangle`, `nat`, `filter`. Table `security` may be there while it has no rules and its policies are ACCEPT: there are
no security labels here.

In `nat` stands no `-j DROP`, though a chain's policy may be DROP, and each target has its chains: `DNAT` and `REDIRECT`
PREROUTING and OUTPUT, `SNAT` POSTROUTING and INPUT, `MASQUERADE` POSTROUTING, `NETMAP` all four. A user chain counts as every
chain that leads to it. A port needs `-p tcp`, `udp`, `sctp`, `dccp` or, where it means the identifier, `icmp` in front of it.
";

/// The page, whole.
pub fn render() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Conditions of every rule\n\n`-s -d -i -o -p -f`, each with `!`; `-s` and `-d` take lists, prefixes and dotted masks; `-c`, `-j`, `-g`.\n");
    page.push_str(SETS);
    page.push_str("\n## Matches\n\n| match | family | options |\n|---|---|---|\n");
    let mut rows: Vec<(String, String)> = Vec::new();
    for spec in matches::SPECS {
        rows.push((
            spec.name.into(),
            format!("| `{}` | {} | {} |", spec.name, family(spec.family), options(spec.options)),
        ));
    }
    for (name, reason) in matches::REFUSED {
        rows.push(((*name).into(), format!("| `{name}` | – | refused: {reason} |")));
    }
    rows.sort();
    for (_, row) in &rows {
        let _ = writeln!(page, "{row}");
    }
    page.push_str("\n## Targets\n\n| target | family | tables | options |\n|---|---|---|---|\n");
    let mut rows: Vec<(String, String)> = Vec::new();
    for name in ["ACCEPT", "DROP", "RETURN"] {
        rows.push((name.into(), format!("| `{name}` | both | all | |")));
    }
    for spec in targets::SPECS {
        let tables: Vec<&str> = spec.tables.iter().map(|t| t.word()).collect();
        let tables = if tables.is_empty() { "all".to_owned() } else { tables.join(", ") };
        let row =
            format!("| `{}` | {} | {tables} | {} |", spec.name, family(spec.family), options(spec.options));
        rows.push((spec.name.into(), row));
    }
    for (name, reason) in targets::REFUSED {
        rows.push(((*name).into(), format!("| `{name}` | – | – | refused: {reason} |")));
    }
    rows.sort();
    for (_, row) in &rows {
        let _ = writeln!(page, "{row}");
    }
    page
}

const fn family(family: Option<Family>) -> &'static str {
    match family {
        None => "both",
        Some(Family::Ipv4) => "IPv4",
        Some(Family::Ipv6) => "IPv6",
    }
}

fn options(options: &[super::Opt]) -> String {
    let honoured = options.iter().filter(|o| o.refused.is_none());
    let mut words: Vec<String> =
        honoured.map(|o| format!("`{}--{}`", if o.negatable { "[!] " } else { "" }, o.name)).collect();
    for (option, reason) in options.iter().filter_map(|o| Some((o, o.refused?))) {
        words.push(format!("– `--{}` is refused: {reason}", option.name));
    }
    words.join(" ")
}
