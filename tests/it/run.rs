//! `stateway run` on TAPs in network namespaces: how it moves frames and falls back, that it loses and reorders nothing
//! under load, and what it prints.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use crate::netns::{Netns, ip};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use stateway_runtime::control::Client;
use stateway_runtime::control::protocol::{Command as Ask, Reply};
use stateway_runtime::uninterrupted;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Whatever should come and does not is missed after so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const A: &str = "192.0.2.1";
pub(crate) const B: &str = "192.0.2.2";
/// What A opens may be answered.
pub(crate) const STATEFUL: &str = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT";

const IO_URING_SETUP: i64 = 425;
#[cfg(target_arch = "x86_64")]
const IOCTL: i64 = 16;
#[cfg(target_arch = "aarch64")]
const IOCTL: i64 = 29;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;

/// What the kernel refuses the router, as a container's seccomp profile or an old kernel would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Nothing,
    IoUring,
    VirtioHeader,
}

impl Refused {
    /// Takes it from this thread, and from all that it starts.
    fn apply(self) {
        let (call, rules, errno) = match self {
            Self::Nothing => return,
            Self::IoUring => (IO_URING_SETUP, vec![], rustix::io::Errno::PERM),
            Self::VirtioHeader => {
                let is_it =
                    SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, TUNSETOFFLOAD)
                        .unwrap();
                (IOCTL, vec![SeccompRule::new(vec![is_it]).unwrap()], rustix::io::Errno::INVAL)
            }
        };
        let filter = SeccompFilter::new(
            BTreeMap::from([(call, rules)]),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.raw_os_error() as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
    }
}

/// Hosts A and B in namespaces of their own, and a router between them in a third.
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) router: Child,
    /// What it says on standard error, from behind the ready line on.
    pub(crate) says: BufReader<ChildStderr>,
    ready: String,
    pub(crate) folder: tempfile::TempDir,
    _namespaces: [Netns; 3],
}

impl Lab {
    /// `settings`: lines of the file's `router:` part.
    pub(crate) fn start(settings: &str, rules: &str, refused: Refused) -> Self {
        Self::start_with(settings, rules, refused, &[])
    }

    /// As [`Lab::start`], with more arguments.
    pub(crate) fn start_with(settings: &str, rules: &str, refused: Refused, args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("swt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("router.yaml");
        fs::write(folder.path().join("rules"), format!("*filter\n:FORWARD DROP [0:0]\n{rules}\nCOMMIT\n"))
            .unwrap();
        fs::write(
            &file,
            format!("router:\n  mode: bridge\n  ports: {{ left: {{}}, right: {{}} }}\n  rules_file: rules\n{settings}"),
        )
        .unwrap();
        let namespaces = ["a", "b", "r"].map(|host| Netns::new(format!("{name}{host}")));
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{name}r"), env!("CARGO_BIN_EXE_stateway"), "run"])
            .arg(&file)
            .arg("--control")
            .arg(folder.path().join("control"))
            .args(args)
            .env_remove("JOURNAL_STREAM")
            .stderr(Stdio::piped());
        let spawn = move || {
            refused.apply();
            command.spawn().unwrap()
        };
        let mut router = std::thread::spawn(spawn).join().unwrap();
        let says = BufReader::new(router.stderr.take().unwrap());
        let ready = String::new();
        let mut lab = Self { name, router, says, ready, folder, _namespaces: namespaces };
        lab.ready = lab.hear("ready:");
        for (host, port, address) in [("a", "left", A), ("b", "right", B)] {
            lab.plug(host, port, address);
        }
        lab
    }

    /// Makes a port the interface of a host.
    pub(crate) fn plug(&self, host: &str, port: &str, address: &str) {
        let ns = format!("{}{host}", self.name);
        ip(&format!("-n {}r link set {port} netns {ns} name eth0", self.name));
        ip(&format!("-n {ns} addr add {address}/24 dev eth0"));
        ip(&format!("-n {ns} link set lo up"));
        ip(&format!("-n {ns} link set eth0 up"));
    }

    /// The first answer of the router to a command.
    pub(crate) fn ask(&self, command: &Ask) -> Reply {
        let mut client = Client::connect(&self.folder.path().join("control")).unwrap();
        client.call(command).unwrap().into_iter().next().unwrap()
    }

    /// The next line that contains a word.
    pub(crate) fn hear(&mut self, word: &str) -> String {
        hear(&mut self.says, word)
    }

    /// Runs something on a host, in a thread of its own.
    pub(crate) fn on<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        host: &str,
        what: impl FnOnce() -> T + Send + 'scope,
    ) -> std::thread::ScopedJoinHandle<'scope, T> {
        let netns = File::open(format!("/run/netns/{}{host}", self.name)).unwrap();
        scope.spawn(move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        })
    }

    /// A counter of TCP in a host's namespace.
    fn counter(&self, host: &str, name: &str) -> u64 {
        let output = Command::new("ip")
            .args([
                "netns",
                "exec",
                &format!("{}{host}", self.name),
                "cat",
                "/proc/net/netstat",
                "/proc/net/snmp",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut both = lines.chunks(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')));
        both.find(|(counter, _)| *counter == name).unwrap().1.parse().unwrap()
    }

    /// Frames that the router could not send.
    pub(crate) fn lost(&self) -> u64 {
        let mut client = Client::connect(&self.folder.path().join("control")).unwrap();
        let replies = client.call(&Ask::Interfaces).unwrap();
        let Some(Reply::Interfaces { interfaces }) = replies.into_iter().next() else {
            panic!("no interfaces")
        };
        interfaces.iter().map(|interface| interface.tx_lost).sum()
    }
}

/// The next line that contains a word.
pub(crate) fn hear(says: &mut impl BufRead, word: &str) -> String {
    let mut heard = String::new();
    loop {
        let mut line = String::new();
        assert!(says.read_line(&mut line).unwrap() > 0, "it ended without {word:?}: {heard}");
        if line.contains(word) {
            return line.trim_end().to_owned();
        }
        heard.push_str(&line);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.router);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.router.wait();
    }
}

/// Whether only what needs no privilege is wanted.
pub(crate) fn is_left_out() -> bool {
    std::env::var_os("STATEWAY_SIM_ONLY").is_some_and(|v| v == "1")
}

/// A stretch of a stream that repeats nowhere near a power of two, so that what is shifted or swapped differs.
fn pattern() -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(8);
    let once: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1_048_573).collect();
    [&once[..], &once].concat()
}

