//! `stateway conntrack`: conntrack-tools' letters and line format, for the table of a running router.

mod file;
mod output;
mod router;
mod select;

pub(super) use router::RouterArgs;

use super::render;
use super::{Failure, Result};
use anyhow::{anyhow, bail};
use clap::{ArgGroup, ValueEnum};
use output::{Form, OutputArgs};
use select::Select;
use stateway_runtime::control::protocol::{EntryFilter, EntryView, ExpectationView};
use stateway_runtime::control::{Client, Command, Reply};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    line: Line,
    #[command(flatten)]
    router: RouterArgs,
}

/// One command, as it is typed or stands in a file.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("action").required(true))]
struct Line {
    /// List a table
    #[arg(short = 'L', long = "dump", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    list: Option<Table>,
    /// Show what becomes of connections, as it happens
    #[arg(short = 'E', long = "event", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    events: Option<Table>,
    /// Show the one connection that the options describe
    #[arg(short = 'G', long = "get", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    get: Option<Conntrack>,
    /// Delete the connections that the options describe
    #[arg(short = 'D', long = "delete", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    delete: Option<Conntrack>,
    /// Make a connection; it is an error if there is one
    #[arg(short = 'I', long = "create", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    create: Option<Conntrack>,
    /// Make a connection, unless there is one
    #[arg(short = 'A', long = "add", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    add: Option<Conntrack>,
    /// Give the connections that the options describe another timeout, mark or status
    #[arg(short = 'U', long = "update", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    update: Option<Conntrack>,
    /// Carry out a file of such commands, a line each, as `-L -o save` writes one; `-`: standard input
    #[arg(short = 'R', long = "load-file", value_name = "FILE", group = "action")]
    load: Option<PathBuf>,
    /// Empty a table
    #[arg(short = 'F', long = "flush", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    flush: Option<Table>,
    /// Show the tracker's counters
    #[arg(short = 'S', long = "stats", group = "action")]
    stats: bool,
    /// Show how many connections there are
    #[arg(short = 'C', long = "count", value_name = "TABLE", group = "action", num_args = 0..=1, default_missing_value = "conntrack")]
    count: Option<Table>,
    /// With -L: packets and bytes are counted from nothing again
    #[arg(short = 'z', long)]
    zero: bool,
    /// With -E: taken and not needed, for events wait in the router, not in a socket's buffer
    #[arg(short = 'b', long, value_name = "BYTES")]
    buffer_size: Option<u64>,

    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    Conntrack,
    Expect,
    /// Always empty: what has ended is gone at once
    Dying,
    /// Always empty: what is not in the table yet travels with its packet
    Unconfirmed,
}

/// The one table that single connections can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Conntrack {
    Conntrack,
}

pub(super) fn run(args: Args) -> Result {
    let Args { line, router } = args;
    check(&line).map_err(Failure::Input)?;
    let lines = match &line.load {
        Some(path) => file::read(path)?,
        None => vec![line],
    };
    let mut client = router.connect()?;
    for line in lines {
        match carry_out(&mut client, line) {
            Ok(true) => {}
            // As conntrack-tools: nothing was there.
            Ok(false) => return Err(Failure::Differs),
            Err(error) => return Err(Failure::Input(error)),
        }
    }
    Ok(())
}

/// What can be said of a command before any router is asked.
fn check(line: &Line) -> anyhow::Result<()> {
    line.output.check()?;
    if line.events.is_none() && (line.buffer_size.is_some() || line.select.has_event_kinds()) {
        bail!("`--event-mask` and `--buffer-size` go with `-E` alone");
    }
    if line.zero && line.list.is_none() {
        bail!("`--zero` goes with `-L` alone");
    }
    if line.create.is_some() || line.add.is_some() {
        return line.select.draft().map(drop);
    }
    if line.update.is_some() {
        return line.select.change().map(drop);
    }
    line.select.only_selects()?;
    if line.get.is_some() { line.select.names_one() } else { Ok(()) }
}

/// Says whether there was what was asked for.
fn carry_out(client: &mut Client, line: Line) -> anyhow::Result<bool> {
    let Line {
        list,
        events,
        get,
        delete,
        create,
        add,
        update,
        flush,
        stats,
        count,
        zero,
        select,
        output,
        ..
    } = line;
    let filter = select.filter();
    match () {
        () if list == Some(Table::Expect) => show_expectations(client, &output),
        () if list == Some(Table::Conntrack) => {
            show_entries(client, &Command::ConntrackList { filter, zero }, Done::Shown, &output)
        }
        () if list.is_some() => {
            note("0 flow entries have been shown.");
            Ok(true)
        }
        () if let Some(table) = events => {
            let expectations = table == Table::Expect;
            let kinds = select.event_kinds();
            show_events(client, &Command::ConntrackEvents { filter, expectations, kinds }, &output)
        }
        () if flush == Some(Table::Expect) => client.call(&Command::ExpectFlush).map(|_| {
            note("expectation table has been emptied.");
            true
        }),
        () if flush.is_some() => client.call(&Command::ConntrackFlush).map(|_| {
            note("connection tracking table has been emptied.");
            true
        }),
        () if get.is_some() => show_one(client, filter, &output),
        () if delete.is_some() => {
            show_entries(client, &Command::ConntrackDelete { filter }, Done::Deleted, &output)
        }
        () if create.is_some() || add.is_some() => make(client, &select, create.is_some()),
        () if update.is_some() => {
            let command = Command::ConntrackUpdate { filter: select.flow_filter(), change: select.change()? };
            show_entries(client, &command, Done::Updated, &output)
        }
        () if stats => show_stats(client, &output),
        () => show_count(client, count.unwrap_or(Table::Conntrack), &output),
    }
}

