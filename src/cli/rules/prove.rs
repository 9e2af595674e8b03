//! A witness of the model, run through the router as `stateway replay` would run it.

use crate::cli::captures;
use crate::cli::router_args::{self, RouterArgs};
use core::ops::ControlFlow::Continue;
use serde_json::{Value, json};
use stateway_core::conntrack::flow_of;
use stateway_core::filter::Ruleset;
use stateway_core::packet::tuple::{PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE};
use stateway_core::packet::{Offload, Packet};
use stateway_model::{
    Fate, Model, Sent, Set, Stage, TooLarge, Way, Witness, beginning, story, summary, translates, witnesses,
};
use stateway_trace::replay::{FrameVerdict, epoch_of};
use stateway_trace::{coverage, flow};
use std::net::SocketAddr;

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
    /// As what the packet left.
    pub(super) sent: Option<Left>,
}

/// A packet that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    ends: Sent,
    /// `198.51.100.1:40000 > 192.0.2.10:80`
    pub(super) text: String,
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

/// Shows a packet of `set` that passes under both rules and leaves with other ends; the story is under the second.
pub(super) fn show_translated(
    before: &Model<'_>,
    after: &Model<'_>,
    set: &Set,
    [old, new]: [Rules<'_>; 2],
    title: &dyn Fn(&str) -> String,
) -> Result<Option<Shown>, TooLarge> {
    let mut first = None;
    for witness in witnesses(after, set)? {
        let is_new = run(after, &witness, new, Fate::Passed, title);
        let was_old = run(before, &witness, old, Fate::Passed, title);
        match (&is_new.proof, &was_old.proof) {
            (Ok(is), Ok(was)) if is.sent != was.sent => return Ok(Some(is_new)),
            (Ok(_), Ok(_)) => {
                let why = match after.way {
                    Way::Forward => "run, it leaves as the same packet",
                    Way::Input | Way::Output => "a story does not show the ends of what is delivered",
                };
                first.get_or_insert(Shown { packet: is_new.packet, proof: Err(why.to_owned()) });
            }
            (Err(_), _) => {
                first.get_or_insert(is_new);
            }
            (Ok(_), Err(_)) => {
                first.get_or_insert(was_old);
            }
        }
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
    let mut stage = Stage { title: &title, rules: rules.text, is_routed, sent: None };
    if is_routed && let Some(beginning) = beginning(model, stage, witness) {
        // Who answers knows the connection as it left the router.
        stage.sent = last_verdict(&beginning).ok().and_then(|verdict| verdict.sent).map(|sent| sent.ends);
    }
    let why_no_story = match model.way {
        Way::Output => "what the router itself sends cannot be sent by a story",
        Way::Forward | Way::Input => "stories have no words for what brings this packet about",
    };
    let proof = match story(model, stage, witness) {
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
    Ok(Proof { flow, fate: last.fate, rule: last.rule, sent: last.sent })
}

/// What became of a packet.
struct Verdict {
    state: &'static str,
    fate: &'static str,
    rule: Option<String>,
    sent: Option<Left>,
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
        let told = |FrameVerdict { ctstate, fate, rule, emitted, .. }: &FrameVerdict<'_>| Verdict {
            state: ctstate.unwrap_or("untracked"),
            fate,
            rule: rule.clone(),
            // Whatever else leaves is an answer of the router's own.
            sent: emitted.first().filter(|_| *fate == "forwarded").and_then(|emitted| left(&emitted.bytes)),
        };
        last = verdicts.first().map(told);
        Continue(())
    })
    .map_err(|error| format!("its story does not run: {error:?}"))?;
    last.ok_or_else(|| "its story has no packet".to_owned())
}

/// The ends of a frame that left.
fn left(bytes: &[u8]) -> Option<Left> {
    let mut bytes = bytes.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::NONE).ok()?;
    let tuple = flow_of(&packet, 0)?;
    let shift = 128 - u32::from(tuple.family.bits());
    let (src, dst) = (tuple.src.bits() >> shift, tuple.dst.bits() >> shift);
    let ends = Sent { src, dst, sport: tuple.left, dport: tuple.right };
    let (from, to) = (tuple.src.to_ip(tuple.family), tuple.dst.to_ip(tuple.family));
    let text = match tuple.proto {
        PROTO_TCP | PROTO_UDP | PROTO_UDPLITE | PROTO_SCTP => {
            format!("{} > {}", SocketAddr::new(from, tuple.left), SocketAddr::new(to, tuple.right))
        }
        _ => format!("{from} > {to}"),
    };
    Some(Left { ends, text })
}

impl Proof {
    /// ` as 198.51.100.1:40000 > 192.0.2.10:80`, if the packet left with other ends than it came with.
    pub(super) fn sent_as(&self, packet: &str) -> String {
        let sent = self.sent.as_ref().filter(|left| !packet.contains(left.text.as_str()));
        sent.map_or_else(String::new, |left| format!(" as {}", left.text))
    }
}

impl Shown {
    pub(super) fn json(&self) -> Value {
        match &self.proof {
            Ok(Proof { flow, fate, rule, sent }) => json!({
                "packet": self.packet, "proved": true, "fate": fate, "rule": rule, "flow": flow,
                "sent": sent.as_ref().map(|left| &left.text),
            }),
            Err(why) => json!({ "packet": self.packet, "proved": false, "why": why }),
        }
    }
}
