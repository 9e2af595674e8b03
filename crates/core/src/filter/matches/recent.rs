//! `-m recent`: addresses that were seen, and how often lately.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::base::time::{Duration, Instant};
use crate::filter::kept::shared::Copies;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{addr, is_file_name, not, number_u32, show_addr};
use crate::packet::{Addr, Family};
use core::fmt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Addresses in one list (the module's `ip_list_tot`).
const MAX_ADDRESSES: usize = 100;
/// The kernel's bound on `--hitcount`.
const MAX_HITS: u32 = 65_535;
const MAX_NAME: usize = 199;

#[derive(Clone, Debug)]
pub struct Recent {
    pub action: Action,
    pub negated: bool,
    pub name: String,
    pub seconds: Option<u32>,
    pub hits: u32,
    pub reap: bool,
    pub same_ttl: bool,
    pub mask: u128,
    pub side: Side,
    pub family: Family,
    list: Arc<List>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Set,
    Check,
    Update,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// One list by name, shared by all rules that name it.
#[derive(Debug)]
pub struct List {
    /// What of an address counts: as the first rule that names the list says, and the others have no say.
    mask: u128,
    seen: Mutex<Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    entries: BTreeMap<Addr, Entry>,
    /// Counts updates: the entry with the least was not seen for longest.
    clock: u64,
    /// How many times each entry keeps.
    depth: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    ttl: u8,
    used: u64,
    at: VecDeque<Instant>,
}

impl List {
    /// One of its own, with the same entries.
    pub(in crate::filter) fn copied(&self) -> Self {
        Self { mask: self.mask, seen: Mutex::new(self.seen.lock().clone()) }
    }

    /// Makes room for a rule that counts so many hits; 32 times, rounded up to a power of two, are kept at least.
    fn reserve(&self, hits: u32) {
        let depth = if hits > 0 { (hits as usize).next_power_of_two() } else { 32 };
        let mut seen = self.seen.lock();
        seen.depth = seen.depth.max(depth);
    }
}

impl PartialEq for Recent {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Seen {
    fn insert(&mut self, key: Addr, ttl: u8, now: Instant) {
        if self.entries.len() >= MAX_ADDRESSES {
            let oldest = self.entries.iter().min_by_key(|(_, e)| e.used).map(|(key, _)| *key);
            oldest.map(|key| self.entries.remove(&key));
        }
        self.clock += 1;
        self.entries.insert(key, Entry { ttl, used: self.clock, at: VecDeque::from([now]) });
    }

    fn update(&mut self, key: Addr, ttl: u8, now: Instant) {
        self.clock += 1;
        let (clock, depth) = (self.clock, self.depth);
        if let Some(entry) = self.entries.get_mut(&key) {
            if entry.at.len() >= depth {
                entry.at.pop_front();
            }
            entry.at.push_back(now);
            (entry.used, entry.ttl) = (clock, ttl);
        }
    }

    /// Forgets the address that was not seen for longest, if its last time is too long ago.
    fn reap(&mut self, since: Instant, keep: Option<Addr>) {
        let oldest =
            self.entries.iter().min_by_key(|(_, e)| e.used).map(|(key, e)| (*key, e.at.back().copied()));
        if let Some((key, last)) = oldest
            && keep != Some(key)
            && last.is_some_and(|last| last < since)
        {
            self.entries.remove(&key);
        }
    }
}

impl Matcher for Recent {
    const SPEC: Spec = Spec {
        name: "recent",
        family: None,
        protos: &[],
        options: &[
            Opt::flag("set").or_not(),
            Opt::flag("rcheck").or_not(),
            Opt::flag("update").or_not(),
            Opt::flag("remove").or_not(),
            Opt::value("seconds"),
            Opt::flag("reap"),
            Opt::value("hitcount"),
            Opt::flag("rttl"),
            Opt::value("name"),
            Opt::value("mask"),
            Opt::flag("rsource"),
            Opt::flag("rdest"),
        ],
    };

    fn copied(&self, copies: &Copies<'_>) -> Self {
        Self { list: copies.list(&self.list), ..self.clone() }
    }

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let family = setting.family;
        let actions = ["set", "rcheck", "update", "remove"];
        options.exclusive(&actions)?;
        options.exclusive(&["set", "rttl"])?;
        options.exclusive(&["remove", "rttl"])?;
        let Some(action) = options.given.iter().find(|g| actions.contains(&g.opt.name)) else {
            return Err(
                options.problem("`-m recent` needs one of `--set`, `--rcheck`, `--update`, `--remove`")
            );
        };
        let seconds = options.get("seconds").map(|given| {
            given.read(|text| match number_u32(text)? {
                0 => Err(Complaint::new("no time at all never holds").hint("at least 1 second")),
                n => Ok(n),
            })
        });
        let seconds = seconds.transpose()?;
        let hits = options.get("hitcount").map_or(Ok(0), |g| g.read(number_u32))?;
        if hits > MAX_HITS {
            return Err(options
                .problem(format!("`--hitcount {hits}` is more than is remembered"))
                .hint(format!("at most {MAX_HITS}")));
        }
        let kind = match action.opt.name {
            "set" => Action::Set,
            "rcheck" => Action::Check,
            "update" => Action::Update,
            _ => Action::Remove,
        };
        if matches!(kind, Action::Set | Action::Remove) && (seconds.is_some() || hits > 0) {
            let problem = options.problem("`--seconds` and `--hitcount` need `--rcheck` or `--update`");
            return Err(problem);
        }
        if options.has("reap") && seconds.is_none() {
            return Err(options.problem("`--reap` needs `--seconds`"));
        }
        let name = options.get("name").map_or("DEFAULT", |g| g.text()).to_owned();
        if name.len() > MAX_NAME || !is_file_name(&name) {
            return Err(options.problem(format!("no list can be named `{name}`")));
        }
        let mask = options.get("mask").map(|g| g.read(|text| addr(text, family))).transpose()?;
        let mask = mask.map_or_else(|| u128::MAX << (128 - u32::from(family.bits())), Addr::bits);
        let list = setting.shared.recent_list(&name, || List { mask, seen: Mutex::default() });
        if list.mask != mask {
            let problem =
                options.problem(format!("list `{name}` has the mask of the rule that named it first"));
            setting.warn(problem.hint("another mask needs another `--name`"));
        }
        list.reserve(hits);
        Ok(Self {
            action: kind,
            negated: action.negated,
            name,
            seconds,
            hits,
            reap: options.has("reap"),
            same_ttl: options.has("rttl"),
            mask,
            // The last one counts.
            side: match options.given.iter().rfind(|g| matches!(g.opt.name, "rsource" | "rdest")) {
                Some(given) if given.opt.name == "rdest" => Side::Destination,
                _ => Side::Source,
            },
            family,
            list,
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let now = view.now;
        let full = match self.side {
            Side::Source => view.pkt.src(),
            Side::Destination => view.pkt.dst(),
        };
        let key = Addr::from_bits(full.bits() & self.list.mask);
        // The TTL as it was before the router took one off; Linux takes a rule's reset for forwarded, and nothing else of
        // its own.
        let goes_on = view.out_iface.is_some() && (view.in_iface.is_some() || view.is_rules_reset);
        let ttl = if goes_on { view.pkt.ttl().wrapping_add(1) } else { view.pkt.ttl() };
        let mut seen = self.list.seen.lock();
        let known =
            seen.entries.get(&key).filter(|e| !self.same_ttl || e.ttl == ttl || e.ttl == 0 || ttl == 0);
        let Some(entry) = known else {
            let sets = self.action == Action::Set;
            if sets {
                seen.insert(key, ttl, now);
            }
            return (sets != self.negated).into();
        };
        let mut holds = true;
        match self.action {
            Action::Set => {}
            Action::Remove => drop(seen.entries.remove(&key)),
            Action::Check | Action::Update => {
                let window = self.seconds.map(|s| Duration::from_secs(u64::from(s)));
                let recent = |at: &&Instant| window.is_none_or(|window| now.saturating_since(**at) <= window);
                let hits = entry.at.iter().filter(recent).count();
                holds = hits > 0 && hits >= self.hits as usize;
                if self.reap
                    && let Some(window) = window
                {
                    let since = Instant::from_nanos(now.as_nanos().saturating_sub(window.as_nanos() as u64));
                    let keep = (self.action == Action::Update && holds != self.negated).then_some(key);
                    seen.reap(since, keep);
                }
            }
        }
        if self.action == Action::Set || (self.action == Action::Update && holds != self.negated) {
            seen.update(key, ttl, now);
        }
        (holds != self.negated).into()
    }
}

impl fmt::Display for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Set => "set",
            Action::Check => "rcheck",
            Action::Update => "update",
            Action::Remove => "remove",
        };
        write!(f, "{} --{action}", not(self.negated))?;
        if let Some(seconds) = self.seconds {
            // The tools print a signed number.
            write!(f, " --seconds {}", seconds as i32)?;
        }
        if self.reap {
            f.write_str(" --reap")?;
        }
        if self.hits > 0 {
            write!(f, " --hitcount {}", self.hits)?;
        }
        if self.same_ttl {
            f.write_str(" --rttl")?;
        }
        let side = match self.side {
            Side::Source => "rsource",
            Side::Destination => "rdest",
        };
        let mask = show_addr(Addr::from_bits(self.mask), self.family);
        write!(f, " --name {} --mask {mask} --{side}", self.name)
    }
}
