//! `stateway replay`: a capture through a ruleset, in virtual time.

use super::captures::{self, CaptureArgs, Tally};
use super::render::Format;
use super::router_args::{self, RouterArgs};
use super::{Failure, Result};
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use stateway_core::base::Listener;
use stateway_core::base::log::Logged;
use stateway_core::config::RouterConfig;
use stateway_core::packet::summary;
use stateway_core::router::Router;
use stateway_trace::capture::{Ahead, Annotator, CaptureError, Frame, Frames, Source, nflog::Nflog};
use stateway_trace::log_line;
use stateway_trace::replay::{Due, Emitted, FrameVerdict, Replay, bridge_of, epoch_of};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

mod output;
mod totals;
mod untold;

use output::{FlushFirst, Output};
use totals::Totals;

/// The router is a bridge between the ports of the capture, unless a lab says otherwise. A frame comes in on the port of
/// its interface's name, and timestamps drive the clock.
///
/// pcapng and pcap are read, gzipped or not, of Ethernet, `any` (SLL, SLL2), TUN and raw IP. Copies of what went out are
/// left out; what could not be judged is said at the end.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A capture, or `-` for standard input
    #[arg(value_name = "TRACE", required_unless_present = "capture")]
    trace: Option<PathBuf>,
    /// Captures of one port each, merged by their timestamps
    #[arg(long, value_name = "PORT=FILE", num_args = 1.., conflicts_with_all = ["trace", "names", "annotate"], value_parser = port_file)]
    capture: Vec<(String, PathBuf)>,
    #[command(flatten)]
    captures: CaptureArgs,
    #[command(flatten)]
    router: RouterArgs,
    /// How to print: a line for each frame, or a JSON object for each
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print totals instead of a line for each frame
    #[arg(long, conflicts_with_all = ["bytes", "annotate"])]
    summary: bool,
    /// Tell the bytes of every frame that leaves, not only of those that the router wrote or changed
    #[arg(long)]
    bytes: bool,
    /// Print connections and expectations at the end
    #[arg(long)]
    conntrack: bool,
    /// Write the capture back with verdicts as packet comments
    #[arg(long, value_name = "OUT.pcapng")]
    annotate: Option<PathBuf>,
    /// Write the packets that NFLOG speaks of to a capture, group and prefix as comments
    #[arg(long, value_name = "OUT.pcapng")]
    nflog: Option<PathBuf>,
    /// Stop after this frame
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
}

fn port_file(text: &str) -> Result<(String, PathBuf), String> {
    let parts = text.split_once('=').filter(|(port, file)| !port.is_empty() && !file.is_empty());
    parts
        .map(|(port, file)| (port.to_owned(), file.into()))
        .ok_or_else(|| "it is PORT=FILE, such as lan=lan.pcap".into())
}

/// What `--conntrack` adds in JSON.
#[derive(Debug, Serialize)]
struct Tables {
    table: Vec<String>,
    expectations: Vec<String>,
}

pub(super) fn run(args: Args) -> Result {
    let out = Output::default();
    let path = args.path();
    let (frames, usual) = args.frames(&path, &out)?;
    let mut config = args.router.config(|| usual)?;
    config.unix_epoch_nanos = epoch_of(frames.first_nanos());
    let router = router_args::build(config)?;
    let replay = Replay::new(frames.ports(), &router, args.bytes);
    let replay = replay
        .map_err(|error| Failure::Input(anyhow::Error::from(error).context(path.display().to_string())))?;
    let nflog = args.nflog.as_deref().map(|to| create(to, &args)).transpose()?;
    let nflog =
        nflog.map(|(to, file)| write(to, Nflog::new(file, &router)).map(|nflog| (to, nflog))).transpose()?;
    let annotator = args.annotate.as_deref().map(|to| create(to, &args)).transpose()?;
    let annotator = annotator
        .map(|(to, file)| write(to, frames.annotate(file)).map(|writer| (to, writer)))
        .transpose()?;
    let mut run = Run {
        args: &args,
        router: &router,
        replay,
        out,
        said: router.logs().listen(),
        nflog,
        annotator,
        totals: Totals::default(),
        tally: Tally::new(&path, router.ifaces().iter().map(|iface| iface.name.as_str())),
    };
    let mut frames = if args.reads_ahead(&path) { Reads::ahead(frames) } else { Reads::AsTheyCome(frames) };
    let damage = run.all(&mut frames)?;
    run.finish(&mut frames)?;
    damage.map_or(Ok(()), |error| Err(captures::in_file(&path, error)))
}

impl Args {
    /// What errors and warnings are led by.
    fn path(&self) -> PathBuf {
        let names = || self.capture.iter().map(|(_, file)| file.display().to_string()).collect::<Vec<_>>();
        self.trace.clone().unwrap_or_else(|| names().join(", ").into())
    }

