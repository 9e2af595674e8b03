//! Every switch and timeout of connection tracking, under the name that the kernel gives it.

#![forbid(unsafe_code)]

use crate::packet::fragment::Bounds6;
use core::time::Duration;
use thiserror::Error;

/// What all names begin with.
const PREFIX: &str = "nf_conntrack_";
/// What `sysctl(8)` puts in front, with dots or slashes.
const PATHS: [&str; 4] = ["net.netfilter.", "net/netfilter/", "net.", "net/"];
/// Timeouts are signed 32-bit seconds to the kernel.
const MAX_SECONDS: u64 = i32::MAX as u64;

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// There is none of that name.
    #[error("no sysctl named `{name}`{}", hint(*.near))]
    Unknown {
        /// The name, as it was given.
        name: String,
        /// One that is spelt much alike.
        near: Option<&'static str>,
    },
    /// It does not have such values.
    #[error("`{value}` is no value for `{name}`: {wanted}")]
    Value {
        /// The setting.
        name: &'static str,
        /// The value, as it was given.
        value: String,
        /// What values it has.
        wanted: String,
    },
    /// It tells something and cannot be set.
    #[error("`{0}` can only be read")]
    ReadOnly(&'static str),
}

fn hint(near: Option<&'static str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// A value as `/proc/sys` shows it: a number, whatever it stands for.
trait Value: Copy {
    fn number(self) -> u64;
    fn from_number(number: u64) -> Self;
}

impl Value for bool {
    fn number(self) -> u64 {
        self.into()
    }
    fn from_number(number: u64) -> Self {
        number != 0
    }
}

impl Value for u8 {
    fn number(self) -> u64 {
        self.into()
    }
    fn from_number(number: u64) -> Self {
        number as Self
    }
}

impl Value for u32 {
    fn number(self) -> u64 {
        self.into()
    }
    fn from_number(number: u64) -> Self {
        number as Self
    }
}

/// Whole seconds.
impl Value for Duration {
    fn number(self) -> u64 {
        self.as_secs()
    }
    fn from_number(number: u64) -> Self {
        Self::from_secs(number)
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Declares the settings in the order of `sysctl -a`: field, type, default, greatest value.
macro_rules! sysctls {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $default:expr, max $max:expr;)*) => {
        /// The settings of one router.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Sysctls {
            $(#[doc = concat!("`nf_conntrack_", stringify!($field), "`\n")] $(#[$doc])* pub $field: $type,)*
        }

        impl Default for Sysctls {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Sysctls {
            /// The kernel's names, in the order of `sysctl -a`.
            pub const NAMES: &'static [&'static str] = &[$(concat!("nf_conntrack_", stringify!($field)),)*];

            fn number(&self, index: usize) -> u64 {
                [$(self.$field.number(),)*][index]
            }

            fn set_number(&mut self, index: usize, number: u64) {
                let mut at = 0;
                $(
                    if at == index {
                        self.$field = <$type as Value>::from_number(number);
                    }
                    at += 1;
                )*
                assert_eq!(at, Self::NAMES.len(), "every setting has its name");
            }

            const GREATEST: &'static [u64] = &[$($max,)*];
        }
    };
}

sysctls! {
    /// Count packets and bytes of each connection, in either direction.
    acct: bool = false, max 1;
    /// Kept for listings: the table sizes itself.
    buckets: u32 = 262_144, max u64::MAX >> 32;
    /// Verify checksums of what comes in.
    checksum: bool = true, max 1;
    /// 0: no events; 1: always; 2: while somebody listens.
    events: u8 = 2, max 2;
    /// Expectations of all connections together.
    expect_max: u32 = 4096, max i32::MAX as u64;
    frag6_high_thresh: u32 = 4_194_304, max u64::MAX >> 32;
    frag6_low_thresh: u32 = 3_145_728, max u64::MAX >> 32;
    frag6_timeout: Duration = secs(60), max MAX_SECONDS;
    /// Protocols without a tracker of their own.
    generic_timeout: Duration = secs(600), max MAX_SECONDS;
    gre_timeout: Duration = secs(30), max MAX_SECONDS;
    gre_timeout_stream: Duration = secs(180), max MAX_SECONDS;
    icmp_timeout: Duration = secs(30), max MAX_SECONDS;
    icmpv6_timeout: Duration = secs(30), max MAX_SECONDS;
    /// Say why a packet is INVALID: a protocol number, 255 for all, 0 for none.
    log_invalid: u8 = 0, max 255;
    /// Connections in the table.
    max: u32 = 262_144, max i32::MAX as u64;
    sctp_timeout_closed: Duration = secs(10), max MAX_SECONDS;
    sctp_timeout_cookie_echoed: Duration = secs(3), max MAX_SECONDS;
    sctp_timeout_cookie_wait: Duration = secs(3), max MAX_SECONDS;
    sctp_timeout_established: Duration = secs(210), max MAX_SECONDS;
    sctp_timeout_heartbeat_sent: Duration = secs(30), max MAX_SECONDS;
    sctp_timeout_shutdown_ack_sent: Duration = secs(3), max MAX_SECONDS;
    sctp_timeout_shutdown_recd: Duration = secs(3), max MAX_SECONDS;
    sctp_timeout_shutdown_sent: Duration = secs(3), max MAX_SECONDS;
    /// Let segments outside the window pass, resets excepted.
    tcp_be_liberal: bool = false, max 1;
    /// A reset out of place does not make a packet INVALID.
    tcp_ignore_invalid_rst: bool = false, max 1;
    /// Track flows that are first seen in their middle.
    tcp_loose: bool = true, max 1;
    /// Retransmissions after which a connection is suspected to be dead.
    tcp_max_retrans: u8 = 3, max 255;
    tcp_timeout_close: Duration = secs(10), max MAX_SECONDS;
    tcp_timeout_close_wait: Duration = secs(60), max MAX_SECONDS;
    tcp_timeout_established: Duration = secs(432_000), max MAX_SECONDS;
    tcp_timeout_fin_wait: Duration = secs(120), max MAX_SECONDS;
    tcp_timeout_last_ack: Duration = secs(30), max MAX_SECONDS;
    tcp_timeout_max_retrans: Duration = secs(300), max MAX_SECONDS;
    tcp_timeout_syn_recv: Duration = secs(60), max MAX_SECONDS;
    tcp_timeout_syn_sent: Duration = secs(120), max MAX_SECONDS;
    tcp_timeout_time_wait: Duration = secs(120), max MAX_SECONDS;
    tcp_timeout_unacknowledged: Duration = secs(300), max MAX_SECONDS;
    /// Note when a connection began, for listings.
    timestamp: bool = false, max 1;
    /// Before the first answer, and for a request with its one answer.
    udp_timeout: Duration = secs(30), max MAX_SECONDS;
    udp_timeout_stream: Duration = secs(120), max MAX_SECONDS;
}

impl Sysctls {
    /// Whether `name` is one of connection tracking's, so that other names can be offered to others.
    pub fn is_name(name: &str) -> bool {
        short(name) == "nf_conntrack_count" || index(name).is_some()
    }

    /// Sets one by its name, with or without `net.netfilter.` in front.
    ///
    /// # Errors
    /// There is no such name, or the value does not fit it; nothing has changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let Some(at) = index(name) else {
            if short(name) == "nf_conntrack_count" {
                return Err(SysctlError::ReadOnly("nf_conntrack_count"));
            }
            return Err(SysctlError::Unknown { name: name.to_owned(), near: nearest(short(name)) });
        };
        let greatest = Self::GREATEST[at];
        let number = value.trim().parse::<u64>().ok().filter(|&number| number <= greatest);
        let number = number.ok_or_else(|| SysctlError::Value {
            name: Self::NAMES[at],
            value: value.to_owned(),
            wanted: format!("a whole number from 0 to {greatest}"),
        })?;
        self.set_number(at, number);
        Ok(())
    }

    /// How IPv6 fragments wait for each other.
    pub const fn fragments(&self) -> Bounds6 {
        Bounds6 { wait: self.frag6_timeout, bytes: self.frag6_high_thresh as usize }
    }

    /// The value as `/proc/sys` shows it.
    pub fn get(&self, name: &str) -> Option<u64> {
        index(name).map(|at| self.number(at))
    }

    /// All of them, in the order of `sysctl -a`.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Self::NAMES.iter().enumerate().map(|(at, name)| (*name, self.number(at)))
    }
}

