//! `--shard K/N`: a part of work that several machines share, which is a function of K and N alone.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;

/// Where Kubernetes says which pod of an indexed Job this is, counted from 0.
const INDEX: &str = "JOB_COMPLETION_INDEX";

/// One of so many parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shard {
    /// From 1.
    number: NonZeroUsize,
    of: NonZeroUsize,
}

impl Shard {
    pub(super) const fn number(self) -> usize {
        self.number.get()
    }

    pub(super) const fn of(self) -> usize {
        self.of.get()
    }

    /// Which of `count` pieces of work are its own: all shards together have each of them once, in order.
    pub(super) fn part_of(self, count: usize) -> Range<usize> {
        // 128 bits hold any product of two counts.
        let begin = |number: usize| (count as u128 * number as u128 / self.of.get() as u128) as usize;
        begin(self.number() - 1)..begin(self.number())
    }

    /// `K/N`; or `N`, where `index` says which pod of a Kubernetes Job this is.
    fn read(text: &str, index: Option<&str>) -> Result<Self, String> {
        const HOW: &str = "such as `2/4`, the second of four parts";
        let positive = |text: &str| {
            text.parse::<NonZeroUsize>().map_err(|_| format!("`{text}` is no number from 1: {HOW}"))
        };
        let (number, of) = match (text.split_once('/'), index) {
            (Some((number, of)), _) => (positive(number)?, positive(of)?),
            (None, Some(index)) => {
                let number =
                    index.parse::<usize>().ok().and_then(|index| NonZeroUsize::MIN.checked_add(index));
                (number.ok_or_else(|| format!("${INDEX} is `{index}`, which is no number"))?, positive(text)?)
            }
            (None, None) => {
                return Err(format!(
                    "{HOW}; a number of parts alone takes ${INDEX}, which an indexed Job of Kubernetes sets"
                ));
            }
        };
        if number > of {
            return Err(format!("there is no part {number} of {of}"));
        }
        Ok(Self { number, of })
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, std::env::var(INDEX).ok().as_deref())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_of_it_once_and_in_order() {
        for (count, of) in [(0, 3), (1, 4), (20, 4), (21, 4), (7, 7), (5, 9), (usize::MAX, 3)] {
            let shards = (1..=of).map(|k| Shard::read(&format!("{k}/{of}"), None).unwrap());
            let parts: Vec<Range<usize>> = shards.map(|shard| shard.part_of(count)).collect();
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, count));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
            let lens = parts.iter().map(Range::len);
            assert!(lens.clone().max().unwrap() - lens.min().unwrap() <= 1, "{parts:?}");
        }
    }

    #[test]
    fn a_pod_of_a_job_knows_its_part_by_the_environment() {
        let shard = Shard::read("4", Some("0")).unwrap();
        assert_eq!((shard.number(), shard.of(), shard.to_string().as_str()), (1, 4, "1/4"));
        assert_eq!(Shard::read("2/3", Some("0")).unwrap().number(), 2, "what is said counts");
        for (text, index) in
            [("4", None), ("4", Some("4")), ("4", Some("x")), ("0/4", None), ("5/4", None), ("/", None)]
        {
            assert!(Shard::read(text, index).is_err(), "{text} {index:?}");
        }
    }
}
