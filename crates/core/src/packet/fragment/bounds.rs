//! How many fragments may wait, and for how long, under the kernel's names.

#![forbid(unsafe_code)]

use crate::base::time::Duration;

/// What is set when a router is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `ipfrag_time`: IPv4 datagrams wait so long for their pieces.
    pub wait: Duration,
    /// `ipfrag_high_thresh`: bytes of all pieces together, with what it takes to hold them; more IPv4 pieces are not
    /// taken.
    pub bytes: usize,
    /// `ipfrag_max_dist`: so many other pieces may their sender send between two of one datagram; 0: any number.
    pub max_dist: u32,
    /// Datagrams that are waited for at once.
    pub datagrams: usize,
}

/// What may change at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds6 {
    /// `nf_conntrack_frag6_timeout` (RFC 8200 §4.5: 60 seconds)
    pub wait: Duration,
    /// `nf_conntrack_frag6_high_thresh`: above this, no more IPv6 pieces are taken.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { wait: Duration::from_secs(30), bytes: 4 << 20, max_dist: 64, datagrams: 4096 }
    }
}

impl Default for Bounds6 {
    fn default() -> Self {
        Self { wait: Duration::from_secs(60), bytes: 4 << 20 }
    }
}

impl Bounds {
    /// Linux's defaults, and what these settings say; those of others, and values that [`check_sysctl`] refuses, are
    /// left alone.
    pub fn new(sysctl: &[(String, String)]) -> Self {
        let mut bounds = Self::default();
        for (name, value) in sysctl {
            let number = value.trim().parse::<u32>();
            if let (Some(leaf), Some(Ok(())), Ok(number)) = (leaf(name), check_sysctl(name, value), number) {
                match leaf {
                    "ipfrag_time" => bounds.wait = Duration::from_secs(number.into()),
                    "ipfrag_high_thresh" => bounds.bytes = number as usize,
                    "ipfrag_max_dist" => bounds.max_dist = number,
                    _ => {}
                }
            }
        }
        bounds
    }
}

fn leaf(name: &str) -> Option<&str> {
    let is_ip = |folder: &str| matches!(folder, "net.ipv4" | "net/ipv4" | "net.ipv6" | "net/ipv6");
    match name.rsplit_once(['.', '/']) {
        Some((folder, leaf)) if is_ip(folder) => Some(leaf),
        None => Some(name),
        _ => None,
    }
}

/// Whether a setting is one about fragments, and what is wrong with its value. The kernel takes some that change
/// nothing while connection tracking is in use; here they are refused.
///
/// `None`: the name is not known here.
pub fn check_sysctl(name: &str, value: &str) -> Option<Result<(), String>> {
    match leaf(name)? {
        "ipfrag_time" | "ipfrag_high_thresh" | "ipfrag_max_dist" => {
            let fits = value.trim().parse::<u32>().is_ok_and(|n| i32::try_from(n).is_ok());
            Some(if fits { Ok(()) } else { Err(format!("a number from 0 to {}", i32::MAX)) })
        }
        "ipfrag_low_thresh" | "ipfrag_secret_interval" | "ip6frag_secret_interval" => {
            Some(Err("it changes nothing since Linux 4.17".to_owned()))
        }
        "ip6frag_time" => Some(Err(JOINED_BY.to_owned() + "timeout`")),
        "ip6frag_high_thresh" | "ip6frag_low_thresh" => Some(Err(JOINED_BY.to_owned() + "high_thresh`")),
        _ => None,
    }
}

const JOINED_BY: &str = "connection tracking joins IPv6 fragments: set `nf_conntrack_frag6_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_kernels_names() {
        let set = |name: &str, value: &str| Bounds::new(&[(name.into(), value.into())]);
        assert_eq!(set("net.ipv4.ipfrag_time", "5").wait, Duration::from_secs(5));
        assert_eq!(set("net/ipv4/ipfrag_high_thresh", "100").bytes, 100);
        assert_eq!(set("ipfrag_max_dist", "0").max_dist, 0);
        assert_eq!(set("net.core.ipfrag_time", "5"), Bounds::default());
        for (name, value) in
            [("ipfrag_time", "x"), ("ip6frag_time", "1"), ("net.ipv4.ipfrag_low_thresh", "1")]
        {
            assert!(check_sysctl(name, value).is_some_and(|checked| checked.is_err()), "{name}");
        }
        assert_eq!(check_sysctl("nf_conntrack_frag6_timeout", "1"), None, "connection tracking's own");
    }
}
