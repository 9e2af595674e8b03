//! What the router's ports carry, written to pcapng with each packet's verdict as a comment.
//!
//! Frames are read where the host sees them, verdicts come from the router's control socket. A frame that a host sent
//! is married to the first verdict of its port that tells of the same packet; both come in order.

#![forbid(unsafe_code)]

use super::RouterProcess;
use crate::netns::build;
use crate::netns::command::{self, Interrupt};
use crate::netns::state::{self, Record};
use anyhow::{Context as _, bail};
use crossbeam_channel::Receiver;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use stateway_core::iface::IfaceId;
use stateway_core::packet::{Mac, Offload, Packet};
use stateway_runtime::control::protocol::Verdict;
use stateway_trace::capture::finish_checksum;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// After the end, what is still in pipes is waited for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Resolution of timestamps: ten to the minus ninth of a second.
const NANOSECONDS: u8 = 9;

/// Which way a frame went, as `epb_flags` of pcapng have it: seen from the router.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// One port that is listened to.
struct Tap {
    port: String,
    child: Child,
    frames: Receiver<(Duration, Vec<u8>)>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        command::end(&mut self.child);
    }
}

/// Captures on `ports` until the user presses Ctrl-C or `duration` has passed; `DIR/PORT.pcapng` for each.
/// Says for each file how many frames it holds.
pub fn capture(
    record: &Record,
    router: &mut RouterProcess,
    ports: &[&str],
    dir: &Path,
    duration: Option<Duration>,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<(String, usize)>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let taps: Vec<Tap> =
        ports.iter().map(|port| listen(record, port, interrupt)).collect::<anyhow::Result<_>>()?;
    router.begin()?;
    let deadline = duration.map(|duration| command::now() + duration);
    while !interrupt.is_set() && deadline.is_none_or(|deadline| command::now() < deadline) {
        command::pause(Duration::from_millis(50));
    }
    let mut verdicts: VecDeque<Verdict> = router.verdicts()?.into();
    let mut written = Vec::new();
    for tap in &taps {
        let file = dir.join(format!("{}.pcapng", tap.port));
        let count = write(record, tap, &file, &mut verdicts)?;
        written.push((tap.port.clone(), count));
    }
    Ok(written)
}

/// Begins to read frames where the hosts of a port see them.
fn listen(record: &Record, port: &str, interrupt: &Interrupt) -> anyhow::Result<Tap> {
    let alone = record.hosts_on(port).count() == 1;
    let (member, iface) = match record.hosts_on(port).next() {
        Some(host) if alone => (host.host.clone(), "eth0"),
        _ => {
            let number = record.ports.iter().position(|name| name == port).unwrap_or_default();
            (build::segment_name(IfaceId(number as u16)), "uplink")
        }
    };
    let mut words = state::entry(&record.lab, &member)?.words();
    words.extend(["tcpdump", "-i", iface, "-U", "-s", "0", "-w", "-"].map(OsString::from));
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
    let (ready, is_ready) = crossbeam_channel::unbounded();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Nobody may listen any more.
            let _ = ready.send(line);
        }
    });
    let (sender, frames) = crossbeam_channel::unbounded();
    std::thread::spawn(move || {
        let Ok(mut reader) = PcapReader::new(stdout) else { return };
        while let Some(Ok(packet)) = reader.next_packet() {
            if sender.send((packet.timestamp, packet.data.into_owned())).is_err() {
                return;
            }
        }
    });
    let tap = Tap { port: port.to_owned(), child, frames };
    let mut said = String::new();
    while let Some(line) = command::receive(&is_ready, PATIENCE, interrupt)? {
        if line.contains("listening on") {
            return Ok(tap);
        }
        said = line;
    }
    bail!("`tcpdump` does not listen on port `{port}`: {said}")
}

fn write(record: &Record, tap: &Tap, file: &Path, verdicts: &mut VecDeque<Verdict>) -> anyhow::Result<usize> {
    let context = || format!("cannot write {}", file.display());
    let name = tap.port.as_str();
    let senders: Vec<Mac> = record.hosts_on(name).filter_map(|host| host.mac.parse().ok()).collect();
    let out = BufWriter::new(File::create(file).with_context(context)?);
    let mut out = PcapNgWriter::new(out).with_context(context)?;
    out.write_pcapng_block(InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: 0,
        options: vec![
            InterfaceDescriptionOption::IfName(name.into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ],
    })
    .with_context(context)?;
    let mut count = 0;
    while let Ok((timestamp, mut frame)) = tap.frames.recv_timeout(QUIET) {
        let came_in = senders.iter().any(|mac| frame.get(6..12) == Some(&mac.0));
        let comment = came_in.then(|| verdict_of(&mut frame, name, verdicts)).flatten();
        // The router finished it, or its card would have: on the wire it is right.
        finish_checksum(&mut frame);
        let direction = EnhancedPacketOption::Flags(if came_in { INBOUND } else { OUTBOUND });
        let comment = comment.map(|text| EnhancedPacketOption::Comment(text.into()));
        let original_len = frame.len() as u32;
        out.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp,
            original_len,
            data: frame.into(),
            options: comment.into_iter().chain([direction]).collect(),
        })
        .with_context(context)?;
        count += 1;
    }
    Ok(count)
}

/// Takes the first verdict of `port` that tells of this frame.
fn verdict_of(frame: &mut [u8], port: &str, verdicts: &mut VecDeque<Verdict>) -> Option<String> {
    // A super-frame, or a checksum that is still to be filled in, parses all the same.
    let pkt = Packet::parse(frame, Offload::NONE).ok()?;
    let (src, dst) = (pkt.src().to_ip(pkt.family()), pkt.dst().to_ip(pkt.family()));
    let at = verdicts.iter().position(|verdict| {
        verdict.in_iface == port
            && (verdict.src, verdict.dst) == (Some(src), Some(dst))
            && verdict.protocol == Some(pkt.proto())
            && verdict.sport.zip(verdict.dport) == pkt.ports()
    })?;
    let verdict = verdicts.remove(at)?;
    let state = verdict.ctstate.unwrap_or_else(|| "no state".to_owned());
    let by = verdict.rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
    let why = verdict.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let out = if verdict.out.is_empty() { String::new() } else { format!(" to {}", verdict.out.join(", ")) };
    Some(format!("{state}, {}{out}{by}{why}", verdict.fate))
}
