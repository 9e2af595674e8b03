//! What a line shows: conntrack's own format, its `save` and `xml`, and JSON.

use crate::cli::render::Format;
use anyhow::bail;
use clap::ValueEnum;
use stateway_runtime::control::protocol::{EntryView, EventView, FlowView};
use std::fmt::Write as _;

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// What a line shows: extended, timestamp (-E), id, or all of it as save (a command that would make it), xml, json
    #[arg(short = 'o', long = "output", value_name = "TYPE", value_delimiter = ',')]
    pub(super) types: Vec<OutputType>,
    /// `json` is the same as `-o json`
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputType {
    Extended,
    Timestamp,
    Id,
    Save,
    Xml,
    Json,
    /// There are no labels here, so that it shows nothing more
    Labels,
    /// Events of commands look like all others here
    Userspace,
}

/// The form of an entry as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Line,
    Save,
    Xml,
    Json,
}

pub(super) const XML_HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>";
pub(super) const XML_END: &str = "</conntrack>";

impl OutputArgs {
    fn has(&self, kind: OutputType) -> bool {
        self.types.contains(&kind)
    }

    /// # Errors
    /// Two forms at once are asked for, or `save` with anything else.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let forms = [self.is_json(), self.has(OutputType::Save), self.has(OutputType::Xml)];
        if forms.iter().filter(|form| **form).count() > 1 {
            bail!("`save`, `xml` and `json` are three forms: choose one");
        }
        if self.has(OutputType::Save) && self.types.len() > 1 {
            bail!("`-o save` goes with no other output type");
        }
        Ok(())
    }

    pub(super) fn form(&self) -> Form {
        match () {
            () if self.is_json() => Form::Json,
            () if self.has(OutputType::Save) => Form::Save,
            () if self.has(OutputType::Xml) => Form::Xml,
            () => Form::Line,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json || self.has(OutputType::Json)
    }

    /// A line as conntrack-tools print it: `-o extended` puts the family in front.
    fn line<'a>(&self, line: &'a str) -> &'a str {
        if self.has(OutputType::Extended) { line } else { without_family(line) }
    }

    /// `-o id` puts a connection's number behind.
    fn id(&self, entry: Option<&EntryView>) -> String {
        entry.filter(|_| self.has(OutputType::Id)).map_or(String::new(), |entry| format!(" id={}", entry.id))
    }

    /// One connection; `letter` is that of the command which `save` writes.
    pub(super) fn entry(&self, entry: &EntryView, letter: char) -> String {
        match self.form() {
            Form::Save => save(entry, letter),
            Form::Xml => xml(entry, None),
            Form::Line | Form::Json => format!("{}{}", self.line(&entry.line), self.id(Some(entry))),
        }
    }

    /// `[1700000000.123456]    [NEW] tcp …`
    pub(super) fn event(&self, event: &EventView) -> String {
        match (self.form(), &event.entry) {
            (Form::Save, Some(entry)) => save(entry, letter_of(&event.kind)),
            (Form::Xml, Some(entry)) => xml(entry, Some(event)),
            (Form::Line | Form::Save | Form::Xml | Form::Json, entry) => {
                let bracket = event.line.find("] ").map_or(0, |at| at + 2);
                let (kind, rest) = event.line.split_at(bracket);
                let time = if self.has(OutputType::Timestamp) {
                    format!("[{:.6}]\t", event.time)
                } else {
                    String::new()
                };
                format!("{time}{kind}{}{}", self.line(rest), self.id(entry.as_ref()))
            }
        }
    }
}

/// `ipv4     2 tcp …` without its first two words and what is between them.
fn without_family(line: &str) -> &str {
    let after_word = |text: &'static str| line.strip_prefix(text).map(str::trim_start);
    let Some(rest) = after_word("ipv4").or_else(|| after_word("ipv6")) else { return line };
    rest.split_once(' ').map_or(rest, |(_, rest)| rest)
}

fn letter_of(kind: &str) -> char {
    match kind {
        "NEW" => 'A',
        "UPDATE" => 'U',
        _ => 'D',
    }
}

