//! What a reviewer need not check: which module may name which, what the core must not contain, and that every
//! reason for a drop and for INVALID is met by a scenario.

use super::source::{Source, root, sources};
use stateway_core::base::{DropReason, InvalidReason};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::Command;

/// A file longer than this holds two topics.
const MAX_LINES: usize = 900;

/// Reasons that a scenario cannot meet, and why.
const NOT_BY_SCENARIO: &[(&str, &str)] = &[
    ("nat-address", "every interface of a story has an address"),
    ("nat-egress", "takes routes that change, which those of a router do not"),
    ("neighbour-table-full", "takes more neighbours than a story can name"),
    ("neighbour-failed", "counted when the wait ends, long after the packet's own story"),
    ("neighbour-queue-full", "counted of the packet that was displaced, not of the one that came"),
    ("target", "no target that is built can fail"),
];

/// The rooms of the core, from the ground up, and what each may name besides itself: never one further down this list.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("packet", &["base"]),
    ("nat", &["base", "packet"]),
    ("neighbour", &["base", "packet"]),
    ("config", &["base", "packet", "neighbour"]),
    ("route", &["base", "packet", "config"]),
    ("icmp_reply", &["base", "packet"]),
    ("conntrack", &["base", "packet", "nat"]),
    ("record", &["base", "packet", "nat", "conntrack"]),
    ("filter", &["base", "packet", "nat", "conntrack", "route", "record"]),
    ("plane", &["base", "packet", "conntrack", "filter", "record"]),
    (
        "host",
        &[
            "base",
            "packet",
            "conntrack",
            "filter",
            "plane",
            "record",
            "config",
            "route",
            "neighbour",
            "icmp_reply",
        ],
    ),
    ("bridge", &["base", "packet", "plane", "record", "config", "icmp_reply", "host"]),
    ("pipeline", &["base", "packet", "nat", "conntrack", "filter", "plane", "record"]),
    (
        "router",
        &[
            "base",
            "packet",
            "nat",
            "conntrack",
            "filter",
            "plane",
            "record",
            "config",
            "bridge",
            "host",
            "pipeline",
        ],
    ),
    ("saved", &["base", "packet", "neighbour", "config", "router"]),
    ("reload", &["base", "packet", "conntrack", "filter", "config", "router"]),
    ("decision", &["base", "packet", "conntrack", "record", "router"]),
];

/// What the outside calls parts of the ground floor; the core calls them by their own names.
const ALIASES: &[&str] = &["fate", "iface", "time"];

/// What the core has no business with: threads, files, sockets, the clock, chance, the terminal.
const NOT_IN_THE_CORE: &[&str] = &[
    "std::thread",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::net",
    "Instant::now",
    "SystemTime",
    "println!",
    "rand::",
    "getrandom",
    "rustix::",
];

/// Crates that one place alone names, so that a successor touches one place.
const NAMED_IN: &[(&str, &[&str])] = &[
    (
        "smoltcp::wire",
        &[
            "crates/core/src/packet/",
            "crates/core/src/icmp_reply",
            "crates/core/src/host/",
            "crates/lab/src/sim/",
            "crates/lab/src/steps/",
        ],
    ),
    ("serde_yaml", &["crates/lab/"]),
    ("tun_tap", &["crates/runtime/src/device/tap.rs"]),
    ("use io_uring", &["crates/runtime/src/device/"]),
    ("use netlink_sys", &["crates/runtime/src/netlink.rs"]),
];

/// Where unsafe code may be: ports; and the names by which a host of the WebAssembly module calls it, which are nothing else.
const MAY_BE_UNSAFE: &[&str] = &["crates/runtime/src/device/", "crates/wasm/src/exports.rs"];

/// Who names whom in the core.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
    for source in core_sources() {
        let named = source.named_modules();
        arrows
            .entry(source.module.clone())
            .or_default()
            .extend(named.into_iter().filter(|to| *to != source.module));
    }
    arrows
}

#[test]
fn every_module_of_the_core_has_a_room_and_names_only_what_is_below_it() {
    let core = modules();
    let rooms: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let homeless: Vec<_> = core.iter().filter(|module| !rooms.contains(&module.as_str())).collect();
    assert!(homeless.is_empty(), "no row in ROOMS for {homeless:?}: say what they may name");
    let mut wrong = Vec::new();
    for (at, (room, below)) in ROOMS.iter().enumerate() {
        assert!(core.iter().any(|module| module == room), "lib.rs lists no core module `{room}`");
        wrong.extend(
            below
                .iter()
                .filter(|b| !rooms[..at].contains(*b))
                .map(|b| format!("row `{room}`: `{b}` is not below it")),
        );
    }
    for (from, to) in arrows() {
        let allowed = ROOMS.iter().find(|(room, _)| *room == from).map_or(&[][..], |(_, below)| below);
        wrong.extend(
            to.iter().filter(|to| !allowed.contains(&to.as_str())).map(|to| format!("`{from}` names `{to}`")),
        );
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), drawing(&arrows()));
}

#[test]
fn the_arrows_of_the_core_form_no_circle() {
    let arrows = arrows();
    let _ = writeln!(io::stdout(), "{}", drawing(&arrows));
    if let Some(circle) = circle(&arrows) {
        panic!("a circle: {}\n{}", circle.join(" → "), drawing(&arrows));
    }
}

/// A line for each module: what it names.
fn drawing(arrows: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut text = String::new();
    for (from, to) in arrows {
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let _ = writeln!(text, "{from} → {}", to.join(", "));
    }
    text
}

