//! Names → ids, and what only the whole table shows: where a target may stand, and chains that lead back to themselves.

#![forbid(unsafe_code)]

use crate::filter::check::shadow::{self, Endings};
use crate::filter::check::walk_length;
use crate::filter::kept::shared::Named;
use crate::filter::text::rule_line::DraftRule;
use crate::filter::text::save::{ByName, Draft, DraftChain, DraftTable, NOT_FOR_FILTERING};
use crate::filter::walk::classify::{self, Classifier};
use crate::filter::walk::counters::Counters;
use crate::filter::walk::memo::Generation;
use crate::filter::{Chain, ChainId, Chains, Hook, RuleError, Ruleset, Table, Target};
use crate::packet::Family;

/// Makes the ruleset, unless something is wrong with it.
pub(in crate::filter) fn build(
    draft: Draft,
    family: Family,
    errors: &mut Vec<RuleError>,
    warnings: &mut Vec<RuleError>,
) -> Option<Ruleset> {
    let Draft { tables, mut order } = draft;
    let mut built: [Chains; Table::COUNT] = Default::default();
    let mut heads = [[None; 5]; Table::COUNT];
    let mut slots = 0;
    for (table, draft) in Table::ALL.into_iter().zip(tables) {
        let Some(draft) = draft else { continue };
        for (place, hook) in table.hooks().iter().enumerate() {
            heads[table as usize][*hook as usize] = Some(ChainId(place as u16));
        }
        built[table as usize].chains = resolve(table, draft, &mut slots, errors);
        check(table, &built[table as usize].chains, errors);
        warn_of_unreached(table, &built[table as usize].chains, warnings);
    }
    // iptables-save lists the table that was used last first.
    order.reverse();
    let rules = || built.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    let grows = rules().any(|rule| matches!(rule.target, Target::Tcpmss(_)));
    errors.is_empty().then(|| Ruleset {
        grows,
        family,
        tables: built,
        heads,
        order,
        counters: Counters::new(slots),
        generation: Generation::default(),
        named: Named::default(),
    })
}

/// Gives every chain its id and turns the names in jumps into ids.
fn resolve(table: Table, draft: DraftTable, slots: &mut usize, errors: &mut Vec<RuleError>) -> Vec<Chain> {
    let DraftTable { base, user } = draft;
    let mut user: Vec<(String, DraftChain)> = user.into_iter().collect();
    user.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let base = table.hooks().iter().map(|h| h.word().to_owned()).zip(base);
    let drafts: Vec<(String, DraftChain)> = base.chain(user).collect();
    if drafts.len() > usize::from(u16::MAX) {
        errors.push(RuleError {
            line: 1,
            column: 1,
            message: format!("table `{}` has {} chains", table.word(), drafts.len()),
            hint: Some(format!("at most {}", u16::MAX)),
        });
        return Vec::new();
    }
    let ids: ByName<ChainId> =
        drafts.iter().enumerate().map(|(id, (name, _))| (name.clone(), ChainId(id as u16))).collect();
    let mut chains = Vec::with_capacity(drafts.len());
    for (name, DraftChain { policy, count, rules, .. }) in drafts {
        let first_slot = *slots;
        *slots += rules.len() + 1;
        let mut resolved = Vec::with_capacity(rules.len());
        for DraftRule { mut rule, jump, target_at } in rules {
            if let Some(jump) = jump {
                let Some(to) = ids.get(&jump.to) else {
                    errors.push(RuleError {
                        line: rule.line as usize,
                        column: target_at + 1,
                        message: format!("chain `{}` is deleted again further down", jump.to),
                        hint: None,
                    });
                    continue;
                };
                rule.target = if jump.goto { Target::Goto(*to) } else { Target::Jump(*to) };
            }
            errors.extend(misplaced(table, &rule.target, rule.line, target_at));
            errors.extend(misplaced_match(table, &rule));
            resolved.push(rule);
        }
        // In the raw table a rule may exempt the packet from tracking, and so change its state.
        let classifier = Classifier::new(&resolved, table != Table::Raw);
        let steady = resolved.iter().take_while(|r| classify::is_steady(r)).count() as u32;
        chains.push(Chain { name, policy, initial: count, rules: resolved, first_slot, classifier, steady });
    }
    chains
}

