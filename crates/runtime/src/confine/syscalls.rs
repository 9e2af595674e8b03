//! Which system calls are left, by the role of a thread. The others fail with EPERM.
//!
//! A list says what a role needs, and where it matters with which arguments: no descriptor is opened, no socket made
//! or connected, no program run, no process made, nothing mapped executable, no other process touched.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// What a thread, or any thread of a process, is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Any thread of a router: what the roles below need together.
    Router,
    /// Carries out orders: reloads, saves, opens ports again; whatever asks the keeper.
    Main,
    /// Forwards.
    Worker,
    /// Writes what it is handed to descriptors that are open: logs, captures. Signals and the last resort end here too.
    Writer,
    /// Takes clients of the control socket.
    Control,
    /// Serves one of them.
    Client,
    /// The keeper, see [`crate::keeper`].
    Keeper,
}

/// One entry of a list.
#[derive(Clone, Copy, Debug)]
enum Call {
    Any(i64),
    /// Argument, bits that are looked at, and what they may be.
    With(i64, u8, u64, &'static [u64]),
}

use Call::{Any, With};

const ALL_BITS: u64 = !0;
/// Descriptors are numbers of 32 bits, and so are commands.
const WORD: u64 = 0xffff_ffff;

/// What every thread does by being one.
const THREAD: &[Call] = &[
    Any(libc::SYS_futex),
    Any(libc::SYS_sched_yield),
    Any(libc::SYS_sched_getaffinity),
    Any(libc::SYS_rt_sigreturn),
    Any(libc::SYS_rt_sigprocmask),
    Any(libc::SYS_rt_sigaction),
    Any(libc::SYS_sigaltstack),
    Any(libc::SYS_restart_syscall),
    Any(libc::SYS_exit),
    Any(libc::SYS_exit_group),
    Any(libc::SYS_getpid),
    Any(libc::SYS_gettid),
    // What cannot fail is not expected to.
    Any(libc::SYS_getppid),
    Any(libc::SYS_getuid),
    Any(libc::SYS_geteuid),
    Any(libc::SYS_getgid),
    Any(libc::SYS_getegid),
    Any(libc::SYS_clock_gettime),
    Any(libc::SYS_clock_nanosleep),
    Any(libc::SYS_nanosleep),
    Any(libc::SYS_gettimeofday),
    Any(libc::SYS_getrandom),
    Any(libc::SYS_membarrier),
    Any(libc::SYS_brk),
    Any(libc::SYS_munmap),
    Any(libc::SYS_mremap),
    Any(libc::SYS_madvise),
    With(libc::SYS_mmap, 2, libc::PROT_EXEC as u64, &[0]),
    With(libc::SYS_mprotect, 2, libc::PROT_EXEC as u64, &[0]),
];

/// Begins a thread in this process; where flags cannot be looked at, see [`begin`].
const START_THREAD: &[Call] = &[
    With(libc::SYS_clone, 0, libc::CLONE_THREAD as u64, &[libc::CLONE_THREAD as u64]),
    Any(libc::SYS_clone3),
    Any(libc::SYS_set_robust_list),
    Any(libc::SYS_rseq),
    With(libc::SYS_prctl, 0, WORD, &[libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64]),
    Any(libc::SYS_seccomp),
];

/// Reads and writes what is open. A message has no address: it goes where its socket is connected to.
const DESCRIPTORS: &[Call] = &[
    Any(libc::SYS_read),
    Any(libc::SYS_readv),
    Any(libc::SYS_pread64),
    Any(libc::SYS_write),
    Any(libc::SYS_writev),
    Any(libc::SYS_pwrite64),
    Any(libc::SYS_lseek),
    Any(libc::SYS_close),
    Any(libc::SYS_fstat),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_poll),
    Any(libc::SYS_ppoll),
    Any(libc::SYS_eventfd2),
    Any(libc::SYS_recvfrom),
    With(libc::SYS_sendto, 4, ALL_BITS, &[0]),
    With(
        libc::SYS_fcntl,
        1,
        WORD,
        &[
            libc::F_GETFD as u64,
            libc::F_SETFD as u64,
            libc::F_GETFL as u64,
            libc::F_SETFL as u64,
            libc::F_DUPFD_CLOEXEC as u64,
        ],
    ),
    // FIONBIO and TCGETS.
    With(libc::SYS_ioctl, 1, WORD, &[0x5421, 0x5401]),
];

const MAIN: &[Call] = &[
    // Of a descriptor: the path is empty.
    With(libc::SYS_statx, 2, libc::AT_EMPTY_PATH as u64, &[libc::AT_EMPTY_PATH as u64]),
    With(libc::SYS_newfstatat, 3, libc::AT_EMPTY_PATH as u64, &[libc::AT_EMPTY_PATH as u64]),
    Any(libc::SYS_recvmsg),
    Any(libc::SYS_fsync),
    Any(libc::SYS_fdatasync),
    Any(libc::SYS_ftruncate),
    // A port that was opened again takes the place of the one that vanished; SIOCGIFFLAGS says that one is there.
    Any(libc::SYS_dup3),
    With(libc::SYS_ioctl, 1, WORD, &[0x8913]),
    Any(libc::SYS_wait4),
    Any(libc::SYS_waitid),
];

