//! Where two answers to one frame differ. Nothing is overlooked here but what the comments name.

#![forbid(unsafe_code)]

use super::ctnetlink::{KernelEntry, KernelExpectation};
use super::kernel::Answer;
use super::subject::{Ours, Sent, Subject};
use core::fmt;
use core::fmt::Write as _;
use core::ops::Range;
use stateway_core::base::EmissionKind;
use stateway_core::conntrack::{Direction, Entry, Expectation, Proto, Status};
use stateway_core::filter::protocol_name;
use stateway_core::packet::{ETHERNET_LEN, Tuple};
use std::collections::{BTreeMap, BTreeSet};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub aspect: &'static str,
    pub kernel: String,
    pub ours: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: kernel {}, stateway {}", self.aspect, self.kernel, self.ours)
    }
}

/// The bits of `IPS_*` that are compared. `DYING`, `TEMPLATE` and the bits of offload say how the kernel is made, not
/// what became of the connection.
const STATUS_BITS: u32 = Status::EXPECTED
    .union(Status::SEEN_REPLY)
    .union(Status::ASSURED)
    .union(Status::CONFIRMED)
    .union(Status::HELPER)
    .union(Status::SRC_NAT)
    .union(Status::DST_NAT)
    .union(Status::SEQ_ADJUST)
    .union(Status::SRC_NAT_DONE)
    .union(Status::DST_NAT_DONE)
    .bits() as u32;

/// Everything in which the two differ; `tick` is when the kernel's connection had been read.
pub fn compare(
    kernel: &Answer,
    ours: &Ours,
    entry: Option<&Entry>,
    subject: &Subject,
    tick: u32,
) -> Vec<Mismatch> {
    let mut found = Mismatches::default();
    found.check("ctstate", kernel.state, ours.state, |state| {
        state.map_or("none", stateway_core::conntrack::CtState::word).to_owned()
    });
    found.check("direction", kernel.direction, ours.direction, |direction| {
        direction.map_or("none", Direction::word).to_owned()
    });
    compare_sent("sent", &kernel.sent, &ours.sent, &mut found);
    compare_entry(kernel.entry.as_ref(), entry, (subject, tick), &mut found);
    found.0
}

/// Compares the frames that left.
pub fn compare_frames(kernel: &Answer, ours: &Ours) -> Option<Mismatch> {
    let mut found = Mismatches::default();
    compare_sent("sent", &kernel.sent, &ours.sent, &mut found);
    found.0.pop()
}

/// Compares what both sent of their own accord while time passed. Timers that end together end in any order.
pub fn compare_unasked(mut kernel: Vec<(usize, Vec<u8>)>, mut ours: Vec<Sent>) -> Vec<Mismatch> {
    let mut found = Mismatches::default();
    let alone = |frame: &[u8], kind| masked(frame, kind, &mut DrawnIds::default());
    kernel.sort_by_cached_key(|(port, frame)| (*port, alone(frame, Some(EmissionKind::Own))));
    ours.sort_by_cached_key(|(port, frame, kind)| (*port, alone(frame, *kind)));
    compare_sent("sent unasked", &kernel, &ours, &mut found);
    found.0
}

/// Compares what a connection looks like on both sides.
pub fn compare_entries(
    kernel: Option<&KernelEntry>,
    ours: Option<&Entry>,
    subject: &Subject,
    tick: u32,
) -> Vec<Mismatch> {
    let mut found = Mismatches::default();
    compare_entry(kernel, ours, (subject, tick), &mut found);
    found.0
}

