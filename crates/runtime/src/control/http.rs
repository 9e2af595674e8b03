//! Metrics over HTTP, for Prometheus: `GET /metrics`, and nothing else.
//!
//! The listener is opened before the process gives its privileges up. One thread takes clients and one serves each, as at
//! the control socket; none of them forwards packets. A client sends one request and is answered once: it has so long
//! to send it and to take the answer, and is left then. There are so many seats, and pages are made one after the other,
//! so that whoever asks without end keeps one thread busy at most.

use super::door::{Door, Seat};
use super::metrics;
use crate::confine::{self, Role};
use crate::runtime::{Shared, unix_nanos};
use crate::uninterrupted;
use anyhow::Context as _;
use httparse::{EMPTY_HEADER, Request, Status};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

/// Clients served at once; one more is told so and left.
pub const MAX_CLIENTS: usize = 8;
/// Within so long a client sends its request and takes the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request line with its headers.
const MAX_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// Where metrics are, by custom.
const PATH: &str = "/metrics";
const TEXT: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A listener that clients may connect to, though nobody answers yet.
#[derive(Debug)]
pub struct MetricsSocket {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsSocket {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is taken, or not this machine's.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at `{address}`"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it is, with the port that was taken.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listener that is answered. Dropping it ends that.
#[derive(Debug)]
pub struct MetricsServer {
    door: Door,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Begins to answer.
    ///
    /// # Errors
    /// No thread or no descriptor is to be had.
    pub fn start(socket: MetricsSocket, shared: Arc<Shared>) -> io::Result<Self> {
        Self::patient(socket, shared, PATIENCE)
    }

    fn patient(socket: MetricsSocket, shared: Arc<Shared>, patience: Duration) -> io::Result<Self> {
        let door = Door::new()?;
        let source = Arc::new(Source { shared, one_at_a_time: Mutex::new(()), patience });
        let reception = Reception { socket, source, door: door.clone(), clients: Arc::default() };
        let thread = confine::spawn("metrics", Role::Control, || reception.run())?;
        Ok(Self { door, thread: Some(thread) })
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.door.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where pages come from.
struct Source {
    shared: Arc<Shared>,
    one_at_a_time: Mutex<()>,
    patience: Duration,
}

impl Source {
    fn page(&self) -> String {
        let _turn = self.one_at_a_time.lock();
        metrics::render(&self.shared)
    }
}

/// The thread that takes clients.
struct Reception {
    socket: MetricsSocket,
    source: Arc<Source>,
    door: Door,
    clients: Arc<AtomicUsize>,
}

impl Reception {
    fn run(self) {
        while self.door.wait_for_client(&self.socket.listener) {
            match self.socket.listener.accept() {
                Ok((stream, _)) => self.receive(stream),
                Err(error) => match Errno::from_io_error(&error) {
                    // It went before it was taken.
                    Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                    _ => self.door.pause(),
                },
            }
        }
    }

    fn receive(&self, stream: TcpStream) {
        let Some(seat) = Seat::take(&self.clients, MAX_CLIENTS) else {
            return turn_away(stream);
        };
        let source = Arc::clone(&self.source);
        let serve = move || {
            // An error here is the client's going, or its time that is over.
            let _ = serve(&stream, &source);
            // Whoever sees the end of it finds the seat free.
            drop(seat);
            drop(stream);
        };
        if let Err(error) = confine::spawn("scrape", Role::Client, serve) {
            tracing::warn!(%error, "no thread for a client of the metrics");
        }
    }
}

/// Says that there is no seat, as far as that can be said at once.
fn turn_away(mut stream: TcpStream) {
    let text = format!("{MAX_CLIENTS} clients are being served, try later\n");
    let answer = Answer::new("503 Service Unavailable", &text);
    let said = stream.set_nonblocking(true).and_then(|()| stream.write(&answer.bytes(true)));
    // There is nobody to wait for it.
    let _ = said.and_then(|_| stream.shutdown(Shutdown::Write));
}

fn serve(stream: &TcpStream, source: &Source) -> io::Result<()> {
    let clock = &source.shared.clock;
    let mut timed = Timed { stream, ends: clock.uptime() + source.patience, uptime: &|| clock.uptime() };
    let asked = read_request(&mut timed)?;
    let answer = match asked {
        Asked::Metrics { .. } => Answer { kind: EXPOSITION, ..Answer::new("200 OK", &source.page()) },
        Asked::Elsewhere => Answer::new("404 Not Found", "metrics are at /metrics\n"),
        Asked::Otherwise => Answer {
            allow: true,
            ..Answer::new("405 Method Not Allowed", "this can be read alone: GET /metrics\n")
        },
        Asked::TooMuch => Answer::new("431 Request Header Fields Too Large", "the request is too long\n"),
        Asked::Nonsense => Answer::new("400 Bad Request", "this is no HTTP\n"),
    };
    timed.write_all(&answer.bytes(!matches!(asked, Asked::Metrics { head_alone: true })))?;
    timed.finish()
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Metrics {
        head_alone: bool,
    },
    Elsewhere,
    /// By another method than GET and HEAD.
    Otherwise,
    TooMuch,
    Nonsense,
}

fn read_request(timed: &mut Timed<'_>) -> io::Result<Asked> {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let len = timed.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&piece[..len]);
        if let Some(asked) = understand(&head) {
            return Ok(asked);
        }
    }
}

/// What is asked for; `None` if it goes on.
fn understand(head: &[u8]) -> Option<Asked> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Partial) if head.len() > MAX_HEAD => Some(Asked::TooMuch),
        Ok(Status::Partial) => None,
        Err(httparse::Error::TooManyHeaders) => Some(Asked::TooMuch),
        Err(_) => Some(Asked::Nonsense),
        Ok(Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let is_there = path.split(['?', '#']).next() == Some(PATH);
            Some(match request.method {
                Some("GET" | "HEAD") if !is_there => Asked::Elsewhere,
                Some(method @ ("GET" | "HEAD")) => Asked::Metrics { head_alone: method == "HEAD" },
                _ => Asked::Otherwise,
            })
        }
    }
}

/// One answer, after which the connection ends.
struct Answer<'a> {
    status: &'a str,
    kind: &'a str,
    /// Say which methods there are.
    allow: bool,
    body: String,
}

impl<'a> Answer<'a> {
    fn new(status: &'a str, body: &str) -> Self {
        Self { status, kind: TEXT, allow: false, body: body.to_owned() }
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let Self { status, kind, allow, body } = self;
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_nanos(unix_nanos()));
        let allow = if *allow { "Allow: GET, HEAD\r\n" } else { "" };
        let length = body.len();
        let mut text = format!(
            "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        );
        if with_body {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

/// A client whose time is counted, over all that is read and written.
struct Timed<'a> {
    stream: &'a TcpStream,
    ends: Duration,
    uptime: &'a dyn Fn() -> Duration,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.ends.saturating_sub((self.uptime)());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| {
            self.stream.set_read_timeout(Some(self.left()?))?;
            self.stream.read(piece)
        })
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let len = uninterrupted(|| {
                self.stream.set_write_timeout(Some(self.left()?))?;
                self.stream.write(bytes)
            })?;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Says that nothing more comes, and waits until the client has seen it: what it still sends would have the
    /// system take the answer back.
    fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let mut left = MAX_HEAD;
        let mut piece = [0; 1024];
        while left > 0 {
            match self.read(&mut piece)? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
