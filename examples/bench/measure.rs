//! One figure: a load, how much of it arrived, and what it cost.

use crate::rig::{Case, Rig, sh};
use crate::watched;
use anyhow::{Context as _, bail};
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// iperf3 with so many streams.
    Tcp(u8),
    /// 64-byte datagrams, dropped where they arrive: the forwarder's limit.
    Datagrams,
    /// The same while two watch, one of whom was stopped.
    DatagramsWatched,
    /// 64-byte datagrams into a socket.
    DatagramsRead,
    /// Connections, a byte there, a byte back, closed by reset, sixteen at a time.
    Connections,
    /// 64-byte datagrams spread over so many connections, all of them in the table.
    Among(u32),
    Ping,
    /// A datagram there, a datagram back.
    Ask,
}

const NAMES: &[(&str, Test, &str)] = &[
    ("tcp1", Test::Tcp(1), "TCP, 1 stream, Gbit/s"),
    ("tcp4", Test::Tcp(4), "TCP, 4 streams, Gbit/s"),
    ("datagrams", Test::Datagrams, "64-byte datagrams/s, dropped on arrival"),
    ("datagrams-watched", Test::DatagramsWatched, "64-byte datagrams/s, dropped on arrival, while two watch"),
    ("datagrams-read", Test::DatagramsRead, "64-byte datagrams/s, into a socket"),
    ("connections", Test::Connections, "Connections/s"),
    ("ping", Test::Ping, "Ping, µs"),
    ("ask", Test::Ask, "Question and answer, µs"),
    ("among-1", Test::Among(1), "64-byte datagrams/s over 1 connection"),
    ("among-1k", Test::Among(1000), "64-byte datagrams/s over 1,000 connections"),
    ("among-10k", Test::Among(10_000), "64-byte datagrams/s over 10,000 connections"),
    ("among-100k", Test::Among(100_000), "64-byte datagrams/s over 100,000 connections"),
    ("among-1m", Test::Among(1_000_000), "64-byte datagrams/s over 1,000,000 connections"),
];

impl Test {
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, test, _)| *test)
    }

    pub fn title(self) -> &'static str {
        NAMES.iter().find(|(_, test, _)| *test == self).map_or("?", |(_, _, title)| title)
    }

    /// What the forwarder's CPU time is divided by.
    pub const fn cost_unit(self) -> Option<&'static str> {
        match self {
            Self::Tcp(_) => Some("ns/KiB"),
            Self::Datagrams | Self::DatagramsWatched | Self::DatagramsRead | Self::Among(_) => {
                Some("ns/packet")
            }
            Self::Connections => Some("ns/connection"),
            Self::Ping | Self::Ask => None,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(NAMES.iter().find(|(_, test, _)| test == self).map_or("?", |(name, ..)| name))
    }
}

impl FromStr for Test {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let names = || NAMES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
        NAMES
            .iter()
            .find(|(name, ..)| *name == s)
            .map(|(_, test, _)| *test)
            .ok_or_else(|| format!("there are {}", names()))
    }
}

/// One measurement of one case.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub repetition: u32,
    pub case: Case,
    pub test: Test,
    pub values: Values,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Values {
    /// In the unit of [`Test::title`].
    pub value: f64,
    /// The forwarder's CPU time in [`Test::cost_unit`]; unknown for the kernel.
    pub cost: Option<f64>,
    /// Of what was sent, how much did not arrive.
    pub loss: Option<f64>,
    /// CPUs busy in the whole machine.
    pub busy: f64,
}

pub fn measure(rig: &Rig, test: Test, seconds: u32) -> anyhow::Result<Values> {
    match test {
        Test::Tcp(streams) => tcp(rig, streams, seconds),
        Test::Datagrams => dropped_datagrams(rig, seconds),
        Test::DatagramsWatched => watched::measure(rig, seconds),
        Test::DatagramsRead => read_datagrams(rig, seconds),
        Test::Among(count) => among(rig, count, seconds),
        Test::Connections => connections(rig, seconds),
        Test::Ping => ping(rig),
        Test::Ask => {
            let answering = spawn_load(&rig.b, &["answer", &(seconds + 1).to_string()])?;
            let value = load(&rig.a, &["ask", rig.target, &seconds.to_string()])?;
            end(answering)?;
            Ok(Values { value, ..Values::default() })
        }
    }
}

