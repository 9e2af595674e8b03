//! The drawing: the router in the middle, its ports as columns of hosts on both sides.
//!
//! ```text
//!   ┌────────┐            ┌──────────┐            ┌────────┐
//!   │ host   ├─── port ───┤  router  ├─── port ───┤ host   │
//!   └────────┘            └──────────┘            └────────┘
//! ```
//!
//! Letters have one width, so that it is known beforehand how large a box must be.

#![forbid(unsafe_code)]

use super::{entries, mode};
use crate::model::Lab;
use stateway_core::iface::IfaceId;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr as _;

/// The size of letters, and how wide one is at most: fonts of one width have 0.6 of their size.
const FONT: usize = 12;
const LETTER: f64 = 0.62 * FONT as f64;
/// From one line to the next.
const LINE: usize = 16;
/// Between a text and the side of its box.
const PADDING: usize = 10;
const GAP: usize = 18;
const MARGIN: usize = 20;
/// Between a box and the router at least.
const SPACE: usize = 60;

/// A box of a host, or of several that are alike.
struct Card {
    lines: Vec<String>,
    port: String,
}

impl Card {
    fn height(&self) -> usize {
        self.lines.len() * LINE + PADDING
    }
}

/// How wide a text becomes.
fn width(text: &str) -> usize {
    (text.width() as f64 * LETTER).ceil() as usize
}

fn widest<'a>(texts: impl Iterator<Item = &'a String>) -> usize {
    texts.map(|text| width(text)).max().unwrap_or_default()
}

/// A lab as an SVG drawing.
pub fn svg(lab: &Lab) -> String {
    let sides = sides(lab);
    let heights = sides.each_ref().map(|cards| cards.iter().map(|card| card.height() + GAP).sum::<usize>());
    let boxes = sides.each_ref().map(|cards| widest(cards.iter().flat_map(|card| &card.lines)) + 2 * PADDING);
    let spaces =
        sides.each_ref().map(|cards| SPACE.max(widest(cards.iter().map(|card| &card.port)) + 2 * PADDING));
    let title = [lab.name.clone(), mode(lab).to_owned()];
    let router = widest(title.iter()) + 2 * PADDING;
    let inner = heights.into_iter().max().unwrap_or_default().max(title.len() * LINE + 2 * GAP);
    let left = MARGIN + boxes[0] + spaces[0];
    let total = (left + router + spaces[1] + boxes[1] + MARGIN, inner + 2 * MARGIN);
    let mut drawing = Drawing::default();
    drawing.rect((left, MARGIN), (router, inner), 8);
    for (number, text) in title.iter().enumerate() {
        drawing.text((left + router / 2, MARGIN + inner / 2 + number * LINE), "middle", text);
    }
    for (side, cards) in sides.iter().enumerate() {
        let mut y = MARGIN + (inner - heights[side]) / 2 + GAP / 2;
        let (x, from, to) = match side {
            0 => (MARGIN, MARGIN + boxes[0], left),
            _ => (total.0 - MARGIN - boxes[1], left + router, total.0 - MARGIN - boxes[1]),
        };
        for card in cards {
            let middle = y + card.height() / 2;
            drawing.rect((x, y), (boxes[side], card.height()), 4);
            drawing.line((from, middle), (to, middle));
            drawing.text((usize::midpoint(from, to), middle - 4), "middle", &card.port);
            for (number, line) in card.lines.iter().enumerate() {
                drawing.text((x + PADDING, y + (number + 1) * LINE), "start", line);
            }
            y += card.height() + GAP;
        }
    }
    drawing.finish(total)
}

/// Ports alternate between the two sides.
fn sides(lab: &Lab) -> [Vec<Card>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    for (place, iface) in lab.router.ifaces.iter().enumerate() {
        let cards = entries(lab, IfaceId(place as u16)).into_iter();
        sides[place % 2].extend(cards.map(|entry| Card { lines: entry.lines(), port: iface.name.clone() }));
    }
    sides
}

/// Shapes lie below the words.
#[derive(Default)]
struct Drawing {
    shapes: String,
    words: String,
}

