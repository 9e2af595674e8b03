//! `stateway lab`: build, test and inspect laboratories.

mod builtin;
#[cfg(target_os = "linux")]
mod inside;
#[cfg(target_os = "linux")]
mod named;
mod new;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod running;
mod test;
#[cfg(target_os = "linux")]
mod up;

use super::render::is_unread;
use super::{Failure, Result};
#[cfg(target_os = "linux")]
pub(super) use named::{Named, named};
use stateway_lab::{self as lab, Lab, graph, spec};
use stateway_runtime::terminal;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
pub(super) use up::health;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build a lab from namespaces, and leave it up
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "deploy")]
    Up(up::UpArgs),
    /// Take a lab down; nothing is left
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "destroy")]
    Down(up::DownArgs),
    /// List the labs that are up
    #[cfg(target_os = "linux")]
    Ls(up::LsArgs),
    /// Show a lab that is up: hosts, addresses, services, router
    #[cfg(target_os = "linux")]
    Inspect(inside::InspectArgs),
    /// Have the router of a lab that is up load its rules again, all or nothing
    #[cfg(target_os = "linux")]
    Reload(running::LabArg),
    /// Build a lab again from its file; one that is not up comes up
    #[cfg(target_os = "linux")]
    Restart(running::LabArg),
    /// List the rules of a lab that is up and what they counted, as `iptables -L -v -n --line-numbers` does
    #[cfg(target_os = "linux")]
    Rules(running::RulesArgs),
    /// Print or change the connection tracking settings of a lab that is up
    #[cfg(target_os = "linux")]
    Sysctl(running::SysctlArgs),
    /// Print what the router of a lab says, or the services of a host
    #[cfg(target_os = "linux")]
    Logs(running::LogsArgs),
    /// Delay, lose or slow down what a host sends, or pull its cable
    #[cfg(target_os = "linux")]
    Link(running::LinkArgs),
    /// Run a command on a host of a lab that is up
    #[cfg(target_os = "linux")]
    Exec(inside::ExecArgs),
    /// Open a shell on a host of a lab that is up
    #[cfg(target_os = "linux")]
    Shell(inside::ShellArgs),
    /// Log in from one host to another
    #[cfg(target_os = "linux")]
    Ssh(inside::SshArgs),
    /// Make a folder with a lab of your own, from one that is in this program
    New(new::NewArgs),
    /// Take the tests of labs, and say what was seen
    Test(test::TestArgs),
    /// Write what the ports of a lab carry to pcapng, with verdicts as comments
    #[cfg(target_os = "linux")]
    Capture(inside::CaptureArgs),
    /// Show a lab that is up in a browser: packets, their ways, connections, rules
    #[cfg(all(target_os = "linux", feature = "web"))]
    Web(inside::WebArgs),
    /// Draw a lab
    Graph(GraphArgs),
    /// List the labs that are in this program, which go by their names
    Builtin(builtin::BuiltinArgs),
    /// Print the JSON Schema of a lab file, or its reference
    Schema(SchemaArgs),
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    InitProcess(InitArgs),
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Probe(probe::ProbeArgs),
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Serve(probe::ServeArgs),
}

/// What `lab up` and `lab test` start first; nobody types it.
#[cfg(target_os = "linux")]
#[derive(Debug, clap::Args)]
struct InitArgs {
    lab: String,
}

#[derive(Debug, clap::Args)]
struct GraphArgs {
    /// A folder with a lab.yaml, the file, or the name of a built-in lab
    lab: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    format: GraphFormat,
}

