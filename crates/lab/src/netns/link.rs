//! The link of a host of a lab that is up: what it does to what the host sends, and whether the cable is plugged in.

#![forbid(unsafe_code)]

use super::build;
use super::command::Interrupt;
use super::state::State;
use crate::model::Impairment;
use anyhow::{Context as _, anyhow};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// The links of one lab, whose lock we hold.
#[derive(Debug)]
pub struct Links(State);

/// What is to be different about a link.
#[derive(Clone, Debug)]
pub struct Change {
    pub cable: Option<Cable>,
    /// In the place of what there was; one without anything in it takes that away.
    pub impairment: Option<Impairment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    Plugged,
    Pulled,
}

impl Links {
    /// # Errors
    /// The lab is not up, or another command is at work on it.
    pub fn of(lab: &str, interrupt: Interrupt) -> anyhow::Result<Self> {
        let state = State::attach(lab, interrupt)?;
        state.map(Self).ok_or_else(|| anyhow!("the lab `{lab}` is not up"))
    }

    /// # Errors
    /// The kernel does not do it, and why.
    pub fn change(&self, host: &str, change: &Change) -> anyhow::Result<()> {
        if let Some(impairment) = &change.impairment {
            self.impair(host, impairment)?;
        }
        match change.cable {
            Some(Cable::Pulled) if self.is_up(host)? => self.pull(host),
            Some(Cable::Plugged) if !self.is_up(host)? => self.plug(host),
            _ => Ok(()),
        }
    }

    fn impair(&self, host: &str, impairment: &Impairment) -> anyhow::Result<()> {
        let netns = self.0.netns(host);
        let mut words: Vec<String> =
            ["-n", &netns, "qdisc", "replace", "dev", "eth0", "root"].map(str::to_owned).to_vec();
        if *impairment == Impairment::default() {
            words.push("pfifo_fast".to_owned());
        } else {
            words.extend(build::netem(impairment));
        }
        let args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        self.0.brief("tc", &args).map(drop).map_err(|error| {
            anyhow!("the link is not impaired: {error:#}\n  hint: it takes netem, `modprobe sch_netem`")
        })
    }

    fn ip(&self, host: &str, words: &[&str]) -> anyhow::Result<String> {
        let netns = self.0.netns(host);
        let args: Vec<&OsStr> =
            ["-n", &netns].into_iter().chain(words.iter().copied()).map(OsStr::new).collect();
        self.0.brief("ip", &args)
    }

    /// Of its own doing: what its other end does is not asked.
    fn is_up(&self, host: &str) -> anyhow::Result<bool> {
        let shown = self.ip(host, &["-o", "link", "show", "dev", "eth0"])?;
        let flags = shown.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(flags, _)| flags);
        Ok(flags.is_some_and(|flags| flags.split(',').any(|flag| flag == "UP")))
    }

    /// Whoever takes an interface down loses its routes, and its IPv6 addresses: they are kept for the way back.
    fn pull(&self, host: &str) -> anyhow::Result<()> {
        let mut lines = String::new();
        for address in self.ip(host, &["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"])?.lines()
        {
            if let Some(address) = address.split_whitespace().skip_while(|word| *word != "inet6").nth(1) {
                _ = writeln!(lines, "addr replace {address} dev eth0 nodad");
            }
        }
        for family in ["-4", "-6"] {
            for route in self.ip(host, &[family, "route", "show", "dev", "eth0", "proto", "boot"])?.lines() {
                let [to, "via", gateway, ..] = route.split_whitespace().collect::<Vec<_>>()[..] else {
                    continue;
                };
                _ = writeln!(lines, "route replace {to} via {gateway} dev eth0");
            }
        }
        let file = self.kept(host);
        fs::write(&file, lines).with_context(|| format!("cannot write {}", file.display()))?;
        self.ip(host, &["link", "set", "dev", "eth0", "down"]).map(drop)
    }

    fn plug(&self, host: &str) -> anyhow::Result<()> {
        self.ip(host, &["link", "set", "dev", "eth0", "up"])?;
        let file = self.kept(host);
        // Somebody else took it down: nothing is known of how it was.
        let Ok(lines) = fs::read_to_string(&file) else { return Ok(()) };
        self.0.ip_batch(Some(&self.0.netns(host)), &lines)?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }

    fn kept(&self, host: &str) -> PathBuf {
        self.0.path(&format!("{host}.unplugged"))
    }

    /// `up`, `down`, and what it does to what the host sends.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn describe(&self, host: &str) -> anyhow::Result<String> {
        let mut words = if self.is_up(host)? { "up" } else { "down" }.to_owned();
        let netns = self.0.netns(host);
        let shown = self.0.brief("tc", &["-n", &netns, "qdisc", "show", "dev", "eth0"].map(OsStr::new))?;
        if let Some(netem) = shown.lines().find_map(impairment) {
            _ = write!(words, "   {netem}");
        }
        Ok(words)
    }
}

/// What netem does, of a line of tc: `qdisc netem 8001: root refcnt 2 limit 1000 delay 50ms loss 5%`.
fn impairment(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("qdisc netem")?.split_whitespace();
    words.find(|word| *word == "limit")?;
    words.next();
    // A seed of its own choice is no impairment.
    Some(words.take_while(|word| *word != "seed").collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::impairment;

    #[test]
    fn an_impairment_is_what_tc_says_behind_the_limit() {
        let line = "qdisc netem 8001: root refcnt 2 limit 1000 delay 50ms  5ms loss 5% seed 123";
        assert_eq!(impairment(line).as_deref(), Some("delay 50ms 5ms loss 5%"));
        assert_eq!(impairment("qdisc pfifo_fast 0: root refcnt 2 bands 3"), None);
    }
}
