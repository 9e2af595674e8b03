//! `-m hashlimit`: a token bucket for each address, port or pair of them.
//!
//! Buckets live in tables that rules share by name. What a table counts by, and how fast its buckets fill, is settled
//! by the first rule that names it; later ones add only whether they hold up to the rate or above it.

#![forbid(unsafe_code)]

use super::limit::{Bucket, Rate};
use super::{Answer, Matcher, Setting, Spec, View};
use crate::base::time::{Duration, Instant};
use crate::filter::kept::shared::Copies;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{is_file_name, number, number_u32, unsigned};
use crate::packet::{Addr, Family};
use bitflags::bitflags;
use core::fmt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

mod bytes;

use bytes::ByteRate;

/// The kernel counts the time between packets in units of a microsecond here.
const SCALE: u64 = 1_000_000;
const DEFAULT_BURST: u32 = 5;
const MAX_BURST: u64 = 1_000_000;
const DEFAULT_GC_MILLIS: u32 = 1_000;
/// The tools read a signed number.
const MAX_INTERVAL: u32 = i32::MAX as u32;
/// What the kernel cuts sizes of tables to.
const MAX_TABLE: u32 = 1 << 20;
/// Buckets in one table where the rule sets no bound.
const MAX_BUCKETS: usize = 65_536;
const MAX_NAME: usize = 254;

bitflags! {
    /// What has a bucket of its own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Mode: u8 {
        const SRCIP = 1;
        const SRCPORT = 2;
        const DSTIP = 4;
        const DSTPORT = 8;
    }
}

impl Mode {
    const WORDS: [(Self, &'static str); 4] = [
        (Self::SRCIP, "srcip"),
        (Self::SRCPORT, "srcport"),
        (Self::DSTIP, "dstip"),
        (Self::DSTPORT, "dstport"),
    ];

    fn parse(text: &str) -> Result<Self, Complaint> {
        let mut mode = Self::empty();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let found = Self::WORDS.iter().find(|(_, known)| *known == word);
            let (bit, _) = found.ok_or_else(|| {
                Complaint::new(format!("no mode named `{word}`"))
                    .hint("a list of srcip, srcport, dstip, dstport")
            })?;
            mode |= *bit;
        }
        Ok(mode)
    }
}

#[derive(Clone, Debug)]
pub struct Hashlimit {
    /// Holds above the rate, not up to it.
    pub above: bool,
    pub name: String,
    pub config: Config,
    table: Arc<Buckets>,
}

/// How a table counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub pace: Pace,
    /// `--hashlimit-rate-match`: looks at what came in such a stretch of seconds, and takes nothing away.
    pub interval: Option<u32>,
    pub mode: Mode,
    pub src_len: u8,
    pub dst_len: u8,
    pub size: u32,
    pub max: u32,
    pub gc_millis: u32,
    /// How long an unused bucket stays.
    pub expire_millis: u32,
    pub family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Packets { rate: Rate, burst: u32 },
    Bytes(ByteRate),
}

impl Pace {
    /// As long as the unit of the rate; for bytes, a while.
    fn usual_expire(self) -> u32 {
        match self {
            Self::Packets { rate, .. } => (rate.unit_seconds() * 1_000) as u32,
            Self::Bytes(rate) => rate.usual_expire_millis(),
        }
    }
}

/// One table by name, shared by all rules that name it.
#[derive(Debug)]
pub struct Buckets {
    config: Config,
    cells: Mutex<BTreeMap<Key, (Cell, Instant)>>,
}

impl Buckets {
    /// One of its own, with the same cells.
    pub(in crate::filter) fn copied(&self) -> Self {
        Self { config: self.config.clone(), cells: Mutex::new(self.cells.lock().clone()) }
    }
}

type Key = (Addr, Addr, u16, u16);

/// What is kept for one key.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Packets(Bucket),
    Bytes(bytes::Bucket),
    Window(Window),
}

/// What came in the stretch of time that runs now, and whether the last one had too much.
#[derive(Clone, Copy, Debug)]
struct Window {
    began_at: Instant,
    amount: u64,
    was_over: bool,
}

