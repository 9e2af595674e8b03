//! `stateway report merge`: makes one report of those that the shards of a command have written.

use super::shard::Shard;
use super::{Failure, Result, render};
use anyhow::{Context as _, anyhow, bail, ensure};
use quick_junit::{Report, TestCaseStatus};
use serde_json::Value;
use stateway_lab::report::{JUNIT_NAME, SHARD, TESTS};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make one report of those of all shards, as one command for everything would have written it
    Merge(MergeArgs),
}

/// Reports of `lab test --shard K/N --report json=FILE` or `junit=FILE`. Every shard must be there once: what no report tells of was
/// not tried.
#[derive(Debug, clap::Args)]
struct MergeArgs {
    /// A report of each shard, in any order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the report goes; standard output unless told otherwise
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result {
    let Command::Merge(args) = args.command;
    let merged = read(&args.files).map_err(Failure::Input)?;
    match &args.output {
        Some(file) => fs::write(file, format!("{}\n", merged.text.trim_end()))
            .with_context(|| format!("cannot write {}", file.display()))
            .map_err(Failure::Machine)?,
        None => render::line(merged.text.trim_end()),
    }
    let Merged { tests, wrong, judged, .. } = merged;
    render::tell(&format!("{} reports, {tests} tests, {wrong} of them went wrong", args.files.len()));
    if judged == 0 {
        render::tell("error: no test was run");
    }
    if wrong == 0 && judged > 0 { Ok(()) } else { Err(Failure::Differs) }
}

/// One report.
struct Merged {
    text: String,
    tests: usize,
    /// Tests that failed, were late, broke their lab or were not run.
    wrong: usize,
    /// Tests that said something about the rules.
    judged: usize,
}

/// Reads reports of one kind.
fn read(files: &[PathBuf]) -> anyhow::Result<Merged> {
    let mut texts = Vec::new();
    for file in files {
        texts.push((
            file.as_path(),
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        ));
    }
    let is_xml = |text: &str| text.trim_start().starts_with('<');
    match texts.iter().filter(|(_, text)| is_xml(text)).count() {
        0 => merge_json(&texts),
        count if count == texts.len() => merge_junit(&texts),
        _ => bail!("some of these are JUnit and some JSON: a merged report is of one kind"),
    }
}

fn merge_json(texts: &[(&Path, String)]) -> anyhow::Result<Merged> {
    let mut parts = Parts::default();
    for (file, text) in texts {
        let mut report: Value =
            serde_json::from_str(text).with_context(|| format!("{} is no JSON", file.display()))?;
        let shard = report.get(SHARD).and_then(Value::as_str).map(str::to_owned);
        let tests = match report.get_mut(TESTS).map(Value::take) {
            Some(Value::Array(tests)) => Some(tests),
            _ => None,
        };
        let part = shard.zip(tests).ok_or_else(|| no_shard(file))?;
        parts.add(file, &part.0, part.1)?;
    }
    let tests: Vec<Value> = parts.in_order()?.into_iter().flatten().collect();
    let count = |endings: &[&str]| {
        let ending = |test: &&Value| {
            test.get("ending").and_then(Value::as_str).is_some_and(|ending| endings.contains(&ending))
        };
        tests.iter().filter(ending).count()
    };
    let (passed, skipped, failed) = (count(&["pass"]), count(&["skip"]), count(&["fail"]));
    let text = serde_json::to_string_pretty(&tests)?;
    Ok(Merged { text, tests: tests.len(), wrong: tests.len() - passed - skipped, judged: passed + failed })
}

fn merge_junit(texts: &[(&Path, String)]) -> anyhow::Result<Merged> {
    let mut parts = Parts::default();
    for (file, text) in texts {
        let report = Report::deserialize_from_str(text)
            .with_context(|| format!("{} is no JUnit report", file.display()))?;
        let name = report.name.as_str().to_owned();
        let shard = name
            .strip_prefix(JUNIT_NAME)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or_else(|| no_shard(file))?;
        parts.add(file, shard, report.test_suites)?;
    }
    let mut merged = Report::new(JUNIT_NAME);
    merged.add_test_suites(parts.in_order()?.into_iter().flatten());
    let (mut wrong, mut judged) = (0, 0);
    for case in merged.test_suites.iter().flat_map(|suite| &suite.test_cases) {
        match &case.status {
            TestCaseStatus::Success { .. } => judged += 1,
            TestCaseStatus::NonSuccess { .. } => (wrong, judged) = (wrong + 1, judged + 1),
            // JUnit has no word of its own for what was not run.
            TestCaseStatus::Skipped { message, .. } => {
                wrong +=
                    usize::from(message.as_ref().is_some_and(|message| message.starts_with("not run: ")));
            }
        }
    }
    Ok(Merged { text: merged.to_string()?, tests: merged.tests, wrong, judged })
}

fn no_shard(file: &Path) -> anyhow::Error {
    anyhow!(
        "{} is no report of a shard\n  hint: `stateway lab test LAB --shard 1/4 --report json=FILE` writes one",
        file.display()
    )
}

/// What shards have said.
struct Parts<T>(BTreeMap<usize, (PathBuf, Shard, T)>);

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Parts<T> {
    fn add(&mut self, file: &Path, shard: &str, part: T) -> anyhow::Result<()> {
        let shard: Shard = shard.parse().map_err(|_| no_shard(file))?;
        if let Some((other, known, _)) = self.0.values().next() {
            ensure!(
                known.of() == shard.of(),
                "{} is of {} shards, {} of {}",
                other.display(),
                known.of(),
                file.display(),
                shard.of()
            );
        }
        match self.0.insert(shard.number(), (file.to_owned(), shard, part)) {
            None => Ok(()),
            Some((other, ..)) => {
                bail!("{} and {} are both of shard {shard}", other.display(), file.display())
            }
        }
    }

    /// All of them.
    fn in_order(self) -> anyhow::Result<Vec<T>> {
        let of = self.0.values().next().map_or(0, |(_, shard, _)| shard.of());
        let missing: Vec<String> = (1..=of)
            .filter(|number| !self.0.contains_key(number))
            .map(|number| format!("{number}/{of}"))
            .collect();
        ensure!(
            missing.is_empty(),
            "no report of shard {}: what it should have tried was not",
            missing.join(", ")
        );
        Ok(self.0.into_values().map(|(_, _, part)| part).collect())
    }
}
