//! Writes what fuzzing begins with into `corpus/`: rulesets, scenarios, their packets, captures of them, labs, commands.

use stateway_trace::capture::Writer;
use stateway_trace::flow::{self, Scenario};
use std::fs;
use std::path::{Path, PathBuf};

/// The widest frame that `frames` can be given.
const MAX_FRAME: usize = u16::MAX as usize;

fn main() -> std::io::Result<()> {
    write(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// Writes them below the folder of this package.
pub fn write(root: &Path) -> std::io::Result<()> {
    let project = root.join("..");
    let put = |target: &str, name: usize, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{name:04}")), bytes)
    };
    for (n, path) in files(&project.join("tests/rulesets"), &["rules", "rules6"]).iter().enumerate() {
        put("rules", n, &fs::read(path)?)?;
    }
    for (n, path) in files(&project.join("topologies"), &["yaml"]).iter().enumerate() {
        put("lab", n, &fs::read(path)?)?;
    }
    for (n, path) in files(&project.join("tests/scenarios"), &["flow"]).iter().enumerate() {
        let text = fs::read_to_string(path)?;
        put("flow", n, text.as_bytes())?;
        if let Ok(scenario) = flow::parse(&text) {
            put("frames", n, &noise(&scenario, n as u8))?;
            put("offload", n, &with_headers(&scenario, n as u8))?;
            put("capture", n, &capture(&scenario)?)?;
            if path.components().any(|part| part.as_os_str() == "nat") || n % 8 == 0 {
                put("nat", n, &noise(&scenario, n as u8))?;
            }
            if n % 4 == 0 {
                put("state", n, &stateway_fuzz::state::input_of(n as u8 / 4, &noise(&scenario, 0)[1..]))?;
            }
        }
    }
    for (n, command) in COMMANDS.iter().enumerate() {
        put("control", n, format!("{command}\n").as_bytes())?;
    }
    for (n, arguments) in ARGUMENTS.iter().enumerate() {
        put("explain", n, format!("{}{}", char::from(n as u8), arguments.replace(' ', "\n")).as_bytes())?;
    }
    Ok(())
}

/// What clients ask for.
const COMMANDS: [&str; 14] = [
    r#"{"command":"status"}"#,
    r#"{"command":"interfaces"}"#,
    r#"{"command":"drops"}"#,
    r#"{"command":"metrics"}"#,
    r#"{"command":"conntrack-list","filter":{"family":4,"protocol":6,"original":{"src":"192.0.2.0/24","dport":22},"state":"established","status":["ASSURED"]}}"#,
    r#"{"command":"conntrack-summary","entries":10}"#,
    r#"{"command":"conntrack-delete","filter":{"zone":1,"mark":[1,255],"helper":"ftp"}}"#,
    r#"{"command":"conntrack-events","expectations":false,"kinds":["NEW"]}"#,
    r#"{"command":"expect-list"}"#,
    r#"{"command":"sysctl-get","name":"nf_conntrack_max"}"#,
    r#"{"command":"sysctl-set","name":"nf_conntrack_udp_timeout","value":"30"}"#,
    r#"{"command":"rules-replace","rules":"*filter\n:FORWARD DROP\nCOMMIT\n","rules6":null}"#,
    r#"{"command":"watch","filter":{"proto":6}}"#,
    r#"{"command":"reload"}"#,
];

/// What people ask of `stateway explain`.
const ARGUMENTS: [&str; 12] = [
    "--in lan --tcp 192.0.2.10:40000,198.51.100.10:22",
    "--in wan --tcp 198.51.100.10:22,192.0.2.10:40000 --flags S. --seq 1 --ack 1 --win 100 --len 3",
    "--in lan --udp 192.0.2.10:1000,198.51.100.10:53 --len 20",
    "--in lan --udp [2001:db8:1::10]:1000,[2001:db8:2::10]:53 --wait 1.5",
    "--in lan --icmp 192.0.2.10,198.51.100.10",
    "--in wan --icmp 2001:db8:2::10->2001:db8:1::10 --format json",
    "--in lan --icmp 192.0.2.10,198.51.100.10 --line icmp\u{a0}echo_reply",
    "--in lan --hex 4500001c000100004001f6c9c000020ac633640a0800f7fe00000001",
    "--in lan --hex 45:00:00:1c:00:01:00:00:40:11:f6:b9:c0:00:02:0a:c6:33:64:0a:13:88:00:35:00:08:00:00",
    "--in lan --tcp 192.0.2.10:1,198.51.100.10:2 --flags none --sysctl nf_conntrack_tcp_loose=0",
    "--in lan --frame 1 --capture trace.pcapng",
    "--help",
];

fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Each packet with its place and the frame that it comes in.
fn frames(scenario: &Scenario) -> impl Iterator<Item = (std::time::Duration, usize, Vec<u8>)> {
    scenario.steps.iter().map(|step| {
        let from = usize::from(step.iface == flow::IFACES[1]);
        let bytes = if step.is_frame {
            step.packet.clone()
        } else {
            let ethertype: u16 =
                if step.packet.first().is_some_and(|b| b >> 4 == 6) { 0x86dd } else { 0x0800 };
            [&flow::ROUTER_MACS[from][..], &flow::STATION_MACS[from], &ethertype.to_be_bytes(), &step.packet]
                .concat()
        };
        (std::time::Duration::from_nanos(step.at.as_nanos() as u64), from, bytes)
    })
}

/// The input of the target `frames`.
fn noise(scenario: &Scenario, pick: u8) -> Vec<u8> {
    let mut bytes = vec![pick];
    for (_, from, frame) in frames(scenario).filter(|(_, _, frame)| frame.len() <= MAX_FRAME) {
        bytes.extend([1, from as u8]);
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// The input of the target `offload`: TCP in super-frames, the rest with a checksum to finish.
fn with_headers(scenario: &Scenario, pick: u8) -> Vec<u8> {
    const TCP: u8 = 6;
    let mut bytes = vec![pick];
    for (_, from, frame) in frames(scenario).filter(|(_, _, frame)| frame.len() <= MAX_FRAME) {
        let is_ipv6 = frame.get(12) == Some(&0x86);
        let (proto, l4, checksum) = if is_ipv6 { (20, 54, 4) } else { (23, 34, 1) };
        let is_tcp = frame.get(proto) == Some(&TCP);
        let (gso_type, gso_size): (u8, u16) = if is_tcp { (checksum, 536) } else { (0, 0) };
        bytes.extend([1, gso_type]);
        for word in [l4 + 20, gso_size, l4, if is_tcp { 16 } else { 6 }, frame.len() as u16] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([from as u8 | if is_tcp { 2 } else { 0 }, 1]);
        bytes.extend(frame);
    }
    bytes
}

fn capture(scenario: &Scenario) -> std::io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), flow::IFACES)?;
    for (at, from, frame) in frames(scenario) {
        writer.frame(from, at, &frame, "")?;
    }
    Ok(writer.into_inner())
}
