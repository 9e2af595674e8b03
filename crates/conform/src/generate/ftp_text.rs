//! What servers, clients and enemies write where FTP announces a data connection: the lines of RFC 959 and RFC 2428 with other
//! spaces, other numbers and other letters, cut short and in pieces.

#![forbid(unsafe_code)]

use super::{chance, pick};
use fastrand::Rng;

/// Changes the line in a way that a reader of it may or may not stand.
pub(super) fn mutate(rng: &mut Rng, line: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..3) {
        if line.is_empty() {
            return;
        }
        match rng.u8(..10) {
            0 => spaces(rng, line),
            1 | 2 => number(rng, line),
            3 => case(rng, line),
            4 => ends(rng, line),
            5 => delimiter(rng, line),
            6 => in_front(rng, line),
            7 => line.truncate(rng.usize(..line.len())),
            8 => {
                let again = line.clone();
                line.extend(again);
            }
            _ => {
                let at = rng.usize(..line.len());
                line[at] = rng.u8(..);
            }
        }
    }
}

/// The line in segments: cut anywhere, within a number above all.
pub(super) fn segments(rng: &mut Rng, line: &[u8]) -> Vec<Vec<u8>> {
    if line.len() < 2 || !chance(rng, 15) {
        return vec![line.to_vec()];
    }
    let digits: Vec<usize> = (1..line.len()).filter(|&at| line[at].is_ascii_digit()).collect();
    let anywhere = rng.usize(1..line.len());
    let at = if digits.is_empty() || chance(rng, 40) { anywhere } else { *pick(rng, &digits) };
    let (front, behind) = line.split_at(at);
    vec![front.to_vec(), behind.to_vec()]
}

fn spaces(rng: &mut Rng, line: &mut Vec<u8>) {
    let at = rng.usize(..=line.len());
    let filler = *pick(rng, &[&b" "[..], b"  ", b"\t", b"\0", b"\x0b", b"\xa0"]);
    line.splice(at..at, filler.iter().copied());
    if chance(rng, 20) {
        line.retain(|byte| *byte != b' ');
    }
}

/// Another number in place of one that stands there.
fn number(rng: &mut Rng, line: &mut Vec<u8>) {
    const NUMBERS: [&str; 22] = [
        "0",
        "00",
        "000",
        "1",
        "01",
        "0001",
        "255",
        "0255",
        "256",
        "257",
        "999",
        "1000",
        "65535",
        "65536",
        "65537",
        "99999",
        "4294967295",
        "4294967296",
        "4294967551",
        "18446744073709551616",
        "-1",
        "0x10",
    ];
    let starts: Vec<usize> = (0..line.len())
        .filter(|&at| line[at].is_ascii_digit() && (at == 0 || !line[at - 1].is_ascii_digit()))
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = *pick(rng, &starts);
    let len = line[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = *pick(rng, &NUMBERS);
    line.splice(start..start + len, number.bytes());
}

fn case(rng: &mut Rng, line: &mut [u8]) {
    for byte in line {
        if byte.is_ascii_alphabetic() && chance(rng, 50) {
            *byte ^= 0x20;
        }
    }
}

/// How the line ends.
fn ends(rng: &mut Rng, line: &mut Vec<u8>) {
    while line.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        line.pop();
    }
    let end = *pick(
        rng,
        &[&b""[..], b"\n", b"\r", b"\n\r", b" \r\n", b"\r\n\r\n", b"\0\r\n", b".\r\n", b",\r\n", b"|\r\n"],
    );
    line.extend(end);
}

/// Another character wherever numbers are told apart, or one of them missing.
fn delimiter(rng: &mut Rng, line: &mut Vec<u8>) {
    let places: Vec<usize> =
        (0..line.len()).filter(|&at| matches!(line[at], b',' | b'|' | b'(' | b')')).collect();
    if places.is_empty() {
        return;
    }
    let other = *pick(rng, b"|!,.;: 1/()\x7f\x20");
    match rng.u8(..3) {
        0 => drop(line.remove(*pick(rng, &places))),
        1 => line[*pick(rng, &places)] = other,
        _ => places.into_iter().for_each(|at| line[at] = other),
    }
}

/// What stands before it in the same segment.
fn in_front(rng: &mut Rng, line: &mut Vec<u8>) {
    const FRONTS: [&[u8]; 10] =
        [b"227 ", b"229-", b"227-\r\n", b"PORT ", b"EPRT ", b"\r\n", b" ", b"\xff\xf4", b"XPORT ", b"2270 "];
    let front = *pick(rng, &FRONTS);
    line.splice(0..0, front.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_the_line() {
        let mut rng = Rng::with_seed(1);
        let line = b"PORT 192,0,2,10,4,1\r\n";
        let cut: Vec<_> = (0..200).map(|_| segments(&mut rng, line)).collect();
        assert!(cut.iter().all(|pieces| pieces.concat() == line));
        assert!(cut.iter().any(|pieces| pieces.len() == 2));
    }

    #[test]
    fn numbers_leave_their_range() {
        let mut rng = Rng::with_seed(2);
        let lines = (0..400).map(|_| {
            let mut line = b"PORT 192,0,2,10,4,1\r\n".to_vec();
            number(&mut rng, &mut line);
            line
        });
        assert!(lines.filter(|line| line.windows(4).any(|w| w == b",256" || w == b" 256")).count() > 3);
    }
}
