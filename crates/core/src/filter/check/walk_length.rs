//! How long the longest way through a table is. A few chains that jump twice to the next one make a way of a billion
//! rules, and a packet that goes it stops all others.

#![forbid(unsafe_code)]

use crate::filter::check::validate::walked;
use crate::filter::{Chain, RuleError, Target};

/// More rules than any file of [`crate::filter`] has in one chain, and some hundredths of a second for a packet that
/// passes them all.
const LONGEST: u64 = 1 << 22;

/// The first chain, from the innermost on, from which a packet may have to pass too many rules. No chain that is reached
/// from one of the first `bases` leads back to itself.
pub(in crate::filter) fn too_long(chains: &[Chain], bases: usize) -> Option<RuleError> {
    let mut lengths = vec![None; chains.len()];
    for base in 0..bases {
        // Depth first without recursion: a chain is measured once all those that it leads to are.
        let mut todo = vec![base];
        while let Some(&chain) = todo.last() {
            let unknown = next_chains(&chains[chain]).filter(|to| lengths[*to].is_none());
            let before = todo.len();
            todo.extend(unknown.collect::<Vec<_>>());
            if todo.len() > before {
                continue;
            }
            todo.pop();
            let length = length(&chains[chain], &lengths);
            if length > LONGEST {
                return Some(error(&chains[chain], length));
            }
            lengths[chain] = Some(length);
        }
    }
    None
}

fn next_chains(chain: &Chain) -> impl Iterator<Item = usize> {
    walked(chain).iter().filter_map(|rule| match rule.target {
        Target::Jump(to) | Target::Goto(to) => Some(to.index()),
        _ => None,
    })
}

/// Rules on the longest way from the chain's first rule on: every jump is taken and comes back, or one goto is taken.
fn length(chain: &Chain, lengths: &[Option<u64>]) -> u64 {
    let known = |chain: crate::filter::ChainId| lengths[chain.index()].unwrap_or(0);
    let (mut passed, mut longest) = (0_u64, 0);
    for rule in walked(chain) {
        passed = passed.saturating_add(1);
        match rule.target {
            Target::Jump(to) => passed = passed.saturating_add(known(to)),
            Target::Goto(to) => longest = longest.max(passed.saturating_add(known(to))),
            _ => {}
        }
    }
    passed.max(longest)
}

fn error(chain: &Chain, length: u64) -> RuleError {
    let leads_on = |rule: &&crate::filter::Rule| matches!(rule.target, Target::Jump(_) | Target::Goto(_));
    let line = chain.rules.iter().find(leads_on).or_else(|| chain.rules.first()).map_or(0, |rule| rule.line);
    RuleError {
        line: line as usize,
        column: 1,
        message: format!("a packet may have to pass {length} rules from chain `{}` on", chain.name),
        hint: Some(format!("at most {LONGEST}: jump to a chain once where several rules jump to it")),
    }
}

#[cfg(test)]
mod tests {
    use crate::filter::Ruleset;
    use crate::packet::Family;
    use std::fmt::Write as _;

    /// `depth` chains, each of which leads `times` times to the next one.
    fn deep(depth: usize, times: usize, how: &str) -> String {
        let mut text = "*filter\n".to_owned();
        (0..=depth).for_each(|n| writeln!(text, ":c{n} - [0:0]").unwrap());
        text += "-A FORWARD -j c0\n";
        for n in 0..depth {
            (0..times).for_each(|_| writeln!(text, "-A c{n} -p tcp {how} c{}", n + 1).unwrap());
        }
        text + "COMMIT\n"
    }

    fn problem(text: &str) -> Option<String> {
        Ruleset::load(text, Family::Ipv4, &[]).err().map(|errors| errors[0].to_string())
    }

    #[test]
    fn a_way_that_doubles_thirty_times_is_refused_and_named() {
        let said = problem(&deep(30, 2, "-j")).unwrap();
        // From c9 on it is 4,194,302.
        assert!(said.contains("a packet may have to pass 8388606 rules from chain `c8` on"), "{said}");
        assert!(said.contains("hint: at most 4194304"), "{said}");
    }

    #[test]
    fn a_way_that_is_long_without_doubling_is_none_of_them() {
        assert_eq!(problem(&deep(200, 1, "-j")), None);
        assert_eq!(problem(&deep(20, 2, "-j")), None);
        // Who is sent on does not come back.
        assert_eq!(problem(&deep(60, 2, "-g")), None);
        // Nor is a way long that no packet goes.
        assert_eq!(problem(&deep(60, 2, "-j").replace("-A FORWARD -j c0\n", "")), None);
    }
}
