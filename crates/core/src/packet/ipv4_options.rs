//! IPv4 options as a router treats them: checked, filled in on the way, echoed in an answer (RFC 791 §3.1, RFC 1812
//! §4.2.2.2, §5.3.13).

#![forbid(unsafe_code)]

use super::checksum::Sum;
use super::{Addr, ETHERNET_LEN, Packet};

const HEADER_LEN: usize = 20;
const END: u8 = 0;
const NOP: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
/// A security label (CIPSO): refused by a kernel that knows no domain of interpretation.
const CIPSO: u8 = 134;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// What a timestamp option asks for: the low half of its flags.
const TS_ONLY: u8 = 0;
const TS_AND_ADDRESS: u8 = 1;
const TS_PRESPECIFIED: u8 = 3;

/// The options of one packet, checked.
///
/// Places are counted from the start of the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Options {
    record_route: Option<usize>,
    /// The router's address was written down; on the way out the one of that side replaces it.
    records_address: bool,
    timestamp: Option<usize>,
    stamps_address: bool,
    stamps_time: bool,
    pub source_route: bool,
    /// The source route has passed another hop than its sender, through which an answer would have to go back.
    pub answers_by_source_route: bool,
    cipso: Option<usize>,
    /// Bytes were changed: the header checksum is to be computed on the way out.
    changed: bool,
}

/// An option that cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOption {
    /// Which byte of the packet, as a parameter problem states it.
    pub pointer: u8,
    /// What was understood before it.
    pub until_then: Ipv4Options,
}

/// What a router writes into options.
pub struct Here<'a> {
    /// Its address towards the sender.
    pub addr: Addr,
    /// Milliseconds since midnight UTC; some other count if the high bit is set (RFC 791 §3.1).
    pub stamp: u32,
    pub is_own: &'a dyn Fn(Addr) -> bool,
}

impl Ipv4Options {
    /// Checks the options of a packet that has some, and writes into them what a router writes when a packet comes.
    ///
    /// The header checksum is not touched: Linux quotes such a packet with its old one.
    ///
    /// # Errors
    /// The first one that is wrong.
    pub fn read(pkt: &mut Packet, here: &Here) -> Result<Self, BadOption> {
        let header_len = usize::from(pkt.l3()[0] & 0x0f) * 4;
        let header = &mut pkt.l3_mut()[..header_len];
        let mut options = Self::default();
        let sender = [header[12], header[13], header[14], header[15]];
        let mut at = HEADER_LEN;
        while at < header_len {
            match header[at] {
                END => {
                    options.changed |= header[at..].iter().any(|&b| b != END);
                    header[at..].fill(END);
                    break;
                }
                NOP => at += 1,
                kind => {
                    let len = header.get(at + 1).map_or(0, |&len| usize::from(len));
                    let wrong = if len < 2 || len > header_len - at {
                        Err(0)
                    } else {
                        options.read_one(kind, at, &mut header[at..at + len], sender, here)
                    };
                    if let Err(inside) = wrong {
                        return Err(BadOption { pointer: (at + inside) as u8, until_then: options });
                    }
                    at += len;
                }
            }
        }
        Ok(options)
    }

    /// The error is the byte of the option that is wrong.
    fn read_one(
        &mut self,
        kind: u8,
        at: usize,
        option: &mut [u8],
        sender: [u8; 4],
        here: &Here,
    ) -> Result<(), usize> {
        match kind {
            RECORD_ROUTE => self.read_record_route(at, option, here),
            TIMESTAMP => self.read_timestamp(at, option, here),
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => {
                if option.len() < 3 {
                    return Err(1);
                }
                if option[2] < 4 {
                    return Err(2);
                }
                if self.source_route {
                    return Err(0);
                }
                self.source_route = true;
                self.answers_by_source_route = has_passed_others(option, sender);
                Ok(())
            }
            ROUTER_ALERT if option.len() < 4 => Err(1),
            CIPSO => {
                self.cipso = Some(at);
                Err(if option.len() < 8 { 1 } else { 2 })
            }
            _ => Ok(()),
        }
    }

    fn read_record_route(&mut self, at: usize, option: &mut [u8], here: &Here) -> Result<(), usize> {
        if self.record_route.is_some() {
            return Err(0);
        }
        if option.len() < 3 {
            return Err(1);
        }
        let pointer = usize::from(option[2]);
        if pointer < 4 {
            return Err(2);
        }
        if pointer <= option.len() {
            if pointer + 3 > option.len() {
                return Err(2);
            }
            option[pointer - 1..pointer + 3].copy_from_slice(&here.addr.v4());
            option[2] += 4;
            (self.records_address, self.changed) = (true, true);
        }
        self.record_route = Some(at);
        Ok(())
    }

