//! The router process of a live lab, and what its control socket tells.

#![forbid(unsafe_code)]

use crate::model::{RulesText, RunnerKind};
use crate::netns::Middle;
use crate::netns::command::{self, Lasting, Patience};
use crate::netns::services::own_program;
use crate::netns::state::{LOG, Record, State};
use crate::runner::Seen;
use anyhow::{Context as _, anyhow, bail};
use stateway_core::conntrack::{CtState, Direction};
use stateway_core::packet::TcpFlags;
use stateway_core::packet::summary::Gist;
use stateway_runtime::control::protocol::{Command, EntryFilter, Reply, Verdict, VerdictFilter};
use stateway_runtime::control::{Client, Listening, place};
use stateway_runtime::uninterrupted;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

/// How long the router has until it forwards.
const READY: Duration = Duration::from_secs(60);
/// Nobody waits longer for an answer on the control socket.
const PATIENCE: Duration = Duration::from_secs(60);
/// From a host through the router.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// A router that is this program, running on its own.
pub struct RouterProcess {
    control: PathBuf,
    watch: Option<Listening>,
}

impl RouterProcess {
    /// Starts it in its namespace, and waits until it forwards.
    pub fn start(state: &State) -> anyhow::Result<Self> {
        let control = state.record.control.clone().context("a live lab has a control socket")?;
        place::make_folder(&place::folder())?;
        let notify = state.path("notify");
        let socket =
            UnixDatagram::bind(&notify).with_context(|| format!("cannot make {}", notify.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut words = own_program(&["run"])?;
        words.extend([
            state.record.file.clone().into_os_string(),
            OsString::from("--control"),
            control.clone().into(),
        ]);
        let env = [("NOTIFY_SOCKET", notify.as_os_str())];
        let log = state.path(LOG);
        // It says nothing there: the pipe ends when the router does.
        let (alive, stdout) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&alive, true)?;
        // Its control socket is for those outside.
        let router =
            Lasting { words: &words, env: &env, in_view: false, log: &log, stdout: Some(stdout.into()) };
        router.start(&state.lock, &state.entry("router")?)?;
        let deadline = command::now() + READY;
        let mut word = [0; 64];
        loop {
            state.interrupt.check()?;
            match uninterrupted(|| socket.recv(&mut word)) {
                Ok(len) if word[..len].starts_with(b"READY=1") => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if matches!((&alive).read(&mut word), Ok(0)) {
                bail!("the router ended: {}", said().trim());
            }
            if command::now() >= deadline {
                bail!("the router is not ready after {} s: {}", READY.as_secs(), said().trim());
            }
        }
        fs::remove_file(&notify)?;
        Ok(Self { control, watch: None })
    }

    /// Takes hold of one that runs.
    pub fn of(record: &Record) -> anyhow::Result<Self> {
        let control = record.control.clone().context("this lab has no router process")?;
        let router = Self { control, watch: None };
        let lab = &record.lab;
        router.ask(&Command::Status).map_err(|error| {
            anyhow!(
                "the router of the lab `{lab}` has ended ({error:#})\n  hint: `stateway lab up` builds it again, \
                 `stateway lab down {lab}` takes the rest away"
            )
        })?;
        Ok(router)
    }

    fn ask(&self, command: &Command) -> anyhow::Result<Vec<Reply>> {
        self.client()?.call(command)
    }

    fn client(&self) -> anyhow::Result<Client> {
        let mut client = Client::connect(&self.control)?;
        client.set_timeout(Some(PATIENCE))?;
        Ok(client)
    }
}

impl RouterProcess {
    /// Begins to hear of every packet.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.watch = Some(Listening::begin(self.client()?, VerdictFilter::default())?);
        Ok(())
    }

    /// Hears of every packet; no more than `most` of them wait to be asked for.
    pub(super) fn listen(&self, most: usize) -> anyhow::Result<Listening> {
        Listening::bounded(self.client()?, VerdictFilter::default(), most)
    }

    /// What was heard since [`RouterProcess::begin`], which ends.
    fn verdicts(&mut self) -> anyhow::Result<Vec<Verdict>> {
        self.watch.take().map_or_else(|| Ok(Vec::new()), |watch| watch.finish(PATIENCE))
    }
}

impl Middle for RouterProcess {
    fn kind(&self) -> RunnerKind {
        RunnerKind::Live
    }

