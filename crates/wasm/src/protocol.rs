//! What can be asked, and what is answered.
//!
//! `web/src/protocol.ts` is made of these types by a test, and must be made again when they change:
//! `UPDATE_EXPECT=1 cargo test -p stateway-wasm`.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use stateway_lab::why::What;
use stateway_trace::explain::Account;
use std::collections::BTreeMap;

/// What the page asks.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Question {
    /// The labs that are built in.
    Labs,
    /// Reads a lab and takes all its tests in simulation.
    Run {
        /// The files of the lab by their names, `lab.yaml` among them.
        #[cfg_attr(test, ts(type = "Record<string, string>"))]
        files: BTreeMap<String, String>,
        /// Rules in the place of the lab's own.
        #[serde(default)]
        rules: OtherRules,
    },
    /// Reads a lab as `Run` does, and only says what is wrong with it, or worth a second look.
    Check {
        /// The files of the lab by their names, `lab.yaml` among them.
        #[cfg_attr(test, ts(type = "Record<string, string>"))]
        files: BTreeMap<String, String>,
        /// Rules in the place of the lab's own.
        #[serde(default)]
        rules: OtherRules,
    },
    /// One packet of the last run, with its whole way.
    Packet {
        /// Its place in the list, from 0.
        number: usize,
    },
}

/// Rules in the place of a lab's own. A family that is not named keeps those of the lab.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherRules {
    /// As iptables-save prints them.
    #[serde(default)]
    pub v4: Option<String>,
    /// As ip6tables-save prints them.
    #[serde(default)]
    pub v6: Option<String>,
}

/// What it is told.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// The labs that are built in.
    Labs {
        /// In the order of their names.
        labs: Vec<BuiltIn>,
        /// The version of the program that this was built with.
        version: &'static str,
    },
    /// A lab, and what came of its tests.
    Run(Box<Run>),
    /// One packet, as `stateway explain --format json` tells of it.
    Packet {
        /// Its whole way.
        account: Account,
        /// For each step of it that is a rule which said no: what the packet has in place of what the rule wants.
        values: Vec<Option<Value>>,
    },
    /// What is wrong with the lab or the rules. Nothing was run.
    Problems {
        /// All of them.
        problems: Vec<Problem>,
    },
    /// It cannot be answered.
    Refused {
        /// Why not.
        message: String,
    },
}

/// What a packet has in place of what a rule wants.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Value {
    /// `state`, `in`, `to-port`, …
    #[cfg_attr(test, ts(type = "string"))]
    pub what: What,
    /// In the words of rules; two of them for ports, and for type and code.
    pub said: Vec<String>,
}

/// A lab that is built in.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuiltIn {
    /// By which it is asked for.
    pub name: String,
    /// In one line.
    pub description: String,
    /// Its files by their names.
    #[cfg_attr(test, ts(type = "Record<string, string>"))]
    pub files: BTreeMap<String, String>,
}

/// Something wrong, or worth a second look.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which text it is about: `rules`, `rules6`, or the name of a file.
    pub file: String,
    /// From 1; 0 where it is about no line.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The value that it is about: `tests[2].ssh.to`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
    /// It keeps nothing from running.
    pub is_warning: bool,
}

/// A lab, and what came of its tests.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The lab itself.
    pub lab: Lab,
    /// One for each test, in the order of the lab file.
    pub reports: Vec<Report>,
    /// Every packet that the router decided on.
    pub packets: Vec<Packet>,
    /// What deserves a second look.
    pub warnings: Vec<Problem>,
}

/// A lab.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lab {
    /// Its name.
    pub name: String,
    /// In one line.
    pub description: String,
    /// `bridge` or `route`.
    pub mode: &'static str,
    /// The ports of the router.
    pub ports: Vec<Port>,
    /// Who is behind them.
    pub hosts: Vec<Host>,
    /// The rules that were in force at the beginning, IPv4 first.
    pub rulesets: Vec<Ruleset>,
    /// What is tested.
    pub tests: Vec<Test>,
}

/// A port of the router.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// As `-i` and `-o` name it.
    pub name: String,
    /// The router's own addresses there.
    pub addresses: Vec<String>,
}

/// A host of the lab.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Which port it is behind, from 0.
    pub port: usize,
    /// Each with the length of its network.
    pub addresses: Vec<String>,
    /// What it serves: `ssh`, `http:8080`.
    pub services: Vec<String>,
}

/// The rules of one family.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruleset {
    /// 4 or 6.
    pub family: u8,
    /// As they were loaded.
    pub text: String,
    /// Its rules and policies.
    pub rules: Vec<Rule>,
}

/// A rule.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// `filter/FORWARD/1`.
    pub name: String,
    /// Of the text, from 1; 0 for a policy.
    pub line: usize,
    /// As iptables-save prints it; for a policy its word.
    pub text: String,
}

/// A test, as it is written.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Test {
    /// What it is called.
    pub name: String,
    /// Its place in the lab file: `tests[2]`.
    pub path: String,
    /// Its line there, from 1.
    pub line: usize,
    /// What it does.
    pub steps: Vec<Step>,
}

/// A step of a test.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its place in the lab file: `tests[2].steps[0]`.
    pub path: String,
    /// `ssh host104 → host77`.
    pub title: String,
}

/// What came of a test.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `pass`, `fail`, `skip`, `broken`, `not run`.
    pub ending: String,
    /// The line that `stateway lab test --on sim` prints.
    pub line: String,
    /// What was not as expected, and why.
    pub details: String,
    /// What came of it, in virtual microseconds.
    #[cfg_attr(test, ts(type = "number"))]
    pub took_us: u64,
}

