//! The blocks of a pcapng file, one after the other. Blocks that are not understood are passed over, and kept when a
//! capture is written back with comments.
//!
//! The format: draft-ietf-opsawg-pcapng.

#![forbid(unsafe_code)]

use super::input::Input;
use super::order::Order;
use super::{CaptureError, Direction, Interface, Raw};

pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
pub(super) const OBSOLETE_PACKET: u32 = 2;
pub(super) const SIMPLE_PACKET: u32 = 3;
pub(super) const ENHANCED_PACKET: u32 = 6;
pub(super) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and both lengths.
const BLOCK_FRAME: usize = 12;
/// The longest block that is read. Packets are bounded by 256 KiB (libpcap's `MAXIMUM_SNAPLEN`); the rest is for what
/// is passed over, such as name tables and embedded secrets.
const MAX_BLOCK: usize = 1 << 24;
/// Where the data of a packet begins in its block, whether enhanced or obsolete.
const PACKET_DATA: usize = 28;

pub(super) const OPTION_END: u16 = 0;
pub(super) const OPTION_COMMENT: u16 = 1;
pub(super) const IF_NAME: u16 = 2;
pub(super) const IF_TSRESOL: u16 = 9;
pub(super) const IF_TSOFFSET: u16 = 14;
const EPB_FLAGS: u16 = 2;

pub(super) fn is_pcapng(head: &[u8]) -> bool {
    head.starts_with(&SECTION_HEADER.to_le_bytes())
}

/// Walks the blocks of a file.
#[derive(Debug, Default)]
pub(super) struct Reader {
    order: Order,
    /// Those of all sections.
    interfaces: Vec<Interface>,
    clocks: Vec<Clock>,
    /// Where the interfaces of this section begin.
    section: usize,
    /// What is to be written back, if that is wanted.
    kept: Option<Kept>,
}

/// Blocks that are kept until the next frame.
#[derive(Debug, Default)]
struct Kept {
    /// Those since the frame before.
    passed: Vec<u8>,
    /// That of the frame that was read last.
    block: Vec<u8>,
    /// Where its options begin.
    options: usize,
}

/// How an interface counts time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ticks: Ticks,
    offset_secs: i64,
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
            // The usual units, without a division of 128 bits.
            Self::PerSecond(1_000_000) => Ok(i128::from(timestamp) * 1_000),
            Self::PerSecond(1_000_000_000) => Ok(i128::from(timestamp)),
            // 64 bits times a billion is below 2^94.
            Self::PerSecond(unit) => Ok((u128::from(timestamp) * 1_000_000_000 / unit) as i128),
            Self::Unknown(tsresol) => Err(format!("an if_tsresol of {tsresol:#x} cannot be")),
        }
    }
}

impl Reader {
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// `keeps_blocks`: those between frames are kept for [`Reader::raw`].
    pub(super) fn new(keeps_blocks: bool) -> Self {
        Self { kept: keeps_blocks.then(Kept::default), ..Self::default() }
    }

    /// From here on none is kept.
    pub(super) fn keep_no_blocks(&mut self) {
        self.kept = None;
    }

