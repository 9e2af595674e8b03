//! `-j CT` and `-j NOTRACK`: what the raw table asks of connection tracking.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::conntrack::{Happened, Helper, Template, Told, Tracking};
use crate::filter::Table;
use crate::filter::matches::Setting;
use crate::filter::text::names;
use crate::filter::text::options::{Complaint, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::number_u16;
use crate::filter::walk::context::Context;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ct {
    pub notrack: bool,
    pub helper: Option<Helper>,
    /// Which events of the connection are told; `None`: all.
    pub told: Option<Told>,
    pub zone: Zone,
    /// Which directions of a connection are in that zone.
    pub spread: Spread,
}

/// Which directions of a connection are in a zone; the other one is in the usual zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    #[default]
    Both,
    Original,
    Reply,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// The usual one.
    #[default]
    None,
    Number(u16),
    /// The packet's mark.
    Mark,
}

/// The words of `--ctevents`, in the order in which they print.
const EVENTS: [(&str, Happened); 10] = [
    ("new", Happened::NEW),
    ("related", Happened::RELATED),
    ("destroy", Happened::DESTROY),
    ("reply", Happened::REPLY),
    ("assured", Happened::ASSURED),
    ("protoinfo", Happened::PROTOINFO),
    ("helper", Happened::HELPER),
    ("mark", Happened::MARK),
    ("natseqinfo", Happened::NATSEQINFO),
    ("secmark", Happened::SECMARK),
];

fn parse_events(text: &str) -> Result<Happened, Complaint> {
    text.split(',').try_fold(Happened::empty(), |events, word| {
        let known = EVENTS.iter().find(|(name, _)| *name == word);
        let (_, bit) = known.ok_or_else(|| {
            let names = EVENTS.iter().map(|(name, _)| *name);
            let all = format!("the events are {}", names.clone().collect::<Vec<_>>().join(", "));
            Complaint::new(format!("no event named `{word}`")).hint(did_you_mean(word, names).unwrap_or(all))
        })?;
        Ok(events | *bit)
    })
}

fn read_events(options: &Options<'_>) -> Result<Option<Told>, Problem> {
    let entry = options.get("ctevents").map(|given| given.read(parse_events)).transpose()?;
    let announced = options.get("expevents").map(|given| {
        given.read(|text| match text.split(',').find(|word| *word != "new") {
            None => Ok(true),
            Some(word) => {
                Err(Complaint::new(format!("no event of an expectation is named `{word}`")).hint("new"))
            }
        })
    });
    let announced = announced.transpose()?;
    // Whoever names events of one kind gets none of the other.
    Ok((entry.is_some() || announced.is_some())
        .then(|| Told { entry: entry.unwrap_or(Happened::empty()), announced: announced.unwrap_or(false) }))
}

/// The zone, and for which directions: of several that are given the last one counts, and the directions add up, as in the
/// tools.
fn read_zone(options: &Options<'_>) -> Result<(Zone, Spread), Problem> {
    let read = |text: &str| match text {
        _ if text.eq_ignore_ascii_case("mark") => Ok(Zone::Mark),
        _ => number_u16(text).map(|n| if n == 0 { Zone::None } else { Zone::Number(n) }),
    };
    let mut zone = Zone::None;
    for given in options.given.iter().filter(|given| given.opt.name.starts_with("zone")) {
        zone = given.read(read)?;
    }
    let spread = match (options.has("zone-orig"), options.has("zone-reply")) {
        (true, false) => Spread::Original,
        (false, true) => Spread::Reply,
        (false, false) | (true, true) => Spread::Both,
    };
    Ok((zone, spread))
}

impl Targeted for Ct {
    const SPEC: Spec = Spec {
        name: "CT",
        family: None,
        protos: &[],
        tables: &[Table::Raw],
        hooks: &[],
        options: &[
            Opt::flag("notrack"),
            Opt::value("helper"),
            Opt::value("ctevents"),
            Opt::value("expevents"),
            Opt::value("zone"),
            Opt::value("zone-orig"),
            Opt::value("zone-reply"),
            Opt::value("timeout").refused("there are no named timeout policies: `sysctl` sets the timeouts"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let helper = options.get("helper").map(|given| {
            let helper = given.read(|name| {
                let known = Helper::ALL.iter().map(|h| h.name());
                Helper::by_name(name).ok_or_else(|| {
                    let all = format!("the helpers are {}", known.clone().collect::<Vec<_>>().join(", "));
                    Complaint::new(format!("no helper named `{name}`"))
                        .hint(did_you_mean(name, known).unwrap_or(all))
                })
            })?;
            if setting.proto.is_some_and(|p| p.proto == helper.proto() && !p.negated) {
                return Ok(helper);
            }
            let proto = names::protocol_name(helper.proto()).unwrap_or("its protocol");
            Err(given
                .problem(format!("helper `{}` reads {proto} only", helper.name()))
                .hint(format!("add `-p {proto}` to the rule")))
        });
        let (zone, spread) = read_zone(options)?;
        let told = read_events(options)?;
        Ok(Self { notrack: options.has("notrack"), helper: helper.transpose()?, told, zone, spread })
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        // The first rule that speaks is heard: a packet that has a template already keeps it.
        if ctx.is_answer || ctx.template.is_set {
            return Next::Rule;
        }
        let Self { notrack, helper, told, zone, spread } = *self;
        let zone = match zone {
            Zone::None => 0,
            Zone::Number(n) => n,
            Zone::Mark => ctx.mark as u16,
        };
        let tracking = match spread {
            _ if notrack => Tracking::Off,
            Spread::Original if zone != 0 => Tracking::OriginalInZone,
            Spread::Reply if zone != 0 => Tracking::RepliesInZone,
            Spread::Both | Spread::Original | Spread::Reply => Tracking::Usual,
        };
        ctx.template = Template { is_set: true, tracking, zone, helper, told };
        Next::Rule
    }
}

impl fmt::Display for Ct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { notrack, helper, told, zone, spread } = self;
        let option = match spread {
            Spread::Both => "zone",
            Spread::Original => "zone-orig",
            Spread::Reply => "zone-reply",
        };
        if *notrack {
            f.write_str(" --notrack")?;
        }
        if let Some(helper) = helper {
            write!(f, " --helper {}", helper.name())?;
        }
        if let Some(Told { entry, announced }) = told {
            let words = EVENTS.iter().filter(|(_, bit)| entry.contains(*bit)).map(|(name, _)| *name);
            let words: Vec<&str> = words.collect();
            if !words.is_empty() {
                write!(f, " --ctevents {}", words.join(","))?;
            }
            if *announced {
                f.write_str(" --expevents new")?;
            }
        }
        match zone {
            Zone::None => Ok(()),
            Zone::Number(n) => write!(f, " --{option} {n}"),
            Zone::Mark => write!(f, " --{option} mark"),
        }
    }
}

/// The old name of `-j CT --notrack`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notrack;

impl Targeted for Notrack {
    const SPEC: Spec =
        Spec { name: "NOTRACK", family: None, protos: &[], tables: &[Table::Raw], hooks: &[], options: &[] };

    fn build(_: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self)
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        if !ctx.is_answer && !ctx.template.is_set {
            ctx.template = Template { is_set: true, tracking: Tracking::Off, ..Template::default() };
        }
        Next::Rule
    }
}

impl fmt::Display for Notrack {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
