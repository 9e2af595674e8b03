//! The lab file as written. The only file that names `serde_yaml`.
//!
//! Types here mirror the file, and nothing is checked but its shape: [`super::resolve`] turns a spec into
//! a [`super::Lab`] or into everything that is wrong with it. The JSON Schema comes from the same types.

#![forbid(unsafe_code)]

use super::error::{Problem, control_character, too_deep, yaml_hint};
use super::locate::{self, Places};
use super::shape;
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor, value};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A laboratory: a router, hosts around it, and what must be observed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "stateway lab")]
pub struct LabSpec {
    /// A short name: it is part of the names of namespaces.
    pub name: String,
    /// What the lab shows, in a sentence.
    pub description: Option<String>,
    pub router: RouterSpec,
    #[serde(default)]
    pub hosts: IndexMap<String, HostSpec>,
    #[serde(default)]
    pub tests: Vec<TestSpec>,
}

/// The router: its ports, its addresses and its rules.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterSpec {
    /// `bridge`: all ports are one segment; `route`: each port is an IP network of its own.
    #[serde(default)]
    pub mode: ModeSpec,
    /// Its ports by name: what `-i` and `-o` match.
    pub ports: IndexMap<String, Option<PortSpec>>,
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// Neighbours that are known without asking.
    #[serde(default)]
    pub neighbours: Vec<NeighbourSpec>,
    /// Connection tracking helpers on their usual ports: `ftp`, `tftp`. As in Linux, none unless asked for.
    #[serde(default)]
    pub helpers: OneOrMany<HelperSpec>,
    /// Settings by the kernel's own names: `nf_conntrack_max`, …
    #[serde(default)]
    pub sysctl: IndexMap<String, SysctlSpec>,
    /// iptables-save text; `none` if there are no rules on purpose, and everything passes.
    pub rules: Option<String>,
    /// A file with iptables-save text, beside the lab file.
    pub rules_file: Option<String>,
    /// ip6tables-save text. Without it, and with `none`, IPv6 is dropped.
    pub rules6: Option<String>,
    /// A file with ip6tables-save text, beside the lab file.
    pub rules6_file: Option<String>,
    /// Bridge mode: what becomes of frames that are neither IP nor ARP.
    #[serde(default)]
    pub non_ip: NonIpSpec,
    /// Which kind of port `stateway run` opens.
    #[serde(default)]
    pub device: DeviceSpec,
    /// Whether an idle worker spins or sleeps.
    #[serde(default)]
    pub busy_poll: BusyPollSpec,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModeSpec {
    #[default]
    Bridge,
    Route,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonIpSpec {
    #[default]
    Drop,
    Pass,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceSpec {
    #[default]
    Auto,
    Fast,
    Tap,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusyPollSpec {
    #[default]
    Never,
    Adaptive,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HelperSpec {
    Ftp,
    Tftp,
}

/// One port of the router.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Route mode: its own address with the length of its network, or a list of them.
    pub address: Option<OneOrMany>,
    pub mac: Option<String>,
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
}

/// One route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// A network, or `default`.
    pub to: String,
    /// The next hop. Without it the network is reached on the port itself.
    pub via: Option<String>,
    /// Needed only where `via` does not tell.
    pub port: Option<String>,
    /// A route that leads nowhere.
    #[serde(rename = "type")]
    pub kind: Option<RouteKindSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteKindSpec {
    Blackhole,
    Unreachable,
    Prohibit,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeighbourSpec {
    pub address: String,
    pub mac: String,
    pub port: String,
}

/// One host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// The router's port that it is connected to.
    pub port: Option<String>,
    /// Its address with the length of its network, or a list of them.
    pub address: OneOrMany,
    /// Its default gateway, one for each family. Route mode: the port's own address unless told otherwise.
    pub gateway: Option<OneOrMany>,
    #[serde(default)]
    pub routes: Vec<HostRouteSpec>,
    pub mac: Option<String>,
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
    /// What it serves: `ssh`, `http`, `ftp`, `tftp`, `echo`, `dns`, or a command.
    #[serde(default)]
    pub services: OneOrMany<ServiceSpec>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRouteSpec {
    pub to: String,
    pub via: String,
}

/// Declares a test and a step of a test, which share all that a step can be.
macro_rules! steps {
    ($($(#[$doc:meta])* struct $name:ident { $($own:tt)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// Logs in and runs a command.
            pub ssh: Option<SshSpec>,
            /// Opens a TCP connection.
            pub tcp: Option<TcpSpec>,
            /// Sends a datagram and waits for an answer.
            pub udp: Option<UdpSpec>,
            /// Sends echo requests.
            pub ping: Option<PingSpec>,
            /// Fetches a page.
            pub http: Option<HttpSpec>,
            /// Lists, gets or puts a file over FTP.
            pub ftp: Option<FtpSpec>,
            /// Gets or puts a file over TFTP.
            pub tftp: Option<TftpSpec>,
            /// Asks for the hops on the way (live and kernel only).
            pub traceroute: Option<TracerouteSpec>,
            /// Runs a command on a host (live and kernel only).
            pub exec: Option<ExecSpec>,
            /// Sends packets written as in packetdrill.
            pub send: Option<SendSpec>,
            /// Lets time pass: `5s`, `2m`, `5days`.
            pub wait: Option<TimeSpec>,
            /// Swaps the ruleset.
            pub rules: Option<RulesSpec>,
            /// Looks at the connection table.
            pub conntrack: Option<ConntrackSpec>,
            /// Looks at counters of rules and drops.
            pub counters: Option<CountersSpec>,
            /// What must come of it.
            pub expect: Option<ExpectSpec>,
            /// Repeats the step until it comes out as expected, at most this long.
            pub within: Option<TimeSpec>,
            /// How long an answer may take.
            pub timeout: Option<TimeSpec>,
            /// Impairments of links during the step, by port of the router.
            #[serde(default)]
            pub impair: IndexMap<String, ImpairSpec>,
        }

        impl $name {
            /// The step that this is, without what else belongs to a test.
            #[must_use]
            pub fn step(&self) -> StepSpec {
                StepSpec {
                    ssh: self.ssh.clone(),
                    tcp: self.tcp.clone(),
                    udp: self.udp.clone(),
                    ping: self.ping.clone(),
                    http: self.http.clone(),
                    ftp: self.ftp.clone(),
                    tftp: self.tftp.clone(),
                    traceroute: self.traceroute.clone(),
                    exec: self.exec.clone(),
                    send: self.send.clone(),
                    wait: self.wait.clone(),
                    rules: self.rules.clone(),
                    conntrack: self.conntrack.clone(),
                    counters: self.counters.clone(),
                    expect: self.expect.clone(),
                    within: self.within.clone(),
                    timeout: self.timeout.clone(),
                    impair: self.impair.clone(),
                }
            }
        }
    )*};
}

steps! {
    /// One test: a step, or several in `steps`.
    struct TestSpec {
        /// What it shows, in a sentence.
        pub name: Option<String>,
        /// Only with these runners.
        #[serde(default)]
        pub on: OneOrMany<RunnerSpec>,
        /// Several steps, one after the other.
        #[serde(default)]
        pub steps: Vec<StepSpec>,
    }
    /// One step of a test.
    struct StepSpec {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunnerSpec {
    Sim,
    Live,
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FamilySpec {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshSpec {
    /// Who logs in; several hosts repeat the step.
    pub from: Option<OneOrMany>,
    /// Where: a host or an address; several repeat the step.
    pub to: Option<OneOrMany>,
    pub family: Option<FamilySpec>,
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// The command to run there; `true` if not given.
    pub run: Option<String>,
    /// What the command reads.
    pub input: Option<String>,
    /// Keeps the session open under this name.
    pub keep: Option<String>,
    /// Runs the command in a session that was kept, from and to where it was opened.
    pub session: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpSpec {
    pub from: Option<OneOrMany>,
    pub to: Option<OneOrMany>,
    pub family: Option<FamilySpec>,
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// What to say once connected; what comes back is the step's `stdout`.
    pub send: Option<String>,
    /// Keeps the connection open under this name.
    pub keep: Option<String>,
    /// Speaks on a connection that was kept, from and to where it was opened.
    pub session: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
    #[schemars(range(min = 1))]
    pub port: u16,
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// What the datagram says; what comes back is the step's `stdout`.
    pub send: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
    /// How many requests; 1 if not given.
    #[schemars(range(min = 1, max = 100))]
    pub count: Option<u16>,
    /// Bytes after the ICMP header.
    #[schemars(range(max = 65000))]
    pub size: Option<u16>,
    /// Forbids fragments on the way.
    #[serde(default)]
    pub dont_fragment: bool,
    #[schemars(range(min = 1))]
    pub ttl: Option<u8>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    pub path: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FtpSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// How the data connection is announced.
    #[serde(default)]
    pub mode: FtpModeSpec,
    #[serde(default)]
    pub command: FtpCommandSpec,
    /// The size of the file that is got or put.
    #[schemars(range(max = 100_000_000))]
    pub bytes: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FtpModeSpec {
    /// PORT
    Active,
    /// PASV
    #[default]
    Passive,
    /// EPRT
    Eprt,
    /// EPSV
    Epsv,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FtpCommandSpec {
    #[default]
    List,
    Get,
    Put,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TftpCommandSpec {
    #[default]
    Get,
    Put,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TftpSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
    #[serde(default)]
    pub command: TftpCommandSpec,
    #[schemars(range(min = 1, max = 10_000_000))]
    pub bytes: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TracerouteSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// Where it runs; several hosts repeat the step.
    pub host: OneOrMany,
    /// A line for `sh -c`.
    pub run: String,
    pub input: Option<String>,
}

/// Packets from one host to another, made by hand.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSpec {
    pub from: OneOrMany,
    pub to: OneOrMany,
    pub family: Option<FamilySpec>,
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    #[schemars(range(min = 1))]
    pub source_port: Option<u16>,
    /// Lines such as `S 100:100(0) win 64240`, `udp (10)`, `icmp echo_request id 7 seq 1`.
    pub packets: OneOrMany,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesSpec {
    /// iptables-save text.
    pub v4: Option<String>,
    /// A file with iptables-save text, beside the lab file.
    pub v4_file: Option<String>,
    /// ip6tables-save text.
    pub v6: Option<String>,
    /// A file with ip6tables-save text, beside the lab file.
    pub v6_file: Option<String>,
    /// Puts the rules of the lab back in force.
    #[serde(default)]
    pub restore: bool,
}

/// What the connection table holds. A line is described by words that must all be in it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConntrackSpec {
    /// For each of these, some line has all its words.
    pub contains: Option<OneOrMany>,
    /// For each of these, no line has all its words.
    pub lacks: Option<OneOrMany>,
    /// How many connections there are.
    pub count: Option<u64>,
}

/// Exact values of counters: `filter/FORWARD/2`, `filter/FORWARD/policy`, `drop/table-full`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountersSpec {
    #[serde(default)]
    pub equal: IndexMap<String, u64>,
    #[serde(default)]
    pub at_least: IndexMap<String, u64>,
}

/// What must come of a step.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectSpec {
    /// `ok`; `blocked`: nothing came back; `refused`: a reset came back; `unreachable`: an ICMP error came back.
    pub result: Option<ResultSpec>,
    /// Which ICMP error, by iptables' names: `icmp-port-unreachable`, `icmp6-adm-prohibited`, `frag-needed`, …
    pub icmp: Option<String>,
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
    /// The rule that decided: `filter/FORWARD/1`, or `policy`.
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
    Ok,
    Blocked,
    Refused,
    Unreachable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StateSpec {
    New,
    Established,
    Related,
    Invalid,
    Untracked,
}

/// What a link does to packets that leave the host towards the router and back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImpairSpec {
    /// `50ms`
    pub delay: Option<TimeSpec>,
    pub jitter: Option<TimeSpec>,
    /// In percent.
    pub loss: Option<PercentSpec>,
    /// In percent.
    pub reorder: Option<PercentSpec>,
    /// In percent.
    pub duplicate: Option<PercentSpec>,
    /// Kilobits a second.
    #[schemars(range(min = 1))]
    pub rate_kbit: Option<u64>,
}

/// One of something, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T = String>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or a list of them")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<OneOrMany<T>, E> {
                let word: value::StrDeserializer<'_, E> = word.into_deserializer();
                T::deserialize(word).map(|one| OneOrMany(vec![one]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
                T::deserialize(value::MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany(items))
            }
        }
        deserializer.deserialize_any(Items(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// Declares a value that is written as text or as a bare number, and kept as text.
macro_rules! text_or_number {
    ($($(#[$doc:meta])* struct $name:ident: $kind:literal, $unit:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let unit = |number: String| Self(number + $unit);
                match Scalar::deserialize(deserializer)? {
                    Scalar::Text(text) => Ok(Self(text)),
                    Scalar::Whole(number) => Ok(unit(number.to_string())),
                    Scalar::Broken(number) if $kind == "number" => Ok(unit(number.to_string())),
                    Scalar::Broken(_) => Err(de::Error::custom("expected a whole number or text")),
                }
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({ "anyOf": [{ "type": $kind }, { "type": "string" }] })
            }
        }
    )*};
}

text_or_number! {
    /// The value of a setting: a number, or the word that stands for one.
    struct SysctlSpec: "integer", "";
    /// A length of time: `500ms`, `5s`, `2m`, `5days`; a bare number counts seconds.
    struct TimeSpec: "number", "s";
    /// A share: `10` or `10%`.
    struct PercentSpec: "number", "%";
}

/// What stands for one value.
enum Scalar {
    Text(String),
    Whole(i128),
    Broken(f64),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number.into()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Broken(number))
            }
        }
        deserializer.deserialize_any(Value)
    }
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
    /// A named service, on `port`.
    pub service: Option<ServiceNameSpec>,
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
pub(crate) struct Document {
    pub(crate) tree: Value,
    pub(crate) places: Places,
}

/// Reads text as YAML.
pub(crate) fn parse(text: &str) -> Result<Document, Problem> {
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
