//! The text of a scenario → the scenario, or all its errors.

#![forbid(unsafe_code)]

use super::packet::{Built, error, of_flow};
use super::words::{Word, Words, hex, number};
use super::{
    Address, AddressChange, Expect, Flow, FlowError, IFACES, Link, Load, Out, ROUTER, STANDARD, Scenario,
    Side, Step,
};
use core::net::{IpAddr, SocketAddr};
use stateway_core::config::{Mode, RouteConfig, RouteTarget};
use stateway_core::conntrack::Direction;
use stateway_core::iface::IfaceId;
use stateway_core::packet::tuple::{
    PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE,
};
use stateway_core::packet::{Addr, Family, Prefix};
use stateway_core::time::Duration;

/// A text with so many faults is no scenario: the rest of it is not looked at.
const MAX_ERRORS: usize = 1000;

/// Reads a scenario.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines.
pub fn parse(text: &str) -> Result<Scenario, Vec<FlowError>> {
    let mut reader = Reader::default();
    let mut errors = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if errors.len() >= MAX_ERRORS {
            errors
                .push(FlowError { line: at + 1, message: "there may be more problems from here on".into() });
            return Err(errors);
        }
        if let Err(message) = reader.line(at + 1, line) {
            errors.push(FlowError { line: at + 1, message });
        }
    }
    if reader.block.is_some() {
        errors
            .push(FlowError { line: text.lines().count(), message: "`end` of the rules is missing".into() });
    }
    if reader.load.is_some() || !reader.changes.is_empty() {
        let message = "no packet comes after `load` or `address add`".into();
        errors.push(FlowError { line: text.lines().count(), message });
    }
    if errors.is_empty() { Ok(reader.finish()) } else { Err(errors) }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    title: Option<String>,
    mode: Option<Mode>,
    ports: Option<[String; 2]>,
    sysctl: Vec<(String, String)>,
    mtu: Vec<(String, usize)>,
    addresses: Vec<Address>,
    routes: Vec<RouteConfig>,
    no_rules6: bool,
    flows: Vec<Flow>,
    steps: Vec<Step>,
    listeners: Vec<(u16, Vec<u8>)>,
    announced: Option<Vec<String>>,
    tracked: Option<Vec<String>>,
    counted: [Option<Vec<String>>; 2],
    rules: Rules,
    rules6: Rules,
    /// What the next packet finds in force.
    load: Option<Load>,
    changes: Vec<AddressChange>,
    block: Option<Block>,
    now: Duration,
}

/// Inside rules that go on until `end`.
#[derive(Clone, Copy)]
enum Block {
    /// `rules`, `rules6`
    Rules(Family),
    /// `load`, `load6`
    Load(Family),
    Tracked,
    /// `counted`, `counted6`
    Counted(Family),
}

