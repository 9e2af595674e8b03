//! The labs that a user names: files, folders of labs, and the rules to try on them.

use super::super::super::router_args::read_rules;
use super::super::super::rules_text::RulesText;
use super::super::super::{Failure, Result};
use super::super::{load, load_with};
use super::TestArgs;
use anyhow::anyhow;
use stateway_core::packet::Family;
use stateway_lab::model::{Lab, Source};
use stateway_lab::resolve::OtherText;
use stateway_lab::{OtherRules, find};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Labs lie no deeper than this below a folder.
const MAX_DEPTH: usize = 8;

/// Every lab that is named, and what is wrong with those that cannot be read.
pub(super) fn read(args: &TestArgs) -> (Vec<Lab>, Vec<(PathBuf, String)>) {
    let (mut labs, mut wrong) = (Vec::new(), Vec::new());
    for path in &args.labs {
        match below(path) {
            Ok(paths) => {
                for path in paths {
                    match one(args, &path) {
                        Ok(lab) => labs.push(lab),
                        Err(failure) => wrong.push((path, failure.text())),
                    }
                }
            }
            Err(failure) => wrong.push((path.clone(), failure.text())),
        }
    }
    (labs, wrong)
}

fn one(args: &TestArgs, path: &Path) -> Result<Lab> {
    let sets_alone = !args.sets.is_empty() && !args.has_other_rules();
    if sets_alone {
        return Err(Failure::Input(anyhow!("`--sets` is for the rules of `--rules` or `--rules6`")));
    }
    if !args.has_other_rules() {
        return load(path);
    }
    if args.rules.iter().chain(&args.rules6).chain(&args.sets).any(|file| file == Path::new("-")) {
        return Err(Failure::Input(anyhow!(
            "standard input is read once, and each lab reads the rules: name a file"
        )));
    }
    // The rules are checked by the ports of this lab.
    let own = stateway_lab::load(path).map_err(|errors| Failure::Input(anyhow!(errors.with_lines())))?;
    let ports: Vec<String> = own.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
    let text = |file: &Option<PathBuf>, family| {
        file.as_ref().map(|file| other_text(&args.sets, file, family, &ports)).transpose()
    };
    let other = OtherRules { v4: text(&args.rules, Family::Ipv4)?, v6: text(&args.rules6, Family::Ipv6)? };
    load_with(path, Some(&other))
}

fn other_text(sets: &[PathBuf], file: &Path, family: Family, ports: &[String]) -> Result<OtherText> {
    let whole = read_rules(sets, file, family, ports)?;
    let files = sets.iter().map(PathBuf::as_path).chain([file]);
    let source = |path: &Path| {
        let text = RulesText::read(&[], path)?.into_whole();
        Ok(Source { path: path.to_owned(), text })
    };
    Ok(OtherText { whole, files: files.map(source).collect::<Result<_>>()? })
}

/// The lab that is meant; of a folder without a lab file, every lab below it, in the order of their names.
fn below(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() || find(path).exists() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    search(path, MAX_DEPTH, &mut found)
        .map_err(|error| Failure::Input(anyhow!("cannot look for labs in {}: {error}", path.display())))?;
    if found.is_empty() {
        return Err(Failure::Input(anyhow!(
            "{} has no `lab.yaml` in it, and no folder below it has one\n  hint: `stateway lab new DIR --from article` makes a lab",
            path.display()
        )));
    }
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if folder.join("lab.yaml").is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Links are left out, which may lead in a circle, and so is what is hidden.
        if entry.file_type()?.is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            folders.push(entry.path());
        }
    }
    folders.sort();
    folders.iter().try_for_each(|folder| search(folder, depth - 1, found))
}
