//! Reloads under load, of files that are good, cut, empty and wrong: no frame is lost, none is judged by half of one
//! ruleset and half of another, and nothing is ever let through that both refuse.
//!
//! It takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out. `STATEWAY_RELOADS=1000` reloads more often.

use crate::run::{A, B, Lab, PATIENCE, Refused, is_left_out};
use stateway_runtime::control::Client;
use stateway_runtime::control::protocol::Command;
use stateway_runtime::uninterrupted;
use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;

const RELOADS: u32 = 60;
/// Datagrams on their way at the same time.
const WINDOW: u32 = 32;

/// What `*filter` and `:FORWARD DROP` stand before: what A sends passes if the mark of the same ruleset is on it.
fn rules(mark: u8) -> String {
    format!(
        "-A FORWARD -i left -m mark --mark {mark} -j ACCEPT
-A FORWARD -i right -m conntrack --ctstate ESTABLISHED -j ACCEPT
COMMIT
*mangle
:FORWARD ACCEPT [0:0]
-A FORWARD -i left -j MARK --set-mark {mark}"
    )
}

fn file(rules: &str) -> String {
    format!("*filter\n:FORWARD DROP [0:0]\n{rules}\nCOMMIT\n")
}

/// What stands in the file at a reload, and whether it is to be taken.
fn text(turn: u32) -> (String, bool) {
    let good = file(&rules(1 + (turn / 2 % 2) as u8));
    match turn % 8 {
        1 => (String::new(), false),
        // At each byte in turn, but for the line feed at the end.
        3 => (good[..(turn * 7) as usize % (good.len() - 1)].to_owned(), false),
        5 => (good.replace("ESTABLISHED", "ESTABLISHT"), false),
        7 => (good.replace("FORWARD", "FORWARDS"), false),
        _ => (good, true),
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "whoever asks for more reloads wants to see what passed meanwhile")]
fn no_frame_is_lost_or_let_through_while_good_cut_empty_and_wrong_files_are_loaded() {
    if is_left_out() {
        return;
    }
    let reloads = std::env::var("STATEWAY_RELOADS").map_or(RELOADS, |count| count.parse().expect("a number"));
    let lab = Lab::start("  rules6: none\n", &rules(1), Refused::Nothing);
    let (is_over, strange) = (AtomicBool::new(false), AtomicU32::new(0));
    let path = lab.folder.path().join("rules");
    std::thread::scope(|scope| {
        let (is_over, strange) = (&is_over, &strange);
        let (ready, is_ready) = channel();
        // B answers A, and knocks at A's other port on its own account.
        let answers = lab.on(scope, "b", move || {
            let (socket, stranger) =
                (UdpSocket::bind((B, 5000)).unwrap(), UdpSocket::bind((B, 5001)).unwrap());
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            ready.send(()).unwrap();
            let mut number = [0; 4];
            loop {
                let (len, from) = uninterrupted(|| socket.recv_from(&mut number)).unwrap();
                if len == 0 {
                    return stranger;
                }
                stranger.send_to(&number, (A, 4001)).unwrap();
                strange.fetch_add(1, Ordering::Relaxed);
                socket.send_to(&number, from).unwrap();
            }
        });
        is_ready.recv().unwrap();
        let (knocked, is_knocked) = channel();
        let asks = lab.on(scope, "a", move || {
            let (socket, quiet) = (UdpSocket::bind((A, 4000)).unwrap(), UdpSocket::bind((A, 4001)).unwrap());
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((B, 5000)).unwrap();
            let (mut sent, mut back) = (0_u32, 0_u32);
            while back < sent || !is_over.load(Ordering::Relaxed) {
                while sent - back < WINDOW && !is_over.load(Ordering::Relaxed) {
                    socket.send(&sent.to_be_bytes()).unwrap();
                    sent += 1;
                }
                let mut number = [0; 4];
                uninterrupted(|| socket.recv(&mut number)).unwrap();
                assert_eq!(u32::from_be_bytes(number), back, "one was lost");
                back += 1;
            }
            knocked.send(sent).unwrap();
            // The end.
            socket.send(&[]).unwrap();
            quiet
        });
        let mut refused = 0;
        for turn in 0..reloads {
            let (text, is_good) = text(turn);
            fs::write(&path, &text).unwrap();
            let answer = Client::connect(&lab.folder.path().join("control")).unwrap().call(&Command::Reload);
            assert_eq!(answer.is_ok(), is_good, "{turn}: {text}");
            refused += u32::from(!is_good);
        }
        is_over.store(true, Ordering::Relaxed);
        let passed = is_knocked.recv().unwrap_or_default();
        let (quiet, stranger) = (asks.join().unwrap(), answers.join().unwrap());
        quiet.set_nonblocking(true).unwrap();
        let heard = quiet.recv(&mut [0; 4]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::WouldBlock), "it was open for a while");
        println!(
            "{reloads} reloads, {refused} refused: {passed} datagrams there and back, {} that both refuse",
            strange.load(Ordering::Relaxed)
        );
        // Where they may, they come.
        fs::write(&path, file("-A FORWARD -j ACCEPT")).unwrap();
        Client::connect(&lab.folder.path().join("control")).unwrap().call(&Command::Reload).unwrap();
        stranger.send_to(&[7], (A, 4001)).unwrap();
        quiet.set_nonblocking(false).unwrap();
        quiet.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(uninterrupted(|| quiet.recv(&mut [0; 4])).unwrap(), 1);
    });
}
