//! `-j LOG`, `-j NFLOG`, `-j TRACE`: say that a packet came by, and go on.

#![forbid(unsafe_code)]

use super::{Next, Place, Spec, Targeted};
use crate::base::log::{LogDetails, Logged, Speaker};
use crate::filter::Table;
use crate::filter::matches::Setting;
use crate::filter::text::options::{Complaint, Given, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{number, number_u16, number_u32, quoted};
use crate::filter::walk::context::Context;
use crate::packet::Packet;
use crate::record::Recorder;
use core::fmt;

const MAX_LOG_PREFIX: usize = 29;
const MAX_NFLOG_PREFIX: usize = 63;
const DEFAULT_LEVEL: u8 = 4;

/// syslog's levels by the names that iptables knows, in small letters only.
const LEVELS: [(&str, u8); 9] = [
    ("emerg", 0),
    ("panic", 0),
    ("alert", 1),
    ("crit", 2),
    ("error", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

fn parse_level(text: &str) -> Result<u8, Complaint> {
    if let Ok(level) = number(text, 7) {
        return Ok(level as u8);
    }
    LEVELS.iter().find(|(name, _)| *name == text).map(|(_, level)| *level).ok_or_else(|| {
        let names = LEVELS.iter().map(|(name, _)| *name);
        Complaint::new(format!("no log level named `{text}`")).hint(
            did_you_mean(text, names)
                .unwrap_or_else(|| "0 to 7, or a name such as `warning` or `info`".to_owned()),
        )
    })
}

/// The prefix, cut as the kernel cuts it.
fn prefix(given: Option<&Given<'_>>, most: usize, setting: &Setting) -> String {
    let Some(given) = given else { return String::new() };
    let text = given.text();
    if text.len() <= most {
        return text.to_owned();
    }
    setting.warn(given.problem(format!("the prefix has {} letters and is cut to {most}", text.len())));
    let end = (0..=most).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
    text[..end].to_owned()
}

/// Tells those who listen, if there are any.
pub(in crate::filter) fn say<R: Recorder>(
    by: impl FnOnce() -> Speaker,
    most: usize,
    pkt: &Packet,
    ctx: &Context<R>,
    place: Place,
) {
    let packet = pkt.l3();
    ctx.at.env.logs.say(|| Logged {
        at: ctx.at.now,
        by: by(),
        rule: place.rule,
        table: place.table,
        hook: place.hook,
        in_iface: ctx.at.iface,
        out_iface: ctx.out_iface,
        src_mac: pkt.src_mac(),
        dst_mac: pkt.dst_mac(),
        mark: ctx.mark,
        packet: packet[..packet.len().min(most)].to_vec(),
        packet_len: packet.len(),
    });
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub prefix: String,
    pub level: u8,
    pub tcp_sequence: bool,
    pub tcp_options: bool,
    pub ip_options: bool,
    pub uid: bool,
    pub macdecode: bool,
}

impl Targeted for Log {
    const SPEC: Spec = Spec {
        name: "LOG",
        family: None,
        protos: &[],
        tables: &[],
        hooks: &[],
        options: &[
            Opt::value("log-prefix"),
            Opt::value("log-level"),
            Opt::flag("log-tcp-sequence"),
            Opt::flag("log-tcp-options"),
            Opt::flag("log-ip-options"),
            Opt::flag("log-uid"),
            Opt::flag("log-macdecode"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let given = options.get("log-prefix");
        if let Some(empty) = given.filter(|g| g.text().is_empty()) {
            return Err(empty.problem("the prefix is empty").hint("leave `--log-prefix` out"));
        }
        Ok(Self {
            prefix: prefix(given, MAX_LOG_PREFIX, setting),
            level: options.get("log-level").map_or(Ok(DEFAULT_LEVEL), |g| g.read(parse_level))?,
            tcp_sequence: options.has("log-tcp-sequence"),
            tcp_options: options.has("log-tcp-options"),
            ip_options: options.has("log-ip-options"),
            uid: options.has("log-uid"),
            macdecode: options.has("log-macdecode"),
        })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, place: Place) -> Next {
        let Self { level, tcp_sequence, tcp_options, ip_options, macdecode, .. } = *self;
        let details = LogDetails { tcp_sequence, tcp_options, ip_options, macdecode };
        let speaker = || Speaker::Log { prefix: self.prefix.clone(), level, details };
        say(speaker, usize::MAX, pkt, ctx, place);
        Next::Rule
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, level, tcp_sequence, tcp_options, ip_options, uid, macdecode } = self;
        if !prefix.is_empty() {
            write!(f, " --log-prefix {}", quoted(prefix))?;
        }
        if *level != DEFAULT_LEVEL {
            write!(f, " --log-level {level}")?;
        }
        for (is_set, name) in [
            (tcp_sequence, "log-tcp-sequence"),
            (tcp_options, "log-tcp-options"),
            (ip_options, "log-ip-options"),
            (uid, "log-uid"),
            (macdecode, "log-macdecode"),
        ] {
            if *is_set {
                write!(f, " --{name}")?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nflog {
    pub prefix: String,
    pub group: u16,
    /// How much of the packet is passed on; `None`: all.
    pub size: Option<u32>,
    pub range: u32,
    /// How many messages the kernel gathers; here each goes at once.
    pub threshold: u16,
}

impl Targeted for Nflog {
    const SPEC: Spec = Spec {
        name: "NFLOG",
        family: None,
        protos: &[],
        tables: &[],
        hooks: &[],
        options: &[
            Opt::value("nflog-prefix"),
            Opt::value("nflog-group"),
            Opt::value("nflog-size"),
            Opt::value("nflog-range"),
            Opt::value("nflog-threshold"),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let given = options.get("nflog-prefix");
        if let Some(empty) = given.filter(|g| g.text().is_empty()) {
            return Err(empty.problem("the prefix is empty").hint("leave `--nflog-prefix` out"));
        }
        options.exclusive(&["nflog-range", "nflog-size"])?;
        if let Some(range) = options.get("nflog-range") {
            let problem = Problem::new(range.at, "`--nflog-range` has never had an effect, in Linux neither");
            setting.warn(problem.hint("`--nflog-size` cuts the packet"));
        }
        Ok(Self {
            prefix: prefix(given, MAX_NFLOG_PREFIX, setting),
            group: options.get("nflog-group").map_or(Ok(0), |g| g.read(number_u16))?,
            size: options.get("nflog-size").map(|g| g.read(number_u32)).transpose()?,
            range: options.get("nflog-range").map_or(Ok(0), |g| g.read(number_u32))?,
            threshold: options.get("nflog-threshold").map_or(Ok(0), |g| g.read(number_u16))?,
        })
    }

    fn apply<R: Recorder>(&self, pkt: &mut Packet, ctx: &mut Context<R>, place: Place) -> Next {
        let speaker = || Speaker::Nflog { prefix: self.prefix.clone(), group: self.group };
        say(speaker, self.size.map_or(usize::MAX, |n| n as usize), pkt, ctx, place);
        Next::Rule
    }
}

impl fmt::Display for Nflog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, group, size, range, threshold } = self;
        if !prefix.is_empty() {
            write!(f, " --nflog-prefix {}", quoted(prefix))?;
        }
        if *group != 0 {
            write!(f, " --nflog-group {group}")?;
        }
        match size {
            Some(size) => write!(f, " --nflog-size {size}")?,
            None if *range != 0 => write!(f, " --nflog-range {range}")?,
            None => {}
        }
        if *threshold == 0 { Ok(()) } else { write!(f, " --nflog-threshold {threshold}") }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace;

impl Targeted for Trace {
    const SPEC: Spec =
        Spec { name: "TRACE", family: None, protos: &[], tables: &[Table::Raw], hooks: &[], options: &[] };

    fn build(_: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self)
    }

    fn apply<R: Recorder>(&self, _: &mut Packet, ctx: &mut Context<R>, _: Place) -> Next {
        ctx.traced = true;
        Next::Rule
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
