//! Rates in bytes: `512kb/s`, and how the kernel keeps them.
//!
//! A rate is kept as the part of a second, in units of 2⁻³² s, that 16 bytes stand for, and one chunk of 16 more is
//! allowed than was asked for; what iptables-save prints is made from that, and may differ from what was written.

#![forbid(unsafe_code)]

use crate::base::time::Instant;
use crate::filter::text::options::{Complaint, Given, Problem};
use core::fmt;

/// A second, as a bucket holds it.
const SECOND: u64 = u32::MAX as u64;
/// As which the tools print the highest rate that they keep, which is of 32 bits.
const MOST_PRINTED: u64 = 4_581_298_432;
/// Bytes that are paid for together.
const CHUNK: u64 = 16;
/// An unused bucket stays so long, without a burst and with one.
const EXPIRE_MILLIS: [u32; 2] = [15_000, 60_000];
const UNITS: [(&str, u64); 3] = [("m", 1 << 20), ("k", 1 << 10), ("", 1)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// What a chunk costs.
    cost: u64,
    /// How many times a second's worth may come at once beyond the first; 0: no burst was named.
    burst: u32,
}

impl ByteRate {
    const fn cost_of(per_second: u64) -> Option<u64> {
        match per_second / CHUNK {
            0 => None,
            chunks => Some(SECOND / (chunks + 1)),
        }
    }

    pub(super) const fn per_second(self) -> u64 {
        (SECOND / self.cost - 1) * CHUNK
    }

    /// With `--hashlimit-rate-match`.
    pub(super) const fn most_at_once(self) -> u64 {
        let times = if self.burst == 0 { 1 } else { self.burst as u64 };
        self.per_second() * times
    }

    pub(super) const fn usual_expire_millis(self) -> u32 {
        EXPIRE_MILLIS[(self.burst > 0) as usize]
    }
}

/// Reads `512kb/s` and its burst, `1mb`.
pub(super) fn read(rate: &Given<'_>, burst: Option<&Given<'_>>) -> Result<ByteRate, Problem> {
    let cost = rate.read(|text| {
        let (amount, unit) = text.split_once('/').unwrap_or((text, ""));
        if unit.is_empty() || !"second".starts_with(unit) {
            return Err(Complaint::new(format!("`{text}` is not a rate in bytes"))
                .hint(format!("bytes are counted by the second: `{amount}/s`")));
        }
        ByteRate::cost_of(parse_bytes(amount)?)
            .ok_or_else(|| Complaint::new(format!("the rate `{text}` is too low")).hint("at least 16b/s"))
    })?;
    let none = ByteRate { cost, burst: 0 };
    let Some(burst) = burst else { return Ok(none) };
    let burst = burst.read(|text| {
        let bytes = parse_bytes(text)?;
        let second = none.per_second();
        if bytes < second {
            return Err(Complaint::new(format!("a burst of {text} is less than comes in a second"))
                .hint(format!("at least `{second}b`")));
        }
        Ok(bytes.div_ceil(second) as u32)
    })?;
    Ok(ByteRate { cost, burst })
}

/// `512b`, `512kb`, `5mb`.
fn parse_bytes(text: &str) -> Result<u64, Complaint> {
    let bad = || Complaint::new(format!("`{text}` is no amount of bytes")).hint("`512b`, `512kb` or `5mb`");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        _ => return Err(bad()),
    };
    let amount: u64 = digits.parse().map_err(|_| bad())?;
    match amount.checked_mul(factor) {
        Some(bytes) if bytes <= MOST_PRINTED => Ok(bytes.min(u64::from(u32::MAX))),
        _ => Err(Complaint::new(format!("`{text}` is too much")).hint("at most `4095mb`")),
    }
}

/// What is left of a second's worth, and how often it may be filled at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: ByteRate,
    credit: u64,
    refills: u32,
    filled_at: Instant,
}

impl Bucket {
    pub(super) const fn new(rate: ByteRate, now: Instant) -> Self {
        Self { rate, credit: SECOND, refills: rate.burst, filled_at: now }
    }

    /// Pays for a packet of `len` bytes, if there is enough.
    pub(super) fn take(&mut self, now: Instant, len: usize) -> bool {
        let past = now.saturating_since(self.filled_at).as_nanos().min(1_000_000_000) as u64;
        self.filled_at = now;
        self.credit = (self.credit + SECOND * past / 1_000_000_000).min(SECOND);
        // A packet never costs more than a full bucket, or it could not pass at all.
        let cost = ((len as u64 / CHUNK + 1) * self.rate.cost).min(SECOND);
        if self.credit < cost && self.refills > 0 {
            // What a burst was used for does not come back while the bucket is in use.
            self.refills -= 1;
            self.credit = SECOND;
        }
        let enough = self.credit >= cost;
        self.credit -= if enough { cost } else { 0 };
        enough
    }
}

/// In the largest unit in which the rate is still the same; a burst in the largest of which there is one.
impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.per_second();
        // The tools compare in 32 bits.
        let is_same =
            |size: u64| ByteRate::cost_of(u64::from((rate / size * size) as u32)) == Some(self.cost);
        let (name, size) =
            UNITS.into_iter().find(|(_, size)| rate >= *size && is_same(*size)).unwrap_or(UNITS[2]);
        write!(f, "{}{name}b/s", rate / size)?;
        if self.burst == 0 {
            return Ok(());
        }
        let burst = rate * u64::from(self.burst);
        let (name, size) = UNITS.into_iter().find(|(_, size)| burst >= *size).unwrap_or(UNITS[2]);
        write!(f, " --hashlimit-burst {}{name}b", burst / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_print_as_the_tools_print_them() {
        for (written, printed) in [
            ("16b", "16b"),
            ("33b", "32b"),
            ("512b", "512b"),
            ("1000b", "992b"),
            ("7kb", "7kb"),
            ("512kb", "512kb"),
            ("1234567b", "1234560b"),
            ("10mb", "10mb"),
            ("256mb", "257mb"),
            ("1000mb", "1008mb"),
        ] {
            let cost = parse_bytes(written).ok().and_then(ByteRate::cost_of).unwrap();
            assert_eq!(ByteRate { cost, burst: 0 }.to_string(), format!("{printed}/s"), "{written}");
        }
        let ten_megabytes = ByteRate { cost: ByteRate::cost_of(10 << 20).unwrap(), burst: 0 };
        assert_eq!(ten_megabytes.per_second(), 10_486_704, "the least burst that the tools take");
    }
}
