//! Captures on the command line: how they are named and opened, and what is said of frames that were not judged.

use super::render;
use super::{Failure, Result};
use anyhow::anyhow;
use stateway_core::config::RouterConfig;
use stateway_core::packet::{ETHERNET_LEN, Kind, kind};
use stateway_trace::capture::{Capture, CaptureError, Frame, Frames, PortName, Reading, Source, Unjudged};
use stateway_trace::flow;
use stateway_trace::input;
use stateway_trace::replay::bridge_of;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How the interfaces of a capture become ports.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct CaptureArgs {
    /// What an interface of the capture is called: `NAME` (its only one), `0=NAME` (by number), `eth0=NAME` (by its name),
    /// `192.0.2.0/24=NAME` (frames from there), `in=NAME` and `out=NAME` (by direction); may be repeated
    #[arg(long = "port", value_name = "[INTERFACE=]NAME")]
    names: Vec<PortName>,
    /// Judge every frame as if it had come in as it stands: copies of what went out and unfinished checksums too
    #[arg(long)]
    as_it_stands: bool,
}

impl CaptureArgs {
    pub(super) fn reading(&self) -> Reading {
        Reading { names: self.names.clone(), as_it_stands: self.as_it_stands, keeps_blocks: false }
    }

    /// A capture or a scenario that can be read more than once, from standard input if it is `-`. One without frames
    /// is an error.
    pub(super) fn open(&self, path: &Path) -> Result<Opened> {
        open(path, self.reading())
    }
}

/// A capture that is open, or a scenario, which brings a router of its own.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) source: Source,
    router: Option<RouterConfig>,
}

impl Opened {
    /// The router around it, where nothing else is said: the scenario's, or a bridge of the capture's ports.
    pub(super) fn router(&self) -> RouterConfig {
        let ports = &self.source.survey().ports;
        let Some(mut config) = self.router.clone() else { return bridge_of(ports) };
        // The same two, under the names that they were given.
        for (iface, port) in config.ifaces.iter_mut().zip(ports) {
            iface.name.clone_from(port);
        }
        config
    }
}

/// The capture of one port.
pub(super) fn open_as(path: &Path, port: &str, reading: Reading) -> Result<Source> {
    Ok(open(path, Reading { names: vec![PortName::only(port)], ..reading })?.source)
}

/// As [`CaptureArgs::open`], read in a way of one's own.
pub(super) fn open(path: &Path, reading: Reading) -> Result<Opened> {
    if path.extension().is_some_and(|extension| extension == "flow") {
        return open_flow(path, reading);
    }
    let source = if path == Path::new("-") {
        Source::of_stream(io::stdin().lock(), reading)
    } else {
        // Asked for here: an error of the file itself is none of its contents.
        raw(path)?;
        Source::of_file(path, reading)
    };
    let source = source.map_err(|error| in_file(path, error))?;
    if source.survey().frames == 0 {
        return Err(match source.open() {
            Ok(frames) => why_no_frame(path, frames),
            Err(error) => in_file(path, error),
        });
    }
    Ok(Opened { source, router: None })
}

/// A scenario: its packets, and the router it tells of. They came in as they stand.
fn open_flow(path: &Path, reading: Reading) -> Result<Opened> {
    let refused = |why: String| Failure::Input(anyhow!("{}: {why}", path.display()));
    let text = input::read_text(path, input::MAX_RULES)
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    let scenario = flow::parse(&text).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        refused(errors.join("\n  "))
    })?;
    if scenario.steps.is_empty() {
        return Err(refused("no packets in it, so that nothing is judged".to_owned()));
    }
    let frames = flow::capture(&scenario).map_err(|error| refused(error.to_string()))?;
    of_story(path, &scenario, &frames, reading)
}

