//! The ratios at a glance: a bar for each case and test, the bare copy being 1.

use crate::report::Report;
use plotters::prelude::*;
use std::path::Path;

pub fn draw(path: &Path, report: &Report) -> anyhow::Result<()> {
    let tests: Vec<_> = report.tests.iter().filter(|(_, lines)| lines.len() > 1).collect();
    let height = 60 + tests.iter().map(|(_, lines)| 34 + 18 * lines.len() as u32).sum::<u32>();
    let root = SVGBackend::new(path, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    root.draw_text("Relative to the bare copy (1.0 = the dashed line)", &text(18), (20, 12))?;
    let (left, scale, mut y) = (160, 330.0, 48);
    for (test, lines) in tests {
        root.draw_text(test.title(), &text(15), (20, y))?;
        y += 24;
        let base = lines.iter().find(|l| l.case.to_string() == "copy").or(lines.first());
        let Some(base) = base.map(|l| l.value.median).filter(|&b| b > 0.0) else { continue };
        let top = y;
        for (n, line) in lines.iter().enumerate() {
            let value = line.value.median / base;
            let end = left + (value.min(2.1) * scale) as i32;
            root.draw_text(&line.case.to_string(), &text(12), (40, y + 1))?;
            root.draw(&Rectangle::new([(left, y), (end, y + 13)], Palette99::pick(n).filled()))?;
            root.draw_text(&format!("{value:.2}"), &text(12), (end + 6, y + 1))?;
            y += 18;
        }
        let one = left + scale as i32;
        for dash in (top..y).step_by(8) {
            root.draw(&PathElement::new([(one, dash), (one, dash + 4)], BLACK))?;
        }
        y += 10;
    }
    root.present()?;
    Ok(())
}
