//! `-j SET`: adds what a packet shows to a set, or removes it.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::context::Context;
use crate::filter::ipset::{Set as Members, Side};
use crate::filter::matches::{Setting, lookup_set};
use crate::filter::options::{Opt, Options, Problem};
use crate::filter::value::number_u32;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    pub add: Option<(Arc<Members>, Vec<Side>)>,
    pub remove: Option<(Arc<Members>, Vec<Side>)>,
    /// What is there already is refreshed.
    pub exist: bool,
    pub timeout: Option<u32>,
}

impl Targeted for Set {
    const SPEC: Spec = Spec {
        name: "SET",
        family: None,
        protos: &[],
        tables: &[],
        hooks: &[],
        options: &[Opt::pair("add-set"), Opt::pair("del-set"), Opt::flag("exist"), Opt::value("timeout")],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let set = |name| {
            let read = |given: &crate::filter::options::Given<'_>| {
                let set = given.read_arg(0, |name| lookup_set(name, setting))?;
                Ok((set, given.read_arg(1, Side::parse_list)?))
            };
            options.get(name).map(read).transpose()
        };
        let (add, remove) = (set("add-set")?, set("del-set")?);
        if add.is_none() && remove.is_none() {
            return Err(options
                .problem("`-j SET` needs to know what to do")
                .hint("`--add-set NAME src` or `--del-set NAME src`"));
        }
        let timeout = options.get("timeout").map(|g| g.read(number_u32)).transpose()?;
        Ok(Self { add, remove, exist: options.has("exist"), timeout })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        if let Some((set, sides)) = &self.add {
            set.add(pkt, sides, ctx.now, self.timeout, self.exist);
        }
        if let Some((set, sides)) = &self.remove {
            set.remove(pkt, sides);
        }
        Next::Rule
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |sides: &[Side]| sides.iter().map(|s| s.word()).collect::<Vec<_>>().join(",");
        if let Some((set, sides)) = &self.add {
            write!(f, " --add-set {} {}", set.name, list(sides))?;
        }
        if self.exist {
            f.write_str(" --exist")?;
        }
        if let Some(timeout) = self.timeout {
            write!(f, " --timeout {timeout}")?;
        }
        if let Some((set, sides)) = &self.remove {
            write!(f, " --del-set {} {}", set.name, list(sides))?;
        }
        Ok(())
    }
}
