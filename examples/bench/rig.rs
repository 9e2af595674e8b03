//! Two hosts in namespaces of their own, and something between them that forwards.

use anyhow::{Context as _, bail};
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Case {
    /// Frames are copied and not looked at: the limit.
    Copy {
        device: Device,
    },
    Stateway {
        device: Device,
        rules: Rules,
    },
    Kernel {
        rules: Rules,
    },
    /// The userspace datapath with conntrack, on TAPs with TSO.
    OpenVSwitch,
    /// One of them that gives what A opens another source address.
    Nat(Translator),
}

/// Who translates addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Translator {
    /// Routes, with MASQUERADE, on fast ports.
    Stateway,
    /// Routes, with MASQUERADE.
    Kernel,
    /// Switches, with `ct(nat)`.
    OpenVSwitch,
}

/// The port that a router is on, and whether it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    Fast,
    Tap,
    /// Fast, and awake for a while after each frame.
    Adaptive,
    /// Fast, and never asleep.
    Busy,
}

/// How many rules that match nothing stand in front of the state rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rules(pub usize);

const NAMES: &[(&str, Case)] = &[
    ("copy", Case::Copy { device: Device::Fast }),
    ("copy-tap", Case::Copy { device: Device::Tap }),
    ("copy-busy", Case::Copy { device: Device::Busy }),
    ("stateway", Case::Stateway { device: Device::Fast, rules: Rules(0) }),
    ("stateway-tap", Case::Stateway { device: Device::Tap, rules: Rules(0) }),
    ("stateway-adaptive", Case::Stateway { device: Device::Adaptive, rules: Rules(0) }),
    ("stateway-busy", Case::Stateway { device: Device::Busy, rules: Rules(0) }),
    ("stateway-10", Case::Stateway { device: Device::Fast, rules: Rules(10) }),
    ("stateway-100", Case::Stateway { device: Device::Fast, rules: Rules(100) }),
    ("stateway-1k", Case::Stateway { device: Device::Fast, rules: Rules(1000) }),
    ("stateway-10k", Case::Stateway { device: Device::Fast, rules: Rules(10_000) }),
    ("kernel", Case::Kernel { rules: Rules(0) }),
    ("kernel-10", Case::Kernel { rules: Rules(10) }),
    ("kernel-100", Case::Kernel { rules: Rules(100) }),
    ("kernel-1k", Case::Kernel { rules: Rules(1000) }),
    ("kernel-10k", Case::Kernel { rules: Rules(10_000) }),
    ("ovs", Case::OpenVSwitch),
    ("stateway-nat", Case::Nat(Translator::Stateway)),
    ("kernel-nat", Case::Nat(Translator::Kernel)),
    ("ovs-nat", Case::Nat(Translator::OpenVSwitch)),
];

/// What packets that A sends through Open vSwitch come from.
const OVS_SOURCE: &str = "192.0.2.100";

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, case)| case == self).map_or("?", |(name, _)| name);
        f.pad(name)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let names = || NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let found = NAMES.iter().find(|(name, _)| *name == s).map(|(_, case)| *case);
        found.ok_or_else(|| format!("there are {}", names()))
    }
}

#[derive(Debug)]
pub struct Programs {
    pub stateway: PathBuf,
    pub tapcopy: PathBuf,
}

/// The hosts and the forwarder. Dropping it takes everything down.
#[derive(Debug)]
pub struct Rig {
    pub case: Case,
    /// Host A opens connections to host B.
    pub a: String,
    pub b: String,
    router: String,
    /// B's address.
    pub target: &'static str,
    /// Those whose CPU time is the forwarder's; none for the kernel.
    pub forwarders: Vec<u32>,
    /// The router's program, whatever forwards here.
    pub stateway: PathBuf,
    children: Vec<Child>,
    folder: PathBuf,
}

/// What the namespaces of all rigs begin with; then comes the process that made them.
const PREFIX: &str = "swb-";

