//! The classic format of libpcap, as `tcpdump -w` writes it: one link type, no interface names.
//!
//! The format: draft-ietf-opsawg-pcap.

#![forbid(unsafe_code)]

use super::input::Input;
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
            Some(Self { order, unit, interfaces: Vec::new() })
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
        let read = |error| CaptureError::read(at, &error);
        let head = input.peek(RECORD).map_err(read)?;
        if head.is_empty() {
            return Ok(false);
        }
        let field = |at| self.order.u32(head, at).ok_or(());
        let (Ok(seconds), Ok(fraction), Ok(captured), Ok(original)) =
            (field(0), field(4), field(8), field(12))
        else {
            return Err(CaptureError::cut_short(at, "the head of a record"));
        };
        let (captured, original) = (captured as usize, original as usize);
        if captured > MAX_RECORD {
            return Err(CaptureError::new(at, format!("a record cannot hold {captured} bytes"))
                .hint("the file is damaged here")
                .of_frame(number));
        }
        raw.interface = 0;
        raw.nanos = i128::from(seconds) * 1_000_000_000 + i128::from(fraction) * self.unit;
        raw.direction = None;
        raw.original_len = original.max(captured);
        let record = input.peek(RECORD + captured).map_err(read)?;
        let data = record.get(RECORD..RECORD + captured);
        raw.data.clear();
        raw.data.extend_from_slice(data.ok_or_else(|| CaptureError::cut_short(at, "a record"))?);
        input.take(RECORD + captured);
        Ok(true)
    }

    fn header(&mut self, input: &mut Input) -> Result<(), CaptureError> {
        let head = input.peek(HEADER).map_err(|error| CaptureError::read(0, &error))?;
        // The upper bits tell of a frame check sequence, and are not of the type.
        let link_type = head.get(..HEADER).and_then(|head| self.order.u32(head, 20));
        let link_type = link_type.ok_or_else(|| CaptureError::cut_short(0, "its header"))? & 0x0fff_ffff;
        input.take(HEADER);
        self.interfaces.push(Interface { name: None, link_type });
        Ok(())
    }
}
