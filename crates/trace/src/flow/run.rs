//! A scenario against the router: what became of each packet, and whether that was expected.

#![forbid(unsafe_code)]

use super::build::{datagram, frame};
use super::{AddressChange, Expect, Flow, Load, Scenario, Step};
use core::net::{IpAddr, SocketAddr};
use stateway_core::RouterError;
use stateway_core::base::EmissionKind;
use stateway_core::config::{Mode, NeighbourConfig, RouteConfig, RouteTarget, RouterConfig};
use stateway_core::conntrack::listing::{self, proto_name};
use stateway_core::conntrack::{CtState, Entry, Expectation, Filter, Status, flow_of};
use stateway_core::fate::{Fate, QueueReason};
use stateway_core::filter::RejectWith;
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::tuple::PROTO_UDP;
use stateway_core::packet::{Addr, Family, Frame, Mac, Offload, Packet, Prefix, Tuple};
use stateway_core::record::{NoRecord, Note, Recorder, Trace};
use stateway_core::router::{Router, Worker};
use stateway_core::time::Instant;

/// The two interfaces of every scenario, by their place.
pub const IFACES: [&str; 2] = ["left", "right"];
/// Where packets come from that a program on the router sends.
pub const ROUTER: &str = "router";
/// The router's own link addresses.
pub const ROUTER_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 2, 1]];
/// Who sits on the other end of each link, and is the next hop for everything behind it.
pub const STATION_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 2, 2]];
/// The router's own addresses.
const ADDRESSES: [[&str; 2]; 2] = [["192.0.2.1", "2001:db8:1::1"], ["198.51.100.1", "2001:db8:2::1"]];
/// The next hop on each side.
const GATEWAYS: [[&str; 2]; 2] =
    [["192.0.2.254", "2001:db8:1::fffe"], ["198.51.100.254", "2001:db8:2::fffe"]];
/// What lies behind the next hops: nearly everything, so that no scenario waits for a neighbour unless it means to.
const ROUTES: [(&str, u8, usize); 7] = [
    ("192.0.2.0", 24, 0),
    ("198.18.0.0", 16, 0),
    ("2001:db8:1::", 48, 0),
    ("198.51.100.0", 24, 1),
    ("203.0.113.0", 25, 1),
    ("198.19.0.0", 16, 1),
    ("2001:db8::", 32, 1),
];

/// Any time will do: the router only counts from there.
pub(super) const START: Instant = Instant::from_secs(1000);

/// What became of one packet, in the words of the last columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub columns: Expect,
    /// What left, and where.
    pub sent: Vec<(IfaceId, Vec<u8>)>,
}

/// A scenario that is being played.
#[derive(Debug)]
pub struct Run {
    config: RouterConfig,
    listeners: Vec<(u16, Vec<u8>)>,
    router: Router,
    worker: Worker,
    mode: Mode,
    zones: Vec<u16>,
    /// In force: IPv4 and IPv6.
    rules: [Option<String>; 2],
    now: Instant,
    /// Changes of addresses that could not be made, and why.
    refused: Vec<String>,
}

impl Run {
    /// # Errors
    /// Everything that is wrong with the scenario's rules and settings.
    pub fn new(scenario: &Scenario) -> Result<Self, Vec<RouterError>> {
        let zones = scenario.flows.iter().map(|flow| flow.zone).collect();
        let router = Router::new(config(scenario))?;
        let worker = router.worker();
        let rules = [Some(scenario.rules.clone()), scenario.rules6.clone()];
        let mut later = rules.clone();
        for load in scenario.steps.iter().filter_map(|step| step.load.as_ref()) {
            let [v4, v6] = after(load, &mut later);
            let mut config = config(scenario);
            (config.rules, config.rules6) = (v4.map(str::to_owned), v6.map(str::to_owned));
            Router::new(config)?;
        }
        let listeners = scenario.listeners.clone();
        let config = config(scenario);
        Ok(Self {
            config,
            listeners,
            router,
            worker,
            mode: scenario.mode,
            zones,
            rules,
            now: START,
            refused: Vec::new(),
        })
    }

