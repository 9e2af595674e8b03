//! Captures: pcapng and classic pcap in, gzipped or not, pcapng out.
//!
//! A capture is read as it goes, one frame after the other, so that memory does not grow with the file:
//!
//! ```text
//!   input → pcapng | classic → link → ports → taken → frames
//!   bytes   blocks             to       which   unfinished     of all files, in the order of time,
//!                              Ethernet port    checksums,     without copies of what went out
//!                                               cut frames
//! ```
//!
//! Reading is done here and not by a crate: those that exist refuse captures that Wireshark reads (options without
//! their end mark, `if_tzone`) or forget `if_tsresol`, and none says where in the file it stumbled.

#![forbid(unsafe_code)]

use core::fmt;
use stateway_core::packet::Offload;
use std::collections::BTreeSet;
use std::io::{self, Read};

mod ahead;
mod classic;
mod frames;
mod input;
mod link;
pub mod nflog;
mod order;
mod pcapng;
mod ports;
mod source;
mod taken;
mod write;

pub use ahead::Ahead;
pub use frames::Frames;
pub use ports::PortName;
pub use source::{Source, Survey};
pub use taken::finish_checksum;
pub use write::{Annotator, Record, Writer};

use input::Input;
use ports::Ports;

/// How a capture is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What its interfaces are called, where not by their own names.
    pub names: Vec<PortName>,
    /// Every frame came in as it stands: nothing is told apart as a copy, and no checksum is taken to be unfinished.
    pub as_it_stands: bool,
    /// The blocks of the file are kept until the next frame, for [`Annotator`].
    pub keeps_blocks: bool,
}

/// One captured frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From 1, in the order of the file.
    pub number: u64,
    /// Its place in [`Capture::ports`]; meaningless where `unjudged` says that there is none.
    pub port: u16,
    /// Nanoseconds since 1970, by the clock of the capture.
    pub nanos: i128,
    /// The frame with its Ethernet header; filled up with zeros where the capture cut payload off.
    pub data: Vec<u8>,
    /// Bytes of `data` that were captured; fewer than there are if it was cut short.
    pub captured_len: usize,
    /// Its receiver's link address says nothing of the router: the link had no Ethernet header (the addresses are made up, the
    /// same for the same IP address), or both sides of the router were captured in one place.
    pub link_is_made_up: bool,
    /// What the capturing kernel had left undone.
    pub offload: Offload,
    /// Which way it went, if the capture says so.
    pub direction: Option<Direction>,
    /// Why the router cannot judge it.
    pub unjudged: Option<Unjudged>,
    /// Where it was captured: file, interface, the kernel's number of the interface.
    place: Place,
}

/// Where a frame was captured: file, interface in it, the kernel's number of the interface.
type Place = (u32, u32, Option<u32>);

impl Frame {
    /// Whether the capture holds less than the link carried.
    pub const fn is_cut(&self) -> bool {
        self.captured_len < self.data.len()
    }
}

/// Why a frame of a capture cannot be judged: it did not come in on a port, or it cannot be known what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unjudged {
    /// The capture says that it went out.
    Outgoing,
    /// The same packet came in on another port a moment before: this is what went out.
    Copy,
    /// Its link type carries no Ethernet and no IP.
    LinkType(u32),
    /// Its interface is none of the ports that are asked about.
    NoPort,
    /// It was cut within its headers.
    HeadersCut,
}