/// Compares what connections announce that a trace has touched.
pub fn compare_expectations(
    kernel: &[KernelExpectation],
    masters: &[Tuple],
    subject: &Subject,
    tick: u32,
) -> Vec<Mismatch> {
    let mut theirs: Vec<_> = kernel.iter().filter(|e| masters.contains(&e.master)).collect();
    let mut ours = subject.expectations();
    theirs.sort_unstable_by_key(|e| (e.master, e.tuple));
    ours.sort_unstable_by_key(|e| (e.master, e.tuple));
    // The kernel is told to wait in whole seconds, so it has up to one more.
    let has_time = |theirs: u32, ours: &Expectation| {
        let left = subject.seconds_left(ours.expires_at, tick);
        left.contains(&theirs) || left.end() + 1 == theirs
    };
    let same = theirs.len() == ours.len()
        && theirs.iter().zip(&ours).all(|(theirs, ours)| {
            (theirs.master, theirs.tuple) == (ours.master, ours.tuple) && has_time(theirs.timeout, ours)
        });
    if same {
        return Vec::new();
    }
    let line = |master: &Tuple, tuple: &Tuple, left: u64| format!("{tuple:?} of {master:?} {left} s");
    let left = |e: &Expectation| e.timeout(subject.now()).as_secs();
    let theirs: Vec<_> = theirs.iter().map(|e| line(&e.master, &e.tuple, e.timeout.into())).collect();
    let ours: Vec<_> = ours.iter().map(|e| line(&e.master, &e.tuple, left(e))).collect();
    vec![Mismatch { aspect: "expectations", kernel: theirs.join(", "), ours: ours.join(", ") }]
}

/// Compares rules as `iptables-save -c` prints them, line by line: their text and their counters.
pub fn compare_rules(kernel: &str, ours: &str) -> Vec<Mismatch> {
    let (theirs, ours) = (by_table(kernel), by_table(ours));
    let names: BTreeSet<&str> = theirs.keys().chain(ours.keys()).copied().collect();
    let mut found = Mismatches::default();
    for name in names {
        let none = Vec::new();
        let (theirs, ours) = (theirs.get(name).unwrap_or(&none), ours.get(name).unwrap_or(&none));
        // A table that only one side has, and that lets everything pass, is as good as none.
        if [theirs, ours].iter().any(|lines| lines.is_empty())
            && theirs.iter().chain(ours).all(|line| *line == "COMMIT" || line.contains(" ACCEPT ["))
        {
            continue;
        }
        for at in 0..theirs.len().max(ours.len()) {
            let line = |list: &[&str]| list.get(at).copied().unwrap_or("nothing").to_owned();
            let (theirs, ours) = (line(theirs), line(ours));
            found.check("saved", whatever_version(&theirs), whatever_version(&ours), Clone::clone);
        }
    }
    found.0
}

/// A saved rule without what depends on the version of iptables: it has names of protocols, as the router prints them and
/// iptables does up to 1.8.9, and no `! --dport 0:65535`, of which 1.8.9 prints nothing.
pub fn whatever_version(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    name_protocol(&mut words);
    drop_negated_whole_ranges(&mut words);
    words.join(" ")
}

/// Newer tools print the number of a protocol that they have no extension for (`-p 47`).
fn name_protocol(words: &mut [&str]) {
    if let Some(at) = words.iter().position(|word| *word == "-p")
        && let Some(word) = words.get_mut(at + 1)
        && let Some(name) = word.parse().ok().and_then(protocol_name)
    {
        *word = name;
    }
}

/// Such a rule never holds.
fn drop_negated_whole_ranges(words: &mut Vec<&str>) {
    while let Some(at) = words.windows(3).position(|part| {
        part[0] == "!" && part[1].starts_with("--") && matches!(part[2], "0:65535" | "0:4294967295")
    }) {
        words.drain(at..at + 3);
    }
}

/// The tables come in the order in which the kernel met them.
fn by_table(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut table = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('*') {
            Some(name) => table = name,
            None => tables.entry(table).or_default().push(line),
        }
    }
    // A table that does nothing and has seen nothing is as good as none.
    let is_idle =
        |line: &&str| *line == "COMMIT" || (line.starts_with(':') && line.ends_with(" ACCEPT [0:0]"));
    tables.retain(|_, lines| !lines.iter().all(is_idle));
    tables
}

