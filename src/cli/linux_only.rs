//! Subcommands that stand on Linux' TAPs and namespaces, elsewhere.

use super::{Failure, Result};

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

pub(super) fn run(_: Args) -> Result {
    Err(Failure::Machine(anyhow::anyhow!("this command needs Linux")))
}
