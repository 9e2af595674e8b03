//! Files that are read whole: never more than a bound, and never a mixture of two versions.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A lab file or a router's file. Three hundred hosts take a thirtieth of a megabyte, and a tree of YAML takes many times
/// the memory of its text.
pub const MAX_YAML: usize = 2 << 20;
/// Rules, and sets for them: some 400,000 rules. A file above that is something else.
pub const MAX_RULES: usize = 32 << 20;
/// How often a file is read again because it changed meanwhile.
const TRIES: usize = 20;
/// Between two tries: whoever writes a file in its place needs a moment.
const PAUSE: Duration = Duration::from_millis(5);

/// What tells one version of a file from another.
#[derive(PartialEq, Eq)]
struct Version {
    len: u64,
    modified: Option<SystemTime>,
    inode: u64,
    /// Also changes where somebody sets the time of the last change by hand.
    changed: (i64, i64),
}

impl Version {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let modified = metadata.modified().ok();
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { len: metadata.len(), modified, inode: metadata.ino(), changed }
    }

    #[cfg(not(unix))]
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: metadata.modified().ok(), inode: 0, changed: (0, 0) }
    }
}

/// Reads a file of at most `most` bytes.
///
/// A regular file is read again if it changed meanwhile, so that what is returned stood there at one moment.
///
/// # Errors
/// The file cannot be read, is larger, or goes on changing.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    read_through(&|path| File::open(path), path, most)
}

/// As [`read`], with a file that `open` opens.
///
/// # Errors
/// The file cannot be read, is larger, or goes on changing.
pub fn read_through(
    open: &dyn Fn(&Path) -> io::Result<File>,
    path: &Path,
    most: usize,
) -> io::Result<Vec<u8>> {
    for _ in 0..TRIES {
        let mut file = open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return read_bounded(file, most);
        }
        if before.len() > most as u64 {
            return Err(too_large(most));
        }
        let bytes = read_bounded(&mut file, most)?;
        let before = Version::of(&before);
        // By its name as well: another file may have been put in its place.
        let named = Version::of(&open(path)?.metadata()?);
        if before == Version::of(&file.metadata()?) && before == named {
            return Ok(bytes);
        }
        std::thread::park_timeout(PAUSE);
    }
    Err(io::Error::other("it changes while it is read"))
}

/// The text of a file of at most `most` bytes; `-` is standard input.
///
/// # Errors
/// The file cannot be read, is larger, goes on changing, or is no text.
pub fn read_text(path: &Path, most: usize) -> io::Result<String> {
    let bytes = if path == Path::new("-") { read_bounded(io::stdin(), most)? } else { read(path, most)? };
    let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8");
    String::from_utf8(bytes).map_err(no_text)
}

/// Reads to the end, but not beyond `most` bytes.
///
/// # Errors
/// There is more, or reading fails.
pub fn read_bounded(source: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most { Err(too_large(most)) } else { Ok(bytes) }
}

fn too_large(most: usize) -> io::Error {
    let message = format!("it has more than {} MiB, which no such file has", most >> 20);
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [b'x'; 1000]).unwrap();
        assert_eq!(read(file.path(), 1000).unwrap().len(), 1000);
        let error = read(file.path(), 999).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
    }

    #[test]
    #[cfg(unix)]
    fn what_never_ends_is_refused() {
        let error = read(Path::new("/dev/zero"), MAX_YAML).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 2 MiB, which no such file has");
    }

    #[test]
    fn text_is_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "text").unwrap();
        assert_eq!(read_text(file.path(), 4).unwrap(), "text");
        std::fs::write(file.path(), [0xff]).unwrap();
        assert_eq!(read_text(file.path(), 4).unwrap_err().to_string(), "it is no text in UTF-8");
    }

    #[test]
    fn each_sign_of_a_change_makes_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let version = || Version::of(&std::fs::metadata(&path).unwrap());
        std::fs::write(&path, "one").unwrap();
        let first = version();
        assert!(first == version());
        std::fs::write(&path, "more").unwrap();
        assert!(first != version(), "the length");
        let other = folder.path().join("other");
        std::fs::write(&other, "one").unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::rename(&other, &path).unwrap();
        File::open(&path).unwrap().set_modified(modified).unwrap();
        assert!(first != version(), "another file of that name");
    }
}
