//! Captures: pcapng in, pcapng out.
//!
//! Reading is done here and not by a crate: those that exist refuse captures that Wireshark reads (options without
//! their end mark, `if_tzone`) or forget `if_tsresol`, and none says where in the file it stumbled. Blocks that are
//! not understood are passed over, and kept when a capture is written back with comments.
//!
//! The format: draft-ietf-opsawg-pcapng.

#![forbid(unsafe_code)]

use crate::iface::MAX_IFACES;
use core::fmt;
use core::ops::Range;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and both lengths.
const BLOCK_FRAME: usize = 12;

const LINKTYPE_ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;

/// The longest comment that an option can hold.
const MAX_COMMENT: usize = u16::MAX as usize;

/// The first four bytes of classic captures, in both byte orders, with micro- and nanoseconds.
const CLASSIC: [[u8; 4]; 4] =
    [[0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0xc3, 0xd4], [0x4d, 0x3c, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d]];

/// A capture, read whole and checked.
///
/// Invariant: every range in it lies within its bytes, and every port exists.
#[derive(Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    /// The names of the interfaces that frames came in on, in the order of their description.
    ports: Vec<String>,
    frames: Vec<Frame>,
    sections: Vec<Section>,
}

/// One captured frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its place in [`Capture::ports`].
    pub port: u16,
    /// Nanoseconds since 1970, by the clock of the capture.
    pub nanos: i128,
    /// Bytes that were on the wire; more than were captured if the capture cut it short.
    pub original_len: u32,
    data: Range<usize>,
    /// Where its block begins and ends.
    block: Range<usize>,
}

/// A part of the file with a byte order of its own.
#[derive(Clone, Copy, Debug)]
struct Section {
    at: usize,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }

    fn i64(self, bytes: &[u8]) -> Option<i64> {
        let bytes = bytes.try_into().ok()?;
        Some(match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        })
    }

    const fn write_u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    const fn write_u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// What is wrong with a capture, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CaptureError {
    /// From the start of the file.
    pub offset: usize,
    /// The frame that the block holds, if it holds one; from 1.
    pub frame: Option<usize>,
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

/// An interface as its block describes it; what is wrong with it counts only once a frame names it.
#[derive(Debug)]
struct Interface {
    name: Option<String>,
    linktype: u16,
    ticks: Ticks,
    offset_secs: i64,
    /// Its place in [`Capture::ports`], once a frame came in on it.
    port: Option<u16>,
}

/// How long one unit of a timestamp is (`if_tsresol`).
#[derive(Clone, Copy, Debug)]
enum Ticks {
    PerSecond(u128),
    /// Finer than a nanosecond by more than any number of bits holds.
    Unknown(u8),
}

impl Ticks {
    /// Microseconds, unless the interface says otherwise.
    const DEFAULT: Self = Self::PerSecond(1_000_000);

    fn of(tsresol: u8) -> Self {
        let exponent = u32::from(tsresol & 0x7f);
        let unit =
            if tsresol & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { 1_u128.checked_shl(exponent) };
        unit.map_or(Self::Unknown(tsresol), Self::PerSecond)
    }

    fn nanos(self, timestamp: u64) -> Result<i128, String> {
        match self {
            // 64 bits times a billion is below 2^94.
            Self::PerSecond(unit) => Ok((u128::from(timestamp) * 1_000_000_000 / unit) as i128),
            Self::Unknown(tsresol) => Err(format!("an if_tsresol of {tsresol:#x} cannot be")),
        }
    }
}

