//! The figures at a glance: bars for the comparison, curves for rules and connections.

use crate::measure::Test;
use crate::report::{Of, Report};
use crate::rig::{Case, Translator};
use plotters::prelude::*;
use std::path::{Path, PathBuf};

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

/// Draws what there are figures for, into a folder.
pub fn draw_all(folder: &Path, report: &Report) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut drawn = Vec::new();
    let mut draw = |name: &str, how: &dyn Fn(&Path) -> anyhow::Result<bool>| {
        let path = folder.join(name).with_extension("svg");
        if how(&path)? {
            drawn.push(path);
        } else {
            // A plot of an earlier run would belong to other figures.
            let _ = std::fs::remove_file(&path);
        }
        anyhow::Ok(())
    };
    draw("comparison", &|path| bars(path, report))?;
    draw("rules", &|path| {
        let points = |forwarder: &str, test: &str| {
            let names = [(10.0, "-10"), (100.0, "-100"), (1000.0, "-1k"), (10_000.0, "-10k")];
            let test: Test = test.parse().ok()?;
            let point = |(n, suffix): (f64, &str)| {
                let case: Case = format!("{forwarder}{suffix}").parse().ok()?;
                Some((n, report.line(test, case)?.value.median))
            };
            Some(names.into_iter().filter_map(point).collect())
        };
        let curves = ["datagrams", "connections"].into_iter().flat_map(|test| {
            ["stateway", "kernel"]
                .map(|who| (format!("{who}: {test}/s"), points(who, test).unwrap_or_default()))
        });
        scaling(path, "Rules in front of the one for known connections", &curves.collect::<Vec<_>>())
    })?;
    draw("connections", &|path| {
        let points = |case: &str| {
            let case: Case = case.parse().ok()?;
            let point = |test: Test| match test {
                Test::Among(n) => Some((f64::from(n), report.line(test, case)?.value.median)),
                _ => None,
            };
            Some(Test::all().filter_map(point).collect())
        };
        let curves = ["stateway", "kernel"]
            .map(|who| (format!("{who}: datagrams/s"), points(who).unwrap_or_default()));
        scaling(path, "Connections that 64-byte datagrams are spread over", &curves)
    })?;
    Ok(drawn)
}

/// A bar for each case and test, the bare copy being 1.
fn bars(path: &Path, report: &Report) -> anyhow::Result<bool> {
    let copy: Case = "copy".parse().map_err(anyhow::Error::msg)?;
    let tests: Vec<_> = report
        .tests
        .iter()
        .filter(|(test, lines)| report.line(*test, copy).is_some() && lines.len() > 1)
        .collect();
    if tests.is_empty() {
        return Ok(false);
    }
    let height = 60 + tests.iter().map(|(_, lines)| 34 + 18 * lines.len() as u32).sum::<u32>();
    let root = SVGBackend::new(path, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    root.draw_text("Relative to the bare copy (the dashed line)", &text(18), (20, 12))?;
    let (left, scale, mut y) = (160, 330.0, 48);
    for (test, lines) in tests {
        root.draw_text(test.title(), &text(15), (20, y))?;
        y += 24;
        let top = y;
        for line in lines {
            let ratio = report.ratio(*test, Of::Value, line.case, (*test, copy));
            let Some(ratio) = ratio.map(|r| r.median) else { continue };
            let end = left + (ratio.min(2.0) * scale) as i32;
            let colour = match line.case {
                Case::Copy { .. } => RGBColor(127, 127, 127),
                Case::Stateway { .. } | Case::Nat(Translator::Stateway) => COLOURS[0],
                Case::Kernel { .. } | Case::Nat(Translator::Kernel) => COLOURS[1],
                Case::OpenVSwitch | Case::Nat(Translator::OpenVSwitch) => COLOURS[2],
            };
            root.draw_text(&line.case.to_string(), &text(12), (40, y + 1))?;
            root.draw(&Rectangle::new([(left, y), (end, y + 13)], colour.filled()))?;
            root.draw_text(&format!("{ratio:.2}"), &text(12), (end + 6, y + 1))?;
            y += 18;
        }
        let one = left + scale as i32;
        for dash in (top..y).step_by(8) {
            root.draw(&PathElement::new([(one, dash), (one, dash + 4)], BLACK))?;
        }
        y += 10;
    }
    root.present()?;
    Ok(true)
}

/// Rates over how many of something there are, both on logarithmic scales.
fn scaling(path: &Path, title: &str, curves: &[(String, Vec<(f64, f64)>)]) -> anyhow::Result<bool> {
    let all = || curves.iter().flat_map(|(_, points)| points.iter().copied());
    let spread = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(None, |range: Option<(f64, f64)>, v| {
            Some(range.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        })
    };
    let (Some(x), Some(y)) = (spread(&mut all().map(|p| p.0)), spread(&mut all().map(|p| p.1))) else {
        return Ok(false);
    };
    if x.0 >= x.1 || y.0 <= 0.0 {
        return Ok(false);
    }
    let root = SVGBackend::new(path, (900, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d((x.0..x.1 * 1.2).log_scale(), (y.0 / 1.5..y.1 * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&count)
        .y_label_formatter(&count)
        .draw()?;
    for ((name, points), colour) in curves.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(true)
}

/// A count with its thousands, as axes are labelled.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "plotters gives a reference")]
fn count(value: &f64) -> String {
    match *value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}