/// A target that its table does not have, or that is not built yet.
fn misplaced(table: Table, target: &Target, line: u32, at: usize) -> Option<RuleError> {
    let error = |message, hint| RuleError { line: line as usize, column: at + 1, message, hint };
    if table == Table::Security {
        return Some(RuleError {
            line: line as usize,
            column: 1,
            message: "rules in table `security` are not honoured: there are no security labels here"
                .to_owned(),
            hint: Some("the empty table may stay".to_owned()),
        });
    }
    if table == Table::Nat && *target == Target::Drop {
        let hint = "table `filter` can drop; nat sees the first packet of each connection alone";
        return Some(error(NOT_FOR_FILTERING.to_owned(), Some(hint.to_owned())));
    }
    if table != Table::Mangle
        && let Target::Set(crate::filter::targets::Set { map_mark: Some(_), .. }) = target
    {
        let message = format!("`--map-set` cannot stand in table `{}`", table.word());
        return Some(error(message, Some("it belongs to table `mangle`".to_owned())));
    }
    let spec = target.spec()?;
    if spec.tables.is_empty() || spec.tables.contains(&table) {
        return None;
    }
    let tables: Vec<String> = spec.tables.iter().map(|t| format!("`{}`", t.word())).collect();
    Some(error(
        format!("target `{}` cannot stand in table `{}`", spec.name, table.word()),
        Some(format!("it belongs to table {}", tables.join(" or "))),
    ))
}

/// A match that its table does not have, even where no packet comes.
fn misplaced_match(table: Table, rule: &crate::filter::Rule) -> Option<RuleError> {
    let is_rpfilter =
        |m: &crate::filter::matches::Match| matches!(m, crate::filter::matches::Match::Rpfilter(_));
    let has_it = matches!(table, Table::Raw | Table::Mangle);
    let is_wrong = !has_it && rule.matches.listed.iter().any(is_rpfilter);
    is_wrong.then(|| RuleError {
        line: rule.line as usize,
        column: 1,
        message: format!("match `rpfilter` cannot stand in table `{}`", table.word()),
        hint: Some("it belongs to PREROUTING of table `raw` or `mangle`".to_owned()),
    })
}

/// Follows every way from every base chain: no chain may lead back to itself, and each target must fit the hooks from
/// which it can be reached.
fn check(table: Table, chains: &[Chain], errors: &mut Vec<RuleError>) {
    for chain in chains {
        errors.extend(chain.rules.iter().filter_map(|rule| wrong_iface(rule, &chain.name)));
    }
    let mut state = vec![Visit::New; chains.len()];
    let mut loops = false;
    // The kernel follows the base chains only: a loop where no packet comes is none of its concern.
    for start in 0..table.hooks().len() {
        loops |= find_loop(chains, start, &mut state, errors);
    }
    if loops {
        return;
    }
    errors.extend(walk_length::too_long(chains, table.hooks().len()));
    let reached = reached_from(table, chains);
    for (chain, hooks) in chains.iter().zip(&reached) {
        // What stands in the wrong table was told before.
        let is_of_table = |rule: &&crate::filter::Rule| {
            misplaced_match(table, rule).is_none() && misplaced(table, &rule.target, 0, 0).is_none()
        };
        let rules = walked(chain).iter().filter(is_of_table);
        errors.extend(rules.filter_map(|rule| wrong_hook(rule, hooks)));
    }
}

