//! A router that forwards nothing, asked over loopback.

use super::*;
use crate::runtime::{Options, Runtime};
use stateway_core::config::{BusyPoll, RouterConfig};
use stateway_core::iface::{Iface, IfaceId};
use stateway_core::router::Router;

/// Whatever should come and does not is missed after so long.
const LONG: Duration = Duration::from_secs(60);

struct Bench {
    address: SocketAddr,
    _server: MetricsServer,
    _runtime: Runtime,
}

impl Bench {
    fn new(patience: Duration) -> Self {
        let router = Router::new(RouterConfig::new(vec![Iface::new("left", IfaceId(0))])).unwrap();
        let (port, _) = crate::device::memory::port("left").unwrap();
        let options = Options { busy_poll: BusyPoll::Never, io_uring: false, workers: 1 };
        let runtime = Runtime::start(Arc::new(router), vec![Box::new(port)], options).unwrap();
        let socket = MetricsSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.address();
        let server = MetricsServer::patient(socket, Arc::clone(runtime.shared()), patience).unwrap();
        Self { address, _server: server, _runtime: runtime }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Everything that comes as an answer.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        rest(stream)
    }
}

fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_are_at_their_path_and_nothing_is_elsewhere() {
    let bench = Bench::new(LONG);
    let answer = bench.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(body.contains("\nstateway_nf_conntrack_entries 0\n"), "{body}");
    let head_alone = bench.ask("HEAD /metrics?x=1 HTTP/1.0\r\n\r\n");
    assert!(head_alone.starts_with("HTTP/1.1 200 OK") && head_alone.ends_with("\r\n\r\n"), "{head_alone}");
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(MAX_HEAD + 1024));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metricsx HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("{\"command\":\"shutdown\"}\n", "400"),
        (&long, "431"),
        (&many, "431"),
    ] {
        let answer = bench.ask(request);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request:.40}: {answer}");
    }
}

#[test]
fn one_client_too_many_is_told_so_and_the_next_finds_a_seat() {
    let bench = Bench::new(LONG);
    let mut silent: Vec<TcpStream> = (0..MAX_CLIENTS).map(|_| bench.connect()).collect();
    // Clients are taken in the order in which they came.
    assert!(rest(bench.connect()).starts_with("HTTP/1.1 503 "));
    let one = silent.remove(0);
    one.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(one), "");
    assert!(bench.ask("GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_says_nothing_or_not_all_is_left() {
    let bench = Bench::new(Duration::from_millis(50));
    assert_eq!(rest(bench.connect()), "");
    assert_eq!(bench.ask("GET /metrics HTTP/1.1\r\n"), "");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let bench = Bench::new(LONG);
    let error = MetricsSocket::bind(bench.address).unwrap_err();
    assert!(
        format!("{error:#}").starts_with(&format!("cannot listen at `{}`: ", bench.address)),
        "{error:#}"
    );
}
