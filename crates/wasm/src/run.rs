//! The tests of a lab in the simulator, with every packet that the router decided on.

#![forbid(unsafe_code)]

use crate::lab;
use crate::protocol::{Packet, Problem, Report, Run, Sent, Value};
use crate::table::Table;
use parking_lot::Mutex;
use stateway_core::Emission;
use stateway_core::conntrack::{CtState, Direction};
use stateway_core::decision::Decision;
use stateway_core::packet::summary;
use stateway_core::record::{Note, Recorder as _};
use stateway_core::router::Rules;
use stateway_core::time::Instant;
use stateway_lab::model::{HostId, Lab};
use stateway_lab::report::{self, Look};
use stateway_lab::sim::{Passage, Sim};
use stateway_lab::{Seen, trial, why};
use stateway_trace::explain::{self, Account, Step};
use std::fmt::Write as _;
use std::sync::Arc;

/// As `lab test` draws chance from, unless told otherwise.
const SEED: u64 = 1;

/// What is kept of a run for whoever asks for single packets.
pub(crate) struct Kept {
    lab: Lab,
    sim: Sim,
    packets: Vec<Noted>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("packets", &self.packets.len()).finish_non_exhaustive()
    }
}

/// A packet as it can be told of later.
struct Noted {
    seen: Seen,
    /// Without its steps, which are made of the notes.
    verdict: Account,
    notes: Vec<Note>,
    /// Those that it met.
    rules: Arc<Rules>,
    is_ipv6: bool,
}

impl Kept {
    /// A packet with its whole way, and for each step what the packet has in place of what a rule wants.
    pub(crate) fn account(&self, number: usize) -> Option<(Account, Vec<Option<Value>>)> {
        let Noted { seen, verdict, notes, rules, is_ipv6 } = self.packets.get(number)?;
        let steps = explain::way(notes, self.sim.router(), rules, *is_ipv6);
        let account = Account { steps, ..verdict.clone() };
        let value = |step: &Step| match step {
            Step::Rule { failed: Some(failed), .. } => why::value(&self.lab, failed, seen, &account)
                .map(|why::Value { what, said }| Value { what, said }),
            _ => None,
        };
        let values = account.steps.iter().map(value).collect();
        Some((account, values))
    }
}

/// What a witness has gathered.
#[derive(Default)]
struct Gathered {
    packets: Vec<Packet>,
    noted: Vec<Noted>,
    table: Table,
}

/// Takes every test of a lab.
pub(crate) fn take(lab: Lab) -> Result<(Run, Kept), Vec<Problem>> {
    let (view, warnings) = lab::view(&lab);
    let mut sim = Sim::new(lab.clone(), SEED)
        .map_err(|errors| errors.into_iter().map(of_router).collect::<Vec<_>>())?;
    let gathered = Arc::new(Mutex::new(Gathered::default()));
    let witness = Arc::clone(&gathered);
    sim.witness(Box::new(move |passage| witness.lock().add(passage)));
    let width = report::width(&lab);
    let taken = trial::run(&lab, &mut sim, |_| {});
    let reports = taken.iter().map(|report| Report {
        ending: report.ending.word().to_lowercase(),
        line: report::line(report, width, Look::PLAIN),
        details: report::details(report, Look::PLAIN),
        took_us: report.took.as_micros() as u64,
    });
    let reports = reports.collect();
    let Gathered { packets, noted, .. } = std::mem::take(&mut *gathered.lock());
    Ok((Run { lab: view, reports, packets, warnings }, Kept { lab, sim, packets: noted }))
}

fn of_router(error: stateway_core::RouterError) -> Problem {
    let error = error.into_rule_error();
    let (file, path) = ("rules".to_owned(), String::new());
    let (line, column, message, hint) = (error.line, error.column, error.message, error.hint);
    Problem { file, line, column, path, message, hint, is_warning: false }
}

