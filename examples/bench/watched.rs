//! The load of datagrams while two watch the router: one that reads every line, and one that was stopped.

use crate::measure::{Values, dropped_datagrams};
use crate::rig::{Case, Rig};
use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// By so much the router may grow under the load: what is kept for a reader that stopped has a bound, and it is reached
/// before that.
const MOST_GROWN_KIB: u64 = 2048;

pub fn measure(rig: &Rig, seconds: u32) -> anyhow::Result<Values> {
    let Case::Stateway { .. } = rig.case else { bail!("nobody can watch it") };
    let [_reads, stopped] = [Watch::begin(rig)?, Watch::begin(rig)?];
    kill_process(Pid::from_child(&stopped.0), Signal::STOP).context("cannot stop a watch")?;
    // What is kept for it is full after this.
    dropped_datagrams(rig, 1)?;
    let before = memory_kib(rig)?;
    let values = dropped_datagrams(rig, seconds)?;
    let after = memory_kib(rig)?;
    eprint!(" (memory {before} KiB, then {after} KiB)");
    if after > before + MOST_GROWN_KIB {
        bail!("the router grew from {before} to {after} KiB while it was watched");
    }
    Ok(values)
}

/// A `stateway watch` whose lines go nowhere.
struct Watch(Child);

impl Watch {
    /// From here on it is told of every packet.
    fn begin(rig: &Rig) -> anyhow::Result<Self> {
        let mut child = Command::new(&rig.stateway)
            .args(["watch", "--control"])
            .arg(rig.control())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot watch")?;
        let says = child.stderr.take().context("a pipe")?;
        let watch = Self(child);
        let mut line = String::new();
        BufReader::new(says).read_line(&mut line)?;
        if !line.starts_with("watching") {
            bail!("it does not watch: {line}");
        }
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the forwarder has in memory.
fn memory_kib(rig: &Rig) -> anyhow::Result<u64> {
    let read = |pid: &u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
    };
    rig.forwarders.iter().map(read).sum::<Option<u64>>().context("its memory is not told")
}
