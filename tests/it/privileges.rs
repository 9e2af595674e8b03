//! What a running router holds, seen from outside: its threads and its keeper in `/proc`, its files replaced while it
//! runs, its control socket asked by others.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use crate::run;
use rustix::fs::{Gid, Uid};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use stateway_runtime::control::Client;
use stateway_runtime::control::protocol::{Command as Ask, Reply, Status};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_NET_ADMIN: u64 = 1 << 12;
const RULES: &str = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i left -j ACCEPT\nCOMMIT\n";
const OTHER_RULES: &str =
    "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i right -j ACCEPT\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n";

/// A router in a network namespace of its own, which nobody is connected to.
struct Run {
    router: Child,
    says: BufReader<ChildStderr>,
    confined: String,
    folder: tempfile::TempDir,
}

impl Run {
    fn start() -> Self {
        Self::start_in("exec \"$@\"", &[])
    }

    /// Started by a shell's `script`, whose arguments are the command and `options`.
    fn start_in(script: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("rules"), RULES).unwrap();
        lab(folder.path(), "rules");
        let program = at("stateway");
        // For whoever may not look where it was built.
        fs::hard_link(env!("CARGO_BIN_EXE_stateway"), &program)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_stateway"), &program).map(drop))
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut router = Command::new("sh")
            .args(["-c", script, "sh", "unshare", "--net"])
            .arg(program)
            .arg("run")
            .arg(at("router.yaml"))
            .arg("--control")
            .arg(at("control"))
            .args(options)
            .env_remove("JOURNAL_STREAM")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(router.stderr.take().unwrap());
        let mut run = Self { router, says, confined: String::new(), folder };
        run.confined = run.hear("confined:");
        run.hear("ready:");
        run
    }

    fn hear(&mut self, word: &str) -> String {
        run::hear(&mut self.says, word)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(&self.at("control")).unwrap();
        client.set_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn status(&self) -> Status {
        match self.client().call(&Ask::Status).unwrap().remove(0) {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// How many rules there are, policies included.
    fn rules(&self) -> usize {
        match self.client().call(&Ask::Rules).unwrap().remove(0) {
            Reply::Rules { rules, .. } => rules.len(),
            other => panic!("{other:?}"),
        }
    }

    fn pid(&self) -> u32 {
        self.router.id()
    }

    fn keeper(&self) -> u32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap();
        children.trim().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.router), signal).unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.router), Signal::TERM);
        let _ = self.router.wait();
    }
}

fn lab(folder: &Path, rules_file: &str) {
    let text = format!(
        "router:\n  mode: bridge\n  ports: {{ left: {{}}, right: {{}} }}\n  rules_file: {rules_file}\n  rules6: none\n"
    );
    replace(&folder.join("router.yaml"), &text);
}

/// As editors do it: a new file takes the old one's name.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// Fields of `/proc/…/status`.
struct Held(String);

impl Held {
    fn of(task: &Path) -> Self {
        Self(fs::read_to_string(task.join("status")).unwrap())
    }

    fn field(&self, name: &str) -> &str {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
    }

    fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(self.field(set), 16).unwrap()
    }
}

fn is_left_out() -> bool {
    std::env::var_os("STATEWAY_SIM_ONLY").is_some_and(|v| v == "1")
}

#[test]
fn a_running_router_holds_its_descriptors_and_nothing_else() {
    if is_left_out() {
        return;
    }
    // Somebody left a file open for it.
    let run = Run::start_in("exec 9</etc/passwd; exec \"$@\"", &[]);
    assert!(run.confined.ends_with("kept: nothing"), "{}", run.confined);
    let tasks = fs::read_dir(format!("/proc/{}/task", run.pid())).unwrap();
    for task in tasks.map(|task| task.unwrap().path()) {
        let (held, name) = (Held::of(&task), fs::read_to_string(task.join("comm")).unwrap());
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(held.capabilities(set), 0, "{name}: {set}");
        }
        assert_eq!((held.field("NoNewPrivs"), held.field("Seccomp")), ("1", "2"), "{name}");
        assert_eq!(held.field("Groups"), "", "{name}");
        for ids in ["Uid", "Gid"] {
            assert!(
                held.field(ids).split_whitespace().all(|id| id.parse::<u32>().unwrap() > 65535),
                "{name}"
            );
        }
        // The list of the process, and that of the thread's role.
        let filters: u32 = held.field("Seccomp_filters").parse().unwrap();
        assert!(filters >= 3, "{name}: {filters}");
    }
    for link in fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap() {
        let target = fs::read_link(link.unwrap().path()).unwrap();
        let target = target.to_string_lossy();
        let is_known =
            ["socket:", "pipe:", "anon_inode:", "/dev/"].iter().any(|kind| target.starts_with(kind));
        assert!(is_known, "{target}");
    }
    let held = Held::of(Path::new(&format!("/proc/{}", run.keeper())));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(held.capabilities(set) & !(CAP_NET_ADMIN | CAP_DAC_OVERRIDE), 0, "{set}");
    }
    assert_eq!((held.field("NoNewPrivs"), held.field("Seccomp")), ("1", "2"));
    let status = run.status();
    assert_eq!((status.pid, status.kept), (run.pid(), Vec::new()));
    assert!(status.confined.iter().any(|taken| taken == "all capabilities"), "{:?}", status.confined);
}