impl PartialEq for Hashlimit {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Matcher for Hashlimit {
    const SPEC: Spec = Spec {
        name: "hashlimit",
        family: None,
        protos: &[],
        options: &[
            Opt::value("hashlimit-upto").also(&["hashlimit"]).or_not(),
            Opt::value("hashlimit-above").or_not(),
            Opt::value("hashlimit-burst"),
            Opt::value("hashlimit-mode"),
            Opt::value("hashlimit-name"),
            Opt::value("hashlimit-srcmask"),
            Opt::value("hashlimit-dstmask"),
            Opt::value("hashlimit-htable-size"),
            Opt::value("hashlimit-htable-max"),
            Opt::value("hashlimit-htable-gcinterval"),
            Opt::value("hashlimit-htable-expire"),
            Opt::flag("hashlimit-rate-match"),
            Opt::value("hashlimit-rate-interval"),
        ],
    };

    fn copied(&self, copies: &Copies<'_>) -> Self {
        Self { table: copies.table(&self.table), ..self.clone() }
    }

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["hashlimit-upto", "hashlimit-above"])?;
        let given = match options.get("hashlimit-above") {
            Some(above) => above,
            None => options.require("hashlimit-upto")?,
        };
        let is_of_bytes = given.text().split('/').next().is_some_and(|n| n.ends_with(['b', 'B']));
        let mut pace = if is_of_bytes {
            Pace::Bytes(bytes::read(given, options.get("hashlimit-burst"))?)
        } else {
            let rate = given.read(|text| Rate::parse(text, SCALE))?;
            let burst = options.get("hashlimit-burst").map_or(Ok(DEFAULT_BURST), |g| g.read(parse_burst))?;
            if credits(rate, burst) < credits(rate, 1) {
                let at = options.get("hashlimit-burst").unwrap_or(given);
                let problem = at.problem(format!("a burst of {burst} is too large for a rate of {rate}"));
                return Err(problem.hint("a lower burst, or a higher rate"));
            }
            Pace::Packets { rate, burst }
        };
        // The tools take the unit as it is written: buckets of `60/min` stay for a minute, though it prints as `1/sec`.
        let usual_expire = match pace {
            Pace::Packets { .. } => given.read(|text| Ok((Rate::parts(text)?.1 * 1_000) as u32))?,
            Pace::Bytes(_) => pace.usual_expire(),
        };
        let interval = Self::interval(options, setting, &mut pace)?;
        let name = options.require("hashlimit-name")?;
        if name.text().len() > MAX_NAME || !is_file_name(name.text()) {
            return Err(name.problem(format!("no table can be named `{}`", name.text())));
        }
        let bits = setting.family.bits();
        let len = |name| {
            options.get(name).map_or(Ok(bits), |g| g.read(|t| number(t, u64::from(bits)).map(|n| n as u8)))
        };
        let amount = |name, default| options.get(name).map_or(Ok(default), |g| g.read(number_u32));
        let some = |name, default| match options.get(name).map(|given| (given, given.read(number_u32))) {
            None => Ok(default),
            Some((given, Ok(0))) => Err(given.problem("no time at all is too short").hint("at least 1")),
            Some((_, millis)) => millis,
        };
        let config = Config {
            pace,
            interval,
            mode: options.get("hashlimit-mode").map_or(Ok(Mode::empty()), |g| g.read(Mode::parse))?,
            src_len: len("hashlimit-srcmask")?,
            dst_len: len("hashlimit-dstmask")?,
            size: amount("hashlimit-htable-size", 0)?.min(MAX_TABLE),
            max: amount("hashlimit-htable-max", 0)?.min(MAX_TABLE),
            gc_millis: some("hashlimit-htable-gcinterval", DEFAULT_GC_MILLIS)?,
            expire_millis: some("hashlimit-htable-expire", usual_expire)?,
            family: setting.family,
        };
        let table = setting
            .shared
            .hashlimit_table(name.text(), || Buckets { config: config.clone(), cells: Mutex::default() });
        if table.config != config {
            let problem =
                name.problem(format!("table `{}` counts as the rule that named it first", name.text()));
            setting.warn(problem.hint("another rate, mode or mask needs another `--hashlimit-name`"));
        }
        let above = (given.opt.name == "hashlimit-above") != given.negated;
        Ok(Self { above, name: name.text().to_owned(), config, table })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let config = &self.table.config;
        let Some(key) = config.key(view) else { return Answer::Drop };
        let now = view.now;
        let expire = Duration::from_millis(u64::from(config.expire_millis));
        let mut cells = self.table.cells.lock();
        if !cells.contains_key(&key) && cells.len() >= config.bound() {
            cells.retain(|_, (_, used)| now.saturating_since(*used) < expire);
            if cells.len() >= config.bound() {
                return Answer::Drop;
            }
        }
        let (cell, used) = cells.entry(key).or_insert_with(|| (config.fresh(now), now));
        if now.saturating_since(*used) >= expire {
            *cell = config.fresh(now);
        }
        *used = now;
        let fits = match cell {
            Cell::Packets(bucket) => config.take_packet(bucket, now),
            Cell::Bytes(bucket) => bucket.take(now, view.pkt.l3().len()),
            Cell::Window(window) => config.look(window, now, view.pkt.l3().len()),
        };
        (fits != self.above).into()
    }
}