/// As [`open`], of a scenario that stands in no file.
pub(super) fn of_scenario(scenario: &flow::Scenario) -> Result<Opened> {
    let path = Path::new("the story");
    let frames = flow::capture(scenario).map_err(|error| Failure::Input(anyhow!("{error}")))?;
    of_story(path, scenario, &frames, Reading::default())
}

fn of_story(path: &Path, scenario: &flow::Scenario, frames: &[u8], reading: Reading) -> Result<Opened> {
    let reading = Reading { as_it_stands: true, ..reading };
    let source = Source::of_stream(frames, reading).map_err(|error| in_file(path, error))?;
    Ok(Opened { source, router: Some(flow::config(scenario)) })
}

/// Begins to read a capture that may still be written to: a pipe, standard input.
pub(super) fn stream(path: &Path, from: impl Read + Send + 'static, reading: &Reading) -> Result<Frames> {
    let capture = Capture::new(from, reading).map_err(|error| in_file(path, error))?;
    let frames = Frames::of(capture);
    if frames.first_nanos().is_some() { Ok(frames) } else { Err(why_no_frame(path, frames)) }
}

/// What is damaged before its first frame, or has none.
fn why_no_frame(path: &Path, mut frames: Frames) -> Failure {
    let hint = "was there no traffic, or did the capture fail?";
    match frames.read(&mut Frame::default()) {
        Err(error) => in_file(path, error),
        Ok(_) => Failure::Input(anyhow!(
            "{}: no frames in it, so that nothing was judged\n  hint: {hint}",
            path.display()
        )),
    }
}

/// Whether a capture can be read only once.
pub(super) fn is_stream(path: &Path) -> bool {
    path == Path::new("-") || path.metadata().is_ok_and(|about| !about.is_file())
}

/// The file itself, or standard input.
pub(super) fn raw(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path);
    let file = file
        .map_err(|error| Failure::Input(anyhow!("cannot read the capture `{}`: {error}", path.display())))?;
    Ok(Box::new(file))
}

pub(super) fn in_file(path: &Path, error: CaptureError) -> Failure {
    Failure::Input(anyhow::Error::from(error).context(path.display().to_string()))
}

/// What is said once, behind all verdicts, of frames that were not judged or are not what they seem.
#[derive(Debug)]
pub(super) struct Tally {
    path: PathBuf,
    frames: u64,
    judged: u64,
    unjudged: BTreeMap<Unjudged, u64>,
    cut: u64,
    unfinished: u64,
    tagged: BTreeMap<&'static str, u64>,
    /// The first frame that is earlier than the one before it.
    earlier: Option<u64>,
    last_nanos: Option<i128>,
    /// The only port of the router, if it has but one.
    only_port: Option<String>,
}

