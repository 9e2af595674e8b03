//! `stateway conntrack`.

use super::{Failure, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args) -> Result {
    Err(Failure::Machine(anyhow::anyhow!("not built yet")))
}
