//! `-m policy`: what `IPsec` has done to a packet, or will do. There is none here, so no packet has been through it.

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Complaint, Given, Opt, Options, Problem};
use crate::filter::text::value::{Network, addr, network_mask, not, number_u32};
use core::fmt;

/// Transformations that a rule may ask for, one inside of the other.
const MAX_ELEMENTS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub inwards: bool,
    /// No `IPsec`: that is every packet.
    pub none: bool,
    pub strict: bool,
    /// What is asked of each transformation, as it prints.
    pub elements: Vec<Vec<String>>,
}

/// In the order in which iptables-save prints them.
const OF_ELEMENT: [&str; 6] = ["reqid", "spi", "proto", "mode", "tunnel-dst", "tunnel-src"];

fn text_of(given: &Given<'_>, setting: &Setting) -> Result<String, Problem> {
    given.read(|text| {
        Ok(match given.opt.name {
            "reqid" => number_u32(text)?.to_string(),
            "spi" => format!("{:#x}", number_u32(text)?),
            "proto" => match text {
                "ah" | "51" => "ah".to_owned(),
                "esp" | "50" => "esp".to_owned(),
                "ipcomp" | "108" => "ipcomp".to_owned(),
                _ => {
                    return Err(
                        Complaint::new(format!("IPsec has no protocol `{text}`")).hint("ah, esp or ipcomp")
                    );
                }
            },
            "mode" => match text {
                "transport" | "tunnel" => text.to_owned(),
                _ => {
                    return Err(Complaint::new(format!("no mode named `{text}`")).hint("transport or tunnel"));
                }
            },
            _ => {
                // Printed as it is written: the bits behind the mask stay.
                let (host, mask) =
                    text.split_once('/').map_or((text, None), |(host, mask)| (host, Some(mask)));
                let (family, mask) = (setting.family, network_mask(mask, setting.family)?);
                // The tools make a whole mask of one with holes.
                let mask =
                    if mask.count_ones() == mask.leading_ones() { mask } else { network_mask(None, family)? };
                let net = Network { addr: addr(host, family)?, mask, family }.to_string();
                let whole = format!("/{}", setting.family.bits());
                net.strip_suffix(&whole).unwrap_or(&net).to_owned()
            }
        })
    })
}

impl Matcher for Policy {
    const SPEC: Spec = Spec {
        name: "policy",
        family: None,
        protos: &[],
        options: &[
            Opt::value("dir"),
            Opt::value("pol"),
            Opt::flag("strict"),
            Opt::value("reqid").or_not().again(),
            Opt::value("spi").or_not().again(),
            Opt::value("proto").or_not().again(),
            Opt::value("mode").or_not().again(),
            Opt::value("tunnel-src").or_not().again(),
            Opt::value("tunnel-dst").or_not().again(),
            Opt::flag("next").again(),
        ],
    };

    fn build(options: &Options<'_>, setting: &Setting) -> Result<Self, Problem> {
        let inwards = options.require("dir")?.read(|text| match text {
            "in" => Ok(true),
            "out" => Ok(false),
            _ => Err(Complaint::new(format!("no direction named `{text}`")).hint("`in` or `out`")),
        })?;
        let none = options.get("pol").map_or(Ok(false), |given| {
            given.read(|text| match text {
                "none" => Ok(true),
                "ipsec" => Ok(false),
                _ => Err(Complaint::new(format!("no policy named `{text}`")).hint("`none` or `ipsec`")),
            })
        })?;
        let strict = options.has("strict");
        let parts = options.given.split(|given| given.opt.name == "next");
        let mut elements = Vec::new();
        for part in parts {
            let mut element: Vec<(usize, String)> = Vec::new();
            for given in part {
                let Some(place) = OF_ELEMENT.iter().position(|name| *name == given.opt.name) else {
                    continue;
                };
                if element.iter().any(|(other, _)| *other == place) {
                    let problem = Problem::new(given.at, format!("`--{}` stands twice", given.opt.name));
                    return Err(problem.hint("`--next` begins another transformation"));
                }
                let text =
                    format!("{} --{} {}", not(given.negated), given.opt.name, text_of(given, setting)?);
                element.push((place, text));
            }
            element.sort();
            let is_tunnel = element.iter().any(|(_, text)| text == " --mode tunnel");
            if element.iter().any(|(place, _)| *place >= 4) && !is_tunnel {
                let problem = options.problem("the ends of a tunnel can be asked for in tunnel mode only");
                return Err(problem.hint("`--mode tunnel`"));
            }
            elements.push(element.into_iter().map(|(_, text)| text).collect::<Vec<_>>());
        }
        if elements.len() > 1 && !strict {
            return Err(options.problem("`--next` needs `--strict`"));
        }
        if elements.len() > MAX_ELEMENTS {
            let problem = options.problem("so many transformations do not fit");
            return Err(problem.hint(format!("at most {MAX_ELEMENTS}")));
        }
        if strict && !none && elements.iter().any(Vec::is_empty) {
            let names = OF_ELEMENT.map(|name| format!("`--{name}`")).join(", ");
            return Err(options.problem("`--strict` needs to know what is asked for").hint(names));
        }
        if none && strict {
            return Err(options.problem("`--strict` asks for IPsec, and `--pol none` for packets without"));
        }
        if none {
            elements.clear();
        }
        Ok(Self { inwards, none, strict, elements })
    }

    fn check(&self, _: &View<'_>) -> Answer {
        self.none.into()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inwards, none, strict, elements } = self;
        let dir = if *inwards { "in" } else { "out" };
        write!(f, " --dir {dir} --pol {}", if *none { "none" } else { "ipsec" })?;
        if *strict {
            f.write_str(" --strict")?;
        }
        for (place, element) in elements.iter().enumerate() {
            f.write_str(if place > 0 { " --next" } else { "" })?;
            element.iter().try_for_each(|text| f.write_str(text))?;
        }
        Ok(())
    }
}