/// What the machine and the forwarder had used when the load began.
struct Meter<'a> {
    rig: &'a Rig,
    cpu: u64,
    busy: u64,
    start: Instant,
    /// CPUs busy while the load lasted.
    busy_cpus: f64,
}

impl<'a> Meter<'a> {
    fn start(rig: &'a Rig) -> Self {
        Self { rig, cpu: forwarder_ns(rig), busy: busy_ticks(), start: Instant::now(), busy_cpus: 0.0 }
    }

    /// The load has ended; what it sent may still be on its way.
    fn end_of_load(&mut self) {
        // The kernel counts in hundredths of a second.
        self.busy_cpus = (busy_ticks() - self.busy) as f64 / 100.0 / self.start.elapsed().as_secs_f64();
    }

    /// `amount` of [`Test::cost_unit`] arrived.
    fn values(&self, value: f64, amount: f64) -> Values {
        let cpu = (forwarder_ns(self.rig) - self.cpu) as f64;
        let cost = (!self.rig.forwarders.is_empty() && amount > 0.0).then_some(cpu / amount);
        Values { value, cost, loss: None, busy: self.busy_cpus }
    }
}

/// CPU time of all threads of the forwarder.
fn forwarder_ns(rig: &Rig) -> u64 {
    let tasks = rig.forwarders.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    let times =
        tasks.flatten().flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    times.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// Ticks that any CPU was not idle.
fn busy_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // Idle, waiting for disks, and what the hypervisor took.
    let idle: u64 = [3, 4, 7].iter().filter_map(|&n| ticks.get(n)).sum();
    ticks.iter().sum::<u64>() - idle
}

fn tcp(rig: &Rig, streams: u8, seconds: u32) -> anyhow::Result<Values> {
    let server = spawn(&rig.b, "iperf3", &["-s", "-1"])?;
    listening(rig, "-t", 5201)?;
    let mut meter = Meter::start(rig);
    let (streams, time) = (streams.to_string(), seconds.to_string());
    let output = Command::new("ip")
        .args(["netns", "exec", &rig.a, "timeout", &(seconds + 10).to_string()])
        .args(["iperf3", "-c", rig.target, "-P", &streams, "-t", &time, "-J"])
        .output()?;
    meter.end_of_load();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3")?;
    let received = &json["end"]["sum_received"];
    let (Some(bits), Some(bytes)) = (received["bits_per_second"].as_f64(), received["bytes"].as_f64()) else {
        bail!("iperf3: {}", json["error"])
    };
    let values = meter.values(bits / 1e9, bytes / 1024.0);
    end(server)?;
    Ok(values)
}

pub fn dropped_datagrams(rig: &Rig, seconds: u32) -> anyhow::Result<Values> {
    drop_on_arrival(rig)?;
    let before = dropped(rig)?;
    let mut meter = Meter::start(rig);
    let sent = load(&rig.a, &["flood", rig.target, &seconds.to_string()])?;
    meter.end_of_load();
    std::thread::sleep(Duration::from_millis(200));
    let arrived = (dropped(rig)? - before) as f64;
    let values = meter.values(arrived / f64::from(seconds), arrived);
    stop_dropping(rig)?;
    Ok(Values { loss: Some(1.0 - arrived / sent.max(1.0)), ..values })
}