#[derive(Debug, clap::Args)]
struct SchemaArgs {
    /// The reference of the lab file, as Markdown
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum GraphFormat {
    #[default]
    Text,
    Mermaid,
    Svg,
}

pub(super) fn run(args: Args) -> Result {
    match args.command {
        #[cfg(target_os = "linux")]
        Command::Up(args) => up::up(args),
        #[cfg(target_os = "linux")]
        Command::Down(args) => up::down(args),
        #[cfg(target_os = "linux")]
        Command::Ls(args) => up::ls(args),
        #[cfg(target_os = "linux")]
        Command::Inspect(args) => inside::inspect(args),
        #[cfg(target_os = "linux")]
        Command::Reload(args) => running::reload(&args),
        #[cfg(target_os = "linux")]
        Command::Restart(args) => running::restart(&args),
        #[cfg(target_os = "linux")]
        Command::Rules(args) => running::rules(&args),
        #[cfg(target_os = "linux")]
        Command::Sysctl(args) => running::sysctl(&args),
        #[cfg(target_os = "linux")]
        Command::Logs(args) => running::logs(&args),
        #[cfg(target_os = "linux")]
        Command::Link(args) => running::link(&args),
        #[cfg(target_os = "linux")]
        Command::Exec(args) => inside::exec(args),
        #[cfg(target_os = "linux")]
        Command::Shell(args) => inside::shell(args),
        #[cfg(target_os = "linux")]
        Command::Ssh(args) => inside::ssh(args),
        Command::New(args) => new::new(&args),
        Command::Test(args) => test::test(args),
        #[cfg(target_os = "linux")]
        Command::Capture(args) => inside::capture(args),
        #[cfg(all(target_os = "linux", feature = "web"))]
        Command::Web(args) => inside::web(&args),
        Command::Graph(args) => {
            let lab = load(&args.lab)?;
            say(&match args.format {
                GraphFormat::Text => graph::text(&lab),
                GraphFormat::Mermaid => graph::mermaid(&lab),
                GraphFormat::Svg => graph::svg(&lab),
            })
        }
        Command::Builtin(args) => builtin::builtin(args),
        Command::Schema(args) if args.markdown => say(lab::reference::markdown().trim_end()),
        Command::Schema(_) => {
            let schema = serde_json::to_string_pretty(&spec::schema()).map_err(anyhow::Error::from);
            say(&schema.map_err(Failure::Machine)?)
        }
        #[cfg(target_os = "linux")]
        Command::InitProcess(args) => lab::netns::init::run(&args.lab).map_err(Failure::Machine),
        #[cfg(target_os = "linux")]
        Command::Probe(args) => probe::probe(args),
        #[cfg(target_os = "linux")]
        Command::Serve(args) => probe::serve(args),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    /// One object a line
    Json,
}

/// Prints a line. A reader that has gone is no error, since what is to be done is done all the same; a full disk is one.
fn say(line: &str) -> Result {
    let printed = writeln!(terminal::Output::stdout(), "{line}");
    match printed {
        unread if is_unread(&unread) => Ok(()),
        printed => printed.map_err(cannot_write),
    }
}

fn cannot_write(error: io::Error) -> Failure {
    Failure::Machine(anyhow::anyhow!("cannot write: {error}"))
}

/// Tells the user something beside the output.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{}", terminal::escape(line));
}

/// What a command has to say as it goes on. What is done beside other things keeps it until its turn comes.
enum Words {
    /// A line of output.
    Said(String),
    /// The same with colours, and nothing else that a terminal acts on.
    Painted(String),
    /// A line beside the output.
    Told(String),
    /// How far it has come; an empty text takes that away.
    Progress(String),
}

/// Whom a command tells.
type Voice<'a> = &'a dyn Fn(Words);

/// Says something at once.
fn utter(words: Words) -> Result {
    match words {
        Words::Said(line) => return say(&line),
        Words::Painted(line) => {
            let printed = writeln!(io::stdout(), "{line}");
            return if is_unread(&printed) { Ok(()) } else { printed.map_err(cannot_write) };
        }
        Words::Told(line) => tell(&line),
        Words::Progress(text) => super::render::progress(&text),
    }
    Ok(())
}

/// Reads a lab file, or that of the lab that is up under this name; what is wrong with it is the user's to mend.
fn load(path: &Path) -> Result<Lab> {
    load_with(path, None)
}

/// As [`load`], with other rules in place of the lab's own.
fn load_with(path: &Path, other: Option<&lab::OtherRules>) -> Result<Lab> {
    #[cfg(target_os = "linux")]
    let up =
        lab::netns::state::read(&path.to_string_lossy()).filter(|_| !path.exists()).map(|record| record.file);
    #[cfg(not(target_os = "linux"))]
    let up: Option<PathBuf> = None;
    let lab = lab::load_with(up.as_deref().unwrap_or(path), other);
    let lab = lab.map_err(|errors| Failure::Input(anyhow::anyhow!(errors.with_lines())))?;
    for warning in &lab.warnings {
        tell(&format!("warning: {}: {warning}", lab::builtin::shown(&lab.file)));
    }
    Ok(lab)
}
