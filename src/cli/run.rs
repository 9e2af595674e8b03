//! `stateway run`: the router alone, on TAPs that others use.

use super::render::tell as say;
use super::{Failure, Result};
use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, Sender, never, select, tick};
use signal_hook::consts::SIGHUP;
use source::Source;
use stateway_core::config::{DeviceChoice, Mode, RunOptions};
use stateway_core::conntrack::saved::Restored;
use stateway_core::iface::Iface;
use stateway_core::router::{Router, RouterError};
use stateway_core::time::Instant;
use stateway_lab as lab;
use stateway_runtime::confine::{self, CapabilitySet, Keeps, Report, Role, User};
use stateway_runtime::control::http::{MetricsServer, MetricsSocket};
use stateway_runtime::control::server::Server;
use stateway_runtime::control::socket::ControlSocket;
use stateway_runtime::control::{self, place};
use stateway_runtime::device::link::Lookup;
use stateway_runtime::device::offload::OffloadPort;
use stateway_runtime::device::tap::TapPort;
use stateway_runtime::device::{Kind, Port, inherited, link};
use stateway_runtime::keeper::{Keeper as _, KeeperProcess, Plan, PortPlan};
use stateway_runtime::runtime::ending::{self, LastResort};
use stateway_runtime::runtime::listener::Listener;
use stateway_runtime::runtime::orders::{Caught, Order, SignalOrders};
use stateway_runtime::runtime::service::ServiceManager;
use stateway_runtime::runtime::state::Saver;
use stateway_runtime::runtime::{self, Options, Runtime};
use stateway_runtime::statefile::{State, Summary};
use stateway_runtime::terminal;
use stateway_trace::input;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod source;

/// Connections are not shown older than this.
const LONGEST_AGE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What it stands for is told in the manual and in `--help`.
const EXIT_CODES: &str = "Exit codes:
  0    SIGTERM, SIGINT or `shutdown` ended it
  2    the file or the rules are wrong
  3    this machine cannot do it, and why
  101  it ended itself: a thread panicked, and it says where; or its end hung for a second";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Args {
    /// A lab file, or just its `router:` part
    file: PathBuf,
    /// The control socket; by default one under `$XDG_RUNTIME_DIR/stateway/` or `/run/stateway/`
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Write the packets that NFLOG speaks of to a capture, group and prefix as comments; `-` writes standard output
    #[arg(long, value_name = "FILE.pcapng")]
    nflog: Option<PathBuf>,
    /// Keep connections, expectations, stations and neighbours in this file, and go on with them after a restart; the ports stay
    /// as interfaces when the router ends
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// How often the state is written; a table that takes longer than a tenth of it to write is written less often
    #[arg(long, value_name = "TIME", requires = "state", default_value = "1s", value_parser = state_interval)]
    state_interval: Duration,
    /// Serve what the router counts to Prometheus over HTTP, as `http://ADDRESS/metrics`; a port alone is of 127.0.0.1
    #[arg(long, value_name = "ADDRESS:PORT|PORT", value_parser = metrics_address)]
    metrics: Option<SocketAddr>,
    /// Become this user once the ports are open; by default root becomes a user of its own that nobody else is
    #[arg(long, value_name = "NAME|UID")]
    user: Option<String>,
}

fn state_interval(text: &str) -> std::result::Result<Duration, String> {
    let interval =
        humantime::parse_duration(text).map_err(|_| "a time, such as `1s` or `500ms`".to_owned())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    if allowed.contains(&interval) { Ok(interval) } else { Err("from `100ms` to `1h`".to_owned()) }
}

fn metrics_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let port = text.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    port.or_else(|_| text.parse())
        .map_err(|_| "an address with a port, such as `127.0.0.1:9100` or `[::1]:9100`, or a port".to_owned())
}

/// What takes a privilege, done.
struct Opened {
    router: Arc<Router>,
    ports: Vec<Box<dyn Port>>,
    options: RunOptions,
    mode: Mode,
    /// The lab file, and the folder that its name begins from.
    file: PathBuf,
    here: PathBuf,
    source: Source,
    nflog: Option<Capture>,
    control: ControlSocket,
    metrics: Option<MetricsSocket>,
    service: ServiceManager,
    keeper: Arc<KeeperProcess>,
    lookup: Lookup,
    /// When the router's clock begins: connections that it was given are older than it.
    begins: Duration,
    /// How often the state is saved.
    saved: Option<Duration>,
}