    /// The router as it stands.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// Gives one packet to the router, and waits for whatever is due before.
    pub fn step(&mut self, step: &Step) -> Observed {
        let mut trace = Trace::default();
        let (fate, pieces, sent) = self.carry(step, &mut trace);
        let zone = step.flow.map_or(0, |flow| self.zones[flow]);
        let ctstate = ctstate(&trace);
        let wants_status = step.expect.as_ref().is_some_and(|expect| expect.status.is_some());
        let entry = ctstate.as_ref().and_then(|_| self.entry(frame_of(self.mode, step).1, zone, self.now));
        let columns = Expect {
            ctstate: ctstate.unwrap_or_else(|| "-".to_owned()),
            tracker: entry.as_ref().and_then(Entry::state_word).unwrap_or("-").to_owned(),
            fate: fate_word(fate, pieces),
            status: entry.as_ref().map(|entry| entry.status.bits().into()).filter(|_| wants_status),
            entry: entry.map(|entry| entry_words(&entry, &sent, self.now)).unwrap_or_default(),
        };
        Observed { columns, sent }
    }

    /// As [`Run::step`], but nobody listens, as in a router at work: the fate, and what left.
    pub fn step_unheard(&mut self, step: &Step) -> (String, Vec<(IfaceId, Vec<u8>)>) {
        let (fate, pieces, sent) = self.carry(step, &mut NoRecord);
        (fate_word(fate, pieces), sent)
    }

    /// What was counted so far, and what is in the table.
    pub fn counted(&self) -> String {
        let mut text = self.counters().concat();
        for (code, n) in self.router.drop_counters().filter(|(_, n)| *n > 0) {
            text.push_str(&format!("{code} {n}\n"));
        }
        text + &self.tracked().join("\n")
    }

    /// Rules with what they have counted, IPv4 and IPv6.
    pub fn counters(&self) -> [String; 2] {
        let rules = self.router.rules();
        [Family::Ipv4, Family::Ipv6]
            .map(|family| rules.for_family(family).map(|rules| rules.render(true)).unwrap_or_default())
    }

    /// All connections, as `conntrack -L -o extended` prints them, in the order of their text.
    pub fn tracked(&self) -> Vec<String> {
        let entries = self.router.conntrack().list(&Filter::default(), self.now);
        let options = listing::Options { extended: true, id: None };
        let mut lines: Vec<_> =
            entries.iter().map(|entry| listing::entry(entry, self.now, options)).collect();
        lines.sort();
        lines
    }

    /// Its fate, how many pieces left, and every frame that left.
    fn carry<R: Recorder>(&mut self, step: &Step, rec: &mut R) -> (Fate, usize, Vec<(IfaceId, Vec<u8>)>) {
        self.now = START + step.at;
        if let Some(load) = &step.load {
            self.load(load);
        }
        if !step.addresses.is_empty() {
            self.readdress(&step.addresses);
        }
        self.router.handle_timeout(&mut self.worker, self.now);
        self.worker.take_emissions();

        if step.iface == ROUTER {
            let fate = self.router.originate(&mut self.worker, self.now, &step.packet, rec);
            return (fate, 0, self.emissions());
        }
        let (from, mut bytes) = frame_of(self.mode, step);
        let iface = IfaceId(from as u16);
        let outcome = self.router.process(&mut self.worker, self.now, iface, Frame::new(&mut bytes), rec);

        if outcome.fate == Fate::Delivered {
            self.answer(&mut bytes, rec);
        }
        let mut sent: Vec<(IfaceId, Vec<u8>)> = Vec::new();
        sent.extend(outcome.out.map(|iface| (iface, bytes[..outcome.len].to_vec())));
        let mut pieces = 0;
        for emission in self.worker.take_emissions() {
            pieces += usize::from(emission.kind == EmissionKind::Fragment);
            sent.push((emission.iface, emission.frame));
        }
        (outcome.fate, pieces, sent)
    }

    /// What the router sends besides.
    fn emissions(&mut self) -> Vec<(IfaceId, Vec<u8>)> {
        self.worker.take_emissions().map(|sent| (sent.iface, sent.frame)).collect()
    }

