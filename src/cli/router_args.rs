//! The router that `replay` and `explain` ask: from a lab, from rule files, from options.

use super::rules_text::RulesText;
use super::{Failure, Result};
use anyhow::anyhow;
use stateway_core::config::{NeighbourPolicy, RouterConfig};
use stateway_core::conntrack::{Helper, Sysctls};
use stateway_core::filter::Ruleset;
use stateway_core::host::check_sysctl;
use stateway_core::packet::Family;
use stateway_core::router::Router;
use stateway_lab as lab;
use stateway_trace::input;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct RouterArgs {
    /// iptables-save text with the rules for IPv4; none: every policy is ACCEPT
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// ip6tables-save text with the rules for IPv6; none: IPv6 is dropped
    #[arg(long, value_name = "FILE")]
    rules6: Option<PathBuf>,
    /// A file of `ipset save`, whose sets the rules may name; may be repeated
    #[arg(long, value_name = "FILE")]
    sets: Vec<PathBuf>,
    /// Take the router from a lab; other options override what it says
    #[arg(long, value_name = "LAB")]
    lab: Option<PathBuf>,
    /// A setting under the kernel's own name, such as `nf_conntrack_tcp_loose=0`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    sysctl: Vec<(String, String)>,
    /// Assign a helper on its usual port: `ftp`, `tftp`; may be repeated
    #[arg(long, value_name = "NAME", value_parser = helper)]
    helper: Vec<String>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    // Tried here, so that the message comes with the option.
    check_sysctl(name, value)
        .unwrap_or_else(|| Sysctls::default().set(name, value).map_err(|error| error.to_string()))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn helper(name: &str) -> Result<String, String> {
    Helper::by_name(name).map(|_| name.to_owned()).ok_or_else(|| "there are `ftp` and `tftp`".to_owned())
}

impl RouterArgs {
    pub(super) fn names_a_file(&self) -> bool {
        !self.sets.is_empty() || self.rules.is_some() || self.rules6.is_some() || self.lab.is_some()
    }

    /// Whether the router's ports come from a lab.
    pub(super) const fn names_a_lab(&self) -> bool {
        self.lab.is_some()
    }

    /// The lab that is named.
    pub(super) fn lab(&self) -> Option<&Path> {
        self.lab.as_deref()
    }

    /// The lab, if nothing else is said of the router.
    pub(super) fn lab_alone(&self) -> Option<&Path> {
        let Self { rules, rules6, sets, lab, sysctl, helper } = self;
        let is_alone =
            rules.is_none() && rules6.is_none() && sets.is_empty() && sysctl.is_empty() && helper.is_empty();
        lab.as_deref().filter(|_| is_alone)
    }

    /// The names behind `-i` and `-o` in the rule files, in order; a file that cannot be read has none yet.
    pub(super) fn ports_in_rules(&self) -> Vec<String> {
        const OPTIONS: [&str; 4] = ["-i", "-o", "--in-interface", "--out-interface"];
        let mut names: Vec<String> = Vec::new();
        for file in self.rules.iter().chain(&self.rules6) {
            let text =
                input::read(file, input::MAX_RULES).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.unwrap_or_default();
            let words: Vec<&str> = text.split_whitespace().collect();
            let after = words.windows(2).filter(|pair| OPTIONS.contains(&pair[0])).map(|pair| pair[1]);
            let glued = words.iter().filter_map(|word| word.split_once('='));
            let glued = glued.filter(|(option, _)| OPTIONS.contains(option)).map(|(_, name)| name);
            for name in after.chain(glued).filter(|name| !name.ends_with('+')) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        names
    }

    /// The router's configuration: the lab's, or else `otherwise`, with what the options say on top.
    pub(super) fn config(&self, otherwise: impl FnOnce() -> RouterConfig) -> Result<RouterConfig> {
        if let Some(sets) = self.sets.first().filter(|_| self.rules.is_none() && self.rules6.is_none()) {
            return Err(Failure::Input(anyhow!(
                "`--sets {}` is for rules that name its sets, and there are none\n  hint: `--rules FILE`, `--rules6 FILE`",
                sets.display()
            )));
        }
        let mut config = match &self.lab {
            Some(lab) => lab::load_router(lab).map_err(|errors| Failure::Input(errors.into()))?.0,
            None => otherwise(),
        };
        // In a capture there is nobody to answer ARP.
        config.neighbour_policy = NeighbourPolicy::LastSeen;
        let names: Vec<String> = config.ifaces.iter().map(|iface| iface.name.clone()).collect();
        if let Some(file) = &self.rules {
            config.rules = Some(read_rules(&self.sets, file, Family::Ipv4, &names)?);
        }
        if let Some(file) = &self.rules6 {
            config.rules6 = Some(read_rules(&self.sets, file, Family::Ipv6, &names)?);
        }
        // Nor does anybody heed a redirect; and no answer of ours shall be missing because too many came before it.
        let quiet = ["net.ipv4.icmp_ratemask", "net.ipv6.icmp.ratelimit", "net.ipv4.conf.all.send_redirects"];
        config.sysctl.splice(0..0, quiet.map(|name| (name.to_owned(), "0".to_owned())));
        config.sysctl.extend(self.sysctl.iter().cloned());
        let new = self.helper.iter().filter(|name| !config.helpers.contains(name)).cloned();
        let new: Vec<_> = new.collect();
        config.helpers.extend(new);
        Ok(config)
    }

    /// The files of sets.
    pub(super) fn sets(&self) -> &[PathBuf] {
        &self.sets
    }
}

/// Reads rules and checks them here, so that errors are led by their file.
pub(super) fn read_rules(sets: &[PathBuf], file: &Path, family: Family, ifaces: &[String]) -> Result<String> {
    let text = RulesText::read(sets, file)?;
    let loaded = text.text().and_then(|text| Ruleset::load(text, family, ifaces));
    let loaded = loaded.map_err(|errors| Failure::Input(anyhow!(text.problems(&errors))))?;
    if loaded.ruleset.tables().is_empty() {
        let hint = "is the file whole? without the option there are no rules";
        return Err(Failure::Input(anyhow!("{} has no rules\n  hint: {hint}", file.display())));
    }
    for warning in &loaded.warnings {
        let (file, warning) = text.locate(warning);
        super::render::warn(&format!("{}:{warning}", file.display()));
    }
    Ok(text.into_whole())
}

/// Makes the router; its rules were looked at before.
pub(super) fn build(config: RouterConfig) -> Result<Router> {
    Router::new(config).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::Input(anyhow!("{}", errors.join("\n")))
    })
}
