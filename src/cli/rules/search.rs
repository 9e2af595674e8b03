//! `stateway rules search`: which packets meet a fate, of all that there can be.

use super::Reading;
use super::prove::{self, Rules, Shown};
use super::question::Question;
use crate::cli::render::{self, Format};
use crate::cli::rules_text::RulesText;
use crate::cli::{Failure, Result};
use anyhow::anyhow;
use serde_json::{Value, json};
use stateway_core::config::{Mode, RouterConfig};
use stateway_core::filter::Ruleset;
use stateway_core::packet::Family;
use stateway_lab as lab;
use stateway_model::{
    Fate, Group, Model, Room, Router, Set, Space, TooLarge, Way, groups, interfaces, translates, translations,
};
use std::path::{Path, PathBuf};

/// So many groups are said; more would say nothing.
const MOST_GROUPS: usize = 24;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Text as iptables-save writes it; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// The rules for IPv6, as of ip6tables-save, beside FILE
    #[arg(long, value_name = "FILE", conflicts_with = "ipv6")]
    rules6: Option<PathBuf>,
    /// Take the names of interfaces and the helpers from a lab
    #[arg(long, value_name = "LAB")]
    lab: Option<PathBuf>,
    /// Where packets are judged
    #[arg(long, value_name = "HOOK", default_value = "FORWARD", ignore_case = true)]
    hook: Hook,
    #[command(flatten)]
    question: Question,
    /// What becomes of them
    #[arg(long, value_name = "FATE", ignore_case = true)]
    fate: Option<Wanted>,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Hook {
    /// Packets through the router
    #[value(name = "FORWARD")]
    Forward,
    /// Packets to the router itself
    #[value(name = "INPUT")]
    Input,
    /// Packets that the router itself sends
    #[value(name = "OUTPUT")]
    Output,
}