#[derive(Default)]
struct Rules {
    block: Option<String>,
    policies: Vec<(String, String)>,
    /// Table, and the rule as `-A CHAIN …`.
    lines: Vec<(String, String)>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if let Some(block) = self.block {
            if line.trim() == "end" {
                self.block = None;
            } else {
                self.add_to(block, line.trim());
            }
            return Ok(());
        }
        if let Some(comment) = line.trim().strip_prefix('#') {
            self.title.get_or_insert_with(|| comment.trim().to_owned());
            return Ok(());
        }
        let mut words = Words::split(line)?;
        let Some(first) = words.peek().map(str::to_owned) else {
            return if words.is_empty() { Ok(()) } else { Err("a line begins with a word".to_owned()) };
        };
        if first.starts_with(|c: char| c == '+' || c.is_ascii_digit()) {
            return self.step(number, words);
        }
        words.next();
        match first.as_str() {
            "flow" => self.flow(&mut words)?,
            "policy" => self.rules.policies.push((words.plain("chain")?, words.plain("target")?)),
            "policy6" => self.rules6.policies.push((words.plain("chain")?, words.plain("target")?)),
            "rule" => return self.rules.add(line, &mut words),
            "rule6" => return self.rules6.add(line, &mut words),
            "rules" => self.open_block(Family::Ipv4),
            "rules6" => self.open_block(Family::Ipv6),
            "load" => self.open_load(Family::Ipv4),
            "load6" => self.open_load(Family::Ipv6),
            "sysctl" => self.sysctl.push((words.plain("name")?, words.plain("value")?)),
            "mtu" => self.mtu.push((words.plain("interface")?, words.number("mtu")?)),
            "address" if matches!(words.peek(), Some("add" | "del")) => {
                self.changes.push(change(&mut words)?);
            }
            "address" => self.addresses.push(address(&mut words)?),
            "listen" => self.listeners.push(listener(&mut words)?),
            "out" => self.out(&mut words)?,
            "tracked" => {
                (self.tracked, self.block) = (Some(Vec::new()), Some(Block::Tracked));
            }
            "counted" => self.open_counted(Family::Ipv4),
            "counted6" => self.open_counted(Family::Ipv6),
            "route" => self.routes.push(route(&mut words)?),
            "no-rules6" => self.no_rules6 = true,
            "mode" => {
                self.mode = Some(match words.plain("mode")?.as_str() {
                    "route" => Mode::Route,
                    "bridge" => Mode::Bridge,
                    other => return Err(format!("`{other}` is no mode: route, bridge")),
                });
            }
            "ports" => {
                let ports = [words.plain("name")?, words.plain("name")?];
                if ports[0] == ports[1] {
                    return Err(format!("both interfaces are called `{}`", ports[0]));
                }
                self.ports = Some(ports);
            }
            "announced" => {
                let list = self.announced.get_or_insert_default();
                let rest: Result<Vec<String>, String> =
                    (0..words.0.len()).map(|_| words.plain("connection")).collect();
                list.extend(Some(rest?.join(" ")).filter(|connection| connection != "none"));
            }
            "wait" => self.now += duration(&words.plain("time")?)?,
            other => return Err(format!("`{other}` begins no line")),
        }
        match words.next() {
            None => Ok(()),
            Some(word) => Err(format!("{word:?} is one word too many")),
        }
    }

    const fn rules_mut(&mut self, family: Family) -> &mut Rules {
        match family {
            Family::Ipv4 => &mut self.rules,
            Family::Ipv6 => &mut self.rules6,
        }
    }

    /// A line inside a block.
    fn add_to(&mut self, block: Block, line: &str) {
        let text = match block {
            Block::Rules(family) => self.rules_mut(family).block.as_mut(),
            Block::Load(family) => self.load.as_mut().and_then(|load| load.of(family).as_mut()),
            Block::Tracked => return self.tracked.get_or_insert_default().push(line.to_owned()),
            Block::Counted(family) => {
                return self.counted[place_of_family(family)].get_or_insert_default().push(line.to_owned());
            }
        };
        if let Some(text) = text {
            text.push_str(line);
            text.push('\n');
        }
    }

    fn open_counted(&mut self, family: Family) {
        self.counted[place_of_family(family)].get_or_insert_default();
        self.block = Some(Block::Counted(family));
    }

    /// `out IFACE HEX`, `out none`: about the last step.
    fn out(&mut self, words: &mut Words) -> Result<(), String> {
        let step = self.steps.last_mut().ok_or("`out` stands behind a step")?;
        let out = step.out.get_or_insert_default();
        let iface = words.plain("interface")?;
        if iface != "none" {
            place_of(&iface)?;
            out.push(Out { iface, packet: masked(&words.plain("hex")?)? });
        }
        Ok(())
    }

    /// Rules for both families that stand between the same steps are loaded together.
    fn open_load(&mut self, family: Family) {
        self.block = Some(Block::Load(family));
        *self.load.get_or_insert_default().of(family) = Some(String::new());
    }

    fn open_block(&mut self, family: Family) {
        self.block = Some(Block::Rules(family));
        self.rules_mut(family).block = Some(String::new());
    }

    /// `flow NAME IFACE ADDR[:PORT] IFACE ADDR[:PORT] PROTO [id N] [zone N]`
    fn flow(&mut self, words: &mut Words) -> Result<(), String> {
        let name = words.plain("name")?;
        if self.flows.iter().any(|f| f.name == name) {
            return Err(format!("there is a flow `{name}` already"));
        }
        let (opener, family) = side(words)?;
        let (responder, other) = side(words)?;
        if family != other {
            return Err("both ends are of one family".to_owned());
        }
        let proto = words.plain("protocol")?;
        let proto = match proto.as_str() {
            "tcp" => PROTO_TCP,
            "udp" => PROTO_UDP,
            "udplite" => PROTO_UDPLITE,
            "icmp" if family == Family::Ipv4 => PROTO_ICMP,
            "icmp" | "icmpv6" => PROTO_ICMPV6,
            "sctp" => PROTO_SCTP,
            "gre" => PROTO_GRE,
            other => number(other).ok_or_else(|| format!("`{other}` is no protocol"))?,
        };
        let mut flow = Flow { name, family, proto, opener, responder, id: 0, zone: 0 };
        while let Some(word) = words.next() {
            match word {
                Word::Plain(w) if w == "id" => flow.id = words.number("id")?,
                Word::Plain(w) if w == "zone" => flow.zone = words.number("zone")?,
                word => return Err(format!("{word:?} is not understood here")),
            }
        }
        self.flows.push(flow);
        Ok(())
    }

    /// `TIME FROM PACKET [CTSTATE TRACKER FATE …]`
    fn step(&mut self, line: usize, mut words: Words) -> Result<(), String> {
        let time = words.plain("time")?;
        self.now = match time.strip_prefix('+') {
            Some(later) => self.now + duration(later)?,
            None => duration(&time)?,
        };
        let from = words.plain("interface")?;
        let expect = expectation(&mut words)?;
        let is_frame = words.peek() == Some("ether");
        let (iface, name) = from.split_once('/').unwrap_or((&from, ""));
        let (Built { packet, padding }, flow) = match words.peek() {
            Some("frame" | "ether") => {
                words.next();
                let packet = hex(&words.plain("hex")?)?;
                let flow = self.named(name.strip_suffix('<').unwrap_or(name))?;
                (Built { packet, padding: 0 }, flow)
            }
            Some("error") => {
                words.next();
                let (built, flow) = error(&self.flows, &mut words)?;
                (built, Some(flow))
            }
            _ => {
                let (at, dir) = self.direction(iface, name)?;
                (of_flow(&self.flows[at], dir, &mut words)?, Some(at))
            }
        };
        let link = Link::take(&mut words)?;
        if let Some(word) = words.next() {
            return Err(format!("{word:?} is one word too many"));
        }
        if iface != ROUTER {
            place_of(iface)?;
        }
        let (iface, load) = (iface.to_owned(), self.load.take());
        let addresses = core::mem::take(&mut self.changes);
        self.steps.push(Step {
            line,
            at: self.now,
            iface,
            packet,
            is_frame,
            padding,
            flow,
            link,
            load,
            addresses,
            expect,
            out: None,
        });
        Ok(())
    }

    /// The flow of that name; `None` for no name.
    fn named(&self, name: &str) -> Result<Option<usize>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        let at = self.flows.iter().position(|f| f.name == name);
        at.map(Some).ok_or_else(|| format!("no flow named `{name}`"))
    }

    /// Which flow, and which way along it.
    fn direction(&self, iface: &str, name: &str) -> Result<(usize, Direction), String> {
        let (name, answers) = name.strip_suffix('<').map_or((name, false), |name| (name, true));
        let at = match self.named(name)? {
            Some(at) => at,
            None if self.flows.len() == 1 => 0,
            None => return Err("which flow? write `IFACE/NAME`".to_owned()),
        };
        let flow = &self.flows[at];
        let reply = answers || (flow.opener.iface != iface && flow.responder.iface == iface);
        Ok((at, if reply { Direction::Reply } else { Direction::Original }))
    }

    fn finish(self) -> Scenario {
        Scenario {
            title: self.title.unwrap_or_default(),
            mode: self.mode.unwrap_or(Mode::Route),
            ports: self.ports.unwrap_or(IFACES.map(str::to_owned)),
            sysctl: self.sysctl,
            rules: self.rules.finish(Family::Ipv4),
            rules6: (!self.no_rules6).then(|| self.rules6.finish(Family::Ipv6)),
            mtu: self.mtu,
            addresses: self.addresses,
            routes: self.routes,
            flows: self.flows,
            listeners: self.listeners,
            steps: self.steps,
            announced: self.announced,
            tracked: self.tracked,
            counted: self.counted,
        }
    }
}

