//! Writes what fuzzing begins with into `corpus/`: rulesets, scenarios, their packets, captures of them, labs.

use stateway::capture::Writer;
use stateway::flow::{self, Scenario};
use std::fs;
use std::path::{Path, PathBuf};

/// The widest frame that `frames` can be given.
const MAX_FRAME: usize = u16::MAX as usize;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = root.join("..");
    let put = |target: &str, name: usize, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{name:04}")), bytes)
    };
    for (n, path) in files(&project.join("tests/rulesets"), &["rules", "rules6"]).iter().enumerate() {
        put("rules", n, &fs::read(path)?)?;
    }
    for (n, path) in files(&project.join("topologies"), &["yaml"]).iter().enumerate() {
        put("lab", n, &fs::read(path)?)?;
    }
    for (n, path) in files(&project.join("tests/scenarios"), &["flow"]).iter().enumerate() {
        let text = fs::read_to_string(path)?;
        put("flow", n, text.as_bytes())?;
        if let Ok(scenario) = flow::parse(&text) {
            put("frames", n, &noise(&scenario, n as u8))?;
            put("capture", n, &capture(&scenario)?)?;
        }
    }
    Ok(())
}

fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Each packet with its place and the frame that it comes in.
fn frames(scenario: &Scenario) -> impl Iterator<Item = (std::time::Duration, usize, Vec<u8>)> {
    scenario.steps.iter().map(|step| {
        let from = usize::from(step.iface == flow::IFACES[1]);
        let bytes = if step.is_frame {
            step.packet.clone()
        } else {
            let ethertype: u16 = if step.packet.first().is_some_and(|b| b >> 4 == 6) { 0x86dd } else { 0x0800 };
            [&flow::ROUTER_MACS[from][..], &flow::STATION_MACS[from], &ethertype.to_be_bytes(), &step.packet].concat()
        };
        (std::time::Duration::from_nanos(step.at.as_nanos() as u64), from, bytes)
    })
}

/// The input of the target `frames`.
fn noise(scenario: &Scenario, pick: u8) -> Vec<u8> {
    let mut bytes = vec![pick];
    for (_, from, frame) in frames(scenario).filter(|(_, _, frame)| frame.len() <= MAX_FRAME) {
        bytes.extend([1, from as u8]);
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn capture(scenario: &Scenario) -> std::io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), flow::IFACES)?;
    for (at, from, frame) in frames(scenario) {
        writer.frame(from, at, &frame, "")?;
    }
    Ok(writer.into_inner())
}
