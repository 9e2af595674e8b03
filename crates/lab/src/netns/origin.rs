//! Whether a lab that is up is the one that a lab file describes: a lab is its file and its contents.

#![forbid(unsafe_code)]

use super::state::{Record, State, folder};
use crate::model::Lab;
use stateway_core::filter::text_of;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a lab file has to do with the lab of that name that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made from this file, and from what the file says now.
    Same,
    /// It was made from another file.
    Elsewhere,
    /// It was made from this file, but this one of its sources has changed since.
    Changed(PathBuf),
}

/// Keeps a copy of every source, to be compared with later.
pub fn keep(lab: &Lab, state: &State) -> anyhow::Result<()> {
    let copies = state.path("sources");
    fs::create_dir_all(&copies)?;
    for (number, source) in lab.sources.iter().enumerate() {
        fs::write(copies.join(number.to_string()), &source.text)?;
    }
    Ok(())
}

/// Compares a lab file that has just been read with the lab that is up.
pub fn compare(record: &Record, lab: &Lab) -> Origin {
    let is_same =
        |number: usize, text: &str| fs::read_to_string(copy(record, number)).is_ok_and(|kept| kept == text);
    let changed = lab.sources.iter().enumerate().find(|(number, source)| !is_same(*number, &source.text));
    let changed = match changed {
        // It names fewer files now.
        None if lab.sources.len() < record.sources.len() => lab.sources.first(),
        other => other.map(|(_, source)| source),
    };
    let is_here = absolute(&lab.file) == record.file;
    match changed {
        // The file was moved since.
        None if is_here || !record.file.exists() => Origin::Same,
        Some(source) if is_here => Origin::Changed(source.path.clone()),
        _ => Origin::Elsewhere,
    }
}

/// The first of its sources that is no longer as it was when the lab was made; one that is gone has not changed.
pub fn changed_since(record: &Record) -> Option<&Path> {
    let differs = |(number, path): &(usize, &PathBuf)| {
        let Ok(kept) = fs::read_to_string(copy(record, *number)) else { return false };
        match fs::read(path) {
            Ok(bytes) => text_of(bytes).map_or(true, |text| text != kept),
            Err(_) => false,
        }
    };
    record.sources.iter().enumerate().find(differs).map(|(_, path)| path.as_path())
}

/// Where the copy of one of its sources lies.
pub fn copy(record: &Record, number: usize) -> PathBuf {
    folder().join(&record.lab).join("sources").join(number.to_string())
}

/// The one path of a file, whether or not it is there (any more).
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Links are followed as far as there is something.
    let known = path.ancestors().find_map(|ancestor| {
        let real = fs::canonicalize(ancestor);
        let gone = real.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        (!gone).then(|| real.ok().map(|real| (ancestor.to_owned(), real)))
    });
    match known.flatten() {
        Some((ancestor, real)) if ancestor == path => real,
        Some((ancestor, real)) => real.join(path.strip_prefix(&ancestor).unwrap_or(&path)),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_after_its_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        let file = folder.path().join("link/lab.yaml");
        fs::write(real.join("lab.yaml"), "").unwrap();
        let before = absolute(&file);
        assert_eq!(before, fs::canonicalize(real.join("lab.yaml")).unwrap());
        fs::remove_file(&file).unwrap();
        assert_eq!(absolute(&file), before);
    }
}
