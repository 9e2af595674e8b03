//! `stateway run` among readers that stopped reading, under a service manager, and with ports that vanish: it forwards on,
//! and ends when told.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use crate::netns::{Netns, ip};
use crate::run::{A, B, Lab, PATIENCE, Refused, STATEFUL, is_left_out};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use stateway_runtime::control::protocol::{Command as Ask, Reply};
use stateway_runtime::uninterrupted;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

/// Sends a signal, and waits for the end; its exit code.
fn end(router: &mut Child, signal: Signal) -> Option<i32> {
    let pid = Pid::from_child(router);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    kill_process(pid, signal).unwrap();
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)).unwrap();
    if ended == 0 {
        router.kill().unwrap();
    }
    assert_eq!(ended, 1, "it did not end");
    router.wait().unwrap().code()
}

/// Sends so many datagrams from A to B, a few at a time, and counts that all of them arrive.
fn datagrams(lab: &Lab, count: u32) {
    std::thread::scope(|scope| {
        let (bound, is_bound) = channel();
        let receiver = lab.on(scope, "b", move || {
            let socket = UdpSocket::bind((B, 5000)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            bound.send(()).unwrap();
            for _ in 0..count {
                let mut number = [0; 4];
                let (_, from) = uninterrupted(|| socket.recv_from(&mut number)).unwrap();
                socket.send_to(&number, from).unwrap();
            }
        });
        let sender = lab.on(scope, "a", move || {
            is_bound.recv().unwrap();
            let socket = UdpSocket::bind((A, 4000)).unwrap();
            socket.connect((B, 5000)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for number in 0..count {
                socket.send(&number.to_be_bytes()).unwrap();
                let mut back = [0; 4];
                uninterrupted(|| socket.recv(&mut back)).unwrap();
                assert_eq!(u32::from_be_bytes(back), number);
            }
        });
        receiver.join().unwrap();
        sender.join().unwrap();
    });
}

#[test]
fn a_log_that_nobody_reads_holds_no_packet_up_nor_the_end() {
    if is_left_out() {
        return;
    }
    let rules = format!("-A FORWARD -j LOG --log-prefix \"a long prefix: \"\n{STATEFUL}");
    let mut lab = Lab::start("", &rules, Refused::Nothing);
    // Four times what the pipe holds: 64 KiB, a line of some 200 bytes for each packet.
    datagrams(&lab, 800);
    assert_eq!(end(&mut lab.router, Signal::TERM), Some(0));
    let mut log = String::new();
    lab.says.read_to_string(&mut log).unwrap();
    // Its last page need not be full.
    assert!(log.len() > 15 * 4096, "the pipe was full: {} bytes", log.len());
}

/// A pipe that nobody reads, with no room for a byte.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn a_log_that_is_full_already_holds_no_start_up() {
    if is_left_out() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, notify) = (folder.path().join("router.yaml"), folder.path().join("notify"));
    // Of IPv6 it says that there are no rules, before anything else.
    fs::write(&file, "mode: bridge\nports: { left: {}, right: {} }\nrules: none\n").unwrap();
    let service = UnixDatagram::bind(&notify).unwrap();
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = |file: &Path, stderr| {
        let mut command = Command::new("unshare");
        command.args(["--net", env!("CARGO_BIN_EXE_stateway"), "run"]).arg(file).arg("--control");
        command
            .arg(folder.path().join("control"))
            .env("NOTIFY_SOCKET", &notify)
            .stderr(stderr)
            .spawn()
            .unwrap()
    };
    let (reader, writer) = full_pipe();
    let mut router = start(&file, Stdio::from(writer));
    let mut word = [0; 256];
    let len = uninterrupted(|| service.recv(&mut word)).unwrap();
    assert!(word[..len].starts_with(b"READY=1"), "{}", String::from_utf8_lossy(&word[..len]));
    assert_eq!(end(&mut router, Signal::TERM), Some(0));

    // Nor the end of one that cannot start.
    drop(reader);
    let (_reader, writer) = full_pipe();
    let mut router = start(&folder.path().join("nothing"), Stdio::from(writer));
    assert_eq!(end(&mut router, Signal::CONT), Some(2));
}

#[test]
fn a_capture_that_nobody_reads_holds_no_packet_up_nor_the_end() {
    if is_left_out() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let rules = format!("-A FORWARD -j NFLOG\n{STATEFUL}");
    let nflog = ["--nflog", fifo.to_str().unwrap()];
    let mut lab = Lab::start_with("", &rules, Refused::Nothing, &nflog);
    datagrams(&lab, 800);
    assert_eq!(end(&mut lab.router, Signal::TERM), Some(0));
}

#[test]
fn the_service_manager_hears_how_it_goes() {
    if is_left_out() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, notify) = (folder.path().join("router.yaml"), folder.path().join("notify"));
    fs::write(&file, "mode: bridge\nports: { left: {} }\n").unwrap();
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |word: &str| {
        loop {
            let mut heard = [0; 256];
            let len =
                uninterrupted(|| manager.recv(&mut heard)).unwrap_or_else(|error| panic!("{word}: {error}"));
            let heard = String::from_utf8_lossy(&heard[..len]).into_owned();
            if heard.starts_with(word) {
                return heard;
            }
        }
    };
    let ns = Netns::new(format!("swt-{}-notify", std::process::id()));
    let mut router = Command::new("ip")
        .args(["netns", "exec", &ns.0, env!("CARGO_BIN_EXE_stateway"), "run"])
        .arg(&file)
        .arg("--control")
        .arg(folder.path().join("control"))
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "30000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hear("READY=1");
    // With nothing to forward its worker sleeps, and is alive all the same.
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    kill_process(Pid::from_child(&router), Signal::HUP).unwrap();
    assert!(hear("RELOADING=1").contains("\nMONOTONIC_USEC="));
    hear("READY=1");
    let code = end(&mut router, Signal::TERM);
    assert_eq!(code, Some(0));
    hear("STOPPING=1");
}

