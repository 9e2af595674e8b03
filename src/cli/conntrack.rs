//! `stateway conntrack`: conntrack-tools' letters and line format, for the table of a running router.

use super::lab::Named;
use super::render::{self, Format};
use super::{Failure, Result};
use crate::control::protocol::{EntryFilter, EntryView, EventView, ExpectationView, FlowSelect};
use crate::control::{Client, Command, Reply, place};
use crate::lab::netns::state;
use anyhow::{Context as _, anyhow, bail};
use clap::{ArgGroup, ValueEnum};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("action").required(true))]
pub(super) struct Args {
    /// List a table
    #[arg(short = 'L', long = "dump", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    list: Option<Table>,
    /// Show what becomes of connections, as it happens
    #[arg(short = 'E', long = "event", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    events: Option<Table>,
    /// Show the one connection that the options describe
    #[arg(short = 'G', long = "get", group = "action")]
    get: bool,
    /// Delete the connections that the options describe
    #[arg(short = 'D', long = "delete", group = "action")]
    delete: bool,
    /// Empty a table
    #[arg(short = 'F', long = "flush", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    flush: Option<Table>,
    /// Show the tracker's counters
    #[arg(short = 'S', long = "stats", group = "action")]
    stats: bool,
    /// Show how many connections there are
    #[arg(short = 'C', long = "count", group = "action")]
    count: bool,

    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    router: RouterArgs,
}

/// Which running router is meant.
#[derive(Debug, clap::Args)]
pub(super) struct RouterArgs {
    /// The router's control socket; by default that of the one that runs
    #[arg(long, value_name = "SOCKET", conflicts_with = "lab")]
    control: Option<PathBuf>,
    /// The router of a lab that is up: its name, its folder or its file
    #[arg(long, value_name = "LAB")]
    lab: Option<PathBuf>,
}

impl RouterArgs {
    pub(super) fn connect(&self) -> Result<Client> {
        let path = match (&self.control, &self.lab) {
            (Some(path), _) => path.clone(),
            (None, Some(lab)) => of_lab(lab)?,
            (None, None) => the_only_one()?,
        };
        if is_forbidden(&path) {
            return Err(Failure::Machine(anyhow!(
                "the router at {} belongs to another user\n  hint: run it with `sudo`",
                path.display()
            )));
        }
        Client::connect(&path).map_err(Failure::Input)
    }
}

fn of_lab(lab: &Path) -> Result<PathBuf> {
    let Named { name, record } = super::lab::named(lab)?;
    let Some(record) = record else {
        return Err(Failure::Input(anyhow!(
            "the lab `{name}` is not up\n  hint: `stateway lab up {}`",
            lab.display()
        )));
    };
    record.control.ok_or_else(|| {
        Failure::Input(anyhow!(
            "in the lab `{name}` the kernel stands between the hosts: no router of ours is running"
        ))
    })
}

/// The control socket of the one router that runs, and that we may ask.
fn the_only_one() -> Result<PathBuf> {
    let mut sockets = place::running().map_err(Failure::Input)?;
    match sockets.len() {
        1 => Ok(sockets.remove(0)),
        0 => match of_root() {
            Some(error) => Err(Failure::Machine(error)),
            None => place::of_the_only_one().map_err(Failure::Input),
        },
        _ => {
            let labs = state::all();
            let option = |socket: &PathBuf| match labs.iter().find(|lab| lab.control.as_ref() == Some(socket))
            {
                Some(record) => format!("  --lab {}", record.lab),
                None => format!("  --control {}", socket.display()),
            };
            let list: Vec<String> = sockets.iter().map(option).collect();
            Err(Failure::Input(anyhow!("several routers are running, so say which:\n{}", list.join("\n"))))
        }
    }
}

/// Why an ordinary user finds no router though root runs some.
fn of_root() -> Option<anyhow::Error> {
    const HINT: &str = "hint: run it with `sudo`";
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let labs: Vec<String> = state::all()
        .into_iter()
        .filter(|record| record.control.as_ref().is_some_and(|socket| is_forbidden(socket)))
        .map(|record| format!("`{}`", record.lab))
        .collect();
    if !labs.is_empty() {
        let noun = if labs.len() == 1 { "the router of the lab" } else { "the routers of the labs" };
        let verb = if labs.len() == 1 { "belongs" } else { "belong" };
        return Some(anyhow!("{noun} {} {verb} to root, and answers root alone\n  {HINT}", labs.join(", ")));
    }
    let folder = Path::new("/run/stateway");
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some(anyhow!(
                "a router may be running, but {} is for root alone\n  {HINT}",
                folder.display()
            ));
        }
        Err(_) => return None,
    };
    let socket = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| is_forbidden(path))?;
    Some(anyhow!("the router at {} belongs to root, and answers root alone\n  {HINT}", socket.display()))
}

