//! Takes the tests of a lab through a runner and compares what came of each step with what was expected.

#![forbid(unsafe_code)]

use super::model::{Action, Expect, Flow, Lab, RunnerKind, Session, Ssh, Step, Tcp, Test, Word};
use super::runner::{Observation, RunError, Runner, Seen, by_hand};
use stateway_core::conntrack::CtState;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Between two tries of a step that may take a while to come out.
const PAUSE: Duration = Duration::from_millis(100);

/// How one test ended.
#[derive(Clone, Debug)]
pub struct TestReport {
    pub name: String,
    pub runner: RunnerKind,
    pub ending: Ending,
    pub steps: Vec<StepReport>,
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Passed,
    /// What was not as expected, of the last step.
    Failed(Vec<String>),
    /// Why it was not run.
    Skipped(String),
    /// A program that was to tell did not end in time: nothing is known.
    Late(String),
    /// The lab itself is at fault.
    Broken(String),
    /// It did not come to it, and why.
    NotRun(String),
}

impl Ending {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Failed(_) => "FAIL",
            Self::Skipped(_) => "skip",
            Self::Late(_) => "LATE",
            Self::Broken(_) => "BROKEN",
            Self::NotRun(_) => "not run",
        }
    }

    pub const fn is_well(&self) -> bool {
        matches!(self, Self::Passed | Self::Skipped(_))
    }

    /// Whether it says anything about the rules.
    pub const fn is_judgement(&self) -> bool {
        matches!(self, Self::Passed | Self::Failed(_))
    }
}

/// What came of one step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// `ssh host104 → host77`.
    pub title: String,
    pub result: Word,
    pub icmp: Option<String>,
    pub note: String,
    /// The packet that decided, if the router saw one.
    pub deciding: Option<Seen>,
    pub packets: Vec<Seen>,
}

impl TestReport {
    /// A test that ended before its first step.
    pub fn new(name: &str, runner: RunnerKind, ending: Ending) -> Self {
        Self { name: name.to_owned(), runner, ending, steps: Vec::new(), took: Duration::ZERO }
    }
}

/// The report of a lab that did not come so far that a test could be run: what was to be done first, what was wrong
/// with that, and every test.
pub fn not_begun(lab: &Lab, runner: RunnerKind, first: &str, wrong: &str) -> Vec<TestReport> {
    let ending = Ending::Broken(wrong.to_owned());
    std::iter::once(TestReport::new(first, runner, ending)).chain(not_run(lab, runner, wrong)).collect()
}

/// Every test of a lab, as one that was not run.
pub fn not_run(lab: &Lab, runner: RunnerKind, why: &str) -> impl Iterator<Item = TestReport> {
    // Its first line is enough for each of them.
    let why = why.lines().next().unwrap_or_default();
    lab.tests.iter().map(move |test| TestReport::new(&test.name, runner, Ending::NotRun(why.to_owned())))
}

/// Takes every test in turn, and says so after each. Once the lab is broken, the others are not run.
pub fn run(lab: &Lab, runner: &mut dyn Runner, mut after: impl FnMut(&TestReport)) -> Vec<TestReport> {
    let mut reports = Vec::new();
    let mut earlier = Flows::new();
    let mut broken: Option<String> = None;
    for test in &lab.tests {
        let report = match &broken {
            None => one(lab, test, runner, &mut earlier),
            Some(why) => TestReport::new(&test.name, runner.kind(), Ending::NotRun(why.clone())),
        };
        after(&report);
        if let Ending::Broken(_) = &report.ending {
            broken = Some(format!("the lab broke in the test `{}`", report.name));
        }
        reports.push(report);
    }
    reports
}

