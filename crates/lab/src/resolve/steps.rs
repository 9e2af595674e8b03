//! The `tests:` part: each step becomes an [`Action`] with its expectations, once for each host that it repeats over.

#![forbid(unsafe_code)]

use super::Check;
use crate::error::{hint, near};
use crate::locate::{item, key};
use crate::model::{Action, Expect, Flow, Host, HostId, Impairment, RunnerKind, Session, Step, Test, Word};
use crate::ruling::{self, RuleRef};
use crate::runner;
use crate::spec::{
    ExpectSpec, FamilySpec, ImpairSpec, LabSpec, OneOrMany, PercentSpec, ResultSpec, RunnerSpec, StateSpec,
    StepSpec, TestSpec, TimeSpec,
};
use stateway_core::config::RouterConfig;
use stateway_core::conntrack::CtState;
use stateway_core::iface::IfaceId;
use stateway_core::packet::Family;
use std::net::IpAddr;
use std::time::Duration;

/// A step that repeats becomes this many at most.
const MAX_REPEATS: usize = 2000;

/// What a step's names can mean.
pub(crate) struct Scope<'a> {
    pub(crate) router: &'a RouterConfig,
    pub(crate) hosts: &'a [Host],
    pub(crate) all_hosts: Vec<&'a str>,
}

/// What the parts of one step share.
pub(crate) struct StepPlace<'a> {
    pub(crate) scope: &'a Scope<'a>,
    pub(crate) timeout: Option<Duration>,
}

/// Between which ends a connection is, as far as a step says it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) from: Option<OneOrMany>,
    pub(crate) to: Option<OneOrMany>,
    pub(crate) family: Option<FamilySpec>,
    pub(crate) port: Option<u16>,
}

