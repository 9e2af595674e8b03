//! A broken lab file is answered with everything that is wrong with it, each with its place.

use expect_test::{Expect, expect};
use stateway_lab::resolve::load_text;
use std::path::Path;

fn check(text: &str, answer: Expect) {
    match load_text(text, Path::new("lab.yaml")) {
        Ok(_) => answer.assert_eq("ok"),
        Err(errors) => answer.assert_eq(&errors.to_string()),
    }
}

const GOOD: &str = "\
name: article
router:
  ports: { host104: {}, host77: {} }
  rules: |
    *filter
    :FORWARD DROP [0:0]
    -A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT
    COMMIT
hosts:
  host104: { port: host104, address: 192.0.2.104/24, services: [ssh] }
  host77: { port: host77, address: 192.0.2.77/24 }
tests:
  - name: ssh
    ssh: { from: host104, to: host77, run: hostname }
    expect: { result: ok, stdout: host77 }
";

#[test]
fn a_good_lab_is_taken() {
    check(GOOD, expect!["ok"]);
}

#[test]
fn every_mistake_is_reported_at_once() {
    check(
        "\
name: broken
router:
  mode: brigde
  ports: { host104: {}, host77: {}, host9: {} }
  rule: x
hosts:
  host104: { port: host104, address: 192.0.2.104/24, services: [shh] }
  host77: { port: host77, address: 192.0.2.104/24 }
tests:
  - name: one
    ssh: { from: host104, to: hots77 }
  - name: two
    tcp: { from: host104, to: host77, port: 70000 }
  - name: three
    ping: { from: host77, to: nowhere }
    expect: { result: okay }
",
        expect![[r"
            lab.yaml has 9 problems
              3:3: router.mode: `brigde` is not known here
                hint: did you mean `bridge`?
              4:37: router.ports.host9: no host is behind port `host9`
                hint: give a host `port: host9`, or take the port away
              5:3: router.rule: unknown key `rule`
                hint: did you mean `rules`?
              7:65: hosts.host104.services[0]: `shh` is not known here
                hint: did you mean `ssh`?
              8:27: hosts.host77.address: host `host104` has the address 192.0.2.104 already
              11:27: tests[0].ssh.to: no host named `hots77`
                hint: did you mean `host77`?
              13:39: tests[1].tcp.port: 70000 must be between 1 and 65535
              15:27: tests[2].ping.to: no host named `nowhere`
                hint: hosts: `host104`, `host77`
              16:15: tests[2].expect.result: `okay` is not known here
                hint: did you mean `ok`?"]],
    );
}

#[test]
fn what_depends_on_a_mistake_is_not_reported_again() {
    check(
        "\
name: broken
router:
  mode: route
  ports: { a: { address: 192.0.2.1/24 }, b: { adress: 198.51.100.1/24 } }
hosts:
  x: { port: a, adress: 192.0.2.2/24 }
  y: { port: b, address: 198.51.100.2/24 }
tests:
  - ping: { from: x, to: y }
",
        expect![[r"
            lab.yaml has 4 problems
              4:42: router.ports.b.address: port `b` needs an address in route mode
                hint: such as { address: 192.0.2.1/24 }; in bridge mode ports have none
              4:47: router.ports.b.adress: unknown key `adress`
                hint: did you mean `address`?
              6:3: hosts.x: `address` is missing
              6:17: hosts.x.adress: unknown key `adress`
                hint: did you mean `address`?"]],
    );
}

#[test]
fn route_mode_is_checked_against_its_networks() {
    check(
        "\
name: routes
router:
  mode: route
  ports:
    a: { address: [192.0.2.1/24, 2001:db8:1::1/64] }
    b: { address: [198.51.100.1/24, 192.0.2.1/24] }
  routes:
    - { to: 203.0.113.0/24, via: 203.0.113.1 }
    - { to: 203.0.113.0/33, via: 192.0.2.254 }
    - { to: default, via: 198.51.100.254 }
    - { to: default, via: 198.51.100.253, port: c }
  neighbours:
    - { address: 198.51.100.254, mac: \"02:00:00:00:02\", port: b }
hosts:
  x: { port: a, address: 198.51.100.7/24, gateway: 192.0.2.1 }
  y: { port: b, address: 198.51.100.8 }
",
        expect![[r#"
            lab.yaml has 8 problems
              6:10: router.ports.b.address: port `a` has the address 192.0.2.1 already
              8:29: router.routes[0].via: no port reaches 203.0.113.1
                hint: the next hop must be in the network of a port
              9:9: router.routes[1].to: `203.0.113.0/33` has a length above 32
                hint: such as 203.0.113.0/24, or `default`
              11:43: router.routes[3].port: no port named `c`
                hint: ports: `a`, `b`
              13:34: router.neighbours[0].mac: `02:00:00:00:02` is not a link address
                hint: such as "02:00:00:00:00:01"
              15:17: hosts.x.address: 198.51.100.7 is not in a network of its port
                hint: port `a` has 192.0.2.0/24, 2001:db8:1::/64
              15:43: hosts.x.gateway: 192.0.2.1 is not in a network of the host
              16:17: hosts.y.address: `198.51.100.8` lacks the length of its network
                hint: such as 192.0.2.77/24"#]],
    );
}

#[test]
fn what_is_no_yaml_says_where() {
    check(
        "name: x\nrouter: [\n",
        expect![[r"
        lab.yaml has 1 problem
          3:1: not YAML: did not find expected node content at line 3 column 1, while parsing a flow node"]],
    );
    check(
        "- 1\n",
        expect![[r"
            lab.yaml has 1 problem
              1:1: expected a mapping, found a list
                hint: known keys: `name`, `description`, `router`, `hosts`, `tests`"]],
    );
}

#[test]
fn the_usual_slips_in_yaml_are_met_with_what_would_be_right() {
    let told = [
        "",
        "name: x\nrouter:\n\tports: {}\n",
        "name: x\nname: y\n",
        "name: x\ndescription: what: now\n",
        "name: x\ndescription: *bold*\n",
        "name: x\n---\nname: y\n",
        "name: x\nrouter:\n  ? [a]\n  : 1\n",
        "name: x\ndescription: a\0b\n",
        "name: x\nrouter: { ports: [a, b] }\ntests: { t: 1 }\n",
        "name: x\nrouter: { ports: { a: &a {}, b: { <<: *a } } }\n",
    ]
    .map(|text| load_text(text, Path::new("lab.yaml")).unwrap_err().to_string());
    expect![[r#"
        lab.yaml has 1 problem
          1:1: expected a mapping, found nothing
            hint: known keys: `name`, `description`, `router`, `hosts`, `tests`
        lab.yaml has 1 problem
          3:1: not YAML: found character that cannot start any token at line 3 column 1, while scanning for the next token
            hint: YAML is indented with blanks, never with tabs
        lab.yaml has 1 problem
          1:1: not YAML: duplicate entry with key "name"
            hint: a key stands once only: put what belongs to it together
        lab.yaml has 1 problem
          2:18: not YAML: mapping values are not allowed in this context at line 2 column 18
            hint: text with `: ` in it stands in quotes
        lab.yaml has 1 problem
          2:19: not YAML: did not find expected alphabetic or numeric character at line 2 column 19, while scanning an alias at line 2 column 14
            hint: `*name` repeats what `&name` marks before it; text that begins with `*` stands in quotes
        lab.yaml has 1 problem
          2:1: a second document begins here
            hint: a file is one lab: take the `---` away
        lab.yaml has 1 problem
          3:5: not a lab file: key must be a string
            hint: a key is a word and a colon
        lab.yaml has 1 problem
          2:15: not YAML: the control character '\0'
            hint: is this a text file, in UTF-8?
        lab.yaml has 2 problems
          2:11: router.ports: expected a mapping, found a list
            hint: each begins with its name and a colon, such as `name: {}`
          3:1: tests: expected a list, found a mapping
            hint: each item begins with `- `
        lab.yaml has 3 problems
          2:20: router.ports.a: no host is behind port `a`
            hint: give a host `port: a`, or take the port away
          2:30: router.ports.b: no host is behind port `b`
            hint: give a host `port: b`, or take the port away
          2:35: router.ports.b.<<: unknown key `<<`
            hint: merge keys are not read: a whole value is marked with `&name`, and repeated with `*name`"#]].assert_eq(&told.join("\n"));
}

#[test]
fn a_byte_order_mark_and_foreign_line_ends_are_no_mistakes() {
    check(&format!("\u{feff}{}", GOOD.replace('\n', "\r\n")), expect!["ok"]);
}

#[test]
fn the_name_of_a_test_is_printed_as_it_stands() {
    check(
        &GOOD.replace("name: ssh", r#"name: "ok 2\n\e[31m""#),
        expect![[r"
            lab.yaml has 1 problem
              13:5: tests[0].name: the name of a test is one line of plain text
                hint: it is printed in lists and reports"]],
    );
}

#[test]
fn what_is_no_text_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.yaml");
    std::fs::write(&file, b"name: x\ndescription: caf\xe9\n").unwrap();
    let told = stateway_lab::load(&file).unwrap_err().to_string();
    expect![[r"
        lab.yaml has 1 problem
          2:17: byte 0xe9 is no text in UTF-8
            hint: is this a text file? if so, save it as UTF-8"]]
    .assert_eq(&told.replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn a_session_is_opened_before_it_is_used_and_need_not_say_again_between_whom() {
    let lab = |steps: &str| {
        GOOD.replace("    ssh: { from: host104, to: host77, run: hostname }\n    expect: { result: ok, stdout: host77 }\n", steps)
    };
    check(
        &lab("    steps:
      - ssh: { from: host104, to: host77, keep: one }
      - ssh: { session: one, run: hostname }
      - tcp: { from: host104, to: host77, port: 7, keep: two }
      - tcp: { session: two, send: hello }
"),
        expect!["ok"],
    );
    check(
        &lab("    steps:
      - ssh: { session: early }
      - ssh: { from: host104, to: host77, keep: one }
      - ssh: { session: oen }
      - tcp: { session: one }
      - tcp: { keep: two }
"),
        expect![[r"
            lab.yaml has 6 problems
              15:16: tests[0].steps[0].ssh.session: no ssh session is kept under the name `early`
                hint: open one with `keep: early`, in an earlier `ssh` step
              17:16: tests[0].steps[2].ssh.session: no ssh session is kept under the name `oen`
                hint: sessions: `one`
              18:16: tests[0].steps[3].tcp.session: no tcp session is kept under the name `one`
                hint: open one with `keep: one`, in an earlier `tcp` step
              19:9: tests[0].steps[4].tcp: `from` is missing
              19:9: tests[0].steps[4].tcp: `to` is missing
              19:9: tests[0].steps[4].tcp: `port` is missing"]],
    );
}

#[test]
fn what_several_steps_do_not_share_is_said_where_it_belongs() {
    check(
        &GOOD.replace(
            "    ssh: { from: host104, to: host77, run: hostname }\n    expect: { result: ok, stdout: host77 }\n",
            "    steps: [{ ping: { from: host104, to: host77 } }]
    expect: { result: ok }
    within: 5s
    timeout: 1s
    impair: { host77: { loss: 10 } }
",
        ),
        expect![[r"
            lab.yaml has 4 problems
              15:5: tests[0].expect: with `steps`, `expect` belongs to each step of its own
              16:5: tests[0].within: with `steps`, `within` belongs to each step of its own
              17:5: tests[0].timeout: with `steps`, `timeout` belongs to each step of its own
              18:5: tests[0].impair: with `steps`, `impair` belongs to each step of its own"]],
    );
}

#[test]
fn an_icmp_error_goes_by_a_name_that_can_be_met() {
    let lab = |icmp: &str| GOOD.replace("{ result: ok, stdout: host77 }", &format!("{{ icmp: {icmp} }}"));
    check(&lab("time-exceeded"), expect!["ok"]);
    check(&lab("icmp type 3 code 5"), expect!["ok"]);
    check(
        &lab("ttl-exceeded"),
        expect![[r"
        lab.yaml has 1 problem
          15:15: tests[0].expect.icmp: no ICMP error is called `ttl-exceeded`
            hint: did you mean `time-exceeded`?"]],
    );
    check(
        &lab("icmp-port-unreachabel"),
        expect![[r"
        lab.yaml has 1 problem
          15:15: tests[0].expect.icmp: no ICMP error is called `icmp-port-unreachabel`
            hint: did you mean `icmp-port-unreachable`?"]],
    );
}

#[test]
fn an_mtu_that_cannot_be_built_is_refused_with_the_reason() {
    let with = |port: &str, address: &str| {
        GOOD.replace("host77: {} }", &format!("host77: {{ mtu: {port} }} }}"))
            .replace("address: 192.0.2.77/24", &format!("address: {address}"))
    };
    check(&with("65521", "192.0.2.77/24"), expect!["ok"]);
    check(&with("576", "192.0.2.77/24"), expect!["ok"]);
    check(&with("1280", "[192.0.2.77/24, \"2001:db8::77/64\"]"), expect!["ok"]);
    for (mtu, addresses, why) in [
        ("65522", "192.0.2.77/24", "no TAP takes an MTU of 65522"),
        ("1279", "[192.0.2.77/24, \"2001:db8::77/64\"]", "has no IPv6, which takes 1280"),
    ] {
        let errors = load_text(&with(mtu, addresses), Path::new("lab.yaml")).unwrap_err().to_string();
        assert!(errors.contains(why), "{errors}");
    }
}

#[test]
fn a_command_succeeds_or_fails_and_only_a_probe_is_blocked() {
    let with = |tests: &str| format!("{}{tests}", &GOOD[..GOOD.find("tests:").unwrap()]);
    let good = "\
tests:
  - { name: a, exec: { host: host77, run: exit 3 }, expect: { exit: 3 } }
  - { name: b, exec: { host: host77, run: exit 3 }, expect: { result: failed, exit: 3 } }
  - { name: c, exec: { host: host77, run: exit 0 }, expect: { exit: 0 } }
  - { name: d, exec: { host: host77, run: exit 3 }, expect: { result: failed } }
  - { name: e, exec: { host: host77, run: exit 3 }, expect: { result: blocked } }
";
    check(&with(good), expect!["ok"]);
    let wrong = "\
tests:
  - { name: a, exec: { host: host77, run: exit 3 }, expect: { result: refused } }
  - { name: b, exec: { host: host77, run: exit 3 }, expect: { icmp: icmp-host-unreachable } }
  - { name: c, exec: { host: host77, run: exit 3 }, expect: { result: ok, exit: 3 } }
  - { name: d, exec: { host: host77, run: exit 0 }, expect: { result: failed, exit: 0 } }
  - { name: e, exec: { host: host77, run: exit 3 }, expect: { exit: 256 } }
  - { name: f, ping: { from: host104, to: host77 }, expect: { result: failed } }
  - { name: g, ssh: { from: host104, to: host77 }, expect: { exit: 1 } }
";
    check(
        &with(wrong),
        expect![[r"
        lab.yaml has 7 problems
          13:63: tests[0].expect.result: an `exec` is `ok` or `failed`, never `refused`
            hint: `result: failed`; what became of its packets is in `state`, `rule`, `reason`
          14:63: tests[1].expect.icmp: an `exec` is `ok` or `failed`, never `unreachable`
            hint: `result: failed`; what became of its packets is in `state`, `rule`, `reason`
          15:75: tests[2].expect.exit: does not go with this `result`
            hint: 0 is `ok`, every other one is `failed`
          16:79: tests[3].expect.exit: does not go with this `result`
            hint: 0 is `ok`, every other one is `failed`
          17:63: tests[4].expect.exit: 256 must be between 0 and 255
          18:63: tests[5].expect.result: `failed` is said of `exec` only
            hint: `blocked`, `refused` or `unreachable`
          19:62: tests[6].expect.exit: goes with `exec` only"]],
    );
}
