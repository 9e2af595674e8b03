//! The simple services of a host: echo, a page, and names.

#![forbid(unsafe_code)]

use super::tftp;
use crate::dns;
use stateway_runtime::uninterrupted;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A client that says nothing is left alone after this.
const PATIENCE: Duration = Duration::from_secs(600);
/// A request line is never longer.
const MAX_LINE: u64 = 8192;

/// Serves until it is ended: `echo:7`, `http:80`, `dns:53`, `tftp:69:FOLDER`. Datagrams are answered from the address that was asked,
/// which takes a socket for each.
pub fn serve(services: &[String], name: &str, addresses: &[IpAddr]) -> io::Result<()> {
    let mut threads = Vec::new();
    for service in services {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{service}` is no service"));
        let (kind, port) = service.split_once(':').ok_or_else(wrong)?;
        let (port, folder) = port.split_once(':').unwrap_or((port, ""));
        let port: u16 = port.parse().map_err(|_| wrong())?;
        match kind {
            "echo" => {
                threads.push(accept(listener(port)?, echo));
                threads.extend(datagrams(port, addresses, |request| Some(request.to_vec()))?);
            }
            "http" => {
                let page = format!("hello from {name}\n");
                threads.push(accept(listener(port)?, move |stream| http(stream, &page)));
            }
            "dns" => {
                threads.extend(datagrams(port, addresses, dns::answer)?);
            }
            "tftp" => {
                for addr in addresses {
                    let (socket, folder) = (UdpSocket::bind((*addr, port))?, PathBuf::from(folder));
                    threads.push(thread::spawn(move || tftp::serve(&socket, &folder)));
                }
            }
            _ => return Err(wrong()),
        }
    }
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a service gave up"))?;
    }
    Ok(())
}

/// Both families at once where IPv6 is to be had.
fn listener(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
}

fn datagrams(
    port: u16,
    addresses: &[IpAddr],
    reply: fn(&[u8]) -> Option<Vec<u8>>,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let serve = |addr: &IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(*addr, port))?;
        Ok(thread::spawn(move || answer(&socket, reply)))
    };
    addresses.iter().map(serve).collect()
}

fn accept(
    listener: TcpListener,
    talk: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let talk = talk.clone();
            // A client that breaks off harms nobody else.
            thread::spawn(move || drop(stream.set_read_timeout(Some(PATIENCE)).and_then(|()| talk(stream))));
        }
    })
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16384];
    loop {
        let len = uninterrupted(|| stream.read(&mut buffer))?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len])?;
    }
}

fn http(stream: TcpStream, page: &str) -> io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?).take(MAX_LINE);
    let mut line = String::new();
    request.read_line(&mut line)?;
    let mut rest = String::new();
    while request.read_line(&mut rest)? > 2 {
        rest.clear();
    }
    let mut stream = stream;
    let status = if line.starts_with("GET ") { "200 OK" } else { "405 Method Not Allowed" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
}

fn answer(socket: &UdpSocket, reply: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut buffer = vec![0; 65536];
    while let Ok((len, peer)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
        if let Some(reply) = reply(&buffer[..len]) {
            // Whoever asked may have gone.
            let _ = socket.send_to(&reply, peer);
        }
    }
}
