//! The classic format of libpcap, as `tcpdump -w` writes it: one link type, no interface names.
//!
//! The format: draft-ietf-opsawg-pcap.

#![forbid(unsafe_code)]

use super::input::{Filled, Input};
use super::order::Order;
use super::{CaptureError, Interface, Raw};

const HEADER: usize = 24;
const RECORD: usize = 16;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The longest record; libpcap itself takes 256 KiB (`MAXIMUM_SNAPLEN`), and USB captures more.
const MAX_RECORD: usize = 1 << 24;

/// Walks the records of a file.
#[derive(Debug)]
pub(super) struct Reader {
    order: Order,
    /// Nanoseconds in one unit of the fraction.
    unit: i128,
    /// The one interface, once the header is read.
    interfaces: Vec<Interface>,
    record: Vec<u8>,
}

impl Reader {
    /// `None` if the file begins otherwise.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let known = |order: Order| {
            let unit = match order.u32(head, 0)? {
                MICROSECONDS => 1_000,
                NANOSECONDS => 1,
                _ => return None,
            };
            Some(Self { order, unit, interfaces: Vec::new(), record: Vec::new() })
        };
        known(Order::Little).or_else(|| known(Order::Big))
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Reads the next frame into `raw`; `false` at the end of the file.
    pub(super) fn next(
        &mut self,
        input: &mut Input,
        number: u64,
        raw: &mut Raw,
    ) -> Result<bool, CaptureError> {
        if self.interfaces.is_empty() {
            self.header(input)?;
        }
        let at = input.offset();
        if self.take(input, RECORD, at, "the head of a record")? == Filled::End {
            return Ok(false);
        }
        let field = |at| self.order.u32(&self.record, at).unwrap_or_default();
        let (seconds, fraction) = (i128::from(field(0)), i128::from(field(4)));
        let (captured, original) = (field(8) as usize, field(12) as usize);
        if captured > MAX_RECORD {
            return Err(CaptureError::new(at, format!("a record cannot hold {captured} bytes"))
                .hint("the file is damaged here")
                .of_frame(number));
        }
        raw.interface = 0;
        raw.nanos = seconds * 1_000_000_000 + fraction * self.unit;
        raw.direction = None;
        raw.original_len = original.max(captured);
        raw.data.clear();
        match input.append(&mut raw.data, captured).map_err(|error| CaptureError::read(at, &error))? {
            Filled::Whole => Ok(true),
            Filled::End | Filled::Cut => Err(CaptureError::cut_short(at, "a record")),
        }
    }

    fn header(&mut self, input: &mut Input) -> Result<(), CaptureError> {
        if self.take(input, HEADER, 0, "its header")? == Filled::End {
            return Err(CaptureError::cut_short(0, "its header"));
        }
        // The upper bits tell of a frame check sequence, and are not of the type.
        let link_type = self.order.u32(&self.record, 20).unwrap_or_default() & 0x0fff_ffff;
        self.interfaces.push(Interface { name: None, link_type });
        Ok(())
    }

    /// Reads so many bytes into `record`; whole or not at all.
    fn take(&mut self, input: &mut Input, len: usize, at: u64, what: &str) -> Result<Filled, CaptureError> {
        self.record.clear();
        match input.append(&mut self.record, len).map_err(|error| CaptureError::read(at, &error))? {
            Filled::Cut => Err(CaptureError::cut_short(at, what)),
            filled => Ok(filled),
        }
    }
}
