//! `stateway keeper`: the other process of `stateway run`, which starts it.

use super::{Failure, Result};
use stateway_runtime::keeper;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(Args {}: Args) -> Result {
    keeper::serve(io::stdin().as_fd(), read_config).map_err(Failure::Machine)
}

fn read_config(lab: &Path, open: &dyn Fn(&Path) -> io::Result<File>) {
    // What is wrong with the files is told by the router.
    let _ = stateway_lab::load_router_through(lab, open);
}