fn short(name: &str) -> &str {
    PATHS.iter().find_map(|path| name.strip_prefix(path)).unwrap_or(name)
}

fn index(name: &str) -> Option<usize> {
    let name = short(name);
    Sysctls::NAMES.iter().position(|known| *known == name)
}

/// The name that takes the fewest edits to reach, if they are few.
fn nearest(name: &str) -> Option<&'static str> {
    let tail = name.strip_prefix(PREFIX).unwrap_or(name);
    let distance = |known: &&&str| edits(tail, &known[PREFIX.len()..]);
    let near = Sysctls::NAMES.iter().min_by_key(distance)?;
    (distance(&near) <= tail.len() / 3).then_some(*near)
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_with_and_without_their_path() {
        let mut sysctls = Sysctls::default();
        for name in ["nf_conntrack_max", "net.netfilter.nf_conntrack_max", "net.nf_conntrack_max"] {
            assert_eq!(sysctls.set(name, "0"), Ok(()), "{name}");
            assert_eq!(sysctls.set(name, " 17\n"), Ok(()), "{name}");
            assert_eq!(sysctls.get(name), Some(17), "{name}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_do() {
        let mut sysctls = Sysctls::default();
        let mut refusal = |name, value| sysctls.set(name, value).map_err(|e| e.to_string());
        let cases = [
            (
                "nf_conntrack_tcp_timout_close",
                "1",
                "no sysctl named `nf_conntrack_tcp_timout_close`; did you mean `nf_conntrack_tcp_timeout_close`?",
            ),
            ("tcp_loose", "1", "no sysctl named `tcp_loose`; did you mean `nf_conntrack_tcp_loose`?"),
            ("nf_conntrack_qqqqqqqqq", "1", "no sysctl named `nf_conntrack_qqqqqqqqq`"),
            ("nf_conntrack_count", "1", "`nf_conntrack_count` can only be read"),
            (
                "nf_conntrack_tcp_loose",
                "2",
                "`2` is no value for `nf_conntrack_tcp_loose`: a whole number from 0 to 1",
            ),
            (
                "nf_conntrack_udp_timeout",
                "1.5",
                "`1.5` is no value for `nf_conntrack_udp_timeout`: a whole number from 0 to 2147483647",
            ),
        ];
        for (name, value, message) in cases {
            assert_eq!(refusal(name, value), Err(message.to_owned()));
        }
        assert_eq!(sysctls, Sysctls::default(), "a refused setting changes nothing");
    }

    #[test]
    fn every_name_sets_the_field_that_it_reads() {
        for (at, name) in Sysctls::NAMES.iter().enumerate() {
            let mut sysctls = Sysctls::default();
            let other = u64::from(sysctls.get(name) == Some(0));
            sysctls.set(name, &other.to_string()).unwrap();
            assert_eq!(sysctls.get(name), Some(other), "{name}");
            let changed = sysctls.list().zip(Sysctls::default().list()).filter(|(a, b)| a != b).count();
            assert_eq!(changed, 1, "{name} at {at} changes itself and nothing else");
        }
    }
}
