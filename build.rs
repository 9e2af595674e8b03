//! Puts the page that `stateway web` serves into the program, where it was built: `scripts/playground` makes it, and takes Node.
//!
//! `STATEWAY_PAGE` is the folder. Without it the program is built all the same, and says what it lacks.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=STATEWAY_PAGE");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut text = String::from("&[\n");
    if let Some(folder) = folder() {
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files = Vec::new();
        gather(&folder, &mut files).expect("the page can be read");
        files.sort();
        for file in files {
            let name = file.strip_prefix(&folder).expect("it is below the folder");
            // Writing to a string cannot fail.
            _ = writeln!(
                text,
                "({:?}, include_bytes!({:?}) as &[u8]),",
                name.display().to_string(),
                file.display().to_string()
            );
        }
    }
    text.push(']');
    fs::write(out.join("page.rs"), text).expect("cargo's folder can be written");
}

/// Where the page is, if the program is to have it.
fn folder() -> Option<PathBuf> {
    env::var_os("CARGO_FEATURE_WEB")?;
    let folder = env::var_os("STATEWAY_PAGE").filter(|folder| !folder.is_empty())?;
    let folder = fs::canonicalize(&folder)
        .unwrap_or_else(|error| panic!("STATEWAY_PAGE={}: {error}", folder.display()));
    folder.join("index.html").exists().then_some(folder)
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { gather(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
