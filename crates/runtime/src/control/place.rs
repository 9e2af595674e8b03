//! Where control sockets lie, and which of them answer.

use anyhow::{Context as _, bail};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The longest path that fits into a socket's address (unix(7)), its NUL left out.
pub const MAX_SOCKET_PATH: usize = 107;

/// The folder for this user's control sockets: `$XDG_RUNTIME_DIR/stateway`, else `/run/stateway`.
pub fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("stateway"),
        _ => PathBuf::from("/run/stateway"),
    }
}

/// Where the router of the process `pid` listens unless told otherwise.
pub fn of_process(pid: u32) -> PathBuf {
    folder().join(format!("run-{pid}.sock"))
}

/// Where the router of a live lab listens.
pub fn of_lab(lab: &str) -> PathBuf {
    folder().join(format!("lab-{lab}.sock"))
}

/// Makes the folder for control sockets, open to its owner alone.
///
/// # Errors
/// As [`make_own_folder`].
pub fn make_folder(folder: &Path) -> anyhow::Result<()> {
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above).with_context(|| format!("cannot make `{}`", above.display()))?;
    }
    make_own_folder(folder, 0o700)
}

/// Makes a folder with this mode, whatever the umask is; takes from others what they could write to one that is there.
///
/// # Errors
/// It cannot be made, belongs to somebody else, or is none: a link leads where whoever made it wants.
pub fn make_own_folder(folder: &Path, mode: u32) -> anyhow::Result<()> {
    let made = match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    made.with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    let there = fs::symlink_metadata(folder)?;
    if !there.is_dir() {
        bail!("`{}` is no folder", folder.display());
    }
    let (owner, me) = (there.uid(), rustix::process::geteuid().as_raw());
    if owner != me {
        bail!("the folder `{}` belongs to user {owner}, not to user {me}", folder.display());
    }
    if there.mode() & 0o022 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(there.mode() & 0o7755))
            .with_context(|| format!("others may write to `{}`", folder.display()))?;
    }
    Ok(())
}

/// The socket of the one router that runs.
///
/// # Errors
/// None runs, or several, and then which.
pub fn of_the_only_one() -> anyhow::Result<PathBuf> {
    let mut sockets = running()?;
    match sockets.len() {
        0 => bail!(
            "no router is running\n  hint: `stateway run FILE`, `stateway lab up LAB`, or name one with `--control SOCKET`"
        ),
        1 => Ok(sockets.remove(0)),
        _ => {
            let list: Vec<String> = sockets.iter().map(|s| format!("  --control {}", s.display())).collect();
            bail!("several routers are running, so say which:\n{}", list.join("\n"))
        }
    }
}

/// The sockets that somebody answers. What a killed router left behind is removed on the way.
pub fn running() -> anyhow::Result<Vec<PathBuf>> {
    let folder = folder();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
    };
    let mut sockets: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_socket()))
        .map(|entry| entry.path())
        .filter(|path| answers(path))
        .collect();
    sockets.sort();
    Ok(sockets)
}

/// Makes sure that a socket can be made at `path`: a dead one is removed, everything else is somebody's.
pub(super) fn make_room(path: &Path) -> anyhow::Result<()> {
    if answers(path) {
        bail!("somebody listens at `{}` already", path.display());
    }
    if fs::symlink_metadata(path).is_ok() {
        bail!("`{}` is there already, and is left alone", path.display());
    }
    Ok(())
}

/// Whether `path` is a socket. A file that is none refuses a client like a dead socket does.
pub(super) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// Whether somebody listens at `path`; if surely nobody does, the socket is removed.
pub fn answers(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            // Somebody else may have removed it first.
            let _ = fs::remove_file(path);
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_dead_socket_makes_room_and_whatever_else_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        drop(UnixListener::bind(at("dead")).unwrap());
        make_room(&at("dead")).unwrap();
        assert!(!at("dead").exists());
        fs::write(at("file"), "precious").unwrap();
        let told = make_room(&at("file")).unwrap_err().to_string();
        assert!(told.ends_with("is there already, and is left alone"), "{told}");
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
        let alive = UnixListener::bind(at("alive")).unwrap();
        assert!(make_room(&at("alive")).is_err());
        drop(alive);
        make_room(&at("nothing")).unwrap();
    }

    #[test]
    fn the_folder_is_ours_and_nobody_else_writes_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o777;
        make_folder(&at("new")).unwrap();
        assert_eq!(mode("new"), 0o700);
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        make_folder(&at("open")).unwrap();
        assert_eq!(mode("open"), 0o755);
        std::os::unix::fs::symlink(at("new"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        assert!(make_folder(&at("link")).is_err() && make_folder(&at("file")).is_err());
    }
}