    fn watch(&mut self) -> anyhow::Result<()> {
        self.begin()
    }

    fn seen(&mut self, enough: &dyn Fn(&[Seen]) -> bool) -> anyhow::Result<Vec<Seen>> {
        let mut packets = Vec::new();
        let mut patience = Patience::new(UNDER_WAY);
        while !enough(&packets) && !patience.is_over() {
            let Some(watch) = &self.watch else { break };
            packets.extend(watch.next(patience.slice())?.and_then(seen));
        }
        packets.extend(self.verdicts()?.into_iter().filter_map(seen));
        Ok(packets)
    }

    fn replace_rules(&mut self, rules: &RulesText) -> anyhow::Result<()> {
        let RulesText { v4, v6 } = rules.clone();
        // A step says what it means, as `iptables-restore` takes it.
        self.ask(&Command::RulesReplace { rules: v4, rules6: v6, may_open: true }).map(drop)
    }

    fn rules(&mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        for reply in self.ask(&Command::Rules)? {
            let Reply::Rules { rules, .. } = reply else { continue };
            for rule in rules.iter().filter(|rule| rule.text != "ACCEPT") {
                _ = writeln!(text, "IPv{} {} {}", rule.family, rule.name, rule.text);
            }
        }
        Ok(text)
    }

    fn table(&mut self) -> anyhow::Result<Vec<String>> {
        let list = Command::ConntrackList { filter: EntryFilter::default(), zero: false };
        let mut lines = Vec::new();
        for reply in self.ask(&list)? {
            if let Reply::Entries { entries } = reply {
                lines.extend(entries.into_iter().map(|entry| entry.line));
            }
        }
        Ok(lines)
    }

    fn counters(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut values = BTreeMap::new();
        for reply in self.ask(&Command::Drops)? {
            if let Reply::Drops { drops } = reply {
                values.extend(drops.into_iter().map(|named| (format!("drop/{}", named.name), named.count)));
            }
        }
        for reply in self.ask(&Command::Rules)? {
            if let Reply::Rules { rules, .. } = reply {
                for rule in rules {
                    *values.entry(rule.name).or_default() += rule.packets;
                }
            }
        }
        Ok(values)
    }
}

/// A verdict as the tests read it. ARP and the like are left out: no rule ever sees them.
pub fn seen(verdict: Verdict) -> Option<Seen> {
    let gist = Gist {
        tcp_flags: verdict.tcp_flags.map(TcpFlags::from_bits_retain),
        icmp: verdict.icmp,
        fragment: verdict.fragment,
    };
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let word = verdict.ctstate.as_deref();
    let states = [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];
    let directions = [Direction::Original, Direction::Reply];
    Some(Seen {
        time: Duration::try_from_secs_f64(verdict.time).unwrap_or_default(),
        in_port: verdict.in_iface,
        out_port: verdict.out.into_iter().next(),
        src: verdict.src?,
        dst: verdict.dst.unwrap_or(nobody),
        protocol: verdict.protocol.unwrap_or_default(),
        ports: verdict.sport.zip(verdict.dport),
        gist,
        summary: verdict.summary,
        state: states.into_iter().find(|state| Some(state.word()) == word),
        direction: directions
            .into_iter()
            .find(|direction| Some(direction.word()) == verdict.direction.as_deref()),
        fate: verdict.fate,
        rule: verdict.rule,
        reason: verdict.reason,
    })
}
