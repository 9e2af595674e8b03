//! Captures through rulesets: what `coverage`, `mutate` and `diff` have in common.

use super::Reading;
use crate::cli::captures::{self, CaptureArgs, Opened, Tally};
use crate::cli::router_args::{self, RouterArgs};
use crate::cli::{Failure, Result};
use core::ops::ControlFlow;
use stateway_core::config::RouterConfig;
use stateway_core::packet::Family;
use stateway_core::router::Router;
use stateway_trace::capture::Frame;
use stateway_trace::coverage::{self, RunError};
use stateway_trace::replay::{FrameVerdict, epoch_of};
use std::path::{Path, PathBuf};

/// The router around a ruleset, and how captures are read.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Traced {
    /// The rules in FILE are for IPv6, as of ip6tables-save
    #[arg(short = '6', long)]
    ipv6: bool,
    /// An interface of the router; other names in the rules are then reported
    #[arg(long = "iface", value_name = "NAME")]
    ifaces: Vec<String>,
    #[command(flatten)]
    captures: CaptureArgs,
    #[command(flatten)]
    router: RouterArgs,
}

/// A capture that is open.
pub(super) struct Trace<'a> {
    pub(super) path: &'a Path,
    pub(super) opened: Opened,
}

impl Traced {
    /// How FILE itself is read.
    pub(super) fn reading(&self) -> Reading {
        Reading { ipv6: self.ipv6, sets: self.router.sets().to_vec(), ifaces: self.ifaces.clone() }
    }

    /// The lab that is named.
    pub(super) fn lab(&self) -> Result<Option<stateway_lab::Lab>> {
        let Some(path) = self.router.lab() else { return Ok(None) };
        stateway_lab::resolve::load(path).map(Some).map_err(|errors| Failure::Input(errors.into()))
    }

    pub(super) const fn family(&self) -> Family {
        if self.ipv6 { Family::Ipv6 } else { Family::Ipv4 }
    }

    pub(super) fn open<'a>(&self, traces: &'a [PathBuf]) -> Result<Vec<Trace<'a>>> {
        traces.iter().map(|path| Ok(Trace { path, opened: self.captures.open(path)? })).collect()
    }

    /// The router's configuration around a capture, before FILE's rules come into it.
    pub(super) fn config(&self, trace: &Trace) -> Result<RouterConfig> {
        let mut config = self.router.config(|| trace.opened.router())?;
        config.unix_epoch_nanos = epoch_of(trace.opened.source.survey().first_nanos);
        Ok(config)
    }

    /// A router of that configuration with these rules; `None` if they do not load.
    pub(super) fn router_of(&self, config: &RouterConfig, rules: &str) -> Option<Router> {
        let mut config = config.clone();
        *self.rules_in(&mut config) = Some(rules.to_owned());
        Router::new(config).ok()
    }

    /// As [`Traced::router_of`], of rules that were read without a mistake.
    pub(super) fn router_right(&self, config: &RouterConfig, rules: &str) -> Result<Router> {
        let mut config = config.clone();
        *self.rules_in(&mut config) = Some(rules.to_owned());
        router_args::build(config)
    }

    const fn rules_in<'a>(&self, config: &'a mut RouterConfig) -> &'a mut Option<String> {
        if self.ipv6 { &mut config.rules6 } else { &mut config.rules }
    }
}

/// Takes a capture through routers, and says what of it was not judged.
pub(super) fn run(
    trace: &Trace,
    routers: &[&Router],
    mut each: impl FnMut(&Frame, &[FrameVerdict]) -> ControlFlow<()>,
) -> Result {
    let ports = routers.first().map_or(&[][..], |router| router.ifaces());
    let mut tally = Tally::new(trace.path, ports.iter().map(|iface| iface.name.as_str()));
    let run = coverage::run(&trace.opened.source, routers, |frame, verdicts| {
        if tally.count(frame) { each(frame, verdicts) } else { ControlFlow::Continue(()) }
    });
    let told = tally.tell();
    run.map_err(|error| match error {
        RunError::Capture(error) => captures::in_file(trace.path, error),
        RunError::Port(error) => Failure::Input(error.into()),
    })?;
    told
}
