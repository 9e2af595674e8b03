//! The files of the page: those that were built in, or those of a folder that `scripts/playground` has made.

use anyhow::{Context as _, anyhow, bail};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What was built in, by its path; nothing where the program was built without Node (build.rs).
const BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// By this the page knows that a router stands behind it (web/src/main.tsx).
const SIMULATED: &str = r#"<meta name="stateway-source" content="simulator""#;
const LIVE: &str = r#"<meta name="stateway-source" content="live""#;

const INDEX: &str = "index.html";
const HINT: &str = "hint: `scripts/playground OUT` builds the page, with Node, and `--page OUT` takes it; packages have it built in";

#[derive(Debug)]
pub(super) struct Page {
    files: BTreeMap<String, Cow<'static, [u8]>>,
}

impl Page {
    /// The page that was built in.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn built_in() -> anyhow::Result<Self> {
        if BUILT_IN.is_empty() {
            bail!("this `stateway` was built without the page\n  {HINT}");
        }
        let file = |&(name, bytes): &(&str, &'static [u8])| (name.to_owned(), Cow::Borrowed(bytes));
        Self::of(BUILT_IN.iter().map(file).collect())
    }

    /// The page in a folder.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        gather(folder, "", &mut files).with_context(|| format!("cannot read `{}`", folder.display()))?;
        Self::of(files).map_err(|error| anyhow!("`{}`: {error}\n  {HINT}", folder.display()))
    }

    fn of(mut files: BTreeMap<String, Cow<'static, [u8]>>) -> anyhow::Result<Self> {
        let index = files.get(INDEX).context("there is no page here")?;
        let text = String::from_utf8_lossy(index);
        if !text.contains(SIMULATED) {
            bail!("this is no page of stateway's, or that of another version");
        }
        let live = text.replace(SIMULATED, LIVE).into_bytes();
        files.insert(INDEX.to_owned(), Cow::Owned(live));
        Ok(Self { files })
    }

    /// A file and its type; the empty path is the page itself.
    pub(super) fn file(&self, path: &str) -> Option<(&'static str, &[u8])> {
        let path = if path.is_empty() { INDEX } else { path };
        let bytes = self.files.get(path)?;
        let kind = match path.rsplit_once('.').map(|(_, kind)| kind) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("wasm") => "application/wasm",
            _ => "application/octet-stream",
        };
        Some((kind, bytes))
    }
}

fn gather(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Cow<'static, [u8]>>,
) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            gather(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, Cow::Owned(fs::read(entry.path())?));
        }
    }
    Ok(())
}
