//! `stateway lab new`: a folder with a lab of one's own.

use super::super::{Failure, Result};
use super::say;
use anyhow::anyhow;
use stateway_lab::builtin;
use stateway_lab::error::hint;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// The folder to make; it may be there if it is empty. Its name becomes that of the lab, where a lab can be called so
    dir: PathBuf,
    /// The built-in lab to begin with; without it, those there are are listed
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
}

pub(super) fn new(args: &NewArgs) -> Result {
    let Some(from) = &args.from else {
        super::builtin::list(super::Format::Text)?;
        return Err(Failure::Input(anyhow!(
            "which lab to begin with?\n  hint: `stateway lab new {} --from article`",
            args.dir.display()
        )));
    };
    let files = builtin::files(from).ok_or_else(|| {
        let hint = hint(from, builtin::names(), "built-in labs").map(|hint| format!("\n  hint: {hint}"));
        Failure::Input(anyhow!("no lab `{from}` is built in{}", hint.unwrap_or_default()))
    })?;
    check_folder(&args.dir)?;
    let name = name_of(&args.dir).unwrap_or_else(|| from.clone());
    write(&args.dir, from, &name, &files)
        .map_err(|error| Failure::Machine(anyhow!("cannot write to {}: {error}", args.dir.display())))?;
    let dir = args.dir.display();
    say(&format!(
        "{dir} has the lab `{name}`, made from `{from}`: its hosts, rules and tests are in {dir}/lab.yaml\n\
         next:\n  \
         stateway lab test {dir} --on sim            take its tests in simulation\n  \
         stateway lab test {dir} --on sim --watch    again whenever a file is saved\n  \
         stateway lab graph {dir}                    who is where\n  \
         stateway lab up {dir}                       build it from namespaces, as root\n  \
         stateway lab schema --markdown              what a lab file can say"
    ))
}

/// # Errors
/// There is something in it.
fn check_folder(dir: &Path) -> Result {
    let taken = |what: &str| {
        Err(Failure::Input(anyhow!("{} {what}\n  hint: name a folder that is not there yet", dir.display())))
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| taken("is not empty")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) if dir.exists() => taken("is no folder"),
        Err(error) => Err(Failure::Machine(anyhow!("cannot look into {}: {error}", dir.display()))),
    }
}

/// The name of the folder, if a lab can be called so.
fn name_of(dir: &Path) -> Option<String> {
    let whole = std::path::absolute(dir).ok()?;
    let name = whole.file_name()?.to_str()?;
    stateway_lab::resolve::is_lab_name(name).then(|| name.to_owned())
}

fn write(dir: &Path, from: &str, name: &str, files: &[(PathBuf, &[u8])]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (file, text) in files {
        let path = dir.join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if file == Path::new("lab.yaml") {
            let text = String::from_utf8_lossy(text);
            fs::write(path, lab_file(&text, from, name))?;
        } else {
            fs::write(path, text)?;
        }
    }
    Ok(())
}

/// The lab file under its new name, without the link to a schema that lies elsewhere.
fn lab_file(text: &str, from: &str, name: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("# yaml-language-server:"));
    let renamed = lines
        .map(|line| if line == format!("name: {from}") { format!("name: {name}") } else { line.to_owned() });
    renamed.collect::<Vec<_>>().join("\n") + "\n"
}
