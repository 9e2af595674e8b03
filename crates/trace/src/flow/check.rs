//! What a scenario expects beside what was observed.

#![forbid(unsafe_code)]

use super::run::IFACES;
use super::{Observed, Out, Run, Scenario, Step};
use core::fmt::Write;
use stateway_core::base::IfaceId;
use stateway_core::packet::ETHERNET_LEN;

/// What went differently, a line for what was wanted and one for what came instead; empty if all went as it is written.
/// `run` has played all steps, and `observed` is what it saw.
pub fn differences(scenario: &Scenario, run: &Run, observed: &[Observed]) -> Vec<String> {
    let mut found: Vec<String> =
        run.refused().iter().map(|why| format!("addresses do not change: {why}")).collect();
    for (step, observed) in scenario.steps.iter().zip(observed) {
        let wanted = step.expect.as_ref().map(ToString::to_string).unwrap_or_default();
        let got = observed.columns.to_string();
        if wanted != got {
            found.push(format!("line {}\n  wanted  {wanted}\n  got     {got}", step.line));
        }
        found.extend(other_bytes(step, observed));
    }
    let mut lists = |what: &str, wanted: &[String], got: &[String]| {
        let lacking: Vec<&String> = wanted.iter().filter(|line| !got.contains(line)).collect();
        let surplus: Vec<&String> = got.iter().filter(|line| !wanted.contains(line)).collect();
        if !lacking.is_empty() || !surplus.is_empty() || wanted.len() != got.len() {
            found.push(format!("{what}\n  wanted  {lacking:?}\n  got     {surplus:?}"));
        }
    };
    if let Some(wanted) = &scenario.announced {
        lists("announced", wanted, &run.announced());
    }
    if let Some(wanted) = &scenario.tracked {
        lists("tracked", wanted, &run.tracked());
    }
    for (wanted, counters) in scenario.counted.iter().zip(run.counters()) {
        if let Some(wanted) = wanted {
            let tables: Vec<&str> =
                wanted.iter().map(String::as_str).filter(|line| line.starts_with('*')).collect();
            lists("counted", &by_table(wanted.iter().map(String::as_str)), &of_tables(&counters, &tables));
        }
    }
    found
}

/// What left of a step, if it was to be something else.
fn other_bytes(step: &Step, observed: &Observed) -> Option<String> {
    let wanted = step.out.as_ref()?;
    let fits = |(wanted, (iface, frame)): (&Out, &(IfaceId, Vec<u8>))| {
        let sent = frame.get(ETHERNET_LEN..).unwrap_or_default();
        IFACES[iface.index()] == wanted.iface
            && wanted.packet.len() == sent.len()
            && wanted
                .packet
                .iter()
                .zip(sent)
                .all(|(wanted, byte)| wanted.is_none_or(|wanted| wanted == *byte))
    };
    if wanted.len() == observed.sent.len() && wanted.iter().zip(&observed.sent).all(fits) {
        return None;
    }
    let mut text = format!("line {}: what left", step.line);
    for Out { iface, packet } in wanted {
        let hex =
            packet.iter().map(|byte| byte.map_or_else(|| "..".to_owned(), |byte| format!("{byte:02x}")));
        let _ = write!(text, "\n  wanted  out {iface} {}", hex.collect::<String>());
    }
    for (iface, frame) in &observed.sent {
        let sent = frame.get(ETHERNET_LEN..).unwrap_or_default();
        let hex: String = sent.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(text, "\n  got     out {} {hex}", IFACES[iface.index()]);
    }
    Some(text)
}

/// Lines of `iptables-save -c` with the table in front of each.
fn by_table<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut table = "";
    let mut found = Vec::new();
    for line in lines {
        if line.starts_with('*') {
            table = line;
        } else if line.starts_with([':', '[']) {
            found.push(format!("{table} {line}"));
        }
    }
    found
}

fn of_tables(counters: &str, tables: &[&str]) -> Vec<String> {
    let is_named = |line: &String| tables.iter().any(|table| line.split(' ').next() == Some(table));
    by_table(counters.lines()).into_iter().filter(is_named).collect()
}
