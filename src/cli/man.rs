//! `stateway man DIR`: a manual page for every subcommand.

use super::{Failure, Result};
use anyhow::Context as _;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that the pages go to
    dir: PathBuf,
}

pub(super) fn run(args: Args) -> Result {
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(super::command(), &args.dir))
        .with_context(|| format!("writing manual pages to `{}`", args.dir.display()))
        .map_err(Failure::Input)
}