fn one(lab: &Lab, test: &Test, runner: &mut dyn Runner, earlier: &mut Flows) -> TestReport {
    let kind = runner.kind();
    let start = runner.now();
    let mut report = TestReport::new(&test.name, kind, Ending::Passed);
    if !test.on.is_empty() && !test.on.contains(&kind) {
        let on: Vec<&str> = test.on.iter().map(|kind| kind.word()).collect();
        report.ending = Ending::Skipped(format!("only on {}", on.join(", ")));
        return report;
    }
    if let Some(why) = test.steps.iter().find_map(|step| runner.lacks(step)) {
        report.ending = Ending::Skipped(why);
        return report;
    }
    for step in &test.steps {
        match take(lab, step, runner, earlier) {
            Ok((step, wrong)) => {
                report.steps.push(step);
                if !wrong.is_empty() {
                    report.ending = Ending::Failed(wrong);
                    break;
                }
            }
            Err(RunError::Unsupported(why)) => {
                report.ending = Ending::Skipped(why);
                break;
            }
            Err(RunError::Late(why)) => {
                report.ending = Ending::Late(why);
                break;
            }
            Err(RunError::Broken(why)) => {
                report.ending = Ending::Broken(why);
                break;
            }
        }
    }
    report.took = runner.now().saturating_sub(start);
    report
}

/// Takes a step, again and again if it may, and says what is wrong with what came of it.
fn take(
    lab: &Lab,
    step: &Step,
    runner: &mut dyn Runner,
    earlier: &mut Flows,
) -> Result<(StepReport, Vec<String>), RunError> {
    let deadline = step.within.map(|within| runner.now() + within);
    if !step.impair.is_empty() {
        runner.impair(&step.impair)?;
    }
    let outcome = loop {
        let seen = match runner.act(&step.action, step.awaits()) {
            Ok(seen) => seen,
            Err(error) => break Err(error),
        };
        let deciding = deciding(step, &seen, earlier).cloned();
        earlier.extend(seen.packets.iter().filter_map(flow_of));
        let wrong = compare(&step.action, &step.expect, &seen, deciding.as_ref(), runner)?;
        if wrong.is_empty() || deadline.is_none_or(|deadline| runner.now() >= deadline) {
            let report = StepReport {
                title: title(lab, &step.action),
                result: seen.result,
                icmp: seen.icmp,
                note: seen.note,
                deciding,
                packets: seen.packets,
            };
            break Ok((report, wrong));
        }
        runner.wait(PAUSE);
    };
    if !step.impair.is_empty() {
        runner.impair(&[])?;
    }
    outcome
}

/// The packet that decided what came of a step: the first that the router stopped, else the one that opened.
fn deciding<'a>(step: &Step, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
    let action = &step.action;
    if let Action::Send(send) = action {
        // The last packet that was sent is the one that the story is about.
        return by_hand(send, &seen.packets);
    }
    let Some(flow) = action.flow() else {
        return match action {
            Action::Exec(_) => of_a_program(&step.expect, seen, earlier),
            _ => None,
        };
    };
    let (protocol, port) = match action {
        Action::Ssh(ssh) => (Some(6), Some(ssh.port)),
        Action::Tcp(tcp) => (Some(6), Some(tcp.port)),
        Action::Http(http) => (Some(6), Some(http.port)),
        Action::Udp(udp) => (Some(17), Some(udp.port)),
        Action::Ftp(_) => (Some(6), None),
        Action::Tftp(_) => (Some(17), None),
        Action::Ping(_) => (Some(if flow.to.is_ipv4() { 1 } else { 58 }), None),
        _ => (None, None),
    };
    let own = seen.packets.iter().filter(|packet| {
        belongs(packet, flow)
            && protocol.is_none_or(|protocol| packet.protocol == protocol)
            && port.is_none_or(|port| packet.ports.is_some_and(|(a, b)| a == port || b == port))
            && !is_neighbour_discovery(packet)
    });
    // The end of an earlier connection may still be under way: a new one begins with its SYN.
    let continues = matches!(
        action,
        Action::Tcp(Tcp { session: Session::Use(_), .. }) | Action::Ssh(Ssh { session: Session::Use(_), .. })
    );
    let own: Vec<&Seen> = own.collect();
    // An earlier step may still have had packets under way, such as a SYN that nobody answers and that is sent again. A
    // step that takes the same ports again looks like that too.
    let is_new = |packet: &&Seen| flow_of(packet).is_none_or(|flow| !earlier.contains(&flow));
    let new: Vec<&Seen> = own.iter().copied().filter(|packet| is_new(packet)).collect();
    let own = if continues || new.is_empty() { own } else { new };
    let start =
        if protocol == Some(6) && !continues { own.iter().position(|packet| opens(packet)) } else { None };
    stopped_or_first(own.into_iter().skip(start.unwrap_or(0)), seen.result)
}