/// Rules behind one that takes every packet, or all of theirs. Says so only where it is certain.
fn warn_of_unreached(table: Table, chains: &[Chain], warnings: &mut Vec<RuleError>) {
    let mut warn = |line: u32, message: String, hint: String| {
        warnings.push(RuleError { line: line as usize, column: 1, message, hint: Some(hint) });
    };
    let endings = Endings::of(chains);
    for chain in chains {
        let takes_all = |rule: &crate::filter::Rule| {
            shadow::is_unconditional(&rule.matches) && endings.ends(&rule.target)
        };
        let place = chain.rules.iter().position(takes_all);
        if let Some(place) = place
            && let Some(rule) = chain.rules.get(place + 1)
        {
            let taker = chain.rules[place].line;
            warn(
                rule.line,
                format!("no packet comes as far as this rule of chain `{}`", chain.name),
                format!("line {taker} takes them all"),
            );
        }
        // In mangle, rules change what others look at.
        if table == Table::Mangle {
            continue;
        }
        let reached = &chain.rules[..place.map_or(chain.rules.len(), |place| place + 1)];
        for (rule, taker) in shadow::shadowed(&endings, reached) {
            warn(
                rule.line,
                format!("this rule of chain `{}` never holds", chain.name),
                format!("line {} takes all that it would match", taker.line),
            );
        }
    }
}

/// The hooks from which each chain can be reached.
fn reached_from(table: Table, chains: &[Chain]) -> Vec<Vec<Hook>> {
    let mut reached = vec![Vec::new(); chains.len()];
    for (base, hook) in table.hooks().iter().enumerate() {
        let mut todo = vec![base];
        while let Some(chain) = todo.pop() {
            if reached[chain].contains(hook) {
                continue;
            }
            reached[chain].push(*hook);
            todo.extend(ways_out(&chains[chain]).map(|(to, _)| to));
        }
    }
    reached
}

/// The rules that a packet may come to. Where every packet ends, the kernel looks at no rule behind.
pub(in crate::filter) fn walked(chain: &Chain) -> &[crate::filter::Rule] {
    let ends = |rule: &crate::filter::Rule| {
        matches!(rule.target, Target::Accept | Target::Drop | Target::Return)
            && rule.matches == crate::filter::Matches::default()
    };
    let len = chain.rules.iter().position(ends).map_or(chain.rules.len(), |last| last + 1);
    &chain.rules[..len]
}