/// What the kernel counts in, for its usual tick lengths.
const CREDITS_PER_MICROSECOND: u64 = 137_438_953;

/// What so many packets stand for.
const fn credits(rate: Rate, burst: u32) -> u64 {
    rate.period.wrapping_mul(burst as u64).wrapping_mul(CREDITS_PER_MICROSECOND)
}

fn parse_burst(text: &str) -> Result<u32, Complaint> {
    match number(text, MAX_BURST)? {
        0 => Err(Complaint::new("a burst of 0 lets nothing through").hint("at least 1")),
        n => Ok(n as u32),
    }
}

impl Hashlimit {
    /// What `--hashlimit-rate-match` looks at. The tools turn `10/min` into ten in an interval of a minute there.
    fn interval(options: &Options<'_>, setting: &Setting, pace: &mut Pace) -> Result<Option<u32>, Problem> {
        let given = options.get("hashlimit-rate-interval");
        let interval = given.map(|given| {
            given.read(|text| match unsigned(text).parse::<u32>() {
                Ok(0) => Err(Complaint::new("no time at all holds nothing").hint("at least 1 second")),
                Ok(seconds) if seconds <= MAX_INTERVAL => Ok(seconds),
                _ => Err(Complaint::new(format!("`{text}` is no number of seconds"))
                    .hint(format!("decimal, at most {MAX_INTERVAL}"))),
            })
        });
        let interval = interval.transpose()?;
        if !options.has("hashlimit-rate-match") {
            if let Some(given) = given {
                let problem = Problem::new(given.at, "`--hashlimit-rate-interval` has no effect by itself");
                setting.warn(problem.hint("`--hashlimit-rate-match` is what it belongs to"));
            }
            return Ok(None);
        }
        let mut unit = 1;
        if let Pace::Packets { rate, .. } = pace {
            unit = rate.unit_seconds();
            rate.period /= unit;
        }
        Ok(Some(interval.unwrap_or(unit as u32)))
    }
}

impl Config {
    fn bound(&self) -> usize {
        if self.max > 0 { self.max as usize } else { MAX_BUCKETS }
    }

    fn fresh(&self, now: Instant) -> Cell {
        match self.pace {
            _ if self.interval.is_some() => {
                Cell::Window(Window { began_at: now, amount: 0, was_over: false })
            }
            Pace::Packets { .. } => Cell::Packets(Bucket::default()),
            Pace::Bytes(rate) => Cell::Bytes(bytes::Bucket::new(rate, now)),
        }
    }

    /// What a full bucket holds, in nanoseconds. The kernel's number has 64 bits, and a burst that it cannot hold is cut
    /// to what is left of it.
    fn full(rate: Rate, burst: u32) -> u64 {
        (u128::from(credits(rate, burst)) * 1_000 / u128::from(CREDITS_PER_MICROSECOND)) as u64
    }

    fn take_packet(&self, bucket: &mut Bucket, now: Instant) -> bool {
        match self.pace {
            Pace::Packets { rate, burst } => bucket.take(now, rate.nanos(), Config::full(rate, burst)),
            Pace::Bytes(_) => false,
        }
    }

