//! What to type next: hints for words of a rule that stand where they cannot.

#![forbid(unsafe_code)]

use crate::filter::text::lex::Token;
use crate::filter::text::names;
use crate::filter::{matches, targets};
use core::net::IpAddr;

/// What must stand in front of an option of a match.
pub(in crate::filter) fn needed_for(option: &str) -> Option<String> {
    let owners = || matches::SPECS.iter().filter(|s| s.knows(option));
    // Of several matches with such an option TCP's is meant most often.
    let owner = owners().find(|s| s.name == "tcp").or_else(|| owners().next())?;
    if owner.name == "multiport" {
        return Some("it needs `-m multiport` in front of it".to_owned());
    }
    if owner.protos.is_empty() {
        return Some(format!("it belongs to `-m {}`, which must stand in front of it", owner.name));
    }
    let protos = owners().flat_map(|s| s.protos).filter_map(|p| names::protocol_name(*p));
    let mut protos: Vec<String> = protos.map(|p| format!("`-p {p}`")).collect();
    protos.sort_by_key(|p| (p != "`-p tcp`", p != "`-p udp`"));
    Some(format!("it needs {} in front of it", protos.join(" or ")))
}

/// Which targets take an option that this rule's does not.
pub(in crate::filter) fn of_other_targets(option: &str) -> Option<String> {
    let takes = |spec: &&targets::Spec| spec.options.iter().any(|o| o.is(option));
    let names: Vec<String> =
        targets::SPECS.iter().filter(takes).map(|s| format!("`-j {}`", s.name)).collect();
    let (last, rest) = names.split_last()?;
    Some(if rest.is_empty() {
        format!("{last} takes it")
    } else {
        format!("{} and {last} take it", rest.join(", "))
    })
}

/// For a word that is no option and no option's value; `before` stands in front of it.
pub(in crate::filter) fn of_stray(
    text: &str,
    before: &[Token<'_>],
    has_chain: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let nth_last = |n: usize| before.iter().rev().nth(n).map(|word| &*word.text);
    if nth_last(0) == Some("!") {
        return Some("`!` stands in front of the option: `! -s 192.0.2.1`".to_owned());
    }
    if text.starts_with(['\u{2013}', '\u{2014}']) {
        return Some("this dash is a typographic one; options begin with `-`".to_owned());
    }
    if text == "-" {
        return Some("no blank behind a dash".to_owned());
    }
    let spec = nth_last(1).filter(|letter| matches!(*letter, "-m" | "--match"));
    let spec = spec.and_then(|_| matches::SPECS.iter().find(|spec| Some(spec.name) == nth_last(0)));
    if let Some(opt) = spec.and_then(|spec| {
        let ports = spec.options.iter().find(|o| matches!(o.name, "dport" | "dports"));
        ports.or_else(|| spec.options.iter().find(|o| o.args > 0))
    }) {
        let quote = if text.contains(char::is_whitespace) { "\"" } else { "" };
        return Some(format!("`--{} {quote}{text}{quote}`", opt.name));
    }
    let is_target = targets::standard(text).is_some() || targets::is_known(text) || has_chain(text);
    let address = text.split('/').next().and_then(|addr| addr.parse::<IpAddr>().ok());
    match () {
        () if is_target => Some(format!("`-j {text}`")),
        () if names::protocol_number(text).is_some() => Some(format!("`-p {text}`")),
        () if address.is_some() => Some(format!("`-s {text}` or `-d {text}`")),
        () if before.is_empty() => Some("a rule begins with `-A CHAIN`".to_owned()),
        () => None,
    }
}

/// For a word with a character in it that looks like one that rules are written in, and is another: word processors, web pages
/// and input methods put them there.
pub(in crate::filter) fn of_characters(rest: &str) -> Option<String> {
    let word = rest.split([' ', '\t', '\n']).next()?;
    word.chars().find_map(|c| match c {
        '\u{a0}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{3000}' => Some(format!(
            "a blank in it is none that separates words (U+{:04X}): type it again",
            u32::from(c)
        )),
        '\u{ff01}'..='\u{ff5e}' => {
            let narrow = char::from_u32(u32::from(c) - 0xfee0)?;
            Some(format!("`{c}` is a full-width character: write `{narrow}`"))
        }
        '\u{3001}' => Some(format!("`{c}` is a full-width character: write `,`")),
        '\u{201c}'..='\u{201f}' => Some(format!("`{c}` is a typographic quote: write `\"`")),
        '\u{2018}'..='\u{201b}' => Some(format!("`{c}` is a typographic quote: write `'`")),
        _ => None,
    })
}

/// For an option that may stand once only and stands twice.
pub(in crate::filter) fn of_second(option: &str) -> Option<&'static str> {
    match option {
        "source" => Some("several addresses: `-s 192.0.2.1,192.0.2.2`"),
        "destination" => Some("several addresses: `-d 192.0.2.1,192.0.2.2`"),
        "in-interface" | "out-interface" => Some("a rule for each, or a beginning that they share: `eth+`"),
        "protocol" => Some("a rule for each"),
        "jump" | "goto" => Some("a rule has one target: write a second rule"),
        "sport" | "dport" => Some("several ports: `-m multiport --dports 22,80`"),
        _ => None,
    }
}

/// For an option whose values are missing.
pub(in crate::filter) fn of_values(option: &str) -> Option<&'static str> {
    match option {
        "tcp-flags" => Some("flags to look at, and those of them that are set: `SYN,RST,ACK SYN`"),
        "match-set" | "add-set" | "del-set" | "map-set" => Some("the set and the side: `NAME src`"),
        "chunk-types" => Some("how many, and which: `any DATA,INIT`"),
        _ => None,
    }
}

/// An option that is the same word but for its beginning: `ctstate` for `state`, and the reverse.
pub(in crate::filter) fn same_word<'n>(
    wrong: &str,
    mut known: impl Iterator<Item = &'n str>,
) -> Option<&'n str> {
    const PREFIXES: [&str; 2] = ["ct", "hashlimit-"];
    known.find(|known| {
        PREFIXES.iter().any(|p| known.strip_prefix(p) == Some(wrong) || wrong.strip_prefix(p) == Some(known))
    })
}
