//! What simulated hosts serve: small programs beside the stack, each a state machine that never waits.

#![forbid(unsafe_code)]

mod ftp;
mod tftp;

use crate::dns;
use crate::model::{self, ServiceKind};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use std::collections::{BTreeMap, VecDeque};

/// Of each direction of a connection.
pub(crate) const BUFFER: usize = 65_535;
/// Datagrams that wait in each direction.
const DATAGRAMS: usize = 64;
/// A request line is never longer.
const MAX_LINE: usize = 8192;

/// What the simulated ssh begins with: it does not pretend to be another's.
pub(crate) const SSH_BANNER: &str = "SSH-2.0-stateway_simulated";

/// Everything that one host serves.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// By the name that clients ask for: what FTP and TFTP give and take.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    listeners: Vec<Listener>,
    talks: Vec<(SocketHandle, Talk)>,
    datagrams: Vec<(SocketHandle, Datagrams)>,
    transfers: Vec<tftp::Transfer>,
}

#[derive(Debug)]
struct Listener {
    port: u16,
    kind: Kind,
    handle: SocketHandle,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ssh,
    Http,
    Echo,
    Ftp,
}

/// One connection, as far as its talk has come.
#[derive(Debug)]
enum Talk {
    Ssh(Ssh),
    Http(Vec<u8>),
    Echo,
    Ftp(Box<ftp::Session>),
}

#[derive(Clone, Copy, Debug)]
enum Datagrams {
    Echo,
    Dns,
    Tftp,
}

impl Services {
    pub(crate) fn new(host: &model::Host, sockets: &mut SocketSet<'static>) -> Self {
        let mut services = Self::default();
        for service in &host.services {
            let Some(port) = service.port else { continue };
            let (stream, datagrams) = match &service.kind {
                ServiceKind::Ssh => (Some(Kind::Ssh), None),
                ServiceKind::Http => (Some(Kind::Http), None),
                ServiceKind::Ftp => (Some(Kind::Ftp), None),
                ServiceKind::Echo => (Some(Kind::Echo), Some(Datagrams::Echo)),
                ServiceKind::Dns => (None, Some(Datagrams::Dns)),
                ServiceKind::Tftp => (None, Some(Datagrams::Tftp)),
                // A program of the user's: there is none in here.
                ServiceKind::Command { .. } => (None, None),
            };
            if let Some(kind) = stream {
                services.listeners.push(Listener { port, kind, handle: listen(sockets, port) });
            }
            if let Some(kind) = datagrams {
                services.datagrams.push((bind(sockets, port), kind));
            }
        }
        services
    }

    /// Takes every talk as far as it goes. Says whether anything happened.
    pub(crate) fn run(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        name: &str,
    ) -> bool {
        let mut busy = self.accept(sockets);
        let mut talks = core::mem::take(&mut self.talks);
        talks.retain_mut(|(handle, talk)| {
            busy |= match talk {
                Talk::Ssh(ssh) => ssh.run(sockets.get_mut(*handle), name),
                Talk::Http(request) => http(request, sockets.get_mut(*handle), name),
                Talk::Echo => echo(sockets.get_mut(*handle)),
                Talk::Ftp(session) => session.run(*handle, iface, sockets, &mut self.files),
            };
            let over = !sockets.get::<tcp::Socket>(*handle).is_active();
            if over {
                if let Talk::Ftp(session) = talk {
                    session.end(sockets);
                }
                sockets.remove(*handle);
            }
            !over
        });
        self.talks = talks;
        for at in 0..self.datagrams.len() {
            let (handle, kind) = self.datagrams[at];
            busy |= self.answer(handle, kind, sockets);
        }
        let files = &mut self.files;
        self.transfers.retain_mut(|transfer| {
            busy |= transfer.run(sockets, files);
            !transfer.is_over(sockets)
        });
        busy
    }

    /// A socket that hears becomes the connection, and another one listens in its place.
    fn accept(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let mut busy = false;
        for listener in &mut self.listeners {
            let socket = sockets.get::<tcp::Socket>(listener.handle);
            if socket.is_listening() {
                continue;
            }
            busy = true;
            let talk = match listener.kind {
                Kind::Ssh => Talk::Ssh(Ssh::default()),
                Kind::Http => Talk::Http(Vec::new()),
                Kind::Echo => Talk::Echo,
                Kind::Ftp => Talk::Ftp(Box::default()),
            };
            self.talks.push((listener.handle, talk));
            listener.handle = listen(sockets, listener.port);
        }
        busy
    }

    fn answer(&mut self, handle: SocketHandle, kind: Datagrams, sockets: &mut SocketSet<'static>) -> bool {
        let mut busy = false;
        while let Ok((data, from)) = sockets.get_mut::<udp::Socket>(handle).recv() {
            let (request, from) = (data.to_vec(), from);
            busy = true;
            let reply = match kind {
                Datagrams::Echo => Some(request),
                Datagrams::Dns => dns::answer(&request),
                Datagrams::Tftp => {
                    self.transfers.extend(tftp::Transfer::serve(&request, from, sockets, &mut self.files));
                    None
                }
            };
            if let Some(reply) = reply {
                // The answer leaves from the address that was asked. A full queue loses it, as a network may.
                let to = udp::UdpMetadata { local_address: from.local_address, ..from.endpoint.into() };
                let _ = sockets.get_mut::<udp::Socket>(handle).send_slice(&reply, to);
            }
        }
        busy
    }
}

pub(crate) fn new_tcp() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket
}

fn listen(sockets: &mut SocketSet<'static>, port: u16) -> SocketHandle {
    let mut socket = new_tcp();
    // A new socket can listen, and the lab file has no port 0.
    let _ = socket.listen(port);
    sockets.add(socket)
}

