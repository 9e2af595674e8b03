//! `stateway rules list`, `stateway lab rules`: the rules of a running router and what they counted, as `iptables -L -v -n
//! --line-numbers` shows them.

use super::columns::Columns;
use crate::cli::conntrack::RouterArgs;
use crate::cli::fold;
use crate::cli::render::{self, Format};
use crate::cli::{Failure, Result};
use anyhow::{anyhow, bail};
use stateway_core::filter::nearest;
use stateway_runtime::control::protocol::{ChainName, RuleCount};
use stateway_runtime::control::{Client, Command, Reply};
use std::fmt::Write as _;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    look: Look,
}

/// What is listed, and how. Letters are iptables'; counters, numbers and line numbers are always shown.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Look {
    /// One chain alone
    chain: Option<String>,
    /// One table alone: raw, mangle, nat, filter
    #[arg(long, short = 't', value_name = "TABLE", value_parser = ["raw", "mangle", "nat", "filter"])]
    table: Option<String>,
    /// IPv4 alone
    #[arg(long, short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 alone
    #[arg(long, short = '6')]
    ipv6: bool,
    /// Print rules as iptables-save writes them; with -v, their counters in front
    #[arg(long = "list-rules", short = 'S')]
    list_rules: bool,
    /// Set the counters to zero; with -L or -S, list them first
    #[arg(long, short = 'Z')]
    zero: bool,
    /// Every digit of the counters, and not 12K
    #[arg(long, short = 'x')]
    exact: bool,
    /// As without it: list the rules
    #[arg(long, short = 'L')]
    list: bool,
    /// As without it: with counters and interfaces
    #[arg(long, short = 'v')]
    verbose: bool,
    /// As without it: addresses and ports as numbers
    #[arg(long, short = 'n')]
    numeric: bool,
    /// As without it: with the number of each rule
    #[arg(long)]
    line_numbers: bool,
    /// For people, or JSON
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(in crate::cli) fn run(args: &Args) -> Result {
    let mut client = args.router.connect()?;
    args.look.show(&mut client)
}

impl Look {
    pub(in crate::cli) fn show(&self, client: &mut Client) -> Result {
        let found = self.find(client).map_err(Failure::Input)?;
        if !self.zero || self.list || self.list_rules || self.format == Format::Json {
            self.print(&found);
        }
        if self.zero {
            let Self { table, chain, .. } = self;
            let zero =
                Command::RulesZero { family: self.family(), table: table.clone(), chain: chain.clone() };
            client.call(&zero).map_err(Failure::Input)?;
            render::tell(&format!("the counters of {} are zero", found.what(self)));
        }
        Ok(())
    }

    const fn family(&self) -> Option<u8> {
        match (self.ipv4, self.ipv6) {
            (true, _) => Some(4),
            (_, true) => Some(6),
            _ => None,
        }
    }

    /// What is meant, of what the router has.
    fn find(&self, client: &mut Client) -> anyhow::Result<Found> {
        let Some(Reply::Rules { rules, chains }) = client.call(&Command::Rules)?.into_iter().next() else {
            bail!("the router answered something else");
        };
        let is_meant = |chain: &&ChainName| {
            self.family().is_none_or(|family| family == chain.family)
                && self.table.as_ref().is_none_or(|table| *table == chain.table)
                && self.chain.as_ref().is_none_or(|name| *name == chain.name)
        };
        let meant: Vec<ChainName> = chains.iter().filter(is_meant).cloned().collect();
        if let (Some(name), true) = (&self.chain, meant.is_empty()) {
            let hint = nearest(name, chains.iter().map(|chain| chain.name.as_str()))
                .map_or(String::new(), |near| format!("\n  hint: did you mean `{near}`?"));
            return Err(anyhow!("the router has no chain `{name}`{hint}"));
        }
        Ok(Found { chains: meant, rules })
    }

    fn print(&self, found: &Found) {
        match (self.format, self.list_rules) {
            (Format::Json, _) => render::json(&found.meant().collect::<Vec<_>>()),
            (Format::Text, true) => found.save(self.verbose).iter().for_each(|line| render::line(line)),
            (Format::Text, false) if found.chains.is_empty() => render::tell("there are no rules"),
            (Format::Text, false) => {
                found.list(self.exact, fold::columns()).iter().for_each(|line| render::line(line));
            }
        }
    }
}

/// The rules that are meant, behind the chains that they stand in.
struct Found {
    chains: Vec<ChainName>,
    rules: Vec<RuleCount>,
}

impl Found {
    fn of<'a>(&'a self, chain: &'a ChainName) -> impl Iterator<Item = &'a RuleCount> {
        let prefix = format!("{}/{}/", chain.table, chain.name);
        self.rules.iter().filter(move |rule| rule.family == chain.family && rule.name.starts_with(&prefix))
    }

