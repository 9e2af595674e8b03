//! What a router can still do once it gave its privileges up, tried from within: this program confines itself as a router
//! does, takes each role of a thread in turn, and tries to open, connect, run and touch things. It tries the same before,
//! so that a refusal is the confinement's.
//!
//! A process can be confined once, so each role is a process of its own: the program starts itself with the role's name.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says so")]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    match std::env::args().skip_while(|argument| argument != linux::ROLE).nth(1) {
        Some(role) if role == linux::PANIC => linux::panic_in_a_worker(),
        Some(role) => linux::try_all(&role),
        None => {
            linux::try_every_role();
            linux::a_panic_says_how_it_came_there();
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::process::{Pid, getppid, getuid, test_kill_process};
    use rustix::thread::set_thread_uid;
    use stateway_runtime::confine::{self, CapabilitySet, Keeps, Role, User};
    use stateway_runtime::runtime::ending;
    use stateway_runtime::stderr;
    use std::fs::{self, File};
    use std::io::{self, BufRead as _, BufReader, Read as _};
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::sync::OnceLock;

    pub(super) const ROLE: &str = "--role";
    pub(super) const PANIC: &str = "panic";
    const ROLES: [(&str, Role); 6] = [
        ("router", Role::Router),
        ("main", Role::Main),
        ("worker", Role::Worker),
        ("writer", Role::Writer),
        ("control", Role::Control),
        ("client", Role::Client),
    ];
    /// The worker's ring is made before it is narrowed; `device::ring` binds it to the ports.
    const GRANTED: [(&str, &str); 1] = [("router", "make a ring")];

    type Try = (&'static str, fn() -> io::Result<()>);

    /// What whoever took over a router would want.
    const TRIES: [Try; 13] = [
        ("read a file", || File::open("/etc/passwd").map(drop)),
        ("read its own memory", || File::open("/proc/self/mem").map(drop)),
        ("write a file", || File::create(&prepared().file).map(drop)),
        ("rename a file", || fs::rename(&prepared().file, &prepared().file)),
        ("list a folder", || fs::read_dir("/").map(drop)),
        ("make an IP socket", || Ok(socket(AddressFamily::INET, SocketType::STREAM, None).map(drop)?)),
        ("make a Unix socket", || Ok(socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop)?)),
        ("make a netlink socket", || Ok(socket(AddressFamily::NETLINK, SocketType::RAW, None).map(drop)?)),
        ("send where no socket is connected to", || {
            prepared().socket.send_to(b"x", &prepared().address).map(drop)
        }),
        ("run a program", || Command::new("/bin/true").stdin(Stdio::null()).status().map(drop)),
        ("signal its parent", || Ok(test_kill_process(prepared().parent)?)),
        ("change its user", || Ok(set_thread_uid(getuid())?)),
        ("make a ring", || io_uring::IoUring::new(8).map(drop)),
    ];

    /// Made before the process is confined.
    struct Prepared {
        file: PathBuf,
        socket: UnixDatagram,
        parent: Pid,
        address: PathBuf,
        _receiver: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    fn prepared() -> &'static Prepared {
        static PREPARED: OnceLock<Prepared> = OnceLock::new();
        PREPARED.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let (file, address) = (folder.path().join("file"), folder.path().join("socket"));
            let receiver = UnixDatagram::bind(&address).unwrap();
            Prepared {
                file,
                socket: UnixDatagram::unbound().unwrap(),
                parent: getppid().unwrap(),
                address,
                _receiver: receiver,
                _folder: folder,
            }
        })
    }

    /// In the process of a role: prints what each try came to, free and then confined, and waits until it was looked at.
    pub(super) fn try_all(name: &str) {
        for (what, attempt) in TRIES {
            let came_to = attempt().map_err(|error| error.kind());
            // Containers forbid it, too.
            let is_forbidden = what == "make a ring" && came_to.is_err();
            println!("free: {what}: {:?}", if is_forbidden { Ok(()) } else { came_to });
        }
        let user = User::Dynamic;
        let keeps =
            Keeps { user, capabilities: CapabilitySet::empty(), paths: Vec::new(), role: Role::Router };
        println!("{}", confine::process(&keeps).unwrap().line());
        let (_, role) = ROLES.into_iter().find(|(known, _)| *known == name).unwrap();
        let attempts = || {
            for (what, attempt) in TRIES {
                println!("confined: {what}: {:?}", attempt().map_err(|error| error.kind()));
            }
            println!("done");
            // The parent looks at this thread, too.
            let _ = io::stdin().read(&mut [0]);
        };
        confine::spawn(name, role, attempts).unwrap().join().unwrap();
    }

    pub(super) fn try_every_role() {
        for (role, _) in ROLES {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([ROLE, role])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            let said: Vec<String> = lines.take_while(|line| line != "done").collect();
            let report = said.iter().find(|line| line.starts_with("confined: ")).unwrap();
            look_at(child.id(), role, report);
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success(), "{role}: {said:#?}");
            let came_to = |line: &str| said.contains(&line.to_owned());
            for (what, _) in TRIES {
                assert!(came_to(&format!("free: {what}: Ok(())")), "{role} before it is confined: {said:#?}");
                let expected =
                    if GRANTED.contains(&(role, what)) { "Ok(())" } else { "Err(PermissionDenied)" };
                assert!(came_to(&format!("confined: {what}: {expected}")), "{role}: {what}: {said:#?}");
            }
            println!(
                "{role}: {} tries are refused; {report}",
                TRIES.len() - GRANTED.iter().filter(|g| g.0 == role).count()
            );
        }
    }

    /// In a process of its own: a worker of a confined router panics.
    pub(super) fn panic_in_a_worker() {
        ending::read_symbols();
        let user = User::Dynamic;
        let keeps =
            Keeps { user, capabilities: CapabilitySet::empty(), paths: Vec::new(), role: Role::Router };
        let report = confine::process(&keeps).unwrap();
        stderr::detach().unwrap();
        ending::at_any_panic();
        stderr::say(&report.line());
        confine::spawn("worker", Role::Worker, what_panics).unwrap().join().unwrap();
    }

    #[inline(never)]
    fn what_panics() {
        assert!(!File::open("/proc/self/exe").is_err_and(|_| true), "no file is to be opened any more");
    }

    /// A confined router opens no file: what a backtrace takes was read before.
    pub(super) fn a_panic_says_how_it_came_there() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([ROLE, PANIC])
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(ending::FAILED), "{said}");
        assert!(said.contains("the thread `worker` panicked at"), "{said}");
        assert!(said.contains("confined::linux::what_panics") && !said.contains("<unknown>"), "{said}");
        println!("panic: it says how it came there");
    }

    /// What the kernel says of each of its threads.
    fn look_at(pid: u32, role: &str, report: &str) {
        let tasks: Vec<PathBuf> =
            fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path()).collect();
        assert_eq!(tasks.len(), 2, "{role}");
        for task in tasks {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.unwrap().split_whitespace().next().unwrap().to_owned()
            };
            for (name, value) in [
                ("CapEff", 0),
                ("CapPrm", 0),
                ("CapInh", 0),
                ("CapAmb", 0),
                ("NoNewPrivs", 1),
                ("Seccomp", 2),
            ] {
                let found = u64::from_str_radix(&field(name), 16).unwrap();
                assert_eq!(found, value, "{role}: {name}: {report}");
            }
            assert!(field("Uid") != "0" || report.contains("user root ("), "{role}: {report}");
        }
    }
}
