//! `-m limit`: a token bucket for all packets of the rule.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::base::time::Instant;
use crate::filter::kept::memory::Memory;
use crate::filter::kept::shared::Copies;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{number, unsigned};
use core::fmt;

/// The kernel counts the time between packets in units of 1/10000 s.
pub(super) const SCALE: u64 = 10_000;
const DEFAULT_BURST: u32 = 5;
const MAX_BURST: u64 = 10_000;

/// A rate as iptables keeps it: the time that one packet stands for, in parts of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub period: u64,
    /// Parts in a second.
    pub scale: u64,
}

const UNITS: [(&str, u64); 4] = [("day", 86_400), ("hour", 3_600), ("min", 60), ("sec", 1)];

impl Rate {
    /// `5/second`, `5/s`, `5`: the unit may be cut short.
    pub(super) fn parse(text: &str, scale: u64) -> Result<Self, Complaint> {
        let (count, seconds) = Self::parts(text)?;
        let period = scale * seconds / count;
        if period == 0 {
            return Err(Complaint::new(format!("the rate `{text}` is too high"))
                .hint(format!("at most {scale}/second")));
        }
        Ok(Self { period, scale })
    }

    /// The number, and the seconds of its unit.
    pub(super) fn parts(text: &str) -> Result<(u64, u64), Complaint> {
        let bad = || {
            Complaint::new(format!("`{text}` is not a rate"))
                .hint("a number and a unit: `5/second`, `3/min`, `10/hour`, `1/day`")
        };
        let (count, unit) = text.split_once('/').map_or((text, "second"), |(count, unit)| (count, unit));
        let whole = ["second", "minute", "hour", "day"];
        let fits = |word: &&&str| !unit.is_empty() && word.starts_with(&unit.to_ascii_lowercase());
        let place =
            whole.iter().find(fits).and_then(|w| whole.iter().position(|v| v == w)).ok_or_else(bad)?;
        let seconds = [1, 60, 3_600, 86_400][place];
        let count = unsigned(count).parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok((count, seconds))
    }

    pub(super) const fn nanos(self) -> u64 {
        (self.period as u128 * 1_000_000_000 / self.scale as u128) as u64
    }

    /// The seconds of the unit that it prints in.
    pub(super) fn unit_seconds(self) -> u64 {
        UNITS[self.unit()].1
    }

    /// The largest unit in which the number of packets is exact enough, by the rule that iptables has for it.
    fn unit(self) -> usize {
        let inexact = |unit: &(&str, u64)| {
            let whole = unit.1 * self.scale;
            self.period > whole || whole / self.period < whole % self.period
        };
        UNITS.iter().skip(1).position(inexact).unwrap_or(UNITS.len() - 1)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds) = UNITS[self.unit()];
        write!(f, "{}/{name}", seconds * self.scale / self.period)
    }
}

/// A bucket that fills with time: what is in it, in nanoseconds' worth of packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    credit: u64,
    /// When it was filled last; `None` before the first packet.
    filled_at: Option<Instant>,
}

impl Bucket {
    /// Takes one packet's worth out, if it is there. The bucket begins full.
    pub(super) fn take(&mut self, now: Instant, cost: u64, full: u64) -> bool {
        let grown = match self.filled_at {
            None => full,
            Some(at) => self.credit.saturating_add(now.saturating_since(at).as_nanos() as u64),
        };
        self.credit = grown.min(full);
        self.filled_at = Some(now);
        let enough = self.credit >= cost;
        self.credit -= if enough { cost } else { 0 };
        enough
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub rate: Rate,
    pub burst: u32,
    bucket: Memory<Bucket>,
}

impl Matcher for Limit {
    const SPEC: Spec = Spec {
        name: "limit",
        family: None,
        protos: &[],
        options: &[Opt::value("limit"), Opt::value("limit-burst")],
    };

    fn copied(&self, _: &Copies<'_>) -> Self {
        Self { bucket: self.bucket.copied(), ..self.clone() }
    }

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let rate = match options.get("limit") {
            Some(given) => given.read(|text| Rate::parse(text, SCALE))?,
            None => Rate { period: SCALE * 3_600 / 3, scale: SCALE },
        };
        let burst = match options.get("limit-burst") {
            Some(given) => given.read(|text| number(text, MAX_BURST))? as u32,
            None => DEFAULT_BURST,
        };
        // The kernel's bucket holds 32 bits, and it refuses a rule whose bucket would not fit.
        let full = (rate.period as u32).wrapping_mul(burst);
        if burst == 0 || credits(full) < credits(rate.period as u32) {
            let at = options.get("limit-burst").or_else(|| options.get("limit"));
            let problem = Problem::new(
                at.map_or(options.at, crate::filter::text::options::Given::value_at),
                if burst == 0 {
                    "a burst of 0 lets nothing through".to_owned()
                } else {
                    format!("a burst of {burst} is too large for a rate of {rate}")
                },
            );
            let most = u64::from(u32::MAX) / 32_000 * SCALE / rate.period;
            return Err(match most.min(MAX_BURST) {
                0 => problem.hint("a higher rate"),
                most => problem.hint(format!("`--limit-burst` can be 1 to {most}")),
            });
        }
        Ok(Self { rate, burst, bucket: Memory::default() })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let period = self.rate.period as u32;
        let nanos = |parts: u32| u64::from(credits(parts)) * NANOS_PER_CREDIT;
        self.bucket.lock().take(view.now, nanos(period), nanos(period.wrapping_mul(self.burst))).into()
    }
}

/// The kernel fills buckets by so much.
const NANOS_PER_CREDIT: u64 = 1_000_000_000 / 32_000;

/// The kernel's 32-bit unit for what is in a bucket: 32,000 in a second, whatever its clock.
const fn credits(parts: u32) -> u32 {
    const PER_SECOND: u32 = 32_000;
    let scale = SCALE as u32;
    if parts > u32::MAX / PER_SECOND {
        (parts / scale).wrapping_mul(PER_SECOND)
    } else {
        parts * PER_SECOND / scale
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " --limit {}", self.rate)?;
        if self.burst == DEFAULT_BURST { Ok(()) } else { write!(f, " --limit-burst {}", self.burst) }
    }
}