const WORKER: &[Call] = &[
    Any(libc::SYS_io_uring_enter),
    // Files that are open: their set is changed or given up. The ring itself was bound before, see `device::ring`.
    With(libc::SYS_io_uring_register, 1, WORD, &[FILES_UPDATE, UNREGISTER_FILES, ENABLE_RINGS]),
];
const UNREGISTER_FILES: u64 = 3;
const FILES_UPDATE: u64 = 6;
const ENABLE_RINGS: u64 = 12;

/// The worker's ring is made while the threads of a router are.
const MAKE_RING: &[Call] = &[
    Any(libc::SYS_io_uring_setup),
    With(libc::SYS_io_uring_register, 1, WORD, &[REGISTER_FILES, REGISTER_RESTRICTIONS]),
];
const REGISTER_FILES: u64 = 2;
const REGISTER_RESTRICTIONS: u64 = 11;

const WRITER: &[Call] = &[Any(libc::SYS_fsync), Any(libc::SYS_fdatasync)];

const CLIENT: &[Call] = &[
    With(libc::SYS_getsockopt, 1, WORD, &[libc::SOL_SOCKET as u64]),
    With(libc::SYS_setsockopt, 1, WORD, &[libc::SOL_SOCKET as u64]),
    Any(libc::SYS_shutdown),
];

const CONTROL: &[Call] = &[Any(libc::SYS_accept4)];

const KEEPER: &[Call] = &[
    Any(libc::SYS_openat),
    Any(libc::SYS_statx),
    Any(libc::SYS_newfstatat),
    Any(libc::SYS_readlinkat),
    Any(libc::SYS_unlinkat),
    Any(libc::SYS_renameat),
    Any(libc::SYS_renameat2),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_open),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_stat),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_lstat),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    Any(libc::SYS_rename),
    Any(libc::SYS_fsync),
    Any(libc::SYS_sendmsg),
    Any(libc::SYS_recvmsg),
    // Interfaces are asked about through a socket, of whatever kind.
    With(libc::SYS_socket, 0, WORD, &[libc::AF_INET as u64]),
    With(
        libc::SYS_ioctl,
        1,
        WORD,
        &[
            0x4004_54ca, // TUNSETIFF
            0x4004_54cb, // TUNSETPERSIST
            0x4004_54d0, // TUNSETOFFLOAD
            0x4004_54d8, // TUNSETVNETHDRSZ
            0x8913,      // SIOCGIFFLAGS
            0x8914,      // SIOCSIFFLAGS
            0x8922,      // SIOCSIFMTU
        ],
    ),
];

impl Role {
    fn lists(self) -> &'static [&'static [Call]] {
        match self {
            Self::Router => {
                &[THREAD, START_THREAD, DESCRIPTORS, MAIN, WORKER, MAKE_RING, WRITER, CONTROL, CLIENT]
            }
            Self::Main => &[THREAD, DESCRIPTORS, MAIN],
            Self::Worker => &[THREAD, DESCRIPTORS, WORKER],
            Self::Writer => &[THREAD, DESCRIPTORS, WRITER],
            Self::Control => &[THREAD, START_THREAD, DESCRIPTORS, CONTROL, CLIENT],
            Self::Client => &[THREAD, START_THREAD, DESCRIPTORS, CLIENT],
            Self::Keeper => &[THREAD, DESCRIPTORS, KEEPER],
        }
    }
}

/// Leaves this process the calls of a role. There is one thread, and the others inherit them.
pub(super) fn begin(role: Role) -> anyhow::Result<()> {
    // The flags of `clone3` stand in memory, where no filter looks. Without it, the C library calls `clone`.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    install(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    allow(role)
}

/// Leaves this thread, and those that it starts, the calls of a role, of those that it has.
pub(super) fn allow(role: Role) -> anyhow::Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // How the C library aborts a process.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, conditions(0, WORD, &[own])?);
    for call in role.lists().iter().copied().flatten() {
        match *call {
            Any(number) => drop(rules.insert(number, Vec::new())),
            With(number, argument, bits, values) => {
                rules.entry(number).or_default().extend(conditions(argument, bits, values)?);
            }
        }
    }
    install(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn conditions(argument: u8, bits: u64, values: &[u64]) -> anyhow::Result<Vec<SeccompRule>> {
    let one = |value: &u64| {
        let is_it =
            SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), *value)?;
        SeccompRule::new(vec![is_it])
    };
    values.iter().map(one).collect::<Result<_, _>>().context("a list of system calls is wrong")
}

fn install(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> anyhow::Result<()> {
    let filter = SeccompFilter::new(rules, otherwise, listed, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
