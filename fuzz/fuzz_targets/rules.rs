//! Text of rules: nothing panics, and what loads prints to something that loads and prints the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stateway::filter::Ruleset;
use stateway::packet::Family;

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let family = if kind & 1 == 0 { Family::Ipv4 } else { Family::Ipv6 };
    let ifaces = ["lan".to_owned(), "wan".to_owned()];
    let Ok(loaded) = Ruleset::load(text, family, &ifaces) else { return };
    let once = loaded.ruleset.render(true);
    // Sets are no part of what is printed.
    let sets = text.lines().filter(|l| l.trim_start().starts_with("create ") || l.trim_start().starts_with("add "));
    let sets: String = sets.map(|l| format!("{l}\n")).collect();
    let again = Ruleset::load_with_counters(&format!("{sets}{once}"), family, &ifaces).expect("what is printed loads");
    let mut tables: Vec<&str> = once.split_inclusive("COMMIT\n").collect();
    tables.reverse();
    assert_eq!(again.ruleset.render(true), tables.concat());
});
