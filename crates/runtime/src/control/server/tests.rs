//! A router on ports in memory, asked over a socket in a folder of its own.

use super::*;
use crate::control::Client;
use crate::control::protocol::{
    Command, EntryFilter, EntryMatch, EntryOrder, FlowSelect, LetInView, MAX_LINE, Named, Reply, Verdict,
    VerdictFilter,
};
use crate::control::socket::bind_privately;
use crate::device::Port;
use crate::device::memory::{self, FarEnd};
use crate::runtime::{Options, Runtime};
use crossbeam_channel::{Receiver, bounded};
use stateway_core::config::{BusyPoll, RouterConfig};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::packet::checksum::Sum;
use stateway_core::router::Router;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

/// Nothing takes so long that goes on at all.
const SOON: Duration = Duration::from_secs(120);

struct Bench {
    server: Server,
    orders: Receiver<Order>,
    hosts: [FarEnd; 2],
    // Ends before the folder goes.
    _runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::patient(PATIENCE)
    }

    fn patient(patience: Duration) -> Self {
        let ifaces = vec![Iface::new("left", IfaceId(0)), Iface::new("right", IfaceId(1))];
        let router = Router::new(RouterConfig::new(ifaces)).unwrap();
        let ((left, left_host), (right, right_host)) =
            (memory::port("left").unwrap(), memory::port("right").unwrap());
        let ports: Vec<Box<dyn Port>> = vec![Box::new(left), Box::new(right)];
        let runtime = Runtime::start(
            Arc::new(router),
            ports,
            Options { busy_poll: BusyPoll::Never, io_uring: false, workers: 1 },
        )
        .unwrap();
        let (sender, orders) = bounded(8);
        let mut context =
            Context::new(Arc::clone(runtime.shared()), sender, Mode::Bridge, None, runtime.burst());
        context.patience = patience;
        let folder = tempfile::tempdir().unwrap();
        let server = Server::listen(&folder.path().join("control.sock"), context).unwrap();
        Self { server, orders, hosts: [left_host, right_host], _runtime: runtime, _folder: folder }
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(self.server.path()).unwrap();
        client.set_timeout(Some(SOON)).unwrap();
        client
    }
}

