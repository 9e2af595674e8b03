//! `-m u32`: words anywhere in the packet, cut out and compared.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number_u32};
use core::fmt;

/// The kernel's bounds on tests, and on steps and ranges in each.
const MAX: usize = 10;
/// All 32 bits of a word cannot be shifted out.
const MAX_SHIFT: u32 = 31;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct U32 {
    pub tests: Vec<Test>,
    pub negated: bool,
}

/// Where a word is found, and what it may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Test {
    /// From the IP header.
    pub start: u32,
    pub steps: Vec<(Step, u32)>,
    pub ranges: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    And,
    Left,
    Right,
    /// The word so far is a distance from here on.
    At,
}

impl Step {
    const fn sign(self) -> &'static str {
        match self {
            Self::And => "&",
            Self::Left => "<<",
            Self::Right => ">>",
            Self::At => "@",
        }
    }
}

/// Reads an expression: `LOCATION=RANGES && …`.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn number(&mut self) -> Result<u32, Complaint> {
        self.skip();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        if digits.is_empty() {
            let found = self.rest.chars().next().map_or("the end".to_owned(), |c| format!("`{c}`"));
            return Err(Complaint::new(format!(
                "a number is expected in the expression in place of {found}"
            )));
        }
        self.rest = rest;
        number_u32(digits)
    }

    fn test(&mut self) -> Result<Test, Complaint> {
        let mut test = Test { start: self.number()?, ..Test::default() };
        while !self.take("=") {
            let step = match () {
                () if self.take("<<") => Step::Left,
                () if self.take(">>") => Step::Right,
                () if self.take("&") => Step::And,
                () if self.take("@") => Step::At,
                () => {
                    return Err(Complaint::new("an expression needs `=` and what is expected")
                        .hint("`6&0xFF=6`: one of & << >> @ or = comes after a number"));
                }
            };
            let number = self.number()?;
            if matches!(step, Step::Left | Step::Right) && number > MAX_SHIFT {
                return Err(Complaint::new(format!("a word cannot be shifted by {number}"))
                    .hint(format!("at most {MAX_SHIFT}")));
            }
            test.steps.push((step, number));
        }
        loop {
            let low = self.number()?;
            let high = if self.take(":") { self.number()? } else { low };
            test.ranges.push((low, high));
            if !self.take(",") {
                break;
            }
        }
        // The first number counts as a step in the kernel's table.
        if test.steps.len() >= MAX || test.ranges.len() > MAX {
            return Err(
                Complaint::new("the expression is too long").hint(format!("at most {MAX} of each kind"))
            );
        }
        Ok(test)
    }
}

fn parse(text: &str) -> Result<Vec<Test>, Complaint> {
    let mut reader = Reader { rest: text };
    let mut tests = Vec::new();
    loop {
        tests.push(reader.test()?);
        reader.skip();
        if reader.rest.is_empty() {
            break;
        }
        if !reader.take("&&") {
            return Err(Complaint::new(format!("`{}` is left over in the expression", reader.rest)));
        }
    }
    if tests.len() > MAX {
        return Err(Complaint::new("the expression is too long").hint(format!("at most {MAX} tests")));
    }
    Ok(tests)
}

impl Test {
    fn holds(&self, packet: &[u8]) -> bool {
        let word = |at: u32, pos: u32| {
            let at = at.checked_add(pos)? as usize;
            let bytes = packet.get(at..at.checked_add(4)?)?;
            bytes.first_chunk().map(|b| u32::from_be_bytes(*b))
        };
        let Some(mut value) = word(0, self.start) else { return false };
        let mut at = 0_u32;
        for &(step, number) in &self.steps {
            match step {
                Step::And => value &= number,
                Step::Left => value <<= number,
                Step::Right => value >>= number,
                Step::At => {
                    let Some(next) = at.checked_add(value) else { return false };
                    at = next;
                    let Some(word) = word(at, number) else { return false };
                    value = word;
                }
            }
        }
        self.ranges.iter().any(|(low, high)| *low <= value && value <= *high)
    }
}

impl Matcher for U32 {
    const SPEC: Spec =
        Spec { name: "u32", family: None, protos: &[], options: &[Opt::value("u32").or_not()] };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let given = options.require("u32")?;
        Ok(Self { tests: given.read(parse)?, negated: given.negated })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        (self.tests.iter().all(|test| test.holds(view.pkt.l3())) != self.negated).into()
    }
}

impl fmt::Display for U32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} --u32 \"", not(self.negated))?;
        for (place, Test { start, steps, ranges }) in self.tests.iter().enumerate() {
            write!(f, "{}{start:#x}", if place > 0 { "&&" } else { "" })?;
            steps.iter().try_for_each(|(step, number)| write!(f, "{}{number:#x}", step.sign()))?;
            for (place, (low, high)) in ranges.iter().enumerate() {
                write!(f, "{}{low:#x}", if place > 0 { "," } else { "=" })?;
                if low != high {
                    write!(f, ":{high:#x}")?;
                }
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_by_distance() {
        // An IPv4 header of 20 bytes, then 0xdeadbeef.
        let mut packet = vec![0; 24];
        packet[0] = 0x45;
        packet[20..].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
        let holds = |text: &str| parse(text).unwrap().iter().all(|t| t.holds(&packet));
        assert!(holds("0>>22&0x3C@0=0xdeadbeef"));
        assert!(holds("20 >> 16 = 0xdead"));
        assert!(!holds("21=0:0xffffffff"), "beyond the packet");
        assert!(holds("0>>28=4 && 20&0xff=0xee:0xef"));
    }
}