    /// The blocks before the frame that was read last, and its own, if blocks are kept.
    pub(super) fn raw(&mut self) -> Option<RawBlock<'_>> {
        let Self { order, kept, .. } = self;
        let Kept { passed, block, options } = kept.as_mut()?;
        Some(RawBlock { passed, order: *order, block, options: *options })
    }

    /// Reads the next frame into `raw`; `false` at the end of the file.
    pub(super) fn next(
        &mut self,
        input: &mut Input,
        number: u64,
        raw: &mut Raw,
    ) -> Result<bool, CaptureError> {
        loop {
            let at = input.offset();
            let Some((kind, length)) = self.head(input, at)? else { return Ok(false) };
            let bytes = input.peek(length).map_err(|error| CaptureError::read(at, &error))?;
            let block = bytes.get(..length).ok_or_else(|| CaptureError::cut_short(at, "a block"))?;
            let trailer = self.order.u32(block, length - 4).unwrap_or_default() as usize;
            if trailer != length {
                let message = format!("a block says {length} bytes at its head and {trailer} at its end");
                return Err(CaptureError::new(at, message));
            }
            let is_frame = self.read(kind, block, raw, at).map_err(|error| match kind {
                ENHANCED_PACKET | OBSOLETE_PACKET | SIMPLE_PACKET => error.of_frame(number),
                _ => error,
            })?;
            input.take(length);
            if is_frame {
                return Ok(true);
            }
        }
    }

    /// The type of the next block and its length; `None` at the end of the file.
    fn head(&mut self, input: &mut Input, at: u64) -> Result<Option<(u32, usize)>, CaptureError> {
        let head = input.peek(BLOCK_FRAME).map_err(|error| CaptureError::read(at, &error))?;
        if head.is_empty() {
            return Ok(None);
        }
        if head.len() < BLOCK_FRAME {
            return Err(CaptureError::cut_short(at, "a block"));
        }
        if head.starts_with(&SECTION_HEADER.to_le_bytes()) {
            self.order = byte_order(head)
                .ok_or_else(|| CaptureError::new(at, "a section header without byte order"))?;
        }
        let kind = self.order.u32(head, 0).unwrap_or_default();
        let length = self.order.u32(head, 4).unwrap_or_default() as usize;
        if !(BLOCK_FRAME..=MAX_BLOCK).contains(&length) || !length.is_multiple_of(4) {
            return Err(CaptureError::new(at, format!("a block cannot be {length} bytes long")));
        }
        Ok(Some((kind, length)))
    }

    /// Reads one block; `true` if it was a frame.
    fn read(&mut self, kind: u32, block: &[u8], raw: &mut Raw, at: u64) -> Result<bool, CaptureError> {
        let body = &block[8..block.len() - 4];
        match kind {
            ENHANCED_PACKET | OBSOLETE_PACKET => {
                let options = self.packet(kind, block, raw).map_err(|why| CaptureError::new(at, why))?;
                if let Some(kept) = &mut self.kept {
                    kept.block.clear();
                    kept.block.extend_from_slice(block);
                    kept.options = options;
                }
                return Ok(true);
            }
            SIMPLE_PACKET => {
                let why = "a simple packet block says neither when its frame came nor where";
                return Err(CaptureError::new(at, why)
                    .hint("capture in enhanced packet blocks, as `dumpcap` does by default"));
            }
            SECTION_HEADER => self.start_section(body, at)?,
            INTERFACE_DESCRIPTION => self.describe(body, at)?,
            _ => {}
        }
        if let Some(Kept { passed, .. }) = &mut self.kept {
            let start = passed.len();
            passed.extend_from_slice(block);
            // The length of a section changes when comments come in; it is left open.
            if kind == SECTION_HEADER {
                passed[start + 16..start + 24].fill(0xff);
            }
        }
        Ok(false)
    }

    fn start_section(&mut self, body: &[u8], at: u64) -> Result<(), CaptureError> {
        let major = self.order.u16(body, 4).filter(|_| body.len() >= 16);
        let major = major.ok_or_else(|| CaptureError::new(at, "a section header is too short"))?;
        if major != 1 {
            return Err(CaptureError::new(at, format!("pcapng version {major} is not known here")));
        }
        self.section = self.interfaces.len();
        Ok(())
    }

    fn describe(&mut self, body: &[u8], at: u64) -> Result<(), CaptureError> {
        let link_type = self.order.u16(body, 0).filter(|_| body.len() >= 8);
        let link_type =
            link_type.ok_or_else(|| CaptureError::new(at, "an interface description is too short"))?;
        let mut interface = Interface { name: None, link_type: link_type.into() };
        let mut clock = Clock { ticks: Ticks::DEFAULT, offset_secs: 0 };
        for (code, value) in (Options { bytes: &body[8..], order: self.order }) {
            match code {
                IF_NAME => interface.name = Some(name(value)).filter(|name| !name.is_empty()),
                IF_TSRESOL => clock.ticks = value.first().map_or(Ticks::DEFAULT, |v| Ticks::of(*v)),
                IF_TSOFFSET => clock.offset_secs = self.order.i64(value).unwrap_or(0),
                _ => {}
            }
        }
        self.interfaces.push(interface);
        self.clocks.push(clock);
        Ok(())
    }

    /// Reads the packet in the block, and says where its options begin. In the obsolete one, the interface has 16 bits, and
    /// a count of drops follows it.
    fn packet(&self, kind: u32, block: &[u8], raw: &mut Raw) -> Result<usize, String> {
        const TOO_SHORT: &str = "its block is too short";
        let body = &block[8..block.len() - 4];
        let field = |at| self.order.u32(body, at).ok_or(TOO_SHORT);
        let interface = match kind {
            OBSOLETE_PACKET => self.order.u16(body, 0).ok_or(TOO_SHORT)?.into(),
            _ => field(0)? as usize,
        };
        let timestamp = u64::from(field(4)?) << 32 | u64::from(field(8)?);
        let (captured, original) = (field(12)? as usize, field(16)? as usize);
        let data =
            body[20..].get(..captured).ok_or_else(|| format!("its {captured} bytes do not fit its block"))?;
        let known = self.interfaces.len() - self.section;
        if interface >= known {
            return Err(format!("its interface {interface} is not among the {known} of its section"));
        }
        raw.interface = self.section + interface;
        let clock = self.clocks[raw.interface];
        raw.nanos = clock.ticks.nanos(timestamp)? + i128::from(clock.offset_secs) * 1_000_000_000;
        raw.original_len = original.max(captured);
        raw.data.clear();
        raw.data.extend_from_slice(data);
        let end = block.len() - 4;
        let options = (PACKET_DATA + captured.next_multiple_of(4)).min(end);
        raw.direction = self.direction(kind, &block[options..end]);
        Ok(options)
    }

    /// What `epb_flags` says (draft-ietf-opsawg-pcapng §4.3.1): 1 came in, 2 went out.
    fn direction(&self, kind: u32, options: &[u8]) -> Option<Direction> {
        if kind != ENHANCED_PACKET || options.is_empty() {
            return None;
        }
        let mut options = Options { bytes: options, order: self.order };
        let flags = options.find(|(code, _)| *code == EPB_FLAGS)?.1;
        match self.order.u32(flags, 0)? & 3 {
            1 => Some(Direction::In),
            2 => Some(Direction::Out),
            _ => None,
        }
    }
}

/// A frame's block and those before it, to be written back.
#[derive(Debug)]
pub(super) struct RawBlock<'a> {
    pub(super) passed: &'a mut Vec<u8>,
    pub(super) order: Order,
    pub(super) block: &'a [u8],
    /// Where its options begin; at its last four bytes if it has none.
    pub(super) options: usize,
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
