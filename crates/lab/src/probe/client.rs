//! Probes that open a connection, send a datagram or send packets made by hand.

#![forbid(unsafe_code)]

use super::icmp::{IcmpEar, IcmpError};
use super::{Finding, Target, tftp};
use crate::model::Word;
use crate::netns::command::{Patience, pause};
use crate::resolve::packets;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv, sendto,
    socket_with, sockopt,
};
use stateway_core::packet::TcpFlags;
use stateway_runtime::uninterrupted;
use std::fs;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// After the last byte of an answer, more is waited for this long.
const QUIET: Duration = Duration::from_millis(500);
/// A SYN without an answer is sent again after this (RFC 6298 §2).
const RETRANSMIT: Duration = Duration::from_secs(1);

/// Opens a TCP connection; with `say`, speaks and gathers what comes back.
pub fn tcp(target: &Target, say: Option<&[u8]>) -> io::Result<Finding> {
    match open(target) {
        Ok(Err(finding)) => Ok(finding),
        Ok(Ok(stream)) => converse(stream, say, target.timeout),
        // A server of this host holds the source port: then a handshake is begun by hand.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && say.is_none() => half_open(target),
        Err(error) => Err(error),
    }
}

/// Sends a SYN that this host's kernel knows nothing of, and sees what comes back.
fn half_open(target: &Target) -> io::Result<Finding> {
    const SYN: &str = "S 1000:1000(0) win 64240";
    let (Some(source), Some(source_port)) = (target.source, target.source_port) else {
        return Err(io::ErrorKind::AddrInUse.into());
    };
    let syn =
        packets::packet(SYN, source, target.addr, (source_port, target.port)).map_err(io::Error::other)?;
    let ear = IcmpEar::open(target.addr, TCP, target.port)?;
    let family = if target.addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let answers = socket_with(family, SocketType::RAW, flags, Some(ipproto::TCP))?;
    let mut patience = Patience::new(target.timeout);
    let mut again = Patience::new(Duration::ZERO);
    while !patience.is_over() {
        if again.is_over() {
            send(std::slice::from_ref(&syn))?;
            again = Patience::new(RETRANSMIT);
        }
        while is_ready(&answers, PollFlags::IN, patience.slice())? {
            let mut buffer = [0; 2048];
            let Ok((len, _)) = recv(&answers, &mut buffer[..], RecvFlags::empty()) else { break };
            let segment = answer_to(&buffer[..len], target, source_port);
            match segment.map(|segment| TcpFlags::from_bits_retain(*segment.get(13).unwrap_or(&0))) {
                Some(flags) if flags.contains(TcpFlags::RST) => {
                    return Ok(Finding::new(Word::Refused, "reset"));
                }
                Some(_) => return Ok(Finding::new(Word::Ok, "a handshake was begun by hand")),
                None => {}
            }
        }
        if let Some(error) = ear.heard() {
            return Ok(unreachable(error));
        }
    }
    Ok(blocked(&ear, target.timeout))
}

/// The segment or datagram, if it comes from the target to us; IPv4 raw sockets give the IP header as well.
fn answer_to<'a>(bytes: &'a [u8], target: &Target, source_port: u16) -> Option<&'a [u8]> {
    let l4 = if target.addr.is_ipv4() {
        let from: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
        (IpAddr::from(from) == target.addr).then(|| bytes.get(usize::from(bytes[0] & 15) * 4..))??
    } else {
        bytes
    };
    let ports =
        (u16::from_be_bytes([*l4.first()?, *l4.get(1)?]), u16::from_be_bytes([*l4.get(2)?, *l4.get(3)?]));
    (ports == (target.port, source_port)).then_some(l4)
}

