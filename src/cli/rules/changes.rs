//! The part of `stateway rules diff` that speaks of every packet.

use super::Reading;
use super::prove::{self, Rules, Shown};
use super::search::{describe_among, group_json, too_large};
use crate::cli::Result;
use crate::cli::render;
use crate::cli::rules_text::RulesText;
use serde_json::{Value, json};
use stateway_core::filter::Ruleset;
use stateway_model::{
    Fate, Field, Group, Model, Room, Router, Set, Space, TooLarge, Translated, Way, changes, interfaces,
    retranslated, translates,
};

/// So many changes of translation are said one by one.
const MOST_CHANGES: usize = 64;

/// Packets of one way that had a fate and have another.
pub(super) struct Changed {
    hook: &'static str,
    old: String,
    new: String,
    groups: Vec<Group>,
    is_more: bool,
    shown: Option<Shown>,
}

/// All packets that change their fate.
pub(super) fn of(reading: &Reading, texts: [&RulesText; 2], rules: [&Ruleset; 2]) -> Result<Vec<Changed>> {
    let names =
        if reading.ifaces.is_empty() { interfaces(rules.into_iter(), &[]) } else { reading.ifaces.clone() };
    let reading = Reading { ifaces: names.clone(), ..reading.clone() };
    let [old, new] = [reading.load_right(texts[0], false)?, reading.load_right(texts[1], false)?];
    let space = Space::new(old.family, names, Room::USUAL).map_err(too_large)?;
    let router = Router { has_helpers: false, turns_back: translates(&old) || translates(&new) };
    let mut all = Vec::new();
    // Where packets come in, rules do not know yet which way they go: each translation is told of once.
    let mut told = space.empty();
    for (way, hook) in [(Way::Forward, "FORWARD"), (Way::Input, "INPUT"), (Way::Output, "OUTPUT")] {
        let sides = [(texts[0].whole(), &old), (texts[1].whole(), &new)];
        all.extend(of_way(&space, sides, router, (way, hook), &mut told).map_err(too_large)?);
    }
    Ok(all)
}

fn of_way(
    space: &Space,
    [old, new]: [(&str, &Ruleset); 2],
    router: Router,
    (way, hook): (Way, &'static str),
    told: &mut Set,
) -> std::result::Result<Vec<Changed>, TooLarge> {
    let before = Model::new(old.1, space, way, router)?;
    let after = Model::new(new.1, space, way, router)?;
    let (changes, tracked) = changes(&before, &after)?;
    let possible = before.possible.or(&after.possible)?;
    let mut all = Vec::new();
    for change in changes {
        let (groups, is_more) = describe_among(space, &change.packets, &possible, &before.real)?;
        let sides = [Rules { rules: old.1, text: old.0 }, Rules { rules: new.1, text: new.0 }];
        let fates = [change.old, change.new];
        let shown = show(&before, &after, &change.packets.and(&before.real)?, sides, fates)?;
        all.push(Changed {
            hook,
            old: change.old.word(way).to_owned(),
            new: change.new.word(way).to_owned(),
            groups,
            is_more,
            shown,
        });
    }
    for translated in of_translation(&before, &after, told)? {
        *told = told.or(&space.forget(&translated.packets, &[Field::Out], false)?)?;
        let (groups, is_more) =
            describe_among(space, &translated.packets, &possible.or(&translated.packets)?, &before.real)?;
        let title = |packet: &str| format!("{packet}: translated otherwise");
        let sides = [Rules { rules: old.1, text: old.0 }, Rules { rules: new.1, text: new.0 }];
        // What changes its fate as well has been shown.
        let passed = before.fates.passed.and(&after.fates.passed)?.and(&before.real)?;
        let packets = translated.packets.and(&passed)?;
        let shown = prove::show_translated(&before, &after, &packets, sides, &title)?;
        let word = |translated: Option<String>| translated.unwrap_or_else(|| "not translated".to_owned());
        let (old, new) = (word(translated.old), word(translated.new));
        all.push(Changed { hook, old, new, groups, is_more, shown });
    }
    if !tracked.is_empty() && way != Way::Output {
        for (set, was, is) in [
            (tracked.without(&before.supposed.untracked)?, "tracked", "untracked"),
            (tracked.without(&after.supposed.untracked)?, "untracked", "tracked"),
        ] {
            if !set.is_empty() {
                let (groups, is_more) = describe_among(space, &set, &space.packets()?, &before.real)?;
                let (old, new) = (was.to_owned(), is.to_owned());
                all.push(Changed { hook, old, new, groups, is_more, shown: None });
            }
        }
    }
    Ok(all)
}

/// What changes of translation; what would be too many lines is one.
fn of_translation(
    before: &Model<'_>,
    after: &Model<'_>,
    told: &Set,
) -> std::result::Result<Vec<Translated>, TooLarge> {
    let mut all = retranslated(before, after, told)?;
    if all.len() > MOST_CHANGES {
        let rest = all.split_off(MOST_CHANGES);
        let packets = before.space.any(rest.into_iter().map(|translated| translated.packets).collect())?;
        let word = |word: &str| Some(word.to_owned());
        all.push(Translated { old: word("translated"), new: word("translated otherwise"), packets });
    }
    Ok(all)
}

/// A packet that meets one fate under the old rules and the other under the new ones.
fn show(
    before: &Model<'_>,
    after: &Model<'_>,
    packets: &Set,
    [old, new]: [Rules<'_>; 2],
    [was, is]: [Fate; 2],
) -> std::result::Result<Option<Shown>, TooLarge> {
    let title =
        |packet: &str| format!("{packet}: {} before, {} now", was.word(before.way), is.word(after.way));
    // Best one whose state both rulesets bring about; else one that the new ones do.
    let both = packets.and(&before.possible)?.and(&after.possible)?;
    let packets = if both.is_empty() { packets.clone() } else { both };
    let shown = prove::show_both(before, after, &packets, [old, new], [was, is], &title)?;
    Ok(shown)
}

pub(super) fn print(changed: &[Changed]) {
    for change in changed {
        render::line(&format!("{}: {} → {}", change.hook, change.old, change.new));
        for group in &change.groups {
            render::line(&format!("  {}", group.text()));
        }
        if change.is_more {
            render::line("  and more than can be said in so few words");
        }
        if let Some(Shown { packet, proof }) = &change.shown {
            match proof {
                Ok(_) => render::line(&format!("  packet: {packet}, proved by running it under both")),
                Err(why) => render::line(&format!("  packet: {packet}, not proved: {why}")),
            }
        }
    }
}

pub(super) fn as_json(changed: &[Changed]) -> Value {
    let one = |change: &Changed| {
        json!({
            "hook": change.hook,
            "old": change.old,
            "new": change.new,
            "packets": change.groups.iter().map(group_json).collect::<Vec<_>>(),
            "more": change.is_more,
            "witness": change.shown.as_ref().map(Shown::json),
        })
    };
    changed.iter().map(one).collect()
}