#[test]
fn files_that_were_replaced_are_read_again_and_no_others() {
    if is_left_out() {
        return;
    }
    let mut run = Run::start();
    let before = run.rules();
    replace(&run.at("rules"), OTHER_RULES);
    run.signal(Signal::HUP);
    run.hear("reloaded:");
    assert_eq!(run.rules(), before + 1);
    // Another name in the same folder, through a link.
    replace(&run.at("more"), RULES);
    symlink("more", run.at("link")).unwrap();
    lab(run.folder.path(), "link");
    run.signal(Signal::HUP);
    run.hear("reloaded:");
    assert_eq!(run.rules(), before);
    // What the lab file names elsewhere takes a restart.
    lab(run.folder.path(), "/etc/passwd");
    run.signal(Signal::HUP);
    let refused = run.hear("not reloaded");
    assert_eq!(run.rules(), before, "{refused}");
    let heard = run.hear("/etc/passwd");
    assert!(heard.contains("Permission denied"), "{heard}");
}

#[test]
fn guests_look_and_change_nothing() {
    if is_left_out() {
        return;
    }
    let run = Run::start();
    let socket = run.at("control");
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(
        as_nobody(&socket, &Ask::Status).unwrap_err().contains("cannot reach"),
        "the socket is root's alone"
    );
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    as_nobody(&socket, &Ask::Status).unwrap();
    for refused in [Ask::ConntrackFlush, Ask::Reload, Ask::Shutdown] {
        let error = as_nobody(&socket, &refused).unwrap_err();
        assert!(error.contains("only root and user 0"), "{error}");
    }
    run.client().call(&Ask::ConntrackFlush).unwrap();
}

/// What the router answers to user `nobody`.
fn as_nobody(socket: &Path, ask: &Ask) -> Result<Vec<Reply>, String> {
    let (socket, ask) = (socket.to_owned(), ask.clone());
    let thread = std::thread::spawn(move || {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        let mut client = Client::connect(&socket).map_err(|error| error.to_string())?;
        client.set_timeout(Some(PATIENCE)).unwrap();
        client.call(&ask).map_err(|error| error.to_string())
    });
    thread.join().unwrap()
}

#[test]
fn the_umask_neither_opens_the_socket_nor_shuts_it() {
    if is_left_out() {
        return;
    }
    for umask in ["000", "777"] {
        let run = Run::start_in(&format!("umask {umask}; exec \"$@\""), &[]);
        assert_eq!(fs::metadata(run.at("control")).unwrap().permissions().mode() & 0o777, 0o600, "{umask}");
        run.status();
    }
}

#[test]
fn a_killed_router_leaves_neither_its_keeper_nor_its_socket() {
    if is_left_out() {
        return;
    }
    for signal in [Signal::KILL, Signal::TERM] {
        let mut run = Run::start();
        let keeper = run.keeper();
        // As a service manager does that tells all of them to end.
        kill_process(Pid::from_raw(keeper as i32).unwrap(), Signal::TERM).unwrap();
        run.status();
        run.signal(signal);
        run.router.wait().unwrap();
        // The keeper holds its end until it ends.
        run.says.read_to_string(&mut String::new()).unwrap();
        assert!(!run.at("control").exists(), "{signal:?}");
    }
}

#[test]
fn out_of_descriptors_clients_are_told_so_and_later_ones_are_served() {
    if is_left_out() {
        return;
    }
    let run = Run::start_in("ulimit -n 20; exec \"$@\"", &[]);
    let clients: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(run.at("control")).unwrap()).collect();
    let answers: Vec<String> = clients
        .iter()
        .map(|mut client| {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            // Who was turned away may be gone already.
            let _ = client.write_all(b"{\"command\":\"conntrack-count\"}\n");
            let mut line = String::new();
            let _ = BufReader::new(client).read_line(&mut line);
            line
        })
        .collect();
    let served = answers.iter().filter(|line| line.contains("\"count\"")).count();
    let told = answers.iter().filter(|line| line.contains("no descriptors left")).count();
    assert!(served > 0 && told > 0 && served + told == answers.len(), "{answers:#?}");
    drop(clients);
    // Their seats are free once their threads have seen it.
    while Client::connect(&run.at("control")).unwrap().call(&Ask::Status).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn the_user_can_be_named() {
    if is_left_out() {
        return;
    }
    let run = Run::start_in("exec \"$@\"", &["--user", &NOBODY.to_string()]);
    let held = Held::of(Path::new(&format!("/proc/{}", run.pid())));
    assert!(held.field("Uid").split_whitespace().all(|id| id == NOBODY.to_string()));
    drop(run);
    let refused =
        Command::new(env!("CARGO_BIN_EXE_stateway")).args(["run", "x", "--user", "no-such-user"]).output();
    let refused = refused.unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no user `no-such-user`"));
}

#[test]
fn without_root_what_cannot_be_taken_is_said() {
    if is_left_out() {
        return;
    }
    // Its only user is root: there is nobody whom the router could become.
    let run = Run::start_in("shift 2; exec unshare --user --map-root-user --net \"$@\"", &[]);
    assert!(run.confined.contains("kept: user root (this user namespace has no other)"), "{}", run.confined);
    let held = Held::of(Path::new(&format!("/proc/{}", run.pid())));
    assert_eq!(held.capabilities("CapEff") | held.capabilities("CapPrm"), 0);
    assert_eq!((held.field("NoNewPrivs"), held.field("Seccomp")), ("1", "2"));
    replace(&run.at("rules"), OTHER_RULES);
    run.client().call(&Ask::Reload).unwrap();
}
