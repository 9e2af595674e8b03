//! The lab file as written. The only file that names `serde_yaml`.
//!
//! Types here mirror the file, and nothing is checked but its shape: [`super::resolve`] turns a spec into
//! a [`super::Lab`] or into everything that is wrong with it. The JSON Schema comes from the same types.

#![forbid(unsafe_code)]

use super::error::{Problem, control_character, too_deep, yaml_hint};
use super::locate::{self, Places};
use super::shape;
use super::steps::{
    ConntrackSpec, CountersSpec, ExecSpec, FtpSpec, HttpSpec, PingSpec, RulesSpec, SendSpec, SshSpec,
    TcpSpec, TftpSpec, TracerouteSpec, UdpSpec, every_step,
};
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, Visitor, value};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

mod written;

pub use written::{OneOrMany, PercentSpec, SysctlSpec, TimeSpec};

/// A laboratory: a router, hosts around it, and what must be observed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "stateway lab")]
pub struct LabSpec {
    /// A short name of small letters, digits and `-`, at most 32 of them: it is part of the names of namespaces.
    pub name: String,
    /// What the lab shows, in a sentence.
    pub description: Option<String>,
    /// What stands between the hosts.
    pub router: RouterSpec,
    /// Who is around it, by name: small letters, digits and `-`, at most 48 of them. Every port has at least one.
    #[serde(default)]
    pub hosts: IndexMap<String, HostSpec>,
    /// What must be observed, in this order.
    #[serde(default)]
    pub tests: Vec<TestSpec>,
}

/// The router: its ports, its addresses and its rules.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterSpec {
    /// What the router is to its hosts: a cable, or a hop.
    #[serde(default)]
    #[schemars(extend("default" = "bridge"))]
    pub mode: ModeSpec,
    /// Its ports by name, at most 15 characters: what `-i` and `-o` match. `{}` is a port with nothing special.
    pub ports: IndexMap<String, Option<PortSpec>>,
    /// Route mode: the way to networks beyond those of the ports.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// Route mode: stations whose link address is known without asking.
    #[serde(default)]
    pub neighbours: Vec<NeighbourSpec>,
    /// Helpers of connection tracking, on their usual ports. As in Linux, none unless asked for.
    #[serde(default)]
    pub helpers: OneOrMany<HelperSpec>,
    /// Settings by the kernel's own names, with or without the way to them: `nf_conntrack_max`,
    /// `net.ipv4.icmp_ratemask`. Times are seconds, as in the kernel.
    #[serde(default)]
    pub sysctl: IndexMap<String, SysctlSpec>,
    /// The rules for IPv4, as iptables-save prints them; `none` if there are none on purpose, and everything passes.
    pub rules: Option<String>,
    /// The same in a file, named from the folder of the lab file.
    pub rules_file: Option<String>,
    /// The rules for IPv6, as ip6tables-save prints them. Without any, and with `none`, IPv6 is dropped.
    pub rules6: Option<String>,
    /// The same in a file, named from the folder of the lab file.
    pub rules6_file: Option<String>,
    /// Bridge mode: what becomes of frames that are neither IP nor ARP.
    #[serde(default)]
    #[schemars(extend("default" = "drop"))]
    pub non_ip: NonIpSpec,
    /// Which kind of port `stateway run` opens.
    #[serde(default)]
    #[schemars(extend("default" = "auto"))]
    pub device: DeviceSpec,
    /// Whether an idle worker spins or sleeps.
    #[serde(default)]
    #[schemars(extend("default" = "never"))]
    pub busy_poll: BusyPollSpec,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModeSpec {
    /// All ports are one segment; the router has no address.
    #[default]
    Bridge,
    /// Each port is an IP network of its own, and the router has an address in each.
    Route,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonIpSpec {
    /// They are dropped.
    #[default]
    Drop,
    /// They are carried on, past all rules.
    Pass,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceSpec {
    /// Fast, or tap where fast is not to be had; the log says which.
    #[default]
    Auto,
    /// With virtio headers and io_uring, many frames at a time.
    Fast,
    /// A plain TAP, one frame at a time.
    Tap,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusyPollSpec {
    /// It sleeps until a frame comes.
    #[default]
    Never,
    /// It spins for a moment after each frame, then sleeps.
    Adaptive,
    /// It spins: the shortest delay, and a processor that is never idle.
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HelperSpec {
    /// TCP port 21: data connections are RELATED.
    Ftp,
    /// UDP port 69: the answer from another port is RELATED.
    Tftp,
}

/// One port of the router: a TAP device (or, with `--on kernel`, a veth) of its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Route mode: the router's own address here with the length of its network, or a list of them. Bridge mode: none.
    pub address: Option<OneOrMany>,
    /// Its link address; without one, it follows from the port's place in the file.
    pub mac: Option<String>,
    /// The longest packet that it sends, in bytes, without the link's header.
    #[schemars(range(min = 68, max = 65535), extend("default" = 1500))]
    pub mtu: Option<u32>,
}

/// One route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// A network with its length, or `default`.
    pub to: String,
    /// The next hop. Without it the network is reached on the port itself.
    pub via: Option<String>,
    /// The port that leads there; needed only where `via` does not tell.
    pub port: Option<String>,
    /// A route that leads nowhere.
    #[serde(rename = "type")]
    pub kind: Option<RouteKindSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteKindSpec {
    /// Packets vanish.
    Blackhole,
    /// The sender is told `host unreachable`.
    Unreachable,
    /// The sender is told `administratively prohibited`.
    Prohibit,
}

/// One station whose link address the router need not ask for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeighbourSpec {
    /// Its IP address.
    pub address: String,
    /// Its link address.
    pub mac: String,
    /// The port that it is behind.
    pub port: String,
}

/// One host: a network namespace, or in simulation a stack of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// The router's port that it is behind. Several hosts behind one port share a segment. It must be given.
    pub port: Option<String>,
    /// Its address with the length of its network, or a list of them.
    pub address: OneOrMany,
    /// Its default gateway, one for each family. Route mode: the port's own address unless told otherwise.
    pub gateway: Option<OneOrMany>,
    /// Its ways to networks beyond its own, beside the gateway.
    #[serde(default)]
    pub routes: Vec<HostRouteSpec>,
    /// Its link address; without one, it follows from the host's place in the file.
    pub mac: Option<String>,
    /// The longest packet that it sends, in bytes; that of its port unless told otherwise.
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
    /// What it serves: names, or services in full.
    #[serde(default)]
    pub services: OneOrMany<ServiceSpec>,
}

/// One route of a host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRouteSpec {
    /// A network with its length.
    pub to: String,
    /// The next hop.
    pub via: String,
}

