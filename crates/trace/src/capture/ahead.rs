//! Frames that a thread of its own reads, some way ahead of who judges them.

#![forbid(unsafe_code)]

use super::{CaptureError, Frame, Frames};
use core::ops::Range;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::thread;

/// So many frames change hands at once.
const IN_BATCH: usize = 256;
/// So many batches go round between the two threads.
const BATCHES: usize = 4;

#[derive(Debug, Default)]
struct Batch {
    frames: Vec<Frame>,
    /// Those of them that were read now; the others are room.
    read: usize,
    /// What comes behind them, unless it is another batch.
    end: Option<Result<(), CaptureError>>,
}

/// The frames of a capture that does not grow any more.
#[derive(Debug)]
pub struct Ahead {
    full: Receiver<Batch>,
    empty: Sender<Batch>,
    batch: Batch,
    /// Those of the batch that were not taken yet.
    left: Range<usize>,
}

impl Ahead {
    pub fn new(mut frames: Frames) -> Self {
        let (to_reader, empty) = bounded(BATCHES);
        let (filled, full) = bounded(BATCHES);
        for _ in 1..BATCHES {
            // There is room for all of them.
            let _ = to_reader.try_send(Batch::default());
        }
        thread::spawn(move || {
            for mut batch in empty {
                batch.fill(&mut frames);
                let is_last = batch.end.is_some();
                // Nobody takes them any more.
                if filled.send(batch).is_err() || is_last {
                    break;
                }
            }
        });
        Self { full, empty: to_reader, batch: Batch::default(), left: 0..0 }
    }

    /// Takes the next frame; `false` behind the last one.
    ///
    /// # Errors
    /// As [`Frames::read`].
    pub fn read(&mut self, frame: &mut Frame) -> Result<bool, CaptureError> {
        loop {
            if let Some(next) = self.left.next() {
                core::mem::swap(frame, &mut self.batch.frames[next]);
                return Ok(true);
            }
            if let Some(end) = &self.batch.end {
                return end.clone().map(|()| false);
            }
            // The last batch has an end: before it the reader can only have panicked.
            let full = self.full.recv();
            let full = full.map_err(|_| CaptureError::new(0, "reading it ended before its end"))?;
            let taken = core::mem::replace(&mut self.batch, full);
            self.left = 0..self.batch.read;
            let _ = self.empty.try_send(taken);
        }
    }
}

impl Batch {
    fn fill(&mut self, frames: &mut Frames) {
        self.frames.resize_with(IN_BATCH, Frame::default);
        self.read = 0;
        for frame in &mut self.frames {
            match frames.read(frame) {
                Ok(true) => self.read += 1,
                end => {
                    self.end = Some(end.map(drop));
                    break;
                }
            }
        }
    }
}
