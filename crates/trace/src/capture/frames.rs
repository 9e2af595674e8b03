//! The frames of one capture, or of several in the order of time, without copies of what went out.

#![forbid(unsafe_code)]

use super::taken::Copies;
use super::{Annotator, Capture, CaptureError, Frame, Survey, Unjudged};
use std::io::{self, Write};

/// Frames that are being read.
#[derive(Debug)]
pub struct Frames {
    files: Vec<File>,
    ports: Vec<String>,
    /// What came in lately; `None` if every frame is taken as it stands.
    copies: Option<Copies>,
    number: u64,
    /// What is read are the interfaces of one file, each on its own: frames have their numbers in that file.
    is_one_file: bool,
    /// Where a file could not be read further, while others still could.
    failure: Option<CaptureError>,
}

#[derive(Debug)]
struct File {
    capture: Capture,
    /// Where its ports are among those of all files.
    ports: Vec<u16>,
    /// Its next frame, which waits for those of other files.
    next: Option<Frame>,
    has_ended: bool,
}

impl Frames {
    /// Those of one capture, as they come.
    pub fn of(capture: Capture) -> Self {
        Self::of_all(vec![capture])
    }

    /// Those of one capture, merged by their timestamps: each reader takes one interface of it.
    pub(super) fn of_interfaces(readers: Vec<Capture>) -> Self {
        Self { is_one_file: true, ..Self::of_all(readers) }
    }

    /// Those of several captures, merged by their timestamps.
    pub(super) fn of_all(captures: Vec<Capture>) -> Self {
        let tells_copies = captures.iter().all(|capture| !capture.as_it_stands);
        let files = captures.into_iter().map(|capture| File {
            capture,
            ports: Vec::new(),
            next: None,
            has_ended: false,
        });
        let mut frames = Self {
            files: files.collect(),
            ports: Vec::new(),
            copies: tells_copies.then(Copies::default),
            number: 0,
            is_one_file: false,
            failure: None,
        };
        frames.learn_ports();
        frames
    }

    /// The names of the ports, as far as they are known yet.
    pub fn ports(&self) -> &[String] {
        &self.ports
    }

    /// When the first frame was captured, in nanoseconds since 1970.
    pub fn first_nanos(&self) -> Option<i128> {
        self.files.iter().filter_map(|file| file.capture.first_nanos()).min()
    }

    /// The same name in two files is one port.
    fn learn_ports(&mut self) {
        for file in &mut self.files {
            for name in &file.capture.ports()[file.ports.len()..] {
                let at = self.ports.iter().position(|known| known == name).unwrap_or_else(|| {
                    self.ports.push(name.clone());
                    self.ports.len() - 1
                });
                file.ports.push(at as u16);
            }
        }
    }

    /// What there is, as far as the files can be read.
    pub(super) fn survey(mut self) -> Survey {
        let read: Vec<_> = self.files.iter_mut().map(|file| file.capture.read_over()).collect();
        self.learn_ports();
        Survey {
            first_nanos: self.first_nanos(),
            ports: self.ports,
            frames: read.iter().map(|file| file.frames).sum(),
            lanes: read.iter().map(|file| file.lanes).collect(),
        }
    }

    /// Reads the next frame; `false` behind the last one.
    ///
    /// # Errors
    /// A file is damaged or cut short here; the frames before were read.
    pub fn read(&mut self, frame: &mut Frame) -> Result<bool, CaptureError> {
        let found = match &mut self.files[..] {
            // As it comes, since it may be a pipe.
            [only] => only.capture.read(frame)?.then_some(0),
            _ => self.read_earliest(frame)?,
        };
        let Some(at) = found else { return Ok(false) };
        if !self.is_one_file {
            self.number += 1;
            frame.number = self.number;
            frame.place.0 = at as u32;
        }
        if self.files[at].capture.ports().len() > self.files[at].ports.len() {
            self.learn_ports();
        }
        if matches!(frame.unjudged, None | Some(Unjudged::Outgoing)) {
            frame.port = self.files[at].ports[usize::from(frame.port)];
        }
        if frame.unjudged.is_none()
            && frame.direction.is_none()
            && !self.is_one_place(frame)
            && self
                .copies
                .as_mut()
                .is_some_and(|copies| copies.is_copy(frame.place, frame.nanos, &frame.data))
        {
            frame.unjudged = Some(Unjudged::Copy);
        }
        Ok(true)
    }

    /// All frames come from the same place, and so none can be a copy of another.
    fn is_one_place(&self, frame: &Frame) -> bool {
        let has_number = frame.place.2.is_some();
        !has_number && matches!(&self.files[..], [only] if only.capture.has_one_interface())
    }

    /// Of the next frames of all files, takes the one that came first; of two at the same time, the one that stands first, or
    /// that of the first file. What cannot be read of one file is an error once the others were read.
    fn read_earliest(&mut self, frame: &mut Frame) -> Result<Option<usize>, CaptureError> {
        for file in &mut self.files {
            if file.next.is_none() && !file.has_ended {
                let mut next = Frame::default();
                match file.capture.read(&mut next) {
                    Ok(true) => file.next = Some(next),
                    Ok(false) => file.has_ended = true,
                    Err(error) => {
                        file.has_ended = true;
                        self.failure.get_or_insert(error);
                    }
                }
            }
        }
        let is_one_file = self.is_one_file;
        let waiting = self.files.iter().enumerate().filter_map(|(at, file)| {
            let next = file.next.as_ref()?;
            Some((next.nanos, if is_one_file { next.number } else { 0 }, at))
        });
        let Some((.., at)) = waiting.min() else { return self.failure.take().map_or(Ok(None), Err) };
        if let Some(next) = self.files[at].next.take() {
            *frame = next;
        }
        Ok(Some(at))
    }

    /// Begins to write the capture back with comments.
    ///
    /// # Errors
    /// `out` cannot be written, or there are several files.
    pub fn annotate<W: Write>(&self, out: W) -> io::Result<Annotator<W>> {
        match &self.files[..] {
            [only] => Annotator::new(out, &only.capture),
            _ if self.is_one_file => Annotator::anew(out, &self.ports),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "several captures cannot be written back as one",
            )),
        }
    }

    /// The capture that an [`Annotator`] of these frames follows.
    pub(super) fn only_capture(&mut self) -> Option<&mut Capture> {
        match &mut self.files[..] {
            [only] => Some(&mut only.capture),
            _ => None,
        }
    }
}
