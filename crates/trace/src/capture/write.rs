//! Captures that are written: new ones, and old ones with comments.

#![forbid(unsafe_code)]

use super::order::Order;
use super::pcapng::OPTION_COMMENT;
use super::{Capture, Direction, Frame, Frames};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// The longest comment that an option can hold.
const MAX_COMMENT: usize = u16::MAX as usize;

/// Writes a capture back as it is read, with a comment for each frame in front of those that it had. Of a pcapng file
/// everything else stays as it was; any other becomes pcapng, with Ethernet frames, and so does one whose interfaces had to be
/// put in the order of time.
#[expect(missing_debug_implementations, reason = "the writer within has none")]
pub struct Annotator<W: Write> {
    out: To<W>,
}

enum To<W: Write> {
    /// Blocks are copied.
    Blocks(W),
    /// Frames are written anew.
    Frames(Writer<W>),
}

impl<W: Write> Annotator<W> {
    /// `capture` was opened with its blocks kept ([`super::Reading::keeps_blocks`]).
    pub(super) fn new(out: W, capture: &Capture) -> io::Result<Self> {
        if capture.is_pcapng() { Ok(Self { out: To::Blocks(out) }) } else { Self::anew(out, capture.ports()) }
    }

    /// Writes frames of these ports, and nothing else of the file that they come from.
    pub(super) fn anew(out: W, ports: &[String]) -> io::Result<Self> {
        Ok(Self { out: To::Frames(Writer::new(out, ports.iter().map(String::as_str))?) })
    }

    /// Writes the frame that was read last; an empty comment is none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn frame(&mut self, frames: &mut Frames, frame: &Frame, comment: &str) -> io::Result<()> {
        match &mut self.out {
            To::Blocks(out) => frames.only_capture().and_then(Capture::raw_block).map_or(Ok(()), |block| {
                pass(out, block.passed)?;
                annotate(out, block.order, block.block, block.options, comment)
            }),
            To::Frames(writer) if frame.unjudged.is_none() => {
                let at = Duration::from_nanos(u64::try_from(frame.nanos).unwrap_or(0));
                let captured = &frame.data[..frame.captured_len];
                writer.cut_frame(frame.port.into(), at, captured, frame.data.len(), comment)
            }
            To::Frames(_) => Ok(()),
        }
    }

    /// Writes what stood behind the last frame.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, frames: &mut Frames) -> io::Result<()> {
        match &mut self.out {
            To::Blocks(out) => {
                let last = frames.only_capture().and_then(Capture::raw_block);
                last.map_or(Ok(()), |block| pass(out, block.passed))?;
                out.flush()
            }
            To::Frames(writer) => writer.get_mut().flush(),
        }
    }
}

fn pass(out: &mut impl Write, passed: &mut Vec<u8>) -> io::Result<()> {
    out.write_all(passed)?;
    passed.clear();
    Ok(())
}

/// Writes a packet block with one more comment. `options` is where its options begin.
fn annotate(
    out: &mut impl Write,
    order: Order,
    block: &[u8],
    options: usize,
    comment: &str,
) -> io::Result<()> {
    if comment.is_empty() {
        return out.write_all(block);
    }
    let comment = &comment.as_bytes()[..comment.floor_char_boundary(MAX_COMMENT)];
    let (padded, end) = (comment.len().next_multiple_of(4), block.len() - 4);
    let had_options = options < end;
    let length = order.write_u32((block.len() + 4 + padded + if had_options { 0 } else { 4 }) as u32);
    out.write_all(&block[..4])?;
    out.write_all(&length)?;
    out.write_all(&block[8..options])?;
    out.write_all(&order.write_u16(OPTION_COMMENT))?;
    out.write_all(&order.write_u16(comment.len() as u16))?;
    out.write_all(comment)?;
    out.write_all(&[0; 3][..padded - comment.len()])?;
    out.write_all(if had_options { &block[options..end] } else { &[0; 4] })?;
    out.write_all(&length)
}

/// A frame to be written.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The number of its interface.
    pub port: usize,
    /// Since 1970.
    pub at: Duration,
    pub frame: &'a [u8],
    /// Bytes that were on the link.
    pub original_len: usize,
    pub direction: Option<Direction>,
    /// Empty for none.
    pub comment: &'a str,
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
        self.record(&Record { port, at, frame, original_len, direction: None, comment })
    }

    /// Adds a frame with all that is known of it.
    ///
    /// # Errors
    /// It cannot be written, or there is no such interface.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        let Record { port, at, frame, original_len, direction, comment } = record;
        let mut options = Vec::new();
        if let Some(direction) = direction {
            options.push(EnhancedPacketOption::Flags(match direction {
                Direction::In => 1,
                Direction::Out => 2,
            }));
        }
        if !comment.is_empty() {
            let end = comment.floor_char_boundary(MAX_COMMENT);
            options.push(EnhancedPacketOption::Comment(Cow::Borrowed(&comment[..end])));
        }
        let block = EnhancedPacketBlock {
            interface_id: *port as u32,
            timestamp: *at,
            original_len: *original_len as u32,
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
