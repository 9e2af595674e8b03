//! Text of rules: nothing panics, and what loads prints to something that loads and prints the same.

use stateway_core::filter::Ruleset;
use stateway_core::packet::Family;

pub fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    round_trip(text, Family::Ipv4);
    round_trip(text, Family::Ipv6);
}

fn round_trip(text: &str, family: Family) {
    let ifaces = ["lan".to_owned(), "wan".to_owned()];
    let Ok(loaded) = Ruleset::load(text, family, &ifaces) else { return };
    let once = loaded.ruleset.render(true);
    // Sets are no part of what is printed.
    let is_of_set = |line: &&str| ["create ", "add "].iter().any(|word| line.trim().starts_with(word));
    let sets: String = text.lines().filter(is_of_set).map(|line| format!("{line}\n")).collect();
    let again = match Ruleset::load_with_counters(&format!("{sets}{once}"), family, &ifaces) {
        Ok(again) => again,
        Err(errors) => panic!("what is printed does not load: {errors:?}\n{once}"),
    };
    // The table that was named last is printed first.
    let mut tables: Vec<&str> = once.split_inclusive("COMMIT\n").collect();
    tables.reverse();
    assert_eq!(again.ruleset.render(true), tables.concat());
}
