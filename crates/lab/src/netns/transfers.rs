//! `curl` on hosts that are namespaces: pages, and files whose ends are compared.

#![forbid(unsafe_code)]

use super::Namespaces;
use super::clients::{Late, PATIENCE, WORK, on, patience, probe, probe_args};
use super::command::Output;
use crate::model::{Flow, Transfer, Word};
use crate::probe::Finding;
use anyhow::{Context as _, bail};
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

/// `curl` on the host that the flow comes from.
pub(crate) fn curl(runner: &Namespaces, flow: &Flow, args: Vec<OsString>) -> anyhow::Result<Output> {
    let mut words: Vec<OsString> = ["curl", "-sS", "--max-time"].map(OsString::from).to_vec();
    let timeout = patience(runner, flow);
    words.extend([(timeout + PATIENCE).as_secs_f64().to_string().into(), "--connect-timeout".into()]);
    words.push(timeout.as_secs_f64().to_string().into());
    words.extend(args);
    let output = on(runner, flow.from, words, None, timeout + WORK)?;
    if output.status.is_none() {
        return Err(Late(format!("curl to {}", flow.to)).into());
    }
    Ok(output)
}

/// Exit codes of curl, and of what starts it, that say nothing of a network: it cannot do this, it was told it wrongly, files
/// cannot be read or written, there is no memory, it is not here or may not be run.
const CURL_FAILED: [i32; 14] = [1, 2, 3, 4, 5, 6, 23, 26, 27, 41, 43, 48, 126, 127];

pub(crate) fn curl_finding(
    runner: &Namespaces,
    flow: &Flow,
    port: u16,
    output: &Output,
) -> anyhow::Result<Finding> {
    /// "Failed to connect", for whatever reason.
    const NO_CONNECTION: i32 = 7;
    let said = output.stderr.trim().lines().last().unwrap_or_default().to_owned();
    match output.code() {
        Some(0) => {
            let note = output.stdout.trim().lines().next().unwrap_or_default().to_owned();
            Ok(Finding { stdout: output.stdout.clone(), ..Finding::new(Word::Ok, note) })
        }
        Some(NO_CONNECTION) => {
            let args = probe_args(runner, "tcp", flow, port, None);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let found = probe(runner, flow, &args, None)?;
            if found.word() == Word::Ok { Ok(Finding::new(Word::Blocked, said)) } else { Ok(found) }
        }
        Some(code) if CURL_FAILED.contains(&code) => bail!("`curl` cannot ask: {said}"),
        _ => Ok(Finding::new(Word::Blocked, said)),
    }
}

pub(crate) fn url(scheme: &str, to: IpAddr, port: u16, path: &str) -> OsString {
    let path = path.trim_start_matches('/');
    match to {
        IpAddr::V4(to) => format!("{scheme}://{to}:{port}/{path}").into(),
        IpAddr::V6(to) => format!("{scheme}://[{to}]:{port}/{path}").into(),
    }
}

/// The file that a transfer moves, and where the server keeps it.
pub(crate) fn files(
    runner: &Namespaces,
    flow: &Flow,
    server_dir: &str,
    bytes: u32,
) -> anyhow::Result<(PathBuf, PathBuf, Vec<u8>)> {
    let server = flow.to_host.context("the server is no host of this lab")?;
    let dir = runner.state.path(server_dir).join(&runner.lab.host(server).name);
    // Bytes that do not repeat soon, so that a piece that is lost or doubled shows.
    let content: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Ok((runner.state.path("transfer"), dir, content))
}

/// Lists, gets or puts, and compares the bytes.
#[expect(clippy::too_many_arguments, reason = "the ends of a transfer")]
pub(crate) fn transfer(
    runner: &Namespaces,
    flow: &Flow,
    port: u16,
    what: Transfer,
    mut args: Vec<OsString>,
    list: OsString,
    file: &[OsString],
    local: &std::path::Path,
    server: &std::path::Path,
    content: &[u8],
) -> anyhow::Result<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    let remote = server.join("file");
    let moved = match what {
        Transfer::List => {
            args.push(list);
            None
        }
        Transfer::Get { .. } => {
            fs::write(&remote, content)?;
            fs::set_permissions(&remote, fs::Permissions::from_mode(0o644))?;
            args.extend(["--output".into(), local.as_os_str().to_owned()]);
            args.extend_from_slice(file);
            Some(local)
        }
        Transfer::Put { .. } => {
            fs::write(local, content)?;
            // What an earlier step left may belong to the server's own user.
            if remote.exists() {
                fs::remove_file(&remote)?;
            }
            args.extend(["--upload-file".into(), local.as_os_str().to_owned()]);
            args.extend_from_slice(file);
            Some(remote.as_path())
        }
    };
    let output = curl(runner, flow, args)?;
    let mut finding = curl_finding(runner, flow, port, &output)?;
    if let (Some(moved), Word::Ok) = (moved, finding.word()) {
        let same = fs::read(moved).is_ok_and(|bytes| bytes == content);
        let note = format!(
            "{} bytes, {}",
            content.len(),
            if same { "the same at both ends" } else { "but not the same" }
        );
        finding = Finding::new(if same { Word::Ok } else { Word::Blocked }, note);
    }
    Ok(finding)
}
