//! Conditions by chance on headers: those of IPv6 and `IPsec`, TCP's segment size, and what no packet here can have.

#![forbid(unsafe_code)]

use super::matches::Draw;
use super::universe::{chance, near, pick};
use stateway_core::filter::Hook;
use stateway_core::packet::Family;
use stateway_core::packet::tuple::PROTO_TCP;

/// A span of numbers about some that packets have.
fn span(d: &mut Draw<'_>, about: &[u32]) -> String {
    let (a, b) = (*pick(d.rng, about), *pick(d.rng, about));
    match d.rng.u8(..4) {
        0 => format!("{a}"),
        1 => format!("{a}:"),
        2 => format!(":{a}"),
        _ => format!("{}:{}", a.min(b), a.max(b)),
    }
}

/// Something about the headers between IPv6 and the upper layer.
pub(super) fn extension(d: &mut Draw<'_>) -> Option<String> {
    if d.place.family == Family::Ipv4 {
        return None;
    }
    let mut text;
    match d.rng.u8(..6) {
        0 => {
            text = "-m rt".to_owned();
            let kind = *pick(d.rng, &[0, 2, 4]);
            let is_zero = kind == 0 && chance(d.rng, 60);
            if is_zero {
                text += " --rt-type 0";
            } else if chance(d.rng, 40) {
                text += &format!(" {}--rt-type {kind}", d.not());
            }
            if chance(d.rng, 40) {
                text += &format!(" {}--rt-segsleft {}", d.not(), span(d, &[0, 1, 2]));
            }
            if chance(d.rng, 40) {
                text += &format!(" {}--rt-len {}", d.not(), pick(d.rng, &[8, 24, 40]));
            }
            if is_zero && chance(d.rng, 40) {
                text += " --rt-0-res";
            }
            if is_zero && chance(d.rng, 40) {
                let lists = ["2001:db8::1", "2001:db8::2", "2001:db8::1,2001:db8::2"];
                text += &format!(" --rt-0-addrs {}", pick(d.rng, &lists));
                text += if chance(d.rng, 50) { " --rt-0-not-strict" } else { "" };
            }
        }
        1 => {
            text = "-m frag".to_owned();
            if chance(d.rng, 40) {
                text += &format!(" {}--fragid {}", d.not(), span(d, &[0, 7, 1_000]));
            }
            if chance(d.rng, 20) {
                text += &format!(" {}--fraglen 8", d.not());
            }
            for flags in [&["", " --fragres"][..], &["", " --fragfirst"], &["", " --fragmore", " --fraglast"]]
            {
                text += *pick(d.rng, flags);
            }
        }
        2..=3 => {
            let name = *pick(d.rng, &["hbh", "dst"]);
            text = format!("-m {name}");
            if chance(d.rng, 40) {
                text += &format!(" {}--{name}-len {}", d.not(), pick(d.rng, &[8, 16, 24]));
            }
            if chance(d.rng, 50) {
                let lists = ["1", "1:4", "1:255", "0", "0,0,1", "1:4,1", "1,1,0", "5:2", "63", "1:5"];
                text += &format!(" --{name}-opts {}", pick(d.rng, &lists));
            }
        }
        4 => {
            let names = ["hop", "dst", "route", "frag", "auth", "esp", "none", "prot"];
            let count = d.rng.usize(1..4);
            let list: Vec<&str> = (0..count).map(|_| *pick(d.rng, &names)).collect();
            let soft = if chance(d.rng, 50) { " --soft" } else { "" };
            text = format!("-m ipv6header {}--header {}{soft}", d.not(), list.join(","));
        }
        _ => {
            text = "-m ah".to_owned();
            if chance(d.rng, 50) {
                text += &format!(" {}--ahspi {}", d.not(), span(d, &[0, 256, 257]));
            }
            if chance(d.rng, 40) {
                text += &format!(" {}--ahlen {}", d.not(), pick(d.rng, &[12, 24]));
            }
            text += if chance(d.rng, 30) { " --ahres" } else { "" };
        }
    }
    Some(text)
}

/// Protocols of `IPsec`, which the router only sees.
pub(super) fn ipsec(d: &mut Draw<'_>) -> Option<String> {
    const ESP: u8 = 50;
    const AH: u8 = 51;
    // What a payload of dots begins with.
    const DOTS: u32 = u32::from_be_bytes(*b"....");
    let protos: &[u8] = if d.place.family == Family::Ipv4 { &[ESP, AH] } else { &[ESP] };
    let name = if d.want(protos)? == ESP { "esp" } else { "ah" };
    let not = d.not();
    Some(format!("-m {name} {not}--{name}spi {}", span(d, &[0, DOTS, DOTS + 1])))
}

pub(super) fn eui64(d: &mut Draw<'_>) -> Option<String> {
    let is_fit = d.place.family == Family::Ipv6
        && d.place.only(&[Hook::Prerouting, Hook::Input, Hook::Forward])
        && !d.has("eui64");
    is_fit.then(|| "-m eui64".to_owned())
}

pub(super) fn tcpmss(d: &mut Draw<'_>) -> Option<String> {
    d.want(&[PROTO_TCP])?;
    let not = d.not();
    let (a, b) = (near(d.rng, &[536, 1460]), near(d.rng, &[1460, 9000]));
    Some(match d.rng.u8(..3) {
        0 => format!("-m tcpmss {not}--mss {a}"),
        1 => format!("-m tcpmss {not}--mss {}:", a.min(b)),
        _ => format!("-m tcpmss {not}--mss {}:{}", a.min(b), a.max(b)),
    })
}

pub(super) fn policy(d: &mut Draw<'_>) -> Option<String> {
    let dir = if d.place.only(&[Hook::Prerouting, Hook::Input, Hook::Forward]) {
        "in"
    } else if d.place.only(&[Hook::Forward, Hook::Output, Hook::Postrouting]) {
        "out"
    } else {
        return None;
    };
    let mut text = format!("-m policy --dir {dir} --pol {}", pick(d.rng, &["none", "none", "ipsec"]));
    if text.ends_with("ipsec") {
        text += if chance(d.rng, 50) { " --strict" } else { "" };
        let not = d.not();
        text += &format!(" {not}--reqid 1");
        if chance(d.rng, 50) {
            let not = d.not();
            text += &format!(" {not}--spi 0x10");
        }
        if chance(d.rng, 50) {
            let not = d.not();
            text += &format!(" {not}--proto {}", pick(d.rng, &["esp", "ah", "ipcomp"]));
        }
        if chance(d.rng, 50) {
            let net = d.prefix(0);
            let (a, b) = (d.not(), d.not());
            text += &format!(" --mode tunnel {a}--tunnel-src {net} {b}--tunnel-dst {net}");
        } else {
            let not = d.not();
            text += &format!(" {not}--mode transport");
        }
        if text.contains("--strict") && chance(d.rng, 50) {
            text += " --next --reqid 2";
        }
    }
    Some(text)
}

pub(super) fn owner(d: &mut Draw<'_>) -> Option<String> {
    if !d.place.only(&[Hook::Output, Hook::Postrouting]) {
        return None;
    }
    let mut text = "-m owner".to_owned();
    let which = d.rng.u8(1..4);
    if which & 1 != 0 {
        text += &format!(" {}--uid-owner {}", d.not(), pick(d.rng, &["0", "1-1000"]));
    }
    if which & 2 != 0 {
        text += &format!(" {}--gid-owner {}", d.not(), pick(d.rng, &["0", "1-1000"]));
        text += if chance(d.rng, 30) { " --suppl-groups" } else { "" };
    }
    Some(text)
}