    fn meant(&self) -> impl Iterator<Item = &RuleCount> {
        self.chains.iter().flat_map(|chain| self.of(chain))
    }

    fn what(&self, look: &Look) -> String {
        let rules = self.meant().filter(|rule| !is_policy(rule)).count();
        let rules = if rules == 1 { "1 rule".to_owned() } else { format!("{rules} rules") };
        look.chain.as_ref().map_or(rules.clone(), |chain| format!("chain {chain}, {rules},"))
    }

    /// As `iptables -S` writes them.
    fn save(&self, with_counters: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for section in self.sections() {
            lines.push(heading(section));
            for chain in section {
                let policy = self.of(chain).find(|rule| is_policy(rule));
                let counters = |rule: &RuleCount| {
                    if with_counters { format!(" -c {} {}", rule.packets, rule.bytes) } else { String::new() }
                };
                lines.push(policy.map_or_else(
                    || format!("-N {}", chain.name),
                    |policy| format!("-P {} {}{}", chain.name, policy.text, counters(policy)),
                ));
            }
            for rule in section.iter().flat_map(|chain| self.of(chain)).filter(|rule| !is_policy(rule)) {
                let counters =
                    if with_counters { format!("[{}:{}] ", rule.packets, rule.bytes) } else { String::new() };
                lines.push(format!("{counters}{}", rule.text));
            }
        }
        lines
    }

    /// Chains of one family and table stand together.
    fn sections(&self) -> impl Iterator<Item = &[ChainName]> {
        self.chains.chunk_by(|one, other| one.family == other.family && one.table == other.table)
    }

    /// As `iptables -L` lists them; on a terminal of so many columns no line is longer.
    fn list(&self, is_exact: bool, columns: Option<usize>) -> Vec<String> {
        let count = |number: u64| if is_exact { number.to_string() } else { shortened(number) };
        let mut lines = Vec::new();
        for section in self.sections() {
            lines.push(heading(section));
            for chain in section {
                lines.push(self.title(chain, &count));
                let rules = self.of(chain).filter(|rule| !is_policy(rule));
                lines.extend(aligned(rules.map(|rule| row(rule, &count)), columns));
                lines.push(String::new());
            }
        }
        lines.pop();
        lines
    }

    /// `Chain FORWARD (policy DROP 3 packets, 252 bytes)`.
    fn title(&self, chain: &ChainName, count: &impl Fn(u64) -> String) -> String {
        let name = &chain.name;
        if let Some(policy) = self.of(chain).find(|rule| is_policy(rule)) {
            let (packets, bytes) = (count(policy.packets), count(policy.bytes));
            return format!("Chain {name} (policy {} {packets} packets, {bytes} bytes)", policy.text);
        }
        let leads_there = |rule: &&RuleCount| {
            let target = Columns::of(&rule.text).target;
            rule.family == chain.family
                && rule.name.starts_with(&format!("{}/", chain.table))
                && target == *name
        };
        format!("Chain {name} ({} references)", self.rules.iter().filter(leads_there).count())
    }
}

/// Where a rule goes on that is too long for the terminal.
const INDENT: usize = 6;

const TITLES: [&str; 10] =
    ["num", "pkts", "bytes", "target", "prot", "opt", "in", "out", "source", "destination"];
/// Numbers stand on the right.
const COUNTERS: std::ops::Range<usize> = 1..3;

/// One rule: what stands under each title, and what stands behind.
type Row = ([String; TITLES.len()], String);

/// The titles and the rules below them, each column as wide as what stands in it.
fn aligned(rows: impl Iterator<Item = Row>, columns: Option<usize>) -> Vec<String> {
    let titles: Row = (TITLES.map(str::to_owned), String::new());
    let rows: Vec<Row> = std::iter::once(titles).chain(rows).collect();
    let width = |n: usize| rows.iter().map(|(cells, _)| cells[n].chars().count()).max().unwrap_or(0);
    let widths: [usize; TITLES.len()] = std::array::from_fn(width);
    let line = |(cells, rest): &Row| {
        let mut line = String::new();
        for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
            _ = if COUNTERS.contains(&n) {
                write!(line, "{cell:>width$} ")
            } else {
                write!(line, "{cell:<width$} ")
            };
        }
        let is_narrow = columns.is_some_and(|columns| line.chars().count() + rest.chars().count() > columns);
        if is_narrow && !rest.is_empty() {
            // What a rule says beyond its columns stands below, in one piece if it fits there.
            let below = fold::fold(&format!("{:INDENT$}{rest}", ""), columns, INDENT);
            return format!("{}\n{below}", fold::fold(line.trim_end(), columns, INDENT));
        }
        fold::fold((line + rest).trim_end(), columns, INDENT)
    };
    rows.iter().map(line).collect()
}

