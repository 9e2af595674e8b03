//! What a page shows beside the packets: the lab with its hosts and files, and what may be done.

use serde::Serialize;
use stateway_lab::netns::origin;
use stateway_lab::netns::state::Record;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    /// Of the lab, or of the router's socket.
    pub(super) name: String,
    /// The rules may be changed, and terminals opened.
    pub(super) may_write: bool,
    pub(super) hosts: Vec<Host>,
    /// The files that the lab was made from, by their names in its folder; none of a router that runs alone.
    pub(super) files: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Host {
    name: String,
    /// The name of the port that it is behind.
    port: String,
    addresses: Vec<String>,
    services: Vec<String>,
}

impl Shown {
    pub(super) fn router(socket: &Path, may_write: bool) -> Self {
        let name = socket.file_stem().unwrap_or(socket.as_os_str()).to_string_lossy().into_owned();
        Self { name, may_write, hosts: Vec::new(), files: BTreeMap::new() }
    }

    pub(super) fn lab(record: &Record, may_write: bool) -> Self {
        let host = |host: &stateway_lab::netns::state::HostRecord| Host {
            name: host.host.clone(),
            port: host.port.clone(),
            addresses: host.addresses.clone(),
            services: host.services.clone(),
        };
        Self {
            name: record.lab.clone(),
            may_write,
            hosts: record.hosts.iter().map(host).collect(),
            files: files(record),
        }
    }
}

/// The copies of what the lab was made from: its files may say something else by now.
fn files(record: &Record) -> BTreeMap<String, String> {
    let folder = record.file.parent().unwrap_or(Path::new(""));
    let text = |number: usize| fs::read_to_string(origin::copy(record, number)).ok();
    let named = record.sources.iter().enumerate().filter_map(|(number, path)| {
        let name = if *path == record.file { "lab.yaml".into() } else { relative(path, folder) };
        Some((name.to_str()?.to_owned(), text(number)?))
    });
    named.collect()
}

/// How a file is called from a folder; both are absolute.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let (path, folder): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (path.components().collect(), folder.components().collect());
    let same = path.iter().zip(&folder).take_while(|(one, other)| one == other).count();
    let up = folder[same..].iter().map(|_| Component::ParentDir);
    up.chain(path[same..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_the_lab_file_calls_them() {
        let name = |path| relative(Path::new(path), Path::new("/labs/mine"));
        assert_eq!(name("/labs/mine/my.rules"), Path::new("my.rules"));
        assert_eq!(name("/labs/mine/rules/v4"), Path::new("rules/v4"));
        assert_eq!(name("/labs/other/v4"), Path::new("../other/v4"));
    }
}
