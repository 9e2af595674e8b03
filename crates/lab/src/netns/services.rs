//! What hosts serve: OpenSSH, vsftpd, a TFTP server, commands, and this program's own simple services.

#![forbid(unsafe_code)]

use super::command::{self, Lasting};
use super::programs;
use super::rootless;
use super::state::State;
use crate::model::{Host, Lab, Service, ServiceKind};
use anyhow::{Context as _, bail};
use stateway_core::packet::Family;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// How long services have until they listen.
const READY: Duration = Duration::from_secs(20);

/// Keys and configuration of OpenSSH: one user key and one host key for the whole lab.
pub fn prepare_ssh(lab: &Lab, state: &State) -> anyhow::Result<()> {
    let serves =
        lab.hosts.iter().flat_map(|host| &host.services).any(|service| service.kind == ServiceKind::Ssh);
    if !serves {
        return Ok(());
    }
    let dir = state.path("ssh");
    fs::create_dir_all(&dir)?;
    for name in ["id", "host_key"] {
        let file = dir.join(name);
        let args: Vec<&OsStr> =
            ["-q", "-t", "ed25519", "-N", "", "-C", "stateway lab", "-f"].iter().map(OsStr::new).collect();
        let args = [args.as_slice(), &[file.as_os_str()]].concat();
        state.brief("ssh-keygen", &args)?;
    }
    fs::copy(dir.join("id.pub"), dir.join("authorized_keys"))?;
    fs::set_permissions(dir.join("authorized_keys"), Permissions::from_mode(0o600))?;
    let host_key = fs::read_to_string(dir.join("host_key.pub"))?;
    fs::write(dir.join("known_hosts"), format!("lab {host_key}"))?;
    // What a person's own start-up files do at each login is no part of a lab: they may wait, or leave something.
    fs::create_dir_all(dir.join("home"))?;
    let at = dir.display();
    let user = if rootless::is_alone() { rootless::USER.0 } else { "root" };
    // Not strict: the folder of the keys is ours alone, but what is above it may belong to somebody else (in a user
    // namespace), or may be writable by all (/run in a container).
    fs::write(
        dir.join("sshd_config"),
        format!(
            "HostKey {at}/host_key\nSetEnv \"HOME={at}/home\"\nAuthorizedKeysFile {at}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             UseDNS no\nPrintMotd no\nPrintLastLog no\nMaxStartups 1000\nMaxSessions 100\nLoginGraceTime 20\n\
             Subsystem sftp internal-sftp\n"
        ),
    )?;
    let mut config = String::new();
    for host in &lab.hosts {
        if let Some(own) = host.addresses.first() {
            let port =
                host.services.iter().find(|s| s.kind == ServiceKind::Ssh).and_then(|s| s.port).unwrap_or(22);
            _ = writeln!(
                config,
                "Host {}\n  HostName {}\n  Port {port}",
                host.name,
                own.addr.to_ip(own.family)
            );
        }
    }
    _ = write!(
        config,
        "Host *\n  User {user}\n  IdentityFile {at}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {at}/known_hosts\n  \
         GlobalKnownHostsFile none\n  HostKeyAlias lab\n  StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n  \
         ConnectTimeout 5\n  ServerAliveInterval 30\n"
    );
    let etc = state.path("etc/ssh");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("ssh_config"), &config)?;
    fs::write(dir.join("config"), config)?;
    Ok(())
}

/// Starts what a host serves; [`await_ready`] waits for it.
pub fn start(host: &Host, state: &State) -> anyhow::Result<()> {
    let mut simple = Vec::new();
    for service in &host.services {
        match &service.kind {
            ServiceKind::Ssh => sshd(host, service, state)?,
            ServiceKind::Ftp => vsftpd(host, service, state)?,
            ServiceKind::Tftp if rootless::is_alone() => {
                // tftpd-hpa lays down privileges, too, and cannot be told not to.
                let root = tftp_root(host, state)?;
                simple.push(format!("tftp:{}:{}", service.port.unwrap_or(69), root.display()));
            }
            ServiceKind::Tftp => tftpd(host, service, state)?,
            ServiceKind::Http | ServiceKind::Echo | ServiceKind::Dns => {
                simple.push(format!("{}:{}", service.kind.word(), service.port.unwrap_or_default()));
            }
            ServiceKind::Command { run, .. } => {
                lasting(host, state, "command", &["sh".into(), "-c".into(), run.into()])?;
            }
        }
    }
    if simple.is_empty() {
        return Ok(());
    }
    let mut words = own_program(&["lab", "serve", "--name", &host.name])?;
    for own in &host.addresses {
        words.extend(["--address".into(), own.addr.to_ip(own.family).to_string().into()]);
    }
    words.extend(simple.into_iter().map(OsString::from));
    lasting(host, state, "serve", &words)
}

