//! `stateway run --metrics`: what a confined router counts, asked over HTTP by curl.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use crate::run::{self, is_left_out};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stateway_runtime::uninterrupted;
use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

/// Whatever should come and does not is missed after so long.
const PATIENCE: Duration = Duration::from_secs(60);
const RULES: &str = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i left -j ACCEPT\nCOMMIT\n";

/// A router in a network namespace of its own.
struct Run {
    router: Child,
    says: BufReader<ChildStderr>,
    folder: tempfile::TempDir,
}

impl Run {
    /// `before`: what a shell does in the namespace first.
    fn start(before: &str, metrics: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rules"), RULES).unwrap();
        let file = folder.path().join("router.yaml");
        let ports = "router:\n  mode: bridge\n  ports: { left: {}, right: {} }\n";
        fs::write(&file, format!("{ports}  rules_file: rules\n  rules6: none\n")).unwrap();
        let mut router = Command::new("unshare")
            .args(["--net", "sh", "-c", &format!("{before}; exec \"$@\""), "sh"])
            .args([env!("CARGO_BIN_EXE_stateway"), "run"])
            .arg(&file)
            .arg("--control")
            .arg(folder.path().join("control"))
            .args(["--metrics", metrics])
            .env_remove("JOURNAL_STREAM")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(router.stderr.take().unwrap());
        Self { router, says, folder }
    }

    fn hear(&mut self, word: &str) -> String {
        run::hear(&mut self.says, word)
    }

    /// Does something in the router's namespace, in a thread of its own.
    fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.router.id())).unwrap();
        std::thread::scope(|scope| {
            let enter = || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                what()
            };
            scope.spawn(enter).join().unwrap()
        })
    }

    fn curl(&self, args: &[&str]) -> Output {
        self.inside(|| Command::new("curl").args(["-sS", "--max-time", "60"]).args(args).output().unwrap())
    }

    fn end(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.router), Signal::TERM).unwrap();
        let mut said = String::new();
        self.says.read_to_string(&mut said).unwrap();
        self.router.wait().unwrap().code()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.router.kill();
        let _ = self.router.wait();
    }
}

#[test]
fn a_confined_router_is_scraped_over_loopback() {
    if is_left_out() {
        return;
    }
    let mut router = Run::start("ip link set lo up", "0");
    let confined = router.hear("confined:");
    assert!(confined.contains("all files, other system calls"), "{confined}");
    let line = router.hear("metrics: ");
    let url = line.strip_prefix("metrics: ").unwrap().to_owned();
    router.hear("ready:");
    let scraped = router.curl(&["-D", "-", &url]);
    assert!(scraped.status.success(), "{scraped:?}");
    let text = String::from_utf8(scraped.stdout).unwrap();
    let (head, page) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("version=0.0.4"), "{head}");
    assert!(page.contains("\nstateway_network_up{device=\"left\"} "), "{page}");
    // The same as on the control socket: frames may have come in between, but no other kinds.
    let control = router.folder.path().join("control");
    let told = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .args(["top", "--metrics", "--control"])
        .arg(control)
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let kinds = |page: &str| page.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    let (kinds, told): (Vec<_>, Vec<_>) = (kinds(page), kinds(&told));
    assert_eq!(kinds, told);

    // Who takes a seat and says nothing is left, and then there is room again.
    let address: SocketAddr =
        url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().parse().unwrap();
    let silent = router.inside(|| {
        let connect = |_| TcpStream::connect(address).unwrap();
        (0..stateway_runtime::control::http::MAX_CLIENTS).map(connect).collect::<Vec<_>>()
    });
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(uninterrupted(|| stream.read(&mut [0; 16])).unwrap(), 0, "it is left");
    }
    let again = router.curl(&["-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "200", "{again:?}");
    assert_eq!(router.end(), Some(0));
}

#[test]
fn an_address_for_others_or_for_nobody_is_warned_of_and_one_that_is_not_there_refused() {
    if is_left_out() {
        return;
    }
    let mut router = Run::start("ip link set lo up", "0.0.0.0:0");
    let warning = router.hear("warning: metrics at");
    assert!(warning.contains("`0.0.0.0:"), "{warning}");
    router.hear("ready:");
    assert_eq!(router.end(), Some(0));

    // Loopback is down in a new namespace.
    let mut router = Run::start(":", "127.0.0.1:9100");
    let warning = router.hear("warning: metrics at");
    assert!(warning.contains("are for nobody: `lo` is down"), "{warning}");
    router.hear("ready:");
    assert_eq!(router.end(), Some(0));

    let mut router = Run::start("ip link set lo up", "192.0.2.77:9100");
    let error = router.hear("error: ");
    assert!(error.starts_with("error: cannot listen at `192.0.2.77:9100`: "), "{error}");
    assert_eq!(router.router.wait().unwrap().code(), Some(3));
}
