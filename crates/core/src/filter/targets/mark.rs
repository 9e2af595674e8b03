//! `-j MARK` and `-j CONNMARK`: set the mark of the packet, or of its connection, or copy one to the other.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::filter::matches::{Setting, parse_marked};
use crate::filter::text::options::{Given, Opt, Options, Problem};
use crate::filter::text::value::{number, number_u32};
use crate::filter::walk::context::Context;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

/// Clears the bits of `mask`, then turns over those of `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub value: u32,
    pub mask: u32,
}

const CHANGES: [&str; 5] = ["set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark"];

impl Change {
    fn read(given: &Given<'_>) -> Result<Self, Problem> {
        let (value, mask) = match given.opt.name {
            "set-xmark" => given.read(parse_marked)?,
            "set-mark" => given.read(parse_marked).map(|(value, mask)| (value, value | mask))?,
            "and-mark" => (0, !given.read(number_u32)?),
            "or-mark" => given.read(number_u32).map(|bits| (bits, bits))?,
            _ => (given.read(number_u32)?, 0),
        };
        Ok(Self { value, mask })
    }

    const fn of(self, mark: u32) -> u32 {
        (mark & !self.mask) ^ self.value
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " --set-xmark {:#x}/{:#x}", self.value, self.mask)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub Change);

impl Targeted for Mark {
    const SPEC: Spec = Spec {
        name: "MARK",
        family: None,
        protos: &[],
        tables: &[],
        hooks: &[],
        options: &[
            Opt::value("set-xmark"),
            Opt::value("set-mark"),
            Opt::value("and-mark"),
            Opt::value("or-mark"),
            Opt::value("xor-mark"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        options.exclusive(&CHANGES)?;
        match options.given.first() {
            Some(given) => Change::read(given).map(Self),
            None => Err(options.problem("`-j MARK` needs the mark to set").hint("`--set-mark 1`")),
        }
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        ctx.mark = self.0.of(ctx.mark);
        Next::Rule
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What CONNMARK does, and by how many bits what it sets is moved on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connmark {
    pub action: Action,
    pub shift: Option<Shift>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Set(Change),
    /// From the packet to its connection.
    Save {
        nfmask: u32,
        ctmask: u32,
    },
    /// From the connection to its packet.
    Restore {
        nfmask: u32,
        ctmask: u32,
    },
}

/// By 1 to 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    Left(u32),
    Right(u32),
}

impl Shift {
    const MOST: u64 = 31;

    fn read(options: &Options<'_>) -> Result<Option<Self>, Problem> {
        let names = ["left-shift-mark", "right-shift-mark"];
        options.exclusive(&names)?;
        let Some(given) = names.iter().find_map(|name| options.get(name)) else { return Ok(None) };
        let bits = given.read(|text| number(text, Self::MOST))? as u32;
        let shift = if given.opt.name == names[0] { Self::Left(bits) } else { Self::Right(bits) };
        Ok((bits > 0).then_some(shift))
    }

    const fn of(shift: Option<Self>, mark: u32) -> u32 {
        match shift {
            None => mark,
            Some(Self::Left(bits)) => mark << bits,
            Some(Self::Right(bits)) => mark >> bits,
        }
    }
}

impl Targeted for Connmark {
    const SPEC: Spec = Spec {
        name: "CONNMARK",
        family: None,
        protos: &[],
        tables: &[],
        hooks: &[],
        options: &[
            Opt::value("set-xmark"),
            Opt::value("set-mark"),
            Opt::value("and-mark"),
            Opt::value("or-mark"),
            Opt::value("xor-mark"),
            Opt::flag("save-mark"),
            Opt::flag("restore-mark"),
            Opt::value("ctmask"),
            Opt::value("nfmask"),
            Opt::value("mask"),
            Opt::value("left-shift-mark"),
            Opt::value("right-shift-mark"),
        ],
    };

    fn build(options: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        let mut actions = CHANGES.to_vec();
        actions.extend(["save-mark", "restore-mark"]);
        options.exclusive(&actions)?;
        options.exclusive(&["mask", "nfmask"])?;
        options.exclusive(&["mask", "ctmask"])?;
        let Some(given) = options.given.iter().find(|g| actions.contains(&g.opt.name)) else {
            return Err(options
                .problem("`-j CONNMARK` needs to know what to do")
                .hint("`--set-mark`, `--save-mark` or `--restore-mark`"));
        };
        let mask = |name| match options.get(name).or_else(|| options.get("mask")) {
            Some(given) => given.read(number_u32),
            None => Ok(u32::MAX),
        };
        let (nfmask, ctmask) = (mask("nfmask")?, mask("ctmask")?);
        let shift = Shift::read(options)?;
        let action = match given.opt.name {
            "save-mark" => Action::Save { nfmask, ctmask },
            "restore-mark" => Action::Restore { nfmask, ctmask },
            _ => {
                if let Some(mask) = options.get("nfmask") {
                    let problem =
                        Problem::new(mask.at, "`--nfmask` belongs to `--save-mark` and `--restore-mark`");
                    return Err(problem.hint("`--set-mark VALUE/MASK`"));
                }
                let mut change = Change::read(given)?;
                // A mask behind the mark is in place of the one that the mark brings along.
                let mask = options.given.iter().rfind(|g| matches!(g.opt.name, "mask" | "ctmask"));
                if let Some(mask) = mask.filter(|mask| mask.at > given.at) {
                    change.mask = mask.read(number_u32)?;
                }
                Action::Set(change)
            }
        };
        Ok(Self { action, shift })
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        let Self { action, shift } = *self;
        let (mark, conntrack, now) = (ctx.mark, &ctx.at.env.conntrack, ctx.at.now);
        let mut change = |of: &dyn Fn(u32) -> u32| conntrack.change_mark(&mut ctx.ct, now, of);
        match action {
            // What is set moves with what was there; what is copied moves before it gets there.
            Action::Set(to) => change(&|of_connection| Shift::of(shift, to.of(of_connection))),
            Action::Save { nfmask, ctmask } => {
                change(&|of_connection| (of_connection & !ctmask) ^ Shift::of(shift, mark & nfmask));
            }
            Action::Restore { nfmask, ctmask } => {
                if let Some(of_connection) = conntrack.read_entry(&ctx.ct, |e| e.mark) {
                    ctx.mark = (mark & !nfmask) ^ Shift::of(shift, of_connection & ctmask);
                }
            }
        }
        Next::Rule
    }
}

impl fmt::Display for Connmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Set(change) => change.fmt(f)?,
            Action::Save { nfmask, ctmask } => {
                write!(f, " --save-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")?;
            }
            Action::Restore { nfmask, ctmask } => {
                write!(f, " --restore-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")?;
            }
        }
        match self.shift {
            None => Ok(()),
            Some(Shift::Left(bits)) => write!(f, " --left-shift-mark {bits}"),
            Some(Shift::Right(bits)) => write!(f, " --right-shift-mark {bits}"),
        }
    }
}