/// Waits until everything that a host serves is there.
pub fn await_ready(host: &Host, state: &State) -> anyhow::Result<()> {
    let mut ports = Vec::new();
    for service in &host.services {
        let port = service.port.unwrap_or_default();
        match &service.kind {
            ServiceKind::Ssh | ServiceKind::Http | ServiceKind::Ftp => ports.push(format!("tcp:{port}")),
            ServiceKind::Dns => ports.push(format!("udp:{port}")),
            ServiceKind::Tftp => {
                let servers = families(host).into_iter().map(|(_, addr)| format!("tftp:{port}:{addr}"));
                ports.extend(servers);
            }
            ServiceKind::Echo => ports.extend([format!("tcp:{port}"), format!("udp:{port}")]),
            ServiceKind::Command { ready: Some(line), .. } => command_ready(host, state, line)?,
            ServiceKind::Command { ready: None, .. } => {
                ports.extend(service.port.map(|port| format!("tcp:{port}")));
            }
        }
    }
    if ports.is_empty() {
        return Ok(());
    }
    let seconds = READY.as_secs().to_string();
    let mut words = state.inside(&host.name)?;
    words.extend(own_program(&["lab", "probe", "ready", "--timeout", &seconds])?);
    words.extend(ports.into_iter().map(OsString::from));
    let output = command::run(&words, None, READY * 2, &state.interrupt)?;
    if !output.ok() {
        let missing = output.stderr.trim().trim_start_matches("error: ");
        bail!("`{}` does not serve all that it should: {missing}: {}", host.name, last_words(host, state));
    }
    Ok(())
}

fn command_ready(host: &Host, state: &State, line: &str) -> anyhow::Result<()> {
    let deadline = command::now() + READY * 2;
    let mut words = state.inside(&host.name)?;
    words.extend(["sh", "-c", line].map(OsString::from));
    let ready = command::wait_until(deadline, &state.interrupt, || {
        Ok(command::run(&words, None, READY, &state.interrupt)?.ok())
    })?;
    if !ready {
        bail!("a service of `{}` is not ready: `{line}` fails", host.name);
    }
    Ok(())
}

/// The end of what the services of a host had to say.
fn last_words(host: &Host, state: &State) -> String {
    let of_host = format!("{}.", host.name);
    let files = fs::read_dir(state.path("log")).into_iter().flatten().filter_map(Result::ok);
    let mut logs: Vec<PathBuf> = files
        .filter(|file| file.file_name().to_string_lossy().starts_with(&of_host))
        .map(|file| file.path())
        .collect();
    logs.sort();
    let mut said = String::new();
    for log in logs {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(3).collect();
        if !tail.is_empty() {
            let name = log.extension().unwrap_or_default().to_string_lossy();
            _ = write!(said, "\n  {name}: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n  "));
        }
    }
    if said.is_empty() { "it said nothing".into() } else { said }
}

/// This very program, with arguments.
pub fn own_program(args: &[&str]) -> anyhow::Result<Vec<OsString>> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    Ok([own.into_os_string()].into_iter().chain(args.iter().map(OsString::from)).collect())
}

fn lasting(host: &Host, state: &State, name: &str, words: &[OsString]) -> anyhow::Result<()> {
    let log = state.path("log");
    fs::create_dir_all(&log)?;
    let log = log.join(format!("{}.{name}", host.name));
    Lasting { words, env: &[], in_view: true, log: &log, stdout: None }
        .start(&state.lock, &state.entry(&host.name)?)
}

