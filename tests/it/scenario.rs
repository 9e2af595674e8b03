//! The stories of `tests/scenarios/`, packet by packet, against the router.
//!
//! `UPDATE_EXPECT=1 cargo test --test it scenario` rewrites the last columns to what was observed. Read the diff.

use stateway_trace::flow::{self, Run};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_scenario_goes_as_it_is_written() {
    let rewrite = std::env::var_os("UPDATE_EXPECT").is_some();
    let files = scenarios();
    assert!(files.len() > 140, "only {} scenarios were found", files.len());
    let failures: Vec<String> = files.iter().filter_map(|path| play(path, rewrite).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} went differently:\n{}",
        failures.len(),
        files.len(),
        failures.concat()
    );
}

/// Plays one file twice, with somebody who listens and without, since both must come to the same; what differs, step by
/// step.
fn play(path: &Path, rewrite: bool) -> Result<(), String> {
    let text = fs::read_to_string(path).expect("a scenario can be read");
    let name = path.strip_prefix(root()).unwrap_or(path).display();
    let all = |errors: Vec<String>| format!("{name}: {}\n", errors.join("; "));
    let scenario =
        flow::parse(&text).map_err(|errors| all(errors.iter().map(ToString::to_string).collect()))?;
    let mut run =
        Run::new(&scenario).map_err(|errors| all(errors.iter().map(ToString::to_string).collect()))?;
    let mut unheard = Run::new(&scenario).expect("the same again");
    let mut differences = String::new();
    let mut observed = Vec::new();
    for step in &scenario.steps {
        let heard = run.step(step);
        let at_work = unheard.step_unheard(step);
        if at_work != (heard.columns.fate.clone(), heard.sent.clone()) {
            let _ =
                writeln!(differences, "{name}:{}\n  heard    {heard:?}\n  unheard  {at_work:?}", step.line);
        }
        observed.push(heard);
    }
    if run.counted() != unheard.counted() {
        let (heard, unheard) = (run.counted(), unheard.counted());
        let _ = writeln!(differences, "{name}: counted\n  heard\n{heard}\n  unheard\n{unheard}");
    }
    if rewrite {
        fs::write(path, flow::update(&text, &scenario, &observed)).expect("a scenario can be written");
        return Ok(());
    }
    let mut failures = differences;
    if scenario.title.is_empty() {
        let _ = writeln!(failures, "{name}: the first line says which story it is");
    }
    for difference in flow::differences(&scenario, &run, &observed) {
        let _ = writeln!(failures, "{name}: {difference}");
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// Every `.flow` file, in the order of their names.
pub(crate) fn scenarios() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("tests/scenarios is there") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "flow") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
