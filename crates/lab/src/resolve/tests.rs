//! The `tests:` part: each step becomes an [`Action`] with its expectations, once for each host that it repeats over.

#![forbid(unsafe_code)]

use super::{Check, family_of, packets};
use crate::error::hint;
use crate::locate::{item, key};
use crate::model::{
    Action, CounterQuery, Exec, Expect, Flow, Ftp, FtpMode, Host, HostId, Http, Impairment, Ping, RulesText,
    RunnerKind, Send, Session, Ssh, Step, TableQuery, Tcp, Test, Tftp, Transfer, Udp, Word,
};
use crate::runner;
use crate::spec::{
    ExpectSpec, FamilySpec, FtpCommandSpec, FtpModeSpec, ImpairSpec, LabSpec, OneOrMany, PercentSpec,
    ResultSpec, RulesSpec, RunnerSpec, StateSpec, StepSpec, TestSpec, TftpCommandSpec, TimeSpec,
};
use stateway_core::config::RouterConfig;
use stateway_core::conntrack::CtState;
use stateway_core::iface::IfaceId;
use stateway_core::packet::Family;
use std::net::IpAddr;
use std::time::Duration;

/// A step that repeats becomes this many at most.
const MAX_REPEATS: usize = 2000;
/// What a transfer moves if the file does not say.
const USUAL_BYTES: u32 = 20_000;

/// What a step's names can mean.
struct Scope<'a> {
    router: &'a RouterConfig,
    hosts: &'a [Host],
    all_hosts: Vec<&'a str>,
}

/// What the parts of one step share.
struct StepPlace<'a> {
    scope: &'a Scope<'a>,
    timeout: Option<Duration>,
}

