//! A network namespace without a name: it lives as long as somebody in this process holds something in it.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

/// A private network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    handle: File,
}

impl Namespace {
    /// Makes one, and leaves the caller where it is.
    pub(super) fn new() -> Result<Self> {
        on_a_thread_of_its_own(|| {
            #[expect(
                deprecated,
                reason = "sound without UnshareFlags::FILES, and nothing but NEWNET is asked for"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNET)
                .context("cannot make a network namespace: it takes root")?;
            let handle = File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")?;
            Ok(Self { handle })
        })
    }

    /// Runs `work` inside, on a thread that ends with it.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread_of_its_own(|| {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network namespace")?;
            work()
        })
    }

    /// Runs a program inside with `input`, and returns what it printed.
    pub(super) fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        self.inside(|| run(program, args, input))
    }

    /// Sets `/proc/sys/net/…`, where `name` may be written with dots.
    pub(super) fn sysctl(&self, settings: &[(String, String)]) -> Result<()> {
        self.inside(|| settings.iter().try_for_each(|(name, value)| set_sysctl(name, value)))
    }
}

/// A namespace belongs to a thread: whoever changes it must not be one that others share.
fn on_a_thread_of_its_own<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

pub(super) fn run(program: &str, args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`: is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that refuses its input early says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`{program} {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", full_name(name).replace('.', "/"));
    std::fs::write(&path, value).with_context(|| format!("{path} = {value}"))
}

/// Lab files and scenarios may leave out what stands in front of a setting's name.
fn full_name(name: &str) -> String {
    match name {
        _ if name.starts_with("nf_conntrack") => format!("net.netfilter.{name}"),
        "rp_filter" | "send_redirects" => format!("net.ipv4.conf.all.{name}"),
        "ratelimit" => format!("net.ipv6.icmp.{name}"),
        _ if name.starts_with("icmp_") => format!("net.ipv4.{name}"),
        _ => name.to_owned(),
    }
}
