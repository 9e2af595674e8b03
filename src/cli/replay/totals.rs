//! `replay --summary`: totals instead of a line for each frame.

use crate::cli::render::Format;
use serde_json::{Map, json};
use stateway_core::fate::Fate;
use stateway_core::router::Router;
use stateway_trace::coverage::{Covered, coverage};
use std::io::{self, Write};

/// What became of the frames.
#[derive(Debug, Default)]
pub(super) struct Totals {
    frames: u64,
    bytes: u64,
    /// By the word of their fate, in the order in which they were met.
    fates: Vec<(&'static str, u64)>,
}

impl Totals {
    pub(super) fn count(&mut self, fate: Fate, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
        let word = fate.word();
        match self.fates.iter_mut().find(|(known, _)| *known == word) {
            Some((_, n)) => *n += 1,
            None => self.fates.push((word, 1)),
        }
    }

    /// Prints the fates, the reasons of drops, and the rules and policies that held.
    pub(super) fn print(&self, out: &mut impl Write, format: Format, router: &Router) -> io::Result<()> {
        let reasons: Vec<(&str, u64)> = router.drop_counters().filter(|(_, n)| *n > 0).collect();
        let rules = router.rules();
        let rules: Vec<Covered> =
            rules.all().flat_map(coverage).filter(|covered| covered.count.packets > 0).collect();
        match format {
            Format::Text => {
                writeln!(
                    out,
                    "{} frames, {} bytes, {} connections",
                    self.frames,
                    self.bytes,
                    router.conntrack().count()
                )?;
                for (word, n) in self.fates.iter().chain(&reasons) {
                    writeln!(out, "{n:>10}  {word}")?;
                }
                for covered in &rules {
                    writeln!(out, "{:>10}  {}  {}", covered.count.packets, covered.name, covered.text)?;
                }
                Ok(())
            }
            Format::Json => {
                let object = |pairs: &[(&str, u64)]| {
                    pairs.iter().map(|(word, n)| ((*word).to_owned(), json!(n))).collect::<Map<_, _>>()
                };
                let rules = rules.iter().map(|covered| {
                    json!({ "rule": covered.name, "text": covered.text, "packets": covered.count.packets, "bytes": covered.count.bytes })
                });
                let rules: Vec<_> = rules.collect();
                let totals = json!({
                    "frames": self.frames, "bytes": self.bytes, "connections": router.conntrack().count(),
                    "fates": object(&self.fates), "drops": object(&reasons), "rules": rules,
                });
                serde_json::to_writer(&mut *out, &totals)?;
                out.write_all(b"\n")
            }
        }
    }
}