/// `IFACE ADDR[:PORT]`
fn side(words: &mut Words) -> Result<(Side, Family), String> {
    let iface = words.plain("interface")?;
    let word = words.plain("address")?;
    let (ip, port) = match (word.parse::<IpAddr>(), word.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, 0),
        (_, Ok(socket)) => (socket.ip(), socket.port()),
        _ => return Err(format!("`{word}` is no address")),
    };
    let family = Family::from(ip);
    Ok((Side { iface, addr: Addr::from(ip), port }, family))
}

/// `IFACE [first] ADDR/LEN`
fn address(words: &mut Words) -> Result<Address, String> {
    let iface = place_of(&words.plain("interface")?)?;
    let mut text = words.plain("address")?;
    let is_first = text == "first";
    if is_first {
        text = words.plain("address")?;
    }
    let prefix = prefix_of(&text).ok_or_else(|| format!("`{text}` is no ADDR/LEN"))?;
    Ok(Address { iface, is_first, prefix })
}

/// `add|del IFACE ADDR/LEN`
fn change(words: &mut Words) -> Result<AddressChange, String> {
    let is_added = words.plain("change")? == "add";
    let Address { iface, prefix, .. } = address(words)?;
    Ok(AddressChange { is_added, iface, prefix })
}

/// `PORT ["TEXT"]`
fn listener(words: &mut Words) -> Result<(u16, Vec<u8>), String> {
    let port = words.number("listen")?;
    Ok(match words.next() {
        None => (port, b"ok".to_vec()),
        Some(Word::Text(text)) => (port, text),
        Some(word) => return Err(format!("{word:?}: the answer stands between quotes")),
    })
}

