//! The options that every rule takes: commands, conditions of the header, and what loads an extension.

#![forbid(unsafe_code)]

use crate::filter::text::options::Opt;
use crate::packet::Family;
use std::sync::LazyLock;

pub(in crate::filter) const LETTERS: &[(&str, &str)] = &[
    ("-A", "append"),
    ("-I", "insert"),
    ("-R", "replace"),
    ("-D", "delete"),
    ("-F", "flush"),
    ("-Z", "zero"),
    ("-N", "new-chain"),
    ("-X", "delete-chain"),
    ("-E", "rename-chain"),
    ("-P", "policy"),
    ("-C", "check"),
    ("-L", "list"),
    ("-S", "list-rules"),
    ("-s", "source"),
    ("-d", "destination"),
    ("-i", "in-interface"),
    ("-o", "out-interface"),
    ("-p", "protocol"),
    ("-f", "fragments"),
    ("-m", "match"),
    ("-j", "jump"),
    ("-g", "goto"),
    ("-c", "set-counters"),
    ("-t", "table"),
    ("-4", "ipv4"),
    ("-6", "ipv6"),
    ("-M", "modprobe"),
    ("-n", "numeric"),
    ("-v", "verbose"),
    ("-w", "wait"),
    ("-x", "exact"),
    ("-h", "help"),
    ("-V", "version"),
];

pub(in crate::filter) static BASE: [Opt; 35] = [
    Opt::value("append"),
    Opt::value("insert"),
    Opt::value("replace"),
    Opt::value("delete"),
    Opt::flag("flush"),
    Opt::flag("zero"),
    Opt::value("new-chain"),
    Opt::flag("delete-chain"),
    Opt::pair("rename-chain"),
    Opt::pair("policy"),
    Opt::value("check"),
    Opt::flag("list"),
    Opt::flag("list-rules"),
    Opt::value("source").also(&["src"]).or_not(),
    Opt::value("destination").also(&["dst"]).or_not(),
    Opt::value("in-interface").or_not(),
    Opt::value("out-interface").or_not(),
    Opt::value("protocol").or_not(),
    Opt::value("match").again(),
    Opt::value("jump"),
    Opt::value("goto"),
    Opt::pair("set-counters"),
    Opt::value("table"),
    Opt::flag("ipv4").again(),
    Opt::flag("ipv6").again(),
    // It says how a module is fetched, and there are none to fetch.
    Opt::value("modprobe").again(),
    Opt::flag("numeric"),
    Opt::flag("verbose").again(),
    Opt::flag("wait"),
    Opt::flag("exact"),
    Opt::value("wait-interval"),
    Opt::flag("help"),
    Opt::flag("version"),
    Opt::flag("line-numbers"),
    // Behind all others: IPv6 has no such option.
    Opt::flag("fragments").or_not(),
];

/// What `-NAME` may be short for.
pub(in crate::filter) fn known(family: Family) -> &'static [Opt] {
    match family {
        Family::Ipv4 => &BASE,
        Family::Ipv6 => &BASE[..BASE.len() - 1],
    }
}

/// The option of each letter: a large ruleset asks for one some hundred thousand times.
static BY_LETTER: LazyLock<[Option<&'static Opt>; 128]> = LazyLock::new(|| {
    let mut by_letter = [None; 128];
    for (short, name) in LETTERS {
        by_letter[usize::from(short.as_bytes()[1])] = named(name);
    }
    by_letter
});

/// The option that a single letter stands for.
pub(in crate::filter) fn of_letter(letter: char) -> Option<&'static Opt> {
    *BY_LETTER.get(letter as usize)?
}

/// The option of that name.
pub(in crate::filter) fn named(name: &str) -> Option<&'static Opt> {
    BASE.iter().find(|opt| opt.name == name)
}

/// Whether what follows the letter in the same word is its value.
///
/// Commands that take a chain or none are flags in [`BASE`].
pub(in crate::filter) fn takes_rest(opt: &Opt) -> bool {
    opt.args > 0 || matches!(opt.name, "flush" | "zero" | "delete-chain" | "list" | "list-rules")
}

/// Whether a blank must stand between the letter and its value: of these the tools read both as the value, and
/// `-ieth0` would be an interface named so.
pub(in crate::filter) fn stands_alone(opt: &Opt) -> bool {
    matches!(opt.name, "source" | "destination" | "protocol" | "jump" | "in-interface" | "out-interface")
}