impl Drawing {
    fn rect(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), round: usize) {
        _ = writeln!(
            self.shapes,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{round}\"/>"
        );
    }

    fn line(&mut self, (x1, y1): (usize, usize), (x2, y2): (usize, usize)) {
        _ = writeln!(self.shapes, "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    fn text(&mut self, (x, y): (usize, usize), anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        _ = writeln!(self.words, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    fn finish(self, (width, height): (usize, usize)) -> String {
        let Self { shapes, words } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"monospace\" font-size=\"{FONT}\">\n\
             <style>rect{{fill:#fff;stroke:#345;stroke-width:1.5}}line{{stroke:#345}}text{{fill:#123}}</style>\n\
             {shapes}{words}</svg>"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::crowded;
    use super::*;
    use crate::builtin;
    use std::path::Path;

    /// A text or a rectangle: left, top, right, bottom.
    type Area = [f64; 4];

    fn number(element: &str, name: &str) -> f64 {
        let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    fn boxes(picture: &str) -> Vec<Area> {
        let rects = picture.lines().filter(|line| line.starts_with("<rect "));
        let area = |rect: &str| {
            let (x, y) = (number(rect, "x"), number(rect, "y"));
            [x, y, x + number(rect, "width"), y + number(rect, "height")]
        };
        rects.map(area).collect()
    }

    fn texts(picture: &str) -> Vec<(String, Area)> {
        let lines = picture.lines().filter(|line| line.starts_with("<text "));
        let text = |line: &str| {
            let words = line.split_once('>').unwrap().1.trim_end_matches("</text>").replace("&lt;", "<");
            // Wider than any usual font of one width.
            let width = words.chars().count() as f64 * 0.61 * FONT as f64;
            let (x, y) = (number(line, "x"), number(line, "y"));
            let left = if line.contains("\"middle\"") { x - width / 2.0 } else { x };
            (words, [left, y - FONT as f64, left + width, y + 3.0])
        };
        lines.map(text).collect()
    }

    fn meet(one: &Area, other: &Area) -> bool {
        one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3]
    }

    fn is_inside(one: &Area, other: &Area) -> bool {
        other[0] <= one[0] && other[1] <= one[1] && one[2] <= other[2] && one[3] <= other[3]
    }

    #[test]
    fn no_text_leaves_its_box_and_nothing_lies_on_something_else() {
        let load = |name: &str| crate::load(Path::new(name)).unwrap();
        let labs = builtin::names().into_iter().map(load).chain([crowded()]);
        for lab in labs {
            let picture = svg(&lab);
            let (boxes, texts) = (boxes(&picture), texts(&picture));
            let whole = [0.0, 0.0, number(&picture, "width"), number(&picture, "height")];
            for (words, area) in &texts {
                let touched: Vec<&Area> = boxes.iter().filter(|one| meet(one, area)).collect();
                // The name of a port stands between two boxes and touches neither.
                assert!(
                    touched.iter().all(|one| is_inside(area, one)),
                    "{}: `{words}` leaves its box",
                    lab.name
                );
                assert!(is_inside(area, &whole), "{}: `{words}` leaves the picture", lab.name);
            }
            for (at, (words, area)) in texts.iter().enumerate() {
                let over = texts[..at].iter().find(|(_, other)| meet(area, other));
                assert!(over.is_none(), "{}: `{words}` lies on {over:?}", lab.name);
            }
            for (at, area) in boxes.iter().enumerate() {
                assert!(!boxes[..at].iter().any(|other| meet(area, other)), "{}: boxes overlap", lab.name);
            }
        }
    }

    #[test]
    fn every_host_is_named_and_three_hundred_fit_on_a_page() {
        let load = |name: &str| crate::load(Path::new(name)).unwrap();
        let lab = load("path-mtu");
        let picture = svg(&lab);
        for text in ["host104", "host77", "192.0.2.104/24", "2001:db8:1::104/64", "path-mtu", "ssh"] {
            assert!(picture.contains(&format!(">{text}<")), "{text}: {picture}");
        }
        let crowd = svg(&crowded());
        assert!(number(&crowd, "height") < 300.0 && number(&crowd, "width") < 1200.0, "{crowd}");
        assert!(crowd.contains(">h000 … h289 (290 hosts)<"), "{crowd}");
    }
}
