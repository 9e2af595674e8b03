//! Bytes of captures: nothing panics, neither reading nor replaying nor writing back.

use stateway_core::router::Router;
use stateway_trace::capture::{Frame, Reading, Source};
use stateway_trace::replay::{Replay, bridge_of};

pub fn run(data: &[u8]) {
    let reading = Reading { keeps_blocks: true, ..Reading::default() };
    let Ok(source) = Source::of_stream(data, reading) else { return };
    let router = Router::new(bridge_of(&source.survey().ports)).expect("a router without rules");
    let Ok(mut frames) = source.open() else { return };
    let Ok(mut replay) = Replay::new(frames.ports(), &router, true) else { return };
    let Ok(mut annotator) = frames.annotate(Vec::new()) else { return };
    let mut frame = Frame::default();
    while let Ok(true) = frames.read(&mut frame) {
        if frame.unjudged.is_none() {
            replay.step(&frame);
        }
        annotator.frame(&mut frames, &frame, "verdict").expect("memory can be written");
    }
    annotator.finish(&mut frames).expect("memory can be written");
    replay.table();
}
