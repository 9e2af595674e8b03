//! A scenario as a trace, so that what its last columns say can be asked of the kernel.

#![forbid(unsafe_code)]

use super::kernel::Setup;
use super::trace::{Frame, Step, Trace};
use crate::config::Mode;
use crate::flow::{IFACES, Scenario};
use crate::packet::tuple::{PROTO_UDP, PROTO_UDPLITE};
use crate::time::Duration;

/// What to set up and what to feed; `None` for a story that is not about two networks and their router:
/// bridges, links with an MTU of their own, routes that say no.
pub fn of_scenario(scenario: &Scenario) -> Option<(Setup, Trace)> {
    let is_plain = scenario.mode == Mode::Route && scenario.mtu.is_empty() && scenario.routes.is_empty();
    let rules6 = scenario.rules6.clone().filter(|_| is_plain)?;
    let mut zones: Vec<u16> = scenario.flows.iter().map(|flow| flow.zone).filter(|zone| *zone != 0).collect();
    zones.sort_unstable();
    zones.dedup();
    let setup = Setup {
        rules4: Some(scenario.rules.clone()),
        rules6: Some(rules6),
        sysctl: scenario.sysctl.clone(),
        zones,
        ..Setup::default()
    };
    let mut steps = Vec::new();
    let mut before = Duration::ZERO;
    for step in &scenario.steps {
        let seconds = whole_seconds(step.at - before);
        before = step.at;
        if seconds > 0 {
            steps.push(Step::Elapse(seconds));
        }
        let port = usize::from(step.iface == IFACES[1]);
        let frame = if step.is_frame {
            Frame { port, bytes: step.packet.clone(), kind: "scenario" }
        } else {
            let mut frame = Frame::of_packet(port, &step.packet, "scenario");
            frame.bytes.resize(frame.bytes.len() + step.padding, 0);
            frame
        };
        steps.push(Step::Frame(frame));
    }
    // The kernel asks its own clock whether a flow of UDP has lasted for two seconds.
    let has_udp = scenario.flows.iter().any(|flow| matches!(flow.proto, PROTO_UDP | PROTO_UDPLITE));
    Some((setup, Trace { steps, needs_real_time: has_udp }))
}

/// Timers count in seconds: a part of one counts as a whole, unless it is too short to mean anything.
const fn whole_seconds(wait: Duration) -> u32 {
    ((wait.as_millis() + 850) / 1000) as u32
}