pub(crate) fn new_udp() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; BUFFER]);
    udp::Socket::new(buffer(), buffer())
}

pub(crate) fn bind(sockets: &mut SocketSet<'static>, port: u16) -> SocketHandle {
    let mut socket = new_udp();
    let _ = socket.bind(port);
    sockets.add(socket)
}

/// Takes what has come, up to `room` bytes.
fn receive(socket: &mut tcp::Socket, room: usize) -> Vec<u8> {
    let take = |data: &mut [u8]| {
        let len = data.len().min(room);
        (len, data[..len].to_vec())
    };
    // An error means that nothing can come (any more).
    if socket.can_recv() { socket.recv(take).unwrap_or_default() } else { Vec::new() }
}

fn echo(socket: &mut tcp::Socket) -> bool {
    let room = socket.send_capacity() - socket.send_queue();
    let heard = receive(socket, room);
    let sent = !heard.is_empty() && socket.send_slice(&heard).is_ok();
    sent | hang_up(socket)
}

/// Closes our half once the other half is closed and read.
fn hang_up(socket: &mut tcp::Socket) -> bool {
    let over = socket.state() == tcp::State::CloseWait && !socket.can_recv();
    if over {
        socket.close();
    }
    over
}

fn http(request: &mut Vec<u8>, socket: &mut tcp::Socket, name: &str) -> bool {
    let heard = receive(socket, MAX_LINE.saturating_sub(request.len()));
    if heard.is_empty() {
        return hang_up(socket);
    }
    request.extend_from_slice(&heard);
    if !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() == MAX_LINE {
            socket.abort();
        }
        return true;
    }
    let page = format!("hello from {name}\n");
    let status = if request.starts_with(b"GET ") { "200 OK" } else { "405 Method Not Allowed" };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    // It fits the empty buffer of a new connection.
    let _ = socket.send_slice(answer.as_bytes());
    socket.close();
    true
}

/// How a command of the simulated ssh asks for its client's address, as in a shell.
const CLIENT: &str = "${SSH_CLIENT%% *}";
/// Commands that the simulated ssh knows.
pub(crate) const SSH_COMMANDS: &str = "hostname, echo, cat, seq, true, false";
/// What `seq` counts to at most.
const MAX_COUNT: u64 = 1_000_000;

/// The simulated ssh: a banner, then `COMMAND LENGTH\n` and as many bytes of input, answered by `EXIT LENGTH\n` and
/// as many bytes of output, again and again.
#[derive(Debug, Default)]
struct Ssh {
    greeted: bool,
    identified: bool,
    heard: Vec<u8>,
    /// Answers that wait for room.
    answers: VecDeque<u8>,
}

impl Ssh {
    fn run(&mut self, socket: &mut tcp::Socket, name: &str) -> bool {
        if !self.greeted && socket.may_send() {
            self.greeted = socket.send_slice(format!("{SSH_BANNER}\r\n").as_bytes()).is_ok();
            return true;
        }
        let busy = self.answer(socket);
        let heard = receive(socket, BUFFER);
        if heard.is_empty() {
            return busy || (self.answers.is_empty() && hang_up(socket));
        }
        self.heard.extend_from_slice(&heard);
        while let Some(at) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.heard[..at]).trim_end().to_owned();
            if !self.identified {
                self.identified = true;
                self.heard.drain(..=at);
                continue;
            }
            let Some((command, len)) =
                line.rsplit_once(' ').and_then(|(c, n)| Some((c, n.parse::<usize>().ok()?)))
            else {
                socket.abort();
                return true;
            };
            if self.heard.len() < at + 1 + len {
                break;
            }
            let input: Vec<u8> = self.heard.drain(..at + 1 + len).skip(at + 1).collect();
            let client = socket.remote_endpoint().map_or(String::new(), |from| from.addr.to_string());
            let (code, output) = shell(&command.replace(CLIENT, &client), &input, name);
            self.answers.extend(format!("{code} {}\n", output.len()).into_bytes());
            self.answers.extend(output);
        }
        if self.heard.len() > BUFFER {
            socket.abort();
        }
        self.answer(socket);
        true
    }

    /// Says as much as there is room for.
    fn answer(&mut self, socket: &mut tcp::Socket) -> bool {
        let mut busy = false;
        while socket.can_send() && !self.answers.is_empty() {
            let said = socket.send_slice(self.answers.as_slices().0).unwrap_or_default();
            self.answers.drain(..said);
            busy |= said > 0;
        }
        busy
    }
}

/// Exit code and output of a command; 127 as from a shell that knows it not.
fn shell(command: &str, input: &[u8], name: &str) -> (u8, Vec<u8>) {
    match command.split_once(' ').unwrap_or((command, "")) {
        ("hostname", "") => (0, format!("{name}\n").into_bytes()),
        ("echo", words) => (0, format!("{}\n", words.trim_matches(['\'', '"'])).into_bytes()),
        ("cat", "") => (0, input.to_vec()),
        ("seq", range) => match count(range) {
            Some(numbers) => (0, numbers.into_bytes()),
            None => (127, Vec::new()),
        },
        ("true", _) => (0, Vec::new()),
        ("false", _) => (1, Vec::new()),
        _ => (127, Vec::new()),
    }
}

/// `LAST`, or `FIRST LAST`: the numbers from the one to the other, a line for each.
fn count(range: &str) -> Option<String> {
    use std::fmt::Write as _;
    let numbers: Vec<u64> = range.split_whitespace().map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let (first, last) = match numbers[..] {
        [last] => (1, last),
        [first, last] => (first, last),
        _ => return None,
    };
    (last <= MAX_COUNT).then(|| {
        (first..=last).fold(String::new(), |mut text, number| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{number}");
            text
        })
    })
}