/// A packet that the router decided on.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// Since the lab came up, in virtual microseconds.
    #[cfg_attr(test, ts(type = "number"))]
    pub time_us: u64,
    /// The path of the step that was under way.
    pub step: String,
    /// For people: `tcp S 192.0.2.77:40000 → 192.0.2.104:22`.
    pub summary: String,
    /// The port where it came in, from 0.
    pub in_port: usize,
    /// The ports where it left.
    pub out_ports: Vec<usize>,
    /// The host that sent it, from 0.
    pub sender: Option<usize>,
    /// The hosts that it goes to.
    pub receivers: Vec<usize>,
    /// `NEW`, `ESTABLISHED`, …; none if it never came as far as connection tracking.
    pub ctstate: Option<&'static str>,
    /// `original` or `reply`, where a connection stands behind it.
    pub direction: Option<&'static str>,
    /// `forwarded`, `dropped`, `rejected`, `delivered`, `queued`.
    pub fate: &'static str,
    /// Who decided: `filter/FORWARD/1`, `policy`.
    pub rule: Option<String>,
    /// Why it was stopped, or is INVALID.
    pub reason: Option<&'static str>,
    /// The reason in a sentence.
    pub why: Option<&'static str>,
    /// The number of the connection behind it.
    pub connection: Option<u32>,
    /// The rules and policies that held, by their names.
    pub held: Vec<String>,
    /// The frame as it came, in hexadecimal.
    pub bytes: String,
    /// What the router sent because of it.
    pub answers: Vec<Sent>,
    /// Connections that are new or have changed since the packet before.
    pub changed: Vec<Connection>,
    /// The numbers of those that have gone.
    pub gone: Vec<u32>,
}

/// A packet of the router's own.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The port where it leaves, from 0.
    pub port: usize,
    /// For people.
    pub summary: String,
}

/// A connection as it stands after a packet.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// From 1, in the order in which they were first seen.
    pub number: u32,
    /// `tcp`, `udp`, `icmp`, ….
    pub protocol: &'static str,
    /// The state of its protocol, where it has one.
    pub state: Option<&'static str>,
    /// What the first packet was like: `src=… dst=… sport=… dport=…`.
    pub original: String,
    /// What answers are like.
    pub reply: String,
    /// In the kernel's words: `SEEN_REPLY`, `ASSURED`, ….
    pub status: Vec<&'static str>,
    /// The connection mark.
    pub mark: u32,
    /// Who reads its payload.
    pub helper: Option<&'static str>,
    /// When it ends unless a packet comes, in virtual microseconds.
    #[cfg_attr(test, ts(type = "number"))]
    pub expires_us: u64,
    /// Of TCP: what is known of the numbers of the one who opened it, and of the other.
    pub windows: Option<[Window; 2]>,
}

/// What is known of the numbers of one side of a TCP connection.
#[cfg_attr(test, derive(ts_rs::TS))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Behind the last byte it sent.
    pub end: u32,
    /// Behind the last byte it may send.
    pub max_end: u32,
    /// The largest window it offered, scaled, in bytes.
    pub max_win: u32,
    /// By how many bits its windows are shifted, if its SYN said so.
    pub wscale: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect_file;
    use stateway_trace::explain;
    use stateway_trace::replay::Emitted;
    use ts_rs::TS;

    #[test]
    fn the_types_of_the_page_are_those_of_the_answers() {
        let head = "// Made of crates/wasm/src/protocol.rs: UPDATE_EXPECT=1 cargo test -p stateway-wasm\n"
            .to_owned();
        let declared = [
            Question::decl(),
            OtherRules::decl(),
            Answer::decl(),
            Value::decl(),
            BuiltIn::decl(),
            Problem::decl(),
            Run::decl(),
            Lab::decl(),
            Port::decl(),
            Host::decl(),
            Ruleset::decl(),
            Rule::decl(),
            Test::decl(),
            Step::decl(),
            Report::decl(),
            Packet::decl(),
            Sent::decl(),
            Connection::decl(),
            Window::decl(),
            Account::decl(),
            explain::Step::decl(),
            Emitted::decl(),
        ];
        let text = declared.iter().fold(head, |text, one| text + "\nexport " + one + "\n");
        expect_file!["../../../web/src/protocol.ts"].assert_eq(&text);
    }

    /// A sentence for each code, so that every language of the page has one for each: the compiler of the page sees to it.
    #[test]
    fn the_reasons_of_the_page_are_those_of_the_core() {
        use stateway_core::base::{DropReason, InvalidReason, QueueReason};
        // The first two are a rule and a policy, which are shown themselves.
        let dropped = DropReason::CODES.iter().zip(DropReason::SENTENCES).skip(2);
        let invalid = InvalidReason::CODES.iter().zip(InvalidReason::SENTENCES);
        let queued = [QueueReason::Fragment, QueueReason::Neighbour];
        let reasons = dropped.chain(invalid).map(|(code, sentence)| (*code, *sentence));
        let reasons = reasons.chain(queued.map(|reason| (reason.code(), reason.sentence())));
        let all: BTreeMap<&str, &str> = reasons.chain([("local", "it is for the router itself")]).collect();
        let list = serde_json::to_string_pretty(&all).unwrap();
        let text = format!(
            "// Made of the core's reasons by crates/wasm/src/protocol.rs: UPDATE_EXPECT=1 cargo test -p stateway-wasm\n\n\
             export const REASONS = {list} as const;\n\nexport type Reason = keyof typeof REASONS;\n"
        );
        expect_file!["../../../web/src/reasons.ts"].assert_eq(&text);
    }
}
