//! Captures that real programs made of the kernel as a router: replayed with the rules that it had, they count what its own
//! counters say.

use crate::lab_up::{Bench, sim_only};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LAB: &str = "
name: NAME
router:
  mode: route
  ports: { lan: { address: [192.0.2.1/24] }, wan: { address: [198.51.100.1/24] } }
  rules: |
    *filter
    :INPUT ACCEPT [0:0]
    :FORWARD DROP [0:0]
    :services - [0:0]
    -A FORWARD -m conntrack --ctstate INVALID -j DROP
    -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
    -A FORWARD -m conntrack --ctstate RELATED -j ACCEPT
    -A FORWARD -i lan -m conntrack --ctstate NEW -j services
    -A services -p icmp --icmp-type echo-request -j ACCEPT
    -A services -p tcp --syn -m multiport --dports 22,81 -j ACCEPT
    -A services -p udp -m length --length 100:2000 -j ACCEPT
    COMMIT
hosts:
  client: { port: lan, address: 192.0.2.10/24 }
  server: { port: wan, address: 198.51.100.10/24, services: [ssh] }
tests:
  - name: it can be reached
    ping: { from: client, to: server }
";

/// What the last ping is filled with, `mark`: whoever finds it in a capture knows that all is in there.
const MARK: &str = "6d61726b";
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that captures in a lab. It is ended by its own process number within the lab.
struct Capturing {
    child: Child,
    file: std::path::PathBuf,
    /// How often the mark is in there when it is whole.
    marks: usize,
}

