use super::*;
use stateway_core::config::RouterConfig;
use stateway_core::conntrack::{Entry, Filter};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::Frame;
use stateway_core::record::NoRecord;
use stateway_core::router::Worker;
use std::io::Cursor;

const RULES: &str = "*mangle\n-A FORWARD -p udp -j CONNMARK --set-xmark 7/0xffffffff\nCOMMIT\n\
    *filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -i left -m state --state NEW -j ACCEPT\nCOMMIT\n";
const LEFT: u8 = 10;
const RIGHT: u8 = 20;
const PASSED: Duration = Duration::from_secs(5);

/// A router on virtual time.
struct World {
    router: Router,
    worker: Worker,
    now: Instant,
}

impl World {
    fn new(now: Instant) -> Self {
        Self::under(RULES, now)
    }

    fn under(rules: &str, now: Instant) -> Self {
        let settings = [("nf_conntrack_checksum", "0"), ("nf_conntrack_acct", "1")];
        let mut made =
            RouterConfig::new(vec![Iface::new("left", IfaceId(0)), Iface::new("right", IfaceId(1))]);
        made.rules = Some(rules.to_owned());
        made.helpers = vec!["ftp".to_owned()];
        made.sysctl = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        made.seed = 7;
        let router = Router::new(made);
        let router = router.map_err(|e| e[0].to_string()).unwrap();
        Self { worker: router.worker(), router, now }
    }

    /// Takes a packet from one of the two hosts to the other; says what became of it.
    fn packet(&mut self, from: u8, proto: u8, l4: &[u8]) -> &'static str {
        let to = if from == LEFT { RIGHT } else { LEFT };
        let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, 0x45, 0, 0];
        frame.push(20 + l4.len() as u8);
        frame.extend([0, 0, 0, 0, 64, proto, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
        let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame.extend(l4);
        let iface = IfaceId(u16::from(from == RIGHT));
        let outcome =
            self.router.process(&mut self.worker, self.now, iface, Frame::new(&mut frame), &mut NoRecord);
        self.worker.take_emissions();
        outcome.fate.word()
    }

    fn udp(&mut self, from: u8) -> &'static str {
        let ports = if from == LEFT { [0x9c, 0x40, 0, 53] } else { [0, 53, 0x9c, 0x40] };
        self.packet(from, 17, &[&ports[..], &[0, 8, 0, 0]].concat())
    }

    /// A segment between port 40000 on the left and a port on the right.
    fn tcp(&mut self, from: u8, port: u8, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> &'static str {
        let ports = if from == LEFT { [0x9c, 0x40, 0, port] } else { [0, port, 0x9c, 0x40] };
        let header =
            [&ports[..], &seq.to_be_bytes(), &ack.to_be_bytes(), &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]];
        self.packet(from, 6, &[&header.concat()[..], payload].concat())
    }

    fn handshake(&mut self, port: u8) {
        assert_eq!(self.tcp(LEFT, port, 0x02, 100, 0, b""), "forwarded");
        assert_eq!(self.tcp(RIGHT, port, 0x12, 500, 101, b""), "forwarded");
        assert_eq!(self.tcp(LEFT, port, 0x10, 101, 501, b""), "forwarded");
    }

    /// Sessions of each kind: ssh, DNS, and FTP with an announced connection.
    fn busy() -> Self {
        let mut world = Self::new(Instant::from_secs(1000));
        world.handshake(22);
        world.handshake(21);
        assert_eq!(world.tcp(RIGHT, 21, 0x18, 501, 101, b"220 ready\r\n"), "forwarded");
        assert_eq!(world.tcp(LEFT, 21, 0x18, 101, 512, b"PASV\r\n"), "forwarded");
        let answer = b"227 Entering Passive Mode (192,0,2,20,200,1)\r\n";
        assert_eq!(world.tcp(RIGHT, 21, 0x18, 512, 107, answer), "forwarded");
        assert_eq!(world.udp(LEFT), "forwarded");
        world.now += Duration::from_secs(3);
        assert_eq!(world.udp(RIGHT), "forwarded");
        assert_eq!(world.udp(LEFT), "forwarded");
        world
    }

    fn save(&self) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        write(&mut file, &self.router, self.now, 1_000_000_000_000).unwrap();
        file.into_inner()
    }

    /// Another process, `PASSED` later.
    fn next(file: &[u8]) -> (Self, Summary) {
        let world = Self::new(Instant::from_secs(50));
        let state = State::parse(file).unwrap();
        let summary = state.restore(&world.router, PASSED, world.now);
        (world, summary)
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = self.router.conntrack().list(&Filter::default(), self.now);
        entries.sort_by_key(|entry| entry.original);
        entries
    }
}

#[test]
fn the_next_process_knows_what_the_last_one_knew() {
    let before = World::busy();
    let (after, summary) = World::next(&before.save());
    let restored = Restored { connections: 3, expectations: 1, expired: 0, refused: 0 };
    assert_eq!(summary, Summary { restored, links: 2, passed: PASSED });
    let about = |world: &World, passed: Duration| -> Vec<_> {
        let about = |e: &Entry| {
            let counters = [
                e.counter(stateway_core::conntrack::Direction::Original),
                e.counter(stateway_core::conntrack::Direction::Reply),
            ];
            let left = e.timeout(world.now).saturating_sub(passed);
            (e.original, e.status, e.mark, e.helper, e.state_word(), counters, left)
        };
        world.entries().iter().map(about).collect()
    };
    assert_eq!(about(&after, Duration::ZERO), about(&before, PASSED));
    assert!(about(&before, PASSED).iter().any(|entry| entry.2 == 7), "a mark");
}

