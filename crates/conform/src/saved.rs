//! Differences as files, and whether they repeat from them.
//!
//! What is called a difference must differ when its files are run, by whoever has them. So it is read back as they would
//! be read, and run once more.

#![forbid(unsafe_code)]

use super::compare::hex;
use super::kernel::NAMES;
use super::session::{Finding, differs};
use super::story::{self, Story};
use super::trace::{Frame, Step};
use anyhow::{Context as _, Result};
use core::fmt::Write as _;
use stateway_core::config::Mode;
use stateway_core::packet::ETHERNET_LEN;
use stateway_trace::capture::Writer;
use stateway_trace::flow::Address;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a finding was saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// `.flow`, `.pcapng`, and the rules of both families.
    pub files: Vec<PathBuf>,
    /// The arguments of `stateway conform` that run the capture under its rules.
    pub arguments: String,
}

/// Whether the finding differs again when it is run as its files say.
pub(super) fn repeats(finding: &Finding) -> Result<bool> {
    let Ok(story) = story::from_flow(&as_flow(finding))? else { return Ok(false) };
    differs(&story)
}

/// Writes a finding as `NAME.flow`, and as `NAME.pcapng` with `NAME.rules` and `NAME.rules6`.
pub fn save(finding: &Finding, folder: &Path, name: &str) -> Result<Saved> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let Story { setup, .. } = story_of(finding);
    let path = |extension: &str| folder.join(format!("{name}.{extension}"));
    let [flow, capture, rules, rules6] = ["flow", "pcapng", "rules", "rules6"].map(path);
    let write =
        |path: &PathBuf, bytes: &[u8]| fs::write(path, bytes).with_context(|| path.display().to_string());
    write(&flow, as_flow(finding).as_bytes())?;
    write(&capture, &as_capture(finding)?)?;
    let mut arguments = capture.display().to_string();
    let mut files = vec![flow, capture];
    for (option, path, text) in [("rules", rules, &setup.rules4), ("rules6", rules6, &setup.rules6)] {
        let Some(text) = text else { continue };
        write(&path, text.as_bytes())?;
        let _ = write!(arguments, " --{option} {}", path.display());
        files.push(path);
    }
    if setup.mode == Mode::Bridge {
        arguments.push_str(" --mode bridge");
    }
    for (name, value) in &setup.sysctl {
        let _ = write!(arguments, " --sysctl {name}={value}");
    }
    for (iface, mtu) in &setup.mtu {
        let _ = write!(arguments, " --mtu {iface}={mtu}");
    }
    Ok(Saved { files, arguments })
}

/// The finding with rules that say how it was found.
fn story_of(finding: &Finding) -> Story {
    let Finding { setup, trace, manner, .. } = finding.clone();
    let mut story = Story { setup, trace, manner };
    let line = story::found_by(story.manner, story.trace.waiting);
    let rules = story.setup.rules4.get_or_insert_default();
    if !rules.starts_with(&line) {
        rules.insert_str(0, &line);
    }
    story
}

/// The steps of a finding, with its frames as they were fed.
fn as_fed(finding: &Finding) -> Vec<Step> {
    let mut fed = finding.difference.fed.iter();
    let in_its_place = |step: &Step| match step {
        Step::Frame(frame) => Step::Frame(fed.next().unwrap_or(frame).clone()),
        other => other.clone(),
    };
    finding.trace.steps.iter().map(in_its_place).collect()
}

fn as_capture(finding: &Finding) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), NAMES).context("pcapng")?;
    let mut at = Duration::from_secs(1_000_000_000);
    for step in &as_fed(finding) {
        match step {
            Step::Elapse(seconds) => at += Duration::from_secs((*seconds).into()),
            // A capture has no place for these.
            Step::Load(_) | Step::Own(_) | Step::Addresses(_) => {}
            Step::Frame(frame) => writer.frame(frame.port, at, &frame.bytes, frame.kind).context("pcapng")?,
        }
    }
    Ok(writer.into_inner())
}