/// Where packets that NFLOG speaks of go: a file, or standard output.
struct Capture {
    name: PathBuf,
    file: Option<File>,
}

pub(super) fn run(args: Args) -> Result {
    // Whoever reads it may have stopped already.
    stateway_runtime::stderr::hold();
    let user = args.user.as_deref().map_or(Ok(User::Dynamic), confine::user).map_err(Failure::Input)?;
    // Until there are threads, signals end the process, which has nothing to lose yet; this one never does.
    let hang_up = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&hang_up))
        .context("cannot catch signals")
        .map_err(Failure::Machine)?;
    let opened = open(&args)?;
    ending::read_symbols();
    let signals = Caught::catch().context("cannot catch signals").map_err(Failure::Machine)?;
    let keeps = Keeps { user, capabilities: CapabilitySet::empty(), paths: Vec::new(), role: Role::Router };
    let confined = confine::process(&keeps).map_err(Failure::Machine)?;
    forward(opened, confined, signals, hang_up.load(Ordering::Acquire))
}

/// Everything up to the point where privileges are given up.
fn open(args: &Args) -> Result<Opened> {
    let service = ServiceManager::connect();
    let file = lab::find(&args.file);
    let here = std::env::current_dir().context("no current folder").map_err(Failure::Machine)?;
    let source = Source::open(&file).map_err(|e| Failure::Input(e.into()))?;
    let (mut config, options) = (source.config(), source.options());
    let known = args.state.as_deref().map(known_state).transpose()?.flatten();
    let passed = known.as_ref().map_or(Duration::ZERO, |state| state.passed(runtime::unix_nanos()));
    let begins = known.as_ref().map_or(Duration::ZERO, |state| state.oldest() + passed).min(LONGEST_AGE);
    config.unix_epoch_nanos = runtime::unix_nanos().saturating_sub(begins.as_nanos() as u64);
    config.seed = RandomState::new().build_hasher().finish();
    let mode = config.mode;
    let router = Router::new(config).map_err(|errors| {
        let errors: Vec<_> = errors.into_iter().map(RouterError::into_rule_error).collect();
        Failure::Input(source::rule_errors(&file, &errors))
    })?;
    let router = router.with_picker(Arc::new(runtime::Unforeseen::default()));
    source.warn_of_missing_rules(&router);
    if let Some(state) = known {
        say(&describe_known(&state.restore(&router, passed, Instant::ZERO + begins)));
    }
    let router = Arc::new(router);
    let nflog = args.nflog.as_deref().map(Capture::open).transpose()?;
    let ports = open_ports(&router, options.device).map_err(Failure::Machine)?;
    let control = bind(args.control.as_deref()).map_err(Failure::Machine)?;
    let metrics = args.metrics.map(listen_for_metrics).transpose().map_err(Failure::Machine)?;
    if args.state.is_some() {
        keep_ports(&ports).map_err(Failure::Machine)?;
    }
    let state = args.state.as_deref().map(|path| here.join(path).into());
    let plan = plan(&here.join(&file), &router, &ports, &control).map_err(Failure::Machine)?;
    let plan = Plan { state, ..plan };
    let lookup = Lookup::new().context("no socket to ask about interfaces").map_err(Failure::Machine)?;
    // All that was named is open by now; neither we nor the keeper hold anything else.
    inherited::close();
    let keeper =
        KeeperProcess::start(&plan).context("cannot start the router's keeper").map_err(Failure::Machine)?;
    Ok(Opened {
        router,
        ports,
        options,
        mode,
        file,
        here,
        source,
        nflog,
        control,
        metrics,
        service,
        keeper: Arc::new(keeper),
        lookup,
        begins,
        saved: args.state.is_some().then_some(args.state_interval),
    })
}