/// The chains that a chain leads to, and the lines that do.
fn ways_out(chain: &Chain) -> impl Iterator<Item = (usize, u32)> {
    walked(chain).iter().filter_map(|rule| match rule.target {
        Target::Jump(to) | Target::Goto(to) => Some((to.index(), rule.line)),
        _ => None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    /// On the way that is being followed.
    Open,
    Done,
}

/// Walks depth first without recursion: a ruleset may be as deep as it has chains.
fn find_loop(chains: &[Chain], start: usize, state: &mut [Visit], errors: &mut Vec<RuleError>) -> bool {
    if state[start] != Visit::New {
        return false;
    }
    let mut found = false;
    let mut path = vec![(start, ways_out(&chains[start]).collect::<Vec<_>>())];
    state[start] = Visit::Open;
    while let Some((chain, ways)) = path.last_mut() {
        let chain = *chain;
        let Some((to, line)) = ways.pop() else {
            state[chain] = Visit::Done;
            path.pop();
            continue;
        };
        match state[to] {
            Visit::Done => {}
            Visit::Open => {
                found = true;
                let around = path.iter().map(|(c, _)| *c).skip_while(|c| *c != to).chain([to]);
                let names: Vec<&str> = around.map(|c| chains[c].name.as_str()).collect();
                errors.push(RuleError {
                    line: line as usize,
                    column: 1,
                    message: format!("chain `{}` leads back to itself", chains[to].name),
                    hint: Some(format!("the way round is {}", names.join(" → "))),
                });
            }
            Visit::New => {
                state[to] = Visit::Open;
                path.push((to, ways_out(&chains[to]).collect()));
            }
        }
    }
    found
}

/// An interface that no packet of the chain has. The tools see to it, wherever the rule stands.
fn wrong_iface(rule: &crate::filter::Rule, chain: &str) -> Option<RuleError> {
    const OUTWARDS: &[Hook] = &[Hook::Output, Hook::Postrouting];
    const INWARDS: &[Hook] = &[Hook::Prerouting, Hook::Input];
    let is_one = |hooks: &[Hook]| hooks.iter().any(|hook| hook.word() == chain);
    let (letter, hint) = match () {
        () if rule.matches.in_iface.is_some() && is_one(OUTWARDS) => {
            ("-i", "a packet there has only a way out: `-o`")
        }
        () if rule.matches.out_iface.is_some() && is_one(INWARDS) => {
            ("-o", "a packet there has only a way in: `-i`")
        }
        () => return None,
    };
    let message = format!("`{letter}` cannot be used in {chain}");
    Some(RuleError { line: rule.line as usize, column: 1, message, hint: Some(hint.to_owned()) })
}

/// A condition or target that a packet at one of these hooks cannot have.
fn wrong_hook(rule: &crate::filter::Rule, hooks: &[Hook]) -> Option<RuleError> {
    let error = |message: String, hint: &str| {
        Some(RuleError { line: rule.line as usize, column: 1, message, hint: Some(hint.to_owned()) })
    };
    let is_at = |wanted: &[Hook]| hooks.iter().copied().find(|h| wanted.contains(h)).map(Hook::word);
    for m in &rule.matches.listed {
        use crate::filter::matches::{AddrtypeLimit, Match};
        const INWARDS: &[Hook] = &[Hook::Prerouting, Hook::Input];
        const OUTWARDS: &[Hook] = &[Hook::Output, Hook::Postrouting];
        const NO_IFACE: &str = "a packet there has no such interface";
        const NO_FRAME: &str = "a packet there has no sender's link address any more";
        let (wrong, what, hint): (&[Hook], &str, &str) = match m {
            Match::Addrtype(m) if m.limit == AddrtypeLimit::In => (OUTWARDS, "`--limit-iface-in`", NO_IFACE),
            Match::Addrtype(m) if m.limit == AddrtypeLimit::Out => (INWARDS, "`--limit-iface-out`", NO_IFACE),
            Match::Mac(_) => (OUTWARDS, "match `mac`", NO_FRAME),
            Match::Eui64(_) => (OUTWARDS, "match `eui64`", NO_FRAME),
            Match::Physdev(m) if m.needs_a_bridge() => (
                &[Hook::Output],
                "`--physdev-out`",
                "a packet there has not been through the bridge; `--physdev-is-bridged` asks for those that have",
            ),
            Match::Owner(_) => (
                &[Hook::Prerouting, Hook::Input, Hook::Forward],
                "match `owner`",
                "only what the router itself sends could have an owner: it may stand in OUTPUT and POSTROUTING",
            ),
            Match::Policy(m) if m.inwards => (OUTWARDS, "`--dir in`", "`--dir out` can"),
            Match::Policy(_) => (INWARDS, "`--dir out`", "`--dir in` can"),
            Match::Rpfilter(_) => (
                &[Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting],
                "match `rpfilter`",
                "a packet there has been routed already: it may stand in PREROUTING",
            ),
            _ => continue,
        };
        if let Some(hook) = is_at(wrong) {
            return error(format!("{what} cannot be used in {hook}"), hint);
        }
    }
    let spec = rule.target.spec()?;
    let fitting = match &rule.target {
        Target::Tcpmss(crate::filter::targets::Tcpmss::Clamp) => crate::filter::targets::Tcpmss::CLAMP_HOOKS,
        _ => spec.hooks,
    };
    let wrong = hooks.iter().find(|h| !fitting.is_empty() && !fitting.contains(h))?;
    let allowed: Vec<&str> = fitting.iter().map(|h| h.word()).collect();
    error(
        format!("target `{}` cannot be reached from {}", spec.name, wrong.word()),
        &format!("it may stand where packets come from {}", allowed.join(", ")),
    )
}
