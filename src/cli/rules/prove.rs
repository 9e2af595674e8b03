//! A witness of the model, run through the router as `stateway replay` would run it.

use crate::cli::captures;
use crate::cli::router_args::{self, RouterArgs};
use core::ops::ControlFlow::Continue;
use serde_json::{Value, json};
use stateway_core::filter::Ruleset;
use stateway_model::{
    Fate, Model, Set, Stage, TooLarge, Way, Witness, story, summary, translates, witnesses,
};
use stateway_trace::replay::{FrameVerdict, epoch_of};
use stateway_trace::{coverage, flow};

/// One packet of a set, and whether it met its fate when it was run.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// `wan → lan, tcp 198.51.100.66:22 > 192.0.2.104:80 SYN, NEW`
    pub(super) packet: String,
    pub(super) proof: Result<Proof, String>,
}

/// What was run, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// In the language of scenarios, the packet last.
    pub(super) flow: String,
    pub(super) fate: &'static str,
    /// The rule that decided.
    pub(super) rule: Option<String>,
}

/// A ruleset as it was loaded, and as text.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) rules: &'a Ruleset,
    pub(super) text: &'a str,
}

/// Shows a packet of `set`, which meets `fate` as the model says. The first that is proved, else the plainest.
pub(super) fn show(
    model: &Model<'_>,
    set: &Set,
    rules: Rules<'_>,
    fates: &[Fate],
    title: &dyn Fn(&str) -> String,
) -> Result<Option<Shown>, TooLarge> {
    let mut first = None;
    for witness in witnesses(model, set)? {
        let mut fate = None;
        for candidate in fates {
            if model.space.only(&witness.packet)?.meets(&model.of(*candidate).and(set)?)? {
                fate = Some(*candidate);
                break;
            }
        }
        let Some(fate) = fate else { continue };
        let shown = run(model, &witness, rules, fate, title);
        if shown.proof.is_ok() {
            return Ok(Some(shown));
        }
        first.get_or_insert(shown);
    }
    Ok(first)
}

/// Shows a packet that meets one fate under the first rules and another under the second; the story is under the second.
pub(super) fn show_both(
    before: &Model<'_>,
    after: &Model<'_>,
    set: &Set,
    [old, new]: [Rules<'_>; 2],
    [was, is]: [Fate; 2],
    title: &dyn Fn(&str) -> String,
) -> Result<Option<Shown>, TooLarge> {
    let mut first = None;
    let mut all = witnesses(after, set)?;
    all.extend(witnesses(before, set)?);
    for witness in all {
        let is_new = run(after, &witness, new, is, title);
        let was_old = run(before, &witness, old, was, title);
        match (&is_new.proof, &was_old.proof) {
            (Ok(_), Ok(_)) => return Ok(Some(is_new)),
            (Err(_), _) => first.get_or_insert(is_new),
            (Ok(_), Err(_)) => first.get_or_insert(was_old),
        };
    }
    Ok(first)
}

fn run(
    model: &Model<'_>,
    witness: &Witness,
    rules: Rules<'_>,
    fate: Fate,
    title: &dyn Fn(&str) -> String,
) -> Shown {
    let packet = summary(model.space, model.way, witness);
    let title = title(&packet);
    let is_routed = translates(rules.rules);
    let stage = Stage { title: &title, rules: rules.text, way: model.way, is_routed };
    let why_no_story = match model.way {
        Way::Output => "what the router itself sends cannot be sent by a story",
        Way::Forward | Way::Input => "stories have no words for what brings this packet about",
    };
    let proof = match story(model.space, stage, witness) {
        None => Err(why_no_story.to_owned()),
        Some(flow) => prove(flow, witness.state.word(), fate.word(model.way)),
    };
    Shown { packet, proof }
}

/// Runs a story; its last packet must have this state and meet this fate.
fn prove(flow: String, state: &str, fate: &str) -> Result<Proof, String> {
    let last = last_verdict(&flow)?;
    let was = last.state;
    if last.fate != fate || was != state {
        return Err(format!("run, it is {was} and {}, not {state} and {fate}", last.fate));
    }
    Ok(Proof { flow, fate: last.fate, rule: last.rule })
}

/// What became of a packet.
struct Verdict {
    state: &'static str,
    fate: &'static str,
    rule: Option<String>,
}

/// What becomes of the last packet of a story.
fn last_verdict(flow: &str) -> Result<Verdict, String> {
    let scenario = flow::parse(flow)
        .map_err(|errors| errors.first().map_or_else(String::new, |error| format!("its story: {error}")))?;
    let said = |failure: crate::cli::Failure| match failure {
        crate::cli::Failure::Input(error) | crate::cli::Failure::Machine(error) => {
            format!("its story does not run: {error:#}")
        }
        crate::cli::Failure::Differs | crate::cli::Failure::Told(_) => "its story does not run".to_owned(),
    };
    let opened = captures::of_scenario(&scenario).map_err(said)?;
    let mut config = RouterArgs::default().config(|| opened.router()).map_err(said)?;
    config.unix_epoch_nanos = epoch_of(opened.source.survey().first_nanos);
    let router = router_args::build(config).map_err(said)?;
    let mut last = None;
    coverage::run(&opened.source, &[&router], |_, verdicts| {
        let told = |FrameVerdict { ctstate, fate, rule, .. }: &FrameVerdict<'_>| Verdict {
            state: ctstate.unwrap_or("untracked"),
            fate,
            rule: rule.clone(),
        };
        last = verdicts.first().map(told);
        Continue(())
    })
    .map_err(|error| format!("its story does not run: {error:?}"))?;
    last.ok_or_else(|| "its story has no packet".to_owned())
}

impl Shown {
    pub(super) fn json(&self) -> Value {
        match &self.proof {
            Ok(Proof { flow, fate, rule }) => json!({
                "packet": self.packet, "proved": true, "fate": fate, "rule": rule, "flow": flow,
            }),
            Err(why) => json!({ "packet": self.packet, "proved": false, "why": why }),
        }
    }
}