/// Bytes in hex, of which `..` may be any.
fn masked(word: &str) -> Result<Vec<Option<u8>>, String> {
    let pairs = word.as_bytes().chunks(2).map(|pair| match pair {
        b".." => Ok(None),
        pair => hex(&String::from_utf8_lossy(pair)).map(|bytes| bytes.first().copied()),
    });
    pairs.collect()
}

const fn place_of_family(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

/// The place of an interface.
fn place_of(name: &str) -> Result<usize, String> {
    let at = IFACES.iter().position(|iface| *iface == name);
    at.ok_or_else(|| format!("`{name}` is no interface: left, right (`ports` says what rules call them)"))
}

/// `ADDR/LEN`
fn prefix_of(text: &str) -> Option<Prefix> {
    let (ip, len) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let family = Family::from(ip);
    let len = number(len).filter(|len| *len <= family.bits())?;
    Some(Prefix::new(Addr::from(ip), len, family))
}

/// `NET via ADDR IFACE`, `NET blackhole|unreachable|prohibit`
fn route(words: &mut Words) -> Result<RouteConfig, String> {
    let net = words.plain("network")?;
    let to = prefix_of(&net).ok_or_else(|| format!("`{net}` is no network"))?;
    let target = match words.plain("target")?.as_str() {
        "blackhole" => RouteTarget::Blackhole,
        "unreachable" => RouteTarget::Unreachable,
        "prohibit" => RouteTarget::Prohibit,
        "via" => {
            let gateway = Addr::from(words.parse::<IpAddr>("address")?);
            let at = place_of(&words.plain("interface")?)?;
            RouteTarget::Via { gateway, iface: IfaceId(at as u16) }
        }
        other => return Err(format!("`{other}` is no target: via, blackhole, unreachable, prohibit")),
    };
    Ok(RouteConfig { to, target })
}

/// Takes the last columns off a line, if it has them.
fn expectation(words: &mut Words) -> Result<Option<Expect>, String> {
    let begins = |word: &Word| match word {
        Word::Plain(w) => {
            matches!(w.as_str(), "-" | "NEW" | "ESTABLISHED" | "RELATED" | "INVALID" | "UNTRACKED")
                || w.starts_with("INVALID(")
        }
        Word::Text(_) | Word::Options(_) => false,
    };
    let Some(at) = words.0.iter().position(begins) else { return Ok(None) };
    let mut columns = Words(words.0.split_off(at));
    let (ctstate, tracker, fate) =
        (columns.plain("ctstate")?, columns.plain("tracker")?, columns.plain("fate")?);
    let (mut entry, mut status) = (Vec::new(), None);
    while !columns.is_empty() {
        let word = columns.plain("status")?;
        match word.strip_prefix("status=") {
            Some(bits) => status = Some(number(bits).ok_or_else(|| format!("`{bits}` is no status"))?),
            None => entry.push(word),
        }
    }
    Ok(Some(Expect { ctstate, tracker, fate, entry, status }))
}

/// `20ms`, `2.2s`, `5d`, `0`.
fn duration(word: &str) -> Result<Duration, String> {
    let split = word.find(|c: char| c.is_alphabetic()).unwrap_or(word.len());
    let (value, unit) = word.split_at(split);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("`{word}` is no time: us, ms, s, m, h, d")),
    };
    let value: f64 = value.parse().map_err(|_| format!("`{word}` is no time"))?;
    Duration::try_from_secs_f64((value * seconds * 1e9).round() / 1e9)
        .map_err(|_| format!("`{word}` is no time"))
}

