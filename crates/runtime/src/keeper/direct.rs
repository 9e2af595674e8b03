//! The keeper's work itself, by whatever privileges this process has.

#![forbid(unsafe_code)]

use super::{Keeper, Plan, Reach, ReadConfig, SocketPlan};
use crate::device::{self, link};
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A keeper within the process.
#[derive(Debug)]
pub struct Direct {
    plan: Plan,
    read_config: ReadConfig,
}

impl Direct {
    pub const fn new(plan: Plan, read_config: ReadConfig) -> Self {
        Self { plan, read_config }
    }

    /// A new file beside the state file, which takes its place in [`Direct::finish_state`]. What an earlier attempt
    /// left is thrown away.
    ///
    /// # Errors
    /// With the kernel's reason.
    pub fn begin_state(&self) -> io::Result<File> {
        let path = beside(self.plan.state()?);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Connections are nobody else's business.
        File::options().write(true).create_new(true).mode(0o600).open(path)
    }

    /// Removes the control socket, if it is still the one of this router.
    pub fn remove_socket(&self) {
        let Some(SocketPlan { path, device, inode }) = &self.plan.socket else { return };
        if fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (*device, *inode)) {
            let _ = fs::remove_file(path);
        }
    }

    /// The files that the lab file names now.
    fn named_files(&self) -> Vec<PathBuf> {
        let named = RefCell::new(Vec::new());
        let note = |path: &Path| {
            named.borrow_mut().push(path.to_owned());
            open_file(path)
        };
        // What is wrong with them is found, and told, by whoever asked.
        (self.read_config)(&self.plan.lab, &note);
        named.into_inner()
    }

    /// Puts the new file in the old one's place, or throws it away if it is not to be kept.
    ///
    /// # Errors
    /// With the kernel's reason: the old file stays.
    pub fn finish_state(&self, keep: Option<Reach>) -> io::Result<()> {
        let path = self.plan.state()?;
        let Some(reach) = keep else { return fs::remove_file(beside(path)) };
        fs::rename(beside(path), path)?;
        // The name is on the disk once its folder is.
        reach.sync(&File::open(folder_of(path))?)
    }
}

impl Keeper for Direct {
    fn open_config(&self, path: &Path) -> io::Result<File> {
        if path != self.plan.lab && !self.named_files().iter().any(|named| named == path) {
            let message = format!("{} does not name this file", self.plan.lab.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        open_file(path)
    }

    fn open_port(&self, name: &str) -> io::Result<OwnedFd> {
        let port = self.plan.port(name)?;
        let fd = device::open_fd(&port.name, port.kind)?;
        if self.plan.state.is_some() {
            link::keep(fd.as_fd())?;
        }
        link::bring_up(&port.name, port.mtu_bytes)?;
        Ok(fd)
    }

    fn replace_state(
        &self,
        reach: Reach,
        fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = self.begin_state()?;
        let filled = fill(&mut file).and_then(|()| reach.sync(&file));
        let finished = self.finish_state(filled.is_ok().then_some(reach));
        filled.and(finished)
    }
}

/// Opens a regular file; a pipe that nobody writes to must not stop us.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no regular file"));
    }
    Ok(file)
}

/// Where the new state is written before it takes its place.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn keeper(folder: &Path) -> Direct {
        let lab = folder.join("lab.yaml");
        Direct::new(Plan { lab, state: Some(folder.join("state").into()), ..Plan::default() }, read_config)
    }

    /// Of a lab file, this knows the name of the file with its rules.
    fn read_config(lab: &Path, open: &dyn Fn(&Path) -> io::Result<File>) {
        let text = io::read_to_string(open(lab).unwrap()).unwrap();
        let rules = text.lines().find_map(|line| line.trim().strip_prefix("rules_file: ")).unwrap();
        let _ = open(&lab.with_file_name(rules));
    }

    #[test]
    fn the_state_file_is_the_old_one_or_the_new_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(folder.path());
        let at = |name: &str| folder.path().join(name);
        keeper.replace_state(Reach::Disk, &mut |file| file.write_all(b"first")).unwrap();
        assert_eq!(fs::metadata(at("state")).unwrap().permissions().mode() & 0o777, 0o600);
        // What a killed router left is in nobody's way.
        fs::write(at("state~"), "half").unwrap();
        let full = |file: &mut File| file.write_all(b"sec").and(Err(io::ErrorKind::StorageFull.into()));
        let error = keeper.replace_state(Reach::Disk, &mut { full }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(at("state")).unwrap(), "first");
        assert!(!at("state~").exists());
        keeper.replace_state(Reach::Process, &mut |file| file.write_all(b"second")).unwrap();
        assert_eq!(fs::read_to_string(at("state")).unwrap(), "second");
    }

    #[test]
    fn what_the_lab_file_names_is_opened_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(folder.path());
        let at = |name: &str| folder.path().join(name);
        let name = |rules: &str| {
            let lab =
                format!("router:\n  mode: bridge\n  ports: {{ a: {{}}, b: {{}} }}\n  rules_file: {rules}\n");
            fs::write(at("lab.yaml"), lab).unwrap();
        };
        for rules in ["old", "new"] {
            fs::write(at(rules), format!("# {rules}\n*filter\nCOMMIT\n")).unwrap();
        }
        let opens = |file: &str| keeper.open_config(&at(file)).map(drop).map_err(|error| error.kind());
        name("old");
        assert_eq!(["lab.yaml", "old"].map(opens), [Ok(()), Ok(())]);
        assert_eq!(["new", "state", "../old"].map(opens), [Err(io::ErrorKind::PermissionDenied); 3]);
        name("new");
        assert_eq!(["new", "old"].map(opens), [Ok(()), Err(io::ErrorKind::PermissionDenied)]);
        name(".");
        assert_eq!(opens("."), Err(io::ErrorKind::InvalidInput));
        assert_eq!(keeper.open_port("eth0").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