/// How the router says that its port on B's side stands.
fn link(lab: &Lab) -> String {
    let Reply::Interfaces { interfaces } = lab.ask(&Ask::Interfaces) else { panic!("no interfaces") };
    interfaces.into_iter().find(|interface| interface.name == "right").unwrap().link
}

fn metrics(lab: &Lab) -> String {
    let Reply::Text { text } = lab.ask(&Ask::Metrics) else { panic!("no metrics") };
    text
}

fn gone(lab: &Lab) -> Vec<String> {
    let Reply::Status(status) = lab.ask(&Ask::Status) else { panic!("no status") };
    status.gone
}

/// A new interface has a new link address.
fn forget_neighbours(lab: &Lab) {
    ip(&format!("-n {}a neigh flush all", lab.name));
}

#[test]
fn a_tap_that_was_deleted_is_told_of_and_taken_again_when_it_is_back() {
    if is_left_out() {
        return;
    }
    for settings in ["", "  device: tap\n", "  busy_poll: always\n"] {
        let mut lab = Lab::start(settings, STATEFUL, Refused::Nothing);
        datagrams(&lab, 10);
        ip(&format!("-n {}b link del eth0", lab.name));
        lab.hear("port right is gone");
        assert_eq!((link(&lab), gone(&lab)), ("gone".to_owned(), vec!["right".to_owned()]), "{settings}");
        assert!(metrics(&lab).contains("stateway_network_up{device=\"right\"} 0"), "{settings}");
        ip(&format!("-n {}r tuntap add right mode tap", lab.name));
        lab.hear("port right is back");
        lab.plug("b", "right", B);
        forget_neighbours(&lab);
        datagrams(&lab, 100);
        assert_eq!((link(&lab), gone(&lab)), ("up".to_owned(), vec![]), "{settings}");
        for line in
            ["up{device=\"right\"} 1", "gone_total{device=\"right\"} 1", "returns_total{device=\"right\"} 1"]
        {
            assert!(metrics(&lab).contains(&format!("stateway_network_{line}")), "{settings}: {line}");
        }
        assert_eq!(end(&mut lab.router, Signal::TERM), Some(0));
    }
}

#[test]
fn a_tap_that_went_with_its_namespace_is_told_of_and_made_again_by_the_router() {
    if is_left_out() {
        return;
    }
    for settings in ["", "  device: tap\n", "  busy_poll: always\n"] {
        let mut lab = Lab::start(settings, STATEFUL, Refused::Nothing);
        datagrams(&lab, 10);
        ip(&format!("netns del {}b", lab.name));
        lab.hear("port right is gone");
        // Nobody makes it again.
        lab.hear("port right is back");
        assert_eq!((link(&lab), gone(&lab)), ("up".to_owned(), vec![]), "{settings}");
        for line in ["gone_total", "returns_total"] {
            let line = format!("stateway_network_{line}{{device=\"right\"}} 1");
            assert!(metrics(&lab).contains(&line), "{settings}: {line}");
        }
        // As on the first day: it is to be found in the router's namespace, and who plugs it in has the network.
        ip(&format!("netns add {}b", lab.name));
        lab.plug("b", "right", B);
        forget_neighbours(&lab);
        datagrams(&lab, 100);
        assert_eq!(end(&mut lab.router, Signal::TERM), Some(0));
    }
}

#[test]
fn what_was_moved_to_another_namespace_is_not_gone() {
    if is_left_out() {
        return;
    }
    let mut lab = Lab::start("", STATEFUL, Refused::Nothing);
    datagrams(&lab, 10);
    let elsewhere = Netns::new(format!("{}c", lab.name));
    ip(&format!("-n {}b link set eth0 netns {}", lab.name, elsewhere.0));
    // It is down by then, and its address is lost, as the kernel has it.
    assert_eq!((link(&lab), gone(&lab)), ("down".to_owned(), vec![]));
    ip(&format!("-n {} link set eth0 name right", elsewhere.0));
    ip(&format!("-n {} link set right netns {}r", elsewhere.0, lab.name));
    lab.plug("b", "right", B);
    datagrams(&lab, 100);
    drop(elsewhere);
    assert!(metrics(&lab).contains("stateway_network_gone_total{device=\"right\"} 0"));
    assert_eq!(end(&mut lab.router, Signal::TERM), Some(0));
}

#[test]
fn a_port_that_is_down_is_told_of_and_goes_on_when_it_is_up() {
    if is_left_out() {
        return;
    }
    let lab = Lab::start("", STATEFUL, Refused::Nothing);
    datagrams(&lab, 10);
    ip(&format!("-n {}b link set eth0 down", lab.name));
    assert_eq!(link(&lab), "down");
    ip(&format!("-n {}b link set eth0 up", lab.name));
    assert_eq!(link(&lab), "up");
    datagrams(&lab, 100);
}
