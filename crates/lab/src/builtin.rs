//! The labs of `topologies/`, which are in the program itself: `stateway lab test article` works from anywhere.
//!
//! Such a lab has the path of a file that is not there, `/builtin:/article/lab.yaml`, by which it is loaded again wherever
//! a lab's file is, also by its router.

#![forbid(unsafe_code)]

use include_dir::{Dir, include_dir};
use std::path::{Display, Path, PathBuf};

static LABS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/topologies");
const FOLDER: &str = "/builtin:";

/// Their names, in alphabetical order.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = LABS.dirs().filter_map(|dir| dir.path().to_str()).collect();
    names.sort_unstable();
    names
}

/// The lab file of that name.
pub fn text(name: &str) -> Option<&'static str> {
    LABS.get_file(Path::new(name).join("lab.yaml"))?.contents_utf8()
}

/// The files of the lab of that name that are of use elsewhere, by their paths in its folder: guides link to their
/// surroundings.
pub fn files(name: &str) -> Option<Vec<(PathBuf, &'static [u8])>> {
    text(name)?;
    let mut found = Vec::new();
    let mut folders = vec![LABS.get_dir(name)?];
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs());
        for file in folder.files().filter(|file| file.path().extension().is_none_or(|kind| kind != "md")) {
            found.push((file.path().strip_prefix(name).ok()?.to_owned(), file.contents()));
        }
    }
    found.sort();
    Some(found)
}

/// What stands for the file of the lab that is meant by `name`.
pub(super) fn file(name: &Path) -> Option<PathBuf> {
    let name = name.to_str()?;
    names().contains(&name).then(|| Path::new(FOLDER).join(name).join("lab.yaml"))
}

/// A lab's file as people are told of it: one that is built in has its name alone, by which it is asked for.
pub fn shown(file: &Path) -> Display<'_> {
    let name = file.strip_prefix(FOLDER).ok().filter(|_| read(file).is_some()).and_then(Path::parent);
    name.unwrap_or(file).display()
}

/// The text of what [`file`] gave.
pub(super) fn read(file: &Path) -> Option<&'static str> {
    text(file.strip_prefix(FOLDER).ok()?.to_str()?.strip_suffix("/lab.yaml")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lab_of_the_folder_is_built_in_under_its_own_name_as_it_is() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
        let entries = std::fs::read_dir(&folder).unwrap();
        let mut found: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(names(), found);
        for name in names() {
            assert_eq!(
                text(name).unwrap(),
                std::fs::read_to_string(folder.join(name).join("lab.yaml")).unwrap()
            );
            assert_eq!(crate::load(Path::new(name)).unwrap().name, name);
        }
    }

    #[test]
    fn what_is_no_name_of_one_is_none() {
        for odd in ["", ".", "article/", "article/lab.yaml", "/article", "../topologies/article", "nothing"] {
            assert_eq!(file(Path::new(odd)), None, "{odd}");
        }
        assert_eq!(read(Path::new("article")), None);
        for file in ["/builtin:/nothing/lab.yaml", "/builtin:/article", "labs/article/lab.yaml"] {
            assert_eq!(shown(Path::new(file)).to_string(), file);
        }
        assert_eq!(shown(&file(Path::new("article")).unwrap()).to_string(), "article");
        assert_eq!(read(Path::new("/builtin:/../article/lab.yaml")), None);
    }
}
