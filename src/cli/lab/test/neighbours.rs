//! The kernel's table of neighbours, which all namespaces of a machine share: where it is full, hosts of a lab do not reach
//! each other, and nothing else says why.

use crate::cli::render;
use std::fs;

/// By family: what the kernel counts of the table (`proc_net(5)` has the form), and what bounds it.
const TABLES: [(&str, &str, &str); 2] = [
    ("ARP", "/proc/net/stat/arp_cache", "net.ipv4.neigh.default.gc_thresh3"),
    ("NDP", "/proc/net/stat/ndisc_cache", "net.ipv6.neigh.default.gc_thresh3"),
];

/// How often each table was full until now.
pub(super) struct Fullness([u64; TABLES.len()]);

impl Fullness {
    pub(super) fn until_now() -> Self {
        // Not every machine tells: none is taken to be full.
        Self(TABLES.map(|(_, file, _)| fs::read_to_string(file).map_or(0, |text| times_full(&text))))
    }

    /// Warns if one of them was full since.
    pub(super) fn warn(&self) {
        for ((name, _, sysctl), (before, now)) in TABLES.iter().zip(self.0.iter().zip(Self::until_now().0)) {
            if now > *before {
                render::warn(&format!(
                    "this machine's {name} table, which all labs share, was full {} times meanwhile: hosts may not have \
                     reached each other\n  hint: as root, `sysctl -w {sysctl}=8192`; or fewer labs at once (`--jobs 1`)",
                    now - before
                ));
            }
        }
    }
}

/// A line of names, then one of hexadecimal counts for each processor.
fn times_full(text: &str) -> u64 {
    let mut lines = text.lines();
    let column =
        lines.next().and_then(|names| names.split_whitespace().position(|name| name == "table_fulls"));
    let count = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column?)?, 16).ok();
    lines.filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::times_full;

    #[test]
    fn what_each_processor_counts_is_added() {
        let text = "entries  allocs   table_fulls\n00000001 000164ad 00000153\n00000001 00018616 0000019b\n";
        assert_eq!(times_full(text), 0x153 + 0x19b);
        assert_eq!(times_full("entries  allocs\n00000001 000164ad\n"), 0);
    }
}
