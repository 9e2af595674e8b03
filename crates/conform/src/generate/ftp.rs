//! FTP and TFTP: commands cut, joined, mistyped, repeated, with foreign addresses; and the data connections.

#![forbid(unsafe_code)]

use super::tcp::Talk;
use super::{Ends, chance, error, frame, ftp_text, pick, season};
use crate::trace::{Step, Trace, Waiting};
use fastrand::Rng;
use stateway_core::packet::tuple::PROTO_UDP;
use stateway_core::packet::{Addr, Family};

/// A control connection in which data connections are announced, and tried, where nothing is translated.
pub(super) fn trace(rng: &mut Rng, ends: &Ends) -> Trace {
    let mut ends = ends.clone();
    ends.numbers[1] = 21;
    let mut trace = session(rng, &ends, ends.hosts);
    for step in &mut trace.steps {
        if let Step::Frame(frame) = step {
            frame.link = None;
        }
    }
    trace
}

/// The same; `own` is the address that each side has for itself.
pub(super) fn session(rng: &mut Rng, ends: &Ends, own: [Addr; 2]) -> Trace {
    let mut talk = Talk::opened(rng, ends);
    // The first line of each side is never read.
    talk.say(1, b"220 ready\r\n");
    talk.say(0, b"USER x\r\n");
    for _ in 0..talk.rng().usize(1..8) {
        let port = *pick(talk.rng(), &[1024, 2000, 20, 0, 65535, 50000]);
        let sender = usize::from(chance(talk.rng(), 50));
        let mut line = line(talk.rng(), (ends.family, own[sender]), sender, port);
        if chance(talk.rng(), 40) {
            ftp_text::mutate(talk.rng(), &mut line);
        } else {
            mistype(talk.rng(), &mut line);
        }
        let sender = if chance(talk.rng(), 5) { 1 - sender } else { sender };
        for piece in ftp_text::segments(talk.rng(), &line) {
            talk.say(sender, &piece);
        }
        match talk.rng().u8(..10) {
            0 => talk.again(),
            1 => talk.wait(),
            2..=7 => data(&mut talk, ends, sender, port),
            _ => {}
        }
    }
    talk.finish()
}

/// A line that translation makes longer or shorter, and errors of the client's side about what comes then; `own` is the client's
/// address.
pub(super) fn complaint(rng: &mut Rng, ends: &Ends, own: Addr) -> Trace {
    let mut talk = Talk::opened(rng, ends);
    talk.say(1, b"220 ready\r\n");
    talk.say(0, b"USER x\r\n");
    for _ in 0..talk.rng().usize(1..3) {
        let port = *pick(talk.rng(), &[1024, 50000]);
        let line = line(talk.rng(), (ends.family, own), 0, port);
        talk.say(0, &line);
        talk.say(1, b"200 fine\r\n");
        talk.complain_of_the_last();
    }
    talk.finish()
}

/// What announces that `sender` listens on `port`.
fn line(rng: &mut Rng, (family, own): (Family, Addr), sender: usize, port: u16) -> Vec<u8> {
    let mut addr = own;
    if chance(rng, 10) {
        addr = error::nearby(addr, 7);
    }
    let [high, low] = port.to_be_bytes();
    let text = match (family, sender, rng.bool()) {
        (Family::Ipv4, 0, true) => format!("PORT {},{high},{low}\r\n", commas(addr)),
        (Family::Ipv4, 1, true) => format!("227 Entering Passive Mode ({},{high},{low}).\r\n", commas(addr)),
        (family, 0, _) => {
            let number = if family == Family::Ipv4 { 1 } else { 2 };
            format!("EPRT |{number}|{}|{port}|\r\n", addr.to_ip(family))
        }
        _ => format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
    };
    text.into_bytes()
}

fn commas(addr: Addr) -> String {
    let [a, b, c, d] = addr.v4();
    format!("{a},{b},{c},{d}")
}

fn mistype(rng: &mut Rng, line: &mut Vec<u8>) {
    if line.is_empty() || chance(rng, 50) {
        return;
    }
    let at = rng.usize(..line.len());
    match rng.u8(..9) {
        0 => line.truncate(at),
        1 => line[at] = *pick(rng, b" ,|0123456789()\r\nx"),
        2 => line.insert(at, *pick(rng, b" ,|0123456789()\r\nx")),
        3 => drop(line.remove(at)),
        4 => line.make_ascii_lowercase(),
        5 => line.extend_from_slice(b"LIST\r\n"),
        6 => *line = [b"NOOP\r\n", &line[..]].concat(),
        7 => line.truncate(line.len().saturating_sub(rng.usize(1..3))),
        _ => drop(line.drain(..at)),
    }
}

/// Somebody opens the connection that was announced, or nearly that.
fn data(talk: &mut Talk, ends: &Ends, listener: usize, port: u16) {
    let port = if chance(talk.rng(), 10) { port.wrapping_add(1) } else { port };
    let mut other = ends.clone();
    let from = *pick(talk.rng(), &[20, 21, 3000]);
    other.numbers[listener] = port;
    other.numbers[1 - listener] = from;
    if chance(talk.rng(), 10) {
        other.hosts[1 - listener] = error::nearby(other.hosts[1 - listener], 9);
    }
    talk.open_beside(&other, 1 - listener);
}

/// Requests to a TFTP server, and transfers from ports of its choice.
pub(super) fn tftp(rng: &mut Rng, ends: &Ends) -> Trace {
    let mut steps: Vec<Step> = Vec::new();
    let mut ends = ends.clone();
    ends.numbers[1] = 69;
    for _ in 0..rng.usize(2..10) {
        let mut other = ends.clone();
        if chance(rng, 50) {
            other.numbers[1] = *pick(rng, &[3000, 3001]);
        }
        if chance(rng, 10) {
            other.hosts[1] = error::nearby(other.hosts[1], 9);
        }
        let sender = usize::from(chance(rng, 50));
        let mut ip = other.ip(sender, PROTO_UDP);
        season(rng, &mut ip);
        let code = rng.u8(..6);
        let body = [&[0, code][..], b"file\0octet\0"].concat();
        let body = &body[..if chance(rng, 10) { rng.usize(..=body.len()) } else { body.len() }];
        let (from, to) = (other.numbers[sender], other.numbers[1 - sender]);
        let len = (body.len() + 8) as u16;
        let mut l4 = [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0; 2], body].concat();
        ip.fill_checksum(&mut l4, 6);
        steps.push(frame(rng, &other, sender, &ip.build(&l4), "tftp"));
    }
    Trace { steps, waiting: Waiting::Timers }
}
