//! Who the process is: its user, groups and capabilities.

#![forbid(unsafe_code)]

use super::{CapabilitySet, Report};
use anyhow::{Context as _, bail};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid};
use rustix::thread::{
    CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Users from here on belong to nobody: systemd's list of users and groups leaves 1879048192 to 2147483647 unused.
const DYNAMIC: u32 = 0x7000_0000;
/// Where a user namespace maps too few: `nobody`.
const NOBODY: u32 = 65534;

/// Whom a process becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// It stays who it is.
    Same,
    /// A user that nobody else is, or `nobody`, if that can be had.
    Dynamic,
    /// Exactly this one, or the process does not start.
    Fixed { uid: u32, gid: u32 },
}

pub(super) fn parse(word: &str) -> anyhow::Result<User> {
    if let Ok(uid) = word.parse() {
        let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
        return Ok(User::Fixed { uid, gid: known.map_or(uid, |user| user.gid.as_raw()) });
    }
    let user = nix::unistd::User::from_name(word)?.context("the system knows none of that name")?;
    Ok(User::Fixed { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// Changes user and groups of the one thread that there is.
pub(super) fn become_user(user: User, report: &mut Report) -> anyhow::Result<()> {
    match user {
        User::Same => {}
        User::Fixed { uid, gid } => {
            change(uid, gid, report).with_context(|| {
                format!("cannot become user {uid}, group {gid}\n  hint: `--user` takes root, or CAP_SETUID and CAP_SETGID")
            })?;
        }
        // Whoever is no root already has nothing to lose by staying.
        User::Dynamic if !geteuid().is_root() => {}
        User::Dynamic => {
            // Different for every router, so that none may harm another one.
            let own = DYNAMIC + getpid().as_raw_nonzero().get().unsigned_abs();
            if let Err(error) = change(own, own, report).or_else(|_| change(NOBODY, NOBODY, report)) {
                let why = match error {
                    Errno::INVAL => "this user namespace has no other".to_owned(),
                    Errno::PERM => "it takes CAP_SETUID and CAP_SETGID".to_owned(),
                    other => other.to_string(),
                };
                report.kept.push(format!("user root ({why})"));
            }
        }
    }
    Ok(())
}

fn change(uid: u32, gid: u32, report: &mut Report) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let (old_gid, groups) = (rustix::process::getegid(), set_thread_groups(&[]));
    set_thread_res_gid(group, group, group)?;
    if let Err(error) = set_thread_res_uid(user, user, user) {
        // All or nothing: whoever tries the next one is who he was.
        let _ = set_thread_res_gid(old_gid, old_gid, old_gid);
        return Err(error);
    }
    report.taken.push(format!("user now {uid}, group {gid}"));
    if let Err(error) = groups {
        report.kept.push(format!("supplementary groups ({error})"));
    }
    Ok(())
}

/// Takes every capability but `kept` out of the bounding set; needs `CAP_SETPCAP`, so it comes first.
pub(super) fn clear_bounding_set(kept: CapabilitySet) -> anyhow::Result<()> {
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(Errno::PERM) => bail!("it takes CAP_SETPCAP"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Keeps no capability but `kept`, and of these only what there is.
pub(super) fn keep_capabilities(kept: CapabilitySet) -> anyhow::Result<()> {
    let left = capabilities(None)?.permitted & kept;
    let _ = clear_ambient_capability_set();
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