/// Between which ends a connection is, as far as a step says it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    from: Option<OneOrMany>,
    to: Option<OneOrMany>,
    family: Option<FamilySpec>,
    port: Option<u16>,
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
            tests.push(Test { name, on, steps });
        }
        tests
    }

    fn steps(&mut self, path: &str, test: &TestSpec, scope: &Scope<'_>) -> Vec<Step> {
        let own = test.step();
        match (actions(&own).is_empty(), test.steps.is_empty()) {
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
        let names = actions(spec);
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
        let actions = self.actions(&key(path, names[0]), spec, &place);
        let impair: Vec<(IfaceId, Impairment)> = spec
            .impair
            .iter()
            .filter_map(|(port, link)| self.impairment(&key(path, "impair"), port, link, scope))
            .collect();
        let mut steps = Vec::new();
        for action in actions {
            let expect = self.expect(&key(path, "expect"), spec.expect.as_ref(), &action);
            steps.push(Step { action, expect, within, impair: impair.clone() });
        }
        steps
    }

    /// What the step does, once for each host that it starts from.
    fn actions(&mut self, path: &str, spec: &StepSpec, place: &StepPlace<'_>) -> Vec<Action> {
        if let Some(ssh) = &spec.ssh {
            let own = Ends {
                from: ssh.from.clone(),
                to: ssh.to.clone(),
                family: ssh.family,
                port: ssh.port.or(Some(22)),
            };
            let (session, ends) = self.session(path, "ssh", ssh.keep.as_ref(), ssh.session.as_ref(), own);
            let flows = self.session_flows(path, ends.as_ref(), place);
            let run = ssh.run.clone().unwrap_or_else(|| "true".to_owned());
            let make = |flow| Ssh {
                flow,
                port: ends.as_ref().and_then(|ends| ends.port).unwrap_or_default(),
                source_port: ssh.source_port,
                run: run.clone(),
                input: ssh.input.clone(),
                session: session.clone(),
            };
            flows.into_iter().map(|flow| Action::Ssh(make(flow))).collect()
        } else if let Some(tcp) = &spec.tcp {
            let own = Ends { from: tcp.from.clone(), to: tcp.to.clone(), family: tcp.family, port: tcp.port };
            let (session, ends) = self.session(path, "tcp", tcp.keep.as_ref(), tcp.session.as_ref(), own);
            let flows = self.session_flows(path, ends.as_ref(), place);
            let make = |flow| Tcp {
                flow,
                port: ends.as_ref().and_then(|ends| ends.port).unwrap_or_default(),
                source_port: tcp.source_port,
                send: tcp.send.clone(),
                session: session.clone(),
            };
            flows.into_iter().map(|flow| Action::Tcp(make(flow))).collect()
        } else if let Some(udp) = &spec.udp {
            let send = udp.send.clone().unwrap_or_else(|| "stateway".to_owned());
            let make = |flow| Udp { flow, port: udp.port, source_port: udp.source_port, send: send.clone() };
            let flows = self.flows(path, &udp.from, &udp.to, udp.family, place);
            flows.into_iter().map(|flow| Action::Udp(make(flow))).collect()
        } else if let Some(ping) = &spec.ping {
            let make = |flow| Ping {
                flow,
                count: ping.count.unwrap_or(1),
                size: ping.size.unwrap_or(56),
                dont_fragment: ping.dont_fragment,
                ttl: ping.ttl,
            };
            let flows = self.flows(path, &ping.from, &ping.to, ping.family, place);
            flows.into_iter().map(|flow| Action::Ping(make(flow))).collect()
        } else if let Some(http) = &spec.http {
            let asked = http.path.clone().unwrap_or_else(|| "/".to_owned());
            let make = |flow| Http { flow, port: http.port.unwrap_or(80), path: asked.clone() };
            let flows = self.flows(path, &http.from, &http.to, http.family, place);
            flows.into_iter().map(|flow| Action::Http(make(flow))).collect()
        } else if let Some(ftp) = &spec.ftp {
            let mode = match ftp.mode {
                FtpModeSpec::Active => FtpMode::Active,
                FtpModeSpec::Passive => FtpMode::Passive,
                FtpModeSpec::Eprt => FtpMode::Eprt,
                FtpModeSpec::Epsv => FtpMode::Epsv,
            };
            let bytes = ftp.bytes.unwrap_or(USUAL_BYTES);
            let transfer = match ftp.command {
                FtpCommandSpec::List => Transfer::List,
                FtpCommandSpec::Get => Transfer::Get { bytes },
                FtpCommandSpec::Put => Transfer::Put { bytes },
            };
            let make = |flow| Ftp { flow, port: ftp.port.unwrap_or(21), mode, transfer };
            let flows = self.flows(path, &ftp.from, &ftp.to, ftp.family, place);
            flows.into_iter().map(|flow| Action::Ftp(make(flow))).collect()
        } else if let Some(tftp) = &spec.tftp {
            let bytes = tftp.bytes.unwrap_or(USUAL_BYTES);
            let transfer = match tftp.command {
                TftpCommandSpec::Get => Transfer::Get { bytes },
                TftpCommandSpec::Put => Transfer::Put { bytes },
            };
            let flows = self.flows(path, &tftp.from, &tftp.to, tftp.family, place);
            flows.into_iter().map(|flow| Action::Tftp(Tftp { flow, transfer })).collect()
        } else if let Some(trace) = &spec.traceroute {
            let flows = self.flows(path, &trace.from, &trace.to, trace.family, place);
            flows.into_iter().map(Action::Traceroute).collect()
        } else if let Some(exec) = &spec.exec {
            let make = |host| Exec {
                host,
                run: exec.run.clone(),
                input: exec.input.clone(),
                timeout: place.timeout,
            };
            let hosts = self.hosts_named(&key(path, "host"), &exec.host, place.scope);
            hosts.into_iter().map(|host| Action::Exec(make(host))).collect()
        } else if let Some(send) = &spec.send {
            let ports = (send.source_port.unwrap_or(40_000), send.port.unwrap_or(9));
            let flows = self.flows(path, &send.from, &send.to, send.family, place);
            let mut actions = Vec::new();
            for flow in flows {
                let mut made = Vec::new();
                for line in &send.packets.0 {
                    match packets::packet(line, flow.source, flow.to, ports) {
                        Ok(packet) => made.push(packet),
                        Err(why) => {
                            let hint = "such as `S 100:100(0) win 64240`, `udp (10)` or `icmp echo_request id 7 seq 1`";
                            self.problem(
                                &key(path, "packets"),
                                format!("`{line}`: {why}"),
                                Some(hint.to_owned()),
                            );
                        }
                    }
                }
                actions.push(Action::Send(Send { flow, packets: made }));
            }
            actions
        } else if let Some(wait) = &spec.wait {
            self.duration(path, Some(wait)).map(Action::Wait).into_iter().collect()
        } else if let Some(rules) = &spec.rules {
            self.rules_step(path, rules, place.scope).into_iter().collect()
        } else if let Some(query) = &spec.conntrack {
            let words = |list: &Option<OneOrMany>| list.clone().unwrap_or_default().0;
            let query = TableQuery {
                contains: words(&query.contains),
                lacks: words(&query.lacks),
                count: query.count,
            };
            vec![Action::Conntrack(query)]
        } else if let Some(query) = &spec.counters {
            let pairs = |map: &indexmap::IndexMap<String, u64>| {
                map.iter().map(|(name, n)| (name.clone(), *n)).collect()
            };
            vec![Action::Counters(CounterQuery {
                equal: pairs(&query.equal),
                at_least: pairs(&query.at_least),
            })]
        } else {
            Vec::new()
        }
    }

    fn rules_step(&mut self, path: &str, spec: &RulesSpec, scope: &Scope<'_>) -> Option<Action> {
        let given = [&spec.v4, &spec.v4_file, &spec.v6, &spec.v6_file].iter().any(|text| text.is_some());
        if spec.restore {
            if given {
                self.problem(path, "`restore` brings the lab's own rules back: leave the others out", None);
            }
            let text = RulesText { v4: scope.router.rules.clone(), v6: scope.router.rules6.clone() };
            return Some(Action::Rules(text));
        }
        if !given {
            self.problem(
                path,
                "no rules are given",
                Some("`v4`, `v4_file`, `v6`, `v6_file` or `restore: true`".to_owned()),
            );
            return None;
        }
        let names: Vec<String> = scope.router.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let v4 = self.rules(Family::Ipv4, &key(path, "v4"), spec.v4.as_ref(), spec.v4_file.as_ref(), &names);
        let v6 = self.rules(Family::Ipv6, &key(path, "v6"), spec.v6.as_ref(), spec.v6_file.as_ref(), &names);
        // The family that the step does not speak of keeps the rules of the lab.
        let v4 = v4.or_else(|| scope.router.rules.clone());
        let v6 = v6.or_else(|| scope.router.rules6.clone());
        Some(Action::Rules(RulesText { v4, v6 }))
    }

    /// What the step does with a session, and between which ends: one that was kept runs where it was opened, whatever
    /// the step leaves unsaid.
    fn session(
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

    fn session_flows(&mut self, path: &str, ends: Option<&Ends>, place: &StepPlace<'_>) -> Vec<Flow> {
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
    fn flows(
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
                (None, Some(addr)) => vec![family_of(addr)],
                (None, None) => vec![Family::Ipv4, Family::Ipv6],
            };
            let ends = families.into_iter().find_map(|family| {
                let to = addr_in(family).filter(|addr| family_of(*addr) == family)?;
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

    fn hosts_named(&mut self, path: &str, names: &OneOrMany, scope: &Scope<'_>) -> Vec<HostId> {
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

    fn duration(&mut self, path: &str, text: Option<&TimeSpec>) -> Option<Duration> {
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
            ResultSpec::Blocked => Word::Blocked,
            ResultSpec::Refused => Word::Refused,
            ResultSpec::Unreachable => Word::Unreachable,
        });
        // A step with traffic is meant to succeed unless the file says otherwise.
        let by_default = (action.flow().is_some() && !matches!(action, Action::Send(_)))
            || matches!(action, Action::Exec(_));
        let result = result.or(match (&spec.icmp, by_default) {
            (Some(_), _) => Some(Word::Unreachable),
            (None, true) => Some(Word::Ok),
            (None, false) => None,
        });
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
        if let Some(rule) = &spec.rule {
            let parts: Vec<&str> = rule.split('/').collect();
            let last = parts.last().copied().unwrap_or_default();
            if rule != "policy" && (parts.len() != 3 || (last.parse::<u32>().is_err() && last != "policy")) {
                let hint = "such as `filter/FORWARD/1`, or `policy`".to_owned();
                self.problem(&key(path, "rule"), format!("`{rule}` is not the name of a rule"), Some(hint));
            }
        }
        Expect {
            result,
            icmp: spec.icmp.clone(),
            state: spec.state.map(state),
            seen: spec.seen.0.iter().copied().map(state).collect(),
            unseen: spec.unseen.0.iter().copied().map(state).collect(),
            stdout: spec.stdout.clone(),
            contains: spec.contains.clone().unwrap_or_default().0,
            rule: spec.rule.clone(),
            reason: spec.reason.clone(),
            entry: spec.entry.clone(),
            no_entry: spec.no_entry.clone(),
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

/// The names of what a step does; exactly one is right.
fn actions(spec: &StepSpec) -> Vec<&'static str> {
    let all = [
        ("ssh", spec.ssh.is_some()),
        ("tcp", spec.tcp.is_some()),
        ("udp", spec.udp.is_some()),
        ("ping", spec.ping.is_some()),
        ("http", spec.http.is_some()),
        ("ftp", spec.ftp.is_some()),
        ("tftp", spec.tftp.is_some()),
        ("traceroute", spec.traceroute.is_some()),
        ("exec", spec.exec.is_some()),
        ("send", spec.send.is_some()),
        ("wait", spec.wait.is_some()),
        ("rules", spec.rules.is_some()),
        ("conntrack", spec.conntrack.is_some()),
        ("counters", spec.counters.is_some()),
    ];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}