/// Whether somebody else's router listens there, who does not let us in.
fn is_forbidden(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    Conntrack,
    Expect,
}

/// Which connections are meant: those that agree with every option.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connections")]
struct Select {
    /// Protocol, by name or number
    #[arg(short = 'p', long = "proto", alias = "protonum", value_name = "PROTO", value_parser = protocol)]
    protocol: Option<u8>,
    /// Source of the first packet, an address or a network
    #[arg(short = 's', long = "src", alias = "orig-src", value_name = "ADDR")]
    src: Option<String>,
    /// Destination of the first packet
    #[arg(short = 'd', long = "dst", alias = "orig-dst", value_name = "ADDR")]
    dst: Option<String>,
    /// Source of the answers
    #[arg(short = 'r', long = "reply-src", value_name = "ADDR")]
    reply_src: Option<String>,
    /// Destination of the answers
    #[arg(short = 'q', long = "reply-dst", value_name = "ADDR")]
    reply_dst: Option<String>,
    #[arg(long, alias = "orig-port-src", value_name = "PORT")]
    sport: Option<u16>,
    #[arg(long, alias = "orig-port-dst", value_name = "PORT")]
    dport: Option<u16>,
    #[arg(long, value_name = "PORT")]
    reply_port_src: Option<u16>,
    #[arg(long, value_name = "PORT")]
    reply_port_dst: Option<u16>,
    /// The protocol's state, such as ESTABLISHED
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// ipv4 or ipv6
    #[arg(short = 'f', long = "family", value_name = "FAMILY", value_parser = family)]
    family: Option<u8>,
    /// Status bits that are set: `ASSURED`, `SEEN_REPLY`, `EXPECTED`; `UNSET_REPLY` means not `SEEN_REPLY`
    #[arg(short = 'u', long = "status", value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Connection mark, with a mask behind a slash
    #[arg(short = 'm', long = "mark", value_name = "MARK", value_parser = mark)]
    mark: Option<(u32, u32)>,
    #[arg(short = 'w', long = "zone", alias = "orig-zone", value_name = "ZONE")]
    zone: Option<u16>,
    /// Which helper reads it
    #[arg(long, value_name = "NAME")]
    helper: Option<String>,
    /// With -E: NEW, UPDATES, DESTROY or ALL
    #[arg(short = 'e', long = "event-mask", value_name = "EVENTS", value_delimiter = ',')]
    kinds: Vec<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// What a line shows: extended, timestamp (-E), id, json
    #[arg(short = 'o', long = "output", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<OutputType>,
    /// `json` is the same as `-o json`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputType {
    Extended,
    Timestamp,
    Id,
    Json,
}

impl OutputArgs {
    fn has(&self, kind: OutputType) -> bool {
        self.types.contains(&kind)
    }

    fn is_json(&self) -> bool {
        self.format == Format::Json || self.has(OutputType::Json)
    }

    /// A line as conntrack-tools print it: `-o extended` puts the family in front.
    fn line<'a>(&self, line: &'a str) -> &'a str {
        if self.has(OutputType::Extended) { line } else { without_family(line) }
    }

    /// The same for an entry: `-o id` puts its number behind.
    fn entry(&self, entry: &EntryView) -> String {
        let line = self.line(&entry.line);
        match entry.id.filter(|_| self.has(OutputType::Id)) {
            Some(id) => format!("{line} id={id}"),
            None => line.to_owned(),
        }
    }
}

/// `ipv4     2 tcp …` without its first two words and what is between them.
fn without_family(line: &str) -> &str {
    let after_word = |text: &'static str| line.strip_prefix(text).map(str::trim_start);
    let Some(rest) = after_word("ipv4").or_else(|| after_word("ipv6")) else { return line };
    rest.split_once(' ').map_or(rest, |(_, rest)| rest)
}

