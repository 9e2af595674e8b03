//! Takes the clients of the control socket. One thread listens, and two serve each client: one reads lines, one
//! answers, so that a client that asked for a stream can end it.
//!
//! All of it is bounded: clients, guests among them so that the owner always finds a seat, what is read and what waits
//! to be sent (`visitor`), and what becomes of it when descriptors or threads run out.

use super::door::{Door, Seat};
use super::events::Hub;
use super::socket::ControlSocket;
use super::visitor::{Rights, Visitor, turn_away};
use crate::confine::{self, Report, Role};
use crate::runtime::Shared;
use crate::runtime::orders::Order;
use crossbeam_channel::Sender;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use stateway_core::config::{Mode, RouterConfig};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

/// Clients served at once; one more is told so and left.
pub const MAX_CLIENTS: usize = 32;
/// Of them, those who may only look: the owner always finds a seat.
const MAX_GUESTS: usize = 16;
/// See [`Context::patience`].
const PATIENCE: Duration = Duration::from_secs(10);

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct Context {
    pub shared: Arc<Shared>,
    pub orders: Sender<Order>,
    pub mode: Mode,
    /// The file that the router was started with.
    pub file: Option<PathBuf>,
    /// How frames are moved.
    pub burst: &'static str,
    /// What the process gave up.
    pub confined: Report,
    /// What the router was made from, for whoever asks what it would do.
    pub config: Option<RouterConfig>,
    /// Within so long a client takes a line of an answer, whole, or is left.
    pub patience: Duration,
    pub(super) hub: Arc<Hub>,
}

impl Context {
    pub fn new(
        shared: Arc<Shared>,
        orders: Sender<Order>,
        mode: Mode,
        file: Option<PathBuf>,
        burst: &'static str,
    ) -> Self {
        let confined = Report::default();
        let hub = Arc::default();
        Self { shared, orders, mode, file, burst, confined, config: None, patience: PATIENCE, hub }
    }
}

/// A control socket that is answered. Dropping it removes the socket, if this process still may.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    door: Door,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes a socket at `path` and answers there.
    ///
    /// # Errors
    /// As [`ControlSocket::bind`] and [`Server::start`].
    pub fn listen(path: &Path, context: Context) -> anyhow::Result<Self> {
        Ok(Self::start(ControlSocket::bind(path)?, context)?)
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// No thread or no descriptor is to be had.
    pub fn start(socket: ControlSocket, context: Context) -> io::Result<Self> {
        let door = Door::new()?;
        socket.listener.set_nonblocking(true)?;
        let path = socket.path().to_owned();
        let reception = Reception {
            reserve: fcntl_dupfd_cloexec(&socket.listener, 0).ok(),
            door: door.clone(),
            clients: Arc::default(),
            guests: Arc::default(),
            socket,
            context,
        };
        let thread = confine::spawn("control", Role::Control, || reception.run())?;
        Ok(Self { path, door, thread: Some(thread) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.door.close();
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread that takes clients.
struct Reception {
    socket: ControlSocket,
    context: Context,
    door: Door,
    /// Given up for a moment to take a client and tell him that there are no descriptors left: who stays in the queue
    /// keeps it readable for ever.
    reserve: Option<OwnedFd>,
    clients: Arc<AtomicUsize>,
    guests: Arc<AtomicUsize>,
}

impl Reception {
    fn run(mut self) {
        while self.door.wait_for_client(&self.socket.listener) {
            match self.socket.listener.accept() {
                Ok((stream, _)) => self.receive(stream),
                Err(error) => match Errno::from_io_error(&error) {
                    // He went before he was taken.
                    Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                    Some(Errno::MFILE | Errno::NFILE) if self.turn_one_away() => {}
                    _ => self.door.pause(),
                },
            }
        }
    }

    /// Out of descriptors. Says whether anything came of it.
    fn turn_one_away(&mut self) -> bool {
        drop(self.reserve.take());
        let taken = self.socket.listener.accept();
        if let Ok((stream, _)) = &taken {
            turn_away(stream, "the router has no descriptors left, try later".to_owned());
        }
        let is_taken = taken.is_ok();
        drop(taken);
        self.reserve = fcntl_dupfd_cloexec(&self.socket.listener, 0).ok();
        is_taken && self.reserve.is_some()
    }

    fn receive(&self, stream: UnixStream) {
        let Some(seat) = Seat::take(&self.clients, MAX_CLIENTS) else {
            return turn_away(&stream, format!("{MAX_CLIENTS} clients are being served, try later"));
        };
        let (context, owner) = (self.context.clone(), self.socket.owner);
        let guests = Arc::clone(&self.guests);
        let serve = move || {
            // An error here is the client's going.
            let _ = seat_and_serve(&stream, &context, owner, &guests);
            drop(seat);
        };
        if let Err(error) = confine::spawn("client", Role::Client, serve) {
            tracing::warn!(%error, "no thread for a control client");
        }
    }
}

/// Answers one client until it goes, as the user of this process would be answered.
///
/// # Errors
/// It went before it had all answers.
pub fn serve(stream: &UnixStream, context: &Context) -> io::Result<()> {
    Visitor::new(stream, rustix::process::geteuid().as_raw(), context)?.serve()
}

fn seat_and_serve(
    stream: &UnixStream,
    context: &Context,
    owner: u32,
    guests: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let visitor = Visitor::new(stream, owner, context)?;
    let seat = match visitor.rights() {
        Rights::Owner => None,
        Rights::Guest => Some(Seat::take(guests, MAX_GUESTS)),
    };
    if let Some(None) = seat {
        turn_away(stream, format!("{MAX_GUESTS} guests are being served, try later"));
        return Ok(());
    }
    visitor.serve()
}

#[cfg(test)]
mod tests;
