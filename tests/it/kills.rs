//! `kill -9` at moments by chance (always the same ones), under sessions of which each must live: OpenSSH in both
//! directions, a server that only speaks itself, a download, UDP. Between kill and start stand the pause and the
//! arguments of `deploy/systemd/stateway@.service`; systemd itself is tried by `scripts/unit`.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out. `STATEWAY_KILLS=20` kills more often, and
//! `--nocapture` shows how long each session was silent.

use super::restart::Site;
use super::run::{A, B, PATIENCE, is_left_out};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stateway_runtime::uninterrupted;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, Instant};

const KILLS: usize = 3;
/// Each session says something so often.
const PACE: Duration = Duration::from_millis(10);
/// Bytes of the download at each pace.
const PIECE: usize = 1 << 16;
/// A session that is heard so many times after the start goes on: no buffer on the way holds as much.
const AFTERWARDS: u64 = 30;

/// Where a session is heard.
#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    more: Condvar,
}

#[derive(Default)]
struct Heard {
    count: u64,
    last: Option<Instant>,
    /// The longest pause since the last look at it.
    silence: Duration,
    /// Whoever speaks in the session is to stop.
    is_over: bool,
}

impl Ear {
    #[expect(clippy::disallowed_methods, reason = "how long the silence was is told, and decides nothing")]
    fn hear(&self) {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap();
        heard.count += 1;
        heard.silence = heard.silence.max(heard.last.map_or(Duration::ZERO, |last| now - last));
        heard.last = Some(now);
        self.more.notify_all();
    }

    fn is_over(&self) -> bool {
        self.heard.lock().unwrap().is_over
    }

    /// Waits until the session was heard so many times more; the longest silence since the last such wait.
    fn wait(&self, times: u64, what: &str) -> Duration {
        let heard = self.heard.lock().unwrap();
        let enough = heard.count + times;
        let (mut heard, timeout) =
            self.more.wait_timeout_while(heard, PATIENCE, |heard| heard.count < enough).unwrap();
        assert!(!timeout.timed_out(), "{what} is silent: {} of {enough}", heard.count);
        std::mem::take(&mut heard.silence)
    }
}

/// A session under way: its ear, and what is waited for at its end.
struct Session {
    name: &'static str,
    ear: Arc<Ear>,
    threads: Vec<JoinHandle<()>>,
    /// A program of it, which must not outlive a test that failed.
    program: Option<OwnedFd>,
}

impl Session {
    fn new(name: &'static str, threads: impl FnOnce(&Arc<Ear>) -> Vec<JoinHandle<()>>) -> Self {
        let ear = Arc::default();
        let threads = threads(&ear);
        Self { name, ear, threads, program: None }
    }

    fn of(mut self, program: OwnedFd) -> Self {
        self.program = Some(program);
        self
    }

    /// Nothing was lost, doubled or changed, or a thread panics.
    fn end(mut self) {
        self.ear.heard.lock().unwrap().is_over = true;
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok(), "{}", self.name);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(program) = &self.program {
            // It may have ended.
            let _ = pidfd_send_signal(program, Signal::KILL);
        }
    }
}

