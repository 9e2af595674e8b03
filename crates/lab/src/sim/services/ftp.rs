//! FTP (RFC 959, RFC 2428): the server's side of one session, with a real dialogue, so that helpers can read along.

#![forbid(unsafe_code)]

use super::{MAX_LINE, new_tcp, receive};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::IpAddress;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Where active data connections come from.
const DATA_PORT: u16 = 20;
/// Passive ports begin here; the client's port is added, so that the same lab gives the same ports.
const FIRST_PASSIVE: u16 = 30_000;

#[derive(Debug, Default)]
pub(super) struct Session {
    greeted: bool,
    heard: Vec<u8>,
    passive_count: u16,
    data: Option<Data>,
}

/// The data connection, from the command that announces it to its end.
#[derive(Debug)]
struct Data {
    handle: SocketHandle,
    /// Active: where the client waits.
    connect_to: Option<(IpAddr, u16)>,
    work: Option<Work>,
}

/// How far a transfer came.
enum Progress {
    None,
    Some,
    /// It ended, and this is said of it.
    Over(&'static str),
}

#[derive(Debug)]
enum Work {
    Give { bytes: Vec<u8>, sent: usize },
    Take { name: String, bytes: Vec<u8> },
}

impl Session {
    pub(super) fn run(
        &mut self,
        control: SocketHandle,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        files: &mut BTreeMap<String, Vec<u8>>,
    ) -> bool {
        let mut busy = false;
        let socket = sockets.get_mut::<tcp::Socket>(control);
        if !self.greeted && socket.may_send() {
            self.greeted = true;
            say(socket, "220 stateway's simulated FTP");
            busy = true;
        }
        let heard = receive(socket, MAX_LINE);
        busy |= !heard.is_empty();
        self.heard.extend_from_slice(&heard);
        while let Some(at) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let answer = self.command(&line, control, iface, sockets, files);
            say(sockets.get_mut(control), &answer);
        }
        if self.heard.len() > MAX_LINE {
            sockets.get_mut::<tcp::Socket>(control).abort();
        }
        match self.transfer(sockets, files) {
            Progress::None => {}
            Progress::Some => busy = true,
            Progress::Over(answer) => {
                busy = true;
                say(sockets.get_mut(control), answer);
            }
        }
        busy | super::hang_up(sockets.get_mut(control))
    }

    fn command(
        &mut self,
        line: &str,
        control: SocketHandle,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> String {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word.to_ascii_uppercase().as_str() {
            "USER" => "331 any password will do".into(),
            "PASS" => "230 logged in".into(),
            "TYPE" | "CWD" | "NOOP" => "200 done".into(),
            "PORT" => self.active(parse_port(rest), sockets),
            "EPRT" => self.active(parse_eprt(rest), sockets),
            "PASV" | "EPSV" => self.passive(word.eq_ignore_ascii_case("PASV"), control, sockets),
            "LIST" => self.begin(Work::Give { bytes: listing(files), sent: 0 }, iface, sockets),
            "RETR" => match files.get(rest) {
                Some(bytes) => self.begin(Work::Give { bytes: bytes.clone(), sent: 0 }, iface, sockets),
                None => "550 there is no such file".into(),
            },
            "STOR" => self.begin(Work::Take { name: rest.to_owned(), bytes: Vec::new() }, iface, sockets),
            "QUIT" => "221 goodbye".into(),
            _ => "502 not here".into(),
        }
    }

    fn active(&mut self, to: Option<(IpAddr, u16)>, sockets: &mut SocketSet<'static>) -> String {
        self.end(sockets);
        let Some(to) = to else { return "501 no such address".into() };
        let handle = sockets.add(new_tcp());
        self.data = Some(Data { handle, connect_to: Some(to), work: None });
        "200 the data will come to you".into()
    }

    fn passive(&mut self, in_words: bool, control: SocketHandle, sockets: &mut SocketSet<'static>) -> String {
        self.end(sockets);
        let socket = sockets.get::<tcp::Socket>(control);
        let (Some(own), Some(peer)) = (socket.local_endpoint(), socket.remote_endpoint()) else {
            return "425 there is no connection".into();
        };
        let port = FIRST_PASSIVE + peer.port % 5_000 + self.passive_count;
        self.passive_count = (self.passive_count + 1) % 1_000;
        let handle = super::listen(sockets, port);
        self.data = Some(Data { handle, connect_to: None, work: None });
        let [high, low] = port.to_be_bytes();
        match own.addr {
            IpAddress::Ipv4(addr) if in_words => {
                let [a, b, c, d] = addr.octets();
                format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")
            }
            _ => format!("229 Entering Extended Passive Mode (|||{port}|)"),
        }
    }

    fn begin(&mut self, work: Work, iface: &mut Interface, sockets: &mut SocketSet<'static>) -> String {
        let Some(data) = &mut self.data else { return "425 say where first".into() };
        data.work = Some(work);
        if let Some(to) = data.connect_to {
            let socket = sockets.get_mut::<tcp::Socket>(data.handle);
            if socket.connect(iface.context(), to, DATA_PORT).is_err() {
                return "425 there is no way to you".into();
            }
        }
        "150 here it comes".into()
    }

    /// Moves data.
    fn transfer(
        &mut self,
        sockets: &mut SocketSet<'static>,
        files: &mut BTreeMap<String, Vec<u8>>,
    ) -> Progress {
        let Some(data) = self.data.as_mut() else { return Progress::None };
        let Some(work) = data.work.as_mut() else { return Progress::None };
        let socket = sockets.get_mut::<tcp::Socket>(data.handle);
        let mut busy = false;
        let over = match work {
            Work::Give { bytes, sent } => {
                if socket.can_send() && *sent < bytes.len() {
                    *sent += socket.send_slice(&bytes[*sent..]).unwrap_or_default();
                    busy = true;
                }
                socket.may_send() && *sent == bytes.len()
            }
            Work::Take { name, bytes } => {
                let heard = receive(socket, super::BUFFER);
                busy = !heard.is_empty();
                bytes.extend(heard);
                let over = socket.state() == tcp::State::CloseWait && !socket.can_recv();
                if over {
                    files.insert(name.clone(), core::mem::take(bytes));
                }
                over
            }
        };
        if over {
            socket.close();
            data.work = None;
            return Progress::Over("226 that was all");
        }
        let refused = socket.state() == tcp::State::Closed;
        if refused {
            data.work = None;
            return Progress::Over("425 the data connection was refused");
        }
        if busy { Progress::Some } else { Progress::None }
    }

    /// Gives up the data connection, if there is one.
    pub(super) fn end(&mut self, sockets: &mut SocketSet<'static>) {
        if let Some(data) = self.data.take() {
            sockets.remove(data.handle);
        }
    }
}

fn say(socket: &mut tcp::Socket, line: &str) {
    // The buffer holds many lines more than a dialogue has.
    let _ = socket.send_slice(format!("{line}\r\n").as_bytes());
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let line = |(name, bytes): (&String, &Vec<u8>)| {
        format!("-rw-r--r-- 1 ftp ftp {:>8} Jan 01 00:00 {name}\r\n", bytes.len())
    };
    files.iter().map(line).collect::<String>().into_bytes()
}

/// `192,0,2,1,156,64`
fn parse_port(text: &str) -> Option<(IpAddr, u16)> {
    let numbers: Vec<u8> = text.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    let [a, b, c, d, high, low] = numbers[..] else { return None };
    Some((Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
}

/// `|1|192.0.2.1|40000|`
fn parse_eprt(text: &str) -> Option<(IpAddr, u16)> {
    let mut parts = text.split('|').skip(2);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
