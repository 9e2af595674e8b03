//! `-m hashlimit`: a token bucket for each address, port or pair of them.

#![forbid(unsafe_code)]

use super::limit::{Bucket, Rate};
use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::options::{Complaint, Opt, Options, Problem};
use crate::filter::value::{number, number_u32, quoted};
use crate::packet::{Addr, Family};
use crate::time::{Duration, Instant};
use bitflags::bitflags;
use core::fmt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The kernel counts the time between packets in units of a microsecond here.
const SCALE: u64 = 1_000_000;
const DEFAULT_BURST: u32 = 5;
const MAX_BURST: u64 = 1_000_000;
const DEFAULT_GC_MILLIS: u32 = 1_000;
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
        for word in text.split(',') {
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
    pub rate: Rate,
    pub burst: u32,
    /// Holds above the rate, not up to it.
    pub above: bool,
    pub mode: Mode,
    pub name: String,
    pub src_len: u8,
    pub dst_len: u8,
    pub size: u32,
    pub max: u32,
    pub gc_millis: u32,
    /// How long an unused bucket stays.
    pub expire_millis: u32,
    pub family: Family,
    table: Arc<Buckets>,
}

/// One table by name, shared by all rules that name it.
#[derive(Debug, Default)]
pub struct Buckets(Mutex<BTreeMap<Key, (Bucket, Instant)>>);

type Key = (Addr, Addr, u16, u16);

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
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["hashlimit-upto", "hashlimit-above"])?;
        let given = match options.get("hashlimit-above") {
            Some(above) => above,
            None => options.require("hashlimit-upto")?,
        };
        let rate = given.read(|text| {
            if text.split('/').next().is_some_and(|n| n.ends_with(['b', 'B'])) {
                return Err(Complaint::new(format!("`{text}`: rates in bytes are not honoured"))
                    .hint("packets: `100/second`"));
            }
            Rate::parse(text, SCALE)
        })?;
        let name = options.require("hashlimit-name")?;
        if name.text().is_empty() || name.text().len() > MAX_NAME || name.text().contains('/') {
            return Err(name.problem(format!("no table can be named `{}`", name.text())));
        }
        let burst = match options.get("hashlimit-burst") {
            Some(given) => given.read(|text| match number(text, MAX_BURST)? {
                0 => Err(Complaint::new("a burst of 0 lets nothing through").hint("at least 1")),
                n => Ok(n as u32),
            })?,
            None => DEFAULT_BURST,
        };
        let bits = setting.family.bits();
        let len = |name| {
            options.get(name).map_or(Ok(bits), |g| g.read(|t| number(t, u64::from(bits)).map(|n| n as u8)))
        };
        let amount = |name, default| options.get(name).map_or(Ok(default), |g| g.read(number_u32));
        Ok(Self {
            rate,
            burst,
            above: (given.opt.name == "hashlimit-above") != given.negated,
            mode: options.get("hashlimit-mode").map_or(Ok(Mode::empty()), |g| g.read(Mode::parse))?,
            name: name.text().to_owned(),
            src_len: len("hashlimit-srcmask")?,
            dst_len: len("hashlimit-dstmask")?,
            size: amount("hashlimit-htable-size", 0)?,
            max: amount("hashlimit-htable-max", 0)?,
            gc_millis: amount("hashlimit-htable-gcinterval", DEFAULT_GC_MILLIS)?,
            expire_millis: amount("hashlimit-htable-expire", Self::usual_expire(rate))?,
            family: setting.family,
            table: setting.shared.hashlimit_table(name.text()),
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Some(key) = self.key(view) else { return Answer::Drop };
        let now = view.now;
        let mut table = self.table.0.lock();
        if !table.contains_key(&key) && table.len() >= self.bound() {
            let keep = Duration::from_millis(u64::from(self.expire_millis));
            table.retain(|_, (_, used)| now.saturating_since(*used) < keep);
            if table.len() >= self.bound() {
                return Answer::Drop;
            }
        }
        let (bucket, used) = table.entry(key).or_insert_with(|| (Bucket::default(), now));
        if now.saturating_since(*used) >= Duration::from_millis(u64::from(self.expire_millis)) {
            *bucket = Bucket::default();
        }
        *used = now;
        (bucket.take(now, self.rate.nanos(), self.burst) != self.above).into()
    }
}

impl Hashlimit {
    /// As long as the unit of the rate.
    fn usual_expire(rate: Rate) -> u32 {
        (rate.unit_seconds() * 1_000) as u32
    }

    fn bound(&self) -> usize {
        if self.max > 0 { self.max as usize } else { MAX_BUCKETS }
    }

    /// `None` if ports are asked for and the header is cut short.
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
        if self.mode.intersects(Mode::SRCPORT | Mode::DSTPORT) && has_ports(view.pkt.proto()) {
            let (sport, dport) = view.pkt.ports()?;
            key.2 = if self.mode.contains(Mode::SRCPORT) { sport } else { 0 };
            key.3 = if self.mode.contains(Mode::DSTPORT) { dport } else { 0 };
        }
        Some(key)
    }
}

const fn has_ports(proto: u8) -> bool {
    use crate::packet::tuple::{PROTO_DCCP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
    matches!(proto, PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP | PROTO_DCCP)
}

impl fmt::Display for Hashlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.above { "above" } else { "upto" };
        write!(f, " --hashlimit-{kind} {} --hashlimit-burst {}", self.rate, self.burst)?;
        if !self.mode.is_empty() {
            let words: Vec<&str> = Mode::WORDS
                .iter()
                .filter(|(bit, _)| self.mode.contains(*bit))
                .map(|(_, word)| *word)
                .collect();
            write!(f, " --hashlimit-mode {}", words.join(","))?;
        }
        write!(f, " --hashlimit-name {}", quoted(&self.name))?;
        let usual = Self::usual_expire(self.rate);
        for (name, value, usual) in [
            ("htable-size", self.size, 0),
            ("htable-max", self.max, 0),
            ("htable-gcinterval", self.gc_millis, DEFAULT_GC_MILLIS),
            ("htable-expire", self.expire_millis, usual),
        ] {
            if value != usual {
                write!(f, " --hashlimit-{name} {value}")?;
            }
        }
        for (name, len) in [("srcmask", self.src_len), ("dstmask", self.dst_len)] {
            if len != self.family.bits() {
                write!(f, " --hashlimit-{name} {len}")?;
            }
        }
        Ok(())
    }
}