    fn read_timestamp(&mut self, at: usize, option: &mut [u8], here: &Here) -> Result<(), usize> {
        if self.timestamp.is_some() {
            return Err(0);
        }
        if option.len() < 4 {
            return Err(1);
        }
        let (pointer, wanted) = (usize::from(option[2]), option[3] & 0x0f);
        if pointer < 5 {
            return Err(2);
        }
        if pointer <= option.len() {
            if pointer + 3 > option.len() {
                return Err(2);
            }
            self.stamp(option, pointer, wanted, here)?;
        } else if wanted != TS_PRESPECIFIED {
            // No room: only counted, and the count has four bits.
            if option[3] >> 4 == 15 {
                return Err(3);
            }
            option[3] += 0x10;
            self.changed = true;
        }
        self.timestamp = Some(at);
        Ok(())
    }

    fn stamp(&mut self, option: &mut [u8], pointer: usize, wanted: u8, here: &Here) -> Result<(), usize> {
        let room_for_both = pointer + 7 <= option.len();
        let at = match wanted {
            TS_ONLY => pointer - 1,
            TS_AND_ADDRESS | TS_PRESPECIFIED if !room_for_both => return Err(2),
            TS_AND_ADDRESS => {
                option[pointer - 1..pointer + 3].copy_from_slice(&here.addr.v4());
                self.stamps_address = true;
                pointer + 3
            }
            TS_PRESPECIFIED => {
                let [a, b, c, d] =
                    [option[pointer - 1], option[pointer], option[pointer + 1], option[pointer + 2]];
                if !(here.is_own)(Addr::from_v4([a, b, c, d])) {
                    return Ok(());
                }
                pointer + 3
            }
            _ => return Ok(()),
        };
        option[at..at + 4].copy_from_slice(&here.stamp.to_be_bytes());
        option[2] = (at + 5) as u8;
        (self.stamps_time, self.changed) = (true, true);
        Ok(())
    }

    /// The header checksum does not fit any more what was written into the options.
    pub const fn is_changed(&self) -> bool {
        self.changed
    }