#[derive(Default)]
struct Mismatches(Vec<Mismatch>);

impl Mismatches {
    fn check<T: PartialEq>(&mut self, aspect: &'static str, kernel: T, ours: T, show: impl Fn(&T) -> String) {
        if kernel != ours {
            self.0.push(Mismatch { aspect, kernel: show(&kernel), ours: show(&ours) });
        }
    }
}

fn compare_sent(aspect: &'static str, kernel: &[(usize, Vec<u8>)], ours: &[Sent], found: &mut Mismatches) {
    let kernel: Vec<(usize, &[u8])> = kernel.iter().map(|(port, bytes)| (*port, &bytes[..])).collect();
    let (mut their_ids, mut our_ids) = (DrawnIds::default(), DrawnIds::default());
    let same = kernel.len() == ours.len()
        && kernel.iter().zip(ours).all(|((to, theirs), (port, frame, kind))| {
            to == port && masked(theirs, *kind, &mut their_ids) == masked(frame, *kind, &mut our_ids)
        });
    if !same {
        let ours: Vec<_> = ours.iter().map(|(port, bytes, _)| (*port, &bytes[..])).collect();
        found.0.push(Mismatch { aspect, kernel: show_sent(&kernel), ours: show_sent(&ours) });
    }
}

/// The identifications that one side has drawn, in the order in which they came: which they are is chance, but pieces of one
/// packet have the same, and those of others another.
#[derive(Default)]
struct DrawnIds(Vec<[u8; 4]>);

impl DrawnIds {
    fn number(&mut self, id: [u8; 4]) -> [u8; 4] {
        let known = self.0.iter().position(|known| *known == id);
        let at = known.unwrap_or_else(|| {
            self.0.push(id);
            self.0.len() - 1
        });
        (at as u32).to_be_bytes()
    }
}

/// A frame without what is left out of the comparison: the IPv4 identification of the router's own packets, and the times
/// in IPv4 timestamp options. The identifications of IPv6 fragments that it cut are numbered.
fn masked(frame: &[u8], kind: Option<EmissionKind>, ids: &mut DrawnIds) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match (frame.get(ETHERNET_LEN).map(|b| b >> 4), kind) {
        (Some(4), Some(EmissionKind::Own)) if frame.len() >= ETHERNET_LEN + 20 => {
            frame[ETHERNET_LEN + 4..ETHERNET_LEN + 6].fill(0);
            frame[ETHERNET_LEN + 10..ETHERNET_LEN + 12].fill(0);
        }
        (Some(6), Some(EmissionKind::Fragment | EmissionKind::Own)) => {
            if let Some(id) =
                fragment_header(&frame).and_then(|at| frame.get_mut(at + 4..)?.first_chunk_mut())
            {
                *id = ids.number(*id);
            }
        }
        _ => {}
    }
    if let Some(packet) = frame.get_mut(ETHERNET_LEN..) {
        mask_times(packet);
    }
    frame
}

/// Takes the times out of an IPv4 packet's options and of a packet that it quotes, with the checksums over them.
fn mask_times(packet: &mut [u8]) {
    const ICMP: u8 = 1;
    const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
    const ICMP_LEN: usize = 8;
    let header_len = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if packet.first().is_none_or(|first| first >> 4 != 4) || !(20..=packet.len()).contains(&header_len) {
        return;
    }
    if let Some(times) = times_in(&packet[20..header_len]) {
        packet[20..header_len][times].fill(0);
        packet[10..12].fill(0);
    }
    let is_icmp = packet[9] == ICMP;
    let upper = &mut packet[header_len..];
    if is_icmp && upper.len() > ICMP_LEN && ICMP_ERRORS.contains(&upper[0]) {
        let before = upper[ICMP_LEN..].to_vec();
        mask_times(&mut upper[ICMP_LEN..]);
        if upper[ICMP_LEN..] != before {
            upper[2..4].fill(0);
        }
    }
}