impl Capture {
    /// Reads a whole pcapng file.
    ///
    /// # Errors
    /// It is no pcapng, is cut short, or has frames that came from nowhere in particular.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, CaptureError> {
        let mut reader = Reader::new(&bytes);
        while reader.at < bytes.len() {
            reader.block()?;
        }
        let Reader { ports, frames, sections, .. } = reader;
        Ok(Self { bytes, ports, frames, sections })
    }

    /// The names of the interfaces that frames came in on, or could have, in the order of their description.
    pub fn ports(&self) -> &[String] {
        &self.ports
    }

    /// In the order of the file.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The bytes of a frame of this capture.
    pub fn data(&self, frame: &Frame) -> &[u8] {
        &self.bytes[frame.data.clone()]
    }

    /// Writes the capture back up to and with its first `frames` frames, each with a comment of its own in front of
    /// those that it had; an empty comment is none. Everything else stays as it was.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn annotate(
        &self,
        out: &mut impl Write,
        frames: usize,
        mut comment: impl FnMut(usize) -> String,
    ) -> io::Result<()> {
        let mut at = 0;
        let mut sections = self.sections.iter();
        let mut section = sections.next();
        let mut order = Order::Little;
        for (number, frame) in self.frames.iter().enumerate() {
            self.copy(out, at..frame.block.start)?;
            at = frame.block.end;
            while let Some(here) = section.filter(|s| s.at < frame.block.start) {
                order = here.order;
                section = sections.next();
            }
            if number < frames {
                self.annotate_frame(out, frame, order, &comment(number))?;
            }
        }
        self.copy(out, at..self.bytes.len())
    }

    /// Copies blocks as they are, but leaves the length of sections open, since it changes.
    fn copy(&self, out: &mut impl Write, range: Range<usize>) -> io::Result<()> {
        let mut at = range.start;
        for section in self.sections.iter().filter(|s| range.contains(&s.at)) {
            let length = section.at + 16;
            out.write_all(&self.bytes[at..length])?;
            out.write_all(&[0xff; 8])?;
            at = length + 8;
        }
        out.write_all(&self.bytes[at..range.end])
    }

    fn annotate_frame(
        &self,
        out: &mut impl Write,
        frame: &Frame,
        order: Order,
        comment: &str,
    ) -> io::Result<()> {
        let Range { start, end } = frame.block;
        if comment.is_empty() {
            return out.write_all(&self.bytes[start..end]);
        }
        let mut comment = comment.as_bytes();
        comment = &comment[..comment.len().min(MAX_COMMENT)];
        let options = frame.data.end.next_multiple_of(4).min(end - 4);
        let had_options = options < end - 4;
        let grown = 4 + comment.len().next_multiple_of(4) + if had_options { 0 } else { 4 };
        let length = order.write_u32((end - start + grown) as u32);
        out.write_all(&self.bytes[start..start + 4])?;
        out.write_all(&length)?;
        out.write_all(&self.bytes[start + 8..options])?;
        out.write_all(&order.write_u16(OPTION_COMMENT))?;
        out.write_all(&order.write_u16(comment.len() as u16))?;
        out.write_all(comment)?;
        out.write_all(&[0; 3][..comment.len().next_multiple_of(4) - comment.len()])?;
        if had_options {
            out.write_all(&self.bytes[options..end - 4])?;
        } else {
            out.write_all(&[0; 4])?;
        }
        out.write_all(&length)
    }
}

/// Walks the blocks of a file.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    order: Order,
    interfaces: Vec<Interface>,
    ports: Vec<String>,
    frames: Vec<Frame>,
    sections: Vec<Section>,
}

