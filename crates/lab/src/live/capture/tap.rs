//! One port of a lab that is listened to: a `tcpdump` where its hosts see it.

#![forbid(unsafe_code)]

use super::held::Captured;
use crate::netns::build;
use crate::netns::command::{self, Interrupt, Patience};
use crate::netns::state::{self, Record};
use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, Sender};
use pcap_file::pcap::PcapReader;
use rustix::process::{Pid, Signal, kill_process_group};
use stateway_core::iface::IfaceId;
use stateway_core::packet::Mac;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// Every frame comes at once, with its time in nanoseconds: what came on two ports is put in order by it. The longest
/// frame is one that a card is still to cut. Where frames come at once, the kernel keeps room of that length for each.
const OPTIONS: [&str; 8] =
    ["--immediate-mode", "--time-stamp-precision=nano", "-U", "-s", "65600", "-n", "-w", "-"];
/// Room in the kernel for frames that wait, in KiB: of one port, and of all together.
const MOST_ROOM: usize = 32 << 10;
const ALL_ROOM: usize = 256 << 10;
const LEAST_ROOM: usize = 2 << 10;

pub(super) struct Tap {
    child: Child,
    /// What `tcpdump` says.
    said: Receiver<String>,
}

impl Tap {
    /// Ends it, and gives back how many frames the kernel dropped.
    pub(super) fn end(&mut self) -> u64 {
        // It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::INT);
        let mut patience = Patience::new(PATIENCE);
        while matches!(self.child.try_wait(), Ok(None)) && !patience.is_over() {
            command::pause(Duration::from_millis(2));
        }
        command::end(&mut self.child);
        let dropped = |line: String| line.strip_suffix(" packets dropped by kernel")?.parse::<u64>().ok();
        self.said.iter().filter_map(dropped).sum()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        command::end(&mut self.child);
    }
}

/// Begins to read the frames of the port at a place among those that are captured. Each goes to `frames`.
pub(super) fn listen(
    record: &Record,
    (ports, at): (&[&str], usize),
    frames: Sender<Captured>,
    interrupt: &Interrupt,
) -> anyhow::Result<Tap> {
    let port = ports[at];
    let mut hosts = record.hosts_on(port);
    let (member, iface) = if let (Some(host), None) = (hosts.next(), hosts.next()) {
        (host.host.clone(), "eth0")
    } else {
        let number = record.ports.iter().position(|name| name == port).unwrap_or_default();
        (build::segment_name(IfaceId(number as u16)), "uplink")
    };
    let mut words = state::entry(&record.lab, &member)?.words();
    let room = (ALL_ROOM / ports.len()).clamp(LEAST_ROOM, MOST_ROOM).to_string();
    words.extend(["tcpdump", "-i", iface, "-B", &room].iter().chain(&OPTIONS).map(OsString::from));
    let (program, args) = words.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot run `tcpdump`\n  hint: apt-get install tcpdump")?;
    let (stdout, stderr) = (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
    let (sender, said) = crossbeam_channel::unbounded();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Nobody may listen any more.
            let _ = sender.send(line);
        }
    });
    let senders: Vec<Mac> = record.hosts_on(port).filter_map(|host| host.mac.parse().ok()).collect();
    std::thread::spawn(move || {
        let Ok(mut reader) = PcapReader::new(stdout) else { return };
        while let Some(Ok(packet)) = reader.next_packet() {
            let frame = packet.data.into_owned();
            let came_in = senders.iter().any(|mac| frame.get(6..12) == Some(&mac.0));
            if frames.send(Captured::new(at, packet.timestamp, frame, came_in)).is_err() {
                return;
            }
        }
    });
    let tap = Tap { child, said };
    let mut last = String::new();
    while let Some(line) = command::receive(&tap.said, PATIENCE, interrupt)? {
        if line.contains("listening on") {
            return Ok(tap);
        }
        last = line;
    }
    bail!("`tcpdump` does not listen on port `{port}`: {last}")
}