/// Whether it is the SYN that opens a TCP connection.
fn opens(packet: &Seen) -> bool {
    packet.summary.split(' ').nth(1).is_some_and(|flags| flags.starts_with('S') && !flags.contains('.'))
}

/// A connection of TCP or UDP: its protocol, and its ends in their order.
type Connection = (u8, [(IpAddr, u16); 2]);

/// What earlier steps have seen.
type Flows = BTreeSet<Connection>;

fn flow_of(packet: &Seen) -> Option<Connection> {
    let (from, to) = packet.ports?;
    let mut ends = [(packet.src, from), (packet.dst, to)];
    ends.sort_unstable();
    Some((packet.protocol, ends))
}

/// Nothing is known of what a program sends: it is not what earlier steps still had under way before it, such as the end
/// of a connection, or a SYN that nobody answers and that is sent again.
fn of_a_program<'a>(expect: &Expect, seen: &'a Observation, earlier: &Flows) -> Option<&'a Seen> {
    let is_own = |packet: &&Seen| flow_of(packet).is_none_or(|flow| !earlier.contains(&flow));
    let own = stopped_or_first(seen.packets.iter().filter(is_own), seen.result);
    // A program that takes the same ports again looks like that too: who expects its packets is told of them.
    let asks = expect.state.is_some() || expect.rule.is_some() || expect.reason.is_some();
    own.or_else(|| asks.then(|| stopped_or_first(seen.packets.iter(), seen.result)).flatten())
}

fn stopped_or_first<'a>(mut packets: impl Iterator<Item = &'a Seen>, result: Word) -> Option<&'a Seen> {
    let first = packets.next()?;
    if result == Word::Ok || first.was_stopped() {
        return Some(first);
    }
    Some(packets.find(|packet| packet.was_stopped()).unwrap_or(first))
}

fn belongs(packet: &Seen, flow: &Flow) -> bool {
    (packet.src, packet.dst) == (flow.source, flow.to) || (packet.src, packet.dst) == (flow.to, flow.source)
}

/// Its types are 133 to 137 (RFC 4861 §4).
fn is_neighbour_discovery(packet: &Seen) -> bool {
    packet.protocol == 58 && (133..=137).any(|kind| packet.summary.starts_with(&format!("icmpv6 {kind}/")))
}

/// Everything that is not as expected.
fn compare(
    action: &Action,
    expect: &Expect,
    seen: &Observation,
    deciding: Option<&Seen>,
    runner: &mut dyn Runner,
) -> Result<Vec<String>, RunError> {
    let mut wrong = Vec::new();
    if let Some(want) = expect.result.filter(|want| *want != seen.result) {
        wrong.push(format!(
            "expected {}, got {}",
            want.text(),
            result_text(seen.result, seen.icmp.as_deref())
        ));
    }
    differs(&mut wrong, "icmp", expect.icmp.as_deref(), seen.icmp.as_deref());
    differs(
        &mut wrong,
        "state",
        expect.state.map(CtState::word),
        deciding.and_then(|p| p.state).map(CtState::word),
    );
    let rule = |name: &str| if name.ends_with("/policy") { "policy".to_owned() } else { name.to_owned() };
    let decided_by = deciding.and_then(|packet| packet.rule.as_deref()).map(rule);
    let reason = deciding.and_then(|packet| packet.reason.as_deref());
    // The kernel tells neither of a single packet: there they are compared only where they are known.
    let known = |told: Option<&str>| told.is_some() || runner.kind() != RunnerKind::Kernel;
    let rule = expect.rule.as_deref().map(rule).filter(|_| known(decided_by.as_deref()));
    differs(&mut wrong, "rule", rule.as_deref(), decided_by.as_deref());
    differs(&mut wrong, "reason", expect.reason.as_deref().filter(|_| known(reason)), reason);
    for (states, must) in [(&expect.seen, true), (&expect.unseen, false)] {
        for state in states {
            if seen.packets.iter().any(|packet| packet.state == Some(*state)) != must {
                let was = if must { "no packet was" } else { "a packet was" };
                wrong.push(format!("{was} seen as {}", state.word()));
            }
        }
    }
    differs(&mut wrong, "stdout", expect.stdout.as_deref().map(str::trim), Some(seen.stdout.trim()));
    for text in expect.contains.iter().filter(|text| !seen.stdout.contains(text.as_str())) {
        wrong.push(format!("stdout lacks `{text}`"));
    }
    if expect.entry.is_some() || expect.no_entry.is_some() {
        let table = runner.table()?;
        table_differs(&mut wrong, &table, expect.entry.as_slice(), expect.no_entry.as_slice());
    }
    match action {
        Action::Conntrack(query) => {
            let table: Vec<String> = seen.stdout.lines().map(str::to_owned).collect();
            table_differs(&mut wrong, &table, &query.contains, &query.lacks);
            if let Some(count) = query.count.filter(|count| *count != table.len() as u64) {
                wrong.push(format!("expected {count} connections, there are {}", table.len()));
            }
        }
        Action::Counters(query) => {
            let checks = query
                .equal
                .iter()
                .map(|pair| (pair, ""))
                .chain(query.at_least.iter().map(|p| (p, "at least ")));
            for ((name, want), bound) in checks {
                let have = seen.values.get(name).copied();
                let agrees =
                    have.is_some_and(|have| if bound.is_empty() { have == *want } else { have >= *want });
                if !agrees {
                    let have = have.map_or("no such counter".to_owned(), |have| have.to_string());
                    wrong.push(format!("{name}: expected {bound}{want}, got {have}"));
                }
            }
        }
        _ => {}
    }
    Ok(wrong)
}