impl Capturing {
    fn begin(bench: &Bench, host: &str, words: &str, file: &str, marks: usize) -> Self {
        let file = bench.at(file);
        let (program, options) = words.split_once(' ').unwrap();
        let child = bench
            .command(&format!("lab exec one {host} {program} -w {} {options}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let capturing = Self { child, file, marks };
        // The header of the file is written once the interfaces are open.
        capturing.wait_until(|bytes| bytes.len() >= 24);
        capturing
    }

    fn wait_until(&self, enough: impl Fn(&[u8]) -> bool) {
        let began = now();
        while !enough(&fs::read(&self.file).unwrap_or_default()) {
            assert!(now().duration_since(began) < PATIENCE, "{} stays as it is", self.file.display());
            std::thread::yield_now();
        }
    }

    fn end(mut self) {
        // What stands behind the time in a ping of 48 bytes.
        let rest = b"mark".repeat(8);
        let packets = |bytes: &[u8]| bytes.windows(rest.len()).filter(|window| *window == rest).count();
        self.wait_until(|bytes| packets(bytes) >= self.marks);
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        self.child.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "real programs take real time")]
fn now() -> Instant {
    Instant::now()
}

/// Packets of every rule and policy of FORWARD and what it leads to, in the order in which `iptables-save -c` has them.
fn kernel_counts(bench: &Bench) -> Vec<u64> {
    let saved = bench.well("lab exec one router iptables-legacy-save -c -t filter");
    let of = |line: &str| {
        let count = line.split_once('[')?.1.split_once(':')?.0;
        (line.starts_with(":FORWARD") || line.starts_with('[')).then(|| count.parse().unwrap())
    };
    saved.lines().filter_map(of).collect()
}

/// The same of a replay with the rules of a lab.
fn replay_counts(bench: &Bench, lab: &str, args: &str) -> Vec<u64> {
    let said = bench.well(&format!("replay {args} --lab {lab} --summary --format json"));
    let totals: serde_json::Value = serde_json::from_str(&said).unwrap();
    let counts: BTreeMap<&str, u64> = totals["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (rule["rule"].as_str().unwrap(), rule["packets"].as_u64().unwrap()))
        .collect();
    let names = [
        "FORWARD/policy",
        "FORWARD/1",
        "FORWARD/2",
        "FORWARD/3",
        "FORWARD/4",
        "services/1",
        "services/2",
        "services/3",
    ];
    names.map(|name| counts.get(format!("filter/{name}").as_str()).copied().unwrap_or(0)).to_vec()
}

/// Traffic between the server and the client, at `client`, that meets every rule.
fn traffic(bench: &Bench, client: &str) {
    let on = |host: &str, words: &[&str]| {
        let output = bench.command(&format!("lab exec one {host}")).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shell = |text: &str| on("client", &["timeout", "30", "bash", "-c", text]);
    let ping =
        |host: &str, options: &str| on(host, &format!("ping {options}").split(' ').collect::<Vec<_>>());
    assert!(ping("client", "-c 3 -i 0.05 -W 10 198.51.100.10").contains(" 0% packet loss"));
    // A server that speaks first, and then hears us no more.
    assert_eq!(shell("exec 3<>/dev/tcp/198.51.100.10/22; head -c 4 <&3"), "SSH-");
    // A closed port that is let through; then a stranger, and what no rule lets through.
    shell("exec 3<>/dev/tcp/198.51.100.10/81");
    ping("server", &format!("-c 2 -i 0.05 -W 1 {client}"));
    shell("head -c 200 /dev/zero >/dev/udp/198.51.100.10/4000");
    shell("echo short >/dev/udp/198.51.100.10/4000");
    assert!(ping("client", &format!("-c 1 -W 10 -s 48 -p {MARK} 198.51.100.10")).contains(" 0% packet loss"));
}

#[test]
fn captures_of_real_programs_replayed_count_what_the_kernel_counted() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-programs");
    fs::write(bench.at("one/lab.yaml"), LAB.replace("NAME", "t-programs")).unwrap();
    bench.well("lab up one --on kernel");
    // What came before is in no capture.
    bench.well("lab exec one router iptables-legacy -Z");
    let index = |port: &str| {
        let text = bench.well(&format!("lab exec one router ip -o link show {port}"));
        text.split(':').next().unwrap().to_owned()
    };
    let all = [
        Capturing::begin(&bench, "router", &tcpdump("any"), "any.pcap", 4),
        Capturing::begin(&bench, "router", &tcpdump("lan"), "lan.pcap", 2),
        Capturing::begin(&bench, "router", &tcpdump("wan"), "wan.pcap", 2),
        Capturing::begin(&bench, "client", &tcpdump("eth0"), "eth0.pcap", 2),
        Capturing::begin(&bench, "router", "dumpcap -q -i lan -i wan", "both.pcapng", 4),
    ];
    traffic(&bench, "192.0.2.10");
    all.into_iter().for_each(Capturing::end);
    let counted = all_but_invalid(&bench);
    let sides = "--port 192.0.2.0/24=lan --port 0.0.0.0/0=wan";
    let numbers = format!("--port {}=lan --port {}=wan", index("lan"), index("wan"));
    gzip(&bench.at("any.pcap"));
    let cases = [
        format!("any.pcap {numbers}"),
        format!("any.pcap.gz {numbers}"),
        "--capture lan=lan.pcap wan=wan.pcap".to_owned(),
        "both.pcapng".to_owned(),
    ];
    for args in cases {
        assert_eq!(replay_counts(&bench, "one", &args), counted, "{args}");
    }
    // The client never saw what was dropped on its way to it.
    let seen = replay_counts(&bench, "one", &format!("eth0.pcap {sides}"));
    assert_eq!(seen[1..], counted[1..], "eth0.pcap");
    let refused = 2;
    assert_eq!(seen[0] + refused, counted[0], "eth0.pcap");
}

#[test]
fn a_capture_of_a_tun_replayed_counts_what_the_kernel_counted() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-tunnel");
    let rules = LAB.replace("NAME", "t-tunnel").replace("-i lan", "! -i wan");
    fs::write(bench.at("one/lab.yaml"), &rules).unwrap();
    // The same router as the capture sees it: its clients are behind the tunnel.
    let seen = rules
        .replace("lan: { address: [192.0.2.1/24] }", "vpn: { address: [198.18.0.1/24] }")
        .replace("port: lan, address: 192.0.2.10/24", "port: vpn, address: 198.18.0.10/24");
    fs::create_dir(bench.at("tunnel")).unwrap();
    fs::write(bench.at("tunnel/lab.yaml"), seen).unwrap();
    bench.well("lab up one --on kernel");
    let mut ends: Vec<_> = [("router", 1, 10), ("client", 10, 1)]
        .map(|(host, own, other)| {
            // Not connected: what is refused while the other end is not there yet ends neither.
            let outside = format!("UDP4-DATAGRAM:192.0.2.{other}:5555,bind=192.0.2.{own}:5555");
            let inside = format!("TUN:198.18.0.{own}/24,tun-type=tun,tun-name=vpn,iff-no-pi,iff-up");
            bench.command(&format!("lab exec one {host} socat {outside} {inside}")).spawn().unwrap()
        })
        .into();
    for host in ["router", "client"] {
        let is_up = || {
            let output = bench.command(&format!("lab exec one {host} ip -o link show vpn up")).output();
            !output.unwrap().stdout.is_empty()
        };
        let began = now();
        while !is_up() {
            assert!(now().duration_since(began) < PATIENCE, "no tunnel at {host}");
        }
    }
    bench.well("lab exec one client ip route add 198.51.100.10 dev vpn");
    // What came before is in no capture.
    bench.well("lab exec one router iptables-legacy -Z");
    let all = [
        Capturing::begin(&bench, "router", &tcpdump("vpn"), "vpn.pcap", 2),
        Capturing::begin(&bench, "router", &tcpdump("wan"), "wan.pcap", 2),
    ];
    traffic(&bench, "198.18.0.10");
    all.into_iter().for_each(Capturing::end);
    let counted = all_but_invalid(&bench);
    assert_eq!(replay_counts(&bench, "tunnel", "--capture vpn=vpn.pcap wan=wan.pcap"), counted);
    for end in &mut ends {
        let pid = rustix::process::Pid::from_child(end);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        end.wait().unwrap();
    }
}

fn tcpdump(interface: &str) -> String {
    format!("tcpdump -U --immediate-mode -i {interface}")
}

/// What the kernel counted, where no packet was INVALID and every other rule met some.
fn all_but_invalid(bench: &Bench) -> Vec<u64> {
    let counted = kernel_counts(bench);
    assert_eq!(counted.len(), 8);
    assert!(counted.iter().enumerate().all(|(at, n)| (*n > 0) != (at == 1)), "{counted:?}");
    counted
}

/// As Wireshark saves a compressed capture.
fn gzip(file: &Path) {
    let status = Command::new("gzip").arg("-k").arg(file).status().unwrap();
    assert!(status.success());
}