impl Rig {
    /// Where a router of ours is asked.
    pub fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// The `n`th rig of this process.
    pub fn up(n: usize, case: Case, programs: &Programs) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}-{n}", std::process::id());
        let [a, b, router] = ["a", "b", "r"].map(|host| format!("{name}{host}"));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let mut rig = Self {
            case,
            a,
            b,
            router,
            target: "192.0.2.2",
            forwarders: Vec::new(),
            stateway: programs.stateway.clone(),
            children: Vec::new(),
            folder,
        };
        for ns in [&rig.a, &rig.b, &rig.router] {
            sh(&format!("ip netns add {ns} && ip -n {ns} link set lo up"))?;
            sh(&format!("ip netns exec {ns} sysctl -qw net.ipv6.conf.default.disable_ipv6=1"))?;
        }
        match case {
            Case::Copy { device } => {
                let device = match device {
                    Device::Tap => "tap",
                    Device::Fast | Device::Adaptive => "fast",
                    Device::Busy => "busy",
                };
                let command =
                    [programs.tapcopy.to_string_lossy().as_ref(), device, "ra", "rb"].map(str::to_owned);
                rig.spawn_taps(&command, None)?;
            }
            Case::Stateway { device, rules } => {
                let file = rig.router_file(device, rules)?;
                rig.spawn_router(&file)?;
            }
            Case::Kernel { rules } => rig.kernel(&iptables(rules))?,
            Case::OpenVSwitch => rig.open_v_switch(OVS_FILTER)?,
            Case::Nat(Translator::Stateway) => {
                rig.target = "198.51.100.2";
                let file = rig.routing_file()?;
                rig.spawn_router(&file)?;
            }
            Case::Nat(Translator::Kernel) => rig.kernel(&masquerading())?,
            Case::Nat(Translator::OpenVSwitch) => {
                rig.open_v_switch(OVS_NAT)?;
                // Nobody answers for the address that A's packets come from.
                let Self { a, b, .. } = &rig;
                sh(&format!(
                    "mac=$(ip netns exec {a} cat /sys/class/net/eth0/address) &&
                     ip -n {b} neigh replace {OVS_SOURCE} lladdr $mac dev eth0 nud permanent"
                ))?;
            }
        }
        let (a, target) = (&rig.a, rig.target);
        sh(&format!("ip netns exec {a} ping -c 3 -i 0.05 -w 3 {target} >/dev/null"))
            .context("the hosts do not see each other")?;
        rig.asleep();
        Ok(rig)
    }

    /// A router that never sleeps would take a CPU from the others while it is not its turn.
    const fn is_restless(&self) -> bool {
        matches!(self.case, Case::Stateway { device: Device::Busy, .. })
    }

    /// It is this rig's turn.
    pub fn awake(&mut self) -> anyhow::Result<&Self> {
        if self.is_restless() {
            self.signal("CONT");
        }
        // Whatever waited on the way is through, and neighbours are known again.
        let (a, target) = (&self.a, self.target);
        sh(&format!("ip netns exec {a} ping -c 2 -i 0.02 -w 3 {target} >/dev/null"))
            .context("the hosts do not see each other")?;
        Ok(self)
    }

    /// It is another rig's turn.
    pub fn asleep(&mut self) {
        if self.is_restless() {
            self.signal("STOP");
        }
    }

    fn signal(&self, signal: &str) {
        for pid in &self.forwarders {
            let _ = sh(&format!("kill -{signal} {pid}"));
        }
    }

    /// How many connections the table holds, if that is not ours to say.
    pub fn most_connections(&self) -> anyhow::Result<Option<u32>> {
        if !matches!(self.case, Case::Kernel { .. } | Case::Nat(Translator::Kernel)) {
            return Ok(None);
        }
        // One limit for the whole machine, which a benchmark has no business to change.
        Ok(Some(fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?.trim().parse()?))
    }

    fn spawn_router(&mut self, file: &Path) -> anyhow::Result<()> {
        let (program, socket) = (self.stateway.clone(), self.control());
        let words = [program.as_path(), Path::new("run"), file, Path::new("--control"), &socket];
        self.spawn_taps(&words.map(|word| word.to_string_lossy().into_owned()), Some("ready:"))
    }

    /// Starts a forwarder that makes the TAPs `ra` and `rb`, and gives each to its host.
    fn spawn_taps(&mut self, command: &[String], ready: Option<&str>) -> anyhow::Result<()> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.router])
            .args(command)
            .stderr(Stdio::piped())
            .spawn()?;
        self.forwarders.push(child.id());
        let stderr = child.stderr.take();
        self.children.push(child);
        if let (Some(word), Some(stderr)) = (ready, stderr) {
            let mut lines = BufReader::new(stderr).lines();
            let said = lines.find_map(|line| {
                line.map_or_else(|_| Some(String::new()), |l| l.contains(word).then_some(l))
            });
            if said.is_none_or(|line| line.is_empty()) {
                bail!("the forwarder did not start");
            }
        }
        let router = self.router.clone();
        wait_until(|| ["ra", "rb"].iter().all(|tap| sh(&format!("ip -n {router} link show {tap}")).is_ok()))?;
        self.give("ra", "rb")
    }

    /// Gives the hosts their network cards.
    fn give(&self, for_a: &str, for_b: &str) -> anyhow::Result<()> {
        let Self { a, b, router, target, .. } = self;
        sh(&format!(
            "ip -n {router} link set {for_a} netns {a} name eth0 && ip -n {router} link set {for_b} netns {b} name eth0 &&
             ip -n {a} addr add 192.0.2.1/24 dev eth0 && ip -n {b} addr add {target}/24 dev eth0 &&
             ip -n {a} link set eth0 up && ip -n {b} link set eth0 up"
        ))?;
        if self.case == Case::Nat(Translator::Stateway) { self.give_routes() } else { Ok(()) }
    }

    /// Where hosts in two networks find each other.
    fn give_routes(&self) -> anyhow::Result<()> {
        let Self { a, b, .. } = self;
        sh(&format!(
            "ip -n {a} route add default via 192.0.2.254 && ip -n {b} route add default via 198.51.100.254"
        ))
    }

    fn routing_file(&self) -> anyhow::Result<PathBuf> {
        let file = self.folder.join("router.yaml");
        fs::write(self.folder.join("rules.v4"), masquerading())?;
        fs::write(
            &file,
            "router:\n  mode: route\n  device: fast\n  ports:\n    ra: { address: [192.0.2.254/24] }\n    \
             rb: { address: [198.51.100.254/24] }\n  sysctl: { nf_conntrack_max: 2000000 }\n  rules_file: rules.v4\n",
        )?;
        Ok(file)
    }

    fn router_file(&self, device: Device, rules: Rules) -> anyhow::Result<PathBuf> {
        let (device, busy) = match device {
            Device::Fast => ("fast", "never"),
            Device::Tap => ("tap", "never"),
            Device::Adaptive => ("fast", "adaptive"),
            Device::Busy => ("fast", "always"),
        };
        let file = self.folder.join("router.yaml");
        fs::write(self.folder.join("rules.v4"), iptables(rules))?;
        fs::write(
            &file,
            format!(
                "router:\n  mode: bridge\n  device: {device}\n  busy_poll: {busy}\n  ports: {{ ra: {{}}, rb: {{}} }}\n  \
                 sysctl: {{ nf_conntrack_max: 2000000 }}\n  rules_file: rules.v4\n"
            ),
        )?;
        Ok(file)
    }

    /// The kernel forwards between two networks, by the same rules.
    fn kernel(&mut self, rules: &str) -> anyhow::Result<()> {
        let file = self.folder.join("rules.v4");
        fs::write(&file, rules)?;
        self.target = "198.51.100.2";
        let Self { a, b, router, .. } = self;
        sh(&format!(
            "ip link add eth0 netns {a} type veth peer name ra netns {router} &&
             ip link add eth0 netns {b} type veth peer name rb netns {router} &&
             ip -n {router} addr add 192.0.2.254/24 dev ra && ip -n {router} addr add 198.51.100.254/24 dev rb &&
             ip -n {router} link set ra up && ip -n {router} link set rb up &&
             ip -n {a} addr add 192.0.2.1/24 dev eth0 && ip -n {b} addr add 198.51.100.2/24 dev eth0 &&
             ip -n {a} link set eth0 up && ip -n {b} link set eth0 up &&
             ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1 &&
             ip netns exec {router} iptables-restore < {}",
            file.display()
        ))?;
        self.give_routes()
    }

    /// `flows`: what becomes of IP packets, with `$a` and `$b` for the two ports.
    fn open_v_switch(&mut self, flows: &str) -> anyhow::Result<()> {
        if !Path::new("/usr/sbin/ovs-vswitchd").exists() {
            bail!("Open vSwitch is not installed (apt-get install -y openvswitch-switch)");
        }
        let (router, dir) = (self.router.clone(), self.folder.join("ovs"));
        fs::create_dir_all(&dir)?;
        let dir = dir.display();
        sh(&format!(
            "export OVS_RUNDIR={dir} OVS_LOGDIR={dir} OVS_DBDIR={dir} OVS_SYSCONFDIR={dir}
             set -e
             ovsdb-tool create {dir}/conf.db /usr/share/openvswitch/vswitch.ovsschema
             ip netns exec {router} ovsdb-server {dir}/conf.db --remote=punix:{dir}/db.sock --pidfile={dir}/db.pid --detach --no-chdir --log-file={dir}/db.log
             v='ovs-vsctl --db=unix:{dir}/db.sock'
             $v --no-wait init
             $v --no-wait set Open_vSwitch . other_config:userspace-tso-enable=true
             ip netns exec {router} ovs-vswitchd unix:{dir}/db.sock --pidfile={dir}/vs.pid --detach --no-chdir --log-file={dir}/vs.log
             $v -t 10 add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=secure
             $v -t 10 add-port br0 ra -- set interface ra type=internal -- add-port br0 rb -- set interface rb type=internal
             a=$($v get interface ra ofport) b=$($v get interface rb ofport)
             cat > {dir}/flows <<FLOWS
table=0,priority=100,arp actions=normal
table=0,priority=0 actions=drop
table=1,priority=100,ip,ct_state=+trk+est,in_port=$a actions=output:$b
table=1,priority=100,ip,ct_state=+trk+est,in_port=$b actions=output:$a
table=1,priority=100,ip,ct_state=+trk+rel,in_port=$a actions=output:$b
table=1,priority=100,ip,ct_state=+trk+rel,in_port=$b actions=output:$a
table=1,priority=0 actions=drop
{flows}
FLOWS
             ovs-ofctl del-flows unix:{dir}/br0.mgmt
             ovs-ofctl add-flows unix:{dir}/br0.mgmt {dir}/flows"
        ))
        .context("Open vSwitch")?;
        self.forwarders.push(read_pid(&self.folder.join("ovs/vs.pid"))?);
        self.give("ra", "rb")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.is_restless() {
            self.signal("CONT");
        }
        for child in &mut self.children {
            let _ = sh(&format!("kill {}", child.id()));
            let _ = child.wait();
        }
        for daemon in ["ovs/vs.pid", "ovs/db.pid"] {
            if let Ok(pid) = read_pid(&self.folder.join(daemon)) {
                let _ = sh(&format!("kill {pid}"));
                let _ = wait_until(|| !Path::new(&format!("/proc/{pid}")).exists());
            }
        }
        for ns in [&self.a, &self.b, &self.router] {
            let _ = sh(&format!("ip netns del {ns}"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Takes down what a killed run has left behind.
pub fn remove_leftovers() {
    for ns in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let ns = ns.file_name().to_string_lossy().into_owned();
        let pid = ns.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ =
                sh(&format!("for pid in $(ip netns pids {ns}); do kill -KILL $pid; done; ip netns del {ns}"));
        }
    }
    for folder in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

fn read_pid(file: &Path) -> anyhow::Result<u32> {
    Ok(fs::read_to_string(file)?.trim().parse()?)
}

/// What Open vSwitch does with what is not tracked yet, and with what A opens.
const OVS_FILTER: &str = "table=0,priority=90,ip,ct_state=-trk actions=ct(table=1)
table=1,priority=90,ip,ct_state=+trk+new,in_port=$a actions=ct(commit),output:$b";
/// The same with [`OVS_SOURCE`] for A's address.
const OVS_NAT: &str = "table=0,priority=90,ip,ct_state=-trk actions=ct(nat,table=1)
table=1,priority=90,ip,ct_state=+trk+new,in_port=$a actions=ct(commit,nat(src=192.0.2.100)),output:$b";

/// The stateful filter, and the address of the way out for what A opens.
fn masquerading() -> String {
    let chains =
        [":PREROUTING", ":INPUT", ":OUTPUT", ":POSTROUTING"].map(|chain| format!("{chain} ACCEPT [0:0]\n"));
    format!("*nat\n{}-A POSTROUTING -o rb -j MASQUERADE\nCOMMIT\n{}", chains.concat(), iptables(Rules(0)))
}

/// The stateful filter: what A opens may be answered, and nothing else passes.
fn iptables(Rules(before): Rules) -> String {
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    for n in 0..before {
        let (high, low) = ((n >> 8) & 255, n & 255);
        let _ =
            writeln!(text, "-A FORWARD -s 198.18.{high}.{low}/32 -p tcp -m tcp --dport {} -j DROP", 1000 + n);
    }
    text.push_str("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    text.push_str("-A FORWARD -i ra -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n");
    text
}

/// Runs a shell command; its complaint is the error.
pub fn sh(command: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn wait_until(mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        if Instant::now() > deadline {
            bail!("nothing happened in ten seconds");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
