//! What the hosts run: datagrams as fast as they go, a sink for them, connections one after the other, questions
//! and answers.

use anyhow::Context as _;
use clap::Subcommand;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PORT: u16 = 5301;
/// Datagrams given to the kernel at once.
const BURST: usize = 64;

#[derive(Debug, Subcommand)]
pub enum Load {
    /// Send 64-byte datagrams as fast as they go; print how many
    Flood { target: IpAddr, seconds: u32 },
    /// Receive them; print how many
    Sink { seconds: u32 },
    /// Open one UDP flow after the other; print how many
    Flows { target: IpAddr, count: u32 },
    /// Connect, send a byte, read a byte, close; print how many
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
            Self::Flows { target, count } => flows(target, count)?,
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

fn flood(target: IpAddr, seconds: u32) -> anyhow::Result<u64> {
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

fn sink(seconds: u32) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut received, end) = (0, end_after(seconds));
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        received += u64::from(socket.recv(&mut buffer).is_ok());
    }
    Ok(received)
}

/// So many flows from few sockets: each sends one datagram to every port.
fn flows(target: IpAddr, count: u32) -> anyhow::Result<u64> {
    let mut left = count;
    while left > 0 {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for port in (1024..=u16::MAX).take(left as usize) {
            let _ = socket.send_to(&[0], (target, port));
            left -= 1;
            if left.is_multiple_of(256) {
                // Slowly enough for all to arrive.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    Ok(count.into())
}

fn connect(target: IpAddr, seconds: u32) -> anyhow::Result<u64> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..16)
        .map(|_| {
            let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if one_connection(target).is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let count = done.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        let _ = worker.join();
    }
    Ok(count)
}

fn one_connection(target: IpAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(target, PORT), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    // Closed by reset: else the port would be in TIME_WAIT for a minute, and they would run out.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

fn accept(seconds: u32) -> anyhow::Result<u64> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    rustix::net::listen(&listener, 4096)?;
    let listener = Arc::new(listener);
    for _ in 0..16 {
        let listener = Arc::clone(&listener);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut byte = [0];
                let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
                // Until the other side has closed.
                let _ = stream.read(&mut byte);
            }
        });
    }
    std::thread::sleep(Duration::from_secs(seconds.into()));
    Ok(0)
}

fn ask(target: IpAddr, seconds: u32) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((target, PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (mut times, end) = (Vec::new(), end_after(seconds));
    while Instant::now() < end {
        let start = Instant::now();
        socket.send(&[1])?;
        if socket.recv(&mut [0; 16]).is_ok() {
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
        match socket.recv_from(&mut buffer) {
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
