//! From a trace that differs to the shortest one that still does (delta debugging, one minimal).

#![forbid(unsafe_code)]

use super::clock::now;
use super::coverage::Coverage;
use super::trace::Trace;
use super::world::{Difference, World};
use anyhow::Result;
use std::time::Duration;

/// Traces in which time really passes take their time; what is found until then will do.
const PATIENCE: Duration = Duration::from_secs(40);

/// The shortest trace found that still differs, and how. `None` if the trace alone does not differ.
pub(super) fn shrink(world: &mut World, trace: &Trace, at: usize) -> Result<Option<(Trace, Difference)>> {
    let mut unseen = Coverage::default();
    // What comes after the difference has no part in it.
    let mut best = Trace { steps: trace.steps[..=at].to_vec(), ..trace.clone() };
    let Some(mut difference) = world.run(&best, &mut unseen)? else { return Ok(None) };
    let mut size = best.steps.len() / 2;
    let begin = now();
    while size > 0 {
        let mut start = 0;
        let mut shrank = false;
        while start < best.steps.len() {
            if begin.elapsed() > PATIENCE {
                return Ok(Some((best, difference)));
            }
            let mut steps = best.steps.clone();
            steps.drain(start..(start + size).min(best.steps.len()));
            let candidate = Trace { steps, ..best.clone() };
            match world.run(&candidate, &mut unseen)? {
                Some(found) => {
                    let mut candidate = candidate;
                    candidate.steps.truncate(found.step + 1);
                    (best, difference, shrank) = (candidate, found, true);
                }
                None => start += size,
            }
        }
        size = if shrank { size } else { size / 2 };
        size = size.min(best.steps.len() / 2 + usize::from(size == 1 && shrank));
    }
    Ok(Some((best, difference)))
}