/// The first way found that leads from a module back to it.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn follow(
        arrows: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        let here = way.last()?.clone();
        for next in arrows.get(&here).into_iter().flatten() {
            if let Some(at) = way.iter().position(|passed| passed == next) {
                return Some(way[at..].iter().chain([next]).cloned().collect());
            }
            if !done.contains(next) {
                way.push(next.clone());
                if let Some(circle) = follow(arrows, way, done) {
                    return Some(circle);
                }
                way.pop();
            }
        }
        done.insert(here);
        None
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|start| follow(arrows, &mut vec![start.clone()], &mut done))
}

#[test]
fn a_circle_is_found() {
    let arrows = |pairs: &[(&str, &str)]| {
        let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in pairs {
            arrows.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        arrows
    };
    assert_eq!(circle(&arrows(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    let found = circle(&arrows(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")]));
    assert_eq!(found, Some(["b", "c", "d", "b"].map(str::to_owned).to_vec()));
}

#[test]
fn the_core_has_no_threads_files_sockets_clock_or_chance() {
    let mut wrong = Vec::new();
    for source in core_sources() {
        for word in NOT_IN_THE_CORE.iter().filter(|word| source.says(word)) {
            wrong.push(format!("{} names {word}", source.path));
        }
        for module in source.named_modules() {
            if ALIASES.contains(&module.as_str()) {
                wrong.push(format!("{} names crate::{module}", source.path));
            }
        }
        if !source.text.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{} does not forbid unsafe code", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_are_named_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, places) in NAMED_IN {
            if source.says(name) && !places.iter().any(|place| source.path.starts_with(place)) {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
        if source.says("allow(unsafe_code")
            && !MAY_BE_UNSAFE.iter().any(|place| source.path.starts_with(place))
        {
            wrong.push(format!("{} allows unsafe code", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What comes into a program that has the router inside: all crates that are compiled, without those of build scripts.
#[test]
fn the_router_alone_brings_little() {
    for (package, features, most) in
        [("stateway-core", &[][..], 40), ("stateway", &["--no-default-features"], 41)]
    {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package])
            .args(features)
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let crates: BTreeSet<_> = said.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(crates.contains("smoltcp"), "{output:?}");
        assert!(crates.len() <= most, "{package}: {crates:?}");
        let foreign =
            ["clap", "ratatui", "crossterm", "serde_yaml", "io-uring", "tun-tap", "netlink-sys", "tracing"];
        assert!(foreign.iter().all(|name| !crates.contains(name)), "{package}: {crates:?}");
    }
}

#[test]
fn no_file_has_outgrown_its_topic() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_reason_is_told_in_a_sentence_of_its_own() {
    let mut sentences = BTreeMap::new();
    let dropped = DropReason::CODES.iter().zip(DropReason::SENTENCES);
    let invalid = InvalidReason::CODES.iter().zip(InvalidReason::SENTENCES);
    for (code, sentence) in dropped.chain(invalid) {
        assert!(sentence.split(' ').count() > 2, "`{code}` is told as `{sentence}`");
        if let Some(other) = sentences.insert(sentence, code) {
            panic!("`{code}` and `{other}` are told alike");
        }
    }
}

#[test]
fn every_reason_is_met_by_a_scenario() {
    let stories: String = super::scenario::scenarios()
        .iter()
        .map(|path| fs::read_to_string(path).expect("a scenario can be read"))
        .collect();
    let is_met = |word: &str, code: &str| stories.contains(&format!("{word}({code})"));
    let is_excused = |code: &str| NOT_BY_SCENARIO.iter().any(|(excused, _)| *excused == code);
    let invalid = InvalidReason::CODES.iter().filter(|code| !is_met("INVALID", code));
    let dropped = DropReason::CODES.iter().filter(|code| !is_met("dropped", code));
    let missing: Vec<&&str> = invalid.chain(dropped).filter(|code| !is_excused(code)).collect();
    assert!(missing.is_empty(), "no scenario meets {missing:?}");
    let met: Vec<_> = NOT_BY_SCENARIO
        .iter()
        .filter(|(code, _)| is_met("INVALID", code) || is_met("dropped", code))
        .collect();
    assert!(met.is_empty(), "excused, but met: {met:?}");
}

/// What ends a panic's line of code, in front of its message.
const PANICS: &[&str] = &[".expect(\"", "panic!(\"", "unreachable!(\"", "todo!("];

#[test]
fn every_panic_of_the_core_stands_in_the_architecture_with_its_reason() {
    let listed = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it is there");
    let mut found = 0;
    let mut wrong = Vec::new();
    for source in core_sources() {
        let code = source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            // What is asserted when the code is compiled does not panic.
            let asserts = line.contains("assert") && line.contains('!') && !line.contains("const ");
            if !asserts && !PANICS.iter().any(|panic| line.contains(panic)) {
                continue;
            }
            found += 1;
            let message = line.rsplit('"').nth(1).unwrap_or(line);
            if !listed.contains(&format!("`{message}`")) {
                wrong.push(format!("{}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(found > 5, "it looks for what the code no longer says");
    assert!(wrong.is_empty(), "not in docs/ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

/// The modules of the core, as its lib.rs lists them.
fn modules() -> Vec<String> {
    let lib = fs::read_to_string(root().join("crates/core/src/lib.rs")).expect("lib.rs can be read");
    lib.lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

/// The files of the core's modules.
fn core_sources() -> Vec<Source> {
    let mut sources = sources();
    sources.retain(|source| source.krate.as_deref() == Some("core") && source.module != "lib");
    sources
}
