//! Rules and settings under which traces are run.

#![forbid(unsafe_code)]

use super::{Profile, chance, pick};
use crate::Setup;
use fastrand::Rng;

/// Ports that some worlds exempt from tracking, or put into a zone of their own.
const NOTRACK_PORT: u16 = 9;
const ZONE_PORT: u16 = 7000;
const ZONE: u16 = 7;

/// A random world; one in three is the plainest.
pub(super) fn setup(rng: &mut Rng, profile: Profile) -> Setup {
    let mut setup = Setup { zones: vec![ZONE], ..Setup::default() };
    let plain = chance(rng, 33);
    let raw = if plain { String::new() } else { raw_rules(rng) };
    let helper = match profile {
        Profile::Ftp => "-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n",
        Profile::Tftp => "-A PREROUTING -p udp --dport 69 -j CT --helper tftp\n",
        _ => "",
    };
    let raw = raw + helper;
    let style = rng.usize(..4);
    setup.rules4 = Some(rules(style, &raw, "icmp-admin-prohibited"));
    setup.rules6 = Some(rules(style, &raw, "icmp6-adm-prohibited"));
    if !plain {
        setup.sysctl = sysctls(rng);
    }
    if matches!(profile, Profile::Fragment | Profile::Mixed) && chance(rng, 50) {
        setup.sysctl.extend(fragment_sysctls(rng));
    }
    setup
}

const FRAGMENT_TIME: &str = "net.ipv4.ipfrag_time";

/// Pieces that are given up so soon that one can wait for it.
fn fragment_sysctls(rng: &mut Rng) -> Vec<(String, String)> {
    let mut settings = vec![(FRAGMENT_TIME, "2"), ("nf_conntrack_frag6_timeout", "2")];
    if chance(rng, 50) {
        settings.push(("net.ipv4.ipfrag_max_dist", *pick(rng, &["0", "1", "2", "5"])));
    }
    settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Whether pieces are given up after two seconds.
pub(super) fn forgets_soon(setup: &Setup) -> bool {
    setup.sysctl.iter().any(|(name, _)| name == FRAGMENT_TIME)
}

fn raw_rules(rng: &mut Rng) -> String {
    let mut lines = Vec::new();
    let (notrack, zone) = (chance(rng, 50), chance(rng, 50));
    for (proto, side) in [("udp", "sport"), ("udp", "dport"), ("tcp", "sport"), ("tcp", "dport")] {
        if notrack {
            lines.push(format!("-A PREROUTING -p {proto} --{side} {NOTRACK_PORT} -j CT --notrack\n"));
        }
        if zone {
            lines.push(format!("-A PREROUTING -p {proto} --{side} {ZONE_PORT} -j CT --zone {ZONE}\n"));
        }
    }
    lines.concat()
}

fn rules(style: usize, raw: &str, prohibited: &str) -> String {
    let forward = match style {
        0 => "",
        1 => "-A FORWARD -p tcp --tcp-flags FIN FIN -j DROP\n",
        _ => {
            "-A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
             -A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT\n\
             -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT\n\
             -A FORWARD -p tcp -j REJECT --reject-with tcp-reset\n"
        }
    };
    let last =
        if style < 2 { String::new() } else { format!("-A FORWARD -j REJECT --reject-with {prohibited}\n") };
    let policy = if style < 2 { "ACCEPT" } else { "DROP" };
    format!(
        "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{raw}COMMIT\n\
         *filter\n:INPUT ACCEPT [0:0]\n:FORWARD {policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n{forward}{last}COMMIT\n"
    )
}

/// Switches, and timeouts that differ from the usual ones enough to tell them apart.
fn sysctls(rng: &mut Rng) -> Vec<(String, String)> {
    const SWITCHES: [&str; 4] = ["tcp_loose", "tcp_be_liberal", "tcp_ignore_invalid_rst", "checksum"];
    const TIMEOUTS: [&str; 24] = [
        "tcp_timeout_syn_sent",
        "tcp_timeout_syn_recv",
        "tcp_timeout_established",
        "tcp_timeout_fin_wait",
        "tcp_timeout_close_wait",
        "tcp_timeout_last_ack",
        "tcp_timeout_time_wait",
        "tcp_timeout_close",
        "tcp_timeout_max_retrans",
        "tcp_timeout_unacknowledged",
        "udp_timeout",
        "udp_timeout_stream",
        "icmp_timeout",
        "icmpv6_timeout",
        "generic_timeout",
        "gre_timeout",
        "gre_timeout_stream",
        "sctp_timeout_closed",
        "sctp_timeout_cookie_wait",
        "sctp_timeout_cookie_echoed",
        "sctp_timeout_established",
        "sctp_timeout_shutdown_sent",
        "sctp_timeout_shutdown_recd",
        "sctp_timeout_shutdown_ack_sent",
    ];
    let mut settings = Vec::new();
    let mut set = |name: &str, value: u32| settings.push((format!("nf_conntrack_{name}"), value.to_string()));
    for name in SWITCHES {
        if chance(rng, 30) {
            set(name, u32::from(name.ends_with("liberal") || name.ends_with("rst")));
        }
    }
    if chance(rng, 30) {
        set("tcp_max_retrans", *pick(rng, &[0, 1, 2, 5, 255]));
    }
    for name in TIMEOUTS {
        if chance(rng, 20) {
            set(name, *pick(rng, &[20, 50, 110, 119, 121, 130, 290, 310, 700, 100_000]));
        }
    }
    settings
}