impl Gathered {
    fn add(&mut self, passage: &Passage<'_>) {
        let Passage { now, router, met, seen, .. } = passage;
        let rules = router.rules();
        let mut decision = Decision::default();
        for note in met.notes {
            decision.note(|| note.clone());
        }
        let verdict = explain::verdict(router, &rules, *now, met);
        let (changed, gone) = self.table.update(router.conntrack(), *now);
        let connection = decision
            .tuple
            .and_then(|tuple| router.conntrack().read_entry_of(&tuple, *now, |entry| entry.original));
        self.packets.push(Packet {
            time_us: micros(*now),
            step: passage.step.to_owned(),
            summary: verdict.packet.clone(),
            in_port: met.iface.index(),
            out_ports: decision.out.iter().map(|iface| iface.index()).collect(),
            sender: passage.sender.map(place),
            receivers: passage.receivers.iter().copied().map(place).collect(),
            ctstate: seen.state.map(CtState::word),
            direction: seen.direction.map(Direction::word),
            fate: verdict.fate,
            rule: verdict.rule.clone(),
            reason: verdict.reason,
            why: verdict.why,
            connection: connection.and_then(|original| self.table.number_of(&original)),
            held: held(met.notes, &rules),
            bytes: met.frame.iter().fold(String::new(), |mut text, byte| {
                // Writing to a string cannot fail.
                _ = write!(text, "{byte:02x}");
                text
            }),
            answers: met.emissions.iter().map(sent).collect(),
            changed,
            gone,
        });
        let is_ipv6 = met.frame.get(12..14) == Some(&[0x86, 0xdd]);
        let seen = (*seen).clone();
        self.noted.push(Noted { seen, verdict, notes: met.notes.to_vec(), rules, is_ipv6 });
    }
}

/// The rules and policies that held, up to the packet's fate.
fn held(notes: &[Note], rules: &Rules) -> Vec<String> {
    let own = notes.iter().take_while(|note| !matches!(note, Note::Fate(_)));
    let name = |note: &Note| match note {
        Note::Rule { rule, failed: None } | Note::Policy(rule) => {
            Some(rules.for_family(rule.family)?.rule_name(*rule))
        }
        _ => None,
    };
    own.filter_map(name).collect()
}

fn sent(emission: &Emission) -> Sent {
    Sent { port: emission.iface.index(), summary: summary::of_frame(&mut emission.frame.clone()) }
}

fn place(host: HostId) -> usize {
    usize::from(host.0)
}

/// Since the lab came up.
pub(crate) fn micros(at: Instant) -> u64 {
    at.saturating_since(Instant::ZERO).as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OtherRules;
    use stateway_lab::builtin;
    use std::collections::BTreeMap;

    fn lab(name: &str) -> Lab {
        let files = BTreeMap::from([("lab.yaml".to_owned(), builtin::text(name).unwrap().to_owned())]);
        lab::read(&files, OtherRules::default()).unwrap()
    }

    #[test]
    fn every_lab_comes_out_as_without_a_witness() {
        for name in builtin::names() {
            let lab = lab(name);
            let (run, _) = take(lab.clone()).unwrap();
            let mut unwitnessed = Sim::new(lab.clone(), SEED).unwrap();
            let plain = trial::run(&lab, &mut unwitnessed, |_| {});
            for (report, plain) in run.reports.iter().zip(&plain) {
                assert_eq!(report.line, report::line(plain, report::width(&lab), Look::PLAIN), "{name}");
            }
            assert_eq!(run.reports.len(), plain.len(), "{name}");
        }
    }

    #[test]
    fn a_packet_is_told_of_as_it_stands_in_the_list() {
        for name in ["article", "masquerade", "tcp-flags", "two-networks"] {
            let (run, kept) = take(lab(name)).unwrap();
            assert!(!run.packets.is_empty(), "{name}");
            for (number, packet) in run.packets.iter().enumerate() {
                let (account, values) = kept.account(number).unwrap();
                assert_eq!((account.fate, &account.rule), (packet.fate, &packet.rule), "{name} {number}");
                assert_eq!(account.steps.len(), values.len(), "{name} {number}");
            }
            assert!(kept.account(run.packets.len()).is_none(), "{name}");
        }
    }

    #[test]
    fn a_connection_is_in_the_table_from_its_first_packet_to_its_last() {
        let (run, _) = take(lab("article")).unwrap();
        let first = &run.packets[0];
        assert_eq!(first.connection, Some(1));
        assert_eq!(
            first.changed.iter().map(|one| (one.number, one.state)).collect::<Vec<_>>(),
            [(1, Some("SYN_SENT"))]
        );
        let dropped = run.packets.iter().find(|packet| packet.fate == "dropped").unwrap();
        assert_eq!((dropped.connection, dropped.ctstate), (None, Some("NEW")));
        assert_eq!((dropped.sender, dropped.receivers.len()), (Some(1), 0));
        assert_eq!(dropped.held, ["filter/FORWARD/policy"]);
    }
}