/// Opens a TCP connection and says so; then each line of standard input, in JSON, is a text to say, and how many seconds
/// to wait for an answer. A finding tells of each.
pub fn hold(target: &Target, mut tell: impl FnMut(&Finding) -> io::Result<()>) -> io::Result<()> {
    let stream = match open(target)? {
        Err(finding) => return tell(&finding),
        Ok(stream) => stream,
    };
    tell(&Finding::new(Word::Ok, "connected"))?;
    for line in io::stdin().lock().lines() {
        let (text, seconds): (String, f64) = serde_json::from_str(&line?).map_err(io::Error::other)?;
        let timeout = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
        tell(&converse(stream.try_clone()?, Some(text.as_bytes()), timeout)?)?;
    }
    Ok(())
}

/// Opens a TCP connection and joins it to standard input and output: what ssh calls a proxy.
pub fn pipe(target: &Target) -> io::Result<()> {
    let mut stream = open(target)?.map_err(|finding| io::Error::other(finding.note))?;
    let mut back = stream.try_clone()?;
    std::thread::spawn(move || {
        // Either side may go first.
        let _ = io::copy(&mut io::stdin().lock(), &mut stream);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    let mut buffer = [0; 16384];
    let mut stdout = io::stdout().lock();
    loop {
        let len = uninterrupted(|| back.read(&mut buffer))?;
        if len == 0 {
            return Ok(());
        }
        stdout.write_all(&buffer[..len])?;
        stdout.flush()?;
    }
}

fn socket(target: &Target, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if target.addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if target.source.is_some() || target.source_port.is_some() {
        let any: IpAddr =
            if target.addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        bind(&fd, &SocketAddr::new(target.source.unwrap_or(any), target.source_port.unwrap_or(0)))?;
    }
    Ok(fd)
}

fn open(target: &Target) -> io::Result<Result<TcpStream, Finding>> {
    let ear = IcmpEar::open(target.addr, TCP, target.port)?;
    let fd = socket(target, SocketType::STREAM)?;
    let error = match connect(&fd, &SocketAddr::new(target.addr, target.port)) {
        Ok(()) => None,
        Err(Errno::INPROGRESS) => {
            if !wait(&fd, PollFlags::OUT, target.timeout)? {
                return Ok(Err(blocked(&ear, target.timeout)));
            }
            sockopt::socket_error(&fd)?.err()
        }
        Err(error) => Some(error),
    };
    Ok(match error {
        None => {
            rustix::io::ioctl_fionbio(&fd, false)?;
            Ok(TcpStream::from(fd))
        }
        Some(error) => Err(failed(error, &ear, target.timeout)),
    })
}

/// Nothing came back in time, unless the ear heard otherwise.
fn blocked(ear: &IcmpEar, timeout: Duration) -> Finding {
    match ear.heard() {
        Some(error) => unreachable(error),
        None => Finding::new(Word::Blocked, format!("no answer in {} s", timeout.as_secs_f64())),
    }
}

fn failed(error: Errno, ear: &IcmpEar, timeout: Duration) -> Finding {
    if let Some(error) = ear.heard() {
        return unreachable(error);
    }
    match error {
        Errno::CONNREFUSED | Errno::CONNRESET => Finding::new(Word::Refused, "reset"),
        Errno::TIMEDOUT => Finding::new(Word::Blocked, format!("no answer in {} s", timeout.as_secs_f64())),
        // No ICMP came: the host itself found nobody who answers ARP.
        Errno::HOSTUNREACH => Finding::new(Word::Unreachable, "no neighbour answers"),
        Errno::NETUNREACH => Finding::new(Word::Unreachable, "no route"),
        other => Finding::new(Word::Blocked, io::Error::from(other).to_string()),
    }
}

fn unreachable(error: IcmpError) -> Finding {
    let note = error.mtu.map_or(error.name.clone(), |mtu| format!("{}, mtu {mtu}", error.name));
    Finding { icmp: Some(error.name), ..Finding::new(Word::Unreachable, note) }
}

/// Says `say`, if anything, and gathers the answer: as many bytes, or until it is quiet, or the end.
fn converse(mut stream: TcpStream, say: Option<&[u8]>, timeout: Duration) -> io::Result<Finding> {
    let Some(text) = say else { return Ok(Finding::new(Word::Ok, "connected")) };
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(text)?;
    let mut heard = Vec::new();
    let mut buffer = vec![0; 65536];
    while heard.len() < text.len() {
        let patience = if heard.is_empty() { timeout } else { QUIET };
        if !wait(&stream, PollFlags::IN, patience)? {
            break;
        }
        match uninterrupted(|| stream.read(&mut buffer)) {
            Ok(0) => break,
            Ok(len) => heard.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Ok(Finding::new(Word::Refused, "reset while talking"));
            }
            Err(error) => return Ok(Finding::new(Word::Blocked, error.to_string())),
        }
    }
    let (word, note) = if heard.is_empty() {
        (Word::Blocked, format!("nothing came back in {} s", timeout.as_secs_f64()))
    } else {
        (Word::Ok, format!("{} bytes each way", heard.len()))
    };
    Ok(Finding { stdout: String::from_utf8_lossy(&heard).into_owned(), ..Finding::new(word, note) })
}

/// Sends a datagram and waits for an answer.
pub fn udp(target: &Target, say: &[u8]) -> io::Result<Finding> {
    let ear = IcmpEar::open(target.addr, UDP, target.port)?;
    let fd = match socket(target, SocketType::DGRAM) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return udp_by_hand(target, say, &ear),
        fd => fd?,
    };
    let peer = SocketAddr::new(target.addr, target.port);
    if let Err(error) = connect(&fd, &peer).and_then(|()| rustix::net::send(&fd, say, SendFlags::empty())) {
        return Ok(failed(error, &ear, target.timeout));
    }
    if !wait(&fd, PollFlags::IN, target.timeout)? {
        return Ok(blocked(&ear, target.timeout));
    }
    let mut buffer = vec![0; 65536];
    match recv(&fd, &mut buffer[..], RecvFlags::empty()) {
        Ok((len, _)) => {
            let stdout = String::from_utf8_lossy(&buffer[..len]).into_owned();
            Ok(Finding { stdout, ..Finding::new(Word::Ok, format!("{len} bytes came back")) })
        }
        Err(error) => {
            // The ear may hear a moment later than the socket.
            pause(Duration::from_millis(5));
            Ok(failed(error, &ear, target.timeout))
        }
    }
}

