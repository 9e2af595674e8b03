//! How a raw packet hangs together with others: `along 1`, `along 1<`, `announced 2 by 1`, `about 1<`.
//!
//! Where a router may choose, what comes later has to fit the choice. Whoever plays a scenario against such a router
//! gives these packets the addresses and ports that the connection has got; elsewhere they are taken as they stand.

#![forbid(unsafe_code)]

use super::words::Words;
use core::fmt;
use stateway_core::conntrack::Direction;

/// What a packet has to do with connections, which go by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It belongs to that connection, and goes that way.
    Along { flow: u16, dir: Direction },
    /// It is the first packet of a connection that another one has announced.
    Announced { flow: u16, master: u16 },
    /// It is an ICMP error about the last packet that left along that connection, that way.
    About { flow: u16, dir: Direction },
}

impl Link {
    /// Takes a link off the rest of a line, if it begins with one.
    pub(super) fn take(words: &mut Words) -> Result<Option<Self>, String> {
        let word = match words.peek() {
            Some(word @ ("along" | "announced" | "about")) => word.to_owned(),
            _ => return Ok(None),
        };
        words.next();
        if word == "announced" {
            let flow = words.number("connection")?;
            if words.plain("by")? != "by" {
                return Err("`announced NUMBER by NUMBER` is wanted".to_owned());
            }
            return Ok(Some(Self::Announced { flow, master: words.number("connection")? }));
        }
        let name = words.plain("connection")?;
        let (number, dir) = match name.strip_suffix('<') {
            Some(number) => (number, Direction::Reply),
            None => (&name[..], Direction::Original),
        };
        let flow = number.parse().map_err(|_| format!("`{number}` is no number of a connection"))?;
        Ok(Some(if word == "along" { Self::Along { flow, dir } } else { Self::About { flow, dir } }))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = Words::split(text).ok()?;
        Self::take(&mut words).ok().flatten().filter(|_| words.is_empty())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = |dir: Direction| if dir == Direction::Reply { "<" } else { "" };
        match *self {
            Self::Along { flow, dir } => write!(f, "along {flow}{}", arrow(dir)),
            Self::About { flow, dir } => write!(f, "about {flow}{}", arrow(dir)),
            Self::Announced { flow, master } => write!(f, "announced {flow} by {master}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_it_is_written() {
        for text in ["along 1", "along 65535<", "about 0<", "announced 2 by 1"] {
            assert_eq!(Link::parse(text).map(|link| link.to_string()), Some(text.to_owned()));
        }
        for text in ["", "along", "along x", "along 70000", "announced 2", "announced 2 of 1", "about 1 2"] {
            assert_eq!(Link::parse(text), None, "{text}");
        }
    }
}