    /// Has the program that listens there answer a datagram.
    fn answer<R: Recorder>(&mut self, frame: &mut [u8], rec: &mut R) {
        if let Some(packet) = answer_to(frame, &self.listeners) {
            self.router.originate(&mut self.worker, self.now, &packet, rec);
        }
    }

    /// Goes on under other addresses.
    fn readdress(&mut self, changes: &[AddressChange]) {
        let mut config = self.config.clone();
        change_addresses(&mut config.ifaces, changes);
        match self.router.readdress(config.clone(), self.now) {
            Ok(()) => self.config = config,
            Err(errors) => self.refused.extend(errors.iter().map(ToString::to_string)),
        }
    }

    /// Why changes of addresses could not be made.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// The connections that are expected now, in the order of their text: `198.51.100.10 > 192.0.2.10:51210 tcp`.
    pub fn announced(&self) -> Vec<String> {
        let name = |e: Expectation| {
            let Tuple { src, dst, right, proto, family, .. } = e.tuple;
            let (src, dst) = (src.to_ip(family), SocketAddr::new(dst.to_ip(family), right));
            format!("{src} > {dst} {}", proto_name(proto))
        };
        let mut names: Vec<String> =
            self.router.conntrack().expectations(self.now).into_iter().map(name).collect();
        names.sort_unstable();
        names
    }

    /// Replaces the rules by others that were looked at before.
    fn load(&mut self, load: &Load) {
        let [v4, v6] = after(load, &mut self.rules);
        let loaded = self.router.replace_rules(v4, v6);
        debug_assert!(loaded.is_ok(), "{loaded:?}");
    }

    fn entry(&self, mut frame: Vec<u8>, zone: u16, now: Instant) -> Option<Entry> {
        let pkt = Packet::parse(&mut frame, Offload::NONE).ok()?;
        self.router.conntrack().find(&pkt, zone, now)
    }
}

/// What a program answers to a datagram that was delivered to one of these ports: an IP packet without a source, since its socket
/// is bound to no address.
pub fn answer_to(frame: &mut [u8], listeners: &[(u16, Vec<u8>)]) -> Option<Vec<u8>> {
    let pkt = Packet::parse(frame, Offload::NONE).ok()?;
    let (from, port) = pkt.ports().filter(|_| pkt.proto() == PROTO_UDP)?;
    let (_, text) = listeners.iter().find(|(heard, _)| *heard == port)?;
    Some(datagram(pkt.family(), pkt.src(), [port, from], text))
}

/// The addresses of an interface once they have changed.
pub fn change_addresses(ifaces: &mut [Iface], changes: &[AddressChange]) {
    for AddressChange { is_added, iface, prefix } in changes {
        let addresses = &mut ifaces[*iface].addresses;
        if *is_added {
            addresses.push(*prefix);
        } else {
            addresses.retain(|own| own != prefix);
        }
    }
}

/// The rules of both families once `load` has replaced those that it names.
fn after<'a>(load: &Load, rules: &'a mut [Option<String>; 2]) -> [Option<&'a str>; 2] {
    for (rules, loaded) in rules.iter_mut().zip([&load.rules, &load.rules6]) {
        if loaded.is_some() {
            rules.clone_from(loaded);
        }
    }
    [rules[0].as_deref(), rules[1].as_deref()]
}

/// The frame of a step, and the place of the interface that it comes in on.
pub(super) fn frame_of(mode: Mode, step: &Step) -> (usize, Vec<u8>) {
    let from = usize::from(step.iface == IFACES[1]);
    if step.is_frame {
        return (from, step.packet.clone());
    }
    let dst = match mode {
        Mode::Route => ROUTER_MACS[from],
        Mode::Bridge => STATION_MACS[1 - from],
    };
    (from, frame(dst, STATION_MACS[from], &step.packet, step.padding))
}