/// Forwards until it is told to end.
fn forward(opened: Opened, confined: Report, signals: Caught, is_to_reload: bool) -> Result {
    let Opened {
        router,
        ports,
        options,
        mode,
        file,
        here,
        mut source,
        nflog,
        control,
        metrics,
        service,
        keeper,
        lookup,
        begins,
        saved,
    } = opened;
    let (sender, orders) = crossbeam_channel::unbounded();
    let last_resort = detach_from_readers().map_err(Failure::Machine)?;
    say(&confined.line());
    let _signals = SignalOrders::listen(signals, sender.clone(), last_resort.clone())
        .context("no thread for signals")
        .map_err(Failure::Machine)?;
    if is_to_reload {
        // What changed since it was read.
        let _ = sender.send(Order::Reload(None));
    }
    // Before anything is forwarded, so that nothing goes unheard.
    let log = runtime::log::start(Arc::clone(&router))
        .context("no thread for the log")
        .map_err(Failure::Machine)?;
    let nflog = nflog.map(|capture| capture.write(&router)).transpose()?;
    // The plain port is the plain way all through: one read, one frame.
    let io_uring = ports.iter().any(|port| port.kind() == Kind::Offload);
    let workers = runtime::usual_workers(ports.len());
    let options = Options { busy_poll: options.busy_poll, io_uring, workers };
    let mut runtime =
        Runtime::start_at(begins, Arc::clone(&router), ports, options).map_err(Failure::Machine)?;
    runtime
        .look_after_ports(Arc::<KeeperProcess>::clone(&keeper), lookup)
        .context("nobody to look after the ports")
        .map_err(Failure::Machine)?;

    let shared = Arc::clone(runtime.shared());
    let start_saver = |interval| {
        Saver::start(Arc::clone(&router), shared.clock, Arc::<KeeperProcess>::clone(&keeper), interval)
            .context("no thread for the state")
    };
    let saver = saved.map(start_saver).transpose().map_err(Failure::Machine)?;
    if let Some(metrics) = &metrics {
        say(&format!("metrics: http://{}/metrics", metrics.address()));
    }
    let metrics = metrics.map(|socket| MetricsServer::start(socket, Arc::clone(&shared)));
    let metrics = metrics.transpose().context("no thread for metrics").map_err(Failure::Machine)?;
    let file = lab::builtin::shown(&file).to_string();
    let mut context = control::server::Context::new(shared, sender, mode, Some(file.into()), runtime.burst());
    context.confined = confined;
    context.config = Some(source.config());
    let server = Server::start(control, context)
        .context("no thread for the control socket")
        .map_err(Failure::Machine)?;
    confine::narrow(Role::Main);

    say(&format!("ready: {}, control {}", describe(&runtime, mode), server.path().display()));
    last_resort.is_at_work();
    service.ready();
    let reload = |reply| {
        service.reloading();
        let open = |path: &Path| keeper.open_config(&here.join(path));
        let read = |path: &Path, most| input::read_through(&open, path, most);
        reload(&mut source, &read, &router, reply);
        service.ready();
    };
    let result = obey(&orders, &runtime, &service, reload);
    last_resort.begin();
    service.stopping();
    runtime.stop();
    // Behind the last packet.
    if let Some(saver) = saver {
        saver.finish();
    }
    last_resort.is_done(result.as_ref().map_or_else(|failure| i32::from(failure.code()), |()| 0));
    drop((server, metrics));
    drop((log, nflog));
    keeper.end();
    result
}

impl Capture {
    fn open(name: &Path) -> Result<Self> {
        let file = if name == Path::new("-") {
            terminal::check_stdout().map(|()| None)
        } else {
            runtime::nflog::open(name).map(Some)
        };
        Ok(Self { name: name.to_owned(), file: file.map_err(|error| cannot_write(name, error))? })
    }

    fn write(self, router: &Arc<Router>) -> Result<Listener> {
        let router = Arc::clone(router);
        let started = match self.file {
            Some(file) => runtime::nflog::start(router, file),
            None => runtime::nflog::start(router, io::stdout()),
        };
        started.map_err(|error| cannot_write(&self.name, error))
    }
}