impl Hook {
    const fn way(self) -> Way {
        match self {
            Self::Forward => Way::Forward,
            Self::Input => Way::Input,
            Self::Output => Way::Output,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// They pass: forwarded, or delivered to the router
    #[value(name = "forwarded", aliases = ["accept", "accepted", "passed", "delivered", "sent"])]
    Forwarded,
    #[value(name = "dropped", alias = "drop")]
    Dropped,
    #[value(name = "rejected", alias = "reject")]
    Rejected,
    /// Dropped or rejected
    #[value(name = "refused")]
    Refused,
}

/// What is said of one family.
struct Answer {
    family: Family,
    groups: Vec<Group>,
    is_more: bool,
    shown: Option<Shown>,
}

pub(super) fn run(args: &Args) -> Result {
    let config = match &args.lab {
        Some(lab) => Some(lab::load_router(lab).map_err(|errors| Failure::Input(errors.into()))?.0),
        None => None,
    };
    let first = if args.reading.ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let mut files = vec![(first, args.file.as_path())];
    files.extend(args.rules6.as_deref().map(|file| (Family::Ipv6, file)));
    let mut answers = Vec::new();
    let mut is_asked = false;
    for (family, file) in files {
        let text = RulesText::read(&args.reading.sets, file)?;
        let reading = Reading { ipv6: family == Family::Ipv6, ..args.reading.clone() };
        let rules = reading.load_right(&text, false)?;
        if !args.question.is_about(family) {
            continue;
        }
        is_asked = true;
        answers.extend(answer(args, config.as_ref(), (file, &text), &rules, &reading)?);
    }
    if !is_asked {
        return Err(Failure::Input(anyhow!(
            "there are no rules for the family of these addresses\n  hint: `--rules6 FILE` for IPv6 beside IPv4, `-6` for FILE itself"
        )));
    }
    match args.format {
        Format::Json => render::json(&json!({
            "found": !answers.is_empty(),
            "hook": format!("{:?}", args.hook).to_uppercase(),
            "answers": answers.iter().map(Answer::json).collect::<Vec<_>>(),
        })),
        Format::Text => print(&answers),
    }
    if answers.is_empty() { Err(Failure::Differs) } else { Ok(()) }
}

fn answer(
    args: &Args,
    config: Option<&RouterConfig>,
    (file, text): (&Path, &RulesText),
    rules: &Ruleset,
    reading: &Reading,
) -> Result<Option<Answer>> {
    let names = match config {
        Some(config) => config.ifaces.iter().map(|iface| iface.name.clone()).collect(),
        None if !reading.ifaces.is_empty() => reading.ifaces.clone(),
        None => interfaces(std::iter::once(rules), &args.question.ifaces()),
    };
    let unknown =
        args.question.ifaces().into_iter().find(|name| !name.ends_with('+') && !names.contains(name));
    if let Some(unknown) = unknown {
        return Err(Failure::Input(anyhow!(
            "no interface named `{unknown}`\n  hint: there are {}",
            names.join(", ")
        )));
    }
    // Loaded again with the names of all interfaces, so that rules know whom they mean.
    let rules = &Reading { ifaces: names.clone(), ..reading.clone() }.load_right(text, false)?;
    let family = rules.family;
    let is_routed = config.map_or(translates(rules), |config| config.mode == Mode::Route);
    let router = Router {
        has_helpers: config.is_some_and(|config| !config.helpers.is_empty()),
        turns_back: is_routed || args.question.turns_back(),
    };
    let space = Space::new(family, names, Room::USUAL).map_err(too_large)?;
    let (question, as_it_came) = (args.question.packets(&space)?, args.question.as_it_came(&space)?);
    let found = || -> std::result::Result<Option<Answer>, TooLarge> {
        let model = Model::new(rules, &space, args.hook.way(), router)?;
        let fates: &[Fate] = match args.fate {
            None => &Fate::ALL,
            Some(Wanted::Forwarded) => &[Fate::Passed],
            Some(Wanted::Dropped) => &[Fate::Dropped],
            Some(Wanted::Rejected) => &[Fate::Rejected],
            Some(Wanted::Refused) => &[Fate::Dropped, Fate::Rejected],
        };
        let mut set = space.empty();
        for fate in fates {
            set = set.or(model.of(*fate))?;
        }
        let set = set.and(&model.destinations.before(&space, &question)?)?.and(&as_it_came)?;
        let real = set.and(&model.real)?;
        if real.is_empty() {
            return Ok(None);
        }
        let (groups, is_more) = describe(&model, &set)?;
        let title = |packet: &str| format!("{} under `{}`", packet, file.display());
        let shown = prove::show(&model, &real, Rules { rules, text: text.whole() }, fates, &title)?;
        Ok(Some(Answer { family, groups, is_more, shown }))
    };
    found().map_err(too_large)
}

/// A set in words, by how its packets are translated.
fn describe(model: &Model<'_>, set: &Set) -> std::result::Result<(Vec<Group>, bool), TooLarge> {
    let moves = [&model.destinations, &model.sources];
    // What is refused is translated no further.
    let passed = set.and(model.of(Fate::Passed))?;
    let (parts, mut is_more) = translations(model.space, moves, &passed, MOST_GROUPS)?;
    if parts.iter().all(|(translated, _)| translated.is_empty()) {
        return describe_among(model.space, set, &model.possible, &model.real);
    }
    let mut all = Vec::new();
    let refused = set.without(&passed)?;
    for (translated, part) in parts {
        let part = if translated.is_empty() { part.or(&refused)? } else { part };
        if all.len() >= MOST_GROUPS {
            is_more = true;
            break;
        }
        let (mut groups, more) = describe_among(model.space, &part, &model.possible, &model.real)?;
        for group in &mut groups {
            group.translated.clone_from(&translated);
        }
        all.extend(groups);
        is_more |= more;
    }
    Ok((all, is_more))
}

/// A set in words, and perhaps packets that are not among `possible`. What turns back is said as the rules say it, unless nothing
/// else is in a group.
pub(super) fn describe_among(
    space: &Space,
    set: &Set,
    possible: &Set,
    real: &Set,
) -> std::result::Result<(Vec<Group>, bool), TooLarge> {
    let (mut groups, is_more) = groups(space, set, possible, MOST_GROUPS)?;
    let mut is_real = Vec::new();
    for group in &groups {
        is_real.push(group.set.and(set)?.meets(real)?);
    }
    let mut is_real = is_real.into_iter();
    groups.retain(|_| is_real.next().unwrap_or(true));
    Ok((groups, is_more))
}

pub(super) fn too_large(error: TooLarge) -> Failure {
    Failure::Machine(error.into())
}

/// The answer as a story with comments, which `stateway replay` takes as it stands.
fn print(answers: &[Answer]) {
    if answers.is_empty() {
        render::line("no such packet");
        return;
    }
    let stories = answers.iter().filter_map(|answer| answer.shown.as_ref()?.proof.as_ref().ok());
    let story = stories.into_iter().next();
    let (title, rest) = story.and_then(|proof| proof.flow.split_once('\n')).unwrap_or(("# packets", ""));
    render::line(title);
    for answer in answers {
        render::line(&format!("#\n# {}, all such packets:", answer.family.name()));
        for group in &answer.groups {
            render::line(&format!("#   {}", group.text()));
        }
        if answer.is_more {
            render::line("#   and more than can be said in so few words");
        }
        match answer.shown.as_ref().map(|shown| (&shown.packet, &shown.proof)) {
            Some((packet, Ok(proof))) => {
                let by = proof.rule.as_ref().map_or_else(String::new, |rule| format!(" by {rule}"));
                let sent = proof.sent_as(packet);
                render::line(&format!(
                    "# one of them: {packet}\n# proved by running it: {}{sent}{by}",
                    proof.fate
                ));
            }
            Some((packet, Err(why))) => {
                render::line(&format!("# one of them: {packet}\n# not proved: {why}"));
            }
            None => render::line("# not proved: no packet of them can be shown"),
        }
    }
    if !rest.is_empty() {
        render::line(&format!("#\n{}", rest.trim_end()));
    }
}

impl Answer {
    fn json(&self) -> Value {
        json!({
            "family": if self.family == Family::Ipv4 { "ipv4" } else { "ipv6" },
            "packets": self.groups.iter().map(group_json).collect::<Vec<_>>(),
            "more": self.is_more,
            "witness": self.shown.as_ref().map(Shown::json),
        })
    }
}

pub(super) fn group_json(group: &Group) -> Value {
    let mut value = json!({ "text": group.text() });
    for (field, words) in &group.fields {
        value[format!("{field:?}").to_lowercase()] = json!(words);
    }
    if !group.translated.is_empty() {
        value["translated"] = json!(group.translated);
    }
    if !group.supposing.is_empty() {
        value["supposing"] = json!(group.supposing);
    }
    value
}