/// Where the times of a timestamp option stand among IPv4 options (RFC 791 §3.1).
fn times_in(options: &[u8]) -> Option<Range<usize>> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const TIMESTAMP: u8 = 68;
    const UP_TO_FLAGS: usize = 4;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            END => return None,
            NOP => 1,
            _ => usize::from(*options.get(at + 1)?).max(2),
        };
        if kind == TIMESTAMP && len > UP_TO_FLAGS {
            return Some(at + UP_TO_FLAGS..(at + len).min(options.len()))
                .filter(|times| times.start < times.end);
        }
        at += len;
    }
    None
}

fn fragment_header(frame: &[u8]) -> Option<usize> {
    const FRAGMENT: u8 = 44;
    let (mut next, mut at) = (*frame.get(ETHERNET_LEN + 6)?, ETHERNET_LEN + 40);
    while next != FRAGMENT {
        if !matches!(next, 0 | 43 | 60) {
            return None;
        }
        next = *frame.get(at)?;
        at += (usize::from(*frame.get(at + 1)?) + 1) * 8;
    }
    (frame.len() >= at + 8).then_some(at)
}

fn compare_entry(
    kernel: Option<&KernelEntry>,
    ours: Option<&Entry>,
    (subject, tick): (&Subject, u32),
    found: &mut Mismatches,
) {
    let (Some(theirs), Some(entry)) = (kernel, ours) else {
        if kernel.is_some() != ours.is_some() {
            let ours = ours.map_or("none".to_owned(), |entry| show_entry(entry, subject));
            let kernel = kernel.map_or("none".to_owned(), show_kernel_entry);
            found.0.push(Mismatch { aspect: "entry", kernel, ours });
        }
        return;
    };
    found.check("original", theirs.original, Some(entry.original), |t| format!("{t:?}"));
    found.check("reply", theirs.reply, Some(entry.reply()), |t| format!("{t:?}"));
    let bits = u32::from(entry.status.bits()) & STATUS_BITS;
    found.check("status", theirs.status & STATUS_BITS, bits, |bits| {
        format!("{:?}", Status::from_bits_truncate(*bits as u16))
    });
    found.check("mark", theirs.mark, entry.mark, ToString::to_string);
    let helper = entry.helper.map(|helper| helper.name().to_owned());
    found.check("helper", theirs.helper.clone(), helper, |h| h.clone().unwrap_or_else(|| "none".to_owned()));
    compare_proto(theirs, entry, found);
    let left = subject.seconds_left(entry.expires_at, tick);
    if !left.contains(&theirs.timeout) {
        found.check("timeout", theirs.timeout, *left.end(), ToString::to_string);
    }
}

fn compare_proto(theirs: &KernelEntry, entry: &Entry, found: &mut Mismatches) {
    let (tcp, sctp) = match entry.proto() {
        Proto::Tcp(tcp) => (Some(tcp.state() as u8), None),
        Proto::Sctp(sctp) => (None, Some(sctp.state() as u8)),
        Proto::Plain => (None, None),
    };
    let show = |state: &Option<u8>| state.map_or("none".to_owned(), |state| tcp_state_word(state).to_owned());
    found.check("tcp state", theirs.tcp.map(|tcp| tcp.state), tcp, show);
    found.check("sctp state", theirs.sctp, sctp, |s| format!("{s:?}"));
}

/// The kernel's numbers are ours.
pub fn tcp_state_word(state: u8) -> &'static str {
    stateway_core::conntrack::tcp::TcpState::ALL.get(usize::from(state)).map_or("?", |state| state.name())
}