fn cannot_write(name: &Path, error: io::Error) -> Failure {
    Failure::Input(anyhow::Error::from(error).context(format!("cannot write `{}`", name.display())))
}

/// From here on, whoever reads what the router says may stop reading, a panic ends the process, and so does the end.
fn detach_from_readers() -> anyhow::Result<LastResort> {
    stateway_runtime::stderr::detach().context("no thread for standard error")?;
    ending::at_any_panic();
    LastResort::start().context("no thread to end the process")
}

/// Does what the router is told, until it is told to end or cannot go on.
fn obey(
    orders: &Receiver<Order>,
    runtime: &Runtime,
    service: &ServiceManager,
    mut reload: impl FnMut(Option<Sender<std::result::Result<(), String>>>),
) -> Result {
    let watchdog = service.watchdog_interval().map_or_else(never, tick);
    loop {
        select! {
            recv(orders) -> order => match order {
                Ok(Order::Reload(reply)) => reload(reply),
                Ok(Order::Stop) | Err(_) => return Ok(()),
            },
            recv(runtime.failures()) -> failure => {
                let error = failure.unwrap_or_else(|_| anyhow::anyhow!("every worker ended"));
                return Err(Failure::Machine(error.context("the forwarding loop failed")));
            },
            recv(watchdog) -> _ => match runtime.standing_still().as_slice() {
                [] => service.alive(),
                // The service manager hears nothing, and acts.
                still => tracing::error!(workers = ?still, "a worker takes no turn any more"),
            },
        }
    }
}

/// The control socket, at `socket` or at the place of this process.
fn bind(socket: Option<&Path>) -> anyhow::Result<ControlSocket> {
    if let Some(socket) = socket {
        return ControlSocket::bind(socket);
    }
    let hint = "name a place for it with `--control SOCKET`";
    place::make_folder(&place::folder()).context(hint)?;
    ControlSocket::bind(&place::of_process(std::process::id())).context(hint)
}

/// Opens where metrics are asked for, and warns if others than this machine may ask, or nobody.
fn listen_for_metrics(address: SocketAddr) -> anyhow::Result<MetricsSocket> {
    const TRY: Duration = Duration::from_secs(1);
    let hint = "is another program there? `ip address` shows the addresses of this network namespace";
    let socket = MetricsSocket::bind(address).map_err(|error| anyhow!("{error:#}\n  hint: {hint}"))?;
    let address = socket.address();
    if !address.ip().is_loopback() {
        super::render::warn(&format!(
            "metrics at `{address}` are for whoever can reach that address: nobody is asked who he is\n  \
             hint: `--metrics 127.0.0.1:{}` is for this machine alone",
            address.port()
        ));
    } else if TcpStream::connect_timeout(&address, TRY).is_err() {
        super::render::warn(&format!(
            "metrics at `{address}` are for nobody: `lo` is down in this network namespace\n  hint: `ip link set lo up`"
        ));
    }
    Ok(socket)
}

/// Makes every TAP or attaches to it, and sets it up.
///
/// `auto` takes fast ports, or plain ones if there is a kernel that knows no virtio header; never a mixture, since
/// frames would have to be cut and summed between the two.
fn open_ports(router: &Router, device: DeviceChoice) -> anyhow::Result<Vec<Box<dyn Port>>> {
    let fast = |iface: &Iface| {
        unless_busy(|| OffloadPort::open(&iface.name)).map(|port| Box::new(port) as Box<dyn Port>)
    };
    let plain = |iface: &Iface| {
        unless_busy(|| TapPort::open(&iface.name)).map(|port| Box::new(port) as Box<dyn Port>)
    };
    let open = |how: &dyn Fn(&Iface) -> io::Result<Box<dyn Port>>| -> anyhow::Result<Vec<Box<dyn Port>>> {
        router.ifaces().iter().map(|i| how(i).map_err(|error| why_no_tap(&i.name, &error))).collect()
    };
    let ports = match device {
        DeviceChoice::Tap => open(&plain)?,
        DeviceChoice::Fast => open(&fast)?,
        // Where it is not the header's fault, the plain port fails alike, and says why.
        DeviceChoice::Auto => open(&fast).or_else(|_| open(&plain))?,
    };
    for iface in router.ifaces() {
        link::bring_up(&iface.name, iface.mtu_bytes)
            .with_context(|| format!("cannot set up the interface `{}`", iface.name))?;
    }
    Ok(ports)
}