fn heading(section: &[ChainName]) -> String {
    section.first().map_or(String::new(), |chain| format!("# IPv{} *{}", chain.family, chain.table))
}

fn is_policy(rule: &RuleCount) -> bool {
    rule.name.ends_with("/policy")
}

fn row(rule: &RuleCount, count: &impl Fn(u64) -> String) -> Row {
    let number = rule.name.rsplit('/').next().unwrap_or_default().to_owned();
    let Columns { target, protocol, opt, in_iface, out_iface, source, destination, rest } =
        Columns::of(&rule.text);
    let any = if rule.family == 6 { "::/0" } else { "0.0.0.0/0" };
    let address = |text: String| if text.is_empty() { any.to_owned() } else { text };
    let (packets, bytes) = (count(rule.packets), count(rule.bytes));
    let (source, destination) = (address(source), address(destination));
    let cells = [number, packets, bytes, target, protocol, opt, in_iface, out_iface, source, destination];
    (cells, rest)
}

/// As iptables shortens them: 12K, 3M.
fn shortened(number: u64) -> String {
    const LEAST: u64 = 100_000;
    if number < LEAST {
        return number.to_string();
    }
    let mut number = (number + 500) / 1000;
    for unit in ["K", "M", "G"] {
        if number < 10_000 {
            return format!("{number}{unit}");
        }
        number = (number + 500) / 1000;
    }
    format!("{number}T")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        let chain = |table: &str, name: &str| ChainName { family: 4, table: table.into(), name: name.into() };
        let rule = |name: &str, text: &str, packets| RuleCount {
            family: 4,
            name: name.into(),
            text: text.into(),
            packets,
            bytes: packets * 84,
        };
        Found {
            chains: vec![chain("filter", "FORWARD"), chain("filter", "ssh"), chain("filter", "unused")],
            rules: vec![
                rule(
                    "filter/FORWARD/1",
                    "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT",
                    120_000,
                ),
                rule("filter/FORWARD/2", "-A FORWARD -i a -p tcp -m tcp --dport 22 -j ssh", 2),
                rule("filter/FORWARD/policy", "DROP", 3),
                rule(
                    "filter/ssh/1",
                    "-A ssh -s 192.0.2.0/24 ! -d 192.0.2.9/32 -j REJECT --reject-with tcp-reset",
                    0,
                ),
            ],
        }
    }

    #[test]
    fn it_looks_like_iptables() {
        let expected = "\
# IPv4 *filter
Chain FORWARD (policy DROP 3 packets, 252 bytes)
num pkts bytes target prot opt in out source    destination
1   120K   10M ACCEPT all  --  *  *   0.0.0.0/0 0.0.0.0/0   state RELATED,ESTABLISHED
2      2   168 ssh    tcp  --  a  *   0.0.0.0/0 0.0.0.0/0   tcp dpt:22

Chain ssh (1 references)
num pkts bytes target prot opt in out source       destination
1      0     0 REJECT all  --  *  *   192.0.2.0/24 !192.0.2.9  reject-with tcp-reset

Chain unused (0 references)
num pkts bytes target prot opt in out source destination";
        assert_eq!(found().list(false, None).join("\n"), expected);
    }

    #[test]
    fn on_a_narrow_terminal_what_a_rule_says_stands_below_its_columns() {
        let list = found().list(false, Some(80)).join("\n");
        let expected = "\
num pkts bytes target prot opt in out source    destination
1   120K   10M ACCEPT all  --  *  *   0.0.0.0/0 0.0.0.0/0
      state RELATED,ESTABLISHED
2      2   168 ssh    tcp  --  a  *   0.0.0.0/0 0.0.0.0/0   tcp dpt:22
";
        assert!(list.contains(expected), "{list}");
        assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    }

    #[test]
    fn it_saves_like_iptables() {
        let saved = found().save(true);
        assert_eq!(saved[1..4], ["-P FORWARD DROP -c 3 252", "-N ssh", "-N unused"]);
        assert!(saved[4].starts_with("[120000:10080000] -A FORWARD -m state"), "{}", saved[4]);
    }

    #[test]
    fn counters_are_shortened_as_iptables_does() {
        for (number, shown) in [
            (99_999, "99999"),
            (100_000, "100K"),
            (9_999_499, "9999K"),
            (9_999_500, "10M"),
            (10_080_000, "10M"),
            (12_345_678_901, "12G"),
        ] {
            assert_eq!(shortened(number), shown);
        }
    }
}
