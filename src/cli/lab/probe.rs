//! `stateway lab probe` and `serve`: what a lab runs inside its hosts. Hidden, since nobody types it.

use super::super::{Failure, Result};
use stateway_lab::probe::{self, Finding, Target};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct ProbeArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// Opens a TCP connection
    Tcp {
        #[command(flatten)]
        target: TargetArgs,
        /// Says this, in hexadecimal digits, and gathers the answer
        #[arg(long)]
        say: Option<String>,
        /// Keeps the connection, and says each line of standard input
        #[arg(long)]
        hold: bool,
    },
    /// Sends a datagram
    Udp {
        #[command(flatten)]
        target: TargetArgs,
        /// What it says, in hexadecimal digits
        #[arg(long)]
        say: String,
    },
    /// Joins a TCP connection to standard input and output
    Pipe {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Sends IP packets: a line of hexadecimal digits for each
    Send,
    /// Waits until somebody listens, or a server answers: `tcp:22`, `udp:53`, `tftp:69:192.0.2.77`
    Ready {
        #[arg(long, default_value_t = 20.0)]
        timeout: f64,
        ports: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct TargetArgs {
    addr: IpAddr,
    port: u16,
    #[arg(long)]
    source: Option<IpAddr>,
    #[arg(long)]
    source_port: Option<u16>,
    /// In seconds
    #[arg(long, default_value_t = 2.0)]
    timeout: f64,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    #[arg(long)]
    name: String,
    /// An address of the host; may be repeated
    #[arg(long = "address")]
    addresses: Vec<IpAddr>,
    /// `echo:7`, `http:80`, `dns:53`
    services: Vec<String>,
}

impl TargetArgs {
    fn target(&self) -> Target {
        Target {
            addr: self.addr,
            port: self.port,
            source: self.source,
            source_port: self.source_port,
            timeout: Duration::try_from_secs_f64(self.timeout).unwrap_or(Duration::from_secs(2)),
        }
    }
}

fn print(finding: &Finding) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(finding)?)?;
    stdout.flush()
}

pub(super) fn probe(args: ProbeArgs) -> Result {
    carry_out(args.kind).map_err(|error| Failure::Machine(error.into()))
}

fn carry_out(kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Tcp { target, hold: true, .. } => probe::hold(&target.target(), print),
        Kind::Tcp { target, say, hold: false } => {
            let say = say.as_deref().map(bytes).transpose()?;
            print(&probe::tcp(&target.target(), say.as_deref())?)
        }
        Kind::Udp { target, say } => print(&probe::udp(&target.target(), &bytes(&say)?)?),
        Kind::Pipe { target } => probe::pipe(&target.target()),
        Kind::Send => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            let packets: Vec<Vec<u8>> = text.lines().map(bytes).collect::<io::Result<_>>()?;
            print(&probe::send(&packets)?)
        }
        Kind::Ready { timeout, ports } => {
            let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
            probe::ready(&ports, timeout)?
                .map_err(|closed| io::Error::other(format!("nobody listens on {closed}")))
        }
    }
}

fn bytes(digits: &str) -> io::Result<Vec<u8>> {
    unhex(digits).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not hexadecimal"))
}

fn unhex(line: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = line.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

pub(super) fn serve(args: ServeArgs) -> Result {
    probe::serve(&args.services, &args.name, &args.addresses).map_err(|error| Failure::Machine(error.into()))
}