/// Has the interfaces outlive the router, so that whatever is set on them is there for the next one.
fn keep_ports(ports: &[Box<dyn Port>]) -> anyhow::Result<()> {
    for port in ports {
        link::keep(port.as_fd()).with_context(|| format!("cannot keep the interface `{}`", port.name()))?;
    }
    Ok(())
}

fn known_state(path: &Path) -> Result<Option<State<Vec<u8>>>> {
    let hint = "`--state` takes the name of a file that the router writes";
    let refused = |error| anyhow!("cannot keep the state in `{}`: {error}\n  hint: {hint}", path.display());
    runtime::state::read(path).map_err(|error| Failure::Input(refused(error)))
}

fn describe_known(summary: &Summary) -> String {
    let Summary { restored: Restored { connections, expectations, expired, refused }, links, passed } =
        summary;
    format!(
        "state of {:.1} s ago: {connections} connections, {expectations} expectations, {links} stations or neighbours; \
         {expired} had ended, {refused} were not taken",
        passed.as_secs_f64()
    )
}

/// What a keeper does for this router.
fn plan(
    lab: &Path,
    router: &Router,
    ports: &[Box<dyn Port>],
    control: &ControlSocket,
) -> anyhow::Result<Plan> {
    let ports = router.ifaces().iter().zip(ports).map(|(iface, port)| PortPlan {
        name: iface.name.clone(),
        kind: port.kind(),
        mtu_bytes: iface.mtu_bytes,
    });
    let socket = control.plan().context("the control socket is gone")?;
    Ok(Plan { lab: lab.to_owned(), ports: ports.collect(), state: None, socket: Some(socket) })
}

/// Tries again for a while if somebody holds the TAP: the kernel lets go of a killed router's a little later.
fn unless_busy<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..50 {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let _ = crossbeam_channel::after(Duration::from_millis(20)).recv();
            }
            result => return result,
        }
    }
    open()
}

/// The kernel's reason, and what to do about it.
fn why_no_tap(name: &str, error: &io::Error) -> anyhow::Error {
    let hint = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => {
            "there is no /dev/net/tun: `modprobe tun`, or pass the device into the container"
        }
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            "it takes CAP_NET_ADMIN in this network namespace: run as root, or in `unshare --user --map-root-user --net`"
        }
        Some(rustix::io::Errno::BUSY) => "another process holds it",
        Some(rustix::io::Errno::INVAL) => "an interface of that name exists and is no TAP of the same kind",
        _ => "`stateway doctor` says what this machine lacks",
    };
    anyhow!("cannot open the TAP `{name}`: {error}\n  hint: {hint}")
}

/// Loads the file again; on any error all of the old configuration stays in force.
fn reload(
    source: &mut Source,
    read: lab::Read<'_>,
    router: &Router,
    reply: Option<Sender<std::result::Result<(), String>>>,
) {
    let result = source.reload(router, read);
    match &result {
        Ok(()) => say("reloaded: the new rules are in force"),
        Err(error) => say(&format!("not reloaded, the old rules stay in force: {error:#}")),
    }
    if let Some(reply) = reply {
        // Who asked may have gone.
        let _ = reply.send(result.map_err(|error| format!("{error:#}")));
    }
}

fn describe(runtime: &Runtime, mode: Mode) -> String {
    let ports = &runtime.shared().ports;
    let names: Vec<&str> = ports.iter().map(|p| p.name()).collect();
    let mut kinds: Vec<&str> = ports.iter().map(|p| p.kind().word()).collect();
    kinds.dedup();
    let mode = match mode {
        Mode::Bridge => "bridge",
        Mode::Route => "route",
    };
    format!(
        "{mode} mode, ports {}, device {} ({}), pid {}",
        names.join(" "),
        kinds.join("+"),
        runtime.burst(),
        std::process::id()
    )
}
