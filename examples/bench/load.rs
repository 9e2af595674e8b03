//! What the hosts run: datagrams as fast as they go, a sink for them, connections one after the other, questions
//! and answers.

use anyhow::Context as _;
use clap::Subcommand;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sendmmsg,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use stateway_runtime::uninterrupted;
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const PORT: u16 = 5301;
/// Datagrams given to the kernel at once.
const BURST: usize = 64;
/// Connections under way at the same time.
const AT_ONCE: usize = 16;

#[derive(Debug, Subcommand)]
pub enum Load {
    /// Send 64-byte datagrams as fast as they go; print how many
    Flood { target: IpAddr, seconds: u32 },
    /// Receive them; print how many
    Sink { seconds: u32 },
    /// Open so many UDP flows, say so, wait for the end of the input, and send over all of them in turn
    Spread { target: IpAddr, flows: u32, seconds: u32 },
    /// Connect, send a byte, read a byte, close, sixteen at a time; print how many
    Connect { target: IpAddr, seconds: u32 },
    /// The other side of `connect`
    Accept { seconds: u32 },
    /// Ask and wait for the answer; print the median in microseconds
    Ask { target: IpAddr, seconds: u32 },
    /// The other side of `ask`
    Answer { seconds: u32 },
}

impl Load {
    pub fn run(self) -> anyhow::Result<()> {
        let result = match self {
            Self::Flood { target, seconds } => flood(target, seconds)?,
            Self::Sink { seconds } => sink(seconds)?,
            Self::Spread { target, flows, seconds } => spread(target, flows, seconds)?,
            Self::Connect { target, seconds } => connect(target, seconds)?,
            Self::Accept { seconds } => accept(seconds)?,
            Self::Ask { target, seconds } => ask(target, seconds)?,
            Self::Answer { seconds } => answer(seconds)?,
        };
        println!("{result}");
        Ok(())
    }
}

fn end_after(seconds: u32) -> Instant {
    Instant::now() + Duration::from_secs(seconds.into())
}

/// The sender keeps to one CPU, so that the forwarder has another for itself.
fn keep_to_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    let _ = sched_setaffinity(None, &cpus);
}

fn flood(target: IpAddr, seconds: u32) -> anyhow::Result<u64> {
    keep_to_one_cpu();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((target, PORT))?;
    let data = [IoSlice::new(&[b'x'; 64])];
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        (0..BURST).map(|_| SendAncillaryBuffer::default()).collect();
    let mut burst: Vec<MMsgHdr<'_>> =
        controls.iter_mut().map(|control| MMsgHdr::new(&data, control)).collect();
    let (mut sent, end) = (0, end_after(seconds));
    while Instant::now() < end {
        // A full queue on the way is loss, which the other end counts.
        sent += sendmmsg(&socket, &mut burst, SendFlags::empty()).unwrap_or(0) as u64;
    }
    Ok(sent)
}

/// So many flows from few sockets: each sends to every port in turn.
fn spread(target: IpAddr, flows: u32, seconds: u32) -> anyhow::Result<u64> {
    keep_to_one_cpu();
    let ports: Vec<SocketAddr> = (1024..=u16::MAX).map(|port| SocketAddr::new(target, port)).collect();
    let mut sockets = Vec::new();
    let mut left = flows as usize;
    while left > 0 {
        let some = left.min(ports.len());
        sockets.push((UdpSocket::bind("0.0.0.0:0")?, &ports[..some]));
        left -= some;
    }
    for (socket, ports) in &sockets {
        for some in ports.chunks(256) {
            for port in some {
                socket.send_to(&[0; 64], port)?;
            }
            // Slowly enough for all to arrive.
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    println!("open");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let (mut sent, end) = (0, end_after(seconds));
    loop {
        for (socket, ports) in &sockets {
            for some in ports.chunks(BURST) {
                for port in some {
                    sent += u64::from(socket.send_to(&[0; 64], port).is_ok());
                }
                if Instant::now() >= end {
                    return Ok(sent);
                }
            }
        }
    }
}

fn sink(seconds: u32) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut received, end) = (0, end_after(seconds));
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        received += u64::from(uninterrupted(|| socket.recv(&mut buffer)).is_ok());
    }
    Ok(received)
}

/// One thread that keeps [`AT_ONCE`] connections under way.
fn connect(target: IpAddr, seconds: u32) -> anyhow::Result<u64> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut streams: Vec<OwnedFd> = Vec::new();
    for n in 0..AT_ONCE {
        streams.push(begin_connection(target, &epoll, n)?);
    }
    let mut events = Vec::with_capacity(AT_ONCE);
    let (mut done, end) = (0, end_after(seconds));
    while Instant::now() < end {
        events.clear();
        let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        retry_on_intr(|| epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience)))?;
        for event in &events {
            let n = event.data.u64() as usize;
            let (stream, flags) = (&streams[n], event.flags);
            if flags.contains(EventFlags::OUT) && !flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                // It is open: the byte goes there, and what is waited for is the byte back.
                rustix::io::write(stream, b"x")?;
                epoll::modify(&epoll, stream, EventData::new_u64(n as u64), EventFlags::IN)?;
                continue;
            }
            done += u64::from(rustix::io::read(stream, &mut [0]).is_ok_and(|len| len == 1));
            streams[n] = begin_connection(target, &epoll, n)?;
        }
    }
    Ok(done)
}

fn begin_connection(target: IpAddr, epoll: &OwnedFd, n: usize) -> anyhow::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // Closed by reset: else the port would be in TIME_WAIT for a minute, and they would run out.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    match rustix::net::connect(&stream, &SocketAddr::new(target, PORT)) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    epoll::add(epoll, &stream, EventData::new_u64(n as u64), EventFlags::OUT)?;
    Ok(stream)
}

fn accept(seconds: u32) -> anyhow::Result<u64> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN)?;
    let mut streams: BTreeMap<u64, TcpStream> = BTreeMap::new();
    let mut events = Vec::with_capacity(64);
    let (mut next, end) = (0, end_after(seconds));
    while Instant::now() < end {
        events.clear();
        let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        retry_on_intr(|| epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience)))?;
        for event in &events {
            let n = event.data.u64();
            let Some(mut stream) = streams.get(&n) else {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    epoll::add(&epoll, &stream, EventData::new_u64(next), EventFlags::IN)?;
                    streams.insert(next, stream);
                    next += 1;
                }
                continue;
            };
            let mut byte = [0];
            // Until the other side has closed.
            if stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_err() {
                streams.remove(&n);
            }
        }
    }
    Ok(next)
}

fn ask(target: IpAddr, seconds: u32) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((target, PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut times, end) = (Vec::new(), end_after(seconds));
    while Instant::now() < end {
        let start = Instant::now();
        socket.send(&[1])?;
        if uninterrupted(|| socket.recv(&mut [0; 16])).is_ok() {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).context("no answer")?;
    Ok(median.as_micros() as u64)
}

fn answer(seconds: u32) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut answered, end) = (0, end_after(seconds));
    let mut buffer = [0; 16];
    while Instant::now() < end {
        match uninterrupted(|| socket.recv_from(&mut buffer)) {
            Ok((len, from)) => {
                socket.send_to(&buffer[..len], from)?;
                answered += 1;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answered)
}
