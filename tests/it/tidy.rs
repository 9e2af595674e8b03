//! What a reviewer need not check: which module may name which, what the core must not contain, and that every
//! reason for a drop and for INVALID is met by a scenario.

use stateway::conntrack::InvalidReason;
use stateway::fate::DropReason;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this holds two topics.
const MAX_LINES: usize = 900;

/// Reasons that a scenario cannot meet, and why.
const NOT_BY_SCENARIO: &[(&str, &str)] = &[
    ("confirm-clash", "takes two workers at the same moment"),
    ("neighbour-table-full", "takes more neighbours than a story can name"),
    ("neighbour-failed", "counted when the wait ends, long after the packet's own story"),
    ("neighbour-queue-full", "counted of the packet that was displaced, not of the one that came"),
    ("target", "no target that is built can fail"),
];

/// Who must not name whom: `packet ← conntrack ← filter ← pipeline ← router`, and the values beside them.
const ARROWS: &[(&str, &[&str])] = &[
    ("packet", &["conntrack", "filter", "context", "record", "pipeline", "router"]),
    ("conntrack", &["filter", "context", "record", "pipeline", "router"]),
    ("filter", &["pipeline", "router"]),
    ("bridge", &["conntrack", "filter", "pipeline", "router"]),
    ("route", &["conntrack", "filter", "pipeline", "router"]),
    ("neighbour", &["filter", "pipeline", "router"]),
    ("icmp_reply", &["conntrack", "pipeline", "router"]),
    ("pipeline", &[]),
];

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
    ("smoltcp::wire", &["src/packet/", "src/icmp_reply", "src/host/", "src/lab/sim/", "src/sim/"]),
    ("serde_yaml", &["src/lab/"]),
    ("tun_tap", &["src/device/tap.rs"]),
    ("use io_uring", &["src/device/"]),
    ("use netlink_sys", &["src/conform/", "src/lab/"]),
];

#[test]
fn modules_name_only_what_stands_before_them() {
    let (core, outside) = modules();
    assert!(core.len() > 10 && outside.len() > 4, "lib.rs lists the core, then the outside world");
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        let code = without_tests(&file);
        let in_core = core.contains(&module);
        let denied = ARROWS.iter().filter(|(from, _)| *from == module).flat_map(|(_, to)| *to).copied();
        let beyond = outside.iter().map(String::as_str).filter(|_| in_core);
        for denied in denied.chain(beyond).filter(|denied| *denied != module) {
            if code.lines().any(|line| !is_comment(line) && line.contains(&format!("crate::{denied}"))) {
                wrong.push(format!("{} names crate::{denied}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_has_no_threads_files_sockets_clock_or_chance() {
    let (core, _) = modules();
    let mut wrong = Vec::new();
    for file in sources().into_iter().filter(|file| core.contains(&module_of(file))) {
        let code = without_tests(&file);
        for word in NOT_IN_THE_CORE {
            if code.lines().any(|line| !is_comment(line) && line.contains(word)) {
                wrong.push(format!("{} names {word}", file.display()));
            }
        }
        if !code.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{} does not forbid unsafe code", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_are_named_where_they_belong() {
    let mut wrong = Vec::new();
    for file in sources() {
        let code = without_tests(&file);
        let path =
            file.strip_prefix(root()).expect("a source is in the package").to_string_lossy().into_owned();
        for (name, places) in NAMED_IN {
            let named = code.lines().any(|line| !is_comment(line) && line.contains(name));
            if named && !places.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path} names {name}"));
            }
        }
        if code.contains("allow(unsafe_code)") && !path.starts_with("src/device/") {
            wrong.push(format!("{path} allows unsafe code"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_has_outgrown_its_topic() {
    let lines = |file: &PathBuf| fs::read_to_string(file).expect("a source can be read").lines().count();
    let long: Vec<String> = sources()
        .iter()
        .map(|file| (file, lines(file)))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
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
    let (core, _) = modules();
    let listed = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it is there");
    let mut found = 0;
    let mut wrong = Vec::new();
    for file in sources().into_iter().filter(|file| core.contains(&module_of(file))) {
        let below_tests = file.iter().any(|part| part == "tests");
        let code = if below_tests { String::new() } else { without_tests(&file) };
        for line in code.lines().filter(|line| !is_comment(line)) {
            // What is asserted when the code is compiled does not panic.
            let asserts = line.contains("assert") && line.contains('!') && !line.contains("const ");
            if !asserts && !PANICS.iter().any(|panic| line.contains(panic)) {
                continue;
            }
            found += 1;
            let message = line.rsplit('"').nth(1).unwrap_or(line);
            if !listed.contains(&format!("`{message}`")) {
                wrong.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(found > 5, "it looks for what the code no longer says");
    assert!(wrong.is_empty(), "not in docs/ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source of the library and its program, in the order of their names.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The modules of the core, and of the outside world, as lib.rs lists them.
fn modules() -> (Vec<String>, Vec<String>) {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs can be read");
    let (core, outside) =
        lib.split_once("// The outside world.").expect("lib.rs says where the outside begins");
    let names = |text: &str| {
        text.lines()
            .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
            .map(str::to_owned)
            .collect()
    };
    (names(core), names(outside))
}

/// The first part of a source's path below `src/`.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(root().join("src")).expect("a source is below src");
    let first = below.iter().next().expect("a source has a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The code that is built into the library: tests may name what they like.
fn without_tests(file: &Path) -> String {
    if file.file_name().is_some_and(|name| name == "tests.rs") {
        return "#![forbid(unsafe_code)]".to_owned();
    }
    let text = fs::read_to_string(file).expect("a source can be read");
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}
