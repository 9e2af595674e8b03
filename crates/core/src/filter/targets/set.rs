//! `-j SET`: adds what a packet shows to a set, or removes it.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::kept::shared::Copies;
use crate::filter::matches::{Setting, lookup_set};
use crate::filter::text::ipset::{Set as Members, Side, Sight};
use crate::filter::text::options::{Opt, Options, Problem};
use crate::filter::text::value::number;
use crate::filter::walk::context::Context;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;
use std::sync::Arc;

/// In seconds; the largest number stands for none.
const MAX_TIMEOUT: u64 = u32::MAX as u64 - 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    pub add: Option<(Arc<Members>, Vec<Side>)>,
    pub remove: Option<(Arc<Members>, Vec<Side>)>,
    /// Gives the packet the mark of the element that it is in.
    pub map_mark: Option<(Arc<Members>, Vec<Side>)>,
    /// What is there already is refreshed.
    pub exist: bool,
    pub timeout: Option<u32>,
}

impl Set {
    /// The same of the copied sets.
    pub(super) fn copied(&self, copies: &Copies<'_>) -> Self {
        let copy = |sides: &Option<(Arc<Members>, Vec<Side>)>| {
            sides.as_ref().map(|(set, sides)| (copies.set(set), sides.clone()))
        };
        Self { add: copy(&self.add), remove: copy(&self.remove), map_mark: copy(&self.map_mark), ..*self }
    }
}

impl Targeted for Set {
    const SPEC: Spec = Spec {
        name: "SET",
        family: None,
        protos: &[],
        tables: &[],
        hooks: &[],
        options: &[
            Opt::pair("add-set"),
            Opt::pair("del-set"),
            Opt::flag("exist").again(),
            Opt::value("timeout").again(),
            Opt::pair("map-set"),
            Opt::flag("map-mark"),
            Opt::flag("map-prio").refused("there are no queues to sort into"),
            Opt::flag("map-queue").refused("there are no queues to sort into"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let set = |name| {
            let read = |given: &crate::filter::text::options::Given<'_>| {
                let set = given.read_arg(0, |name| lookup_set(name, setting))?;
                Ok((set, given.read_arg(1, Side::parse_list)?))
            };
            options.get(name).map(read).transpose()
        };
        let (add, remove, map) = (set("add-set")?, set("del-set")?, set("map-set")?);
        if add.is_none() && remove.is_none() && map.is_none() {
            return Err(options
                .problem("`-j SET` needs to know what to do")
                .hint("`--add-set NAME src`, `--del-set NAME src` or `--map-set NAME src --map-mark`"));
        }
        for (option, of) in
            [("exist", "add-set"), ("timeout", "add-set"), ("map-set", "map-mark"), ("map-mark", "map-set")]
        {
            if let Some(given) = options.get(option).filter(|_| !options.has(of)) {
                return Err(Problem::new(given.at, format!("`--{option}` needs `--{of}`")));
            }
        }
        if let Some((set, given)) = map.as_ref().map(|(set, _)| set).zip(options.get("map-set"))
            && !set.has_marks()
        {
            let problem = given.problem(format!("the elements of set `{}` have no marks to give", set.name));
            return Err(problem.hint("`create … skbinfo` gives them some"));
        }
        // The last one counts, but each must be right.
        let mut timeout = None;
        for given in options.given.iter().filter(|given| given.opt.name == "timeout") {
            timeout = Some(given.read(|text| number(text, MAX_TIMEOUT))? as u32);
        }
        Ok(Self { add, remove, map_mark: map, exist: options.has("exist"), timeout })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        let sight = Sight { pkt, in_iface: ctx.at.iface, out_iface: ctx.out_iface, now: ctx.at.now };
        if let Some((set, sides)) = &self.add {
            set.add(&sight, sides, self.timeout, self.exist);
        }
        if let Some((set, sides)) = &self.remove {
            set.remove(&sight, sides);
        }
        if let Some((set, sides)) = &self.map_mark {
            ctx.mark = set.map_mark(&sight, sides, ctx.mark);
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
        if let Some((set, sides)) = &self.map_mark {
            write!(f, " --map-set {} {} --map-mark", set.name, list(sides))?;
        }
        Ok(())
    }
}
