//! Commands as they are typed into a shell, cut into words as the shell cuts them (POSIX.1-2017, Shell Command Language,
//! §2.2 and §2.3): quotes, backslashes, comments, several commands in a line, one command over several lines,
//! redirections, here-documents, which are passed over. Nothing is run and nothing expanded: where the shell would put
//! something in, the command says so.

#![forbid(unsafe_code)]

use crate::filter::text::lex::Token;
use std::borrow::Cow;

/// One simple command.
#[derive(Debug)]
pub(in crate::filter) struct Typed<'a> {
    /// The number of the line that it begins in, from 1, and that line with those that it goes on in.
    pub(in crate::filter) line: usize,
    pub(in crate::filter) text: &'a str,
    /// Places count from the start of `text`.
    pub(in crate::filter) words: Vec<Token<'a>>,
    /// Where a variable or another command's output would be put in.
    pub(in crate::filter) expansion: Option<usize>,
    /// Where a quote stands that is never closed.
    pub(in crate::filter) unclosed: Option<usize>,
}

/// Cuts a script into its simple commands, the first so many of them.
pub(in crate::filter) fn commands(script: &str, most: usize) -> Vec<Typed<'_>> {
    let mut reader =
        Reader { script, at: 0, line: 1, line_start: 0, begun: None, awaited: Vec::new(), found: Vec::new() };
    while reader.at < script.len() && reader.found.len() < most {
        reader.step();
    }
    reader.end_command();
    reader.found
}

/// A command that is being read; places count from the start of the script.
#[derive(Default)]
struct Begun {
    line: usize,
    line_start: usize,
    words: Vec<(usize, String)>,
    expansion: Option<usize>,
    unclosed: Option<usize>,
}

/// A here-document that begins behind this line (`<<EOF`).
struct Awaited {
    /// The line that ends it.
    end: String,
    /// `<<-`: tabs in front of its lines do not count.
    strips_tabs: bool,
}

