//! `stateway run --state`: a router that was killed or restarted goes on with what the last one knew.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use super::netns::{Netns, ip};
use super::run::{A, B, PATIENCE, STATEFUL, is_left_out};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stateway_runtime::uninterrupted;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Hosts A and B on bridges, to which the router's TAPs are connected: they stay when the router goes.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) folder: tempfile::TempDir,
    /// What it is told beside its files.
    args: &'static [&'static str],
    router: Child,
    /// What it has said so far, up to the ready line.
    pub(crate) said: String,
    _namespaces: [Netns; 3],
}

impl Site {
    fn new() -> Self {
        Self::with(&["--state-interval", "100ms"])
    }

    pub(crate) fn with(args: &'static [&'static str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("swr-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let file = format!(
            "router:\n  mode: bridge\n  ports: {{ left: {{}}, right: {{}} }}\n  rules: |\n    *filter\n    :FORWARD DROP [0:0]\n    {}\n    COMMIT\n",
            STATEFUL.replace('\n', "\n    ")
        );
        fs::write(folder.path().join("router.yaml"), file).unwrap();
        let namespaces = ["a", "b", "r"].map(|host| Netns::new(format!("{name}{host}")));
        let (router, said) = start(&name, &folder, args);
        let site = Self { name, folder, args, router, said, _namespaces: namespaces };
        for (host, port, address) in [("a", "left", A), ("b", "right", B)] {
            let (r, ns) = (format!("{}r", site.name), format!("{}{host}", site.name));
            ip(&format!("-n {r} link add br{host} type bridge"));
            ip(&format!("-n {r} link add veth{host} type veth peer name eth0 netns {ns}"));
            for member in [port.to_owned(), format!("veth{host}")] {
                ip(&format!("-n {r} link set {member} master br{host} up"));
            }
            ip(&format!("-n {r} link set br{host} up"));
            ip(&format!("-n {ns} addr add {address}/24 dev eth0"));
            ip(&format!("-n {ns} link set lo up"));
            ip(&format!("-n {ns} link set eth0 up"));
        }
        site
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Ends the router by `signal`.
    pub(crate) fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.router), signal).unwrap();
        let status = self.router.wait().unwrap();
        assert!(signal != Signal::TERM || status.success(), "{status}");
    }

    /// Starts another one.
    pub(crate) fn start(&mut self) {
        (self.router, self.said) = start(&self.name, &self.folder, self.args);
    }

    /// Waits until a state file was begun and finished after now.
    pub(crate) fn wait_until_saved(&self) {
        let inode = || fs::metadata(self.state()).map_or(0, |metadata| metadata.ino());
        for _ in 0..2 {
            let before = inode();
            let changed = || inode() != before;
            let waits = PATIENCE.as_millis() / 10;
            assert!(
                (0..waits).any(|_| {
                    std::thread::park_timeout(std::time::Duration::from_millis(10));
                    changed()
                }),
                "the state is not saved"
            );
        }
    }

    /// Makes something in a host's namespace.
    pub(crate) fn on<T: Send>(&self, host: &str, what: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(format!("/run/netns/{}{host}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                what()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    /// A session of each kind that A opened: what is left to do is B's.
    fn sessions(&self) -> (TcpStream, TcpStream, UdpSocket, UdpSocket) {
        let listener = self.on("b", || TcpListener::bind((B, 22)).unwrap());
        let mut near = self.on("a", || TcpStream::connect((B, 22)).unwrap());
        let mut far = listener.accept().unwrap().0;
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        near.write_all(b"?").unwrap();
        far.read_exact(&mut [0]).unwrap();
        let far_udp = self.on("b", || UdpSocket::bind((B, 53)).unwrap());
        let near_udp = self.on("a", || UdpSocket::bind((A, 5353)).unwrap());
        for socket in [&near_udp, &far_udp] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        near_udp.connect((B, 53)).unwrap();
        near_udp.send(b"?").unwrap();
        let (_, near_addr) = uninterrupted(|| far_udp.recv_from(&mut [0])).unwrap();
        far_udp.connect(near_addr).unwrap();
        let mut sessions = (near, far, near_udp, far_udp);
        far_side_speaks(&mut sessions, b'0');
        sessions
    }
}

/// B says something in each session, and A hears it.
fn far_side_speaks(
    (near, far, near_udp, far_udp): &mut (TcpStream, TcpStream, UdpSocket, UdpSocket),
    word: u8,
) {
    let mut heard = [0];
    far.write_all(&[word]).unwrap();
    near.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [word]);
    far_udp.send(&[word]).unwrap();
    uninterrupted(|| near_udp.recv(&mut heard)).unwrap();
    assert_eq!(heard, [word]);
}

fn start(name: &str, folder: &tempfile::TempDir, args: &[&str]) -> (Child, String) {
    let at = |file: &str| folder.path().join(file);
    let mut router = Command::new("ip")
        .args(["netns", "exec", &format!("{name}r"), env!("CARGO_BIN_EXE_stateway"), "run"])
        .arg(at("router.yaml"))
        .arg("--control")
        .arg(at("control"))
        .arg("--state")
        .arg(at("state"))
        .args(args)
        .env_remove("JOURNAL_STREAM")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut says = BufReader::new(router.stderr.take().unwrap());
    while !said.contains("ready:") {
        assert!(says.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    (router, said)
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.router.kill();
        let _ = self.router.wait();
    }
}

#[test]
fn sessions_in_which_only_the_far_side_speaks_survive_restarts_and_kills() {
    if is_left_out() {
        return;
    }
    let mut site = Site::new();
    let mut sessions = site.sessions();
    for (signal, word) in
        [(Signal::TERM, b'1'), (Signal::KILL, b'2'), (Signal::KILL, b'3'), (Signal::TERM, b'4')]
    {
        if signal == Signal::KILL {
            site.wait_until_saved();
        }
        site.end(signal);
        site.start();
        assert!(site.said.contains("state of "), "{}", site.said);
        far_side_speaks(&mut sessions, word);
    }
    // And what B opens is still refused.
    let stranger = site.on("b", || UdpSocket::bind((B, 54)).unwrap());
    stranger.send_to(b"!", (A, 5353)).unwrap();
    far_side_speaks(&mut sessions, b'5');
}

#[test]
fn a_damaged_state_file_is_put_aside_and_the_router_runs() {
    if is_left_out() {
        return;
    }
    let mut site = Site::new();
    site.end(Signal::KILL);
    fs::write(site.state(), "no state").unwrap();
    site.start();
    assert!(site.said.contains("is refused, no connection is known: it is no state file"), "{}", site.said);
    assert_eq!(fs::read_to_string(site.folder.path().join("state.bad")).unwrap(), "no state");
    site.sessions();
}
