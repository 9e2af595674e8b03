//! `stateway lab reload`, `restart`, `rules`, `sysctl`, `logs` and `link`: a lab that is up, changed and asked.

use super::super::conntrack::RouterArgs;
use super::super::reload::{self, Settings};
use super::super::rules::list::Look;
use super::super::{Failure, Result, render};
use super::named::{self, Named, named};
use super::up::{self, takes_root};
use super::{say, tell};
use anyhow::anyhow;
use stateway_lab::builtin;
use stateway_lab::live::reload as taken_over;
use stateway_lab::model::Impairment;
use stateway_lab::netns::command::Interrupt;
use stateway_lab::netns::link::{self, Cable, Change};
use stateway_lab::netns::state::{LOG, Record, folder};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct LabArg {
    /// A folder with a lab.yaml, the file, or the name of a lab that is up
    lab: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct RulesArgs {
    #[command(flatten)]
    lab: LabArg,
    #[command(flatten)]
    look: Look,
}

#[derive(Debug, clap::Args)]
pub(super) struct SysctlArgs {
    #[command(flatten)]
    lab: LabArg,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    lab: LabArg,
    /// Whose: `router`, or a host, for what its services say
    #[arg(default_value = "router")]
    member: String,
    /// Go on with what comes, until Ctrl-C or the end of the lab
    #[arg(long, short)]
    follow: bool,
    /// The last lines alone
    #[arg(long, short = 'n', visible_alias = "tail", value_name = "N")]
    lines: Option<usize>,
}

/// What a host's link does to what the host sends; without options, how the links are.
#[derive(Debug, clap::Args)]
pub(super) struct LinkArgs {
    #[command(flatten)]
    lab: LabArg,
    /// A host; all of them, to look
    host: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
#[group(id = "change", multiple = true, requires = "host")]
struct ChangeArgs {
    /// Pull the cable
    #[arg(long, conflicts_with = "up")]
    down: bool,
    /// Plug it in again
    #[arg(long)]
    up: bool,
    /// Every packet takes so much longer: `50ms`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// And up to so much more or less
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "delay")]
    jitter: Option<Duration>,
    /// So many packets are lost: `5%`
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    loss: Option<f64>,
    /// So many are sent twice
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    duplicate: Option<f64>,
    /// So many overtake those that wait
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "delay")]
    reorder: Option<f64>,
    /// No more than so many bits a second: `10mbit`
    #[arg(long, value_name = "RATE", value_parser = kilobits)]
    rate: Option<u64>,
    /// As it was made: no impairment
    #[arg(long, conflicts_with_all = ["delay", "loss", "duplicate", "reorder", "rate"])]
    reset: bool,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| "a share between `0%` and `100%`".to_owned())
}

/// A rate as tc(8) writes it.
fn kilobits(text: &str) -> std::result::Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (number, factor) = [("gbit", 1_000_000), ("mbit", 1000), ("kbit", 1)]
        .into_iter()
        .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, factor)))
        .ok_or("a rate with its unit: `64kbit`, `10mbit`, `1gbit`")?;
    let number = number.trim().parse::<u64>().ok().filter(|number| *number > 0);
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "a whole number before its unit".to_owned())
}

pub(super) fn reload(args: &LabArg) -> Result {
    // That its file has changed is why one is here.
    let record = is_up(&args.lab)?;
    takes_root("reloading the rules of a lab", "")?;
    reload::load_again(&mut RouterArgs::of(&args.lab).connect()?)?;
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let is_whole = taken_over(&record, interrupt).map_err(Failure::Machine)?;
    say(&format!("the lab `{}` has its new rules, from {}", record.lab, builtin::shown(&record.file)))?;
    if !is_whole {
        tell(&format!(
            "warning: its hosts are not as the file says now\n  hint: `stateway lab restart {}` builds it again",
            args.lab.display()
        ));
    }
    Ok(())
}

pub(super) fn restart(args: &LabArg) -> Result {
    let Named { record, .. } = named(&args.lab)?;
    up::restart(&args.lab, record.as_ref())
}

pub(super) fn rules(args: &RulesArgs) -> Result {
    named::up(&args.lab.lab)?;
    args.look.show(&mut RouterArgs::of(&args.lab.lab).connect()?)
}

pub(super) fn sysctl(args: &SysctlArgs) -> Result {
    named::up(&args.lab.lab)?;
    args.settings.apply(&mut RouterArgs::of(&args.lab.lab).connect()?)
}

fn is_up(lab: &Path) -> Result<Record> {
    let Named { name, record } = named(lab)?;
    record.ok_or_else(|| {
        Failure::Input(anyhow!("the lab `{name}` is not up\n  hint: `stateway lab up {}`", lab.display()))
    })
}

pub(super) fn logs(args: &LogsArgs) -> Result {
    let record = is_up(&args.lab.lab)?;
    let files = log_files(&record, &args.member)?;
    let mut logs = Vec::new();
    for path in files {
        let log = Log::open(&path).map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                "\n  hint: run it with `sudo`"
            } else {
                ""
            };
            Failure::Machine(anyhow!("cannot read {}: {error}{hint}", path.display()))
        })?;
        logs.push(log);
    }
    for log in &mut logs {
        let text = log.rest().map_err(|error| Failure::Machine(error.into()))?;
        print(last_lines(&text, args.lines));
    }
    if !args.follow {
        return Ok(());
    }
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    // Nothing wakes us for a line: a log is looked at as often as a person reads.
    while interrupt.check().is_ok() && logs.iter().any(Log::is_there) {
        let _ = crossbeam_channel::after(Duration::from_millis(200)).recv();
        for log in &mut logs {
            print(&log.rest().map_err(|error| Failure::Machine(error.into()))?);
        }
    }
    Ok(())
}