struct Reader<'a> {
    script: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    begun: Option<Begun>,
    awaited: Vec<Awaited>,
    found: Vec<Typed<'a>>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.script.as_bytes()[self.at..]
    }

    /// Reads a blank, an operator, a comment or a word.
    fn step(&mut self) {
        match self.rest() {
            [b'\n', ..] => {
                self.end_command();
                self.new_line(1);
                self.pass_documents();
            }
            [b'\\', b'\n', ..] => self.new_line(2),
            [b'\\', b'\r', b'\n', ..] => self.new_line(3),
            [b' ' | b'\t' | b'\r', ..] => self.at += 1,
            [b'#', ..] => {
                self.at = self.script[self.at..].find('\n').map_or(self.script.len(), |n| self.at + n);
            }
            [b'&', b'>', ..] | [b'<' | b'>', ..] => self.redirection(),
            [b';' | b'|' | b'(' | b')' | b'&', ..] => {
                self.end_command();
                self.at += 1;
            }
            [b'0'..=b'9', b'<' | b'>', ..] => {
                self.at += 1;
                self.redirection();
            }
            _ => {
                // Before the word is read, which may go on in other lines.
                self.begun();
                let start = self.at;
                let word = self.word();
                self.begun().words.push((start, word));
            }
        }
    }

    fn new_line(&mut self, len: usize) {
        self.at += len;
        self.line += 1;
        self.line_start = self.at;
    }

    fn begun(&mut self) -> &mut Begun {
        let (line, line_start) = (self.line, self.line_start);
        self.begun.get_or_insert_with(|| Begun { line, line_start, ..Begun::default() })
    }

    fn end_command(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let start = begun.line_start;
        let end = self.script[self.at..].find('\n').map_or(self.script.len(), |n| self.at + n);
        self.found.push(Typed {
            line: begun.line,
            text: self.script[start..end].trim_end_matches('\r'),
            words: begun
                .words
                .into_iter()
                .map(|(at, text)| Token { text: Cow::Owned(text), at: at - start })
                .collect(),
            expansion: begun.expansion.map(|at| at - start),
            unclosed: begun.unclosed.map(|at| at - start),
        });
    }

    /// Passes over the here-documents that the line before began, each to its end or to that of the script.
    fn pass_documents(&mut self) {
        for Awaited { end, strips_tabs } in core::mem::take(&mut self.awaited) {
            while self.at < self.script.len() {
                let line = self.script[self.at..].split('\n').next().unwrap_or_default();
                self.new_line((line.len() + 1).min(self.rest().len()));
                let line = line.trim_end_matches('\r');
                if end == if strips_tabs { line.trim_start_matches('\t') } else { line } {
                    break;
                }
            }
        }
    }

    /// `> FILE`, `2>&1`, `&> FILE`: where output goes changes no rule, nor does what is read (`< FILE`, `<<EOF`).
    fn redirection(&mut self) {
        let is_document = self.rest().starts_with(b"<<") && !self.rest().starts_with(b"<<<");
        while matches!(self.rest(), [b'<' | b'>' | b'&' | b'|', ..]) {
            self.at += 1;
        }
        let strips_tabs = is_document && self.rest().starts_with(b"-");
        self.at += usize::from(strips_tabs);
        while matches!(self.rest(), [b' ' | b'\t', ..]) {
            self.at += 1;
        }
        if !matches!(self.rest(), [] | [b'\n' | b';' | b'&' | b'|', ..]) {
            let before = self.begun().expansion;
            let word = self.word();
            self.begun().expansion = before;
            if is_document {
                self.awaited.push(Awaited { end: word, strips_tabs });
            }
        }
    }

    /// Reads one word up to a blank or an operator that is not quoted.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&byte) = self.rest().first() {
            match byte {
                // `PORTS=(22 80)`
                b'(' if word.ends_with('=') => self.parentheses(&mut word),
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\'' => self.single_quoted(&mut word),
                b'"' => self.double_quoted(&mut word),
                b'\\' => self.escaped(&mut word),
                b'$' | b'`' => self.expansion(&mut word),
                _ => self.take(&mut word),
            }
        }
        word
    }

    /// Takes one character as it is.
    fn take(&mut self, word: &mut String) {
        if let Some(c) = self.script[self.at..].chars().next() {
            word.push(c);
            self.at += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.line_start = self.at;
            }
        }
    }

    fn single_quoted(&mut self, word: &mut String) {
        let open = self.at;
        self.at += 1;
        while !matches!(self.rest(), [] | [b'\'', ..]) {
            self.take(word);
        }
        self.close(open);
    }

    fn double_quoted(&mut self, word: &mut String) {
        let open = self.at;
        self.at += 1;
        loop {
            match self.rest() {
                [] | [b'"', ..] => return self.close(open),
                [b'\\', b'\n', ..] => self.new_line(2),
                // Before anything else a backslash stands for itself.
                [b'\\', b'$' | b'`' | b'"' | b'\\', ..] => {
                    self.at += 1;
                    self.take(word);
                }
                [b'$' | b'`', ..] => self.expansion(word),
                _ => self.take(word),
            }
        }
    }

    fn close(&mut self, open: usize) {
        if self.rest().is_empty() {
            self.begun().unclosed = Some(open);
        } else {
            self.at += 1;
        }
    }

    fn escaped(&mut self, word: &mut String) {
        match self.rest() {
            [_, b'\n', ..] => self.new_line(2),
            [_] => self.at += 1,
            _ => {
                self.at += 1;
                self.take(word);
            }
        }
    }

    /// Notes where something would be put in; a `$` in front of nothing stands for itself.
    fn expansion(&mut self, word: &mut String) {
        let is_one = match self.rest() {
            [b'`', ..] => true,
            [_, next, ..] => next.is_ascii_alphanumeric() || b"_{(@*#?!-$'\"".contains(next),
            _ => false,
        };
        let at = self.at;
        if is_one {
            self.begun().expansion.get_or_insert(at);
        }
        match self.rest() {
            [b'$', b'(', ..] => {
                self.take(word);
                self.parentheses(word);
            }
            [b'`', ..] => self.backquoted(word),
            _ => self.take(word),
        }
    }

    /// Takes what stands in parentheses, with those in it: what another command prints, a sum, an array.
    fn parentheses(&mut self, word: &mut String) {
        let (mut depth, mut quote) = (0, None);
        while let Some(&byte) = self.rest().first() {
            match (byte, quote) {
                (b'\\', None | Some(b'"')) => self.take(word),
                (_, Some(open)) if byte == open => quote = None,
                (b'\'' | b'"', None) => quote = Some(byte),
                (b'(', None) => depth += 1,
                (b')', None) => depth -= 1,
                _ => {}
            }
            self.take(word);
            if depth == 0 {
                break;
            }
        }
    }

    /// Takes a command in backquotes, of which the output would be put in.
    fn backquoted(&mut self, word: &mut String) {
        self.take(word);
        while let Some(&byte) = self.rest().first() {
            if byte == b'\\' {
                self.take(word);
            }
            self.take(word);
            if byte == b'`' {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Vec<String>> {
        let text = |typed: Typed| typed.words.into_iter().map(|word| word.text.into_owned()).collect();
        commands(script, 100).into_iter().map(text).collect()
    }

    #[test]
    fn words_are_cut_as_a_shell_cuts_them() {
        for (script, expected) in [
            ("a 'b c' \"d e\" f\\ g", vec![vec!["a", "b c", "d e", "f g"]]),
            ("a 'it''s' \"say \\\"x\\\" \\n\"", vec![vec!["a", "its", "say \"x\" \\n"]]),
            ("a \\! -i lo", vec![vec!["a", "!", "-i", "lo"]]),
            ("a b # a comment\nc#d", vec![vec!["a", "b"], vec!["c#d"]]),
            (
                "a; b && c || d | e & f",
                vec![vec!["a"], vec!["b"], vec!["c"], vec!["d"], vec!["e"], vec!["f"]],
            ),
            ("a \\\n  b\nc", vec![vec!["a", "b"], vec!["c"]]),
            ("a b >/dev/null 2>&1; c 2> /dev/null d &>x", vec![vec!["a", "b"], vec!["c", "d"]]),
            ("a --dport 22 '' \"\"", vec![vec!["a", "--dport", "22", "", ""]]),
            ("a é'ü'", vec![vec!["a", "éü"]]),
            ("a <<EOF >b\nit's c; d\nEOF\ne", vec![vec!["a"], vec!["e"]]),
            ("a <<-'E F' <<G\r\nx\r\n\tE F\r\ny\r\nG\r\ne", vec![vec!["a"], vec!["e"]]),
            ("a <<< b\nc", vec![vec!["a"], vec!["c"]]),
            ("a <<EOF\nnever ended", vec![vec!["a"]]),
            ("A=$(b | c ')' \"d\") e\nf", vec![vec!["A=$(b | c ')' \"d\")", "e"], vec!["f"]]),
            ("A=`b | c`; d=(1 2)\ne", vec![vec!["A=`b | c`"], vec!["d=(1 2)"], vec!["e"]]),
            ("", vec![]),
        ] {
            assert_eq!(words(script), expected, "{script}");
        }
    }

    #[test]
    fn what_the_shell_would_put_in_is_told_and_places_are_kept() {
        for (script, expansion) in [
            ("x -i $WAN", Some(5)),
            ("x \"${A}\"", Some(3)),
            ("x `id`", Some(2)),
            ("x $(id)", Some(2)),
            ("x '$A' \\$B \"\\$C\" a$ $", None),
        ] {
            assert_eq!(commands(script, 100)[0].expansion, expansion, "{script}");
        }
        let typed = &commands("first\nx \\\n  \"never", 100)[1];
        assert_eq!((typed.line, typed.text, typed.unclosed), (2, "x \\\n  \"never", Some(6)));
        assert_eq!(typed.words[1].at, 6);
    }

    #[test]
    fn no_more_commands_are_found_than_wanted() {
        assert_eq!(commands("a\nb; c\nd", 2).len(), 2);
        assert_eq!(commands("a\nb", 2).len(), 2);
    }

    #[test]
    fn noise_is_cut_without_a_panic() {
        let noise = "a'\"\\$`;|&<>#\n\r\t é(){}0";
        let letters: Vec<char> = noise.chars().collect();
        for seed in 0..4_000_usize {
            let script: String = (0..12)
                .map(|n| letters[(seed.wrapping_mul(2_654_435_761) >> (n * 2)) % letters.len()])
                .collect();
            for typed in commands(&script, 100) {
                assert!(typed.words.iter().all(|word| typed.text.is_char_boundary(word.at)), "{script:?}");
            }
        }
    }
}