/// Declares a test, or a step of a test, which share all that a step can be.
macro_rules! step_struct {
    (
        $(#[$doc:meta])* struct $name:ident { $($own:tt)* }
        $($(#[$about:meta])* $word:ident: $kind:ident($ty:ty), written as $spec:ty;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($own)*
            $($(#[$about])* pub $word: Option<$spec>,)*
            /// What must come of it.
            pub expect: Option<ExpectSpec>,
            /// Repeats the step until it comes out as expected, at most this long.
            pub within: Option<TimeSpec>,
            /// How long an answer may take: 2 s, a login 4 s, a command 20 s, unless told otherwise.
            pub timeout: Option<TimeSpec>,
            /// What the links of these ports do to packets during the step.
            #[serde(default)]
            pub impair: IndexMap<String, ImpairSpec>,
        }
    };
}

macro_rules! tests_and_steps {
    ($($(#[$about:meta])* $word:ident: $kind:ident($ty:ty), written as $spec:ty;)*) => {
        step_struct! {
            /// One test: a step, or several in `steps`.
            struct TestSpec {
                /// What it shows, in one line; no other test has the same. `test N` unless told otherwise.
                pub name: Option<String>,
                /// Only with these runners; with any unless told otherwise.
                #[serde(default)]
                pub on: OneOrMany<RunnerSpec>,
                /// Several steps, one after the other, until one does not come out as expected.
                #[serde(default)]
                pub steps: Vec<StepSpec>,
            }
            $($(#[$about])* $word: $kind($ty), written as $spec;)*
        }

        step_struct! {
            /// One step of a test.
            struct StepSpec {}
            $($(#[$about])* $word: $kind($ty), written as $spec;)*
        }

        impl TestSpec {
            /// The step that this is, without what else belongs to a test.
            #[must_use]
            pub fn step(&self) -> StepSpec {
                StepSpec {
                    $($word: self.$word.clone(),)*
                    expect: self.expect.clone(),
                    within: self.within.clone(),
                    timeout: self.timeout.clone(),
                    impair: self.impair.clone(),
                }
            }
        }
    };
}
every_step!(tests_and_steps);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunnerSpec {
    /// Simulated hosts, virtual time.
    Sim,
    /// Real programs in namespaces, the router on TAPs.
    Live,
    /// The same hosts, with Linux between them.
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FamilySpec {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

/// What must come of a step.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectSpec {
    /// How it ended. Unless told otherwise: `ok`; with `icmp`, `unreachable`; with an `exit` other than 0, `failed`;
    /// after `send`, anything.
    pub result: Option<ResultSpec>,
    /// Which ICMP error, by iptables' names: `icmp-port-unreachable`, `icmp6-adm-prohibited`, `frag-needed`, …
    pub icmp: Option<String>,
    /// With `exec`: the exit code of the command.
    pub exit: Option<u8>,
    /// The state in which the deciding packet met the rules.
    pub state: Option<StateSpec>,
    /// States that packets of the step must have been seen in.
    #[serde(default)]
    pub seen: OneOrMany<StateSpec>,
    /// States that no packet of the step may have been seen in.
    #[serde(default)]
    pub unseen: OneOrMany<StateSpec>,
    /// The whole output, without the white space around it.
    pub stdout: Option<String>,
    /// Text that the output must have in it.
    pub contains: Option<OneOrMany>,
    /// The rule that decided: by its place, `filter/FORWARD/1` or `FORWARD/1`; by its comment, `"#ssh out"` for one with
    /// `-m comment --comment "#ssh out"`, wherever it stands; or `policy`.
    pub rule: Option<String>,
    /// Why the deciding packet was dropped or judged INVALID, as `stateway replay` names it.
    pub reason: Option<String>,
    /// Words that one line of the connection table must have, afterwards.
    pub entry: Option<String>,
    /// Words that no line of the connection table may have, afterwards.
    pub no_entry: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResultSpec {
    /// The answer came.
    Ok,
    /// Nothing came back.
    Blocked,
    /// A reset came back.
    Refused,
    /// An ICMP error came back.
    Unreachable,
    /// With `exec`: the command did not succeed (`blocked` means the same there).
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StateSpec {
    /// It opens a connection.
    New,
    /// It belongs to a connection that was seen in both directions.
    Established,
    /// Another connection announced it, or it is an error about one.
    Related,
    /// It fits no connection.
    Invalid,
    /// The raw table exempted it.
    Untracked,
}

/// What a link does to packets that leave the host towards the router and back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImpairSpec {
    /// How long each packet takes.
    pub delay: Option<TimeSpec>,
    /// How far the delay may differ, up or down.
    pub jitter: Option<TimeSpec>,
    /// The share that is lost.
    pub loss: Option<PercentSpec>,
    /// The share that does not wait, and so overtakes the others; it takes a `delay`.
    pub reorder: Option<PercentSpec>,
    /// The share that comes twice.
    pub duplicate: Option<PercentSpec>,
    /// How much passes, in kilobits a second.
    #[schemars(range(min = 1))]
    pub rate_kbit: Option<u64>,
}

/// A service by its name, or as a command that serves.
#[derive(Clone, Debug)]
pub enum ServiceSpec {
    Named(ServiceNameSpec),
    Detailed(ServiceDetailSpec),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceNameSpec {
    /// OpenSSH on TCP port 22.
    Ssh,
    /// A page on TCP port 80.
    Http,
    /// A file server on TCP port 21.
    Ftp,
    /// A file server on UDP port 69.
    Tftp,
    /// Says what it hears, on TCP and UDP port 7.
    Echo,
    /// Answers every name, on UDP port 53.
    Dns,
}

/// A service in full: a named one on another port, or a command.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDetailSpec {
    /// A named service; either this or `run`.
    pub service: Option<ServiceNameSpec>,
    /// Where it serves; a named service has a usual port.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// A line for `sh -c` that serves until it is ended (live and kernel only).
    pub run: Option<String>,
    /// A line for `sh -c` that succeeds once the service is ready; without it, `port` accepts a connection.
    pub ready: Option<String>,
}

impl<'de> Deserialize<'de> for ServiceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Service(PhantomData<()>);
        impl<'de> Visitor<'de> for Service {
            type Value = ServiceSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a service or a mapping")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<ServiceSpec, E> {
                let word: value::StrDeserializer<'_, E> = word.into_deserializer();
                ServiceNameSpec::deserialize(word).map(ServiceSpec::Named)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServiceSpec, A::Error> {
                ServiceDetailSpec::deserialize(value::MapAccessDeserializer::new(map))
                    .map(ServiceSpec::Detailed)
            }
        }
        deserializer.deserialize_any(Service(PhantomData))
    }
}

impl JsonSchema for ServiceSpec {
    fn schema_name() -> Cow<'static, str> {
        "Service".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let named = generator.subschema_for::<ServiceNameSpec>();
        let detailed = generator.subschema_for::<ServiceDetailSpec>();
        schemars::json_schema!({ "anyOf": [named, detailed] })
    }
}

/// The JSON Schema of a lab file.
pub fn schema() -> Value {
    schemars::schema_for!(LabSpec).into()
}

/// A file's text as a tree, and where its parts stand.
pub struct Document {
    pub tree: Value,
    pub(crate) places: Places,
}

/// Reads text as YAML.
pub fn parse(text: &str) -> Result<Document, Problem> {
    // Some editors put a byte order mark in front, which the parser takes for a document.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(problem) = control_character(text) {
        return Err(problem);
    }
    if let Some(problem) = too_deep(text) {
        return Err(problem);
    }
    let tree: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| {
        let place = error.location().map(|at| (at.line(), at.column()));
        let message = format!("not YAML: {error}");
        if let (None, Some(second)) = (place, locate::second_document(text)) {
            let hint = "a file is one lab: take the `---` away".to_owned();
            let message = "a second document begins here".to_owned();
            return Problem { path: String::new(), place: Some(second), message, hint: Some(hint) };
        }
        let hint = yaml_hint(text, place, &message);
        Problem { path: String::new(), place, message, hint }
    })?;
    let places = Places::of(text);
    let tree = serde_json::to_value(tree).map_err(|error| Problem {
        path: String::new(),
        place: places.odd_key(),
        message: format!("not a lab file: {error}"),
        hint: Some("a key is a word and a colon".to_owned()),
    })?;
    Ok(Document { tree, places })
}

/// What could be read of a file, and what could not.
pub(crate) struct Reading<T> {
    /// `None` if what is left has not the shape of a `T`.
    pub(crate) spec: Option<T>,
    pub(crate) problems: Vec<Problem>,
    /// Paths of what was left out.
    pub(crate) pruned: Vec<String>,
}

impl Document {
    /// Reads `tree` as a `T`. Parts that have another shape are reported and left out, so that the rest can still
    /// be checked. `below` leads the paths.
    pub(crate) fn read<T>(&self, tree: &Value, below: &str) -> Reading<T>
    where
        T: for<'de> Deserialize<'de> + JsonSchema,
    {
        let schema: Value = schemars::schema_for!(T).into();
        let full = |path: String| match (below, path.as_str()) {
            ("", _) => path,
            (below, "") => below.to_owned(),
            (below, path) => format!("{below}.{path}"),
        };
        let problem =
            |path: String, message, hint| Problem { place: self.places.find(&path), path, message, hint };
        let mut tree = tree.clone();
        let misfits = shape::check(&schema, &tree);
        let problems =
            misfits.iter().map(|m| problem(full(m.path.to_string()), m.message.clone(), m.hint.clone()));
        let mut reading = Reading { spec: None, problems: problems.collect(), pruned: Vec::new() };
        // Taking out one part may leave its surroundings incomplete, so they go as well.
        let mut left = misfits;
        while !left.is_empty() {
            for misfit in &left {
                reading.pruned.push(full(misfit.path.to_string()));
                if !misfit.path.prune(&mut tree) {
                    return reading;
                }
            }
            left = shape::check(&schema, &tree);
        }
        close_holes(&mut tree);
        match T::deserialize(&tree) {
            Ok(spec) => reading.spec = Some(spec),
            Err(error) => reading.problems.push(problem(below.to_owned(), error.to_string(), None)),
        }
        reading
    }
}

/// Moves items up where others were taken out.
fn close_holes(tree: &mut Value) {
    match tree {
        Value::Array(items) => {
            items.retain(|item| *item != shape::HOLE);
            items.iter_mut().for_each(close_holes);
        }
        Value::Object(object) => object.values_mut().for_each(close_holes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