/// Sends a datagram from a port that a server of this host holds, and listens beside it.
fn udp_by_hand(target: &Target, say: &[u8], ear: &IcmpEar) -> io::Result<Finding> {
    /// Of a UDP header.
    const HEADER: usize = 8;
    let (Some(source), Some(source_port)) = (target.source, target.source_port) else {
        return Err(io::ErrorKind::AddrInUse.into());
    };
    let ports = (source_port, target.port);
    let datagram = packets::datagram(say, source, target.addr, ports).map_err(io::Error::other)?;
    let family = if target.addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let answers = socket_with(family, SocketType::RAW, flags, Some(ipproto::UDP))?;
    let mut patience = Patience::new(target.timeout);
    send(std::slice::from_ref(&datagram))?;
    loop {
        let heard = is_ready(&answers, PollFlags::IN, patience.slice())?;
        let mut buffer = vec![0; 65536];
        while heard && let Ok((len, _)) = recv(&answers, &mut buffer[..], RecvFlags::empty()) {
            if let Some(l4) = answer_to(&buffer[..len], target, source_port) {
                let said = l4.get(HEADER..).unwrap_or_default();
                let stdout = String::from_utf8_lossy(said).into_owned();
                let note = format!("{} bytes came back", said.len());
                return Ok(Finding { stdout, ..Finding::new(Word::Ok, note) });
            }
        }
        if let Some(error) = ear.heard() {
            return Ok(unreachable(error));
        }
        if patience.is_over() {
            return Ok(blocked(ear, target.timeout));
        }
    }
}