    /// Finishes the options of a packet that is forwarded: its route is recorded with the address of the way out.
    pub fn forward(&self, pkt: &mut Packet, out: Addr) {
        let header_len = usize::from(pkt.l3()[0] & 0x0f) * 4;
        let header = &mut pkt.l3_mut()[..header_len];
        if let (Some(at), true) = (self.record_route, self.records_address) {
            let last = at + usize::from(header[at + 2]) - 5;
            header[last..last + 4].copy_from_slice(&out.v4());
        }
        if self.changed {
            header[10..12].fill(0);
            let checksum = Sum::ZERO.bytes(header).checksum();
            pkt.frame_mut()[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    /// The options of an answer to the packet: what it recorded comes back, and goes on recording (RFC 1122 §3.2.2.6). `None`
    /// where what is left of a recorded route is too short for one address more: Linux then does not answer.
    pub fn echo(&self, pkt: &Packet, out: Addr, stamp: u32) -> Option<Vec<u8>> {
        let l3 = pkt.l3();
        let option = |at: usize| l3[at..at + usize::from(l3[at + 1])].to_vec();
        let mut echo = Vec::new();
        if let Some(at) = self.record_route {
            let mut option = option(at);
            let pointer = usize::from(option[2]);
            if self.records_address && pointer <= option.len() {
                if pointer + 3 > option.len() {
                    return None;
                }
                option[pointer - 1..pointer + 3].copy_from_slice(&out.v4());
                option[2] += 4;
            }
            echo.extend(option);
        }
        if let Some(at) = self.timestamp {
            let mut option = option(at);
            self.echo_timestamp(&mut option, out, stamp);
            echo.extend(option);
        }
        if let Some(at) = self.cipso {
            echo.extend(option(at));
        }
        echo.resize(echo.len().next_multiple_of(4), END);
        Some(echo)
    }

    fn echo_timestamp(&self, option: &mut [u8], out: Addr, stamp: u32) {
        let mut pointer = usize::from(option[2]);
        let takes = if self.stamps_address { 8 } else { 4 };
        if !self.stamps_time || option[3] & 0x0f == TS_PRESPECIFIED || pointer + takes - 1 > option.len() {
            return;
        }
        if self.stamps_address {
            option[pointer - 1..pointer + 3].copy_from_slice(&out.v4());
            pointer += 4;
        }
        option[pointer - 1..pointer + 3].copy_from_slice(&stamp.to_be_bytes());
        option[2] = (pointer + 4) as u8;
    }
}

/// Whether the pointer of a source route is behind a hop that is not its sender. The first one may be (RFC 1812 §5.2.4.1).
fn has_passed_others(option: &[u8], sender: [u8; 4]) -> bool {
    let passed = usize::from(option[2]).min(option.len() + 1) - 4;
    let hops: Vec<&[u8]> = option[3..].get(passed % 4..passed).unwrap_or_default().chunks_exact(4).collect();
    hops.len() > 1 || hops.first().is_some_and(|first| *first != sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Offload;

    const NEAR: Addr = Addr::from_v4([192, 0, 2, 1]);
    const FAR: Addr = Addr::from_v4([198, 51, 100, 1]);
    const STAMP: u32 = 0x041e_5105;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// A frame from 192.0.2.10 with these options and nothing behind them.
    fn frame(options: &[u8]) -> Vec<u8> {
        let len = 20 + options.len();
        let mut ip = vec![0x40 | (len / 4) as u8, 0, 0, len as u8, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 10];
        ip.extend([198, 51, 100, 10]);
        ip.extend(options);
        let checksum = Sum::ZERO.bytes(&ip).checksum().to_be_bytes();
        ip[10..12].copy_from_slice(&checksum);
        [vec![2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 8, 0], ip].concat()
    }

    fn read(pkt: &mut Packet) -> Result<Ipv4Options, BadOption> {
        let is_own = |addr| addr == NEAR || addr == FAR;
        Ipv4Options::read(pkt, &Here { addr: NEAR, stamp: STAMP, is_own: &is_own })
    }

    /// What Linux 6.18 made of each.
    #[test]
    fn a_router_writes_down_where_and_when() {
        let cases = [
            ("record route", "070f0400000000000000000000000000", "070f08c6336401000000000000000000"),
            ("and again", "070f08c0000263000000000000000000", "070f0cc0000263c63364010000000000"),
            ("full", "0707080102030400", "0707080102030400"),
            ("timestamp", "440c05000000000000000000", "440c0900041e510500000000"),
            (
                "with address",
                "441405010000000000000000000000000000",
                "44140d01c0000201041e51050000000000000000",
            ),
            ("for us", "440c0503c633640100000000", "440c0d03c6336401041e5105"),
            ("for others", "440c0503c000026300000000", "440c0503c000026300000000"),
            ("no room", "4408090000000001", "4408091000000001"),
            ("behind the end", "00070707", "00000000"),
        ];
        for (name, before, after) in cases {
            let mut before = bytes(before);
            before.resize(after.len() / 2, 0);
            let mut frame = frame(&before);
            let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
            let options = read(&mut pkt).unwrap();
            options.forward(&mut pkt, FAR);
            assert_eq!(pkt.ipv4_options(), bytes(after), "{name}");
            assert!(Packet::parse(&mut frame, Offload::NONE).is_ok(), "{name}: the header's checksum");
        }
    }

    #[test]
    fn an_answer_goes_on_recording() {
        let cases = [
            ("record route", "070f0400000000000000000000000000", "070f0cc0000201c00002010000000000"),
            ("full", "0707080102030400", "0707080102030400"),
            ("timestamp", "440c05000000000000000000", "440c0d00041e5105041e5105"),
            (
                "with address",
                "4414050100000000000000000000000000000000",
                "44141501c0000201041e5105c0000201041e5105",
            ),
            ("router alert", "94040000", ""),
        ];
        for (name, asked, answered) in cases {
            let mut frame = frame(&bytes(asked));
            let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
            let options = read(&mut pkt).unwrap();
            assert_eq!(options.echo(&pkt, NEAR, STAMP), Some(bytes(answered)), "{name}");
        }
    }

    #[test]
    fn whoever_wrote_a_wrong_option_is_told_where() {
        let cases = [
            ("pointer into the head", "0707030000000000", 22),
            ("no pointer", "07020000", 21),
            ("no room for an address", "0706040000000000", 22),
            ("counted out", "440809f000000001", 23),
            ("length one", "1e010000", 20),
            ("longer than the header", "01011e05", 22),
            ("router alert, short", "94030000", 21),
            ("twice", "07070400000000070704000000000000", 27),
        ];
        for (name, options, pointer) in cases {
            let mut frame = frame(&bytes(options));
            let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
            assert_eq!(read(&mut pkt).map_err(|bad| bad.pointer), Err(pointer), "{name}");
        }
    }
}