fn differs(wrong: &mut Vec<String>, what: &str, want: Option<&str>, have: Option<&str>) {
    if let Some(want) = want
        && have != Some(want)
    {
        wrong.push(format!(
            "{what}: expected `{want}`, got {}",
            have.map_or("none".into(), |have| format!("`{have}`"))
        ));
    }
}

fn table_differs(wrong: &mut Vec<String>, table: &[String], contains: &[String], lacks: &[String]) {
    for words in contains.iter().filter(|words| !table.iter().any(|line| has_words(line, words))) {
        wrong.push(format!("no connection has `{words}`"));
    }
    for words in lacks {
        if let Some(line) = table.iter().find(|line| has_words(line, words)) {
            wrong.push(format!("there is a connection with `{words}`: {line}"));
        }
    }
}

/// Whether every word is among the words of the line.
fn has_words(line: &str, words: &str) -> bool {
    words.split_whitespace().all(|word| line.split_whitespace().any(|have| have == word))
}

/// `unreachable (icmp-port-unreachable)`.
pub fn result_text(result: Word, icmp: Option<&str>) -> String {
    icmp.map_or(result.text().to_owned(), |icmp| format!("{} ({icmp})", result.text()))
}

/// What a step does, in few words.
pub fn title(lab: &Lab, action: &Action) -> String {
    let host = |flow: &Flow| {
        let to = flow.to_host.map_or_else(|| flow.to.to_string(), |id| lab.host(id).name.clone());
        format!("{} {} → {to}", action.word(), lab.host(flow.from).name)
    };
    match (action, action.flow()) {
        (_, Some(flow)) => host(flow),
        (Action::Exec(exec), None) => format!("exec {}", lab.host(exec.host).name),
        (_, None) => action.word().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_words_in_any_order() {
        let line =
            "tcp      6 431999 ESTABLISHED src=192.0.2.104 dst=192.0.2.77 sport=40000 dport=22 [ASSURED]";
        assert!(has_words(line, "tcp ESTABLISHED dport=22"));
        assert!(has_words(line, "[ASSURED] src=192.0.2.104"));
        assert!(!has_words(line, "dport=2"), "a word is a whole word");
    }

    fn seen(summary: &str, state: CtState, fate: &str) -> Seen {
        let ends: Vec<std::net::SocketAddr> =
            summary.split(' ').filter_map(|word| word.parse().ok()).collect();
        Seen {
            time: Duration::ZERO,
            in_port: "a".into(),
            out_port: None,
            src: ends[0].ip(),
            dst: ends[1].ip(),
            protocol: 6,
            ports: Some((ends[0].port(), ends[1].port())),
            summary: summary.into(),
            state: Some(state),
            direction: None,
            fate: fate.into(),
            rule: None,
            reason: None,
        }
    }

    #[test]
    fn the_packet_that_decides_is_the_first_that_was_stopped_or_the_one_that_opened() {
        let tail = seen("tcp F. 192.0.2.1:4000 → 192.0.2.2:22", CtState::Established, "forwarded");
        let syn = seen("tcp S 192.0.2.1:4001 → 192.0.2.2:22", CtState::New, "forwarded");
        let answer = seen("tcp S. 192.0.2.2:22 → 192.0.2.1:4001", CtState::Established, "dropped");
        let flow = Flow {
            from: crate::model::HostId(0),
            source: syn.src,
            to: syn.dst,
            to_host: None,
            timeout: None,
        };
        let tcp = Tcp { flow, port: 22, source_port: None, send: None, session: Session::Once };
        for (result, packets, want) in [
            (Word::Ok, vec![&tail, &syn], &syn),
            (Word::Ok, vec![&syn, &answer], &syn),
            (Word::Blocked, vec![&tail, &syn, &answer], &answer),
            (Word::Blocked, vec![&tail], &tail),
        ] {
            let packets: Vec<Seen> = packets.into_iter().cloned().collect();
            let observed = Observation { packets, ..Observation::new(result, "") };
            let action = Action::Tcp(tcp.clone());
            let step = Step { action, expect: Expect::default(), within: None, impair: Vec::new() };
            let found = deciding(&step, &observed, &Flows::new());
            assert_eq!(found, Some(want), "{}", result.text());
        }
    }

    #[test]
    fn what_an_earlier_step_still_had_under_way_decides_nothing() {
        let again = seen("tcp S 192.0.2.2:22 → 192.0.2.1:3999", CtState::New, "dropped");
        let syn = seen("tcp S 192.0.2.1:4001 → 192.0.2.2:22", CtState::New, "forwarded");
        let (source, to, to_host) = (syn.src, syn.dst, None);
        let flow = Flow { from: crate::model::HostId(0), source, to, to_host, timeout: None };
        let tcp = Tcp { flow, port: 22, source_port: None, send: None, session: Session::Once };
        let (action, expect) = (Action::Tcp(tcp), Expect::default());
        let step = Step { action, expect, within: None, impair: Vec::new() };
        let earlier: Flows = flow_of(&again).into_iter().collect();
        for (packets, want) in [(vec![&again, &syn], &syn), (vec![&again], &again)] {
            let packets: Vec<Seen> = packets.into_iter().cloned().collect();
            let observed = Observation { packets, ..Observation::new(Word::Ok, "") };
            assert_eq!(deciding(&step, &observed, &earlier), Some(want));
        }
    }

    #[test]
    fn of_a_program_the_first_packet_decides_that_no_earlier_connection_left_behind() {
        let old = seen("tcp S 192.0.2.1:4000 → 192.0.2.2:2121", CtState::New, "forwarded");
        let tail = seen("tcp . 192.0.2.2:2121 → 192.0.2.1:4000", CtState::Established, "forwarded");
        let again = seen("tcp S 192.0.2.1:4000 → 192.0.2.2:2121", CtState::New, "dropped");
        let syn = seen("tcp S 192.0.2.1:4001 → 192.0.2.2:22", CtState::New, "forwarded");
        let ping = Seen {
            protocol: 1,
            ports: None,
            ..seen("icmp 192.0.2.1:1 → 192.0.2.2:1", CtState::New, "forwarded")
        };
        let earlier: Flows = flow_of(&old).into_iter().collect();
        let asks = Expect { state: Some(CtState::New), ..Expect::default() };
        for (packets, expect, want) in [
            (vec![&syn, &tail], Expect::default(), Some(&syn)),
            (vec![&tail, &syn], Expect::default(), Some(&syn)),
            (vec![&again, &tail, &ping], Expect::default(), Some(&ping)),
            (vec![&again, &tail], Expect::default(), None),
            (vec![&again, &tail], asks, Some(&again)),
        ] {
            let packets: Vec<Seen> = packets.into_iter().cloned().collect();
            let observed = Observation { packets, ..Observation::new(Word::Ok, "") };
            assert_eq!(of_a_program(&expect, &observed, &earlier), want);
        }
    }
}
