//! `stateway conform`.

use super::{Failure, Result};
use crate::conform::generate::Profile;
use crate::conform::session::{Plan, run as run_plan};
use anyhow::anyhow;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seed of the generator; a fresh one is chosen and printed without it
    #[arg(long)]
    seed: Option<u64>,
    /// Frames to generate
    #[arg(long, default_value_t = 100_000)]
    frames: u64,
    /// What kind of traffic
    #[arg(long, value_enum, default_value_t = Profile::Mixed)]
    profile: Profile,
    /// Stop at the first difference
    #[arg(long)]
    stop: bool,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) fn run(args: Args) -> Result {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let plan = Plan { seed, frames: args.frames, profile: args.profile, stop_early: args.stop };
    let report = run_plan(&plan, |_| ()).map_err(Failure::Machine)?;
    println!("{}", serde_json::to_string_pretty(&report.coverage).map_err(|e| Failure::Machine(anyhow!(e)))?);
    println!("missing cells {:?}", report.coverage.missing_tcp_cells());
    println!("missing reasons {:?}", report.coverage.missing_invalid());
    for finding in &report.findings {
        println!(
            "difference after {} frames, alone {}: {:?}",
            finding.after_frames, finding.is_alone, finding.setup.sysctl
        );
        for step in &finding.trace.steps {
            match step {
                crate::conform::trace::Step::Frame(f) => {
                    println!("  {} {} {}", f.port, f.kind, describe(&f.bytes))
                }
                crate::conform::trace::Step::Elapse(_) => println!("  {step:?}"),
            }
        }
        for mismatch in &finding.difference.mismatches {
            println!("  {mismatch}");
        }
        println!("  {:?}", finding.difference.reasons);
    }
    println!(
        "{} frames, {} differences, {} late",
        report.coverage.frames,
        report.findings.len(),
        report.late
    );
    if report.findings.is_empty() { Ok(()) } else { Err(Failure::Differs) }
}

fn describe(bytes: &[u8]) -> String {
    use crate::packet::{Offload, Packet, Segment};
    let mut copy = bytes.to_vec();
    match Packet::parse(&mut copy, Offload::NONE) {
        Ok(p) if p.proto() == 6 => {
            format!("{:?} ports {:?} ttl {} {:?}", p.src(), p.ports(), p.ttl(), Segment::parse(p.l4()))
        }
        Ok(p) => format!(
            "{:?}>{:?} proto {} ttl {} {:02x?}",
            p.src(),
            p.dst(),
            p.proto(),
            p.ttl(),
            &p.l4()[..p.l4().len().min(60)]
        ),
        Err(e) => format!("{e} {:02x?}", bytes),
    }
}
