//! Which runners are meant, and whether this machine has what they take.

use super::super::super::{Failure, Result};
use super::TestArgs;
use super::args::On;
use stateway_lab::model::{Lab, RunnerKind};

/// Which runners are meant, and the first line of output, which says so and why.
pub(super) fn runners(chosen: Vec<RunnerKind>, labs: &[Lab]) -> Result<(Vec<RunnerKind>, String)> {
    const LIVE: &str = "running live: real programs in network namespaces, the router on TAPs";
    if chosen.is_empty() {
        return Ok(match lacking(labs, RunnerKind::Live) {
            None => (vec![RunnerKind::Live], LIVE.to_owned()),
            Some(why) => {
                (vec![RunnerKind::Sim], format!("running in simulation: {}", why.replace("\n  ", "; ")))
            }
        });
    }
    for kind in &chosen {
        if let Some(why) = lacking(labs, *kind) {
            return Err(Failure::Machine(anyhow::anyhow!(
                "this machine cannot run labs {}: {why}",
                kind.word()
            )));
        }
    }
    if chosen == [RunnerKind::Live] {
        return Ok((chosen, LIVE.to_owned()));
    }
    let names: Vec<&str> = chosen.iter().map(|kind| kind.word()).collect();
    let line = format!("running on {}, as asked", names.join(", "));
    Ok((chosen, line))
}

/// Whether a lab that fails could be left up, if that is wanted.
///
/// # Errors
/// None of the runners, or more than one, makes anything that could stay; or it takes root.
#[cfg(target_os = "linux")]
pub(super) fn can_keep(args: &TestArgs, kinds: &[RunnerKind], line: &str) -> Result {
    if !args.keep {
        return Ok(());
    }
    let input = |text: String| Err(Failure::Input(anyhow::anyhow!("{text}")));
    match kinds.iter().filter(|kind| **kind != RunnerKind::Sim).count() {
        0 => input(format!("`--keep` has nothing to leave up ({line})\n  hint: `--on live`")),
        1 => super::super::up::takes_root("a lab that stays up", ""),
        _ => input("`--keep` leaves a lab up on one runner\n  hint: `--on live` or `--on kernel`".to_owned()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn can_keep(_: &TestArgs, _: &[RunnerKind], _: &str) -> Result {
    Ok(())
}

/// The runners that were asked for by name.
pub(super) fn chosen(on: &[On]) -> Vec<RunnerKind> {
    let is_asked = |kind: &RunnerKind| match kind {
        RunnerKind::Sim => on.contains(&On::Sim),
        RunnerKind::Live => on.contains(&On::Live),
        RunnerKind::Kernel => on.contains(&On::Kernel),
    };
    let all = [RunnerKind::Sim, RunnerKind::Live, RunnerKind::Kernel];
    all.into_iter().filter(|kind| on.contains(&On::All) || is_asked(kind)).collect()
}

/// What keeps this machine from running these labs, with the remedy.
#[cfg(target_os = "linux")]
fn lacking(labs: &[Lab], kind: RunnerKind) -> Option<String> {
    use stateway_lab::netns::programs;
    if kind == RunnerKind::Sim {
        return None;
    }
    let mut missing: Vec<String> = labs.iter().flat_map(|lab| programs::missing(lab, kind)).collect();
    missing.dedup();
    (!missing.is_empty()).then(|| missing.join("\n  "))
}

#[cfg(not(target_os = "linux"))]
fn lacking(_: &[Lab], kind: RunnerKind) -> Option<String> {
    (kind != RunnerKind::Sim).then(|| "it takes Linux\n  hint: `--on sim` runs everywhere".to_owned())
}
