//! The files that a capture goes to, or standard output.

#![forbid(unsafe_code)]

use super::held::Captured;
use super::{Plan, Target};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stateway_trace::capture::{Direction, Record, Writer};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub(super) struct Output {
    /// One for each port, or one for all.
    files: Vec<OutFile>,
    is_stdout: bool,
}

struct OutFile {
    name: String,
    writer: Writer<BufWriter<Box<dyn Write>>>,
    frames: u64,
}

impl Output {
    pub(super) fn create(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let all = plan.ports;
        let files = match &plan.target {
            Target::Folder(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make `{}`", folder.display()))?;
                let file = |port: &&str| OutFile::create(&folder.join(format!("{port}.pcapng")), &[port]);
                all.iter().map(file).collect::<anyhow::Result<_>>()?
            }
            Target::File(path) => vec![OutFile::create(path, all)?],
            Target::Stdout => vec![OutFile::new("-".to_owned(), Box::new(io::stdout()), all)?],
        };
        let mut output = Self { files, is_stdout: plan.target == Target::Stdout };
        // Whoever reads along knows the interfaces before the first frame comes.
        output.flush()?;
        Ok(output)
    }

    pub(super) fn write(&mut self, captured: &Captured) -> anyhow::Result<()> {
        let (file, port) = match &mut self.files[..] {
            [all] => (all, captured.port),
            each => (&mut each[captured.port], 0),
        };
        let frame = Record {
            port,
            at: captured.at,
            frame: &captured.frame,
            original_len: captured.frame.len(),
            direction: Some(if captured.came_in { Direction::In } else { Direction::Out }),
            comment: captured.verdict.as_deref().unwrap_or_default(),
        };
        file.frames += 1;
        file.writer.record(&frame).with_context(|| format!("cannot write `{}`", file.name))
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        for OutFile { name, writer, .. } in &mut self.files {
            writer.get_mut().flush().with_context(|| format!("cannot write `{name}`"))?;
        }
        Ok(())
    }

    /// Whether nobody reads standard output any more.
    pub(super) fn is_unread(&self) -> bool {
        let stdout = io::stdout();
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        self.is_stdout
            && poll(&mut polled, Some(&Timespec::default())).is_ok()
            && polled[0].revents().contains(PollFlags::ERR)
    }

    /// Gives back the files, and how many frames each holds.
    pub(super) fn finish(mut self) -> anyhow::Result<Vec<(String, u64)>> {
        match self.flush() {
            Err(error) if super::is_broken_pipe(&error) => {}
            result => result?,
        }
        Ok(self.files.into_iter().map(|file| (file.name, file.frames)).collect())
    }
}

impl OutFile {
    fn create(path: &Path, ports: &[&str]) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| format!("cannot write `{name}`"))?;
        Self::new(name, Box::new(file), ports)
    }

    fn new(name: String, to: Box<dyn Write>, ports: &[&str]) -> anyhow::Result<Self> {
        let writer = Writer::new(BufWriter::new(to), ports.iter().copied());
        let writer = writer.with_context(|| format!("cannot write `{name}`"))?;
        Ok(Self { name, writer, frames: 0 })
    }
}