/// Sends whole IP packets as they are, and waits until they have left.
pub fn send(packets: &[Vec<u8>]) -> io::Result<Finding> {
    let before = packets_sent();
    for packet in packets {
        let (family, to): (_, IpAddr) = match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() >= 20 => {
                (AddressFamily::INET, Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]).into())
            }
            Some(6) if packet.len() >= 40 => {
                let dst: [u8; 16] = packet[24..40].try_into().map_err(io::Error::other)?;
                (AddressFamily::INET6, Ipv6Addr::from(dst).into())
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an IP packet")),
        };
        // The header is included: IPPROTO_RAW means so in both families.
        let fd = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
        sendto(&fd, packet, SendFlags::empty(), &SocketAddr::new(to, 0))?;
    }
    // The first one may wait for the answer to a question for its neighbour.
    let mut patience = Patience::new(RETRANSMIT);
    while packets_sent() < before + packets.len() as u64 && !patience.is_over() {
        pause(Duration::from_millis(5));
    }
    Ok(Finding::new(Word::Ok, format!("{} packets sent", packets.len())))
}

/// What has left this host, by the kernel's own count (`/proc/net/dev`).
fn packets_sent() -> u64 {
    /// Columns after the name: eight of receiving, then bytes, then packets.
    const SENT: usize = 9;
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let counts = devices.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    counts.and_then(|counts| counts.split_whitespace().nth(SENT)?.parse().ok()).unwrap_or(0)
}

/// Waits until every service is there: somebody listens (`tcp:22`, `udp:53`) in this namespace, or a server answers
/// (`tftp:69:192.0.2.77`). Says which are not.
pub fn ready(services: &[String], timeout: Duration) -> io::Result<Result<(), String>> {
    let mut patience = Patience::new(timeout);
    let (servers, ports): (Vec<&String>, Vec<&String>) =
        services.iter().partition(|service| service.starts_with("tftp:"));
    loop {
        let waiting: Vec<&str> =
            ports.iter().filter(|port| !is_open(port)).map(|port| port.as_str()).collect();
        if waiting.is_empty() {
            break;
        }
        if patience.is_over() {
            return Ok(Err(waiting.join(", ")));
        }
        pause(Duration::from_millis(10));
    }
    for server in servers {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{server}` is no server"));
        let (_, rest) = server.split_once(':').ok_or_else(wrong)?;
        let (port, addr) = rest.split_once(':').ok_or_else(wrong)?;
        let at = SocketAddr::new(addr.parse().map_err(|_| wrong())?, port.parse().map_err(|_| wrong())?);
        if !tftp::answers(at, timeout)? {
            return Ok(Err(server.clone()));
        }
    }
    Ok(Ok(()))
}

/// Reads the kernel's own list, so that no connection is made.
fn is_open(port: &str) -> bool {
    /// `TCP_LISTEN`, and for UDP `TCP_CLOSE`, in /proc/net.
    const LISTEN: [(&str, &str); 2] = [("tcp", "0A"), ("udp", "07")];
    let Some((protocol, number)) = port.split_once(':') else { return false };
    let Some((_, state)) = LISTEN.iter().find(|(name, _)| *name == protocol) else { return false };
    let Ok(number) = number.parse::<u16>() else { return false };
    let suffix = format!(":{number:04X}");
    ["", "6"].iter().any(|family| {
        let list = fs::read_to_string(format!("/proc/net/{protocol}{family}")).unwrap_or_default();
        list.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.nth(1).is_some_and(|local| local.ends_with(&suffix)) && words.nth(1) == Some(*state)
        })
    })
}

/// Waits until something can be read or written, as long as a busy machine may take for it.
fn wait(fd: &impl AsFd, flags: PollFlags, timeout: Duration) -> io::Result<bool> {
    let mut patience = Patience::new(timeout);
    loop {
        if is_ready(fd, flags, patience.slice())? {
            return Ok(true);
        }
        if patience.is_over() {
            return Ok(false);
        }
    }
}

fn is_ready(fd: &impl AsFd, flags: PollFlags, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut [PollFd::new(fd, flags)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