/// What rules saw; `None` if the packet did not come as far as tracking.
fn ctstate(trace: &Trace) -> Option<String> {
    let of_the_packet = trace.notes.iter().take_while(|note| !matches!(note, Note::Fate(_)));
    let tracked = of_the_packet.into_iter().find_map(|note| match note {
        Note::Tracked(tracked) => Some(tracked),
        _ => None,
    })?;
    Some(match (tracked.state, tracked.invalid) {
        (CtState::Invalid, Some(reason)) => format!("INVALID({reason})"),
        (state, _) => state.word().to_owned(),
    })
}

fn fate_word(fate: Fate, pieces: usize) -> String {
    match fate {
        Fate::Forwarded if pieces > 1 => format!("forwarded*{pieces}"),
        Fate::Forwarded | Fate::Delivered => fate.word().to_owned(),
        Fate::Dropped(reason) => format!("dropped({reason})"),
        Fate::Rejected(RejectWith::TcpReset, _) => "rejected(tcp-reset)".to_owned(),
        Fate::Rejected(RejectWith::Icmp(kind, code), _) => format!("rejected({kind}/{code})"),
        Fate::Queued(reason @ (QueueReason::Fragment | QueueReason::Neighbour)) => {
            format!("queued({})", reason.code())
        }
    }
}

fn entry_words(entry: &Entry, sent: &[(IfaceId, Vec<u8>)], now: Instant) -> Vec<String> {
    let left = entry.timeout(now);
    let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let mut words = vec![format!("{secs}s")];
    let status = entry.status;
    words.push(
        if status.contains(Status::ASSURED) {
            "assured"
        } else if status.contains(Status::SEEN_REPLY) {
            "replied"
        } else {
            "unreplied"
        }
        .to_owned(),
    );
    if status.contains(Status::EXPECTED) {
        words.push("expected".to_owned());
    }
    if status.intersects(Status::SRC_NAT | Status::DST_NAT) {
        words.push(format!("reply={}", ends(&entry.reply())));
        words.extend(sent.first().and_then(|(_, frame)| sent_as(frame)));
    }
    words
}

/// What leaves of a translated connection: `sent=198.51.100.1:5000>198.51.100.10:53`.
fn sent_as(frame: &[u8]) -> Option<String> {
    let mut frame = frame.to_vec();
    let pkt = Packet::parse(&mut frame, Offload::NONE).ok()?;
    let is_sound = if pkt.l4_checksum_ok() { "" } else { ",badsum" };
    Some(format!("sent={}{is_sound}", ends(&flow_of(&pkt, 0)?)))
}

/// Both ends with their ports, or with the identifier behind a `#`.
fn ends(tuple: &Tuple) -> String {
    let Tuple { src, dst, left, right, family, .. } = *tuple;
    let (src, dst) = (src.to_ip(family), dst.to_ip(family));
    if tuple.is_icmp() {
        return format!("{src}>{dst}#{left}");
    }
    match (left, right) {
        (0, 0) => format!("{src}>{dst}"),
        _ => format!("{}>{}", SocketAddr::new(src, left), SocketAddr::new(dst, right)),
    }
}

/// UDP ports on which a program of the router's takes datagrams: it listens there, or has sent from there.
pub fn heard(scenario: &Scenario) -> Vec<u16> {
    let listened = scenario.listeners.iter().map(|(port, _)| *port);
    let sends = |flow: &&Flow| flow.proto == PROTO_UDP && flow.opener.iface == ROUTER;
    listened.chain(scenario.flows.iter().filter(sends).map(|flow| flow.opener.port)).collect()
}