impl Check<'_> {
    pub(super) fn tests(&mut self, spec: &LabSpec, router: &RouterConfig, hosts: &[Host]) -> Vec<Test> {
        let all_hosts = spec.hosts.keys().map(String::as_str).collect();
        let scope = Scope { router, hosts, all_hosts };
        let mut tests: Vec<Test> = Vec::new();
        for (index, test) in spec.tests.iter().enumerate() {
            let number = self.number("tests", index);
            let path = item("tests", number);
            let name = test.name.clone().unwrap_or_else(|| format!("test {}", number + 1));
            if name.contains(char::is_control) {
                let hint = Some("it is printed in lists and reports".to_owned());
                self.problem(&key(&path, "name"), "the name of a test is one line of plain text", hint);
            }
            if tests.iter().any(|other| other.name == name) {
                self.problem(&key(&path, "name"), format!("there is a test named `{name}` already"), None);
            }
            let on = test.on.0.iter().map(|runner| match runner {
                RunnerSpec::Sim => RunnerKind::Sim,
                RunnerSpec::Live => RunnerKind::Live,
                RunnerSpec::Kernel => RunnerKind::Kernel,
            });
            let on = on.collect();
            let steps = self.steps(&path, test, &scope);
            tests.push(Test { name, path, on, steps });
        }
        self.comments_are_there(&scope);
        tests
    }

    /// Whether every rule that a test means by its comment is in one of the lab's rulesets. Other rules than the lab's own
    /// may lack it: then the test fails.
    fn comments_are_there(&mut self, scope: &Scope<'_>) {
        let expected = std::mem::take(&mut self.comments);
        if expected.is_empty() || self.other.is_some() {
            return;
        }
        let names: Vec<String> = scope.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let known = self.rule_texts.iter().flat_map(|text| ruling::comments(text, &names));
        let known: Vec<String> = known.collect();
        for (path, comment) in expected.into_iter().filter(|(_, comment)| !known.contains(comment)) {
            const FORMS: &str = "such as `filter/FORWARD/1`, `FORWARD/1`, `policy`, or a rule's comment";
            let hint = match near(&comment, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean the comment `{near}`?"),
                None => FORMS.to_owned(),
            };
            let message = format!("`{comment}` is not the name of a rule, nor the comment of one");
            self.problem(&path, message, Some(hint));
        }
    }

    fn steps(&mut self, path: &str, test: &TestSpec, scope: &Scope<'_>) -> Vec<Step> {
        let own = test.step();
        match (Action::written(&own).is_empty(), test.steps.is_empty()) {
            (true, true) => {
                if !self.was_pruned(path) {
                    let hint =
                        "say one of `ssh`, `tcp`, `udp`, `ping`, …, or several under `steps`".to_owned();
                    self.problem(path, "the test does nothing", Some(hint));
                }
                Vec::new()
            }
            (false, true) => self.step(path, &own, scope),
            (true, false) => {
                let list = key(path, "steps");
                let mut steps = Vec::new();
                for (index, step) in test.steps.iter().enumerate() {
                    let path = item(&list, self.number(&list, index));
                    steps.extend(self.step(&path, step, scope));
                }
                let misplaced = [
                    ("expect", own.expect.is_some()),
                    ("within", own.within.is_some()),
                    ("timeout", own.timeout.is_some()),
                    ("impair", !own.impair.is_empty()),
                ];
                for (name, _) in misplaced.into_iter().filter(|(_, there)| *there) {
                    let message = format!("with `steps`, `{name}` belongs to each step of its own");
                    self.problem(&key(path, name), message, None);
                }
                steps
            }
            (false, false) => {
                self.problem(path, "either one step, or several under `steps`", None);
                Vec::new()
            }
        }
    }

    fn step(&mut self, path: &str, spec: &StepSpec, scope: &Scope<'_>) -> Vec<Step> {
        let names = Action::written(spec);
        if names.len() != 1 {
            if !names.is_empty() {
                self.problem(
                    path,
                    format!("does {} things at once: {}", names.len(), names.join(", ")),
                    None,
                );
            } else if !self.was_pruned(path) {
                self.problem(path, "the step does nothing", None);
            }
            return Vec::new();
        }
        let timeout = self.duration(&key(path, "timeout"), spec.timeout.as_ref());
        let within = self.duration(&key(path, "within"), spec.within.as_ref());
        let place = StepPlace { scope, timeout };
        let actions = Action::resolve(spec, self, &key(path, names[0]), &place);
        let impair: Vec<(IfaceId, Impairment)> = spec
            .impair
            .iter()
            .filter_map(|(port, link)| self.impairment(&key(path, "impair"), port, link, scope))
            .collect();
        let mut steps = Vec::new();
        for action in actions {
            let expect = self.expect(&key(path, "expect"), spec.expect.as_ref(), &action);
            steps.push(Step { path: path.to_owned(), action, expect, within, impair: impair.clone() });
        }
        steps
    }

    /// What the step does with a session, and between which ends: one that was kept runs where it was opened, whatever
    /// the step leaves unsaid.
    pub(crate) fn session(
        &mut self,
        path: &str,
        kind: &'static str,
        keep: Option<&String>,
        used: Option<&String>,
        own: Ends,
    ) -> (Session, Option<Ends>) {
        match (keep, used) {
            (None, None) => (Session::Once, Some(own)),
            (Some(name), None) => {
                self.kept.insert((kind, name.clone()), own.clone());
                (Session::Keep(name.clone()), Some(own))
            }
            (None, Some(name)) => {
                let kept = self.kept.get(&(kind, name.clone())).cloned();
                // What opened it may have been left out, for another mistake.
                if kept.is_none() && !self.was_pruned("tests") {
                    let names: Vec<_> = self
                        .kept
                        .keys()
                        .filter(|(of, _)| *of == kind)
                        .map(|(_, name)| name.as_str())
                        .collect();
                    let hint = match names.as_slice() {
                        [] => Some(format!("open one with `keep: {name}`, in an earlier `{kind}` step")),
                        names => hint(name, names.iter().copied(), "sessions"),
                    };
                    let message = format!("no {kind} session is kept under the name `{name}`");
                    self.problem(&key(path, "session"), message, hint);
                }
                let ends = kept.map(|kept| Ends {
                    from: own.from.or(kept.from),
                    to: own.to.or(kept.to),
                    family: own.family.or(kept.family),
                    port: kept.port.or(own.port),
                });
                (Session::Use(name.clone()), ends)
            }
            (Some(_), Some(_)) => {
                self.problem(path, "either `keep` or `session`, not both", None);
                (Session::Once, None)
            }
        }
    }

    pub(crate) fn session_flows(
        &mut self,
        path: &str,
        ends: Option<&Ends>,
        place: &StepPlace<'_>,
    ) -> Vec<Flow> {
        let Some(Ends { from, to, family, port }) = ends else { return Vec::new() };
        let missing = [("from", from.is_none()), ("to", to.is_none()), ("port", port.is_none())];
        for (name, _) in missing.into_iter().filter(|(_, missing)| *missing) {
            if !self.was_pruned(&key(path, name)) {
                self.problem(path, format!("`{name}` is missing"), None);
            }
        }
        match (from, to) {
            (Some(from), Some(to)) => self.flows(path, from, to, *family, place),
            _ => Vec::new(),
        }
    }

    /// One flow for each sender to each receiver.
    pub(crate) fn flows(
        &mut self,
        path: &str,
        from: &OneOrMany,
        to: &OneOrMany,
        family: Option<FamilySpec>,
        place: &StepPlace<'_>,
    ) -> Vec<Flow> {
        let senders = self.hosts_named(&key(path, "from"), from, place.scope);
        let OneOrMany(receivers) = to;
        if senders.len().saturating_mul(receivers.len()) > MAX_REPEATS {
            self.problem(path, format!("repeats more than {MAX_REPEATS} times"), None);
            return Vec::new();
        }
        receivers.iter().flat_map(|to| self.flows_to(path, &senders, to, family, place)).collect()
    }

    fn flows_to(
        &mut self,
        path: &str,
        senders: &[HostId],
        to: &str,
        family: Option<FamilySpec>,
        place: &StepPlace<'_>,
    ) -> Vec<Flow> {
        let scope = place.scope;
        let to_path = key(path, "to");
        let target: Option<(Option<HostId>, Option<IpAddr>)> = match to.parse::<IpAddr>() {
            Ok(addr) => {
                let host =
                    scope.hosts.iter().position(|host| host.has_address(addr)).map(|at| HostId(at as u16));
                Some((host, Some(addr)))
            }
            Err(_) => self.host_named(&to_path, to, scope).map(|host| (Some(host), None)),
        };
        let Some((to_host, to_addr)) = target else { return Vec::new() };
        let asked = family.map(|family| match family {
            FamilySpec::Ipv4 => Family::Ipv4,
            FamilySpec::Ipv6 => Family::Ipv6,
        });
        let mut flows = Vec::new();
        for &from in senders {
            let sender = &scope.hosts[from.0 as usize];
            let addr_in = |family| to_addr.or_else(|| scope.hosts[to_host?.0 as usize].address(family));
            let families = match (asked, to_addr) {
                (Some(family), _) => vec![family],
                (None, Some(addr)) => vec![Family::from(addr)],
                (None, None) => vec![Family::Ipv4, Family::Ipv6],
            };
            let ends = families.into_iter().find_map(|family| {
                let to = addr_in(family).filter(|addr| Family::from(*addr) == family)?;
                Some((sender.address(family)?, to))
            });
            match ends {
                Some((source, to)) => flows.push(Flow { from, source, to, to_host, timeout: place.timeout }),
                // One of them has a wrong address, which has been said.
                None if sender.addresses.is_empty() => {}
                None if to_host.is_some_and(|host| scope.hosts[host.0 as usize].addresses.is_empty()) => {}
                None => {
                    let message = format!("`{}` has no address of the same family as `{to}`", sender.name);
                    self.problem(&to_path, message, None);
                }
            }
        }
        flows
    }

    pub(crate) fn hosts_named(&mut self, path: &str, names: &OneOrMany, scope: &Scope<'_>) -> Vec<HostId> {
        let OneOrMany(names) = names;
        if names.len() > MAX_REPEATS {
            self.problem(path, format!("{} hosts; at most {MAX_REPEATS} are possible", names.len()), None);
        }
        names.iter().take(MAX_REPEATS).filter_map(|name| self.host_named(path, name, scope)).collect()
    }

    fn host_named(&mut self, path: &str, name: &str, scope: &Scope<'_>) -> Option<HostId> {
        let found = scope.hosts.iter().position(|host| host.name == name);
        let known = scope.all_hosts.contains(&name) || self.was_pruned(&key("hosts", name));
        if found.is_none() && !known {
            let hint = hint(name, scope.all_hosts.iter().copied(), "hosts");
            self.problem(path, format!("no host named `{name}`"), hint);
        }
        found.map(|at| HostId(at as u16))
    }

    fn impairment(
        &mut self,
        path: &str,
        port: &str,
        spec: &ImpairSpec,
        scope: &Scope<'_>,
    ) -> Option<(IfaceId, Impairment)> {
        let path = key(path, port);
        let iface = self.port(&path, port, &scope.router.ifaces)?;
        let delay = self.duration(&key(&path, "delay"), spec.delay.as_ref()).unwrap_or_default();
        let jitter = self.duration(&key(&path, "jitter"), spec.jitter.as_ref()).unwrap_or_default();
        if spec.reorder.is_some() && delay.is_zero() {
            let hint = "packets that wait are overtaken by those that do not".to_owned();
            self.problem(&key(&path, "reorder"), "needs a `delay`", Some(hint));
        }
        let link = Impairment {
            delay,
            jitter,
            loss_percent: self.percent(&key(&path, "loss"), spec.loss.as_ref()),
            reorder_percent: self.percent(&key(&path, "reorder"), spec.reorder.as_ref()),
            duplicate_percent: self.percent(&key(&path, "duplicate"), spec.duplicate.as_ref()),
            rate_kbit: spec.rate_kbit,
        };
        Some((iface, link))
    }

    fn percent(&mut self, path: &str, share: Option<&PercentSpec>) -> f64 {
        let Some(PercentSpec(text)) = share else { return 0.0 };
        let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
        let number = number.ok().filter(|number| (0.0..=100.0).contains(number));
        if number.is_none() {
            self.problem(path, format!("`{text}` is no share between 0% and 100%"), None);
        }
        number.unwrap_or_default()
    }

    pub(crate) fn duration(&mut self, path: &str, text: Option<&TimeSpec>) -> Option<Duration> {
        let TimeSpec(text) = text?;
        if let Ok(duration) = humantime::parse_duration(text) {
            Some(duration)
        } else {
            let hint = "such as `500ms`, `5s`, `2m`, `5days`".to_owned();
            self.problem(path, format!("`{text}` is not a length of time"), Some(hint));
            None
        }
    }

    fn expect(&mut self, path: &str, spec: Option<&ExpectSpec>, action: &Action) -> Expect {
        let none = ExpectSpec::default();
        let spec = spec.unwrap_or(&none);
        let result = spec.result.map(|result| match result {
            ResultSpec::Ok => Word::Ok,
            // Lab files from before `failed` say so of a command that did not succeed.
            ResultSpec::Blocked if matches!(action, Action::Exec(_)) => Word::Failed,
            ResultSpec::Blocked => Word::Blocked,
            ResultSpec::Refused => Word::Refused,
            ResultSpec::Unreachable => Word::Unreachable,
            ResultSpec::Failed => Word::Failed,
        });
        // A step with traffic is meant to succeed unless the file says otherwise.
        let result = result.or(match (&spec.icmp, spec.exit, action.succeeds()) {
            (Some(_), ..) => Some(Word::Unreachable),
            (None, Some(1..), _) => Some(Word::Failed),
            (None, _, true) => Some(Word::Ok),
            (None, _, false) => None,
        });
        self.expect_of_a_command(path, spec, result, action);
        if spec.icmp.is_some() && result != Some(Word::Unreachable) {
            self.problem(&key(path, "icmp"), "goes with `result: unreachable`", None);
        }
        // `icmp type 3 code 5` is what has no name.
        let known =
            |name: &str| name.starts_with("icmp type ") || runner::icmp_names().any(|one| one == name);
        if let Some(name) = spec.icmp.as_ref().filter(|name| !known(name)) {
            let hint = hint(name, runner::icmp_names(), "ICMP errors");
            self.problem(&key(path, "icmp"), format!("no ICMP error is called `{name}`"), hint);
        }
        let rule = spec.rule.as_deref().map(RuleRef::read);
        if let Some(RuleRef::Comment(comment)) = &rule {
            self.comments.push((key(path, "rule"), comment.clone()));
        }
        Expect {
            result,
            icmp: spec.icmp.clone(),
            exit: spec.exit,
            state: spec.state.map(state),
            seen: spec.seen.0.iter().copied().map(state).collect(),
            unseen: spec.unseen.0.iter().copied().map(state).collect(),
            stdout: spec.stdout.clone(),
            contains: spec.contains.clone().unwrap_or_default().0,
            rule,
            reason: spec.reason.clone(),
            entry: spec.entry.clone(),
            no_entry: spec.no_entry.clone(),
        }
    }

    /// Of a command nothing is known but its exit code, and of anything else no exit code.
    fn expect_of_a_command(&mut self, path: &str, spec: &ExpectSpec, result: Option<Word>, action: &Action) {
        let is_command = matches!(action, Action::Exec(_));
        match result {
            Some(Word::Failed) if !is_command && spec.exit.is_none() => {
                let hint = "`blocked`, `refused` or `unreachable`".to_owned();
                self.problem(&key(path, "result"), "`failed` is said of `exec` only", Some(hint));
            }
            Some(word @ (Word::Refused | Word::Unreachable)) if is_command => {
                let at = if spec.result.is_some() { "result" } else { "icmp" };
                let message = format!("an `exec` is `ok` or `failed`, never `{}`", word.text());
                let hint =
                    "`result: failed`; what became of its packets is in `state`, `rule`, `reason`".to_owned();
                self.problem(&key(path, at), message, Some(hint));
            }
            _ => {}
        }
        let Some(exit) = spec.exit else { return };
        let path = key(path, "exit");
        if !is_command {
            self.problem(&path, "goes with `exec` only", None);
        } else if result == Some(if exit == 0 { Word::Failed } else { Word::Ok }) {
            let hint = "0 is `ok`, every other one is `failed`".to_owned();
            self.problem(&path, "does not go with this `result`", Some(hint));
        }
    }
}

const fn state(spec: StateSpec) -> CtState {
    match spec {
        StateSpec::New => CtState::New,
        StateSpec::Established => CtState::Established,
        StateSpec::Related => CtState::Related,
        StateSpec::Invalid => CtState::Invalid,
        StateSpec::Untracked => CtState::Untracked,
    }
}
