//! Words of a rule line, cut as iptables-restore cuts them, with the place where each began.

#![forbid(unsafe_code)]

use std::borrow::Cow;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::filter) struct Token<'a> {
    pub(in crate::filter) text: Cow<'a, str>,
    /// Byte offset in the line.
    pub(in crate::filter) at: usize,
}

/// Cuts `line` from byte `from` on into words.
///
/// A double quote opens text in which blanks count and a backslash takes the next character as it is; the closing
/// quote ends the word, even if no blank follows. What an unclosed quote holds is lost but for its letters.
pub(in crate::filter) fn tokens(line: &str, from: usize) -> Vec<Token<'_>> {
    cut(line, from).0
}

/// As [`tokens`], and where the quote stands that is never closed.
pub(in crate::filter) fn cut(line: &str, from: usize) -> (Vec<Token<'_>>, Option<usize>) {
    let mut unclosed = None;
    let mut tokens = Vec::with_capacity(16);
    let bytes = line.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        if is_blank(bytes[at]) {
            at += 1;
            continue;
        }
        let ends = |&b: &u8| b <= b'"' && (is_blank(b) || b == b'"');
        let end = bytes[at..].iter().position(ends).map_or(bytes.len(), |n| at + n);
        if bytes.get(end) == Some(&b'"') {
            let (text, next) = quoted(line, at, end);
            let next = next.unwrap_or_else(|| {
                unclosed = Some(end);
                line.len()
            });
            tokens.push(Token { text, at });
            at = next;
        } else {
            tokens.push(Token { text: Cow::Borrowed(&line[at..end]), at });
            at = end;
        }
    }
    (tokens, unclosed)
}

/// Reads a word that begins at `start` and has a quote at `quote`; returns it and where the next may begin, unless the
/// quote is never closed.
fn quoted(line: &str, start: usize, quote: usize) -> (Cow<'_, str>, Option<usize>) {
    let inside = &line[quote + 1..];
    // Most texts begin with their quote and hold no backslash: they are taken as they stand.
    let len = inside.bytes().position(|b| matches!(b, b'"' | b'\\')).filter(|_| start == quote);
    if let Some(len) = len.filter(|len| inside.as_bytes()[*len] == b'"') {
        return (Cow::Borrowed(&inside[..len]), Some(quote + 1 + len + 1));
    }
    let mut text = line[start..quote].to_owned();
    let mut escaped = false;
    for (n, c) in inside.char_indices() {
        match c {
            _ if escaped => {
                text.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (Cow::Owned(text), Some(quote + 1 + n + 1)),
            _ => text.push(c),
        }
    }
    (Cow::Owned(text), None)
}

const fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// The column of byte `at` in `line`: from 1, in characters.
pub(in crate::filter) fn column(line: &str, at: usize) -> usize {
    line.get(..at).unwrap_or(line).chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_iptables_restore_cuts_them() {
        for (line, words) in [
            ("-A  FORWARD\t-j ACCEPT ", vec!["-A", "FORWARD", "-j", "ACCEPT"]),
            (r#"--comment "hello \"world\"" -j X"#, vec!["--comment", r#"hello "world""#, "-j", "X"]),
            (r#"a"b c"d"#, vec!["ab c", "d"]),
            (r#"--comment "" x"#, vec!["--comment", "", "x"]),
            (r#"x "never closed"#, vec!["x", "never closed"]),
        ] {
            let got: Vec<_> = tokens(line, 0).into_iter().map(|t| t.text.into_owned()).collect();
            assert_eq!(got, words, "{line}");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told() {
        assert_eq!(cut("--comment \"a\\\"b", 0).1, Some(10));
        assert_eq!(cut("--comment \"a\\\"b\"", 0).1, None);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(column("é -j", 3), 3);
        assert_eq!(tokens("ab cd", 0)[1].at, 3);
    }
}
