//! `stateway run`.

use super::{Failure, Result};

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result {
    Err(Failure::Machine(anyhow::anyhow!("not built yet")))
}
