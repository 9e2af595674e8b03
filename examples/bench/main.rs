//! The speed of the router beside the bare copy, the kernel with the same rules and Open vSwitch, in one interleaved
//! run: `scripts/bench`, see docs/BENCHMARKS.md.
//!
//! [`rig`] builds two hosts and a forwarder between them, [`load`] is what the hosts run, [`measure`] takes one
//! figure, and [`report`] and [`plot`] say what came of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![allow(unreachable_pub, reason = "nothing in a program is reached from outside")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use anyhow::Context as _;
use clap::Parser;
use std::path::PathBuf;

mod load;
mod measure;
mod plot;
mod report;
mod rig;

use measure::{Figure, Test};
use rig::Case;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measure the router beside what it competes with")]
struct Args {
    /// What forwards, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = Case::usual())]
    cases: Vec<Case>,
    /// What is measured, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = Test::usual())]
    tests: Vec<Test>,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Where the report goes; the plot goes beside it
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
    let mut figures = Vec::new();
    for repetition in 1..=args.repetitions {
        // Interleaved: the machine's moods reach all alike.
        for case in &args.cases {
            eprint!("{repetition}/{} {case}:", args.repetitions);
            match measure_case(case, &programs, &args.tests, args.seconds) {
                Ok(some) => figures.extend(some),
                Err(error) => eprintln!(" {error:#}"),
            }
        }
    }
    let report = report::Report::new(&args.cases, &args.tests, &figures, args.repetitions, args.seconds);
    println!("{}", report.tables());
    if let Some(path) = args.report {
        let plot = path.with_extension("svg");
        plot::draw(&plot, &report)?;
        std::fs::write(&path, report.document(&plot)).with_context(|| path.display().to_string())?;
        eprintln!("wrote {} and {}", path.display(), plot.display());
    }
    Ok(())
}

fn measure_case(
    case: &Case,
    programs: &rig::Programs,
    tests: &[Test],
    seconds: u32,
) -> anyhow::Result<Vec<Figure>> {
    let rig = rig::Rig::up(case, programs)?;
    let mut figures = Vec::new();
    for test in tests {
        match measure::measure(&rig, *test, seconds) {
            Ok(values) => {
                eprint!(" {test} {}", report::short(values.value));
                figures.push(Figure { case: *case, test: *test, values });
            }
            Err(error) => eprint!(" {test} failed ({error:#})"),
        }
    }
    eprintln!();
    Ok(figures)
}
