//! The table of `docs/IPTABLES.md`, from the code that honours what it lists.

#![forbid(unsafe_code)]

use super::{matches, targets};
use crate::packet::Family;
use std::fmt::Write as _;

const HEAD: &str = "# iptables

Every match and target of iptables 1.8, honoured or refused. This page is written by the program itself: the test
`docs_iptables_is_what_the_code_honours` compares them, and `UPDATE_EXPECT=1` rewrites it.

What is refused is refused when a ruleset is loaded, with its place and the reason; nothing is accepted and then ignored.

Spelling is that of iptables-restore 1.8.9. What follows one letter may stand in the same word, `-AFORWARD`, but for
`-s -d -p -i -o -j`, whose values those tools misread so. Lines that end in CRLF and a `COMMIT` with blanks in front,
which they refuse, are taken.
";

/// The page, whole.
pub fn render() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Conditions of every rule\n\n`-s -d -i -o -p -f`, each with `!`; `-s` and `-d` take lists, prefixes and dotted masks; `-c`, `-j`, `-g`.\n");
    page.push_str("\n## Matches\n\n| match | family | options |\n|---|---|---|\n");
    let mut rows: Vec<(String, String)> = Vec::new();
    for spec in matches::SPECS {
        rows.push((
            spec.name.into(),
            format!("| `{}` | {} | {} |", spec.name, family(spec.family), options(spec.options)),
        ));
    }
    for (name, reason) in matches::REFUSED {
        rows.push(((*name).into(), format!("| `{name}` | – | refused: {reason} |")));
    }
    rows.sort();
    for (_, row) in &rows {
        let _ = writeln!(page, "{row}");
    }
    page.push_str("\n## Targets\n\n| target | family | tables | options |\n|---|---|---|---|\n");
    let mut rows: Vec<(String, String)> = Vec::new();
    for name in ["ACCEPT", "DROP", "RETURN"] {
        rows.push((name.into(), format!("| `{name}` | both | all | |")));
    }
    for spec in targets::SPECS {
        let tables: Vec<&str> = spec.tables.iter().map(|t| t.word()).collect();
        let tables = if tables.is_empty() { "all".to_owned() } else { tables.join(", ") };
        let row =
            format!("| `{}` | {} | {tables} | {} |", spec.name, family(spec.family), options(spec.options));
        rows.push((spec.name.into(), row));
    }
    for (name, reason) in targets::REFUSED {
        rows.push(((*name).into(), format!("| `{name}` | – | – | refused: {reason} |")));
    }
    rows.sort();
    for (_, row) in &rows {
        let _ = writeln!(page, "{row}");
    }
    page
}

const fn family(family: Option<Family>) -> &'static str {
    match family {
        None => "both",
        Some(Family::Ipv4) => "IPv4",
        Some(Family::Ipv6) => "IPv6",
    }
}

fn options(options: &[super::Opt]) -> String {
    let honoured = options.iter().filter(|o| o.refused.is_none());
    let mut words: Vec<String> =
        honoured.map(|o| format!("`{}--{}`", if o.negatable { "[!] " } else { "" }, o.name)).collect();
    for (option, reason) in options.iter().filter_map(|o| Some((o, o.refused?))) {
        words.push(format!("– `--{}` is refused: {reason}", option.name));
    }
    words.join(" ")
}
