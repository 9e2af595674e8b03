//! When is what was printed what the page shows?

use regex::Regex;
use std::sync::LazyLock;

/// What differs from one run to the next, and nothing else.
static VARIABLE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        // How long a test took, behind all else that is said of it.
        (r"^((?:pass|FAIL) .*)  \([^()]*\d(?: m?s|[a-z]+)\)$", "$1"),
        // How long something took: ping, traceroute, curl.
        (r"\b\d+(\.\d+)?(/\d+\.\d+)* ms\b", "TIME ms"),
        (r"\btime \d+ms\b", "time TIMEms"),
        // A port that somebody chose, an echo request's identity, what is left of a timeout: conntrack.
        (r"\b([sd]port)=\d{4,5}\b", "$1=PORT"),
        (r"\bid=\d+", "id=ID"),
        (r"^((ipv[46] +\d+ +)?[a-z]+ +\d+) \d+ ", "$1 SECONDS "),
        (r"\bexpires \d+sec\b", "expires SECONDSsec"),
        // What stands behind a name that ping was given, which newer ones set apart.
        (r"^(PING \S+) \(", "$1("),
        // What curl says of a failure, which each version of it says otherwise; its number stays.
        (r"\bcurl: \((\d+)\) .*?( \[|$)", "curl: ($1)$2"),
        // Who owns a file on an FTP server, and since when.
        (r"\b\d+ +\d+( +\d+) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b", "UID GID$1 DATE"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
    .into()
});

/// What a script says of its own progress, before the output that a page shows.
const PROGRESS: [&str; 2] = ["setup: ", "run: "];

/// Takes out what is no result.
pub(super) fn results(output: &str) -> Vec<String> {
    let is_progress = |line: &&str| PROGRESS.iter().any(|word| line.starts_with(word));
    output.lines().filter(|line| !is_progress(line)).map(|line| line.trim_end().to_owned()).collect()
}

/// The order of a table is nobody's choice.
pub(super) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_cached_key(|line| named(line));
    lines
}

fn named(line: &str) -> String {
    VARIABLE
        .iter()
        .fold(line.to_owned(), |line, (pattern, name)| pattern.replace_all(&line, *name).into_owned())
}

/// Whether the page shows what was printed. There, `…` stands for any text, and alone on a line for any lines.
pub(super) fn shows(page: &[String], printed: &[String]) -> bool {
    let (page, printed): (Vec<String>, Vec<String>) =
        (page.iter().map(|line| named(line)).collect(), printed.iter().map(|line| named(line)).collect());
    lines_match(&page, &printed)
}

fn lines_match(page: &[String], printed: &[String]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((dots, rest)) if dots.trim() == "…" => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| is_line(line, first) && lines_match(rest, others)),
    }
}

/// Whether the parts between the dots stand in `printed` in their order, from its begin to its end.
fn is_line(page: &str, printed: &str) -> bool {
    let Some((begin, rest)) = page.split_once('…') else { return page == printed };
    let Some(mut left) = printed.strip_prefix(begin) else { return false };
    let (middle, end) = rest.rsplit_once('…').unwrap_or(("", rest));
    for part in middle.split('…') {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(end)
}

#[test]
fn only_what_varies_may_differ() {
    let same = |page: &str, printed: &str| {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        shows(&lines(page), &lines(printed))
    };
    assert!(same("ttl=64 time=0.559 ms", "ttl=64 time=12 ms"));
    assert!(!same("ttl=64 time=0.559 ms", "ttl=63 time=0.559 ms"));
    for took in ["12 ms", "0.3 ms", "4.05 s", "5days 2s", "1m 3s"] {
        assert!(same("pass   live   a  ok [NEW]", &format!("pass   live   a  ok [NEW]  ({took})")), "{took}");
    }
    let entry = |seconds, port, to| {
        format!("tcp      6 {seconds} TIME_WAIT src=192.0.2.1 sport={port} dport={to} mark=0")
    };
    assert!(same(&entry(117, 43720, 22), &entry(9, 61000, 22)));
    assert!(!same(&entry(117, 43720, 22), &entry(117, 43720, 23)), "a port that was asked for is no chance");
    assert!(same(
        "PING 2001:db8::7(2001:db8::7) 56 data bytes",
        "PING 2001:db8::7 (2001:db8::7) 56 data bytes"
    ));
    assert!(!same("blocked: no answer in 2 s", "blocked: no answer in 3 s"));
    assert!(same("-rw 1 102 105  20000 Nov 22 20:32 file", "-rw 1 0 0  20000 Dec  1 00:00 file"));
    assert!(!same("-rw 1 102 105  20000 Nov 22 20:32 file", "-rw 1 0 0  20001 Dec  1 00:00 file"));
    assert!(same("a\n…\nd", "a\nb\nc\nd") && same("a\n…\nd", "a\nd"));
    assert!(!same("a\n…\nd", "a\nb\nc") && !same("a\n…", "b"));
    assert!(same("SSH-2.0-…", "SSH-2.0-OpenSSH") && !same("SSH-2.0-…", "SSH-1"));
    assert!(same("a…b…c", "axbyc") && !same("a…b…c", "axc") && !same("a…bc", "abcd"));
}
