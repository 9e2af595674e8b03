//! What rules keep between packets, and what of it outlives their ruleset. The figures are those of Linux 6.18 for the
//! same rules and packets.

#![forbid(unsafe_code)]
use super::*;
use crate::base::time::Duration;

const UDP: u8 = 17;

/// A sender of UDP from `lan` to `wan0`, and its clock.
struct Sender {
    rules: Ruleset,
    place: WithoutRouter,
    now: Instant,
}

impl Sender {
    /// One rule for UDP, behind the text of sets.
    fn new(sets: &str, rule: &str) -> Self {
        let rules = load(&text(sets, rule)).ruleset;
        Self { rules, place: WithoutRouter::default(), now: Instant::from_secs(1_000) }
    }

    fn wait_millis(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Sends `n` packets of so many bytes, and says how many met the rule.
    fn send(&mut self, n: usize, bytes: usize) -> u64 {
        let before = self.count();
        for _ in 0..n {
            self.mark_after(0, bytes);
        }
        self.count() - before
    }

    /// The packet's mark behind the rules.
    fn mark_after(&mut self, mark: u32, bytes: usize) -> u32 {
        let (at, mut rec) = (self.place.arrival(self.now, 0), NoRecord);
        let mut ctx = Context::new(&at, &mut rec);
        (ctx.out_iface, ctx.mark) = (Some(IfaceId(1)), mark);
        let mut frame = udp(bytes);
        let mut pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
        let _ = self.rules.run(Table::Mangle, Hook::Forward, &mut pkt, &mut ctx);
        ctx.mark
    }

    fn count(&self) -> u64 {
        let rule = RuleId { family: Family::Ipv4, table: Table::Mangle, chain: 2, index: 0 };
        self.rules.count(rule).packets
    }

    fn reload(&mut self, sets: &str, rule: &str) {
        let loaded = self.rules.load_after(&text(sets, rule), Family::Ipv4, &ifaces());
        self.rules = loaded.unwrap().ruleset;
    }
}

fn text(sets: &str, rule: &str) -> String {
    format!("{sets}*mangle\n-A FORWARD -p udp {rule}\nCOMMIT\n")
}

/// An IPv4 frame whose packet has so many bytes.
fn udp(bytes: usize) -> Vec<u8> {
    let mut frame = frame(UDP, &[0; 8]);
    frame.resize(14 + bytes, 0);
    frame[16..18].copy_from_slice(&(bytes as u16).to_be_bytes());
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn bytes_are_paid_for_in_sixteens_from_a_second_of_the_rate() {
    // Milliseconds to wait, packets, their bytes, and how many meet the rule.
    for (rule, steps) in [
        ("--hashlimit-upto 10kb/s", &[(0, 20, 1000, 10), (500, 20, 1000, 5), (1000, 20, 1000, 10)][..]),
        ("--hashlimit-upto 10kb/s", &[(0, 200, 100, 91), (1000, 200, 100, 91)]),
        // A burst is not given back while the bucket is in use.
        ("--hashlimit-upto 10kb/s --hashlimit-burst 30kb", &[(0, 60, 1000, 40), (3000, 60, 1000, 10)]),
        ("--hashlimit-above 10kb/s --hashlimit-burst 30kb", &[(0, 60, 1000, 20), (500, 60, 1000, 55)]),
        // A packet larger than a second's worth passes once in a second.
        ("--hashlimit-upto 1kb/s", &[(0, 5, 1400, 1), (1000, 5, 1400, 1)]),
        (
            "--hashlimit-upto 1kb/s",
            &[(0, 60, 32, 21), (1100, 60, 47, 21), (1100, 60, 48, 16), (1100, 60, 31, 32)],
        ),
    ] {
        check_hashlimit(rule, steps);
    }
}

#[test]
fn a_rate_can_be_matched_without_limiting_it() {
    for (rule, steps) in [
        (
            "--hashlimit-upto 3/s --hashlimit-burst 20 --hashlimit-rate-match --hashlimit-rate-interval 2",
            &[
                (0, 5, 100, 5),
                (2050, 1, 100, 0),
                (2050, 3, 100, 3),
                (2050, 1, 100, 1),
                (2050, 4, 100, 4),
                (3100, 1, 100, 1),
            ][..],
        ),
        (
            "--hashlimit-upto 3/s --hashlimit-burst 2 --hashlimit-rate-match",
            &[(0, 10, 100, 5), (1050, 3, 100, 0), (1050, 3, 100, 3), (1050, 5, 100, 5)],
        ),
        (
            "--hashlimit-above 3/s --hashlimit-rate-match",
            &[
                (0, 10, 100, 2),
                (200, 10, 100, 10),
                (1100, 1, 100, 1),
                (0, 10, 100, 10),
                (1100, 2, 100, 2),
                (1100, 6, 100, 0),
            ],
        ),
        (
            "--hashlimit-upto 10kb/s --hashlimit-rate-match",
            &[(0, 20, 1000, 10), (1100, 20, 1000, 0), (1100, 5, 1000, 0), (1100, 5, 1000, 5)],
        ),
        (
            "--hashlimit-upto 10kb/s --hashlimit-burst 30kb --hashlimit-rate-match",
            &[(0, 50, 1000, 30), (1100, 20, 1000, 0), (1100, 5, 1000, 0), (1100, 5, 1000, 5)],
        ),
    ] {
        check_hashlimit(rule, steps);
    }
}

fn check_hashlimit(rule: &str, steps: &[(u64, usize, usize, u64)]) {
    let mut sender = Sender::new(
        "",
        &format!(
            "-m hashlimit --hashlimit-name h --hashlimit-mode dstip --hashlimit-htable-expire 60000 {rule}"
        ),
    );
    for (millis, packets, bytes, met) in steps {
        sender.wait_millis(*millis);
        assert_eq!(sender.send(*packets, *bytes), *met, "{rule}: {packets} of {bytes} after {millis} ms");
    }
}

#[test]
fn elements_of_sets_count_and_are_compared_then() {
    const HOSTS: &str = "create t hash:ip counters\nadd t 198.51.100.1 packets 0 bytes 0\n";
    const SEEN: &str = "create t hash:ip counters\nadd t 198.51.100.1 packets 2 bytes 0\n";
    const PLAIN: &str = "create t hash:ip\nadd t 198.51.100.1\n";
    const EXCEPT: &str = "create t hash:net\nadd t 198.51.100.0/24\nadd t 198.51.100.1 nomatch\n";
    const NETS: &str = "create t hash:net\nadd t 198.51.100.0/24\nadd t 198.51.100.2 nomatch\n";
    const COUNTED: &str = "create t hash:net counters\nadd t 198.51.100.0/24\nadd t 198.51.100.1 nomatch\n";
    const ELSEWHERE: &str = "create t hash:net\nadd t 203.0.113.0/24\n";
    for (sets, rule, met) in [
        (HOSTS, "--match-set t dst --packets-gt 2", [0, 0, 1, 1]),
        (HOSTS, "--match-set t dst --packets-lt 2", [1, 0, 0, 0]),
        (HOSTS, "--match-set t dst --packets-eq 2", [0, 1, 0, 0]),
        (HOSTS, "--match-set t dst ! --packets-eq 2", [1, 0, 1, 1]),
        (HOSTS, "--match-set t dst --bytes-gt 200", [0, 0, 1, 1]),
        (HOSTS, "--match-set t dst --packets-gt 1 --bytes-lt 400", [0, 1, 1, 0]),
        (HOSTS, "! --match-set t dst --packets-gt 2", [1, 1, 0, 0]),
        (SEEN, "--match-set t dst --packets-gt 2 ! --update-counters", [0, 0, 0, 0]),
        (SEEN, "--match-set t dst --packets-gt 1 ! --update-counters", [1, 1, 1, 1]),
        (PLAIN, "--match-set t dst --packets-gt 9", [1, 1, 1, 1]),
        (PLAIN, "--match-set t dst --return-nomatch", [1, 1, 1, 1]),
        (EXCEPT, "--match-set t dst", [0, 0, 0, 0]),
        (EXCEPT, "--match-set t dst --return-nomatch", [1, 1, 1, 1]),
        (EXCEPT, "! --match-set t dst --return-nomatch", [0, 0, 0, 0]),
        (NETS, "--match-set t dst --return-nomatch", [0, 0, 0, 0]),
        (NETS, "! --match-set t dst --return-nomatch", [1, 1, 1, 1]),
        (COUNTED, "--match-set t dst --return-nomatch --packets-gt 1", [0, 1, 1, 1]),
        (ELSEWHERE, "! --match-set t dst --return-nomatch", [1, 1, 1, 1]),
    ] {
        let mut sender = Sender::new(sets, &format!("-m set {rule}"));
        assert_eq!([0; 4].map(|_| sender.send(1, 100)), met, "{sets}{rule}");
    }
}

#[test]
fn a_set_gives_packets_the_marks_of_its_elements() {
    for (element, mark, after) in [
        ("198.51.100.1 skbmark 0x5/0xff", 0x33, 0x5),
        ("198.51.100.1 skbmark 0x5/0x0f", 0x33, 0x35),
        ("198.51.100.1 skbmark 0x5", 0x33, 0x5),
        ("198.51.100.1 skbmark 0x35/0x0f", 0x13, 0x25),
        ("198.51.100.1 skbprio 1:10", 0x13, 0x13),
        ("203.0.113.1 skbmark 0x35/0x0f", 0x13, 0x13),
    ] {
        let sets = format!("create t hash:net skbinfo\nadd t {element}\n");
        let mut sender = Sender::new(&sets, "-j SET --map-set t dst --map-mark");
        assert_eq!(sender.mark_after(mark, 100), after, "{element}");
    }
}

#[test]
fn a_new_ruleset_takes_over_what_has_the_same_name() {
    let upto = |name: &str, burst: u32| {
        format!("-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst {burst} --hashlimit-name {name}")
    };
    let seen = |option: &str| format!("-m recent --{option} --name seen --rdest");
    for (what, first, second, met) in [
        ("a limit begins anew", "-m limit --limit 1/hour --limit-burst 5".into(), None, [5, 5]),
        ("a quota begins anew", "-m quota --quota 500".into(), None, [5, 5]),
        ("so does counting", "-m statistic --mode nth --every 9 --packet 0".into(), None, [2, 2]),
        ("a table of hashlimit goes on", upto("a", 5), None, [5, 0]),
        ("with its own rate", upto("a", 5), Some(upto("a", 50)), [5, 0]),
        ("under another name there is another", upto("a", 5), Some(upto("b", 50)), [5, 10]),
        ("a list of recent goes on", seen("set"), Some(seen("rcheck")), [10, 10]),
    ] {
        let mut sender = Sender::new("", &first);
        let before = sender.send(10, 100);
        sender.reload("", second.as_ref().unwrap_or(&first));
        assert_eq!([before, sender.send(10, 100)], met, "{what}");
    }
    let mut sender = Sender::new("", &seen("set"));
    sender.send(1, 100);
    sender.reload("", "-m comment --comment nothing");
    sender.reload("", &seen("rcheck"));
    assert_eq!(sender.send(1, 100), 0, "a list that nobody names is forgotten");
}

#[test]
fn what_rules_added_to_a_set_outlives_them_and_what_the_text_says_stands() {
    const OLD: &str = "create t hash:ip timeout 0\nadd t 203.0.113.1\n";
    const NEW: &str = "create t hash:ip timeout 0\n";
    let mut sender = Sender::new(OLD, "-j SET --add-set t dst --timeout 10");
    sender.send(1, 100);
    sender.reload(NEW, "-m set --match-set t dst");
    assert_eq!(sender.send(1, 100), 1, "added by a rule");
    sender.wait_millis(10_000);
    assert_eq!(sender.send(1, 100), 0, "its time goes on");
    sender.reload("create t hash:ip timeout 0\nadd t 198.51.100.1 timeout 5\n", "-m set --match-set t dst");
    assert_eq!(sender.send(1, 100), 1, "from the text");
    sender.wait_millis(5_000);
    assert_eq!(sender.send(1, 100), 0, "for as long as it says");
    sender.reload(NEW, "-m set --match-set t dst");
    assert_eq!(sender.send(1, 100), 0, "and no longer than the text has it");
}

#[test]
fn the_time_of_day_follows_a_clock_that_is_set() {
    const HOUR: u64 = 3600 * 1_000_000_000;
    let mut sender = Sender::new("", "-m time --timestart 10:00 --timestop 11:00");
    for (hour, met) in [(9, 0), (10, 1), (12, 0), (10, 1)] {
        sender.place.env.unix_epoch_nanos = (hour * HOUR).into();
        assert_eq!(sender.send(1, 100), met, "at {hour} o'clock");
    }
}

#[test]
fn a_copy_remembers_the_same_and_neither_changes_the_other() {
    for (sets, rule) in [
        ("", "-m limit --limit 1/hour --limit-burst 3"),
        ("", "-m quota --quota 300"),
        ("", "-m statistic --mode nth --every 3 --packet 0"),
        ("", "-m recent --name r --rcheck --hitcount 3\n-A FORWARD -p udp -m recent --name r --set"),
        (
            "",
            "-m hashlimit --hashlimit-name h --hashlimit-mode srcip --hashlimit-upto 1/hour --hashlimit-burst 3",
        ),
        ("create s hash:ip\n", "-m set --match-set s src\n-A FORWARD -p udp -j SET --add-set s src"),
    ] {
        let copy_of =
            |of: &Sender| Sender { rules: of.rules.copied(), place: WithoutRouter::default(), now: of.now };
        let afresh = Sender::new(sets, rule).send(4, 100);
        let mut first = Sender::new(sets, rule);
        // What a copy sees is nothing to the first.
        copy_of(&first).send(3, 100);
        let mut other = copy_of(&first);
        first.send(2, 100);
        let mut copy = copy_of(&first);
        let (of_copy, of_first) = (copy.send(4, 100), first.send(4, 100));
        assert_eq!(of_copy, of_first, "{rule}");
        assert_ne!(of_copy, afresh, "{rule}: it remembers nothing");
        assert_eq!(other.send(4, 100), afresh, "{rule}: what the first sees is nothing to a copy");
    }
}