/// A UDP datagram from 192.0.2.1:1000 to 192.0.2.2:`dport`, without a checksum; its MACs do not matter here.
fn datagram(dport: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    let checksum = Sum::ZERO.bytes(&frame[14..]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(1000_u16.to_be_bytes());
    frame.extend(dport.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

#[test]
fn only_the_owner_may_open_the_socket() {
    let bench = Bench::new();
    let mode = fs::metadata(bench.server.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = bench.server.path().to_owned();
    drop(bench);
    assert!(!path.exists(), "and it goes with the router");
}

#[test]
fn what_is_no_command_is_refused_and_the_client_may_go_on() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.server.path()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    for line in
        ["nonsense\n", "{\"command\":\"fly\"}\n", "{\"command\":\"watch\",\"filter\":{\"dprot\":1}}\n"]
    {
        stream.write_all(line.as_bytes()).unwrap();
    }
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    let replies = BufReader::new(stream).lines().take(5).map(|l| serde_json::from_str(&l.unwrap()).unwrap());
    let words: Vec<&str> = replies
        .map(|reply| match reply {
            Reply::Error { .. } => "error",
            Reply::Status(_) => "status",
            Reply::Done => "done",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(words, ["error", "error", "error", "status", "done"]);
}

#[test]
fn a_watcher_hears_of_every_packet_before_it_ended_and_of_none_that_it_did_not_want() {
    let bench = Bench::new();
    let mut client = bench.client();
    let filter = VerdictFilter { dport: Some(53), ..VerdictFilter::default() };
    client.send(&Command::Watch { filter, explain: false, per_second: None }).unwrap();
    assert_eq!(client.next_reply().unwrap(), Some(Reply::Watching));
    for dport in [52, 53, 54, 53] {
        bench.hosts[0].send(&datagram(dport)).unwrap();
        bench.hosts[1].recv(SOON).unwrap().expect("forwarded");
    }
    client.end_stream().unwrap();
    let mut seen: Vec<Verdict> = Vec::new();
    while let Some(reply) = client.next_reply().unwrap() {
        let Reply::Verdict(verdict) = reply else { panic!("{reply:?}") };
        seen.push(*verdict);
    }
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].summary, "udp 192.0.2.1:1000 → 192.0.2.2:53");
    assert_eq!((seen[0].in_iface.as_str(), seen[0].fate.as_str()), ("left", "forwarded"));
    assert_eq!(seen[0].out, ["right"]);
    assert!(matches!(client.call(&Command::Status).unwrap()[..], [Reply::Status(_)]), "the client may go on");
}

#[test]
fn what_is_beyond_the_pace_that_a_watcher_asked_for_is_lost_and_counted() {
    for filter in [VerdictFilter::default(), VerdictFilter { dport: Some(53), ..VerdictFilter::default() }] {
        let bench = Bench::new();
        let mut client = bench.client();
        client.send(&Command::Watch { filter, explain: false, per_second: Some(0) }).unwrap();
        assert_eq!(client.next_reply().unwrap(), Some(Reply::Watching));
        for _ in 0..5 {
            bench.hosts[0].send(&datagram(53)).unwrap();
            bench.hosts[1].recv(SOON).unwrap().expect("forwarded");
        }
        client.end_stream().unwrap();
        assert_eq!(client.next_reply().unwrap(), Some(Reply::Lost { events: 5 }));
        assert_eq!(client.next_reply().unwrap(), None);
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let bench = Bench::new();
    let mut clients: Vec<Client> = (0..MAX_CLIENTS).map(|_| bench.client()).collect();
    for client in &mut clients {
        client.call(&Command::Status).unwrap();
    }
    let problem = bench.client().next_reply().unwrap_err().to_string();
    assert!(problem.contains("clients are being served"), "{problem}");
}

#[test]
fn reload_and_shutdown_become_orders() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.send(&Command::Reload).unwrap();
    let Ok(Order::Reload(Some(result))) = bench.orders.recv() else { panic!("no order") };
    result.send(Err("line 3 is wrong".into())).unwrap();
    assert_eq!(client.next_reply().unwrap_err().to_string(), "line 3 is wrong");
    assert_eq!(client.call(&Command::Shutdown).unwrap(), []);
    assert!(matches!(bench.orders.recv(), Ok(Order::Stop)));
}

#[test]
fn metrics_name_every_port_and_reason() {
    let bench = Bench::new();
    let Ok([Reply::Text { text }]) =
        bench.client().call(&Command::Metrics).map(<[Reply; 1]>::try_from).unwrap()
    else {
        panic!("one page")
    };
    for line in [
        "stateway_network_receive_packets_total{device=\"left\"} 0",
        "stateway_drop_packets_total{reason=\"no-ipv6-rules\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn connections_are_listed_counted_and_deleted() {
    let bench = Bench::new();
    let mut client = bench.client();
    for dport in [53, 123] {
        bench.hosts[0].send(&datagram(dport)).unwrap();
        bench.hosts[1].recv(SOON).unwrap().expect("forwarded");
    }
    assert_eq!(client.call(&Command::ConntrackCount).unwrap(), [Reply::Count { count: 2 }]);
    let original = FlowSelect { src: Some("192.0.2.0/24".into()), dport: Some(53), ..FlowSelect::default() };
    let filter = EntryFilter { original, ..EntryFilter::default() };
    let list = |client: &mut Client, command: &Command| -> Vec<String> {
        let replies = client.call(command).unwrap();
        let entries = replies.into_iter().flat_map(|reply| match reply {
            Reply::Entries { entries } => entries,
            other => panic!("{other:?}"),
        });
        entries.map(|entry| entry.line).collect()
    };
    let one = list(&mut client, &Command::ConntrackList { filter: filter.clone(), zero: false });
    assert_eq!(one.len(), 1);
    assert!(
        one[0].starts_with("ipv4     2 udp      17 ") && one[0].contains("dport=53 [UNREPLIED]"),
        "{one:?}"
    );
    assert_eq!(list(&mut client, &Command::ConntrackDelete { filter }), one);
    assert_eq!(client.call(&Command::ConntrackCount).unwrap(), [Reply::Count { count: 1 }]);
    client.call(&Command::ConntrackFlush).unwrap();
    assert_eq!(client.call(&Command::ConntrackCount).unwrap(), [Reply::Count { count: 0 }]);
}

#[test]
fn every_listener_hears_of_the_connections_that_it_asked_for() {
    let bench = Bench::new();
    let mut clients = [bench.client(), bench.client()];
    for (client, dport) in clients.iter_mut().zip([53, 123]) {
        let original = FlowSelect { dport: Some(dport), ..FlowSelect::default() };
        let filter = EntryFilter { original, ..EntryFilter::default() };
        client.send(&Command::ConntrackEvents { filter, expectations: false, kinds: Vec::new() }).unwrap();
        assert_eq!(client.next_reply().unwrap(), Some(Reply::Watching));
    }
    for dport in [53, 123] {
        bench.hosts[0].send(&datagram(dport)).unwrap();
    }
    for (client, dport) in clients.iter_mut().zip([53, 123]) {
        let Some(Reply::Event(event)) = client.next_reply().unwrap() else { panic!("an event") };
        assert_eq!(event.kind, "NEW");
        assert_eq!(event.entry.and_then(|e| e.original.dport), Some(dport));
    }
}

#[test]
fn settings_are_read_and_changed_by_name() {
    let bench = Bench::new();
    let mut client = bench.client();
    let (name, value) = ("nf_conntrack_udp_timeout".to_owned(), "7".to_owned());
    client.call(&Command::SysctlSet { name: name.clone(), value }).unwrap();
    let seven = Named { name: name.clone(), count: 7 };
    let get = Command::SysctlGet { name: Some(name) };
    assert_eq!(client.call(&get).unwrap(), [Reply::Sysctls { sysctls: vec![seven] }]);
    let unknown = Command::SysctlSet { name: "nf_conntrack_udp_timeuot".into(), value: "7".into() };
    assert!(client.call(&unknown).unwrap_err().to_string().contains("did you mean"));
}

#[test]
fn a_file_beside_the_socket_is_not_taken_for_one_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, beside) = (folder.path().join("control"), folder.path().join("control~"));
    fs::write(&beside, "an editor's copy").unwrap();
    assert!(bind_privately(&socket).is_err());
    assert_eq!(fs::read_to_string(&beside).unwrap(), "an editor's copy");
    fs::remove_file(&beside).unwrap();
    drop(UnixListener::bind(&beside).unwrap());
    assert!(bind_privately(&socket).is_ok(), "what a killed router left is in nobody's way");
}

#[test]
fn whoever_asks_and_does_not_read_is_left_and_so_are_its_threads() {
    let bench = Bench::patient(Duration::from_millis(20));
    for _ in 0..2 * MAX_CLIENTS {
        let mut stream = UnixStream::connect(bench.server.path()).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        let error = loop {
            if let Err(error) = stream.write_all(b"{\"command\":\"metrics\"}\n") {
                break error;
            }
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }
    // Their seats are free again.
    bench.client().call(&Command::Status).unwrap();
}

#[test]
fn a_line_without_end_is_refused() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(bench.server.path()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let sent = stream.write_all(&vec![b'x'; MAX_LINE]);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("the line is too long"), "{answer} {sent:?}");
}

#[test]
fn more_clients_than_seats_are_told_so() {
    let bench = Bench::new();
    let mut seated: Vec<Client> = (0..MAX_CLIENTS).map(|_| bench.client()).collect();
    for client in &mut seated {
        client.call(&Command::Status).unwrap();
    }
    let refused = bench.client().call(&Command::Status).unwrap_err().to_string();
    assert!(refused.contains("try later") || refused.contains("went away"), "{refused}");
}

#[test]
fn what_is_invalid_is_counted_by_reason_and_a_glance_shows_what_was_asked_for() {
    let bench = Bench::new();
    let mut short = datagram(9);
    // Its length field says less than a header.
    short[14 + 20 + 5] = 4;
    for frame in [datagram(53), datagram(54), short.clone(), short] {
        bench.hosts[0].send(&frame).unwrap();
        bench.hosts[1].recv(SOON).unwrap().expect("forwarded");
    }
    let mut client = bench.client();
    let Some(Reply::Text { text }) = client.call(&Command::Metrics).unwrap().pop() else { panic!() };
    for line in [
        "stateway_nf_conntrack_invalid_packets_total{reason=\"udp-length\"} 2",
        "stateway_nf_conntrack_invalid_packets_total{reason=\"tcp-rst\"} 0",
        "stateway_nf_conntrack_translated{kind=\"snat\"} 0",
        "stateway_nat_decisions_total{side=\"source\",how=\"exhausted\"} 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in {text}");
    }
    let Some(Reply::Stats { invalid, .. }) = client.call(&Command::ConntrackStats).unwrap().pop() else {
        panic!()
    };
    let counted: Vec<_> = invalid.iter().filter(|reason| reason.count > 0).collect();
    assert_eq!(counted, [&Named { name: "udp-length".into(), count: 2 }]);

    let mut glance = |order, matching, show| {
        let command = Command::ConntrackSummary { entries: 1, order, matching, show };
        let Some(Reply::Summary(summary)) = client.call(&command).unwrap().pop() else { panic!() };
        summary
    };
    let all = EntryMatch::default();
    let newest = glance(EntryOrder::Newest, all.clone(), None);
    assert_eq!((newest.count, newest.matching, newest.newest.len()), (2, 2, 1));
    assert_eq!(newest.newest[0].original.dport, Some(54));
    let number = newest.newest[0].id;
    let oldest = glance(EntryOrder::Oldest, all, Some(number));
    assert_eq!(oldest.newest[0].original.dport, Some(53));
    let shown = oldest.shown.unwrap();
    assert_eq!(shown.entry.original.dport, Some(54), "it is shown, whatever comes first");
    assert_eq!(shown.let_in, LetInView::NotKnown, "there are no rules");
    let host = EntryMatch { host: Some("192.0.2.2".into()), port: Some(53), ..EntryMatch::default() };
    let one = glance(EntryOrder::Newest, host, None);
    assert_eq!((one.count, one.matching, one.newest[0].original.dport), (2, 1, Some(53)));
    let stranger = EntryMatch { host: Some("198.51.100.0/24".into()), ..EntryMatch::default() };
    assert_eq!(glance(EntryOrder::Newest, stranger, None).matching, 0);
}

#[test]
fn a_connection_in_full_says_which_rule_let_it_in() {
    let bench = Bench::new();
    let mut client = bench.client();
    let rules =
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -m udp --dport 53 -j ACCEPT\nCOMMIT\n".to_owned();
    let replace = Command::RulesReplace { rules: Some(rules), rules6: None, may_open: false };
    client.call(&replace).unwrap();
    bench.hosts[0].send(&datagram(53)).unwrap();
    bench.hosts[1].recv(SOON).unwrap().expect("forwarded");
    let mut let_in = || {
        let glance = |show| Command::ConntrackSummary {
            entries: 1,
            order: EntryOrder::Newest,
            matching: EntryMatch::default(),
            show,
        };
        let mut look = |show| match client.call(&glance(show)).unwrap().pop() {
            Some(Reply::Summary(summary)) => summary,
            other => panic!("{other:?}"),
        };
        let number = look(None).newest[0].id;
        look(Some(number)).shown.unwrap().let_in
    };
    let rule = LetInView::Rule {
        name: "filter/FORWARD/1".to_owned(),
        text: "-A FORWARD -p udp -m udp --dport 53 -j ACCEPT".to_owned(),
    };
    assert_eq!(let_in(), rule);
    bench.client().call(&replace).unwrap();
    assert_eq!(let_in(), LetInView::OtherRules, "they are others, though they read the same");
}
