//! Whole screens, compared with what is checked in: `UPDATE_EXPECT=1` writes them anew.

use super::*;
use crate::cli::top::app::Next;
use crate::cli::top::fetch::Query;
use crate::cli::top::snapshot::Snapshot;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::{ExpectFile, expect_file};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use stateway_runtime::control::protocol::{
    ConnectionView, EntryMatch, EntryOrder, EntryView, FlowView, Interface, LetInView, Named, RuleCount,
    Status, Summary, WindowView,
};

fn named(counts: &[(&str, u64)]) -> Vec<Named> {
    counts.iter().map(|(name, count)| Named { name: (*name).to_owned(), count: *count }).collect()
}

fn port(name: &str, link: &str, frames: u64) -> Interface {
    Interface {
        name: name.into(),
        mac: String::new(),
        mtu: 1500,
        addresses: Vec::new(),
        device: "fast".into(),
        link: link.into(),
        rx_frames: frames,
        rx_bytes: frames * 1000,
        tx_frames: frames / 2,
        tx_bytes: frames * 500,
        tx_lost: 3,
    }
}

fn flow(src: &str, sport: u16, dst: &str, dport: u16, packets: u64) -> FlowView {
    FlowView {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        sport: Some(sport),
        dport: Some(dport),
        icmp_type: None,
        icmp_code: None,
        icmp_id: None,
        packets: Some(packets),
        bytes: Some(packets * 100),
    }
}

fn entry(id: u32, state: Option<&str>, packets: u64) -> EntryView {
    let (name, protocol) = if state.is_some() { ("tcp", 6) } else { ("udp", 17) };
    EntryView {
        id,
        family: 4,
        protocol,
        name: name.into(),
        timeout: Some(431_999),
        state: state.map(str::to_owned),
        original: flow("192.0.2.104", 40_000 + id as u16, "198.51.100.77", 22, packets),
        reply: flow("198.51.100.77", 22, "203.0.113.1", 50_000 + id as u16, packets),
        status: vec!["SEEN_REPLY".into(), "ASSURED".into()],
        mark: 0,
        zone: 0,
        helper: None,
        uses: 1,
        vtags: None,
        line: String::new(),
    }
}

fn rule(name: &str, text: &str, packets: u64) -> RuleCount {
    RuleCount { family: 4, name: name.into(), text: text.into(), packets, bytes: packets * 84 }
}

/// A router that has forwarded so many frames, at one a millisecond.
fn snapshot(frames: u64) -> Snapshot {
    let ports = ["host77", "host104", "dmz", "guest", "lab", "printer"];
    let window = WindowView {
        end: 1000,
        max_end: 65_000,
        max_win: 64_240,
        max_ack: Some(900),
        wscale: Some(7),
        is_liberal: false,
    };
    Snapshot {
        status: Some(Status {
            version: "1".into(),
            pid: 17,
            uptime_seconds: frames as f64 / 1000.0,
            file: Some("lab.yaml".into()),
            mode: "bridge".into(),
            burst: "poll".into(),
            gone: vec!["guest".into()],
            confined: Vec::new(),
            kept: Vec::new(),
        }),
        interfaces: ports
            .iter()
            .map(|name| port(name, if *name == "guest" { "gone" } else { "up" }, frames))
            .collect(),
        drops: named(&[("rule", 0), ("policy", frames), ("ttl", 7), ("too-big", 2), ("no-route", 4)]),
        invalid: named(&[("tcp-rst", 12), ("checksum", 0), ("tcp-above-window", frames / 10)]),
        stats: named(&[("insert", frames / 2)]),
        rules: vec![
            rule("filter/FORWARD/1", "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT", frames),
            rule("filter/FORWARD/2", "-A FORWARD -p tcp -m tcp --dport 25 -j REJECT", 40),
            rule("filter/FORWARD/policy", "DROP", frames * 2),
        ],
        summary: Summary {
            count: 60,
            limit: 100,
            by_state: named(&[("tcp ESTABLISHED", 52), ("tcp TIME_WAIT", 7), ("udp", 1)]),
            newest: (1..=60)
                .map(|id| entry(id, (id % 4 > 0).then_some("ESTABLISHED"), frames / 100))
                .collect(),
            matching: 60,
            snat: 60,
            dnat: 0,
            shown: Some(Box::new(ConnectionView {
                entry: entry(2, Some("ESTABLISHED"), frames / 100),
                age: 62.0,
                timeout: 431_999.5,
                windows: vec![window.clone(), WindowView { max_ack: None, wscale: None, ..window }],
                master: None,
                let_in: LetInView::Rule {
                    name: "filter/FORWARD/3".to_owned(),
                    text: "-A FORWARD -i lan -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT"
                        .to_owned(),
                },
            })),
        },
    }
}

/// Three looks, so that there are rates and some history.
fn app() -> App {
    let mut app = App::new(false);
    for frames in [1000, 3000, 7000] {
        app.look(snapshot(frames));
    }
    app
}

fn press(app: &mut App, keys: &str) -> Vec<Next> {
    keys.chars().map(|key| hit(app, KeyCode::Char(key))).collect()
}

fn hit(app: &mut App, key: KeyCode) -> Next {
    app.key(KeyEvent::new(key, KeyModifiers::NONE))
}

fn seen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let line =
        |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..height).map(line).collect()
}