    /// Verdicts on what still grows are there at once; and who writes a capture back looks at the blocks between its frames.
    fn reads_ahead(&self, path: &Path) -> bool {
        self.annotate.is_none() && !(self.capture.is_empty() && captures::is_stream(path))
    }

    /// The frames, and the router around them where nothing else is said.
    fn frames(&self, path: &Path, out: &Output) -> Result<(Frames, RouterConfig)> {
        let mut reading = self.captures.reading();
        reading.keeps_blocks = self.annotate.is_some();
        if self.capture.is_empty() && captures::is_stream(path) {
            // Verdicts are there before more frames are waited for.
            let frames = captures::stream(path, FlushFirst::new(captures::raw(path)?, out), &reading)?;
            let router = bridge_of(frames.ports());
            return Ok((frames, router));
        }
        let in_file = |error| captures::in_file(path, error);
        if self.capture.is_empty() {
            let opened = captures::open(path, reading)?;
            return Ok((opened.source.open().map_err(in_file)?, opened.router()));
        }
        let sources = self.capture.iter().map(|(port, file)| captures::open_as(file, port, reading.clone()));
        let sources: Vec<Source> = sources.collect::<Result<_>>()?;
        let frames = Source::merge(sources).and_then(|source| source.open()).map_err(in_file)?;
        let router = bridge_of(frames.ports());
        Ok((frames, router))
    }
}

/// Where frames come from while a replay is under way.
enum Reads {
    AsTheyCome(Frames),
    Ahead(Ahead),
}

impl Reads {
    fn ahead(frames: Frames) -> Self {
        Self::Ahead(Ahead::new(frames))
    }

    fn read(&mut self, frame: &mut Frame) -> Result<bool, CaptureError> {
        match self {
            Self::AsTheyCome(frames) => frames.read(frame),
            Self::Ahead(frames) => frames.read(frame),
        }
    }

    /// Those whose blocks are written back.
    const fn captured(&mut self) -> Option<&mut Frames> {
        match self {
            Self::AsTheyCome(frames) => Some(frames),
            Self::Ahead(_) => None,
        }
    }
}

/// A replay under way, and all that listens to it.
struct Run<'a> {
    args: &'a Args,
    router: &'a Router,
    replay: Replay<'a>,
    out: Output,
    /// What LOG, TRACE, NFLOG and `nf_conntrack_log_invalid` say.
    said: Listener<Logged>,
    nflog: Option<(&'a Path, Nflog<BufWriter<File>>)>,
    annotator: Option<(&'a Path, Annotator<BufWriter<File>>)>,
    totals: Totals,
    tally: Tally,
}

impl Run<'_> {
    /// Takes frame after frame through the router. Gives back what is wrong with the capture, as far as it was read.
    fn all(&mut self, frames: &mut Reads) -> Result<Option<CaptureError>> {
        let mut frame = Frame::default();
        let until = self.args.until.unwrap_or(u64::MAX);
        loop {
            match frames.read(&mut frame) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            }
            let is_judged = self.tally.count(&frame);
            let comment = if is_judged { self.one(&mut frame)? } else { String::new() };
            if let (Some((path, annotator)), Some(frames)) = (&mut self.annotator, frames.captured()) {
                write(path, annotator.frame(frames, &frame, &comment))?;
            }
            if frame.number == until {
                return Ok(None);
            }
        }
    }

    /// Takes one frame through the router; gives back what is to be written beside it.
    fn one(&mut self, frame: &mut Frame) -> Result<String> {
        let due = self.replay.pass_time(frame);
        if self.args.summary {
            let bytes = frame.data.len();
            self.totals.count(self.replay.judge(frame), bytes);
            self.listen(frame)?;
            return Ok(String::new());
        }
        let verdict = self.replay.step(frame);
        self.listen(frame)?;
        let (bytes, format) = (self.args.bytes, self.args.format);
        super::render::finish(self.out.with(|out| match format {
            Format::Json => print_json(out, &due, &verdict, bytes),
            Format::Text => print_text(out, &due, &verdict, &frame.data),
        }));
        Ok(if self.annotator.is_some() { comment(&verdict) } else { String::new() })
    }

    /// Writes what the rules and the tracker said of a frame.
    fn listen(&mut self, frame: &Frame) -> Result {
        for message in self.said.try_iter() {
            if let Some((_, line)) = log_line::of(&message, self.router) {
                super::render::tell(&format!("frame {}: {}", frame.number, line.trim_end()));
            }
            if let Some((path, nflog)) = &mut self.nflog {
                write(path, nflog.write(&message, self.router))?;
            }
        }
        Ok(())
    }

    /// Prints and writes what comes last.
    fn finish(self, frames: &mut Reads) -> Result {
        let tables = || Tables { table: self.replay.table(), expectations: self.replay.expectations() };
        super::render::finish(self.out.with(|out| {
            if self.args.summary {
                self.totals.print(out, self.args.format, self.router)?;
            }
            if self.args.conntrack {
                print_tables(out, self.args.format, &tables())?;
            }
            out.flush()
        }));
        if let Some((path, mut nflog)) = self.nflog {
            write(path, nflog.get_mut().flush())?;
        }
        if let (Some((path, annotator)), Some(frames)) = (self.annotator, frames.captured()) {
            write(path, annotator.finish(frames))?;
        }
        self.tally.tell()?;
        let path = self.args.path();
        untold::tell(&path, self.args.router.lab(), self.router, self.replay.super_frames());
        Ok(())
    }
}

