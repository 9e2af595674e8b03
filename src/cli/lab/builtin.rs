//! `stateway lab builtin`: the labs that are in the program.

use super::super::{Failure, Result};
use super::{Format, say};
use anyhow::anyhow;
use stateway_lab::builtin;
use stateway_lab::error::hint;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct BuiltinArgs {
    /// Prints the file of this one, to be changed: `stateway lab builtin article >lab.yaml`
    name: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn builtin(args: BuiltinArgs) -> Result {
    match args.name {
        Some(name) => print(&name),
        None => list(args.format),
    }
}

fn print(name: &str) -> Result {
    let text = builtin::text(name).ok_or_else(|| {
        let hint = hint(name, builtin::names(), "built-in labs").map(|hint| format!("\n  hint: {hint}"));
        Failure::Input(anyhow!("no lab `{name}` is built in{}", hint.unwrap_or_default()))
    })?;
    say(text.trim_end())
}

pub(super) fn list(format: Format) -> Result {
    let names = builtin::names();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for name in names {
        let lab = stateway_lab::resolve::load_text(builtin::text(name).unwrap_or_default(), Path::new(name))
            .map_err(|errors| Failure::Input(errors.into()))?;
        say(&match format {
            Format::Text => format!("{name:<width$}  {}", lab.description),
            Format::Json => serde_json::json!({ "lab": name, "description": lab.description }).to_string(),
        })?;
    }
    Ok(())
}