/// Opens so many flows first; the clock starts when all of them are in the table.
fn among(rig: &Rig, flows: u32, seconds: u32) -> anyhow::Result<Values> {
    if let Some(most) = rig.most_connections()?.filter(|&most| most < flows) {
        bail!("its table holds {most} connections");
    }
    drop_on_arrival(rig)?;
    let (flows, time) = (flows.to_string(), seconds.to_string());
    let mut sender = spawn_load(&rig.a, &["spread", rig.target, &flows, &time])?;
    let mut said = BufReader::new(sender.stdout.take().context("a pipe")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let before = dropped(rig)?;
    let mut meter = Meter::start(rig);
    // Its input ends: it may go on.
    drop(sender.stdin.take());
    line.clear();
    said.read_line(&mut line)?;
    meter.end_of_load();
    let sent: f64 = line.trim().parse().context("the sender gave up")?;
    sender.wait()?;
    std::thread::sleep(Duration::from_millis(200));
    let arrived = (dropped(rig)? - before) as f64;
    let values = meter.values(arrived / f64::from(seconds), arrived);
    stop_dropping(rig)?;
    Ok(Values { loss: Some(1.0 - arrived / sent.max(1.0)), ..values })
}

/// B drops every datagram where it arrives, and counts.
fn drop_on_arrival(rig: &Rig) -> anyhow::Result<()> {
    sh(&format!(
        "ip netns exec {} nft -f - <<'RULES'
add table netdev bench
delete table netdev bench
table netdev bench {{
  chain arrival {{
    type filter hook ingress device eth0 priority 0;
    meta l4proto udp counter drop
  }}
}}
RULES",
        rig.b
    ))
}

fn stop_dropping(rig: &Rig) -> anyhow::Result<()> {
    sh(&format!("ip netns exec {} nft delete table netdev bench", rig.b))
}

fn dropped(rig: &Rig) -> anyhow::Result<u64> {
    let output = Command::new("ip")
        .args(["netns", "exec", &rig.b, "nft", "list", "table", "netdev", "bench"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    count.context("nft counts nothing")
}

fn read_datagrams(rig: &Rig, seconds: u32) -> anyhow::Result<Values> {
    let sink = spawn_load(&rig.b, &["sink", &(seconds + 1).to_string()])?;
    listening(rig, "-u", 5301)?;
    let mut meter = Meter::start(rig);
    let sent = load(&rig.a, &["flood", rig.target, &seconds.to_string()])?;
    meter.end_of_load();
    let arrived = end(sink)?;
    let values = meter.values(arrived / f64::from(seconds), arrived);
    Ok(Values { loss: Some(1.0 - arrived / sent.max(1.0)), ..values })
}

fn connections(rig: &Rig, seconds: u32) -> anyhow::Result<Values> {
    let server = spawn_load(&rig.b, &["accept", &(seconds + 1).to_string()])?;
    listening(rig, "-t", 5301)?;
    let mut meter = Meter::start(rig);
    let done = load(&rig.a, &["connect", rig.target, &seconds.to_string()])?;
    meter.end_of_load();
    let values = meter.values(done / f64::from(seconds), done);
    end(server)?;
    Ok(values)
}

fn ping(rig: &Rig) -> anyhow::Result<Values> {
    let output = Command::new("ip")
        .args(["netns", "exec", &rig.a, "ping", "-i", "0.003", "-c", "300", "-w", "10", rig.target])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse::<f64>().ok())
        .map(|ms| ms * 1000.0)
        .collect();
    times.sort_by(f64::total_cmp);
    let value = *times.get(times.len() / 2).context("no answer")?;
    Ok(Values { value, loss: Some(1.0 - times.len() as f64 / 300.0), ..Values::default() })
}

/// Waits until somebody on B listens on a port.
fn listening(rig: &Rig, kind: &str, port: u16) -> anyhow::Result<()> {
    sh(&format!(
        "for i in $(seq 100); do ip netns exec {} ss -ln {kind} | grep -q ':{port} ' && exit 0; sleep 0.02; done; exit 1",
        rig.b
    ))
    .context("nobody listens")
}

fn spawn(ns: &str, program: &str, args: &[&str]) -> anyhow::Result<Child> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns, program]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null());
    command.spawn().with_context(|| program.to_owned())
}

fn spawn_load(ns: &str, args: &[&str]) -> anyhow::Result<Child> {
    let this = std::env::current_exe()?;
    spawn(ns, &this.to_string_lossy(), args)
}

/// Waits for a program to end, and reads the number that it prints.
fn end(child: Child) -> anyhow::Result<f64> {
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0.0))
}

fn load(ns: &str, args: &[&str]) -> anyhow::Result<f64> {
    end(spawn_load(ns, args)?)
}