impl Tally {
    /// `ports` are those of the router.
    pub(super) fn new<'a>(path: &Path, mut ports: impl Iterator<Item = &'a str>) -> Self {
        let only_port = ports.next().filter(|_| ports.next().is_none()).map(str::to_owned);
        Self {
            path: path.to_owned(),
            frames: 0,
            judged: 0,
            unjudged: BTreeMap::new(),
            cut: 0,
            unfinished: 0,
            tagged: BTreeMap::new(),
            earlier: None,
            last_nanos: None,
            only_port,
        }
    }

    /// Counts a frame; `true` if it is to be judged.
    pub(super) fn count(&mut self, frame: &Frame) -> bool {
        self.frames += 1;
        if self.last_nanos.is_some_and(|last| frame.nanos < last) {
            self.earlier.get_or_insert(frame.number);
        }
        self.last_nanos = Some(frame.nanos);
        if let Some(why) = frame.unjudged {
            *self.unjudged.entry(why).or_default() += 1;
            return false;
        }
        self.judged += 1;
        self.cut += u64::from(frame.is_cut());
        self.unfinished += u64::from(frame.offload.needs_checksum());
        if let Some(tag) = tag_of(&frame.data) {
            *self.tagged.entry(tag).or_default() += 1;
        }
        true
    }

    /// Says it on standard error.
    ///
    /// # Errors
    /// No frame at all was judged.
    pub(super) fn tell(self) -> Result {
        let (path, frames) = (self.path.display(), self.frames);
        let warn = |text: String| render::warn(&format!("{path}: {text}"));
        for (why, n) in &self.unjudged {
            warn(format!("{n} of {frames} frames {}", why_unjudged(*why)));
        }
        if self.cut > 0 {
            warn(format!(
                "{} of {frames} frames were cut short when they were captured; their headers were judged, what is missing \
                 of their payload counts as zeros and its checksum as right\n  hint: `tcpdump -s 0` captures frames whole",
                self.cut
            ));
        }
        if self.unfinished > 0 {
            warn(format!(
                "{} of {frames} frames have a checksum that the network card was still to finish; it was taken to be right",
                self.unfinished
            ));
        }
        for (tag, n) in &self.tagged {
            warn(format!("{n} of {frames} frames {tag}"));
        }
        if let Some(number) = self.earlier {
            warn(format!(
                "frame {number} is earlier than the one before it; frames are taken in the order of the file, and the \
                 clock never goes back\n  hint: `reordercap` sorts them"
            ));
        }
        if self.judged == 0 {
            return Err(Failure::Input(anyhow!("{path}: none of its {frames} frames was judged")));
        }
        if let Some(port) = self.only_port {
            warn(format!(
                "all frames came in on `{port}`, the only port, so that none could leave through another\n  hint: say on which \
                 side the addresses are: `--port 192.0.2.0/24=lan --port 0.0.0.0/0=wan`"
            ));
        }
        Ok(())
    }
}

/// Of one frame: `is an outgoing copy`.
pub(super) const fn why_one(why: Unjudged) -> &'static str {
    match why {
        Unjudged::Outgoing => "is an outgoing copy",
        Unjudged::Copy => "is a copy of what came in on another port a moment before",
        Unjudged::LinkType(_) => "came from a link that is neither Ethernet nor IP",
        Unjudged::NoPort => "came in on no port that was named",
        Unjudged::HeadersCut => "was cut within its headers when it was captured",
    }
}

const fn why_unjudged(why: Unjudged) -> &'static str {
    match why {
        Unjudged::Outgoing => "are outgoing copies: not judged",
        Unjudged::Copy => {
            "are copies of what came in on another port a moment before: not judged\n  hint: `--as-it-stands` judges them too"
        }
        Unjudged::LinkType(_) => {
            "came from a link that is neither Ethernet nor IP: not judged\n  hint: capture on an Ethernet interface, a TUN or `any`"
        }
        Unjudged::NoPort => {
            "came in on no port that was named: not judged\n  hint: `--port INTERFACE=NAME` names one; `capinfos` lists interfaces"
        }
        Unjudged::HeadersCut => {
            "were cut within their headers when they were captured: not judged\n  hint: `tcpdump -s 0` captures frames whole"
        }
    }
}

/// A packet that is within something else, and so was not looked at.
fn tag_of(frame: &[u8]) -> Option<&'static str> {
    let Some(Kind::Other(ethertype)) = kind(frame) else { return None };
    debug_assert!(frame.len() >= ETHERNET_LEN);
    match ethertype {
        0x8100 => Some(
            "have a VLAN tag (802.1Q): the packets within were not judged\n  hint: capture on the VLAN's own interface \
             (`eth0.10`), or take the tags off: `tcprewrite --enet-vlan=del`",
        ),
        0x88a8 => Some(
            "have two VLAN tags (QinQ): the packets within were not judged\n  hint: capture on the VLAN's own interface, or \
             take the tags off: `tcprewrite --enet-vlan=del`",
        ),
        0x8863 | 0x8864 => Some(
            "are PPPoE: the packets within were not judged\n  hint: capture on the `ppp` interface that carries them",
        ),
        _ => None,
    }
}
