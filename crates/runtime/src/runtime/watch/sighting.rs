//! What a worker keeps of a packet for those who listen, and the words that are made of it later.
//!
//! It is made on the packet's way, so it is as small as it can be: numbers, no text.

use crate::control::protocol::Verdict;
use crate::runtime::Clock;
use stateway_core::base::{Family, Fate};
use stateway_core::decision::Decision;
use stateway_core::iface::IfaceId;
use stateway_core::packet::summary::{self, Headline};
use stateway_core::packet::{Offload, Packet};
use stateway_core::record::{Note, Recorder};
use stateway_core::router::{Outcome, Router, Rules};
use stateway_core::time::Instant;
use stateway_trace::explain;
use std::sync::Arc;

/// A frame before the router edits it.
#[derive(Clone, Debug)]
pub(in crate::runtime) struct Arriving {
    pub(super) time: Instant,
    pub(super) iface: IfaceId,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Ip(Headline),
    /// ARP, or what cannot be read: in words, since there is little of it.
    Other(String),
}

impl Arriving {
    pub(in crate::runtime) fn read(
        iface: IfaceId,
        frame: &mut [u8],
        offload: Offload,
        time: Instant,
    ) -> Self {
        let what = match Packet::parse(frame, offload) {
            Ok(pkt) => What::Ip(Headline::of(&pkt)),
            Err(_) => What::Other(summary::of_frame(frame)),
        };
        Self { time, iface, what }
    }

    pub(super) const fn headline(&self) -> Option<&Headline> {
        match &self.what {
            What::Ip(headline) => Some(headline),
            What::Other(_) => None,
        }
    }
}

/// Gathers what is to be said of one packet.
#[derive(Debug)]
pub(in crate::runtime) struct Witness {
    arriving: Arriving,
    decision: Decision,
    /// Its whole way, where somebody wants that.
    notes: Option<Vec<Note>>,
}

impl Witness {
    pub(in crate::runtime) fn new(arriving: Arriving, explains: bool) -> Self {
        Self { arriving, decision: Decision::default(), notes: explains.then(Vec::new) }
    }

    pub(in crate::runtime) fn finish(self, outcome: &Outcome, rules: Arc<Rules>) -> Sighting {
        let Self { arriving, decision, notes } = self;
        Sighting { arriving, decision, fate: outcome.fate, rules, notes: notes.map(Into::into) }
    }
}

impl Recorder for Witness {
    fn note(&mut self, note: impl FnOnce() -> Note) {
        match &mut self.notes {
            None => self.decision.note(note),
            Some(notes) => {
                let note = note();
                self.decision.note(|| note.clone());
                notes.push(note);
            }
        }
    }
}

/// What became of one packet, to be written out by whoever listens.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub(super) arriving: Arriving,
    pub(super) decision: Decision,
    pub(super) fate: Fate,
    /// Those that judged it: they may be replaced before anybody reads of it.
    rules: Arc<Rules>,
    notes: Option<Arc<[Note]>>,
}

impl Sighting {
    pub(super) fn without_way(&self) -> Self {
        Self { notes: None, ..self.clone() }
    }

    pub(super) fn rule(&self) -> Option<String> {
        self.decision.rule_among(self.fate, &self.rules)
    }

    /// In words.
    pub fn verdict(&self, router: &Router, clock: &Clock) -> Verdict {
        let Arriving { time, iface, what } = &self.arriving;
        let name = |id: &IfaceId| router.ifaces()[id.index()].name.clone();
        let mut verdict = Verdict {
            time: time.as_secs_f64(),
            unix_time: clock.unix_seconds(*time),
            in_iface: name(iface),
            out: self.decision.out.iter().map(name).collect(),
            fate: self.fate.word().to_owned(),
            rule: self.rule(),
            reason: self.decision.reason(self.fate).map(|reason| reason.code().to_owned()),
            ctstate: self.decision.ctstate.map(|state| state.word().to_owned()),
            direction: self.decision.direction.map(|direction| direction.word().to_owned()),
            ..Verdict::default()
        };
        match what {
            What::Ip(headline) => describe(headline, &mut verdict),
            What::Other(words) => verdict.summary.clone_from(words),
        }
        if let Some(notes) = &self.notes {
            let is_ipv6 = self.arriving.headline().is_some_and(|headline| headline.family == Family::Ipv6);
            let steps = explain::way(notes, router, &self.rules, is_ipv6);
            verdict.way = steps.iter().map(explain::line).collect();
            // A step is made of text and truth values: it can always be written as JSON.
            verdict.steps = steps.iter().filter_map(|step| serde_json::to_value(step).ok()).collect();
        }
        verdict
    }
}

/// Addresses, ports, and a line for people.
fn describe(headline: &Headline, verdict: &mut Verdict) {
    let Headline { family, src, dst, proto, ports, gist, .. } = headline;
    verdict.src = Some(src.to_ip(*family));
    verdict.dst = Some(dst.to_ip(*family));
    verdict.protocol = Some(*proto);
    verdict.sport = ports.map(|(sport, _)| sport);
    verdict.dport = ports.map(|(_, dport)| dport);
    verdict.tcp_flags = gist.tcp_flags.map(|flags| flags.bits());
    verdict.icmp = gist.icmp;
    verdict.fragment = gist.fragment;
    verdict.summary = headline.to_string();
}
