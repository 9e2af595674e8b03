//! `stateway replay`: a capture through a ruleset, in virtual time.

use super::render::Format;
use super::router_args::{self, RouterArgs};
use super::{Failure, Result};
use crate::device::pcap::Capture;
use crate::device::pcap::nflog::Nflog;
use crate::packet::summary;
use crate::replay::{Due, Emitted, FrameVerdict, Replay, bridge_of, epoch_of};
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

/// The router is a bridge between the interfaces of the capture, unless a lab says otherwise. Every enhanced packet
/// block is a frame that came in on the port of its interface's name, and timestamps drive the clock.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A pcapng file, or `-` for standard input
    #[arg(value_name = "TRACE.pcapng")]
    trace: PathBuf,
    #[command(flatten)]
    router: RouterArgs,
    /// How to print: a line for each frame, or a JSON object for each
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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

/// What `--conntrack` adds in JSON.
#[derive(Debug, Serialize)]
struct Tables {
    table: Vec<String>,
    expectations: Vec<String>,
}

pub(super) fn run(args: Args) -> Result {
    let capture = read(&args.trace)?;
    let mut config = args.router.config(|| bridge_of(&capture))?;
    config.unix_epoch_nanos = epoch_of(&capture);
    let router = router_args::build(config)?;
    let mut replay =
        Replay::new(&capture, &router, args.bytes).map_err(|error| in_file(&args.trace, error.into()))?;
    warn_of(&args.trace, &capture);
    let annotated = args.annotate.as_deref().map(|path| create(path, &args.trace)).transpose()?;

    let nflog = args.nflog.as_deref().map(|path| create(path, &args.trace)).transpose()?;
    let mut nflog = match nflog {
        Some((path, file)) => Some((path, router.logs().listen(), write(path, Nflog::new(file, &router))?)),
        None => None,
    };

    let until = args.until.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let until = until.min(capture.frames().len());
    let mut comments = Vec::new();
    let mut nflog_written = Ok(());
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = (|| -> io::Result<()> {
        for frame in &capture.frames()[..until] {
            let due = replay.pass_time();
            let Some(verdict) = replay.step() else { break };
            if let Some((_, messages, capture)) = &mut nflog
                && nflog_written.is_ok()
            {
                nflog_written = messages.try_iter().try_for_each(|message| capture.write(&message, &router));
            }
            match args.format {
                Format::Json => print_json(&mut out, &due, &verdict, args.bytes)?,
                Format::Text => print_text(&mut out, &due, &verdict, capture.data(frame))?,
            }
            if args.annotate.is_some() {
                comments.push(comment(&verdict));
            }
        }
        if args.conntrack {
            let tables = Tables { table: replay.table(), expectations: replay.expectations() };
            print_tables(&mut out, args.format, &tables)?;
        }
        out.flush()
    })();
    super::render::finish(result);
    if let Some((path, _, mut capture)) = nflog {
        write(path, nflog_written.and_then(|()| capture.get_mut().flush()))?;
    }
    match annotated {
        Some((path, mut file)) => {
            let comment = |at: usize| comments[at].clone();
            write(path, capture.annotate(&mut file, comments.len(), comment).and_then(|()| file.flush()))
        }
        None => Ok(()),
    }
}

fn write<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.with_context(|| format!("cannot write `{}`", path.display())).map_err(Failure::Input)
}

/// Reads a capture, from standard input if it is `-`.
pub(super) fn read(path: &Path) -> Result<Capture> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.with_context(|| format!("cannot read the capture `{}`", path.display())).map_err(Failure::Input)?;
    Capture::parse(bytes).map_err(|error| in_file(path, error.into()))
}

fn in_file(path: &Path, error: anyhow::Error) -> Failure {
    Failure::Input(error.context(path.display().to_string()))
}

/// What is no error, but makes verdicts other than they were on the wire.
fn warn_of(path: &Path, capture: &Capture) {
    let frames = capture.frames();
    let cut = frames.iter().filter(|f| capture.data(f).len() < f.original_len as usize).count();
    if cut > 0 {
        super::render::warn(&format!(
            "{}: {cut} frames were cut short when they were captured, and are judged as they are; \
             capture with `-s 0`",
            path.display()
        ));
    }
    if let Some(at) = frames.windows(2).position(|pair| pair[1].nanos < pair[0].nanos) {
        super::render::warn(&format!(
            "{}: frame {} is earlier than the one before it; frames are taken in the order of the file, and the \
             clock never goes back; `reordercap` sorts them",
            path.display(),
            at + 2
        ));
    }
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
fn create<'a>(path: &'a Path, trace: &Path) -> Result<(&'a Path, BufWriter<File>)> {
    let open = || -> anyhow::Result<File> {
        if path.exists() && path.canonicalize().ok() == trace.canonicalize().ok() {
            return Err(anyhow!("it is the capture itself, which would be lost"));
        }
        Ok(File::create(path)?)
    };
    let file =
        open().with_context(|| format!("cannot write `{}`", path.display())).map_err(Failure::Input)?;
    Ok((path, BufWriter::new(file)))
}
