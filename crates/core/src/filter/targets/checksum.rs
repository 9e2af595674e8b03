//! `-j CHECKSUM`: finishes the checksum that a sender left to its hardware.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::Table;
use crate::filter::matches::Setting;
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::walk::context::Context;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum;

impl Targeted for Checksum {
    const SPEC: Spec = Spec {
        name: "CHECKSUM",
        family: None,
        protos: &[],
        tables: &[Table::Mangle],
        hooks: &[],
        options: &[Opt::flag("checksum-fill")],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.require("checksum-fill").map(|_| Self)
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, _: &mut Context<R>, _: Place) -> Next {
        // A super-frame's checksums are made when it is cut.
        if pkt.offload().needs_checksum() && !pkt.offload().is_super_frame() {
            pkt.finish_checksum();
        }
        Next::Rule
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(" --checksum-fill")
    }
}