fn as_flow(finding: &Finding) -> String {
    let Story { setup, .. } = story_of(finding);
    let mut text = String::from("# Kernel and router differ at the last frame.\n");
    for mismatch in &finding.difference.mismatches {
        let _ = writeln!(text, "# {}", mismatch.to_string().replace('\n', "; "));
    }
    if setup.mode == Mode::Bridge {
        text.push_str("mode bridge\n");
    }
    for (name, value) in &setup.sysctl {
        let _ = writeln!(text, "sysctl {name} {value}");
    }
    for (iface, mtu) in &setup.mtu {
        let _ = writeln!(text, "mtu {iface} {mtu}");
    }
    for Address { iface, is_first, prefix } in &setup.addresses {
        let first = if *is_first { "first " } else { "" };
        let _ = writeln!(text, "address {} {first}{prefix}", NAMES[*iface]);
    }
    for (word, rules) in [("rules", &setup.rules4), ("rules6", &setup.rules6)] {
        if let Some(rules) = rules {
            let _ = writeln!(text, "{word}\n{rules}end");
        }
    }
    let mut wait = 0;
    for step in &as_fed(finding) {
        match step {
            Step::Elapse(seconds) => wait += seconds,
            // No finding of a generator has them.
            Step::Own(_) | Step::Addresses(_) => {}
            Step::Load(rules) => {
                for (word, rules) in ["load", "load6"].iter().zip(rules.iter()) {
                    let _ = writeln!(text, "{word}\n{rules}end");
                }
            }
            Step::Frame(frame) => {
                let link = frame.link.map_or(String::new(), |link| format!(" {link}"));
                let _ =
                    writeln!(text, "+{wait}s {} {}{link}", NAMES[frame.port], in_words(frame, setup.mode));
                wait = 0;
            }
        }
    }
    // What passed at the end is time as well.
    if wait > 0 {
        let _ = writeln!(text, "wait {wait}s");
    }
    text
}

/// The packet where it tells the whole frame, else the frame.
fn in_words(frame: &Frame, mode: Mode) -> String {
    let packet = frame.bytes.get(ETHERNET_LEN..).unwrap_or_default();
    let is_plain = mode == Mode::Route && Frame::of_packet(frame.port, packet, "").bytes == frame.bytes;
    if is_plain && !packet.is_empty() {
        format!("frame {}", hex(packet))
    } else {
        format!("ether {}", hex(&frame.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Setup;
    use crate::story::Manner;
    use crate::trace::{Trace, Waiting};
    use crate::world::Difference;

    /// Frames that a packet alone does not tell: tagged, padded, for another station, of no IP, nothing but a header; a piece
    /// that waits for long.
    fn finding(mode: Mode, manner: Manner, waiting: Waiting) -> Finding {
        let mut piece = vec![0x45, 0, 0, 28, 0, 1, 0x20, 0, 64, 17, 0, 0, 198, 18, 1, 1, 198, 19, 1, 1];
        piece.extend([0; 8]);
        let plain = Frame::of_packet(0, &piece, "");
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut frame = plain.clone();
            change(&mut frame.bytes);
            frame
        };
        let frames = [
            plain.clone(),
            changed(|bytes| drop(bytes.splice(12..12, [0x81, 0, 0, 5]))),
            changed(|bytes| bytes.resize(60, 0)),
            changed(|bytes| bytes[0] = 0xff),
            changed(|bytes| bytes[12..14].copy_from_slice(&[0x88, 0xb5])),
            changed(|bytes| bytes.truncate(ETHERNET_LEN)),
        ];
        let mut steps: Vec<_> = frames.into_iter().map(Step::Frame).collect();
        steps.insert(2, Step::Elapse(432_000));
        let rules = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CT --zone 7\nCOMMIT\n";
        let setup = Setup {
            mode,
            rules4: Some(rules.to_owned()),
            rules6: Some("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n".to_owned()),
            sysctl: vec![("nf_conntrack_udp_timeout".to_owned(), "50".to_owned())],
            mtu: vec![("right".to_owned(), 1280)],
            zones: vec![7],
            ..Setup::default()
        };
        let difference = Difference {
            step: 0,
            mismatches: Vec::new(),
            reasons: Vec::new(),
            fed: Vec::new(),
            is_blurred: false,
        };
        Finding {
            setup,
            trace: Trace { steps, waiting },
            difference,
            after_frames: 0,
            is_alone: true,
            manner,
        }
    }

    fn without_kinds(trace: &Trace) -> Trace {
        let mut trace = trace.clone();
        for step in &mut trace.steps {
            if let Step::Frame(frame) = step {
                frame.kind = "";
            }
        }
        trace
    }

    #[test]
    fn what_was_saved_is_read_as_it_was() {
        let manners = [
            (Manner::Frames, Waiting::Timers),
            (Manner::Frames, Waiting::Streams),
            (Manner::Frames, Waiting::Really),
            (Manner::Rules { is_slow: true }, Waiting::Timers),
        ];
        for mode in [Mode::Route, Mode::Bridge] {
            for (manner, waiting) in manners {
                let finding = finding(mode, manner, waiting);
                let told = story_of(&finding);
                let read = story::from_flow(&as_flow(&finding)).expect("it can be read").expect("it is fit");
                assert_eq!(without_kinds(&read.trace), without_kinds(&told.trace), "{mode:?} {manner:?}");
                assert_eq!((read.setup, read.manner), (told.setup.clone(), manner));
                let folder = tempfile::tempdir().expect("a folder");
                let saved = save(&finding, folder.path(), "one").expect("it can be written");
                let read = story::from_capture(&saved.files[1], told.setup.clone()).expect("it can be read");
                assert_eq!(without_kinds(&read.trace), without_kinds(&told.trace), "{mode:?} {manner:?}");
                assert_eq!((read.setup, read.manner), (told.setup, manner));
            }
        }
    }
}