fn program(name: &str) -> anyhow::Result<OsString> {
    programs::find(name).map(Into::into).with_context(|| format!("`{name}` is not installed"))
}

fn sshd(host: &Host, service: &Service, state: &State) -> anyhow::Result<()> {
    let config = state.path("ssh/sshd_config").into_os_string();
    let port = service.port.unwrap_or(22).to_string();
    // OpenSSH starts itself again for each connection and wants its whole path for that.
    let mut words: Vec<OsString> = Vec::new();
    if rootless::is_alone() {
        // As root it would lay down privileges, which takes groups.
        let (_, id) = rootless::USER;
        let (uid, gid) = (format!("--map-user={id}"), format!("--map-group={id}"));
        words.extend(["unshare", "--user", &uid, &gid, "--"].map(OsString::from));
    }
    words.extend([
        program("sshd")?,
        "-D".into(),
        "-e".into(),
        "-f".into(),
        config,
        "-p".into(),
        (&port).into(),
    ]);
    lasting(host, state, &format!("sshd-{port}"), &words)
}

fn vsftpd(host: &Host, service: &Service, state: &State) -> anyhow::Result<()> {
    let root = state.path("ftp").join(&host.name);
    fs::create_dir_all(root.join("up"))?;
    fs::set_permissions(root.join("up"), Permissions::from_mode(0o777))?;
    fs::write(root.join("hello.txt"), format!("hello from {}\n", host.name))?;
    let port = service.port.unwrap_or(21);
    // A host may have several.
    let config = state.path("ftp").join(format!("{}-{port}.conf", host.name));
    let v6 = host.addresses.iter().any(|own| own.family == Family::Ipv6);
    let (listen, listen_v6) = if v6 { ("NO", "YES") } else { ("YES", "NO") };
    let empty = state.path("ftp/empty");
    fs::create_dir_all(&empty)?;
    fs::write(
        &config,
        format!(
            "listen={listen}\nlisten_ipv6={listen_v6}\nlisten_port={}\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\n\
             write_enable=YES\nanon_upload_enable=YES\nanon_other_write_enable=YES\nanon_umask=022\nanon_root={}\n\
             no_anon_password=YES\nconnect_from_port_20=YES\npasv_enable=YES\nport_enable=YES\nseccomp_sandbox=NO\n\
             xferlog_enable=NO\nsecure_chroot_dir={}\nrun_as_launching_user={}\n",
            port,
            root.display(),
            empty.display(),
            if rootless::is_alone() { "YES" } else { "NO" }
        ),
    )?;
    lasting(host, state, &format!("vsftpd-{port}"), &[program("vsftpd")?, config.into_os_string()])
}

fn tftp_root(host: &Host, state: &State) -> anyhow::Result<PathBuf> {
    let root = state.path("tftp").join(&host.name);
    fs::create_dir_all(&root)?;
    fs::set_permissions(&root, Permissions::from_mode(0o777))?;
    Ok(root)
}

/// A server for each family. tftpd-hpa 5.3 (Debian 13) answers a request as if it had come like the one before: it loses
/// the first one of all, and each one that follows a request of the other family. [`await_ready`] asks the first one.
fn tftpd(host: &Host, service: &Service, state: &State) -> anyhow::Result<()> {
    let root = tftp_root(host, state)?;
    let port = service.port.unwrap_or(69);
    let address = format!(":{port}");
    for (family, _) in families(host) {
        let only = if family == Family::Ipv4 { "--ipv4" } else { "--ipv6" };
        let mut words = vec![program("in.tftpd")?];
        words.extend(
            ["--foreground", only, "--create", "--permissive", "--user", "nobody"].map(OsString::from),
        );
        words.extend(["--address".into(), (&address).into(), "--secure".into(), (&root).into()]);
        lasting(host, state, &format!("tftpd-{port}"), &words)?;
    }
    Ok(())
}

/// The families that a host speaks, with its first address of each.
fn families(host: &Host) -> Vec<(Family, IpAddr)> {
    let first = |family| {
        let own = host.addresses.iter().find(|own| own.family == family)?;
        Some((family, own.addr.to_ip(family)))
    };
    [Family::Ipv4, Family::Ipv6].into_iter().filter_map(first).collect()
}