/// Makes a connection; whether there was one already is an error only if it must be new.
fn make(client: &mut Client, select: &Select, must_be_new: bool) -> anyhow::Result<bool> {
    let mut made = 0;
    client.ask(&Command::ConntrackCreate { entry: select.draft()? }, |reply| {
        let Reply::Count { count } = reply else { return unexpected(&reply) };
        made = count;
        Ok(())
    })?;
    if must_be_new && made == 0 {
        note("such conntrack exists, try -U to update");
        return Ok(false);
    }
    note(&format!("{made} flow entries have been {}.", if must_be_new { "created" } else { "added" }));
    Ok(true)
}

/// What became of the entries that a command answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Shown,
    Deleted,
    Updated,
}

impl Done {
    /// Its word, and the letter of the command that does it to one entry.
    const fn words(self) -> (&'static str, char) {
        match self {
            Self::Shown => ("shown", 'A'),
            Self::Deleted => ("deleted", 'D'),
            Self::Updated => ("updated", 'U'),
        }
    }
}

/// Prints the connections that a command answers with. Listing none is fine, deleting or changing none is not.
fn show_entries(
    client: &mut Client,
    command: &Command,
    done: Done,
    output: &OutputArgs,
) -> anyhow::Result<bool> {
    let (word, letter) = done.words();
    // Where something is done as well, other commands may follow.
    let print = if done == Done::Shown { render::listed } else { render::line };
    let mut all = Vec::new();
    let mut count = 0;
    begin(output);
    client.ask(command, |reply| {
        let Reply::Entries { entries } = reply else { return unexpected(&reply) };
        count += entries.len();
        if output.is_json() {
            all.extend(entries);
        } else {
            for entry in &entries {
                print(&output.entry(entry, letter));
            }
        }
        Ok(())
    })?;
    if output.is_json() {
        render::json(&all);
    }
    end(output);
    note(&format!("{count} flow entries have been {word}."));
    Ok(done == Done::Shown || count > 0)
}

fn begin(output: &OutputArgs) {
    if output.form() == Form::Xml {
        render::line(output::XML_HEAD);
    }
}

fn end(output: &OutputArgs) {
    if output.form() == Form::Xml {
        render::line(output::XML_END);
    }
}

fn show_one(client: &mut Client, filter: EntryFilter, output: &OutputArgs) -> anyhow::Result<bool> {
    let mut found: Vec<EntryView> = Vec::new();
    client.ask(&Command::ConntrackList { filter, zero: false }, |reply| {
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
        [entry] => {
            begin(output);
            render::line(&output.entry(entry, 'A'));
            end(output);
        }
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
    begin(output);
    client.ask(command, |reply| {
        match reply {
            Reply::Watching => {}
            Reply::Lost { events } => note(&format!("{events} events were lost: they came too fast")),
            Reply::Event(event) if output.is_json() => render::listed(&serde_json::to_string(&event)?),
            Reply::Event(event) => render::listed(&output.event(&event)),
            other => return unexpected(&other),
        }
        Ok(())
    })?;
    end(output);
    Ok(true)
}

fn show_stats(client: &mut Client, output: &OutputArgs) -> anyhow::Result<bool> {
    client.ask(&Command::ConntrackStats, |reply| {
        let Reply::Stats { stats, line, .. } = reply else { return unexpected(&reply) };
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

fn show_count(client: &mut Client, table: Table, output: &OutputArgs) -> anyhow::Result<bool> {
    let command = match table {
        Table::Conntrack => Command::ConntrackCount,
        Table::Expect => Command::ExpectList,
        Table::Dying | Table::Unconfirmed => bail!("this table is always empty"),
    };
    client.ask(&command, |reply| {
        let count = match reply {
            Reply::Count { count } => count,
            Reply::Expectations { expectations } => expectations.len() as u64,
            reply => return unexpected(&reply),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        line: Line,
    }

    fn parse(line: &str) -> std::result::Result<Line, String> {
        let words = std::iter::once("conntrack").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.line).map_err(|error| error.to_string())
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
        assert_eq!(parse("-L -u UNREPLIED").unwrap().select.filter().status_unset, ["SEEN_REPLY"]);
        assert_eq!(parse("-L -m 0x10/0xf0").unwrap().select.filter().mark, Some((0x10, 0xf0)));
        for bad in ["", "-L -D", "-p nonsense -L", "-L -f ipv5", "-L --sport 65536", "-L other"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for few in [
            "-G -s 192.0.2.1 -d 192.0.2.2",
            "-G -p tcp -s 192.0.2.1 -d 192.0.2.2",
            "-G -p udp --sport 1 --dport 2",
            "-G -p icmp -s 192.0.2.1 -d 192.0.2.2",
            "-I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2",
            "-U -p udp",
            "-L -t 5",
            "-L -b 8",
            "-L -e NEW",
            "-D -z",
        ] {
            assert!(check(&parse(few).unwrap()).is_err(), "{few}");
        }
        for enough in [
            "-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2",
            "-G -p tcp -r 192.0.2.1 -q 192.0.2.2 --reply-port-src 1 --reply-port-dst 2",
            "-G -p icmp -s 192.0.2.1 -d 192.0.2.2 --icmp-type 8",
            "-A -p 50 -t 9 -s 192.0.2.1 -d 192.0.2.2",
            "-U -p udp -m 5",
        ] {
            check(&parse(enough).unwrap()).unwrap();
        }
    }
}