/// Which way a frame went, as the capturing machine saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// What is wrong with a capture, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CaptureError {
    /// From the start of the file, unpacked.
    pub offset: u64,
    /// The frame that the block holds, if it holds one; from 1.
    pub frame: Option<u64>,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(frame) = self.frame {
            write!(f, "frame {frame}, ")?;
        }
        write!(f, "byte {}: {}", self.offset, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl CaptureError {
    fn new(offset: u64, message: impl Into<String>) -> Self {
        Self { offset, frame: None, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn of_frame(self, number: u64) -> Self {
        Self { frame: Some(number), ..self }
    }

    /// The file ends where a block or a record goes on.
    fn cut_short(offset: u64, what: &str) -> Self {
        Self::new(offset, format!("the file is cut short: {what} goes beyond its end"))
            .hint("what came before was read; capture again for the rest")
    }

    fn read(offset: u64, error: &io::Error) -> Self {
        Self::new(offset, format!("cannot be read: {error}"))
    }
}

/// A frame as its file holds it.
#[derive(Debug, Default)]
struct Raw {
    /// Its place among the interfaces of the file, those of earlier sections counted.
    interface: usize,
    nanos: i128,
    /// Bytes that were on the link.
    original_len: usize,
    direction: Option<Direction>,
    data: Vec<u8>,
}

/// An interface as the file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: Option<String>,
    link_type: u32,
}

#[derive(Debug)]
enum Format {
    Pcapng(pcapng::Reader),
    Classic(classic::Reader),
}

impl Format {
    fn of(input: &mut Input, keeps_blocks: bool) -> Result<Self, CaptureError> {
        /// As much as tells what kind of file it is.
        const HEAD: usize = 12;
        let head = input.peek(HEAD).map_err(|error| CaptureError::read(0, &error))?;
        if head.is_empty() {
            return Err(
                CaptureError::new(0, "the file is empty").hint("the capture failed, or has not begun")
            );
        }
        if pcapng::is_pcapng(head) {
            return Ok(Self::Pcapng(pcapng::Reader::new(keeps_blocks)));
        }
        match classic::Reader::of(head) {
            Some(reader) => Ok(Self::Classic(reader)),
            None => Err(CaptureError::new(0, "neither a pcapng nor a pcap file")),
        }
    }

    /// Reads the next frame into `raw`; `false` at the end of the file.
    fn next(&mut self, input: &mut Input, number: u64, raw: &mut Raw) -> Result<bool, CaptureError> {
        match self {
            Self::Pcapng(reader) => reader.next(input, number, raw),
            Self::Classic(reader) => reader.next(input, number, raw),
        }
    }

    fn interfaces(&self) -> &[Interface] {
        match self {
            Self::Pcapng(reader) => reader.interfaces(),
            Self::Classic(reader) => reader.interfaces(),
        }
    }
}

/// What a reading of a whole file finds.
#[derive(Clone, Copy, Debug)]
struct ReadOver {
    frames: u64,
    /// As [`Times::lanes`].
    lanes: Option<usize>,
}

/// In which order the frames of a file stand.
#[derive(Debug, Default)]
struct Times {
    /// Of each interface, when its last frame was captured.
    last: Vec<Option<i128>>,
    latest: Option<i128>,
    goes_back: bool,
    goes_back_at_one_interface: bool,
}

impl Times {
    /// A file is read once for each interface where they are put in order; more of them are left as they stand.
    const MAX_LANES: usize = 64;

    fn note(&mut self, interface: usize, nanos: i128) {
        if self.last.len() <= interface {
            self.last.resize(interface + 1, None);
        }
        self.goes_back_at_one_interface |= self.last[interface].replace(nanos) > Some(nanos);
        self.goes_back |= self.latest > Some(nanos);
        self.latest = self.latest.max(Some(nanos));
    }

    /// How many interfaces there are, if the frames of each stand in the order of time, but those of all do not: that is how
    /// dumpcap writes what it captures of several, a buffer of each in turn.
    fn lanes(&self) -> Option<usize> {
        let is_mixed = self.goes_back && !self.goes_back_at_one_interface;
        (is_mixed && self.last.len() <= Self::MAX_LANES).then_some(self.last.len())
    }
}

/// A capture that is being read.
#[derive(Debug)]
pub struct Capture {
    input: Input,
    format: Format,
    ports: Ports,
    as_it_stands: bool,
    /// The only interface whose frames are taken; those of others are passed over.
    only: Option<usize>,
    /// Frames read so far.
    number: u64,
    raw: Raw,
    /// The first frame, which is read to learn of the interfaces in front of it, until it is asked for.
    first: Option<Result<bool, CaptureError>>,
    first_nanos: Option<i128>,
}

impl Capture {
    /// Begins to read: as far as the first frame, so that the interfaces described in front of it are known.
    ///
    /// # Errors
    /// It is no capture, or `reading` names ports in a way that does not fit it.
    pub fn new(from: impl Read + Send + 'static, reading: &Reading) -> Result<Self, CaptureError> {
        let mut input = Input::new(from).map_err(|error| CaptureError::read(0, &error))?;
        let mut format = Format::of(&mut input, reading.keeps_blocks)?;
        let mut raw = Raw::default();
        let first = format.next(&mut input, 1, &mut raw);
        let mut ports = Ports::new(&reading.names);
        ports.describe(format.interfaces())?;
        Ok(Self {
            input,
            format,
            ports,
            as_it_stands: reading.as_it_stands,
            only: None,
            number: 0,
            first_nanos: matches!(first, Ok(true)).then_some(raw.nanos),
            raw,
            first: Some(first),
        })
    }

    /// The names of the ports that frames came in on, or could have, as far as they are known yet.
    pub fn ports(&self) -> &[String] {
        self.ports.names()
    }

    /// When the first frame was captured, in nanoseconds since 1970; `None` if there is none.
    pub const fn first_nanos(&self) -> Option<i128> {
        self.first_nanos
    }

    /// Reads the next frame; `false` behind the last one.
    ///
    /// # Errors
    /// The file is damaged or cut short here; the frames before were read.
    pub fn read(&mut self, frame: &mut Frame) -> Result<bool, CaptureError> {
        if !self.read_placed(frame)? {
            return Ok(false);
        }
        if frame.unjudged.is_none() && !self.as_it_stands {
            frame.unjudged = taken::mend(frame, self.raw.original_len);
        }
        Ok(true)
    }

    /// Reads the next frame as it was captured, and finds its port.
    fn read_placed(&mut self, frame: &mut Frame) -> Result<bool, CaptureError> {
        loop {
            let read = match self.first.take() {
                Some(first) => first?,
                None => self.read_raw()?,
            };
            if !read {
                return Ok(false);
            }
            self.number += 1;
            if self.only.is_none_or(|only| only == self.raw.interface) {
                break;
            }
        }
        frame.number = self.number;
        frame.nanos = self.raw.nanos;
        core::mem::swap(&mut frame.data, &mut self.raw.data);
        frame.captured_len = frame.data.len();
        frame.link_is_made_up = false;
        frame.direction = None;
        frame.offload = Offload::NONE;
        frame.unjudged = self.place(frame)?;
        Ok(true)
    }

    fn read_raw(&mut self) -> Result<bool, CaptureError> {
        self.format.next(&mut self.input, self.number + 1, &mut self.raw)
    }

    /// Reads to the end, or to where the file is damaged, so that all ports are known.
    fn read_over(&mut self) -> ReadOver {
        let (mut frame, mut times) = (Frame::default(), Times::default());
        // The interfaces whose frames all came in on one port: one frame of each tells it.
        let mut have_one = BTreeSet::new();
        while let Ok(true) = self.first.take().unwrap_or_else(|| self.read_raw()) {
            self.number += 1;
            let interface = self.raw.interface;
            times.note(interface, self.raw.nanos);
            if have_one.contains(&interface) {
                continue;
            }
            core::mem::swap(&mut frame.data, &mut self.raw.data);
            frame.captured_len = frame.data.len();
            // Unless its place says otherwise.
            frame.link_is_made_up = true;
            if self.place(&mut frame).is_err() {
                break;
            }
            if !frame.link_is_made_up {
                have_one.insert(interface);
            }
        }
        // Also those that no frame came in on.
        let _ = self.ports.describe(self.format.interfaces());
        ReadOver { frames: self.number, lanes: times.lanes().filter(|_| !self.as_it_stands) }
    }

    /// The same file, of which the frames of one interface are taken only. Its blocks are not kept: nobody would take them.
    fn of_interface(mut self, interface: usize) -> Self {
        if let Format::Pcapng(reader) = &mut self.format {
            reader.keep_no_blocks();
        }
        Self { only: Some(interface), ..self }
    }

    /// All its ports are known: a first reading found them.
    fn complete(&mut self, ports: &[String]) {
        self.ports.complete(ports);
    }

    /// The file describes a single interface, as far as is known yet.
    fn has_one_interface(&self) -> bool {
        self.format.interfaces().len() == 1
    }

    const fn is_pcapng(&self) -> bool {
        matches!(self.format, Format::Pcapng(_))
    }

    /// The block of the frame that was read last, and those before it.
    fn raw_block(&mut self) -> Option<pcapng::RawBlock<'_>> {
        match &mut self.format {
            Format::Pcapng(reader) => reader.raw(),
            Format::Classic(_) => None,
        }
    }

    /// Finds the port that a frame came in on.
    fn place(&mut self, frame: &mut Frame) -> Result<Option<Unjudged>, CaptureError> {
        let interfaces = self.format.interfaces();
        self.ports.describe(interfaces)?;
        let link_type = interfaces[self.raw.interface].link_type;
        let link = match link::to_ethernet(link_type, &mut frame.data) {
            Ok(link) => link,
            Err(unjudged) => return Ok(Some(unjudged)),
        };
        // A made-up header is longer or shorter than the one that was captured.
        let grown = frame.data.len() as isize - frame.captured_len as isize;
        frame.captured_len = frame.data.len();
        self.raw.original_len = self.raw.original_len.saturating_add_signed(grown).max(frame.captured_len);
        // Where both sides were captured in one place, a frame is addressed to whoever took it in there.
        frame.link_is_made_up = link.is_made_up || self.ports.by_side();
        frame.direction = self.raw.direction.or(link.direction);
        frame.place = (0, self.raw.interface as u32, link.index);
        let arrival = ports::Arrival {
            interface: self.raw.interface,
            kernel_index: link.index,
            direction: frame.direction,
            data: &frame.data,
        };
        let Some(port) = self.ports.find(&arrival) else { return Ok(Some(Unjudged::NoPort)) };
        frame.port = port;
        let is_outgoing =
            frame.direction == Some(Direction::Out) && !self.as_it_stands && !self.ports.by_side();
        Ok(is_outgoing.then_some(Unjudged::Outgoing))
    }
}

#[cfg(test)]
mod tests;