impl<'a> Reader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            order: Order::Little,
            interfaces: Vec::new(),
            ports: Vec::new(),
            frames: Vec::new(),
            sections: Vec::new(),
        }
    }

    fn error(&self, message: impl Into<String>) -> CaptureError {
        CaptureError { offset: self.at, frame: None, message: message.into(), hint: None }
    }

    fn frame_error(&self, message: impl Into<String>, hint: Option<&str>) -> CaptureError {
        let frame = Some(self.frames.len() + 1);
        CaptureError { frame, hint: hint.map(str::to_owned), ..self.error(message) }
    }

    /// Reads one block and steps over it.
    fn block(&mut self) -> Result<(), CaptureError> {
        let rest = &self.bytes[self.at..];
        if self.sections.is_empty() {
            check_beginning(rest)?;
        }
        if rest.get(..4) == Some(&SECTION_HEADER.to_le_bytes()) {
            self.order = byte_order(rest).ok_or_else(|| self.error("a section header without byte order"))?;
        }
        let cut_short = || CaptureError {
            hint: Some("the file is cut short: capture again, or mend it with `pcapfix`".into()),
            ..self.error("a block goes beyond the end of the file")
        };
        let kind = self.order.u32(rest, 0).ok_or_else(cut_short)?;
        let length = self.order.u32(rest, 4).ok_or_else(cut_short)? as usize;
        if length < BLOCK_FRAME || !length.is_multiple_of(4) {
            return Err(self.error(format!("a block cannot be {length} bytes long")));
        }
        let trailer = self.order.u32(rest, length - 4).ok_or_else(cut_short)? as usize;
        if trailer != length {
            return Err(
                self.error(format!("a block says {length} bytes at its head and {trailer} at its end"))
            );
        }
        let body = &rest[8..length - 4];
        match kind {
            SECTION_HEADER => self.section(body)?,
            INTERFACE_DESCRIPTION => self.interface(body)?,
            ENHANCED_PACKET => self.enhanced_packet(body, length)?,
            OBSOLETE_PACKET => self.obsolete_packet(body, length)?,
            SIMPLE_PACKET => {
                return Err(self.frame_error(
                    "a simple packet block says neither when its frame came nor where",
                    Some("capture in enhanced packet blocks, as `dumpcap` does by default"),
                ));
            }
            _ => {}
        }
        self.at += length;
        Ok(())
    }

    fn section(&mut self, body: &[u8]) -> Result<(), CaptureError> {
        let major = self.order.u16(body, 4).filter(|_| body.len() >= 16);
        let major = major.ok_or_else(|| self.error("a section header is too short"))?;
        if major != 1 {
            return Err(self.error(format!("pcapng version {major} is not known here")));
        }
        self.interfaces.clear();
        self.sections.push(Section { at: self.at, order: self.order });
        Ok(())
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), CaptureError> {
        let linktype = self.order.u16(body, 0).filter(|_| body.len() >= 8);
        let linktype = linktype.ok_or_else(|| self.error("an interface description is too short"))?;
        let mut interface =
            Interface { name: None, linktype, ticks: Ticks::DEFAULT, offset_secs: 0, port: None };
        for (code, value) in (Options { bytes: &body[8..], order: self.order }) {
            match code {
                IF_NAME => interface.name = Some(name(value)),
                IF_TSRESOL => interface.ticks = value.first().map_or(Ticks::DEFAULT, |v| Ticks::of(*v)),
                IF_TSOFFSET => interface.offset_secs = self.order.i64(value).unwrap_or(0),
                _ => {}
            }
        }
        // A name makes a port, even if no frame ever comes in there: rules and `out` may name it.
        if linktype == LINKTYPE_ETHERNET
            && let Some(name) = interface.name.as_ref().filter(|name| !name.is_empty())
        {
            interface.port = Some(self.port(&name.clone())?);
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// The same name in another section, or twice in one, is the same port.
    fn port(&mut self, name: &str) -> Result<u16, CaptureError> {
        if let Some(at) = self.ports.iter().position(|port| port == name) {
            return Ok(at as u16);
        }
        if self.ports.len() == MAX_IFACES {
            return Err(self.error(format!("more than {MAX_IFACES} interfaces")));
        }
        self.ports.push(name.to_owned());
        Ok(self.ports.len() as u16 - 1)
    }

    fn enhanced_packet(&mut self, body: &[u8], length: usize) -> Result<(), CaptureError> {
        let interface = self.order.u32(body, 0);
        self.packet(body, interface, length)
    }

    /// The block that enhanced ones replaced: its interface has 16 bits, and a count of drops follows it.
    fn obsolete_packet(&mut self, body: &[u8], length: usize) -> Result<(), CaptureError> {
        let interface = self.order.u16(body, 0).map(u32::from);
        self.packet(body, interface, length)
    }

    fn packet(&mut self, body: &[u8], interface: Option<u32>, length: usize) -> Result<(), CaptureError> {
        let field =
            |at| self.order.u32(body, at).ok_or_else(|| self.frame_error("its block is too short", None));
        let interface = interface.ok_or_else(|| self.frame_error("its block is too short", None))?;
        let timestamp = u64::from(field(4)?) << 32 | u64::from(field(8)?);
        let (captured, original_len) = (field(12)? as usize, field(16)?);
        if captured > body.len() - 20 {
            return Err(self.frame_error(format!("its {captured} bytes do not fit its block"), None));
        }
        let (port, nanos) = self.origin(interface, timestamp)?;
        let data = self.at + 28..self.at + 28 + captured;
        self.frames.push(Frame { port, nanos, original_len, data, block: self.at..self.at + length });
        Ok(())
    }

    /// Where and when a frame came in.
    fn origin(&self, interface: u32, timestamp: u64) -> Result<(u16, i128), CaptureError> {
        let Some(found) = self.interfaces.get(interface as usize) else {
            let known = self.interfaces.len();
            let message = format!("its interface {interface} is not among the {known} of its section");
            return Err(self.frame_error(message, None));
        };
        if found.linktype != LINKTYPE_ETHERNET {
            let message =
                format!("its interface {interface} is not Ethernet, but link type {}", found.linktype);
            let hint = "capture on an Ethernet interface or a TAP, not on `any` or a tunnel";
            return Err(self.frame_error(message, Some(hint)));
        }
        let Some(port) = found.port else {
            let message =
                format!("its interface {interface} has no if_name, which is what ports are called by");
            let hint = "capture with `dumpcap -i NAME`, which writes the name; `tcpdump` does not";
            return Err(self.frame_error(message, Some(hint)));
        };
        let nanos = found.ticks.nanos(timestamp).map_err(|why| self.frame_error(why, None))?;
        Ok((port, nanos + i128::from(found.offset_secs) * 1_000_000_000))
    }
}

/// Files of other kinds are better told apart than called broken.
fn check_beginning(bytes: &[u8]) -> Result<(), CaptureError> {
    if bytes.get(..4) == Some(&SECTION_HEADER.to_le_bytes()) {
        return Ok(());
    }
    let (message, hint) = if CLASSIC.iter().any(|magic| bytes.starts_with(magic)) {
        let hint =
            "capture as pcapng (`dumpcap -i NAME -w FILE.pcapng`): the classic format has no interface names";
        ("a classic pcap file, not pcapng", Some(hint))
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        ("a compressed file, not pcapng", Some("unpack it first: `gzip -d`"))
    } else {
        ("not a pcapng file", None)
    };
    Err(CaptureError { offset: 0, frame: None, message: message.into(), hint: hint.map(str::to_owned) })
}

fn byte_order(section_header: &[u8]) -> Option<Order> {
    let magic = section_header.get(8..12)?;
    if magic == BYTE_ORDER_MAGIC.to_le_bytes() {
        Some(Order::Little)
    } else if magic == BYTE_ORDER_MAGIC.to_be_bytes() {
        Some(Order::Big)
    } else {
        None
    }
}

/// Some writers end their strings with a zero.
fn name(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The options of a block, as far as they can be read.
struct Options<'a> {
    bytes: &'a [u8],
    order: Order,
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let code = self.order.u16(self.bytes, 0).filter(|code| *code != OPTION_END)?;
        let length = usize::from(self.order.u16(self.bytes, 2)?);
        let value = self.bytes.get(4..4 + length)?;
        self.bytes = self.bytes.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    }
}