impl Load {
    const fn of(&mut self, family: Family) -> &mut Option<String> {
        match family {
            Family::Ipv4 => &mut self.rules,
            Family::Ipv6 => &mut self.rules6,
        }
    }
}

impl Rules {
    /// `rule [TABLE] CHAIN …`: the rest of the line as it stands.
    fn add(&mut self, line: &str, words: &mut Words) -> Result<(), String> {
        let mut rest = line.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
        let first = words.plain("chain")?;
        let table = if matches!(first.as_str(), "raw" | "mangle" | "nat" | "filter") {
            rest = rest[first.len()..].trim_start();
            first
        } else {
            "filter".to_owned()
        };
        self.lines.push((table, format!("-A {rest}")));
        Ok(())
    }

    fn finish(self, family: Family) -> String {
        if let Some(block) = self.block {
            return block;
        }
        let Self { policies, lines: mut rules, .. } = self;
        let standard = policies.is_empty() && rules.iter().all(|(table, _)| table != "filter");
        let mut forward = "ACCEPT";
        if standard {
            forward = "DROP";
            let prohibited = match family {
                Family::Ipv4 => "icmp-admin-prohibited",
                Family::Ipv6 => "icmp6-adm-prohibited",
            };
            let add = |rule: &str| ("filter".to_owned(), rule.replace("ADMIN-PROHIBITED", prohibited));
            rules.extend(STANDARD.iter().map(|rule| add(rule)));
        }
        let policy = |chain: &str, default: &str| {
            let set = policies.iter().rev().find(|(name, _)| name == chain);
            set.map_or(default.to_owned(), |(_, target)| target.clone())
        };
        let mut text = String::new();
        let tables: [(&str, &[&str]); 4] = [
            ("raw", &["PREROUTING", "OUTPUT"]),
            ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
            ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
            ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
        ];
        for (table, chains) in tables {
            let of_table: Vec<&String> = rules.iter().filter(|(t, _)| t == table).map(|(_, r)| r).collect();
            // Where table nat is, it looks at every connection, even without rules.
            if matches!(table, "mangle" | "nat") && of_table.is_empty() {
                continue;
            }
            text.extend(["*", table, "\n"]);
            for chain in chains {
                let default = if (table, *chain) == ("filter", "FORWARD") { forward } else { "ACCEPT" };
                let target = if table == "filter" { policy(chain, default) } else { "ACCEPT".to_owned() };
                text.extend([":", chain, " ", &target, " [0:0]\n"]);
            }
            for rule in of_table {
                text.extend([rule.as_str(), "\n"]);
            }
            text.push_str("COMMIT\n");
        }
        text
    }
}
