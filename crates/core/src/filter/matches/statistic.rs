//! `-m statistic`: one packet in so many, by chance or by count.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::kept::memory::Memory;
use crate::filter::kept::shared::Copies;
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number_u32};
use core::fmt;

/// Probabilities are kept in 31 bits.
const ONE: f64 = 2_147_483_648.0;

#[derive(Clone, Debug, PartialEq)]
pub struct Statistic {
    pub mode: Mode,
    pub negated: bool,
    /// Packets so far; in random mode the state of the generator.
    seen: Memory<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In parts of 2³¹.
    Random { probability: u32 },
    /// Of every `every` packets the one at place `packet`, from 0.
    Nth { every: u32, packet: u32 },
}

fn parse_probability(text: &str) -> Result<u32, Complaint> {
    let value = text.trim_start().parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p));
    let value = value.ok_or_else(|| {
        Complaint::new(format!("`{text}` is not a probability")).hint("a number from 0 to 1, such as 0.25")
    })?;
    // The kernel keeps 31 bits, rounded half away from zero.
    Ok((value * ONE).round() as u32)
}

impl Matcher for Statistic {
    const SPEC: Spec = Spec {
        name: "statistic",
        family: None,
        protos: &[],
        options: &[
            Opt::value("mode"),
            Opt::value("probability").or_not(),
            Opt::value("every").or_not(),
            Opt::value("packet"),
        ],
    };

    fn copied(&self, _: &Copies<'_>) -> Self {
        Self { seen: self.seen.copied(), ..self.clone() }
    }

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["probability", "every"])?;
        options.exclusive(&["probability", "packet"])?;
        let mode = options.require("mode")?;
        match mode.text() {
            "random" => {
                let given = options.require("probability")?;
                let probability = given.read(parse_probability)?;
                Ok(Self {
                    mode: Mode::Random { probability },
                    negated: given.negated,
                    seen: Memory::default(),
                })
            }
            "nth" => {
                let given = options.require("every")?;
                let every = given.read(number_u32)?;
                let packet = options.require("packet")?;
                let place = packet.read(number_u32)?;
                if every == 0 {
                    return Err(given.problem("every 0th packet is none"));
                }
                if place >= every {
                    return Err(packet
                        .problem(format!("of {every} packets there is none at place {place}"))
                        .hint(format!("`--packet` counts from 0 to {}", every - 1)));
                }
                let mode = Mode::Nth { every, packet: place };
                Ok(Self { mode, negated: given.negated, seen: Memory::default() })
            }
            other => Err(mode.problem(format!("no mode named `{other}`")).hint("`random` or `nth`")),
        }
    }

    fn check(&self, _: &View<'_>) -> Answer {
        let mut seen = self.seen.lock();
        let holds = match self.mode {
            Mode::Random { probability } => {
                *seen = seen.wrapping_add(0x9e37_79b9_7f4a_7c15);
                (scramble(*seen) >> 33) < u64::from(probability)
            }
            Mode::Nth { every, packet } => {
                let place = *seen % u64::from(every);
                *seen = place + 1;
                place == u64::from(packet)
            }
        };
        (holds != self.negated).into()
    }
}

/// The output step of `SplitMix64`: chance that a run can repeat.
const fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::Random { probability } => {
                let share = f64::from(probability) / ONE;
                write!(f, " --mode random{} --probability {share:.11}", not(self.negated))
            }
            Mode::Nth { every, packet } => {
                write!(f, " --mode nth{} --every {every} --packet {packet}", not(self.negated))
            }
        }
    }
}
