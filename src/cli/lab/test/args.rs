//! What `stateway lab test` can be asked for.

use super::super::super::shard::Shard;
use stateway_lab::model::Lab;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// What the exit code says.
const EXIT_CODES: &str = "Exit code 0: every test passed or was skipped, and at least one was run. 1: a test failed, was late, or \
broke its lab; runners disagree; or no test was run. 2: a lab file is wrong or has no tests, or another lab of that name is up. 3: \
this machine cannot run the labs, one did not come up, or the command was interrupted. Of several reasons the highest \
code counts.\n\nLabs that are tested at the same time do not meet, and are told of in the order in which they were named; \
several that would make something of the same name wait for each other.\n\nReports list every test, also those that \
were not run, and are there from the start.\n\nExamples:\n  \
stateway lab test article --on sim             in simulation: no root, no programs\n  \
stateway lab test . --rules new.v4             would these rules pass the tests of this lab?\n  \
stateway lab test . --watch --on sim           again whenever a file is saved\n  \
stateway lab test . --keep                     a lab that fails stays up to look around in\n  \
stateway lab test topologies --report junit=report.xml\n  \
stateway lab test . --format github            annotations in GitHub Actions";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub(in crate::cli::lab) struct TestArgs {
    /// Folders with a lab.yaml, or with labs below them; lab files; names of built-in labs
    #[arg(required = true)]
    pub(super) labs: Vec<PathBuf>,
    /// `sim`, `live`, `kernel`, several of them, or `all`; by default live where it can run, else sim
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(super) on: Vec<On>,
    /// Only tests with this in their name; several times: with any of them. Labs without such a test are not built
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Vec<String>,
    /// Only this part of the labs, such as `2/4`, the second of four; `4` alone in an indexed Job of Kubernetes, which sets
    /// `JOB_COMPLETION_INDEX`. `stateway report merge` makes one report of the parts'
    #[arg(long, value_name = "K/N")]
    pub(super) shard: Option<Shard>,
    /// As many labs at the same time; by default what pays here: two for each processor, in simulation one
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,
    /// Test these rules for IPv4 in place of the lab's own (iptables-save text); a lab that is up is not touched
    #[arg(long, value_name = "FILE")]
    pub(super) rules: Option<PathBuf>,
    /// The same for IPv6
    #[arg(long, value_name = "FILE")]
    pub(super) rules6: Option<PathBuf>,
    /// A file of `ipset save`, whose sets those rules may name; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) sets: Vec<PathBuf>,
    /// Leave a lab up whose tests fail, and say how to get in; live or kernel, as root
    #[cfg(target_os = "linux")]
    #[arg(long)]
    pub(super) keep: bool,
    /// Test again whenever a lab file, or a file that it names, changes; Ctrl-C ends it
    #[cfg(target_os = "linux")]
    #[arg(long, conflicts_with = "keep")]
    pub(super) watch: bool,
    /// If a lab of that name is up from other files, or they have changed since, build it again
    #[arg(long)]
    pub(super) restart: bool,
    /// What the simulator's chances are drawn from
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Also writes a report: `junit=FILE`, `tap=FILE`, `json=FILE`
    #[arg(long, value_name = "KIND=FILE", value_parser = parse_report)]
    pub(super) report: Vec<(ReportKind, PathBuf)>,
    /// How results are told: `github` adds a line for each failure that GitHub Actions shows beside the lab file
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: TestFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum TestFormat {
    #[default]
    Text,
    /// One object a line
    Json,
    /// Text, and annotations for GitHub Actions
    Github,
}

/// Keeps the labs of one shard, and says so.
pub(super) fn take_part(shard: Shard, labs: &mut Vec<Lab>) -> String {
    let all = labs.len();
    *labs = labs.drain(shard.part_of(all)).collect();
    format!("shard {shard}: {} of {all} labs", labs.len())
}

impl TestArgs {
    /// Whether labs are tested with other rules than their own.
    pub(super) const fn has_other_rules(&self) -> bool {
        self.rules.is_some() || self.rules6.is_some()
    }

    /// Which those are, in words.
    fn rules_in_words(&self) -> Option<String> {
        let files = [&self.rules, &self.rules6];
        let files: Vec<String> =
            files.iter().filter_map(|file| file.as_ref()).map(|f| f.display().to_string()).collect();
        (!files.is_empty()).then(|| files.join(" and "))
    }

    /// The line that says so.
    pub(super) fn other_rules(&self) -> Option<String> {
        self.rules_in_words().map(|files| format!("testing the rules of {files}, not the labs' own"))
    }

    /// What reports call the lab: results of other rules are no results of the lab.
    pub(super) fn label(&self, lab: &Lab) -> String {
        match self.rules_in_words() {
            Some(files) => format!("{} with {files}", lab.name),
            None => lab.name.clone(),
        }
    }

    /// The lab as it stands on this machine: with other rules it has another name, since the lab may be up.
    pub(super) fn standing(&self, lab: &Lab) -> Lab {
        const SUFFIX: &str = "-try";
        /// A lab's name is no longer.
        const MAX_NAME: usize = 32;
        let mut lab = lab.clone();
        if self.has_other_rules() {
            lab.name.truncate(MAX_NAME - SUFFIX.len());
            lab.name = lab.name.trim_end_matches('-').to_owned() + SUFFIX;
        }
        lab
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum On {
    Sim,
    Live,
    Kernel,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    Junit,
    Tap,
    Json,
}

fn parse_report(text: &str) -> Result<(ReportKind, PathBuf), String> {
    let (kind, file) = text.split_once('=').ok_or("such as `junit=FILE`, `tap=FILE` or `json=FILE`")?;
    let kind = match kind {
        "junit" => ReportKind::Junit,
        "tap" => ReportKind::Tap,
        "json" => ReportKind::Json,
        _ => return Err(format!("`{kind}` is none of junit, tap, json")),
    };
    Ok((kind, PathBuf::from(file)))
}
