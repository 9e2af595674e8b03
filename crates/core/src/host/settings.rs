//! The `net.ipv4` and `net.ipv6` settings that route mode knows, under the kernel's names.

#![forbid(unsafe_code)]

use crate::base::iface::Iface;
use crate::base::time::Duration;
use crate::packet::fragment;

/// What this router was told, or Linux's default.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// By interface: 0 off, 1 strict, 2 loose (RFC 3704).
    pub(super) rp_filter: Vec<u8>,
    pub(super) send_redirects: Vec<bool>,
    /// Between two errors to one host, once its burst is used up; zero: no limit.
    pub(super) icmp_ratelimit: Duration,
    /// Which types `icmp_ratelimit` is for, a bit each.
    pub(super) icmp_ratemask: u32,
    pub(super) icmpv6_ratelimit: Duration,
    /// Errors in a second, to all hosts together.
    pub(super) icmp_msgs_per_sec: u32,
    pub(super) icmp_msgs_burst: u32,
    pub(super) icmp_echo_ignore_all: bool,
    /// Every interface has a link-local address.
    pub(super) link_local: bool,
}

/// One setting, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    is_v6: bool,
    iface: Option<&'a str>,
    leaf: &'a str,
}

impl<'a> Name<'a> {
    /// `net.ipv4.conf.IFACE.rp_filter`, `net/ipv4/…`, or `rp_filter` alone.
    fn parse(name: &'a str) -> Option<Self> {
        let mut parts: Vec<&str> = name.split(['.', '/']).collect();
        let leaf = parts.pop()?;
        let (is_v6, iface) = match *parts.as_slice() {
            [] | ["net", "ipv4"] => (false, None),
            ["net", "ipv4", "conf", iface] => (false, Some(iface)),
            ["net", "ipv6"] if leaf != "ratelimit" => (true, None),
            ["net", "ipv6", "icmp"] if leaf == "ratelimit" => (true, None),
            ["net", "ipv6", "conf", iface] => (true, Some(iface)),
            _ => return None,
        };
        Some(Self { is_v6, iface: iface.filter(|i| *i != "all" && *i != "default"), leaf })
    }
}

/// Whether a setting is one of route mode's, and what is wrong with its value.
///
/// `None`: the name is not known here.
pub fn check_sysctl(name: &str, value: &str) -> Option<Result<(), String>> {
    if let Some(checked) = fragment::check_sysctl(name, value) {
        return Some(checked);
    }
    let Name { is_v6, leaf, .. } = Name::parse(name)?;
    let greatest: u32 = match (is_v6, leaf) {
        (false, "rp_filter") => 2,
        (false, "send_redirects" | "icmp_echo_ignore_all") | (true, "addr_gen_mode") => 1,
        (false, "icmp_ratelimit" | "icmp_ratemask" | "icmp_msgs_per_sec" | "icmp_msgs_burst")
        | (true, "ratelimit") => i32::MAX as u32,
        _ => return None,
    };
    let fits = value.trim().parse::<u32>().is_ok_and(|n| n <= greatest);
    Some(if fits { Ok(()) } else { Err(format!("a number from 0 to {greatest}")) })
}

impl Settings {
    /// Settings of others, and values that [`check_sysctl`] refuses, are left alone.
    pub(super) fn new(sysctl: &[(String, String)], ifaces: &[Iface]) -> Self {
        let mut settings = Self {
            rp_filter: vec![0; ifaces.len()],
            send_redirects: vec![true; ifaces.len()],
            icmp_ratelimit: Duration::from_secs(1),
            // Unreachable, source quench, time exceeded, parameter problem.
            icmp_ratemask: 1 << 3 | 1 << 4 | 1 << 11 | 1 << 12,
            icmpv6_ratelimit: Duration::from_millis(100),
            icmp_msgs_per_sec: 1000,
            icmp_msgs_burst: 50,
            icmp_echo_ignore_all: false,
            link_local: true,
        };
        for (name, value) in sysctl {
            if let (Some(Ok(())), Some(name), Ok(number)) =
                (check_sysctl(name, value), Name::parse(name), value.trim().parse())
            {
                settings.set(&name, number, ifaces);
            }
        }
        settings
    }

    fn set(&mut self, name: &Name, number: u32, ifaces: &[Iface]) {
        let applies = |iface: &Iface| name.iface.is_none_or(|wanted| wanted == iface.name);
        let each = (0..ifaces.len()).filter(|&at| applies(&ifaces[at]));
        match (name.is_v6, name.leaf) {
            (false, "rp_filter") => each.for_each(|at| self.rp_filter[at] = number as u8),
            (false, "send_redirects") => each.for_each(|at| self.send_redirects[at] = number != 0),
            (false, "icmp_ratelimit") => self.icmp_ratelimit = Duration::from_millis(number.into()),
            (false, "icmp_ratemask") => self.icmp_ratemask = number,
            (false, "icmp_msgs_per_sec") => self.icmp_msgs_per_sec = number,
            (false, "icmp_msgs_burst") => self.icmp_msgs_burst = number,
            (false, "icmp_echo_ignore_all") => self.icmp_echo_ignore_all = number != 0,
            (true, "ratelimit") => self.icmpv6_ratelimit = Duration::from_millis(number.into()),
            (true, "addr_gen_mode") => self.link_local = number == 0,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::iface::IfaceId;

    #[test]
    fn a_setting_is_for_all_interfaces_or_for_one() {
        let ifaces = [Iface::new("left", IfaceId(0)), Iface::new("right", IfaceId(1))];
        let set = |name: &str, value: &str| Settings::new(&[(name.into(), value.into())], &ifaces);
        assert_eq!(set("net.ipv4.conf.all.rp_filter", "1").rp_filter, [1, 1]);
        assert_eq!(set("net.ipv4.conf.right.rp_filter", "2").rp_filter, [0, 2]);
        assert_eq!(set("rp_filter", "2").rp_filter, [2, 2]);
        assert_eq!(set("rp_filter", "3").rp_filter, [0, 0], "no such value");
        assert_eq!(set("net/ipv4/icmp_ratelimit", "0").icmp_ratelimit, Duration::ZERO);
        assert_eq!(set("net.ipv6.icmp.ratelimit", "0").icmpv6_ratelimit, Duration::ZERO);
        assert_eq!(check_sysctl("nf_conntrack_max", "1"), None, "somebody else's");
        assert_eq!(check_sysctl("rp_filter", "x"), Some(Err("a number from 0 to 2".into())));
    }
}
