//! What was found out about one thing, and what follows for the runners.

use serde::Serialize;

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) name: String,
    pub(super) state: State,
    /// What was seen.
    pub(super) detail: String,
    /// What cannot be done without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) needed_for: Option<&'static str>,
    /// Runners that do not run without it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stops: Vec<Runner>,
    /// Runners that run without it, but not every lab.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) limits: Vec<Runner>,
    /// The Debian package that brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) package: Option<&'static str>,
    /// The command that mends it, as root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
    /// What mends it where no command can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// Something works without it: less well, or not all of it.
    Warning,
    /// A runner does not run without it.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Runner {
    #[value(name = "sim")]
    #[serde(rename = "sim")]
    Simulation,
    Live,
    Kernel,
}

impl Runner {
    pub(super) const ALL: [Self; 3] = [Self::Simulation, Self::Live, Self::Kernel];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Simulation => "simulation",
            Self::Live => "live",
            Self::Kernel => "kernel",
        }
    }
}

impl Finding {
    fn new(name: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state,
            detail: detail.into(),
            needed_for: None,
            stops: Vec::new(),
            limits: Vec::new(),
            package: None,
            fix: None,
            advice: None,
        }
    }

    pub(super) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail)
    }

    /// Less well without it.
    pub(super) fn warning(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, State::Warning, detail)
    }

    /// These runners do not run.
    pub(super) fn stops(name: impl Into<String>, detail: impl Into<String>, stops: &[Runner]) -> Self {
        Self { stops: stops.to_vec(), ..Self::new(name, State::Missing, detail) }
    }

    /// These runners do not run every lab.
    pub(super) fn limits(name: impl Into<String>, detail: impl Into<String>, limits: &[Runner]) -> Self {
        Self { limits: limits.to_vec(), ..Self::new(name, State::Warning, detail) }
    }

    pub(super) fn needed_for(self, what: &'static str) -> Self {
        Self { needed_for: Some(what), ..self }
    }

    pub(super) fn package(self, package: &'static str) -> Self {
        Self { package: Some(package), ..self }
    }

    pub(super) fn fix(self, command: impl Into<String>) -> Self {
        Self { fix: Some(command.into()), ..self }
    }

    pub(super) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What a runner can do here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Ability {
    pub(super) runner: Runner,
    /// It runs every lab.
    pub(super) can: bool,
    /// Whether it runs labs that do not need what is missing.
    pub(super) partly: bool,
    /// What stops or limits it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) why: Vec<String>,
}

impl Ability {
    pub(super) fn of(runner: Runner, findings: &[Finding]) -> Self {
        let told = |finding: &Finding| match finding.needed_for {
            Some(what) if finding.stops.is_empty() => format!("{what} (no `{}`)", finding.name),
            _ => format!("{}: {}", finding.name, finding.detail),
        };
        let stopped: Vec<String> = findings.iter().filter(|f| f.stops.contains(&runner)).map(told).collect();
        if !stopped.is_empty() {
            return Self { runner, can: false, partly: false, why: stopped };
        }
        let limited: Vec<String> = findings.iter().filter(|f| f.limits.contains(&runner)).map(told).collect();
        Self { runner, can: limited.is_empty(), partly: true, why: limited }
    }

    /// `kernel no: …`
    pub(super) fn text(&self) -> String {
        let word = self.runner.word();
        match (self.can, self.partly, self.why.as_slice()) {
            (true, ..) => format!("{word} yes"),
            (false, true, why) => format!("{word} yes, but not {}", why.join(", nor ")),
            (false, false, [first]) => format!("{word} no: {first}"),
            (false, false, [first, rest @ ..]) => format!("{word} no: {first}, and {} more", rest.len()),
            (false, false, []) => format!("{word} no"),
        }
    }
}

/// The one command that mends all that a command can mend.
pub(super) fn mend(findings: &[Finding], is_root: bool) -> Option<String> {
    let mut packages: Vec<&str> = findings.iter().filter_map(|finding| finding.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut commands: Vec<String> = Vec::new();
    if !packages.is_empty() {
        let list = packages.join(" ");
        let install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends";
        commands.push(format!("apt-get update && {install} {list}"));
    }
    for fix in findings.iter().filter_map(|finding| finding.fix.as_ref()) {
        if !commands.contains(fix) {
            commands.push(fix.clone());
        }
    }
    let all = commands.join(" && ");
    match (commands.is_empty(), is_root) {
        (true, _) => None,
        (false, true) => Some(all),
        (false, false) => Some(format!("sudo sh -c '{all}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Vec<Finding> {
        vec![
            Finding::ok("ip", "/usr/sbin/ip"),
            Finding::limits("curl", "not installed", &[Runner::Live])
                .needed_for("steps `http`")
                .package("curl"),
            Finding::stops("nft", "not installed", &[Runner::Kernel])
                .needed_for("--on kernel")
                .package("nftables"),
            Finding::stops("conntrack", "not installed", &[Runner::Kernel]).package("conntrack"),
            Finding::warning("io_uring", "switched off").fix("sysctl -w kernel.io_uring_disabled=0"),
            Finding::warning("seccomp", "refuses").advice("ask who made the container"),
        ]
    }

    #[test]
    fn one_line_says_what_runs() {
        let line =
            |findings: &[Finding]| Runner::ALL.map(|runner| Ability::of(runner, findings).text()).join(" · ");
        assert_eq!(line(&[]), "simulation yes · live yes · kernel yes");
        assert_eq!(
            line(&missing()),
            "simulation yes · live yes, but not steps `http` (no `curl`) · kernel no: nft: not installed, and 1 more"
        );
    }

    #[test]
    fn one_command_mends_all_that_a_command_can_mend() {
        let all = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
                   conntrack curl nftables && sysctl -w kernel.io_uring_disabled=0";
        assert_eq!(mend(&missing(), true).as_deref(), Some(all));
        assert_eq!(mend(&missing(), false), Some(format!("sudo sh -c '{all}'")));
        assert_eq!(mend(&[Finding::ok("ip", "")], true), None);
    }
}
