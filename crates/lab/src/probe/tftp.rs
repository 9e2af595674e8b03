//! A TFTP server (RFC 1350) for hosts whose users cannot run another one: one file at a time for each client. And a
//! client that knows when a server answers.

#![forbid(unsafe_code)]

use stateway_runtime::uninterrupted;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Component, Path};
use std::thread;
use std::time::Duration;

const BLOCK: usize = 512;
/// A packet without an answer is sent again after this, so many times.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: usize = 6;
/// Whoever waits for a server asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// What a client may put.
const MAX_FILE: usize = 64 << 20;

const READ: u8 = 1;
const WRITE: u8 = 2;
const DATA: u8 = 3;
const ACK: u8 = 4;

/// Answers requests until the socket is gone.
pub(super) fn serve(socket: &UdpSocket, folder: &Path) {
    let mut buffer = [0; 1024];
    while let Ok((len, peer)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
        let Some((code, name)) = request(&buffer[..len]) else { continue };
        let Ok(own) = socket.local_addr() else { return };
        let file = folder.join(name);
        // A client that breaks off harms nobody else.
        thread::spawn(move || transfer(code, &file, own, peer));
    }
}

/// Whether a server answers in time. It is asked for a file that is not there, again and again, as a client
/// does whose request was lost; the server's word that there is none is the answer.
pub(super) fn answers(server: SocketAddr, timeout: Duration) -> io::Result<bool> {
    const REQUEST: &[u8] = b"\0\x01stateway-is-this-server-ready\0octet\0";
    let socket = UdpSocket::bind((server.ip(), 0))?;
    socket.set_read_timeout(Some(ASK_AGAIN))?;
    let mut buffer = [0; 4 + BLOCK];
    // Counted in questions, since a busy machine takes longer for each.
    for _ in 0..timeout.as_millis().div_ceil(ASK_AGAIN.as_millis()) {
        socket.send_to(REQUEST, server)?;
        match uninterrupted(|| socket.recv_from(&mut buffer)) {
            Ok((len, _)) if len >= 4 => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// What is asked for, and of which file; nothing outside the folder has a name here.
fn request(packet: &[u8]) -> Option<(u8, &str)> {
    let (&[0, code @ (READ | WRITE)], rest) = packet.split_first_chunk::<2>()? else { return None };
    let name = core::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()?;
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !name.is_empty()).then_some((code, name))
}

fn transfer(code: u8, file: &Path, own: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((own.ip(), 0))?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(AGAIN))?;
    if code == WRITE {
        return take(&socket, file);
    }
    match fs::read(file) {
        Ok(bytes) => give(&socket, &bytes),
        Err(_) => socket.send(b"\0\x05\0\x01there is no such file\0").map(drop),
    }
}

fn give(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    // A file that fills its last block ends with an empty one.
    for number in 0..=bytes.len() / BLOCK {
        let data = &bytes[number * BLOCK..bytes.len().min((number + 1) * BLOCK)];
        let block = (number as u16).wrapping_add(1);
        exchange(socket, &[&head(DATA, block)[..], data].concat(), ACK, block)?;
    }
    Ok(())
}

fn take(socket: &UdpSocket, file: &Path) -> io::Result<()> {
    let (mut bytes, mut block) = (Vec::new(), 0_u16);
    loop {
        let data = exchange(socket, &head(ACK, block), DATA, block.wrapping_add(1))?;
        block = block.wrapping_add(1);
        bytes.extend_from_slice(&data);
        if bytes.len() > MAX_FILE {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if data.len() < BLOCK {
            // Whoever hears of the end finds the file whole.
            fs::write(file, bytes)?;
            return socket.send(&head(ACK, block)).map(drop);
        }
    }
}

fn head(code: u8, block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, code, high, low]
}

/// Sends a packet until the wanted one comes back; gives what it carries.
fn exchange(socket: &UdpSocket, packet: &[u8], code: u8, block: u16) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4 + BLOCK];
    for _ in 0..TRIES {
        socket.send(packet)?;
        while let Ok(len) = uninterrupted(|| socket.recv(&mut buffer)) {
            if let Some(data) = buffer[..len].strip_prefix(&head(code, block)) {
                return Ok(data.to_vec());
            }
        }
    }
    Err(ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_when_it_answers_and_not_when_its_port_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let at = socket.local_addr().unwrap();
        assert!(!answers(at, Duration::ZERO).unwrap());
        // It loses the first request, as tftpd-hpa 5.3 does.
        thread::spawn(move || {
            socket.recv_from(&mut [0; 1024]).unwrap();
            serve(&socket, folder.path());
        });
        assert!(answers(at, Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn a_request_names_a_file_of_the_folder_and_no_other() {
        assert_eq!(request(b"\0\x01file\0octet\0"), Some((READ, "file")));
        for bad in [
            &b"\0\x01../file\0octet\0"[..],
            b"\0\x02/etc/x\0octet\0",
            b"\0\x03\0\x01",
            b"\0\x01\0octet\0",
            b"",
        ] {
            assert_eq!(request(bad), None, "{bad:?}");
        }
    }
}
