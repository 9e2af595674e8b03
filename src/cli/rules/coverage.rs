//! `stateway rules coverage`: which rules of a ruleset captures meet.

use super::traced::{self, Traced};
use crate::cli::Result;
use crate::cli::render;
use crate::cli::rules_text::RulesText;
use core::ops::ControlFlow::Continue;
use serde_json::json;
use stateway_core::filter::RuleError;
use stateway_trace::coverage::{self, Covered};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ruleset
    file: PathBuf,
    /// A capture to take through it; from a bridge with the ports of the capture, unless a lab says otherwise
    #[arg(long = "replay", value_name = "TRACE", required = true)]
    traces: Vec<PathBuf>,
    #[command(flatten)]
    traced: Traced,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How the rules that were met are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
    /// A line of FILE for each rule, for programs that show coverage (XML)
    Cobertura,
}

/// Says of every rule how often it held.
pub(super) fn coverage(args: &Args) -> Result {
    let reading = args.traced.reading();
    let text = reading.text(&args.file)?;
    reading.load_right(&text, false)?;
    let mut total: Vec<Covered> = Vec::new();
    for trace in args.traced.open(&args.traces)? {
        let router = args.traced.router_right(&args.traced.config(&trace)?, text.whole())?;
        traced::run(&trace, &[&router], |_, _| Continue(()))?;
        let rules = router.rules();
        let Some(rules) = rules.for_family(args.traced.family()) else { continue };
        let covered = coverage::coverage(rules);
        if total.is_empty() {
            total = covered;
        } else {
            total.iter_mut().zip(covered).for_each(|(before, now)| before.count += now.count);
        }
    }
    let met = total.iter().filter(|c| c.count.packets > 0).count();
    match args.format {
        Format::Json => {
            let list = total.iter().map(|c| {
                json!({ "rule": c.name, "line": c.line, "text": c.text, "packets": c.count.packets, "bytes": c.count.bytes })
            });
            let list: Vec<_> = list.collect();
            render::json(&json!({ "met": met, "rules": total.len(), "list": list }));
        }
        Format::Cobertura => render::line(cobertura(&text, &total).trim_end()),
        Format::Text => {
            for c in &total {
                let packets =
                    if c.count.packets == 0 { "never".to_owned() } else { c.count.packets.to_string() };
                render::line(&format!("{packets:>8}  {}  {}", c.name, c.text));
            }
            render::line(&format!("{met} of {} rules and policies were met", total.len()));
        }
    }
    Ok(())
}

/// One class, which is the file, with a line for each rule.
fn cobertura(text: &RulesText, total: &[Covered]) -> String {
    let mut lines = String::new();
    let (mut all, mut met) = (0_usize, 0_usize);
    let mut name = String::new();
    for Covered { line, count, .. } in total {
        let Some(line) = line else { continue };
        let error = RuleError { line: *line as usize, column: 1, message: String::new(), hint: None };
        let (file, at) = text.locate(&error);
        name = file.display().to_string();
        (all, met) = (all + 1, met + usize::from(count.packets > 0));
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "            <line number=\"{}\" hits=\"{}\"/>", at.line, count.packets);
    }
    let rate = if all == 0 { 1.0 } else { met as f64 / all as f64 };
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let rates = format!("line-rate=\"{rate:.4}\" branch-rate=\"0\" complexity=\"0\"");
    format!(
        r#"<?xml version="1.0"?>
<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">
<coverage {rates} lines-covered="{met}" lines-valid="{all}" branches-covered="0" branches-valid="0" version="{}" timestamp="0">
  <sources><source>.</source></sources>
  <packages>
    <package name="rules" {rates}>
      <classes>
        <class name="{name}" filename="{name}" {rates}>
          <methods/>
          <lines>
{lines}          </lines>
        </class>
      </classes>
    </package>
  </packages>
</coverage>
"#,
        env!("CARGO_PKG_VERSION")
    )
}