fn show_sent(sent: &[(usize, &[u8])]) -> String {
    if sent.is_empty() {
        return "nothing".to_owned();
    }
    let frame = |(port, bytes): &(usize, &[u8])| format!("{} {}", super::kernel::NAMES[*port], hex(bytes));
    sent.iter().map(frame).collect::<Vec<_>>().join(", ")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn show_entry(entry: &Entry, subject: &Subject) -> String {
    let state = entry.state_word().unwrap_or("-");
    let (left, original) = (entry.timeout(subject.now()).as_secs(), entry.original);
    format!("{state} {:?} {left} s, {original:?} | {:?}", entry.status, entry.reply())
}

fn show_kernel_entry(entry: &KernelEntry) -> String {
    let state = entry.tcp.map_or("-", |tcp| tcp_state_word(tcp.state));
    let status = Status::from_bits_truncate((entry.status & STATUS_BITS) as u16);
    let tuple = |tuple: Option<Tuple>| tuple.map_or(String::new(), |t| format!("{t:?}"));
    let (original, reply) = (tuple(entry.original), tuple(entry.reply));
    format!("{state} {status:?} {} s, {original} | {reply}", entry.timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece with the identification `id`, which the router cut or passed on.
    fn piece(id: u32, kind: Option<EmissionKind>) -> Sent {
        let mut frame = vec![0; ETHERNET_LEN + 40];
        (frame[ETHERNET_LEN], frame[ETHERNET_LEN + 6]) = (0x60, 44);
        frame.extend([&[17, 0, 0, 1][..], &id.to_be_bytes()].concat());
        (0, frame, kind)
    }

    fn differ(kernel: [u32; 3], ours: [u32; 3], kind: Option<EmissionKind>) -> bool {
        let mut found = Mismatches::default();
        let kernel: Vec<_> =
            kernel.into_iter().map(|id| piece(id, None)).map(|(to, frame, _)| (to, frame)).collect();
        compare_sent("sent", &kernel, &ours.map(|id| piece(id, kind)), &mut found);
        !found.0.is_empty()
    }

    #[test]
    fn identifications_are_compared_as_far_as_they_are_no_chance() {
        let cut = Some(EmissionKind::Fragment);
        assert!(!differ([7, 7, 9], [1, 1, 2], cut), "drawn on both sides");
        assert!(differ([7, 7, 9], [1, 2, 2], cut), "of another packet");
        assert!(differ([7, 7, 9], [1, 1, 2], None), "passed on as they came");
        assert!(!differ([7, 7, 9], [7, 7, 9], None));
    }

    #[test]
    fn a_protocol_by_number_is_the_one_by_name_and_no_other() {
        let saved = |rule: &str| format!("*filter\n{rule}\nCOMMIT\n");
        let differ = |kernel: &str, ours: &str| !compare_rules(&saved(kernel), &saved(ours)).is_empty();
        assert!(!differ("[1:84] -A FORWARD -p 47 -j ACCEPT", "[1:84] -A FORWARD -p gre -j ACCEPT"));
        assert!(!differ("[0:0] -A FORWARD ! -p 47", "[0:0] -A FORWARD ! -p gre"));
        assert!(!differ("[0:0] -A FORWARD -p 253", "[0:0] -A FORWARD -p 253"), "it has no name");
        assert!(differ("[0:0] -A FORWARD -p 47", "[0:0] -A FORWARD -p esp"));
        assert!(differ("[1:84] -A FORWARD -p 47", "[0:0] -A FORWARD -p gre"), "counters");
    }

    #[test]
    fn what_newer_tools_print_besides_is_left_out() {
        let printed = [
            ("-A A -p tcp -m tcp ! --sport 0:65535 ! --dport 0:65535", "-A A -p tcp -m tcp"),
            ("-A A -p tcp -m tcp ! --dport 1:65535", "-A A -p tcp -m tcp ! --dport 1:65535"),
            ("-A A -p ah -m ah ! --ahspi 0:4294967295 -j B", "-A A -p ah -m ah -j B"),
        ];
        for (newer, older) in printed {
            assert_eq!(whatever_version(newer), older);
        }
    }
}
