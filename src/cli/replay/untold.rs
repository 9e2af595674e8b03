//! What decided verdicts of the running router and is in no capture: said once, where the capture has to do with it.

use crate::cli::render::warn;
use stateway_core::nat::How;
use stateway_core::router::Router;
use stateway_lab as lab;
use std::path::Path;

/// Says what of it concerns this replay. `path` is the capture; `super_frames` as [`super::Replay::super_frames`].
pub(super) fn tell(path: &Path, lab: Option<&Path>, router: &Router, super_frames: u64) {
    let path = path.display();
    let mut mtus = router.ifaces().iter().map(|iface| iface.mtu_bytes);
    let first = mtus.next();
    // Where all links carry the same, what fills one fits the next.
    if super_frames > 0 && mtus.any(|mtu| Some(mtu) != first) {
        warn(&format!(
            "{path}: {super_frames} frames are longer than their link carries: a network card puts segments together, or cuts \
             them later. How long each segment was is not in a capture, and the router's links differ: these were judged \
             as if each had filled its link\n  hint: `ethtool -K eth0 gro off gso off tso off` before capturing"
        ));
    }
    let drawn = router.conntrack().translations().filter(|(_, how, _)| *how == How::Drawn);
    let drawn: u64 = drawn.map(|(.., n)| n).sum();
    if drawn > 0 {
        warn(&format!(
            "{path}: ports that translation chose by chance: {drawn}; the captured router may have chosen others, answers to \
             which were judged as if nobody had asked"
        ));
    }
    if let Some(lab) = lab.and_then(|lab| lab::load(lab).ok()).filter(lab::Lab::changes_rules) {
        warn(&format!(
            "{path}: tests of the lab `{}` change its rules on the way, which is not in a capture: every frame was judged by \
             the rules in its file",
            lab.name
        ));
    }
}
