//! `stateway reload`, `stateway sysctl`: what a running router is told, beside its rules.

use super::conntrack::RouterArgs;
use super::render::{self, Format};
use super::{Failure, Result};
use anyhow::anyhow;
use stateway_runtime::control::protocol::Named;
use stateway_runtime::control::{Client, Command, Reply};

/// The router reads its file again, all or nothing: rules and settings that are wrong, and a file that looks cut short, are
/// refused, and the old ones stay.
#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    router: RouterArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct SysctlArgs {
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    settings: Settings,
}

/// Settings of connection tracking, under the kernel's names.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// A setting to print, or `NAME=VALUE` to change it; without one, all are printed
    #[arg(value_name = "NAME[=VALUE]")]
    named: Vec<String>,
    /// As of sysctl(8): accepted, and not needed
    #[arg(short, long, hide = true)]
    write: bool,
    /// For people, or JSON
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn reload(args: &ReloadArgs) -> Result {
    let mut client = args.router.connect()?;
    load_again(&mut client)?;
    render::line("the new rules are in force");
    Ok(())
}

/// Has the router load its file again, or says why it does not.
pub(super) fn load_again(client: &mut Client) -> Result {
    let refused =
        |why: anyhow::Error| Failure::Input(anyhow!("not reloaded, the old rules stay in force: {why:#}"));
    client.call(&Command::Reload).map(drop).map_err(refused)
}

pub(super) fn sysctl(args: &SysctlArgs) -> Result {
    let mut client = args.router.connect()?;
    args.settings.apply(&mut client)
}

impl Settings {
    /// Changes what is to be changed, and prints what was named.
    pub(super) fn apply(&self, client: &mut Client) -> Result {
        let mut shown = Vec::new();
        for setting in &self.named {
            let (name, value) = match setting.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (setting.trim(), None),
            };
            if let Some(value) = value {
                let change = Command::SysctlSet { name: name.to_owned(), value: value.to_owned() };
                client.call(&change).map_err(Failure::Input)?;
            }
            shown.extend(get(client, Some(name.to_owned()))?);
        }
        if self.named.is_empty() {
            shown = get(client, None)?;
        }
        match self.format {
            Format::Json => {
                let pairs = shown.into_iter().map(|setting| (setting.name, setting.count.into()));
                render::json(&pairs.collect::<serde_json::Map<_, _>>());
            }
            Format::Text => shown.iter().for_each(|setting| render::line(&line(setting))),
        }
        Ok(())
    }
}

/// As sysctl(8) prints it, so that it can be given back.
fn line(Named { name, count }: &Named) -> String {
    let name = name.trim_start_matches("net.netfilter.");
    format!("net.netfilter.{name} = {count}")
}

fn get(client: &mut Client, name: Option<String>) -> Result<Vec<Named>> {
    match client.call(&Command::SysctlGet { name }).map_err(Failure::Input)?.into_iter().next() {
        Some(Reply::Sysctls { sysctls }) => Ok(sysctls),
        other => Err(Failure::Input(anyhow!("the router answered something else: {other:?}"))),
    }
}
