//! `-m string`: bytes anywhere in the IP packet.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Opt, Options, Problem};
use crate::filter::text::value::{not, number_u16};
use core::fmt;

/// The kernel's bound on the pattern.
const MAX_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatch {
    pub pattern: Vec<u8>,
    /// How the kernel searches; what it finds is the same.
    pub algorithm: Algorithm,
    /// Counted from the IP header; the pattern begins at `from` or later, and ends at `to` or before.
    pub from: u16,
    pub to: u16,
    pub ignore_case: bool,
    pub negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    BoyerMoore,
    KnuthMorrisPratt,
}

impl Algorithm {
    /// A third one of the kernel's, `fsm`, takes no text.
    const ALL: [(Self, &'static str); 2] = [(Self::BoyerMoore, "bm"), (Self::KnuthMorrisPratt, "kmp")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, word)| word)
    }
}

/// `|41 42|text`: hexadecimal between bars; a backslash takes the next letter as it is.
///
/// As the tools have it, what stands right behind a block is text, be it a bar or a backslash, and a bar at the very end
/// says nothing.
fn parse_hex(text: &str) -> Result<Vec<u8>, Complaint> {
    let bad =
        || Complaint::new("a block of hexadecimal is broken").hint("pairs of digits between bars: `|0d 0a|`");
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(b) = rest.next() {
        match b {
            b'\\' => bytes.push(rest.next().ok_or_else(bad)?),
            b'|' if rest.peek().is_none() => {}
            b'|' => {
                let before = bytes.len();
                loop {
                    match rest.next().ok_or_else(bad)? {
                        b'|' => break,
                        b' ' => {}
                        high => {
                            let pair = [high, rest.next().ok_or_else(bad)?];
                            let digits = core::str::from_utf8(&pair).map_err(|_| bad())?;
                            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
                        }
                    }
                }
                if bytes.len() == before {
                    return Err(bad());
                }
                bytes.extend(rest.next());
            }
            other => bytes.push(other),
        }
    }
    Ok(bytes)
}

impl Matcher for StringMatch {
    const SPEC: Spec = Spec {
        name: "string",
        family: None,
        protos: &[],
        options: &[
            Opt::value("string").or_not(),
            Opt::value("hex-string").or_not(),
            Opt::value("algo"),
            Opt::value("from"),
            Opt::value("to"),
            Opt::flag("icase"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.exclusive(&["string", "hex-string"])?;
        let given = match options.get("hex-string") {
            Some(hex) => hex,
            None => options.require("string")?,
        };
        let pattern = given.read(|text| {
            if given.opt.name == "hex-string" { parse_hex(text) } else { Ok(text.as_bytes().to_vec()) }
        })?;
        if pattern.is_empty() || pattern.len() > MAX_BYTES {
            return Err(given
                .problem(format!("the pattern has {} bytes", pattern.len()))
                .hint(format!("1 to {MAX_BYTES}")));
        }
        let algorithm = options.require("algo")?.read(|text| {
            let known = Algorithm::ALL.iter().find(|(_, word)| *word == text);
            known.map(|(a, _)| *a).ok_or_else(|| {
                Complaint::new(format!("no way to search named `{text}`")).hint("`bm` or `kmp`")
            })
        })?;
        let place = |name, default| options.get(name).map_or(Ok(default), |g| g.read(number_u16));
        if let (from, Some(to)) = (place("from", 0)?, options.get("to"))
            && from > to.read(number_u16)?
        {
            let problem = to.problem(format!("the search ends before it begins, at byte {from}"));
            return Err(problem.hint("`--from` comes first"));
        }
        Ok(Self {
            pattern,
            algorithm,
            from: place("from", 0)?,
            to: place("to", u16::MAX)?,
            ignore_case: options.has("icase"),
            negated: given.negated,
        })
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let Self { pattern, algorithm: _, from, to, ignore_case, negated } = self;
        let packet = view.pkt.l3();
        let to = usize::from(*to).min(packet.len());
        let range = packet.get(usize::from(*from)..to).unwrap_or(&[]);
        let found = range.windows(pattern.len()).any(|window| {
            if *ignore_case { window.eq_ignore_ascii_case(pattern) } else { window == pattern }
        });
        (found != *negated).into()
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, algorithm, from, to, ignore_case, negated } = self;
        f.write_str(not(*negated))?;
        let printable = |b: &u8| (0x20..0x7f).contains(b);
        // The tools cannot tell the last backslash of a pattern from one that escapes the quote behind it.
        if pattern.iter().all(printable) && pattern.last() != Some(&b'\\') {
            f.write_str(" --string \"")?;
            for b in pattern {
                let escape = if matches!(b, b'"' | b'\\') { "\\" } else { "" };
                write!(f, "{escape}{}", char::from(*b))?;
            }
            f.write_str("\"")?;
        } else {
            f.write_str(" --hex-string \"|")?;
            pattern.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
            f.write_str("|\"")?;
        }
        write!(f, " --algo {}", algorithm.word())?;
        if *from != 0 {
            write!(f, " --from {from}")?;
        }
        if *to != u16::MAX {
            write!(f, " --to {to}")?;
        }
        if *ignore_case { f.write_str(" --icase") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_stands_between_bars() {
        assert_eq!(parse_hex("|41 42|foo"), Ok(b"ABfoo".to_vec()));
        assert_eq!(parse_hex("a\\|b"), Ok(b"a|b".to_vec()));
        assert_eq!(parse_hex("|41||42|"), Ok(b"A|42".to_vec()));
        assert_eq!(parse_hex("|41|\\|42|"), Ok(b"A\\B".to_vec()));
        assert_eq!(parse_hex("a|"), Ok(b"a".to_vec()));
        for broken in ["|4|", "|4", "|zz|", "a\\", "a||b", "|41", "|0a|\\\\"] {
            assert!(parse_hex(broken).is_err(), "{broken}");
        }
    }
}
