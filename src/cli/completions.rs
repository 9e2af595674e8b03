//! `stateway completions SHELL`.

use super::{Result, render};
use stateway_runtime::terminal::Output;
use std::io::Write as _;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "stateway", &mut script);
    let mut stdout = Output::stdout();
    render::finish(stdout.write_all(&script).and_then(|()| stdout.flush()));
    Ok(())
}
