//! Labs for who changes them: a new one, other rules, a wrong one, why a test failed, once more when a file is saved.
//!
//! What is about labs that stand takes root, and fails without. `STATEWAY_SIM_ONLY=1` leaves it out.

use super::lab_up::{Bench, sim_only};
use expect_test::expect;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const LAB: &str = "\
name: NAME
router:
  ports: { a: {}, b: {} }
  rules_file: rules.v4
hosts:
  a: { port: a, address: 192.0.2.1/24, services: [echo] }
  b: { port: b, address: 192.0.2.2/24, services: [echo] }
tests:
  - name: a asks b
    tcp: { from: a, to: b, port: 7 }
    expect: { result: ok, rule: '#out' }
  - name: b does not ask a
    tcp: { from: b, to: a, port: 7 }
    expect: { result: blocked, rule: policy }
";
const RULES: &str = "\
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -i a -p tcp --dport 7 -m comment --comment #out -j ACCEPT
COMMIT
";

/// A lab with its rules in a file of their own.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("lab.yaml", &LAB.replace("NAME", name));
        folder.write("rules.v4", RULES);
        folder
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
        command.args(args.split_whitespace()).current_dir(self.0.path()).env_remove("NO_COLOR");
        command
    }

    /// Exit code, standard output and standard error.
    fn run(&self, args: &str) -> (i32, String, String) {
        let output = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_failure_says_which_rule_decided_and_why_the_one_that_was_meant_did_not() {
    let folder = Folder::new("t-why");
    assert_eq!(folder.run("lab test . --on sim").0, 0);
    folder.write("rules.v4", &RULES.replace("--dport 7", "--dport 23"));
    let (code, said, _) = folder.run("lab test . --on sim --filter asks");
    assert_eq!(code, 1);
    expect![[r##"
        running on sim, as asked
        t-why: 
        FAIL   sim    a asks b  blocked: no answer in 1.5 s [NEW, dropped by policy]  (1.55 s)
               expected ok, got blocked
               rule: expected `#out` (filter/FORWARD/2), got `policy`
               in: tcp a → b
               >    0.000s a          tcp S 192.0.2.1:40000 → 192.0.2.2:7                      NEW         dropped by policy (policy)
                    1.000s a          tcp S 192.0.2.1:40000 → 192.0.2.2:7                      NEW         dropped by policy (policy)
               error: expected ok, got blocked
                 --> lab.yaml:11:15
                  |
               11 |     expect: { result: ok, rule: '#out' }
                  |               ^^^^^^^^^^
                  |
               note: the packet was dropped by filter/FORWARD/policy: :FORWARD DROP [0:0]
                 --> rules.v4:2:1
                  |
                2 | :FORWARD DROP [0:0]
                  | ^^^^^^^^^^^^^^^^^^^
               note: filter/FORWARD/2 did not match: -i a -p tcp -m tcp --dport 23 -m comment --comment "#out" -j ACCEPT
                 --> rules.v4:4:24
                  |
                4 | -A FORWARD -i a -p tcp --dport 23 -m comment --comment #out -j ACCEPT
                  |                        ^^^^^^^^^^ no: the packet goes to port 7
        0 passed, 1 failed
    "##]]
    .assert_eq(&said);
}

/// Of each condition: what the packet has instead.
#[test]
fn a_rule_that_did_not_match_is_told_with_the_packets_own_value() {
    let folder = Folder::new("t-value");
    for (condition, said) in [
        ("-s 198.51.100.0/24", "no: the packet comes from 192.0.2.1"),
        ("-d 198.51.100.9", "^^^^^^^^^^^^^^^ no: the packet goes to 192.0.2.2"),
        ("-i b", "no: the packet came in on a"),
        ("-o a", "no: the packet leaves on b"),
        ("-p udp", "no: the packet is tcp"),
        ("-p tcp --sport 7", "no: the packet comes from port 40000"),
        ("-p tcp --tcp-flags SYN,ACK ACK", "no: the packet has SYN"),
        ("-m conntrack --ctstate RELATED", "no: the packet is NEW"),
    ] {
        folder.write("rules.v4", &RULES.replace("-i a -p tcp --dport 7", condition));
        let (code, text, _) = folder.run("lab test . --on sim --filter asks");
        assert!(code == 1 && text.contains(said), "{condition}: {text}");
    }
}

#[test]
fn a_rule_that_let_through_what_it_should_not_is_shown() {
    let folder = Folder::new("t-open");
    folder.write("rules.v4", &RULES.replace("-i a -p tcp", "-p tcp"));
    let (code, said, _) = folder.run("lab test . --on sim");
    assert_eq!(code, 1);
    assert!(said.contains("note: the packet was forwarded by filter/FORWARD/2: -p tcp"), "{said}");
    // A packet of an open connection is explained as well, though its connection is over by then.
    let lab = LAB.replace("NAME", "t-open").replace("result: blocked, rule: policy", "result: blocked");
    folder.write("lab.yaml", &lab);
    folder.write("rules.v4", &RULES.replace("--ctstate ESTABLISHED", "--ctstate RELATED"));
    let (_, said, _) = folder.run("lab test . --on sim --filter asks");
    assert!(said.contains("no: the packet is ESTABLISHED"), "{said}");
}

#[test]
fn a_rule_in_front_changes_nothing_for_who_names_rules_by_their_comments() {
    let folder = Folder::new("t-log");
    folder.write("rules.v4", &RULES.replace("-A FORWARD -i a", "-A FORWARD -j LOG\n-A FORWARD -i a"));
    let (code, said, _) = folder.run("lab test . --on sim");
    assert!(code == 0 && said.contains("forwarded by filter/FORWARD/3"), "{said}");
    folder.write("lab.yaml", &LAB.replace("NAME", "t-log").replace("'#out'", "'#uot'"));
    let (code, _, errors) = folder.run("lab test . --on sim");
    assert_eq!(code, 2);
    let message = "11:27: tests[0].expect.rule: `#uot` is not the name of a rule, nor the comment of one";
    let line = "\n    11 |     expect: { result: ok, rule: '#uot' }\n       |                           ^\n    hint: did you mean";
    assert!(errors.contains(message) && errors.contains(line), "{errors}");
}

#[test]
fn other_rules_are_tested_in_place_of_the_labs_own_and_it_is_said() {
    let folder = Folder::new("t-rules");
    folder.write("new.v4", &RULES.replace("-i a -p tcp", "-i b -p tcp"));
    let (code, said, _) = folder.run("lab test . --on sim --rules new.v4 --report junit=r.xml");
    assert!(code == 1 && said.contains("\ntesting the rules of new.v4, not the labs' own\n"), "{said}");
    assert!(said.contains("t-rules with new.v4: ") && said.contains("--> new.v4:4:12"), "{said}");
    let report = fs::read_to_string(folder.0.path().join("r.xml")).unwrap();
    assert!(report.contains("testsuite name=\"t-rules with new.v4 (sim)\""), "{report}");
    // A comment that they lack is no mistake of the lab file: its test fails.
    folder.write("new.v4", &RULES.replace("-m comment --comment #out ", ""));
    let (code, said, _) = folder.run("lab test . --on sim --rules new.v4");
    assert!(
        code == 1 && said.contains("`#out`, which is the comment of no rule, got `filter/FORWARD/2`"),
        "{said}"
    );
    folder.write("new.v4", &RULES.replace("--dport", "--dprot"));
    let (code, _, errors) = folder.run("lab test . --on sim --rules new.v4");
    assert!(
        code == 2 && errors.contains("new.v4:4:") && errors.contains("did you mean `--dport`?"),
        "{errors}"
    );
    let (code, _, errors) = folder.run("lab test . --on sim --rules -");
    assert!(code == 2 && errors.contains("standard input is read once"), "{errors}");
    // The sets that they name stand in a file of their own; lines are those of the rules.
    folder.write("sets", "create inside hash:ip\nadd inside 192.0.2.9\n");
    folder.write("new.v4", &RULES.replace("-i a -p tcp", "-m set --match-set inside src -p tcp"));
    let (code, said, _) = folder.run("lab test . --on sim --rules new.v4 --sets sets");
    assert!(code == 1 && said.contains("--> new.v4:4:"), "{said}");
}

#[test]
fn other_rules_leave_a_lab_that_is_up_as_it_is() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-other");
    bench.well("lab up one");
    let before = bench.well("lab rules one -S");
    // It lets everything pass, on both runners with real programs.
    fs::write(bench.at("open.v4"), "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n").unwrap();
    let (code, said, errors) = bench.run("lab test one --on live,kernel --rules open.v4");
    assert_eq!(code, Some(1), "{said}{errors}");
    assert!(said.contains("expected blocked, got ok") && said.contains("kernel"), "{said}");
    assert_eq!(bench.well("lab rules one -S"), before);
    let up = bench.well("lab ls");
    assert!(up.contains("t-other ") && !up.contains("-try"), "{up}");
    bench.well("lab down one");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_lab_that_fails_is_kept_and_one_that_passes_is_not() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-keep");
    bench.well("lab test one --on live --keep");
    assert_eq!(bench.left(), [""; 0]);
    let lab = fs::read_to_string(bench.at("one/lab.yaml")).unwrap();
    fs::write(bench.at("one/lab.yaml"), lab.replace(":FORWARD DROP", ":FORWARD ACCEPT")).unwrap();
    let (code, said, _) = bench.run("lab test one --on live --keep");
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "the lab `t-keep` failed and is kept up",
        "stateway lab shell t-keep a ",
        "stateway lab down t-keep ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(bench.well("lab inspect t-keep").contains("t-keep: up, live"));
    bench.well("lab down t-keep");
    assert_eq!(bench.left(), [""; 0]);
    bench.refused("lab test one --on sim --keep", 2, &["`--keep` has nothing to leave up", "--on live"]);
}

/// A command that goes on, read line by line.
struct Going {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Going {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Everything up to the line that ends a block.
    fn block(&mut self) -> String {
        let mut text = String::new();
        while !text.lines().last().is_some_and(|line| line.starts_with("-- watching ")) {
            assert_ne!(self.lines.read_line(&mut text).unwrap(), 0, "it ended: {text}");
        }
        text
    }

    fn interrupt(mut self) -> i32 {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::INT,
        )
        .unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn a_watched_lab_is_tested_again_when_one_of_its_files_changes_however_that_is_done() {
    let folder = Folder::new("t-watch");
    let mut going = Going::start(folder.command("lab test . --on sim --watch"));
    assert!(going.block().contains("2 passed\n-- watching lab.yaml, rules.v4; Ctrl-C ends it\n"));
    // In place.
    folder.write("rules.v4", &RULES.replace("--dport 7", "--dport 23"));
    let block = going.block();
    assert!(block.starts_with("-- rules.v4 changed\n") && block.contains("1 passed, 1 failed"), "{block}");
    // As editors do it: another file takes its place.
    folder.write("rules.new", RULES);
    fs::rename(folder.0.path().join("rules.new"), folder.0.path().join("rules.v4")).unwrap();
    let block = going.block();
    assert!(block.starts_with("-- rules.v4 changed\n") && block.contains("2 passed"), "{block}");
    // What cannot be read is said, and read again once it is mended. What is written again as it was is no change: the next
    // block is of the change behind it.
    folder.write("lab.yaml", &LAB.replace("NAME", "t-watch").replace("from: a", "from: z"));
    assert!(going.block().contains("0 passed, 1 broken"));
    folder.write("rules.v4", RULES);
    folder.write("lab.yaml", &LAB.replace("NAME", "t-watch"));
    let block = going.block();
    assert!(block.starts_with("-- lab.yaml changed\n") && block.contains("2 passed"), "{block}");
    assert_eq!(going.interrupt(), 0);
}

#[test]
fn a_watched_lab_that_stands_is_gone_when_the_command_ends() {
    if sim_only() {
        return;
    }
    let bench = Bench::new("t-again");
    let mut going = Going::start(bench.command("lab test one --on live --watch"));
    assert!(going.block().contains("\n-- watching "));
    let lab = fs::read_to_string(bench.at("one/lab.yaml")).unwrap();
    fs::write(bench.at("one/lab.yaml"), lab.replace(":FORWARD DROP", ":FORWARD ACCEPT")).unwrap();
    assert!(going.block().contains(" failed\n"));
    assert_eq!(going.interrupt(), 0);
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_failure_is_annotated_where_the_lab_file_expects_something_else() {
    let folder = Folder::new("t-github");
    let (code, said, _) = folder.run("lab test . --on sim --format github");
    assert!(code == 0 && !said.contains("::"), "{said}");
    folder.write("rules.v4", &RULES.replace("--dport 7", "--dport 23"));
    let (_, said, _) = folder.run("lab test lab.yaml --on sim --format github --report junit=r.xml");
    let annotation = "\n::error file=lab.yaml,line=11,col=15,title=t-github%3A a asks b (sim)::expected ok, got blocked%0A";
    assert!(said.contains(annotation), "{said}");
    assert!(
        said.contains("filter/FORWARD/2 did not match `--dport 23`: the packet goes to port 7\n"),
        "{said}"
    );
    let report = fs::read_to_string(folder.0.path().join("r.xml")).unwrap();
    assert!(report.contains("file=\"lab.yaml\" line=\"9\"") && report.contains("line=\"12\""), "{report}");
}

#[test]
fn files_and_pipes_get_no_colours() {
    let folder = Folder::new("t-plain");
    folder.write("rules.v4", &RULES.replace("--dport 7", "--dport 23"));
    let (_, said, _) = folder.run("lab test . --on sim");
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn a_folder_without_a_lab_stands_for_the_labs_below_it() {
    let folder = Folder::new("t-one");
    let whole = tempfile::tempdir().unwrap();
    for (place, name) in [("b/deeper", "t-deeper"), ("a", "t-above"), (".hidden", "t-hidden")] {
        fs::create_dir_all(whole.path().join(place)).unwrap();
        fs::write(whole.path().join(place).join("rules.v4"), RULES).unwrap();
        fs::write(whole.path().join(place).join("lab.yaml"), LAB.replace("NAME", name)).unwrap();
    }
    let (code, said, _) = folder.run(&format!("lab test {} --on sim", whole.path().display()));
    let above = said.find("t-above: ").unwrap();
    assert!(code == 0 && above < said.find("t-deeper: ").unwrap(), "{said}");
    assert!(said.ends_with("4 passed\n") && !said.contains("t-hidden"), "{said}");
    let empty = tempfile::tempdir().unwrap();
    let (code, _, errors) = folder.run(&format!("lab test {} --on sim", empty.path().display()));
    assert!(code == 2 && errors.contains("no folder below it has one"), "{errors}");
}

#[test]
fn a_new_lab_has_its_folders_name_and_passes() {
    let folder = Folder::new("t-beside");
    let (code, said, _) = folder.run("lab new mine --from article");
    assert!(code == 0 && said.contains("stateway lab test mine --on sim"), "{said}");
    let (code, said, errors) = folder.run("lab test mine --on sim");
    assert!(code == 0 && said.contains("mine: 104 may open"), "{said}{errors}");
    for (args, message) in [
        ("lab new mine --from article", "mine is not empty"),
        ("lab new lab.yaml --from article", "lab.yaml is no folder"),
        ("lab new other --from artcle", "did you mean `article`?"),
        ("lab new other", "which lab to begin with?"),
    ] {
        let (code, said, errors) = folder.run(args);
        assert!(code == 2 && errors.contains(message), "{args}: {errors}");
        assert_eq!(said.contains("two-networks"), args == "lab new other", "{said}");
    }
    assert!(!Path::new(&folder.0.path().join("other")).exists());
    // Every lab that is built in can be begun with.
    let (_, list, _) = folder.run("lab builtin --format json");
    for line in list.lines() {
        let lab: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = lab["lab"].as_str().unwrap();
        assert_eq!(folder.run(&format!("lab new new-{name} --from {name}")).0, 0, "{name}");
        assert_eq!(folder.run(&format!("lab graph new-{name}")).0, 0, "{name}");
    }
}
