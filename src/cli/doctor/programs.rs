//! Programs that labs run: where they lie, and which version each says it is.

use super::attempt;
use super::finding::{Finding, Runner};
use stateway_lab::netns::programs;
use std::ffi::OsString;

/// How a program is asked for its version, where that is not `-V`. Some cannot be asked.
const ASKED: [(&str, Option<&str>); 5] = [
    ("nft", Some("-v")),
    ("tcpdump", Some("--version")),
    ("hostname", None),
    ("ssh-keygen", None),
    // It answers on its standard input.
    ("vsftpd", None),
];

/// What `--on kernel` does not go without.
const FOR_KERNEL: [&str; 4] = ["iptables-legacy-restore", "nft", "conntrack", "tcpdump"];

/// Every program that a lab may run.
pub(super) fn examine() -> Vec<Finding> {
    programs::PROGRAMS.iter().map(|program| examine_one(*program)).collect()
}

fn examine_one((name, package, needed_for): (&str, &'static str, &'static str)) -> Finding {
    if let Some(file) = programs::find(name) {
        let place = file.display();
        return Finding::ok(
            name,
            version(name).map_or(place.to_string(), |version| format!("{place}, {version}")),
        );
    }
    let finding = if programs::ALWAYS.contains(&name) {
        Finding::stops(name, "not installed", &[Runner::Live, Runner::Kernel])
    } else if FOR_KERNEL.contains(&name) {
        Finding::stops(name, "not installed", &[Runner::Kernel])
    } else {
        Finding::limits(name, "not installed", &[Runner::Live, Runner::Kernel])
    };
    finding.needed_for(needed_for).package(package)
}

fn version(name: &str) -> Option<String> {
    let flag = ASKED.iter().find(|(program, _)| *program == name).map_or(Some("-V"), |(_, flag)| *flag)?;
    // A program that does not know the question says so and fails, and may say its version all the same.
    let said = attempt::run(&[OsString::from(name), flag.into()], "").unwrap_or_else(|said| said);
    version_in(&said)
}

/// The first word that looks like a version: `iproute2-6.1.0`, `OpenSSH_9.2p1`, `20221126`.
fn version_in(said: &str) -> Option<String> {
    let words = || said.split([' ', ',', '\n', '(', ')']).map(|word| word.trim_matches(['"', ';', ':']));
    let is_dotted = |word: &&str| {
        word.split_once('.').is_some_and(|(before, after)| {
            before.ends_with(|c: char| c.is_ascii_digit()) && after.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let is_date = |word: &&str| word.len() >= 6 && word.bytes().all(|b| b.is_ascii_digit());
    words().find(is_dotted).or_else(|| words().find(is_date)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_a_program_says() {
        for (said, version) in [
            ("ip utility, iproute2-6.1.0, libbpf 1.1.0", Some("iproute2-6.1.0")),
            ("ping from iputils 20221126", Some("20221126")),
            ("OpenSSH_9.2p1 Debian-2+deb12u5, OpenSSL 3.0.15 3 Sep 2024", Some("OpenSSH_9.2p1")),
            ("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1", Some("7.88.1")),
            ("nftables v1.0.6 (Lester Gooch #5)", Some("v1.0.6")),
            ("iptables-legacy-restore v1.8.9 (legacy)", Some("v1.8.9")),
            ("usage: thing [-a] [-b]", None),
        ] {
            assert_eq!(version_in(said).as_deref(), version, "{said}");
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_its_package() {
        let finding = examine_one(("no-such-program", "things", "testing"));
        assert_eq!(finding.detail, "not installed");
        assert_eq!(finding.package, Some("things"));
        assert!(finding.stops.is_empty(), "only some labs take it");
    }
}