fn write<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.with_context(|| format!("cannot write `{}`", path.display())).map_err(Failure::Input)
}

fn print_json(out: &mut impl Write, due: &[Due], verdict: &FrameVerdict, bytes: bool) -> io::Result<()> {
    // No frame of the capture: only who wants every frame that leaves is told.
    for due in due.iter().filter(|_| bytes) {
        serde_json::to_writer(&mut *out, due)?;
        out.write_all(b"\n")?;
    }
    serde_json::to_writer(&mut *out, verdict)?;
    out.write_all(b"\n")
}

fn print_text(out: &mut impl Write, due: &[Due], verdict: &FrameVerdict, frame: &[u8]) -> io::Result<()> {
    for due in due {
        writeln!(out, "{:>5}  {:>12.6}  time passed", "", due.time as f64 / 1e9)?;
        print_emitted(out, &due.emitted)?;
    }
    let FrameVerdict { frame: number, time, in_port, entry, emitted, .. } = verdict;
    let what = summary::of_frame(&mut frame.to_vec());
    let time = *time as f64 / 1e9;
    writeln!(out, "{number:>5}  {time:>12.6}  {in_port:<10}  {what}  {}", account(verdict))?;
    if let Some(entry) = entry {
        writeln!(out, "{:>7}{entry}", "")?;
    }
    print_emitted(out, emitted)
}

fn print_emitted(out: &mut impl Write, emitted: &[Emitted]) -> io::Result<()> {
    for Emitted { port, bytes } in emitted {
        writeln!(out, "{:>7}sends to {port}: {}", "", summary::of_frame(&mut bytes.clone()))?;
    }
    Ok(())
}

fn print_tables(out: &mut impl Write, format: Format, tables: &Tables) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, tables)?;
            out.write_all(b"\n")
        }
        Format::Text => {
            writeln!(out, "\nconnections: {}", tables.table.len())?;
            tables.table.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            writeln!(out, "expectations: {}", tables.expectations.len())?;
            tables.expectations.iter().try_for_each(|line| writeln!(out, "{line}"))
        }
    }
}

/// What became of a frame, in a few words: `ESTABLISHED reply: forwarded → left by filter/FORWARD/1`.
fn account(verdict: &FrameVerdict) -> String {
    let FrameVerdict { ctstate, direction, fate, out, rule, reason, .. } = verdict;
    let mut text = String::new();
    let words: Vec<&str> = [*ctstate, *direction].into_iter().flatten().collect();
    if !words.is_empty() {
        text = format!("{}: ", words.join(" "));
    }
    text.push_str(fate);
    // Writing to a string cannot fail.
    if !out.is_empty() {
        let _ = write!(text, " → {}", out.join(", "));
    }
    if let Some(rule) = rule {
        let _ = write!(text, " by {rule}");
    }
    if let Some(reason) = reason {
        let _ = write!(text, " ({reason})");
    }
    text
}

fn comment(verdict: &FrameVerdict) -> String {
    let account = account(verdict);
    match &verdict.entry {
        Some(entry) => format!("{account}\n{entry}"),
        None => account,
    }
}

/// Opens what `--annotate` or `--nflog` writes, before anything is printed.
fn create<'a>(path: &'a Path, args: &Args) -> Result<(&'a Path, BufWriter<File>)> {
    let open = || -> anyhow::Result<File> {
        let mut captures = args.trace.iter().chain(args.capture.iter().map(|(_, file)| file));
        if path.exists() && captures.any(|file| file.canonicalize().ok() == path.canonicalize().ok()) {
            return Err(anyhow!("it is the capture itself, which would be lost"));
        }
        Ok(File::create(path)?)
    };
    let file =
        open().with_context(|| format!("cannot write `{}`", path.display())).map_err(Failure::Input)?;
    Ok((path, BufWriter::new(file)))
}
