//! `stateway completions SHELL`.

use super::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args) -> Result {
    clap_complete::generate(args.shell, &mut super::command(), "stateway", &mut std::io::stdout());
    Ok(())
}
