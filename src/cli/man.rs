//! `stateway man DIR`: a manual page for every subcommand.

use super::{Failure, Result, examples};
use anyhow::Context as _;
use clap::Command;
use clap::builder::Resettable;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that the pages go to
    dir: PathBuf,
}

pub(super) fn run(args: Args) -> Result {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    fs::create_dir_all(&args.dir)
        .and_then(|()| write_pages(&command, &args.dir))
        .with_context(|| format!("writing manual pages to `{}`", args.dir.display()))
        .map_err(Failure::Input)
}

fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    let inner = command.get_subcommands().filter(|command| !command.is_hide_set());
    inner.into_iter().try_for_each(|command| write_pages(command, dir))?;
    let (name, page) = page(command)?;
    fs::write(dir.join(name), page)
}

/// A page's file name, and the page.
fn page(command: &Command) -> io::Result<(String, String)> {
    let after = command.get_after_long_help().or(command.get_after_help());
    let sections = sections(&after.map(ToString::to_string).unwrap_or_default());
    // They become sections of their own.
    let bare = command.clone().after_help(Resettable::Reset).after_long_help(Resettable::Reset);
    let man = Man::new(bare);
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    let end = page.find("\n.SH VERSION").map_or(page.len(), |at| at + 1);
    page.insert_str(end, &sections);
    Ok((man.get_filename(), page))
}

/// What stands behind the options of `--help`, as sections of a page; line by line, as it stands there.
fn sections(after: &str) -> String {
    let mut text = String::new();
    for paragraph in after.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        match paragraph.split_once(':') {
            Some(("Examples", rest)) => section(&mut text, "EXAMPLES", rest),
            Some(("Exit codes", rest)) => section(&mut text, "EXIT STATUS", rest),
            _ => section(&mut text, "NOTES", paragraph),
        }
    }
    if !after.contains("Exit codes:") {
        section(&mut text, "EXIT STATUS", examples::EXIT_CODES.trim_start_matches("Exit codes:"));
    }
    text
}

fn section(text: &mut String, title: &str, lines: &str) {
    _ = writeln!(text, ".SH \"{title}\"\n.nf");
    for line in lines.trim_matches('\n').lines() {
        // A dot or a quote at the beginning of a line would be a command of roff's.
        let line = line.trim_end().replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        _ = writeln!(text, "{guard}{line}");
    }
    text.push_str(".fi\n");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn check(command: &Command) {
        let (name, page) = page(command).expect("a page");
        assert_eq!(page.matches(".SH \"EXIT STATUS\"").count(), 1, "{name}: {page}");
        assert!(!page.contains(".SH EXTRA"), "{name}");
        command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(check);
    }

    #[test]
    fn every_page_has_exit_codes_and_examples_are_a_section() {
        let mut command = crate::cli::command();
        command.build();
        check(&command);
        let watch = command.find_subcommand("watch").expect("it is there");
        let (name, page) = page(watch).expect("a page");
        assert_eq!(name, "stateway-watch.1");
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text} in {page}"));
        assert!(at(".SH \"EXAMPLES\"\n.nf\n  stateway watch \\-\\-lab article") < at(".SH VERSION"));
    }
}