/// The command that would do it again.
fn save(entry: &EntryView, letter: char) -> String {
    let EntryView { original, reply, .. } = entry;
    let status: Vec<&str> =
        entry.status.iter().map(String::as_str).filter(|word| *word != "CONFIRMED").collect();
    let status = if status.is_empty() { "UNSET".to_owned() } else { status.join(",") };
    let mut line = format!("-{letter} -t {} -u {status}", entry.timeout.unwrap_or_default());
    if entry.mark != 0 {
        let _ = write!(line, " -m {}", entry.mark);
    }
    if entry.zone != 0 {
        let _ = write!(line, " -w {}", entry.zone);
    }
    let reply_src = if reply.src == original.dst { 'r' } else { 'g' };
    let reply_dst = if reply.dst == original.src { 'q' } else { 'n' };
    let proto = if entry.name == "unknown" { entry.protocol.to_string() } else { entry.name.clone() };
    let _ = write!(
        line,
        " -s {} -d {} -{reply_src} {} -{reply_dst} {} -p {proto}",
        original.src, original.dst, reply.src, reply.dst
    );
    let options = [
        ("sport", original.sport.map(u32::from)),
        ("dport", original.dport.map(u32::from)),
        ("reply-port-src", reply.sport.map(u32::from)),
        ("reply-port-dst", reply.dport.map(u32::from)),
        ("icmp-type", original.icmp_type.map(u32::from)),
        ("icmp-code", original.icmp_code.map(u32::from)),
        ("icmp-id", original.icmp_id.map(u32::from)),
    ];
    let has_ports = !matches!(entry.protocol, 47 | 50 | 51) && entry.name != "unknown";
    for (name, value) in options {
        if let Some(value) = value.filter(|_| has_ports) {
            let _ = write!(line, " --{name} {value}");
        }
    }
    if let Some(state) = &entry.state {
        let _ = write!(line, " --state {state}");
    }
    if let Some([original, reply]) = entry.vtags {
        let _ = write!(line, " --orig-vtag {original} --reply-vtag {reply}");
    }
    line
}

/// One `<flow>`, of a listing or of an event.
fn xml(entry: &EntryView, event: Option<&EventView>) -> String {
    let kind = event.map_or(String::new(), |event| format!(" type=\"{}\"", event.kind.to_lowercase()));
    let is_gone = event.is_some_and(|event| event.kind == "DESTROY");
    let is_counted = event.is_none() || is_gone;
    let mut text = format!("<flow{kind}>");
    for (direction, flow) in [("original", &entry.original), ("reply", &entry.reply)] {
        text += &xml_direction(entry, direction, flow, is_counted);
    }
    text += "<meta direction=\"independent\">";
    let mut element = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, "<{name}>{value}</{name}>");
        }
    };
    element("state", entry.state.clone());
    element("timeout", entry.timeout.filter(|left| !is_gone || *left > 0).map(|left| left.to_string()));
    element("mark", (entry.mark != 0 || !is_gone).then(|| entry.mark.to_string()));
    element("zone", (entry.zone != 0).then(|| entry.zone.to_string()));
    element("use", event.is_none().then(|| entry.uses.to_string()));
    element("id", Some(entry.id.to_string()));
    let has = |word: &str| entry.status.iter().any(|status| status == word);
    if has("ASSURED") {
        text += "<assured/>";
    }
    if !has("SEEN_REPLY") {
        text += "<unreplied/>";
    }
    text + "</meta></flow>"
}

fn xml_direction(entry: &EntryView, direction: &str, flow: &FlowView, is_counted: bool) -> String {
    let (family, number) = if entry.family == 4 { ("ipv4", 2) } else { ("ipv6", 10) };
    let mut text = format!(
        "<meta direction=\"{direction}\"><layer3 protonum=\"{number}\" protoname=\"{family}\"><src>{}</src><dst>{}</dst></layer3>",
        flow.src, flow.dst
    );
    let _ = write!(text, "<layer4 protonum=\"{}\" protoname=\"{}\">", entry.protocol, entry.name);
    if let (Some(sport), Some(dport), true) = (flow.sport, flow.dport, entry.name != "unknown") {
        let _ = write!(text, "<sport>{sport}</sport><dport>{dport}</dport>");
    }
    text += "</layer4>";
    if let (Some(packets), Some(bytes), true) = (flow.packets, flow.bytes, is_counted) {
        let _ = write!(text, "<counters><packets>{packets}</packets><bytes>{bytes}</bytes></counters>");
    }
    text + "</meta>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_extended_only_when_asked() {
        let line = "ipv4     2 udp      17 29 src=192.0.2.1 dst=192.0.2.2";
        assert_eq!(without_family(line), "udp      17 29 src=192.0.2.1 dst=192.0.2.2");
        let event = EventView {
            kind: "NEW".into(),
            time: 1_700_000_000.25,
            line: format!("    [NEW] {line}"),
            entry: None,
            expectation: None,
        };
        let output = |types: &[OutputType]| OutputArgs { types: types.to_vec(), format: Format::Text };
        assert_eq!(
            output(&[OutputType::Timestamp]).event(&event),
            "[1700000000.250000]\t    [NEW] udp      17 29 src=192.0.2.1 dst=192.0.2.2"
        );
        assert_eq!(output(&[OutputType::Extended]).event(&event), event.line);
    }

    #[test]
    fn one_form_at_a_time() {
        let check =
            |types: &[OutputType]| OutputArgs { types: types.to_vec(), format: Format::Text }.check().is_ok();
        assert!(check(&[OutputType::Xml, OutputType::Id]));
        assert!(!check(&[OutputType::Xml, OutputType::Json]));
        assert!(!check(&[OutputType::Save, OutputType::Id]));
    }
}
