//! `-m tcp`: ports, flags and options of a segment.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::names::Services;
use crate::filter::text::options::{Complaint, Given, Opt, Options, Problem, did_you_mean};
use crate::filter::text::value::{Ports, not, number_u8};
use crate::packet::TcpFlags;
use crate::packet::tuple::PROTO_TCP;
use core::fmt;

const HEADER_LEN: usize = 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    pub sport: Option<PortMatch>,
    pub dport: Option<PortMatch>,
    pub option: Option<OptionMatch>,
    pub flags: Option<FlagMatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMatch {
    pub ports: Ports,
    pub negated: bool,
}

impl PortMatch {
    /// `names` are the services that may be written in place of a number.
    pub(super) fn read(given: &Given<'_>, names: Services, setting: &Setting<'_>) -> Result<Self, Problem> {
        let ports = given.read(|text| Ports::parse(text, names))?;
        setting.warn_of_none(given, ports);
        Ok(Self { ports, negated: given.negated })
    }

    #[inline]
    pub(super) const fn holds(self, port: u16) -> bool {
        self.ports.contains(port) != self.negated
    }

    /// As [`Self::read`], for protocols whose ports are decimal.
    pub(super) fn read_decimal(
        given: &Given<'_>,
        names: Services,
        setting: &Setting<'_>,
    ) -> Result<Self, Problem> {
        let ports = given.read(|text| Ports::parse_decimal(text, names))?;
        setting.warn_of_none(given, ports);
        Ok(Self { ports, negated: given.negated })
    }

    /// A range of all ports is as good as none, and iptables-save leaves it out, even turned round.
    pub(super) fn write(condition: Option<&Self>, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match condition {
            Some(Self { ports, negated }) if !ports.is_any() => {
                write!(f, "{} --{name} {ports}", not(*negated))
            }
            _ => Ok(()),
        }
    }
}

/// A TCP option by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionMatch {
    pub kind: u8,
    pub negated: bool,
}

/// Of the bits in `mask` exactly those in `set` are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagMatch {
    pub mask: TcpFlags,
    pub set: TcpFlags,
    pub negated: bool,
}

/// The six flags that rules know, in the order in which iptables-save prints them.
const FLAGS: [(&str, TcpFlags); 6] = [
    ("FIN", TcpFlags::FIN),
    ("SYN", TcpFlags::SYN),
    ("RST", TcpFlags::RST),
    ("PSH", TcpFlags::PSH),
    ("ACK", TcpFlags::ACK),
    ("URG", TcpFlags::URG),
];

fn all_flags() -> TcpFlags {
    FLAGS.iter().fold(TcpFlags::empty(), |all, (_, flag)| all | *flag)
}

fn parse_flags(text: &str) -> Result<TcpFlags, Complaint> {
    let mut flags = TcpFlags::empty();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        flags |= match word {
            _ if word.eq_ignore_ascii_case("ALL") => all_flags(),
            _ if word.eq_ignore_ascii_case("NONE") => TcpFlags::empty(),
            _ => {
                let known = FLAGS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
                let Some((_, flag)) = known else {
                    let names = FLAGS.iter().map(|(name, _)| *name).chain(["ALL", "NONE"]);
                    return Err(Complaint::new(format!("no TCP flag named `{word}`"))
                        .hint(did_you_mean(word, names).unwrap_or_else(|| {
                            "the flags are FIN SYN RST PSH ACK URG ALL NONE".to_owned()
                        })));
                };
                *flag
            }
        };
    }
    Ok(flags)
}

impl Matcher for Tcp {
    const SPEC: Spec = Spec {
        name: "tcp",
        family: None,
        protos: &[PROTO_TCP],
        options: &[
            Opt::value("sport").also(&["source-port"]).or_not(),
            Opt::value("dport").also(&["destination-port"]).or_not(),
            Opt::flag("syn").or_not(),
            Opt::pair("tcp-flags").or_not(),
            Opt::value("tcp-option").or_not(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let mut tcp = Self::default();
        for given in &options.given {
            match given.opt.name {
                "sport" => tcp.sport = Some(PortMatch::read(given, Services::TCP, setting)?),
                "dport" => tcp.dport = Some(PortMatch::read(given, Services::TCP, setting)?),
                "tcp-option" => {
                    let kind = given.read(number_u8)?;
                    if kind == 0 {
                        return Err(
                            given.problem("TCP option 0 ends the list of options and cannot be matched")
                        );
                    }
                    tcp.option = Some(OptionMatch { kind, negated: given.negated });
                }
                _ if tcp.flags.is_some() => {
                    return Err(Problem::new(given.at, "only one of `--syn` and `--tcp-flags` is allowed"));
                }
                "syn" => {
                    let mask = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
                    tcp.flags = Some(FlagMatch { mask, set: TcpFlags::SYN, negated: given.negated });
                }
                _ => {
                    let (mask, set) = (given.read_arg(0, parse_flags)?, given.read_arg(1, parse_flags)?);
                    tcp.flags = Some(FlagMatch { mask, set, negated: given.negated });
                }
            }
        }
        Ok(tcp)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        if view.pkt.is_later_fragment() {
            return Answer::No;
        }
        let Some(header) = view.pkt.l4().first_chunk::<HEADER_LEN>() else { return Answer::Drop };
        let Self { sport, dport, option, flags } = self;
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let fits = |wanted: &Option<PortMatch>, at| wanted.is_none_or(|w: PortMatch| w.holds(port(at)));
        if !fits(sport, 0) || !fits(dport, 2) {
            return Answer::No;
        }
        if let Some(FlagMatch { mask, set, negated }) = flags
            && ((TcpFlags::from_bits_retain(header[13]) & *mask) == *set) == *negated
        {
            return Answer::No;
        }
        let Some(OptionMatch { kind, negated }) = option else { return Answer::Yes };
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Answer::Drop;
        }
        match view.pkt.l4().get(HEADER_LEN..header_len) {
            Some(list) => (has_option(list, *kind) != *negated).into(),
            None => Answer::Drop,
        }
    }
}

/// Walks a list of TCP options as netfilter does: a broken length counts as one byte.
fn has_option(list: &[u8], kind: u8) -> bool {
    let mut at = 0;
    while at < list.len() {
        if list[at] == kind {
            return true;
        }
        at += match list.get(at + 1) {
            Some(&len) if list[at] >= 2 && len > 0 => usize::from(len),
            _ => 1,
        };
    }
    false
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sport, dport, option, flags } = self;
        PortMatch::write(sport.as_ref(), "sport", f)?;
        PortMatch::write(dport.as_ref(), "dport", f)?;
        if let Some(OptionMatch { kind, negated }) = option {
            write!(f, "{} --tcp-option {kind}", not(*negated))?;
        }
        // `--tcp-flags NONE NONE` says nothing, and iptables-save leaves it out.
        if let Some(FlagMatch { mask, set, negated }) = flags
            && (!mask.is_empty() || *negated)
        {
            write!(f, "{} --tcp-flags {} {}", not(*negated), FlagList(*mask), FlagList(*set))?;
        }
        Ok(())
    }
}

/// Flags as iptables-save prints them: `SYN,ACK`, `NONE`.
#[derive(Clone, Copy, Debug)]
pub struct FlagList(pub TcpFlags);

impl fmt::Display for FlagList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, _) in FLAGS.iter().filter(|(_, flag)| self.0.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
    }
}