/// The logs of the router, or of the services of a host.
fn log_files(record: &Record, member: &str) -> Result<Vec<PathBuf>> {
    let folder = folder().join(&record.lab);
    if member == "router" {
        if record.control.is_none() {
            return Err(Failure::Input(anyhow!(
                "in the lab `{}` the kernel stands between the hosts: it writes no log",
                record.lab
            )));
        }
        return Ok(vec![folder.join(LOG)]);
    }
    if !record.hosts.iter().any(|host| host.host == member) {
        let hosts = record.hosts.iter().map(|host| host.host.as_str()).chain(["router"]);
        let hint = stateway_lab::error::hint(member, hosts, "logs");
        let hint = hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        return Err(Failure::Input(anyhow!("the lab `{}` has no host `{member}`{hint}", record.lab)));
    }
    let prefix = format!("{member}.");
    let entries = std::fs::read_dir(folder.join("log")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

/// A log that may grow.
struct Log(File);

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// What was written since it was asked last.
    fn rest(&mut self) -> io::Result<String> {
        let at = self.0.stream_position()?;
        if self.0.metadata()?.len() < at {
            // Somebody has emptied it.
            self.0.seek(SeekFrom::Start(0))?;
        }
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// It goes with its lab.
    fn is_there(&self) -> bool {
        self.0.metadata().is_ok_and(|file| file.nlink() > 0)
    }
}

fn last_lines(text: &str, most: Option<usize>) -> &str {
    let Some(most) = most else { return text };
    let mut starts: Vec<usize> = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start)
        })
        .collect();
    starts.push(text.len());
    &text[starts[starts.len().saturating_sub(most + 1)]..]
}

fn print(text: &str) {
    let mut out = stateway_runtime::terminal::Output::stdout();
    render::finish(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

pub(super) fn link(args: &LinkArgs) -> Result {
    let record = named::up(&args.lab.lab)?;
    takes_root("links of a lab", "")?;
    let hosts: Vec<&str> = record.hosts.iter().map(|host| host.host.as_str()).collect();
    if let Some(name) = args.host.as_deref().filter(|name| !hosts.contains(name)) {
        let hint = stateway_lab::error::hint(name, hosts, "hosts");
        let hint = hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        return Err(Failure::Input(anyhow!("the lab `{}` has no host `{name}`{hint}", record.lab)));
    }
    let interrupt = Interrupt::listen().map_err(Failure::Machine)?;
    let links = link::Links::of(&record.lab, interrupt).map_err(Failure::Machine)?;
    if let (Some(host), Some(change)) = (&args.host, args.change.read()) {
        links.change(host, &change).map_err(Failure::Machine)?;
    }
    let shown = match &args.host {
        Some(host) => vec![host.as_str()],
        None => hosts,
    };
    for host in shown {
        say(&format!("{host:<12} {}", links.describe(host).map_err(Failure::Machine)?))?;
    }
    Ok(())
}

impl ChangeArgs {
    /// `None` to look.
    fn read(&self) -> Option<Change> {
        let Self { down, up, delay, jitter, loss, duplicate, reorder, rate, reset } = *self;
        let cable = match (down, up) {
            (true, _) => Some(Cable::Pulled),
            (_, true) => Some(Cable::Plugged),
            _ => None,
        };
        let is_impaired =
            [loss, duplicate, reorder].iter().any(Option::is_some) || delay.is_some() || rate.is_some();
        let impairment = (is_impaired || reset).then(|| Impairment {
            delay: delay.unwrap_or_default(),
            jitter: jitter.unwrap_or_default(),
            loss_percent: loss.unwrap_or_default(),
            reorder_percent: reorder.unwrap_or_default(),
            duplicate_percent: duplicate.unwrap_or_default(),
            rate_kbit: rate,
        });
        (cable.is_some() || impairment.is_some()).then_some(Change { cable, impairment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_ones() {
        let text = "one\ntwo\nthree\n";
        for (most, shown) in
            [(None, text), (Some(0), ""), (Some(1), "three\n"), (Some(2), "two\nthree\n"), (Some(9), text)]
        {
            assert_eq!(last_lines(text, most), shown, "{most:?}");
        }
        assert_eq!(last_lines("", Some(1)), "");
        assert_eq!(last_lines("one\ntw", Some(1)), "tw");
    }

    #[test]
    fn rates_and_shares_are_written_as_tc_does() {
        assert_eq!(
            ["64kbit", "10Mbit", "1gbit"].map(|text| kilobits(text).unwrap()),
            [64, 10_000, 1_000_000]
        );
        assert!(["10", "mbit", "0kbit", "1.5mbit", "10mb"].iter().all(|text| kilobits(text).is_err()));
        assert_eq!((percent("5%"), percent("0.5")), (Ok(5.0), Ok(0.5)));
        assert!(percent("101%").is_err() && percent("-1").is_err());
    }
}
