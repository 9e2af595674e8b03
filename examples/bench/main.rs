//! The speed of the router beside the bare copy, the kernel with the same rules and Open vSwitch, in one interleaved
//! run: `scripts/bench`, see docs/BENCHMARKS.md.
//!
//! [`plan`] says what is measured on what, [`rig`] builds two hosts and a forwarder between them, [`load`] is what the
//! hosts run, [`measure`] takes one figure, [`watched`] one while somebody looks on; [`report`], [`targets`] and [`plot`] say what came of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![allow(unreachable_pub, reason = "nothing in a program is reached from outside")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use anyhow::{Context as _, bail};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod load;
mod measure;
mod plan;
mod plot;
mod report;
mod rig;
mod targets;
mod watched;

use measure::{Figure, Test};
use plan::Plan;
use rig::{Case, Rig};

/// Where the report goes after a run of everything.
const REPORT: &str = "docs/BENCHMARKS.md";

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measure the router beside what it competes with")]
struct Args {
    /// What forwards, separated by commas; by default everything that is worth comparing
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// What is measured, separated by commas; by default what is worth measuring on each case
    #[arg(long, value_delimiter = ',')]
    tests: Vec<Test>,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where the report goes, plots beside it; by default docs/BENCHMARKS.md, and nowhere after a run of a part
    #[arg(long)]
    report: Option<PathBuf>,
    /// The router under test
    #[arg(long, default_value = "target/release/stateway")]
    stateway: PathBuf,
    /// The bare copy
    #[arg(long, default_value = "target/release/examples/tapcopy")]
    tapcopy: PathBuf,
    #[command(subcommand)]
    load: Option<load::Load>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(load) = args.load {
        return load.run();
    }
    let programs = rig::Programs {
        stateway: args.stateway.canonicalize().context("build it first: cargo build --release")?,
        tapcopy: args.tapcopy.canonicalize().context("build it first: cargo build --release --examples")?,
    };
    let is_whole = args.cases.is_empty() && args.tests.is_empty();
    let plan = Plan::new(&args.cases, &args.tests);
    let path = args.report.or_else(|| is_whole.then(|| REPORT.into()));

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    rig::remove_leftovers();
    let mut run =
        Run { plan: &plan, programs: &programs, seconds: args.seconds, interrupted, failed: BTreeMap::new() };
    let mut figures = Vec::new();
    let start = std::time::Instant::now();
    for repetition in 1..=args.repetitions {
        eprintln!("repetition {repetition} of {}, after {} s", args.repetitions, start.elapsed().as_secs());
        figures.extend(run.repetition(repetition)?);
    }

    let facts = report::Facts {
        repetitions: args.repetitions,
        seconds: args.seconds,
        took: start.elapsed(),
        failed: run.failed,
    };
    let report = report::Report::new(&plan, &figures, facts);
    println!("{}\n{}", report.tables(), report.targets());
    if let Some(path) = path {
        let plots = plot::draw_all(&path.with_extension(""), &report)?;
        report.write(&path, &plots)?;
        eprintln!(
            "wrote {} and {} plots, after {} s",
            path.display(),
            plots.len(),
            start.elapsed().as_secs()
        );
    }
    Ok(())
}

/// What does not change from one repetition to the next.
struct Run<'a> {
    plan: &'a Plan,
    programs: &'a rig::Programs,
    seconds: u32,
    interrupted: Arc<AtomicBool>,
    /// What could not be measured, and why.
    failed: BTreeMap<String, String>,
}

impl Run<'_> {
    /// Measures everything once. All forwarders stand side by side, and those whose turn it is not have nothing to do,
    /// so that one test takes all of them in a row and the moods of the machine reach all alike.
    fn repetition(&mut self, repetition: u32) -> anyhow::Result<Vec<Figure>> {
        let mut rigs = Vec::new();
        for (n, &case) in self.plan.cases().iter().enumerate() {
            self.go_on()?;
            match Rig::up(n, case, self.programs) {
                Ok(rig) => rigs.push(rig),
                Err(error) => self.fail(&case.to_string(), &error),
            }
        }
        let mut figures = Vec::new();
        for test in self.plan.tests() {
            eprint!("  {test}:");
            let mut those: Vec<&mut Rig> =
                rigs.iter_mut().filter(|rig| self.plan.wants(rig.case, test)).collect();
            // Nobody is always the first.
            let many = those.len().max(1);
            those.rotate_left(repetition as usize % many);
            for rig in those {
                self.go_on()?;
                let measured = rig.awake().and_then(|rig| measure::measure(rig, test, self.seconds));
                rig.asleep();
                match measured {
                    Ok(values) => {
                        eprint!(" {} {}", rig.case, report::short(values.value));
                        figures.push(Figure { repetition, case: rig.case, test, values });
                    }
                    Err(error) => self.fail(&format!("{} {test}", rig.case), &error),
                }
            }
            eprintln!();
        }
        Ok(figures)
    }

    /// An interrupted run leaves nothing behind: the rigs are taken down on the way out.
    fn go_on(&self) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; everything is taken down, and no report is written");
        }
        Ok(())
    }

    fn fail(&mut self, what: &str, error: &anyhow::Error) {
        eprint!(" {what} FAILED ({error:#})");
        self.failed.insert(what.to_owned(), format!("{error:#}"));
    }
}
