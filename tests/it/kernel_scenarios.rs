//! The stories of `tests/scenarios/` once more, with the kernel beside the router: equal states, fates, frames and
//! entries, packet by packet.
//!
//! It takes root and `/dev/net/tun`, and fails without; `STATEWAY_SIM_ONLY=1` says that there is neither.

use stateway::conform::coverage::Coverage;
use stateway::conform::story::of_scenario;
use stateway::conform::world::World;
use stateway::flow;
use std::fmt::Write;
use std::fs;

/// Stories that the two tell differently, and why; they go by the kernel's own machinery, not by its verdicts.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("table/full.flow", "nf_conntrack_max cannot be set in a namespace"),
    ("expectations/limit.flow", "nf_conntrack_expect_max cannot be set in a namespace"),
    ("ip/reverse-path.flow", "its setting has no place in the kernel's namespace here"),
    ("fragments/bound.flow", "the kernel counts memory that it allocates, we the bytes that came"),
    ("fragments/refused.flow", "the kernel's own clock ends the wait for a fragment"),
];

#[test]
fn the_kernel_tells_every_story_alike() {
    if std::env::var_os("STATEWAY_SIM_ONLY").is_some() {
        return;
    }
    let mut failures = String::new();
    let mut compared = 0;
    for path in super::scenario::scenarios() {
        let name = path.to_string_lossy().into_owned();
        if NOT_COMPARED.iter().any(|(excused, _)| name.ends_with(excused)) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a scenario can be read");
        let scenario = flow::parse(&text).expect("a scenario can be parsed");
        let Some((setup, trace)) = of_scenario(&scenario) else { continue };
        let mut world = World::new(setup).expect("this machine can ask its kernel");
        match world.run(&trace, &mut Coverage::default()).expect("the kernel answers") {
            None => compared += 1,
            Some(difference) => {
                let _ = writeln!(failures, "{name}: step {}", difference.step + 1);
                for mismatch in &difference.mismatches {
                    let _ = writeln!(failures, "  {mismatch}");
                }
                let _ = writeln!(failures, "  {:?}", difference.reasons);
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(compared > 120, "only {compared} stories were compared");
}