/// The same at both sizes.
fn check(app: &App, small: ExpectFile, large: ExpectFile) {
    small.assert_eq(&seen(app, 80, 24));
    large.assert_eq(&seen(app, 200, 60));
}

#[test]
fn the_overview_shows_every_list_and_says_what_it_leaves_out() {
    check(
        &app(),
        expect_file!["../screens/overview-80x24.txt"],
        expect_file!["../screens/overview-200x60.txt"],
    );
}

#[test]
fn the_other_pages_have_more_room_for_connections_and_rules() {
    let mut app = app();
    assert_eq!(press(&mut app, "2jj"), [Next::Nothing; 3]);
    check(
        &app,
        expect_file!["../screens/connections-80x24.txt"],
        expect_file!["../screens/connections-200x60.txt"],
    );
    hit(&mut app, KeyCode::Tab);
    press(&mut app, "r");
    check(&app, expect_file!["../screens/rules-80x24.txt"], expect_file!["../screens/rules-200x60.txt"]);
    hit(&mut app, KeyCode::Tab);
    assert_eq!(app.page, Page::Overview);
}

#[test]
fn one_connection_is_shown_in_full() {
    let mut app = app();
    press(&mut app, "j");
    assert_eq!(hit(&mut app, KeyCode::Enter), Next::Ask);
    assert_eq!(app.query().show, Some(2));
    check(
        &app,
        expect_file!["../screens/connection-80x24.txt"],
        expect_file!["../screens/connection-200x60.txt"],
    );
    assert_eq!(hit(&mut app, KeyCode::Esc), Next::Ask, "it is no more asked for");
    assert_eq!((app.query().show, hit(&mut app, KeyCode::Esc)), (None, Next::Quit));
}

#[test]
fn the_keys_are_on_a_page_of_their_own() {
    let mut app = app();
    press(&mut app, "?");
    check(&app, expect_file!["../screens/keys-80x24.txt"], expect_file!["../screens/keys-200x60.txt"]);
    assert_eq!(hit(&mut app, KeyCode::Esc), Next::Nothing);
    assert!(!app.shows_help);
}

#[test]
fn sorting_and_filtering_ask_the_router() {
    let mut app = app();
    assert_eq!(press(&mut app, "ss"), [Next::Ask; 2]);
    assert_eq!(app.query().order, EntryOrder::Bytes);
    press(&mut app, "S/udp :5");
    assert_eq!(hit(&mut app, KeyCode::Backspace), Next::Nothing);
    press(&mut app, "53q");
    assert_eq!(hit(&mut app, KeyCode::Enter), Next::Nothing, "`q` is typed, and `:53q` is nothing");
    let text = seen(&app, 100, 24);
    assert!(text.contains("/udp :53q▏   `:53q` is no address, port, protocol or state"), "{text}");
    hit(&mut app, KeyCode::Backspace);
    assert_eq!(hit(&mut app, KeyCode::Enter), Next::Ask);
    let matching = EntryMatch { protocol: Some(17), port: Some(53), ..EntryMatch::default() };
    assert_eq!(
        app.query(),
        Query { entries: app.query().entries, order: EntryOrder::Oldest, matching, show: None }
    );
    assert!(seen(&app, 100, 24).contains("Connections with `udp :53`, by oldest"));
    press(&mut app, "/x");
    hit(&mut app, KeyCode::Esc);
    assert_eq!((app.filter.as_str(), &app.typing), ("udp :53", &None), "Esc leaves it as it was");
}

#[test]
fn a_pause_keeps_what_is_shown_and_goes_on_with_what_is() {
    let mut app = app();
    press(&mut app, "p");
    app.look(snapshot(90_000));
    let text = seen(&app, 80, 24);
    assert!(text.contains("paused; p goes on") && text.contains("up 00:00:07"), "{text}");
    press(&mut app, " ");
    app.look(snapshot(91_000));
    assert!(seen(&app, 80, 24).contains("up 00:01:31"));
}

#[test]
fn the_end_of_the_router_is_told_and_what_it_said_last_stays() {
    let mut app = app();
    app.gone("the router went away".into());
    let text = seen(&app, 80, 24);
    assert!(
        text.contains("the router has ended; what is shown is the last that it said (the")
            && text.contains("host104"),
        "{text}"
    );
    assert!(text.contains(" 0 packets/s"), "{text}");
    app.look(snapshot(2000));
    assert!(!seen(&app, 80, 24).contains("has ended"), "it is back");
    app.is_silent = true;
    assert!(seen(&app, 80, 24).contains("the router does not answer"));
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Quit);
}

#[test]
fn a_choice_stays_within_the_list_and_small_screens_are_no_failure() {
    let mut app = app();
    hit(&mut app, KeyCode::End);
    assert_eq!(app.selected, 59);
    assert!(seen(&app, 80, 24).contains("192.0.2.104:40060"), "it scrolls there");
    let mut fewer = snapshot(8000);
    fewer.summary.newest.truncate(2);
    app.look(fewer);
    assert_eq!(app.selected, 1);
    for (width, height) in [(1, 1), (39, 10), (40, 9), (40, 10), (60, 15), (120, 37), (300, 100)] {
        for keys in ["1", "2", "3", "?", "?"] {
            press(&mut app, keys);
            seen(&app, width, height);
        }
    }
    assert!(seen(&app, 39, 12).contains("a terminal of 40x10 at least"));
    seen(&App::new(true), 80, 24);
}
