//! Which files can be opened, by Landlock: as much of it as this kernel has.

#![forbid(unsafe_code)]

use super::Report;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use std::path::PathBuf;

/// What is asked for is what this version knows; an older kernel gets what it has.
const VERSION: ABI = ABI::V7;

/// What may be done with a file, or with what is below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Files are made, written, renamed and removed.
    Replace,
    /// A device is opened and told what to be.
    Device,
    /// What is there is removed.
    Remove,
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Read => AccessFs::ReadFile.into(),
            Self::Replace => {
                AccessFs::ReadDir
                    | AccessFs::ReadFile
                    | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::RemoveFile
            }
            Self::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
            Self::Remove => AccessFs::RemoveFile.into(),
        }
    }
}

/// Lets this thread, and those that it starts, open nothing but `paths`; nor TCP, nor signals to others.
pub(super) fn restrict(paths: &[(PathBuf, Access)], report: &mut Report) {
    let files = if paths.is_empty() { "all files" } else { "other files" };
    match landlock(paths) {
        Ok(RestrictionStatus { ruleset: RulesetStatus::FullyEnforced, .. }) => {
            report.taken.push(files.to_owned());
        }
        Ok(RestrictionStatus { ruleset: RulesetStatus::PartiallyEnforced, .. }) => {
            report.taken.push(format!("{files} (as far as this kernel's Landlock goes)"));
        }
        Ok(RestrictionStatus { ruleset: RulesetStatus::NotEnforced, .. }) => {
            report.kept.push(format!("{files} (this kernel has no Landlock)"));
        }
        Err(error) => report.kept.push(format!("{files} (Landlock: {error})")),
    }
}

fn landlock(paths: &[(PathBuf, Access)]) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    for (path, access) in paths {
        // What is not there cannot be opened anyhow.
        let Ok(opened) = PathFd::new(path) else { continue };
        let rights =
            if path.is_dir() { access.rights() } else { access.rights() & AccessFs::from_file(VERSION) };
        rules = rules.add_rule(PathBeneath::new(opened, rights))?;
    }
    rules.restrict_self()
}