    /// Counts the packet into the window. It fits while the window before had not too much, and this one has not.
    fn look(&self, window: &mut Window, now: Instant, len: usize) -> bool {
        let (rate, most, amount) = match self.pace {
            Pace::Packets { rate, burst } => {
                let rate = rate.scale / rate.period.max(1);
                (rate, rate + u64::from(burst), 1)
            }
            Pace::Bytes(rate) => (rate.per_second(), rate.most_at_once(), len as u64),
        };
        let interval = Duration::from_secs(u64::from(self.interval.unwrap_or(1)));
        let past = now.saturating_since(window.began_at);
        if past >= interval {
            let had = u128::from(window.amount) * interval.as_nanos();
            *window = Window { began_at: now, amount: 0, was_over: had > past.as_nanos() * u128::from(rate) };
        }
        window.amount += amount;
        !window.was_over && window.amount <= most
    }

    /// `None` if ports are asked for and the headers are cut short.
    fn key(&self, view: &View<'_>) -> Option<Key> {
        let masked = |addr: Addr, len: u8| {
            Addr::from_bits(if len == 0 { 0 } else { addr.bits() & u128::MAX << (128 - u32::from(len)) })
        };
        let mut key = (Addr::UNSPECIFIED, Addr::UNSPECIFIED, 0, 0);
        if self.mode.contains(Mode::SRCIP) {
            key.0 = masked(view.pkt.src(), self.src_len);
        }
        if self.mode.contains(Mode::DSTIP) {
            key.1 = masked(view.pkt.dst(), self.dst_len);
        }
        let with_ports = self.mode.intersects(Mode::SRCPORT | Mode::DSTPORT);
        if with_ports && super::ends_early(view.pkt) {
            return None;
        }
        if with_ports && let Some(place) = ports_at(view.pkt.proto()) {
            let &[a, b, c, d] = view.pkt.l4().get(place..)?.first_chunk()?;
            let (sport, dport) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            key.2 = if self.mode.contains(Mode::SRCPORT) { sport } else { 0 };
            key.3 = if self.mode.contains(Mode::DSTPORT) { dport } else { 0 };
        }
        Some(key)
    }
}

/// Where the ports stand, or what of `IPsec` tells flows apart as they do.
const fn ports_at(proto: u8) -> Option<usize> {
    use crate::packet::tuple::{PROTO_DCCP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
    const ESP: u8 = 50;
    const AUTH: u8 = 51;
    match proto {
        PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP | PROTO_DCCP | ESP => Some(0),
        AUTH => Some(4),
        _ => None,
    }
}

impl fmt::Display for Hashlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { above, name, config, table: _ } = self;
        let kind = if *above { "above" } else { "upto" };
        match config.pace {
            Pace::Packets { rate, burst } => {
                write!(f, " --hashlimit-{kind} {rate} --hashlimit-burst {burst}")?;
            }
            Pace::Bytes(rate) => write!(f, " --hashlimit-{kind} {rate}")?,
        }
        if !config.mode.is_empty() {
            let words: Vec<&str> = Mode::WORDS
                .iter()
                .filter(|(bit, _)| config.mode.contains(*bit))
                .map(|(_, word)| *word)
                .collect();
            write!(f, " --hashlimit-mode {}", words.join(","))?;
        }
        write!(f, " --hashlimit-name {name}")?;
        for (name, value, usual) in [
            ("htable-size", config.size, 0),
            ("htable-max", config.max, 0),
            ("htable-gcinterval", config.gc_millis, DEFAULT_GC_MILLIS),
            ("htable-expire", config.expire_millis, config.pace.usual_expire()),
        ] {
            if value != usual {
                write!(f, " --hashlimit-{name} {value}")?;
            }
        }
        for (name, len) in [("srcmask", config.src_len), ("dstmask", config.dst_len)] {
            if len != config.family.bits() {
                write!(f, " --hashlimit-{name} {len}")?;
            }
        }
        match config.interval {
            None => Ok(()),
            Some(1) => f.write_str(" --hashlimit-rate-match"),
            Some(seconds) => {
                write!(f, " --hashlimit-rate-match --hashlimit-rate-interval {seconds}")
            }
        }
    }
}
