//! From rules and frames that differ to the fewest that still do (delta debugging).

#![forbid(unsafe_code)]

use super::bench::{Case, Difference, Kind, run};
use super::text::Tables;
use anyhow::Result;

/// Runs that one difference is worth.
const MAX_RUNS: usize = 250;

/// A case on its way to the least.
struct Shrinker {
    best: Case,
    difference: Difference,
    kind: Kind,
    runs: usize,
}

/// The smallest case found that differs in the same way. `None` if it does not differ when it is run again.
pub(super) fn shrink(case: &Case, kind: Kind) -> Result<Option<(Case, Difference)>> {
    let mut again = || Ok::<_, anyhow::Error>(run(case)?.difference.filter(|d| d.kind == kind));
    let Some(difference) = again()?.map_or_else(&mut again, |found| Ok(Some(found)))? else {
        return Ok(None);
    };
    let mut shrinker = Shrinker { best: case.clone(), difference, kind, runs: 0 };
    shrinker.cut_behind();
    loop {
        let before = shrinker.size();
        shrinker.fewer_frames()?;
        shrinker.fewer_rules()?;
        shrinker.fewer_conditions()?;
        shrinker.milder_policies()?;
        if shrinker.size() == before || shrinker.runs >= MAX_RUNS {
            return Ok(Some((shrinker.best, shrinker.difference)));
        }
    }
}

impl Shrinker {
    fn size(&self) -> usize {
        self.best.frames.len() + self.best.rules.iter().map(Tables::size).sum::<usize>()
    }

    /// What comes after the difference has no part in it.
    fn cut_behind(&mut self) {
        self.best.frames.truncate(self.difference.fed);
    }

    /// Keeps a smaller case if it differs as well.
    fn attempt(&mut self, mut case: Case) -> Result<bool> {
        if self.runs >= MAX_RUNS {
            return Ok(false);
        }
        self.runs += 1;
        case.rules.iter_mut().for_each(Tables::tidy);
        match run(&case)?.difference {
            Some(difference) if difference.kind == self.kind => {
                (self.best, self.difference) = (case, difference);
                self.cut_behind();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Policies that have no part in it accept.
    fn milder_policies(&mut self) -> Result<()> {
        for family in 0..2 {
            for table in 0..self.best.rules[family].tables.len() {
                let mut case = self.best.clone();
                let policies =
                    case.rules[family].tables[table].chains.iter_mut().filter_map(|c| c.1.as_mut());
                let drops: Vec<_> = policies.filter(|policy| policy.as_str() == "DROP").collect();
                if !drops.is_empty() {
                    for policy in drops {
                        "ACCEPT".clone_into(policy);
                    }
                    self.attempt(case)?;
                }
            }
        }
        Ok(())
    }

    fn fewer_frames(&mut self) -> Result<()> {
        let mut size = self.best.frames.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < self.best.frames.len() {
                let mut case = self.best.clone();
                case.frames.drain(start..(start + size).min(case.frames.len()));
                if !self.attempt(case)? {
                    start += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    fn fewer_rules(&mut self) -> Result<()> {
        for family in 0..2 {
            let mut size = self.best.rules[family].places().len().div_ceil(2);
            while size > 0 {
                let mut start = 0;
                loop {
                    let places = self.best.rules[family].places();
                    if start >= places.len() {
                        break;
                    }
                    let mut case = self.best.clone();
                    case.rules[family].remove(&places[start..(start + size).min(places.len())]);
                    if !self.attempt(case)? {
                        start += size;
                    }
                }
                size /= 2;
            }
        }
        Ok(())
    }

    fn fewer_conditions(&mut self) -> Result<()> {
        // With less, what nobody takes is refused for other reasons.
        if self.kind == Kind::Refused {
            return Ok(());
        }
        for family in 0..2 {
            for (table, rule) in self.best.rules[family].places() {
                let line = |case: &Case| {
                    case.rules[family].tables.get(table).and_then(|t| t.rules.get(rule)).cloned()
                };
                let mut part = 0;
                while line(&self.best).is_some_and(|line| part < line.parts.len()) {
                    let mut case = self.best.clone();
                    case.rules[family].tables[table].rules[rule].parts.remove(part);
                    if !self.attempt(case)? {
                        part += 1;
                    }
                }
            }
        }
        Ok(())
    }
}