pub(super) fn run(args: Args) -> Result {
    let filter = args.select.filter();
    let mut client = args.router.connect()?;
    let Args { list, events, get, delete, flush, stats, count, select, output, .. } = args;
    let asked = match (list, events, flush) {
        (Some(Table::Conntrack), ..) => {
            show_entries(&mut client, &Command::ConntrackList { filter }, "shown", &output)
        }
        (Some(Table::Expect), ..) => show_expectations(&mut client, &output),
        (_, Some(table), _) => {
            let expectations = table == Table::Expect;
            let kinds = select.event_kinds();
            show_events(&mut client, &Command::ConntrackEvents { filter, expectations, kinds }, &output)
        }
        (.., Some(Table::Conntrack)) => client.call(&Command::ConntrackFlush).map(|_| {
            note("connection tracking table has been emptied.");
            true
        }),
        (.., Some(Table::Expect)) => client.call(&Command::ExpectFlush).map(|_| {
            note("expectation table has been emptied.");
            true
        }),
        _ if get => show_one(&mut client, filter, &output),
        _ if delete => show_entries(&mut client, &Command::ConntrackDelete { filter }, "deleted", &output),
        _ if stats => show_stats(&mut client, &output),
        _ if count => show_count(&mut client, &output),
        _ => unreachable!("clap asks for an action"),
    };
    match asked {
        Ok(true) => Ok(()),
        // As conntrack-tools: nothing was there.
        Ok(false) => Err(Failure::Differs),
        Err(error) => Err(Failure::Input(error)),
    }
}

impl Select {
    fn filter(&self) -> EntryFilter {
        let (unset, status): (Vec<String>, Vec<String>) =
            self.status.iter().cloned().partition(|word| word.eq_ignore_ascii_case("UNSET_REPLY"));
        EntryFilter {
            family: self.family,
            protocol: self.protocol,
            zone: self.zone,
            original: FlowSelect {
                src: self.src.clone(),
                dst: self.dst.clone(),
                sport: self.sport,
                dport: self.dport,
            },
            reply: FlowSelect {
                src: self.reply_src.clone(),
                dst: self.reply_dst.clone(),
                sport: self.reply_port_src,
                dport: self.reply_port_dst,
            },
            state: self.state.clone(),
            mark: self.mark,
            status,
            status_unset: unset.into_iter().map(|_| "SEEN_REPLY".to_owned()).collect(),
            helper: self.helper.clone(),
        }
    }

    fn event_kinds(&self) -> Vec<String> {
        if self.kinds.iter().any(|kind| kind.eq_ignore_ascii_case("ALL")) {
            return Vec::new();
        }
        self.kinds.iter().map(|kind| kind.to_uppercase().replace("UPDATES", "UPDATE")).collect()
    }
}

/// Prints the connections that a command answers with. Listing none is fine, deleting none is not.
fn show_entries(
    client: &mut Client,
    command: &Command,
    done: &str,
    output: &OutputArgs,
) -> anyhow::Result<bool> {
    let mut all = Vec::new();
    let mut count = 0;
    client.ask(command, |reply| {
        let Reply::Entries { entries } = reply else { return unexpected(&reply) };
        count += entries.len();
        if output.is_json() {
            all.extend(entries);
        } else {
            for entry in &entries {
                render::line(&output.entry(entry));
            }
        }
        Ok(())
    })?;
    if output.is_json() {
        render::json(&all);
    }
    note(&format!("{count} flow entries have been {done}."));
    Ok(done != "deleted" || count > 0)
}

fn show_one(client: &mut Client, filter: EntryFilter, output: &OutputArgs) -> anyhow::Result<bool> {
    let mut found: Vec<EntryView> = Vec::new();
    client.ask(&Command::ConntrackList { filter }, |reply| {
        let Reply::Entries { entries } = reply else { return unexpected(&reply) };
        found.extend(entries);
        Ok(())
    })?;
    match &found[..] {
        [] => {
            note("such conntrack doesn't exist");
            return Ok(false);
        }
        [entry] if output.is_json() => render::json(entry),
        [entry] => render::line(&output.entry(entry)),
        several => bail!("{} connections are like that: say more, or list them with -L", several.len()),
    }
    note("1 flow entries have been shown.");
    Ok(true)
}

fn show_expectations(client: &mut Client, output: &OutputArgs) -> anyhow::Result<bool> {
    let mut all: Vec<ExpectationView> = Vec::new();
    client.ask(&Command::ExpectList, |reply| {
        let Reply::Expectations { expectations } = reply else { return unexpected(&reply) };
        all.extend(expectations);
        Ok(())
    })?;
    if output.is_json() {
        render::json(&all);
    } else {
        for expectation in &all {
            render::line(&expectation.line);
        }
    }
    note(&format!("{} expectations have been shown.", all.len()));
    Ok(true)
}

/// Prints events until the router goes or we are interrupted.
fn show_events(client: &mut Client, command: &Command, output: &OutputArgs) -> anyhow::Result<bool> {
    client.ask(command, |reply| {
        match reply {
            Reply::Watching => {}
            Reply::Lost { events } => note(&format!("{events} events were lost: they came too fast")),
            Reply::Event(event) if output.is_json() => render::line(&serde_json::to_string(&event)?),
            Reply::Event(event) => render::line(&event_line(&event, output)),
            other => return unexpected(&other),
        }
        Ok(())
    })?;
    Ok(true)
}

