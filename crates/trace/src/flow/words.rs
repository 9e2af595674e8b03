//! A line of a scenario, word by word.

#![forbid(unsafe_code)]

use core::str::FromStr;
use std::collections::VecDeque;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Plain(String),
    /// Between quotes, escapes resolved.
    Text(Vec<u8>),
    /// Between angle brackets.
    Options(String),
}

/// What is left of a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(pub(super) VecDeque<Word>);

impl Words {
    /// Splits a line at its spaces. A comment ends it.
    pub(super) fn split(line: &str) -> Result<Self, String> {
        let mut words = VecDeque::new();
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let used = match first {
                '#' => break,
                '"' => {
                    let (text, used) = quoted(rest)?;
                    words.push_back(Word::Text(text));
                    used
                }
                '<' => {
                    let end = rest.find('>').ok_or("`<` without `>`")?;
                    words.push_back(Word::Options(rest[1..end].to_owned()));
                    end + 1
                }
                _ => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    words.push_back(Word::Plain(rest[..end].to_owned()));
                    end
                }
            };
            rest = rest[used..].trim_start();
        }
        Ok(Self(words))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<Word> {
        self.0.pop_front()
    }

    pub(super) fn peek(&self) -> Option<&str> {
        match self.0.front() {
            Some(Word::Plain(word)) => Some(word),
            _ => None,
        }
    }

    /// The next word, which must be a plain one.
    pub(super) fn plain(&mut self, wanted: &str) -> Result<String, String> {
        match self.next() {
            Some(Word::Plain(word)) => Ok(word),
            Some(_) => Err(format!("{wanted} is missing in front of quotes or brackets")),
            None => Err(format!("{wanted} is missing")),
        }
    }

    /// The number that `name` needs behind it, decimal or `0x…`.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T, String> {
        let word = self.plain("").map_err(|_| format!("`{name}` needs a number"))?;
        number(&word).ok_or_else(|| format!("`{word}` is no number that `{name}` can take"))
    }

    /// The next word as whatever reads itself.
    pub(super) fn parse<T: FromStr>(&mut self, wanted: &str) -> Result<T, String> {
        let word = self.plain(wanted)?;
        word.parse().map_err(|_| format!("`{word}` is no {wanted}"))
    }
}

pub(super) fn number<T: TryFrom<u64>>(word: &str) -> Option<T> {
    let value = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => word.parse().ok()?,
    };
    T::try_from(value).ok()
}

pub(super) fn hex(word: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = word.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => Err(format!("`{word}` is no hex")),
    }
}

/// Reads `"…"` at the start of `rest`: the bytes, and how much of it that was.
fn quoted(rest: &str) -> Result<(Vec<u8>, usize), String> {
    let mut bytes = Vec::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((bytes, at + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('r') => bytes.push(b'\r'),
                Some('n') => bytes.push(b'\n'),
                Some('0') => bytes.push(0),
                Some('x') => {
                    let digits: String = chars.by_ref().take(2).map(|(_, c)| c).collect();
                    bytes.extend(hex(&digits)?);
                }
                Some(c @ ('"' | '\\')) => bytes.push(c as u8),
                _ => return Err("a `\\` is followed by r, n, 0, x41, \" or \\".to_owned()),
            },
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err("a text without its closing quote".to_owned())
}
