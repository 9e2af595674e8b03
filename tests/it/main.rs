//! All integration tests in one binary. Each module says what it drives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Captures as people bring them: every format, copies of what went out, scenarios in place of captures.
mod captures;
/// Help, error messages and `explain`, as a user meets them.
mod cli;
/// `stateway conntrack` beside the real `conntrack`: the same words, the same answers.
#[cfg(target_os = "linux")]
mod conntrack_tools;
/// README and guides: every command in them is run, and prints what they show.
#[cfg(target_os = "linux")]
mod docs;
/// `doctor` where something is forbidden or missing.
#[cfg(target_os = "linux")]
mod doctor;
/// The inputs that fuzzing keeps, through what it calls.
#[cfg(target_os = "linux")]
mod fuzz_corpus;
/// Generated traffic and every scenario, through this machine's kernel and through the router.
#[cfg(target_os = "linux")]
mod kernel;
/// Captures that real programs made of the kernel as a router, and what its counters say.
#[cfg(target_os = "linux")]
mod kernel_captures;
/// Route mode and the kernel as a router: the same frames in, the same frames out.
#[cfg(target_os = "linux")]
mod kernel_route;
/// `kill -9` under OpenSSH, a server's push, a download and UDP, restarted as the systemd unit says.
#[cfg(target_os = "linux")]
mod kills;
/// `lab capture`: what is in it while it runs, how it ends, and what a replay makes of it.
#[cfg(target_os = "linux")]
mod lab_capture;
mod lab_errors;
/// `lab test` with several labs at the same time, and with some of their tests only.
#[cfg(target_os = "linux")]
mod lab_jobs;
/// `lab reload`, `rules`, `sysctl`, `logs`, `link`, `restart` at a lab that is up.
#[cfg(target_os = "linux")]
mod lab_running;
/// `lab new`, and `lab test` for who changes rules: `--rules`, why a test failed, `--keep`, `--watch`, folders, annotations.
#[cfg(target_os = "linux")]
mod lab_try;
/// Labs that are up: which file they are, what goes on in them, and that nothing of them is left.
#[cfg(target_os = "linux")]
mod lab_up;
/// Labs broken on purpose, labs that use the lab file in odd ways, and a lab without root.
mod labs;
mod metrics;
/// `stateway rules mutate --lab`.
mod mutate;
/// What people see of translation beside the fate of packets.
mod nat;
/// Rules of table `nat`: what is printed of each, or why it is refused, and what the kernel's own tools say.
mod nat_rules;
#[cfg(target_os = "linux")]
mod netns;
/// What a running router holds, and what it does without: threads and keeper in `/proc`, reloads, guests, lack.
#[cfg(target_os = "linux")]
mod privileges;
/// Properties that hold for whatever comes: tuples, checksums, and frames made of noise.
mod props;
/// Good, cut, empty and wrong rules files, loaded while datagrams pass.
#[cfg(target_os = "linux")]
mod reloads;
/// Captures through the `replay` command, and the exact lines that come of them.
mod replay;
/// `stateway run --state`: sessions live through restarts and kills.
#[cfg(target_os = "linux")]
mod restart;
/// Broken rules, and what a person is told of each.
mod rule_errors;
mod rule_scripts;
/// Mistakes in rulesets, and what changes between two of them.
mod rules_check;
/// Questions about every packet.
mod rules_search;
/// Rulesets as people have them, and what iptables-save makes of them.
mod rulesets;
/// `stateway run` on TAPs in namespaces: fallbacks, load, and what it prints.
#[cfg(target_os = "linux")]
mod run;
/// The stories of `tests/scenarios/`, packet by packet, against the router.
mod scenario;
/// `scripts/`: what they ask for, install and say before a build.
#[cfg(target_os = "linux")]
mod scripts;
/// Parts of the labs on several machines, and one report of them.
mod shards;
/// The simulator: every lab, the same report for the same seed, and random traffic over bad links.
mod sim;
/// The package's sources, as the checks of `tidy` read them.
mod source;
/// `stateway run` among readers that stopped reading, and under a service manager.
#[cfg(target_os = "linux")]
mod survive;
/// What a reviewer need not check: the arrows between modules, what the core must not contain, reasons without a story.
mod tidy;
/// `stateway watch`: lines of packets, slow readers, and every way it ends.
#[cfg(target_os = "linux")]
mod watch;
/// `stateway explain --why-not`.
mod why_not;
