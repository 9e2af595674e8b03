//! What a client may write to the control socket: nothing panics, and every line of every answer can be read.
//!
//! The input is what goes over the socket. A real router answers, on ports that nobody sends to.

use stateway_core::config::{BusyPoll, Mode};
use stateway_runtime::control::Reply;
use stateway_runtime::control::server::{Context, serve};
use stateway_runtime::device::Port;
use stateway_runtime::device::memory;
use stateway_runtime::runtime::{Options, Runtime};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The router, and who may ask it: one at a time.
static ROUTER: LazyLock<(Runtime, Mutex<()>)> = LazyLock::new(|| {
    let router = super::routers::pick(0);
    let port = |name: &str| memory::port(name).expect("a pair of sockets").0;
    let ports = router.ifaces().iter().map(|iface| Box::new(port(&iface.name)) as Box<dyn Port>).collect();
    let options = Options { busy_poll: BusyPoll::Never, io_uring: false, workers: 1 };
    (Runtime::start(Arc::new(router), ports, options).expect("it starts"), Mutex::new(()))
});

/// What undoes what the input before may have done.
const AFRESH: &str = r#"{"command":"conntrack-flush"}
{"command":"expect-flush"}
{"command":"rules-replace","rules":"*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n","rules6":null}
"#;

pub fn run(data: &[u8]) {
    let (runtime, turn) = &*ROUTER;
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody takes orders: a reload and the end are refused.
    let (orders, _) = crossbeam_channel::bounded(1);
    let context = Context::new(Arc::clone(runtime.shared()), orders, Mode::Bridge, None, "none");
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = serve(&near, &context);
            let _ = near.shutdown(Shutdown::Both);
        });
        scope.spawn(|| {
            // The server may leave before it has read everything.
            let _ = (&far).write_all(AFRESH.as_bytes()).and_then(|()| (&far).write_all(data));
            let _ = far.shutdown(Shutdown::Write);
        });
        for line in BufReader::new(&far).lines().map_while(Result::ok) {
            serde_json::from_str::<Reply>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    });
}
