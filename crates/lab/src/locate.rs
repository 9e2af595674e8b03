//! Where each value of a YAML file stands, by its path.
//!
//! `serde_yaml` tells the line of the first error only. To report all of them with their lines, the events of
//! a second parser are walked once, and every key and item leaves its position under its path.

#![forbid(unsafe_code)]

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::BTreeMap;

/// Where a value stands. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    /// For a block of text: the line and column of its first character.
    text: Option<(usize, usize)>,
}

/// The places of one file.
#[derive(Debug, Default)]
pub(crate) struct Places(BTreeMap<String, Place>);

/// Stands for a key that is no word.
const ODD_KEY: &str = "?";

/// Where a second document begins, if there is one.
pub(crate) fn second_document(source: &str) -> Option<(usize, usize)> {
    let events = Parser::new_from_str(source).map_while(Result::ok);
    let starts = events.filter(|(event, _)| matches!(event, Event::DocumentStart(_)));
    starts.map(|(_, span)| (span.start.line(), span.start.col() + 1)).nth(1)
}

/// The path of `key` below `path`.
pub(crate) fn key(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path of the item at `index` below `path`.
pub(crate) fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

impl Places {
    /// Walks `source`; where it is no YAML, what came before the error is known.
    pub(crate) fn of(source: &str) -> Self {
        let mut places = Self::default();
        let lines: Vec<&str> = source.lines().collect();
        let mut walk = Walk { events: Parser::new_from_str(source), lines: &lines, places: &mut places };
        while let Some((event, span)) = walk.next() {
            if !matches!(event, Event::StreamStart | Event::DocumentStart(_)) {
                walk.value("", &event, span, None);
                break;
            }
        }
        places
    }

    /// Line and column of the value at `path`, or of the nearest value around it.
    pub(crate) fn find(&self, path: &str) -> Option<(usize, usize)> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some((place.line, place.column));
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The first key that is no word.
    pub(crate) fn odd_key(&self) -> Option<(usize, usize)> {
        let odd =
            self.0.iter().filter(|(path, _)| *path == ODD_KEY || path.ends_with(&format!(".{ODD_KEY}")));
        odd.map(|(_, place)| (place.line, place.column)).min()
    }

    /// Where line `line`, column `column` of the text at `path` stands in the file.
    pub(crate) fn in_text(&self, path: &str, line: usize, column: usize) -> Option<(usize, usize)> {
        let place = self.0.get(path)?;
        match place.text {
            Some((first, indent)) => Some((first + line - 1, indent + column - 1)),
            None => Some((place.line, place.column)),
        }
    }
}

struct Walk<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    lines: &'a [&'a str],
    places: &'a mut Places,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.events.next_event()?.ok()
    }

    /// Notes the value that begins with `event`, and all below it. `at` is the key in front of it, if any.
    fn value(&mut self, path: &str, event: &Event<'a>, span: Span, at: Option<Span>) {
        let start = at.unwrap_or(span).start;
        let text = match event {
            Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {
                self.text_start(span.start.line())
            }
            _ => None,
        };
        self.places.0.insert(path.to_owned(), Place { line: start.line(), column: start.col() + 1, text });
        match event {
            Event::MappingStart(..) => self.mapping(path),
            Event::SequenceStart(..) => self.sequence(path),
            _ => {}
        }
    }

    /// The first line with text at or below the line of a block's `|`, and its indentation.
    fn text_start(&self, line: usize) -> Option<(usize, usize)> {
        let opens = |text: &str| {
            let text = text.trim_end();
            text.ends_with(['|', '>']) || text.ends_with("|-") || text.ends_with("|+") || text.ends_with(">-")
        };
        let first = if self.lines.get(line.checked_sub(1)?).is_some_and(|text| opens(text)) {
            line + 1
        } else {
            line
        };
        let indent = self.lines[first - 1..].iter().find(|text| !text.trim().is_empty())?;
        Some((first, indent.len() - indent.trim_start().len() + 1))
    }

    fn mapping(&mut self, path: &str) {
        while let Some((event, span)) = self.next() {
            let name = match event {
                Event::MappingEnd => return,
                Event::Scalar(name, ..) => name.into_owned(),
                // A key that is no word: the shape check refuses it; its parts are skipped under no name.
                other => {
                    self.value(&key(path, ODD_KEY), &other, span, None);
                    String::from(ODD_KEY)
                }
            };
            let Some((event, value)) = self.next() else { return };
            self.value(&key(path, &name), &event, value, Some(span));
        }
    }

    fn sequence(&mut self, path: &str) {
        for index in 0.. {
            match self.next() {
                None | Some((Event::SequenceEnd, _)) => return,
                Some((event, span)) => self.value(&item(path, index), &event, span, None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
name: x
router:
  rules: |
    *filter

    -A FORWARD -j BAD
  ports: { a: {}, b: {} }
tests:
  - name: one
    tcp: { from: a }
  - tcp:
      to: b
";

    #[test]
    fn every_key_and_item_is_found_and_a_missing_one_by_what_is_around_it() {
        let places = Places::of(SOURCE);
        for (path, place) in [
            ("name", (1, 1)),
            ("router.rules", (3, 3)),
            ("router.ports.b", (7, 19)),
            ("tests[0]", (9, 5)),
            ("tests[0].tcp.from", (10, 12)),
            ("tests[1].tcp.to", (12, 7)),
            ("tests[1].tcp.port", (11, 5)),
        ] {
            assert_eq!(places.find(path), Some(place), "{path}");
        }
    }

    #[test]
    fn a_line_of_a_block_of_text_is_found() {
        let places = Places::of(SOURCE);
        assert_eq!(places.in_text("router.rules", 1, 1), Some((4, 5)));
        assert_eq!(places.in_text("router.rules", 3, 12), Some((6, 16)));
    }

    #[test]
    fn broken_yaml_keeps_what_came_before() {
        assert_eq!(Places::of("a: 1\nb: [").find("a"), Some((1, 1)));
    }
}
