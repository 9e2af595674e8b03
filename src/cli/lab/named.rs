//! Which lab a user means: one that is up, by its name, or a lab file, by its folder or its path.

use super::super::{Failure, Result};
use stateway_lab as lab;
use stateway_lab::builtin;
use stateway_lab::netns::origin::{self, Origin};
use stateway_lab::netns::state::{self, Record};
use std::path::Path;

/// A lab by its name, with what is known of it if it is up.
pub(in crate::cli) struct Named {
    pub(in crate::cli) name: String,
    pub(in crate::cli) record: Option<Record>,
}

/// Finds the lab that is meant. What is there as a file or a folder is one, and never the name of another lab that is up.
pub(in crate::cli) fn named(lab: &Path) -> Result<Named> {
    let file = lab::find(lab);
    let records = state::all();
    // A lab may be up whose file has gone, or is broken, since.
    if let Some(record) = made_from(&records, lab) {
        return Ok(Named { name: record.lab.clone(), record: Some(record.clone()) });
    }
    if file.exists() {
        let found = super::load(lab)?;
        let record = state::read(&found.name);
        return match record {
            Some(record) if origin::compare(&record, &found) != Origin::Same => {
                Err(elsewhere(&record, &found.file))
            }
            record => Ok(Named { name: found.name, record }),
        };
    }
    let name = lab.to_string_lossy().into_owned();
    if lab.exists() || !lab::resolve::is_lab_name(&name) {
        return Err(Failure::Input(anyhow::anyhow!(
            "there is no lab at `{name}`\n  hint: a lab is a folder with a `lab.yaml` in it, such a file, or the name of one that is up"
        )));
    }
    let record = state::read(&name);
    Ok(Named { name, record })
}

/// The lab that was made from this file, or from the only one in this folder that one was made from.
fn made_from<'a>(records: &'a [Record], lab: &Path) -> Option<&'a Record> {
    let place = origin::absolute(lab);
    let own = [place.join("lab.yaml"), place.clone()];
    records.iter().find(|record| own.contains(&record.file)).or_else(|| {
        let mut beside = records.iter().filter(|record| record.file.parent() == Some(&place));
        beside.next().filter(|_| beside.next().is_none() && !own[0].exists())
    })
}

/// Another file's lab of the same name is up: it is somebody's work, and left alone.
pub(super) fn elsewhere(record: &Record, file: &Path) -> Failure {
    let asked = origin::absolute(file);
    let (name, up, asked) = (&record.lab, builtin::shown(&record.file), builtin::shown(&asked));
    // Here the name alone might mean a folder.
    let plain = if Path::new(name).exists() { record.file.display().to_string() } else { name.clone() };
    Failure::Input(anyhow::anyhow!(
        "the lab `{name}` is up from {up}, not from {asked}\n  hint: `stateway lab down {plain}` takes that one down"
    ))
}

/// The lab is up, but not as its file says now.
pub(super) fn changed(record: &Record, source: &Path) -> Failure {
    let source = origin::absolute(source);
    let number = record.sources.iter().position(|path| *path == source).unwrap_or(0);
    Failure::Input(anyhow::anyhow!(
        "{} has changed since the lab `{}` came up; what is up was made from {}\n  hint: `--restart` builds it again from the file",
        builtin::shown(&source),
        record.lab,
        origin::copy(record, number).display()
    ))
}

/// The lab that is up, for commands that work with what is up; the user is told if its file says something else by now.
pub(super) fn up(lab: &Path) -> Result<Record> {
    let Named { name, record } = named(lab)?;
    let record = record.ok_or_else(|| {
        Failure::Input(anyhow::anyhow!(
            "the lab `{name}` is not up\n  hint: `stateway lab up {}`",
            lab.display()
        ))
    })?;
    if let Some(source) = origin::changed_since(&record) {
        super::tell(&format!("warning: {} has changed since the lab `{name}` came up", source.display()));
    }
    Ok(record)
}
