//! `stateway keeper`: the other process of `stateway run`, which starts it.

use super::{Failure, Result};
use crate::keeper;
use std::io;
use std::os::fd::AsFd as _;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(Args {}: Args) -> Result {
    keeper::serve(io::stdin().as_fd()).map_err(Failure::Machine)
}