/// Writes a new capture, with times in nanoseconds.
#[expect(missing_debug_implementations, reason = "the writer within has none")]
pub struct Writer<W: Write> {
    inner: pcap_file::pcapng::PcapNgWriter<W>,
}

impl<W: Write> Writer<W> {
    /// A capture of these interfaces.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn new<'a>(out: W, ports: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let mut inner = pcap_file::pcapng::PcapNgWriter::new(out).map_err(io_error)?;
        for port in ports {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(port)),
                InterfaceDescriptionOption::IfTsResol(9),
            ];
            let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
            inner.write_pcapng_block(block).map_err(io_error)?;
        }
        Ok(Self { inner })
    }

    /// Adds a frame that was seen on the `port`th interface, so long after 1970; an empty comment is none.
    ///
    /// # Errors
    /// It cannot be written, or there is no such interface.
    pub fn frame(&mut self, port: usize, at: Duration, frame: &[u8], comment: &str) -> io::Result<()> {
        self.cut_frame(port, at, frame, frame.len(), comment)
    }

    /// As [`Writer::frame`], of a frame that was longer.
    ///
    /// # Errors
    /// It cannot be written, or there is no such interface.
    pub fn cut_frame(
        &mut self,
        port: usize,
        at: Duration,
        frame: &[u8],
        original_len: usize,
        comment: &str,
    ) -> io::Result<()> {
        let options = if comment.is_empty() {
            Vec::new()
        } else {
            let end = comment.floor_char_boundary(MAX_COMMENT);
            vec![EnhancedPacketOption::Comment(Cow::Borrowed(&comment[..end]))]
        };
        let block = EnhancedPacketBlock {
            interface_id: port as u32,
            timestamp: at,
            original_len: original_len as u32,
            data: Cow::Borrowed(frame),
            options,
        };
        self.inner.write_pcapng_block(block).map(drop).map_err(io_error)
    }

    /// What is written to.
    pub fn get_mut(&mut self) -> &mut W {
        self.inner.get_mut()
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.inner.into_inner()
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    }
}

pub mod nflog;

#[cfg(test)]
mod tests;