/// The `len` bytes of a stream at `at`, or fewer.
fn stretch(pattern: &[u8], at: u64, len: usize) -> &[u8] {
    let once = pattern.len() / 2;
    let start = (at % once as u64) as usize;
    &pattern[start..start + len.min(once)]
}

/// Sends so many streams of `bytes` from A to B at once, and compares every byte that arrives.
pub(crate) fn transfer(lab: &Lab, streams: u16, bytes: u64) {
    let pattern = pattern();
    let pattern = &pattern;
    std::thread::scope(|scope| {
        for n in 0..streams {
            let (listening, listens) = channel();
            let receiver = lab.on(scope, "b", move || {
                let listener = TcpListener::bind((B, 5000 + n)).unwrap();
                listening.send(()).unwrap();
                let mut stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let (mut at, mut buffer) = (0, vec![0; 1 << 18]);
                loop {
                    let len = uninterrupted(|| stream.read(&mut buffer)).unwrap();
                    if len == 0 {
                        return at;
                    }
                    assert!(buffer[..len] == *stretch(pattern, at, len), "stream {n} differs near byte {at}");
                    at += len as u64;
                }
            });
            let sender = lab.on(scope, "a", move || {
                listens.recv().unwrap();
                let mut stream = TcpStream::connect((B, 5000 + n)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let mut at = 0;
                while at < bytes {
                    let len = (bytes - at).min(1 << 18) as usize;
                    at += uninterrupted(|| stream.write(stretch(pattern, at, len))).unwrap() as u64;
                }
            });
            scope.spawn(move || {
                sender.join().unwrap();
                assert_eq!(receiver.join().unwrap(), bytes, "stream {n}");
            });
        }
    });
}

#[test]
fn the_ready_line_says_how_frames_are_moved_and_they_are() {
    if is_left_out() {
        return;
    }
    for (device, refused, says) in [
        ("auto", Refused::Nothing, "device fast (io_uring)"),
        ("fast", Refused::Nothing, "device fast (io_uring)"),
        ("auto", Refused::IoUring, "device fast (poll)"),
        ("auto", Refused::VirtioHeader, "device tap (poll)"),
        ("tap", Refused::Nothing, "device tap (poll)"),
    ] {
        let lab = Lab::start(&format!("  device: {device}\n"), STATEFUL, refused);
        assert!(lab.ready.contains(says), "{device}, {refused:?}: {}", lab.ready);
        transfer(&lab, 2, 8 << 20);
        assert_eq!(lab.lost(), 0, "{says}");
    }
}

#[test]
fn a_fast_port_that_is_not_to_be_had_is_no_plain_one() {
    if is_left_out() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.yaml");
    fs::write(&file, "router:\n  mode: bridge\n  device: fast\n  ports: { left: {} }\n").unwrap();
    let ns = Netns::new(format!("swt-{}-fast", std::process::id()));
    let run = || {
        Refused::VirtioHeader.apply();
        let program = ["netns", "exec", &ns.0, env!("CARGO_BIN_EXE_stateway"), "run"];
        Command::new("ip").args(program).arg(&file).output().unwrap()
    };
    let output = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot open the TAP `left`"), "{said}");
}

#[test]
fn a_gibibyte_crosses_byte_for_byte_and_in_order() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    assert!(lab.ready.contains("device fast (io_uring)"), "{}", lab.ready);
    transfer(&lab, 4, 256 << 20);
    assert_eq!(lab.counter("b", "TCPOFOQueue"), 0, "segments that came before their turn");
    assert_eq!(lab.counter("b", "InCsumErrors"), 0, "broken checksums");
    assert_eq!(lab.lost(), 0);
}