/// `[1700000000.123456]    [NEW] tcp …`
fn event_line(event: &EventView, output: &OutputArgs) -> String {
    let bracket = event.line.find("] ").map_or(0, |at| at + 2);
    let (kind, rest) = event.line.split_at(bracket);
    let time =
        if output.has(OutputType::Timestamp) { format!("[{:.6}]\t", event.time) } else { String::new() };
    format!("{time}{kind}{}", output.line(rest))
}

fn show_stats(client: &mut Client, output: &OutputArgs) -> anyhow::Result<bool> {
    client.ask(&Command::ConntrackStats, |reply| {
        let Reply::Stats { stats, line } = reply else { return unexpected(&reply) };
        if output.is_json() {
            render::json(
                &stats.into_iter().map(|s| (s.name, s.count.into())).collect::<serde_json::Map<_, _>>(),
            );
        } else {
            render::line(&line);
        }
        Ok(())
    })?;
    Ok(true)
}

fn show_count(client: &mut Client, output: &OutputArgs) -> anyhow::Result<bool> {
    client.ask(&Command::ConntrackCount, |reply| {
        let Reply::Count { count } = reply else { return unexpected(&reply) };
        if output.is_json() {
            render::json(&serde_json::json!({ "count": count }));
        } else {
            render::line(&count.to_string());
        }
        Ok(())
    })?;
    Ok(true)
}

fn unexpected(reply: &Reply) -> anyhow::Result<()> {
    Err(anyhow!("the router answered something else: {reply:?}"))
}

/// What conntrack-tools say on standard error, after the listing.
fn note(text: &str) {
    render::tell(&format!("stateway v{} (conntrack): {text}", env!("CARGO_PKG_VERSION")));
}

fn protocol(text: &str) -> anyhow::Result<u8> {
    let names = [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("gre", 47),
        ("icmpv6", 58),
        ("sctp", 132),
        ("udplite", 136),
    ];
    let named = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).with_context(|| format!("no protocol named `{text}`"))
}

fn family(text: &str) -> anyhow::Result<u8> {
    match text {
        "ipv4" => Ok(4),
        "ipv6" => Ok(6),
        other => bail!("`{other}` is no family: ipv4 or ipv6"),
    }
}

/// `7`, `0x7` or `0x10/0xf0`.
fn mark(text: &str) -> anyhow::Result<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match text.split_once('/') {
        Some((value, mask)) => Ok((number(value)?, number(mask)?)),
        None => Ok((number(text)?, u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> std::result::Result<Args, String> {
        let words = std::iter::once("conntrack").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_letters_mean_what_they_mean_to_conntrack() {
        let args = parse("-L -p tcp -s 192.0.2.1 --dport 22 --state ESTABLISHED -o extended").unwrap();
        assert_eq!(args.list, Some(Table::Conntrack));
        let filter = args.select.filter();
        assert_eq!((filter.protocol, filter.original.dport), (Some(6), Some(22)));
        assert_eq!(filter.original.src.as_deref(), Some("192.0.2.1"));
        assert_eq!(parse("-L expect").unwrap().list, Some(Table::Expect));
        assert_eq!(parse("-E -e NEW,UPDATES").unwrap().select.event_kinds(), ["NEW", "UPDATE"]);
        assert_eq!(parse("-L -u UNSET_REPLY").unwrap().select.filter().status_unset, ["SEEN_REPLY"]);
        assert_eq!(parse("-L -m 0x10/0xf0").unwrap().select.mark, Some((0x10, 0xf0)));
        for bad in ["", "-L -D", "-p nonsense -L", "-L -f ipv5", "-L --sport 65536", "-L other"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_is_extended_only_when_asked() {
        let line = "ipv4     2 udp      17 29 src=192.0.2.1 dst=192.0.2.2";
        assert_eq!(without_family(line), "udp      17 29 src=192.0.2.1 dst=192.0.2.2");
        let event = EventView {
            kind: "NEW".into(),
            time: 1_700_000_000.25,
            line: format!("    [NEW] {line}"),
            entry: None,
            expectation: None,
        };
        let output = |types: &[OutputType]| OutputArgs { types: types.to_vec(), format: Format::Text };
        assert_eq!(
            event_line(&event, &output(&[OutputType::Timestamp])),
            "[1700000000.250000]\t    [NEW] udp      17 29 src=192.0.2.1 dst=192.0.2.2"
        );
        assert_eq!(event_line(&event, &output(&[OutputType::Extended])), event.line);
    }
}