/// The router that every scenario runs on: two interfaces, a next hop on each.
pub fn config(scenario: &Scenario) -> RouterConfig {
    let mut bare = RouterConfig::new((0..IFACES.len()).map(|at| iface(scenario, at)).collect());
    bare.mode = scenario.mode;
    bare.sysctl.clone_from(&scenario.sysctl);
    bare.rules = Some(scenario.rules.clone());
    bare.rules6.clone_from(&scenario.rules6);
    bare.udp_listeners = heard(scenario);
    if scenario.mode == Mode::Bridge {
        return bare;
    }
    let route = |&(net, len, at): &(&str, u8, usize)| {
        let to = prefix(net, len);
        let (gateway, _) = address(GATEWAYS[at][usize::from(to.family == Family::Ipv6)]);
        RouteConfig { to, target: RouteTarget::Via { gateway, iface: IfaceId(at as u16) } }
    };
    let neighbour = |(at, gateway): (usize, &str)| {
        let (addr, family) = address(gateway);
        NeighbourConfig { addr, family, mac: Mac(STATION_MACS[at]), iface: IfaceId(at as u16) }
    };
    let gateways = GATEWAYS.iter().enumerate().flat_map(|(at, pair)| pair.map(|gateway| (at, gateway)));
    {
        let mut made = bare;
        made.routes = ROUTES.iter().map(route).chain(scenario.routes.iter().cloned()).collect();
        made.neighbours = gateways.map(neighbour).collect();
        made
    }
}

fn iface(scenario: &Scenario, at: usize) -> Iface {
    let mut iface = Iface::new(scenario.ports[at].clone(), IfaceId(at as u16));
    iface.mac = Mac(ROUTER_MACS[at]);
    if scenario.mode == Mode::Route {
        let own = |text: &&str| {
            let (addr, family) = address(text);
            Prefix::new(addr, family.bits(), family)
        };
        iface.addresses = ADDRESSES[at].iter().map(own).collect();
        for more in scenario.addresses.iter().filter(|more| more.iface == at) {
            iface.addresses.insert(if more.is_first { 0 } else { iface.addresses.len() }, more.prefix);
        }
    }
    if let Some((_, mtu)) = scenario.mtu.iter().find(|(name, _)| *name == IFACES[at]) {
        iface.mtu_bytes = *mtu;
    }
    iface
}

fn address(text: &str) -> (Addr, Family) {
    let ip: IpAddr = text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    (Addr::from(ip), Family::from(ip))
}

fn prefix(text: &str, len: u8) -> Prefix {
    let (addr, family) = address(text);
    Prefix::new(addr, len, family)
}

/// The text of a scenario with its last columns rewritten to what was observed, and lined up.
pub fn update(text: &str, scenario: &Scenario, observed: &[Observed]) -> String {
    let columns = |line: usize| {
        let at = scenario.steps.iter().position(|step| step.line == line)?;
        Some((scenario.steps[at].expect.clone(), &observed.get(at)?.columns))
    };
    let mut rows: Vec<(String, Option<&Expect>)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        match columns(at + 1) {
            Some((old, new)) => rows.push((without_columns(line, old.as_ref()), Some(new))),
            None => rows.push((line.trim_end().to_owned(), None)),
        }
    }
    let width = rows.iter().filter(|(_, new)| new.is_some()).map(|(left, _)| left.chars().count()).max();
    let [ctstate, tracker, fate] = [
        |e: &Expect| e.ctstate.chars().count(),
        |e: &Expect| e.tracker.chars().count(),
        |e: &Expect| if e.entry.is_empty() { 0 } else { e.fate.chars().count() },
    ]
    .map(|len| rows.iter().filter_map(|(_, new)| new.map(len)).max().unwrap_or(0));
    let mut updated = String::new();
    for (left, new) in rows {
        let line = match new {
            None => left,
            Some(new) => format!(
                "{left:width$}  {:ctstate$}  {:tracker$}  {:fate$}  {}",
                new.ctstate,
                new.tracker,
                new.fate,
                new.entry_text(),
                width = width.unwrap_or(0),
            ),
        };
        updated.push_str(line.trim_end());
        updated.push('\n');
    }
    updated
}

/// A step's line up to its last columns.
fn without_columns(line: &str, old: Option<&Expect>) -> String {
    let Some(old) = old else { return line.trim_end().to_owned() };
    // The last place where the columns begin: nothing behind them looks like one.
    let begins = |at: &usize| {
        let rest = &line[*at..];
        rest.split_whitespace().eq(old.to_string().split_whitespace()) && line[..*at].ends_with(' ')
    };
    let end = line.char_indices().map(|(at, _)| at).rfind(begins).unwrap_or(line.len());
    line[..end].trim_end().to_owned()
}