#[test]
fn sessions_in_which_only_the_far_side_speaks_go_on() {
    let file = World::busy().save();
    let (mut world, _) = World::next(&file);
    assert_eq!(world.udp(RIGHT), "forwarded");
    assert_eq!(world.tcp(RIGHT, 22, 0x18, 700_501, 101, b"more"), "forwarded");
    assert_eq!(world.tcp(LEFT, 22, 0x10, 101, 700_505, b""), "forwarded");
    // The announced connection comes, too; what nobody announced does not.
    let data = [[0xab, 0xcd, 200, 1].as_slice(), &[0; 8], &[0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]].concat();
    assert_eq!(world.packet(LEFT, 6, &data), "forwarded");
    let entry = world.entries().into_iter().find(|entry| entry.original.right == 200 << 8 | 1).unwrap();
    assert!(entry.status.contains(stateway_core::conntrack::Status::EXPECTED) && entry.master().is_some());
    let mut empty = World::new(Instant::from_secs(50));
    assert_eq!(empty.tcp(RIGHT, 22, 0x18, 700_501, 101, b"more"), "dropped");
}

#[test]
fn an_announced_connection_still_has_its_master() {
    let mut world = World::busy();
    let data = [[0xab, 0xcd, 200, 1].as_slice(), &[0; 8], &[0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]].concat();
    assert_eq!(world.packet(LEFT, 6, &data), "forwarded");
    let answer =
        [[200, 1, 0xab, 0xcd].as_slice(), &[0; 7], &[1, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0]].concat();
    assert_eq!(world.packet(RIGHT, 6, &answer), "forwarded");
    let (after, _) = World::next(&world.save());
    let uses: Vec<u32> = after.entries().iter().map(Entry::uses).collect();
    assert_eq!(uses.iter().sum::<u32>(), 5, "four entries, and one of them has a child: {uses:?}");
}

#[test]
fn what_ended_meanwhile_is_not_taken_up() {
    let world = World::busy();
    let file = world.save();
    let next = World::new(Instant::from_secs(50));
    let state = State::parse(&file).unwrap();
    assert_eq!(state.passed(1_000_000_000_000 + 7), Duration::from_nanos(7));
    assert_eq!(state.passed(5), Duration::ZERO, "the time of day was set back");
    let summary = state.restore(&next.router, Duration::from_secs(400), next.now);
    let restored = Restored { connections: 1, expectations: 0, expired: 3, refused: 0 };
    assert_eq!(summary.restored, restored, "ssh lives for five days, FTP's last word waits for its answer");
}

#[test]
fn no_more_is_taken_up_than_the_table_may_hold() {
    let file = World::busy().save();
    let next = World::new(Instant::from_secs(50));
    next.router.conntrack().set_sysctl("nf_conntrack_max", "2").unwrap();
    let summary = State::parse(&file).unwrap().restore(&next.router, PASSED, next.now);
    assert_eq!(summary.restored.connections, 2);
    assert!(summary.restored.refused >= 1);
}

#[test]
fn a_file_that_was_cut_or_damaged_anywhere_is_refused() {
    let file = World::busy().save();
    assert!(State::parse(&file).is_ok());
    for end in 0..file.len() {
        assert!(State::parse(&file[..end]).is_err(), "cut at {end}");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        assert!(State::parse(&damaged).is_err(), "damaged at {at}");
    }
    assert!(State::parse(&[&file[..], b"x"].concat()).is_err());
}

#[test]
fn a_refusal_says_why() {
    let mut file = World::busy().save();
    let says = |file: &[u8]| State::parse(file).map(drop).unwrap_err().to_string();
    assert_eq!(says(b"name: article"), "it is no state file");
    assert_eq!(says(&file[..100]), format!("it is cut short: 100 bytes of {}", file.len()));
    file[8] = 3;
    assert_eq!(says(&file), "it is of version 3, and this program reads version 2");
}

/// Changes with the meaning of any record: then the version must change as well.
#[test]
fn the_format_is_that_of_its_version() {
    let file = World::busy().save();
    let seen = format!("version {VERSION}, {} bytes, {:08x}", file.len(), crc32c(&file[BODY_AT..]));
    expect_test::expect!["version 2, 310 bytes, f89cd6d1"].assert_eq(&seen);
}

#[test]
fn a_translated_connection_goes_on_under_its_translation() {
    const PORT_FORWARD: &str =
        "*nat\n-A PREROUTING -p udp --dport 53 -j DNAT --to-destination :5353\nCOMMIT\n";
    let mut world = World::under(PORT_FORWARD, Instant::from_secs(1000));
    assert_eq!(world.udp(LEFT), "forwarded");
    let file = world.save();
    let (before, entries) = (world.entries(), |world: &World| world.entries());
    // The rule is gone: what was decided stays.
    let mut next = World::under("*nat\nCOMMIT\n", Instant::from_secs(50));
    State::parse(&file).unwrap().restore(&next.router, PASSED, next.now);
    let after = entries(&next);
    assert_eq!((after[0].original, after[0].reply()), (before[0].original, before[0].reply()));
    assert_eq!(after[0].status, before[0].status);
    assert_eq!(after[0].reply().left, 5353);
    let answer = [&[0x14, 0xe9, 0x9c, 0x40][..], &[0, 8, 0, 0]].concat();
    assert_eq!(next.packet(RIGHT, 17, &answer), "forwarded");
    assert_eq!(entries(&next).len(), 1, "it is the answer");
}
