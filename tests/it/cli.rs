//! Help, error messages and `explain`, as a user meets them.

#![allow(clippy::needless_raw_string_hashes, reason = "`UPDATE_EXPECT` writes them")]

use expect_test::{Expect, expect};
use std::process::Command;

const RULES: &str = "*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 9 -j CT --notrack
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i host104 -o host77 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset
COMMIT
";

/// Runs `stateway` where there is a file `rules`; says its exit code and what it printed.
fn stateway(args: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules"), RULES).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .args(args.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn says(args: &str, expected: Expect) {
    let (code, out, err) = stateway(args);
    assert_eq!(code, 0, "{err}");
    expected.assert_eq(&out);
}

fn fails(args: &str, expected: Expect) {
    let (code, out, err) = stateway(args);
    assert_eq!((code, out.as_str()), (2, ""));
    expected.assert_eq(&err);
}

#[test]
fn a_stranger_is_told_which_match_said_no() {
    says(
        "explain --rules rules --in host77 --tcp 192.0.2.77:40000,192.0.2.104:22 --flags S",
        expect![[r#"
        packet: tcp S 192.0.2.77:40000 → 192.0.2.104:22, in on host77
        raw PREROUTING
          raw:PREROUTING:rule:1  -p udp -m udp --dport 9 -j CT --notrack  ← no: -p udp
          TRACE: raw:PREROUTING:policy  verdict ACCEPT
        conntrack: NEW original: no answer has been seen yet
        filter FORWARD
          filter:FORWARD:rule:1  -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT  ← no: -m conntrack --ctstate RELATED,ESTABLISHED
          filter:FORWARD:rule:2  -i host104 -o host77 -m conntrack --ctstate NEW -j ACCEPT  ← no: -i host104
          filter:FORWARD:rule:3  -p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset  ← no: -m tcp --dport 23
          TRACE: filter:FORWARD:policy  verdict DROP
        fate: dropped by policy (policy: no rule decided, and the policy of the chain stopped it)
    "#]],
    );
}

#[test]
fn who_may_open_enters_the_table() {
    says(
        "explain --rules rules --in host104 --tcp 192.0.2.104:40000,192.0.2.77:22",
        expect![[r#"
        packet: tcp S 192.0.2.104:40000 → 192.0.2.77:22, in on host104
        raw PREROUTING
          raw:PREROUTING:rule:1  -p udp -m udp --dport 9 -j CT --notrack  ← no: -p udp
          TRACE: raw:PREROUTING:policy  verdict ACCEPT
        conntrack: NEW original: no answer has been seen yet
        filter FORWARD
          filter:FORWARD:rule:1  -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT  ← no: -m conntrack --ctstate RELATED,ESTABLISHED
          TRACE: filter:FORWARD:rule:2  -i host104 -o host77 -m conntrack --ctstate NEW -j ACCEPT  ← matches
        conntrack: confirmed, the new connection is in the table
        sent on host77
        fate: forwarded → host77 by filter/FORWARD/2
        connection: ipv4     2 tcp      6 120 SYN_SENT src=192.0.2.104 dst=192.0.2.77 sport=40000 dport=22 [UNREPLIED] src=192.0.2.77 dst=192.0.2.104 sport=22 dport=40000 mark=0 use=1
    "#]],
    );
}

#[test]
fn a_refusal_and_what_tells_of_it() {
    says(
        "explain --rules rules --in host77 --tcp 192.0.2.77:40000,192.0.2.104:23",
        expect![[r#"
        packet: tcp S 192.0.2.77:40000 → 192.0.2.104:23, in on host77
        raw PREROUTING
          raw:PREROUTING:rule:1  -p udp -m udp --dport 9 -j CT --notrack  ← no: -p udp
          TRACE: raw:PREROUTING:policy  verdict ACCEPT
        conntrack: NEW original: no answer has been seen yet
        filter FORWARD
          filter:FORWARD:rule:1  -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT  ← no: -m conntrack --ctstate RELATED,ESTABLISHED
          filter:FORWARD:rule:2  -i host104 -o host77 -m conntrack --ctstate NEW -j ACCEPT  ← no: -i host104
          TRACE: filter:FORWARD:rule:3  -p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset  ← matches
        fate: rejected by filter/FORWARD/3 (rule: a rule stopped it)
        sends to host77: tcp R. 192.0.2.104:23 → 192.0.2.77:40000
    "#]],
    );
}

#[test]
fn an_invalid_packet_has_its_reason() {
    says(
        "explain --rules rules --in host77 --tcp 192.0.2.77:40000,192.0.2.104:22 --flags FPU --format json",
        expect![[r#"
            {
              "packet": "tcp FPU 192.0.2.77:40000 → 192.0.2.104:22",
              "in": "host77",
              "steps": [
                {
                  "step": "hook",
                  "table": "raw",
                  "chain": "PREROUTING"
                },
                {
                  "step": "rule",
                  "rule": "raw/PREROUTING/1",
                  "text": "-p udp -m udp --dport 9 -j CT --notrack",
                  "matched": false,
                  "failed": "-p udp"
                },
                {
                  "step": "policy",
                  "rule": "raw/PREROUTING/policy",
                  "policy": "ACCEPT"
                },
                {
                  "step": "conntrack",
                  "ctstate": "INVALID",
                  "reason": "tcp-flags",
                  "why": "no stack sends such a combination of flags"
                },
                {
                  "step": "hook",
                  "table": "filter",
                  "chain": "FORWARD"
                },
                {
                  "step": "rule",
                  "rule": "filter/FORWARD/1",
                  "text": "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                  "matched": false,
                  "failed": "-m conntrack --ctstate RELATED,ESTABLISHED"
                },
                {
                  "step": "rule",
                  "rule": "filter/FORWARD/2",
                  "text": "-i host104 -o host77 -m conntrack --ctstate NEW -j ACCEPT",
                  "matched": false,
                  "failed": "-i host104"
                },
                {
                  "step": "rule",
                  "rule": "filter/FORWARD/3",
                  "text": "-p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset",
                  "matched": false,
                  "failed": "-m tcp --dport 23"
                },
                {
                  "step": "policy",
                  "rule": "filter/FORWARD/policy",
                  "policy": "DROP"
                }
              ],
              "fate": "dropped",
              "rule": "policy",
              "reason": "tcp-flags",
              "why": "no stack sends such a combination of flags"
            }
        "#]],
    );
}

#[test]
fn what_is_not_tracked() {
    says(
        "explain --rules rules --in host104 --udp 192.0.2.104:1000,192.0.2.77:9",
        expect![[r#"
        packet: udp 192.0.2.104:1000 → 192.0.2.77:9, in on host104
        raw PREROUTING
          TRACE: raw:PREROUTING:rule:1  -p udp -m udp --dport 9 -j CT --notrack  ← matches
          TRACE: raw:PREROUTING:policy  verdict ACCEPT
        conntrack: UNTRACKED: the raw table, or the protocol, exempts it from tracking
        filter FORWARD
          filter:FORWARD:rule:1  -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT  ← no: -m conntrack --ctstate RELATED,ESTABLISHED
          filter:FORWARD:rule:2  -i host104 -o host77 -m conntrack --ctstate NEW -j ACCEPT  ← no: -m conntrack --ctstate NEW
          filter:FORWARD:rule:3  -p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset  ← no: -p tcp
          TRACE: filter:FORWARD:policy  verdict DROP
        fate: dropped by policy (policy: no rule decided, and the policy of the chain stopped it)
    "#]],
    );
}

#[test]
fn mistakes_are_answered_with_what_would_be_right() {
    fails(
        "explain --in lan",
        expect![[r#"
            error: the following required arguments were not provided:
              <--tcp <FLOW>|--udp <FLOW>|--icmp <FLOW>|--hex <HEX>|--frame <N>>

            Usage: stateway explain --in <PORT> <--tcp <FLOW>|--udp <FLOW>|--icmp <FLOW>|--hex <HEX>|--frame <N>>

            For more information, try '--help'.
        "#]],
    );
    fails(
        "explain --in lan --tcp 192.0.2.77,192.0.2.104",
        expect![[r#"
        error: invalid value '192.0.2.77,192.0.2.104' for '--tcp <FLOW>': `192.0.2.77,192.0.2.104` is no flow such as 192.0.2.10:40000,198.51.100.10:22

        For more information, try '--help'.
    "#]],
    );
    fails(
        "explain --in lan --hex 4500z",
        expect![[r#"
            error: `z` is no hex digit
        "#]],
    );
    fails(
        "explain --in wan --ports lan,dmz --tcp 192.0.2.1:1,192.0.2.2:2 --flags X",
        expect![[r#"
            error: `X` does not name TCP flags: letters of FSRP.UEW, or `none`
        "#]],
    );
    fails(
        "replay nothing.pcapng",
        expect![[r#"
            error: cannot read the capture `nothing.pcapng`: No such file or directory (os error 2)
        "#]],
    );
    fails(
        "replay rules",
        expect![[r#"
            error: rules: byte 0: neither a pcapng nor a pcap file
        "#]],
    );
    fails(
        "replay",
        expect![[r#"
            error: the following required arguments were not provided:
              <TRACE>

            Usage: stateway replay <TRACE>

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn what_nobody_reads_is_no_reason_to_stop() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .args(["replay", "nothing.pcapng"])
        .stderr(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn help_says_what_the_options_are_for() {
    says(
        "replay --help",
        expect![[r#"
            Take a capture through a ruleset, in virtual time

            Usage: stateway replay [OPTIONS] [TRACE]

            Arguments:
              [TRACE]  A capture, or `-` for standard input

            Options:
                  --capture <PORT=FILE>...   Captures of one port each, merged by their timestamps
                  --port <[INTERFACE=]NAME>  What an interface of the capture is called: `NAME` (its only one),
                                             `0=NAME` (by number), `eth0=NAME` (by its name),
                                             `192.0.2.0/24=NAME` (frames from there), `in=NAME` and `out=NAME`
                                             (by direction); may be repeated
                  --as-it-stands             Judge every frame as if it had come in as it stands: copies of what
                                             went out and unfinished checksums too
                  --rules <FILE>             iptables-save text with the rules for IPv4; none: every policy is
                                             ACCEPT
                  --rules6 <FILE>            ip6tables-save text with the rules for IPv6; none: IPv6 is dropped
                  --sets <FILE>              A file of `ipset save`, whose sets the rules may name; may be
                                             repeated
                  --lab <LAB>                Take the router from a lab; other options override what it says
                  --sysctl <NAME=VALUE>      A setting under the kernel's own name, such as
                                             `nf_conntrack_tcp_loose=0`; may be repeated
                  --helper <NAME>            Assign a helper on its usual port: `ftp`, `tftp`; may be repeated
                  --format <FORMAT>          How to print: a line for each frame, or a JSON object for each
                                             [default: text] [possible values: text, json]
                  --summary                  Print totals instead of a line for each frame
                  --bytes                    Tell the bytes of every frame that leaves, not only of those that
                                             the router wrote or changed
                  --conntrack                Print connections and expectations at the end
                  --annotate <OUT.pcapng>    Write the capture back with verdicts as packet comments
                  --nflog <OUT.pcapng>       Write the packets that NFLOG speaks of to a capture, group and
                                             prefix as comments
                  --until <N>                Stop after this frame
              -h, --help                     Print help
              -V, --version                  Print version

            Examples:
              stateway replay capture.pcapng --rules rules.v4
                  what becomes of each frame
              stateway replay capture.pcapng --lab article --format json
                  with a lab's router, an object a frame

            Exit codes:
              0  all is well
              1  a test failed, or a difference was found
              2  the input is wrong
              3  this machine cannot do it, and why
        "#]],
    );
    says(
        "explain -h",
        expect![[r#"
            Show one packet's whole way through the router, and why it met its fate

            Usage: stateway explain [OPTIONS] <--tcp <FLOW>|--udp <FLOW>|--icmp <FLOW>|--hex <HEX>|--frame <N>>

            Options:
                  --rules <FILE>             iptables-save text with the rules for IPv4; none: every policy is
                                             ACCEPT
                  --rules6 <FILE>            ip6tables-save text with the rules for IPv6; none: IPv6 is dropped
                  --sets <FILE>              A file of `ipset save`, whose sets the rules may name; may be
                                             repeated
                  --lab <LAB>                Take the router from a lab; other options override what it says
                  --sysctl <NAME=VALUE>      A setting under the kernel's own name, such as
                                             `nf_conntrack_tcp_loose=0`; may be repeated
                  --helper <NAME>            Assign a helper on its usual port: `ftp`, `tftp`; may be repeated
                  --in <PORT>                The port where the packet comes in
                  --ports <PORT>             The router's ports, where no lab and no capture names them; by
                                             default those of the rules
                  --tcp <FLOW>               A TCP segment: `SRC:PORT,DST:PORT`, IPv6 addresses in brackets; or
                                             a line of tcpdump, in quotes
                  --udp <FLOW>               A UDP datagram: `SRC:PORT,DST:PORT`
                  --icmp <FLOW>              An ICMP echo request, or what `--line` says: `SRC,DST`
                  --hex <HEX>                An IP packet, or a whole Ethernet frame, in hex: as it is, or as
                                             tcpdump -x, -xx and -X, xxd and Wireshark print it
                  --frame <N>                The Nth frame of the capture
                  --flags <FLAGS>            TCP flags: letters of `FSRP.UEW`, or `none`; by default `S`, of a
                                             connection that is open `.`
                  --seq <SEQ>                TCP sequence number; by default 0, of a connection that is open the
                                             next one
                  --ack <ACK>                TCP acknowledgement, likewise
                  --win <WIN>                TCP window [default: 65535]
                  --len <LEN>                Bytes of payload [default: 0]
                  --line <LINE>              The packet as in packetdrill, between the ends of the flow: `P.
                                             1:101(100) ack 1`, `icmp echo_reply id 7`
                  --capture <TRACE.pcapng>   What the router sees before the packet; with `--frame`, up to that
                                             frame [alias: --after]
                  --port <[INTERFACE=]NAME>  What an interface of the capture is called: `NAME` (its only one),
                                             `0=NAME` (by number), `eth0=NAME` (by its name),
                                             `192.0.2.0/24=NAME` (frames from there), `in=NAME` and `out=NAME`
                                             (by direction); may be repeated
                  --as-it-stands             Judge every frame as if it had come in as it stands: copies of what
                                             went out and unfinished checksums too
                  --wait <SECONDS>           Seconds between the capture's last frame and the packet [default:
                                             0]
                  --control <SOCKET>         Ask the router that listens at this control socket: the packet is
                                             judged by a copy of what it knows now
                  --fresh                    Judge by the lab's file, though the lab is up
                  --why-not                  If it does not pass: the nearest packet that would, and the nearest
                                             change of the rules with which this one would; each is tried
                  --format <FORMAT>          For people, or one JSON object [default: text] [possible values:
                                             text, json]
              -h, --help                     Print help
              -V, --version                  Print version

            Examples:
              stateway explain --lab article --in host77 --tcp 192.0.2.77:22,192.0.2.104:22
                  what the rules of that lab say of it; of a lab that is up, its router as it is now
              stateway explain --rules rules.v4 --in eth0 --udp 192.0.2.1:5000,192.0.2.2:53
                  of a ruleset alone
              stateway explain --control edge.sock --in lan --icmp 192.0.2.1,192.0.2.2 --format json
                  of a router that runs alone, for programs

            Exit codes:
              0  all is well
              1  a test failed, or a difference was found
              2  the input is wrong
              3  this machine cannot do it, and why
        "#]],
    );
}

#[test]
fn rules_that_are_no_text_are_findings_as_well() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("latin1"),
        b"*filter\n-A FORWARD -m comment --comment caf\xe9\nCOMMIT\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .current_dir(folder.path())
        .args(["rules", "check", "--format", "json", "latin1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let finding = &found["findings"][0];
    assert_eq!((&finding["line"], &finding["column"]), (&2.into(), &36.into()), "{finding}");
    assert_eq!(finding["message"], "byte 0xe9 is no text in UTF-8");
}

/// A folder with the files `rules`, and `other`, which differs from it.
#[cfg(target_os = "linux")]
fn two_rulesets() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules"), RULES).unwrap();
    std::fs::write(folder.path().join("other"), RULES.replace("--dport 23", "--dport 24")).unwrap();
    folder
}

/// Prints with this as standard output; says its exit code and what it printed on standard error.
#[cfg(target_os = "linux")]
fn onto(stdout: impl Into<std::process::Stdio>, args: &str) -> (i32, String) {
    let folder = two_rulesets();
    let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
        .current_dir(folder.path())
        .args(args.replace("ROOT", env!("CARGO_MANIFEST_DIR")).split_whitespace())
        .stdout(stdout)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// As [`onto`], with a shell's `words` behind the command.
#[cfg(target_os = "linux")]
fn in_a_shell(args: &str, words: &str) -> (i32, String) {
    let folder = two_rulesets();
    let program = format!("\"$0\" {} {words}", args.replace("ROOT", env!("CARGO_MANIFEST_DIR")));
    let output = Command::new("bash")
        .args(["-c", &program, env!("CARGO_BIN_EXE_stateway")])
        .current_dir(folder.path())
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Commands that print, one of each kind.
#[cfg(target_os = "linux")]
const PRINTING: [&str; 10] = [
    "--help",
    "--version",
    "rules --help",
    "completions bash",
    "rules show rules",
    "rules check rules",
    "lab schema",
    "lab graph ROOT/topologies/article",
    "lab test ROOT/topologies/article --on sim",
    "explain --rules rules --in host77 --icmp 192.0.2.77,192.0.2.104",
];

#[cfg(target_os = "linux")]
#[test]
fn a_text_that_is_all_wrong_is_soon_refused_in_few_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.flow");
    let flow = path.to_str().unwrap();
    std::fs::write(&path, "y\n".repeat(100_000)).unwrap();
    let (code, _, err) = stateway(&format!("replay {flow}"));
    assert_eq!((code, err.lines().count()), (2, 1001), "{err}");
    std::fs::write(&path, "y".repeat(100_000)).unwrap();
    for command in ["replay", "lab test --on sim", "conntrack -R"] {
        let (code, _, err) = stateway(&format!("{command} {flow}"));
        assert!(code == 2 && (20..2000).contains(&err.len()), "{command}: {code}: {err}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_state_file_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("router.yaml");
    std::fs::write(&path, "mode: bridge\nports: { left: {}, right: {} }\nrules: none\nrules6: none\n")
        .unwrap();
    for state in ["/dev/null", "/"] {
        let (code, _, err) = stateway(&format!("run {} --state {state}", path.display()));
        assert_eq!(code, 2, "{err}");
        let expected = format!("error: cannot keep the state in `{state}`: it is no regular file\n");
        assert!(err.starts_with(&expected), "{err}");
        assert!(!std::path::Path::new("/dev/null.bad").exists());
    }
}

#[test]
fn what_cannot_be_written_is_an_error() {
    for args in PRINTING {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, errors) = onto(full, args);
        assert_eq!(code, 3, "{args}: {errors}");
        assert!(errors.contains("error: cannot write"), "{args}: {errors}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_cannot_move_gets_lines_alone() {
    let folder = two_rulesets();
    let story = "# 104 opens.\nmode bridge\nports host104 host77\nflow f left 192.0.2.104:40000 right 192.0.2.77:22 tcp\n0 left S 100\n";
    std::fs::write(folder.path().join("story.flow"), story).unwrap();
    for (term, moves) in [("xterm", true), ("dumb", false), ("", false)] {
        let program = format!("{} rules mutate rules --replay story.flow", env!("CARGO_BIN_EXE_stateway"));
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &program, "/dev/null"])
            .current_dir(folder.path())
            .env("TERM", term)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("changes were noticed"), "{said}");
        assert_eq!(said.contains('\u{1b}'), moves, "TERM={term}: {said:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_goes_to_a_closed_output_is_an_error() {
    for args in PRINTING {
        let (code, errors) = in_a_shell(args, ">&-");
        assert_eq!(code, 3, "{args}: {errors}");
        assert_eq!(errors.lines().last(), Some("error: cannot write: standard output is closed"), "{args}");
        // Who does not want to see it says so.
        let (code, errors) = in_a_shell(args, ">/dev/null");
        assert_eq!(code, 0, "{args}: {errors}");
        let (code, errors) = in_a_shell(args, "1<>/dev/null");
        assert_eq!(code, 0, "{args}: {errors}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_has_gone_takes_no_finding_with_him() {
    for (args, code) in [("rules diff rules other", 1), ("rules diff rules rules", 0)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(onto(writer, args), (code, String::new()), "{args}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_has_gone_is_no_error() {
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(onto(writer, args), (0, String::new()), "{args}");
    }
}

/// What `explain` says of a frame of a scenario in this repository.
fn explained(scenario: &str, frame: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(scenario);
    let (code, out, err) = stateway(&format!("explain --capture {} --frame {frame}", path.display()));
    assert_eq!(code, 0, "{err}");
    out
}

#[test]
fn what_is_let_pass_without_being_believed_says_so() {
    let beyond = "conntrack: let pass without being believed, so that nothing known changes: 951 bytes more than expected";
    assert!(explained("tcp/overshoot.flow", "8").contains(beyond));
    assert!(!explained("tcp/overshoot.flow", "4").contains("believed"));
}

#[test]
fn a_helper_says_why_it_announces_nothing() {
    let told = explained("ftp/lines/pasv-foreign.flow", "7");
    assert!(told.contains("helper ftp announces nothing: the announcement names an address"), "{told}");
    let told = explained("ftp/lines/pasv-foreign.flow", "5");
    assert!(told.contains("helper ftp announces nothing: the packet holds no announcement"), "{told}");
}

#[test]
fn packets_are_taken_as_tcpdump_prints_them() {
    let dump = "0x0000: 4500 001c 0001 0000 4011 f61a c000 024d 0x0010: c000 0268 9c40 0035 0008 0000";
    let args: Vec<&str> = vec!["explain", "--rules", "rules", "--in", "host104", "--hex", dump];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules"), RULES).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stateway"))
            .current_dir(folder.path())
            .args(args)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, out) = run(&args);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("packet: udp 192.0.2.77:40000 → 192.0.2.104:53, in on host104"), "{out}");
    let flow = "IP 192.0.2.104.40000 > 192.0.2.77.ssh: Flags [S], seq 1, length 0";
    let (code, out) = run(&["explain", "--rules", "rules", "--in", "host104", "--tcp", flow]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("packet: tcp S 192.0.2.104:40000 → 192.0.2.77:22, in on host104"), "{out}");
}

#[test]
fn a_mistyped_port_is_refused_with_the_near_one() {
    let flow = "--tcp 192.0.2.104:40000,192.0.2.77:22";
    let (code, _, err) = stateway(&format!("explain --rules rules --in hsot104 {flow}"));
    assert_eq!(code, 2);
    assert!(err.contains("did you mean `host104`?"), "{err}");
    assert_eq!(stateway(&format!("explain --rules rules --in wan {flow}")).0, 0, "a port of its own");
    assert_eq!(stateway(&format!("explain --rules rules --in wan --ports lan --ports dmz {flow}")).0, 2);
}