#[test]
fn four_iperf_streams_lose_nothing() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    let host = |host: &str| format!("{}{host}", lab.name);
    let mut server = Command::new("ip")
        .args(["netns", "exec", &host("b"), "iperf3", "-s", "-1", "--forceflush"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it takes iperf3");
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("listening")), "iperf3 listens");
    let output = Command::new("ip")
        .args(["netns", "exec", &host("a"), "iperf3", "-c", B, "-P", "4", "-n", "256M", "-J"])
        .output()
        .unwrap();
    let last = said.count();
    assert!(server.wait().unwrap().success(), "{last} lines more");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["end"]["sum_received"]["bytes"].as_u64() > Some(200 << 20), "{report}");
    assert_eq!(lab.counter("b", "TCPOFOQueue"), 0, "segments that came before their turn");
    assert_eq!(lab.lost(), 0);
}

#[test]
fn datagrams_of_a_flow_arrive_all_and_in_order() {
    const FLOWS: u16 = 4;
    const DATAGRAMS: u32 = 50_000;
    /// So many are on the way, so that no queue overflows.
    const WINDOW: u32 = 128;
    if is_left_out() {
        return;
    }
    for settings in ["", "  busy_poll: adaptive\n", "  device: tap\n"] {
        let lab = Lab::start(settings, STATEFUL, Refused::Nothing);
        // While ARP is on its way, a host keeps few datagrams.
        transfer(&lab, 1, 1);
        std::thread::scope(|scope| {
            for n in 0..FLOWS {
                let (bound, is_bound) = channel();
                let receiver = lab.on(scope, "b", move || {
                    let socket = UdpSocket::bind((B, 5000 + n)).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    bound.send(()).unwrap();
                    for expected in 0..DATAGRAMS {
                        let mut number = [0; 4];
                        let (_, from) = uninterrupted(|| socket.recv_from(&mut number)).unwrap();
                        assert_eq!(u32::from_be_bytes(number), expected, "flow {n}");
                        if expected % (WINDOW / 2) == WINDOW / 2 - 1 {
                            socket.send_to(&number, from).unwrap();
                        }
                    }
                });
                let sender = lab.on(scope, "a", move || {
                    is_bound.recv().unwrap();
                    let socket = UdpSocket::bind((A, 0)).unwrap();
                    socket.connect((B, 5000 + n)).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut arrived = 0;
                    for number in 0..DATAGRAMS {
                        while number - arrived >= WINDOW {
                            let mut last = [0; 4];
                            uninterrupted(|| socket.recv(&mut last)).unwrap();
                            arrived = u32::from_be_bytes(last) + 1;
                        }
                        socket.send(&number.to_be_bytes()).unwrap();
                    }
                });
                scope.spawn(move || (sender.join().unwrap(), receiver.join().unwrap()));
            }
        });
        assert_eq!(lab.lost(), 0, "{settings:?}");
    }
}

#[test]
fn what_rules_log_stands_on_standard_error() {
    if is_left_out() {
        return;
    }
    let rules = "-A FORWARD -p udp -m udp --dport 5353 -j LOG --log-prefix \"heard: \"\n-A FORWARD -j ACCEPT";
    let mut lab = Lab::start("", rules, Refused::Nothing);
    std::thread::scope(|scope| {
        let send = || UdpSocket::bind((A, 4000)).unwrap().send_to(b"hello", (B, 5353)).unwrap();
        lab.on(scope, "a", send).join().unwrap();
    });
    let line = lab.hear("heard: ");
    for part in [
        "heard: IN=left OUT=right MAC=",
        "SRC=192.0.2.1 DST=192.0.2.2 LEN=33 ",
        "PROTO=UDP SPT=4000 DPT=5353 LEN=13",
    ] {
        assert!(line.contains(part), "{line}");
    }
}