/// The settings of the unit file.
fn setting(name: &str) -> String {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/stateway@.service"));
    let unit = unit.unwrap();
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// OpenSSH: a server in B's namespace, and clients in A's.
struct Ssh {
    /// What the namespaces are called before the host's letter.
    name: String,
    folder: PathBuf,
    server: Child,
}

impl Ssh {
    fn start(site: &Site) -> Self {
        let (name, folder) = (site.name.clone(), site.folder.path().to_owned());
        let at = &folder;
        for key in ["host_key", "id"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at.join(key))
                .status();
            assert!(made.unwrap().success());
        }
        let home = at.display();
        let host_key = fs::read_to_string(at.join("host_key.pub")).unwrap();
        fs::write(at.join("known_hosts"), format!("{B} {host_key}")).unwrap();
        let config = format!(
            "HostKey {home}/host_key\nAuthorizedKeysFile {home}/id.pub\nSetEnv \"HOME={home}\"\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nUseDNS no\nPrintMotd no\nListenAddress {B}\n"
        );
        fs::write(at.join("sshd_config"), config).unwrap();
        // It wants a folder in /run, and its own whole path.
        let within = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd && exec \"$(command -v sshd)\" -D -e -f \"$1\"";
        let mut server = Command::new("ip")
            .args(["netns", "exec", &format!("{name}b")])
            // What it starts for each session ends with it.
            .args(["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", within, "sh"])
            .arg(at.join("sshd_config"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(server.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("Server listening") {
            assert!(says.read_line(&mut said).unwrap() > 0, "sshd ended: {said}");
        }
        // What it says later is not asked for, and must not stop it.
        spawn(move || std::io::copy(&mut says, &mut std::io::sink()));
        Self { name, folder, server }
    }

    fn client(&self, command: &str) -> (Child, ChildStdin, BufReader<ChildStdout>) {
        let at = &self.folder;
        let option = |name: &str, file: &Path| format!("{name}={}", file.display());
        let mut client = Command::new("ip")
            .args(["netns", "exec", &format!("{}a", self.name), "ssh", "-F", "none", "-o", "BatchMode=yes"])
            .args(["-o", &option("IdentityFile", &at.join("id")), "-o", "IdentitiesOnly=yes"])
            .args(["-o", &option("UserKnownHostsFile", &at.join("known_hosts"))])
            .args(["-l", "root", B, command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        (client, stdin, BufReader::new(stdout))
    }

    /// A line there, and the same line back.
    fn echo(&self) -> Session {
        let (mut client, mut stdin, mut stdout) = self.client("exec cat");
        let program = pidfd_open(Pid::from_child(&client), PidfdFlags::empty()).unwrap();
        let session = Session::new("ssh", |ear| {
            let ear = Arc::clone(ear);
            vec![spawn(move || {
                for number in 0_u64.. {
                    if ear.is_over() {
                        break;
                    }
                    let (said, mut back) = (format!("{number}\n"), String::new());
                    stdin.write_all(said.as_bytes()).unwrap();
                    stdout.read_line(&mut back).unwrap();
                    assert_eq!(back, said);
                    ear.hear();
                    park_timeout(PACE);
                }
                drop(stdin);
                assert!(client.wait().unwrap().success());
            })]
        });
        session.of(program)
    }

    /// The far side counts until its reader is gone.
    fn push(&self) -> Session {
        let count = "n=0; while echo $n; do n=$((n + 1)); sleep 0.01; done 2>/dev/null";
        let (mut client, stdin, mut stdout) = self.client(count);
        let program = pidfd_open(Pid::from_child(&client), PidfdFlags::empty()).unwrap();
        let session = Session::new("ssh, the server alone", |ear| {
            let ear = Arc::clone(ear);
            vec![spawn(move || {
                for number in 0_u64.. {
                    let mut line = String::new();
                    stdout.read_line(&mut line).unwrap();
                    assert_eq!(line, format!("{number}\n"));
                    ear.hear();
                    if ear.is_over() {
                        break;
                    }
                }
                client.kill().unwrap();
                client.wait().unwrap();
                drop(stdin);
            })]
        });
        session.of(program)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Byte `at` of the download.
const fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

/// B sends and A reads only.
fn download(site: &Site) -> Session {
    let listener = site.on("b", || TcpListener::bind((B, 80)).unwrap());
    let mut near = site.on("a", || TcpStream::connect((B, 80)).unwrap());
    let mut far = listener.accept().unwrap().0;
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    Session::new("download", |ear| {
        let (speaks, hears) = (Arc::clone(ear), Arc::clone(ear));
        let speaker = spawn(move || {
            let mut at = 0;
            while !speaks.is_over() {
                let piece: Vec<u8> = (at..at + PIECE as u64).map(byte).collect();
                far.write_all(&piece).unwrap();
                at += PIECE as u64;
                park_timeout(PACE);
            }
            far.shutdown(Shutdown::Write).unwrap();
        });
        let hearer = spawn(move || {
            let (mut at, mut piece) = (0, vec![0; PIECE]);
            // The piece that the end cuts is none.
            while near.read_exact(&mut piece).is_ok() {
                assert!(piece.iter().zip(at..).all(|(got, at)| *got == byte(at)), "behind byte {at}");
                at += PIECE as u64;
                hears.hear();
            }
            assert!(hears.is_over(), "it broke off after {at} bytes");
        });
        vec![speaker, hearer]
    })
}

/// A asks once, and B answers for ever.
fn udp(site: &Site) -> Session {
    let far = site.on("b", || UdpSocket::bind((B, 53)).unwrap());
    let near = site.on("a", || UdpSocket::bind((A, 5353)).unwrap());
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    near.connect((B, 53)).unwrap();
    near.send(b"?").unwrap();
    far.connect(uninterrupted(|| far.recv_from(&mut [0])).unwrap().1).unwrap();
    Session::new("UDP", |ear| {
        let hears = Arc::clone(ear);
        // Nobody is told that the port is closed, at the end.
        let open = near.try_clone().unwrap();
        let hearer = spawn(move || {
            let (mut last, mut number) = (0, [0; 8]);
            while !hears.is_over() {
                assert_eq!(uninterrupted(|| near.recv(&mut number)).unwrap(), 8);
                let number = u64::from_be_bytes(number);
                assert!(number > last, "{number} after {last}");
                last = number;
                hears.hear();
            }
        });
        vec![spawn(move || {
            for number in 1_u64.. {
                if hearer.is_finished() {
                    break;
                }
                // While no router is there the neighbour may be unknown.
                let _ = far.send(&number.to_be_bytes());
                park_timeout(PACE);
            }
            drop(open);
            hearer.join().unwrap();
        })]
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "whoever asks for more kills wants to see the silence")]
fn every_session_lives_through_kills_and_the_restarts_of_the_unit() {
    if is_left_out() {
        return;
    }
    assert_eq!(setting("Restart"), "on-failure", "a kill is one");
    let pause = humantime::parse_duration(&setting("RestartSec")).unwrap();
    let options: Vec<String> =
        setting("ExecStart").split(' ').filter(|word| word.starts_with('-')).map(str::to_owned).collect();
    assert_eq!(options, ["--control", "--state"], "the site below is started with the same");
    let kills = std::env::var("STATEWAY_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut site = Site::with(&[]);
    let ssh = Ssh::start(&site);
    let sessions = [ssh.echo(), ssh.push(), download(&site), udp(&site)];
    for session in &sessions {
        session.ear.wait(AFTERWARDS, session.name);
    }
    site.wait_until_saved();
    let mut chance = fastrand::Rng::with_seed(17);
    for kill in 0..kills {
        park_timeout(Duration::from_millis(chance.u64(0..1500)));
        for session in &sessions {
            session.ear.wait(0, session.name);
        }
        site.end(Signal::KILL);
        park_timeout(pause);
        site.start();
        assert!(site.said.contains("state of "), "{}", site.said);
        let silences: Vec<String> = sessions
            .iter()
            .map(|session| {
                format!("{} {} ms", session.name, session.ear.wait(AFTERWARDS, session.name).as_millis())
            })
            .collect();
        println!("kill {kill}: silent for {}", silences.join(", "));
    }
    for session in sessions {
        session.end();
    }
}
