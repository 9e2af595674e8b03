//! `lab test --shard K/N` and `report merge`: what several machines did is what one would have done.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, line: &str, env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateway"));
        command.args(line.split_whitespace()).envs(env.iter().copied()).current_dir(self.0.path());
        command.output().unwrap()
    }

    fn well(&self, line: &str) -> String {
        let output = self.run(line, &[]);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and standard error of a command that fails.
    fn badly(&self, line: &str) -> (Option<i32>, String) {
        let output = self.run(line, &[]);
        assert!(!output.status.success(), "{line}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    /// Tests every lab of this repository in simulation.
    fn tests(&self, options: &str) -> String {
        let topologies = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
        self.well(&format!("lab test {} --on sim {options}", topologies.display()))
    }
}

#[test]
fn four_shards_of_all_labs_merged_are_the_report_of_one_command() {
    let bench = Bench::new();
    bench.tests("--report json=all.json --report junit=all.xml");
    for k in 1..=4 {
        let said = bench.tests(&format!("--shard {k}/4 --report json={k}.json --report junit={k}.xml"));
        assert!(said.contains(&format!("shard {k}/4: 5 of 20 labs")), "{said}");
    }
    // In any order.
    bench.well("report merge 3.json 1.json 4.json 2.json -o merged.json");
    assert_eq!(bench.read("merged.json").trim_end(), bench.read("all.json").trim_end());
    bench.well("report merge 4.xml 3.xml 2.xml 1.xml -o merged.xml");
    assert_eq!(bench.read("merged.xml").trim_end(), bench.read("all.xml").trim_end());
    let printed = bench.well("report merge 1.json 2.json 3.json 4.json");
    assert_eq!(printed, bench.read("merged.json"));
}

#[test]
fn a_shard_that_is_missing_there_twice_or_of_other_shards_makes_no_report() {
    let bench = Bench::new();
    for shard in ["1/3", "2/3", "3/3", "2/2"] {
        let file = shard.replace('/', "-");
        bench.well(&format!("lab test article invalid --on sim --shard {shard} --report json={file}.json --report junit={file}.xml"));
    }
    for kind in ["json", "xml"] {
        let merge = |files: [&str; 3]| {
            let files = files.map(|file| format!("{file}.{kind}")).join(" ");
            bench.badly(&format!("report merge {files} -o merged"))
        };
        let (code, said) = bench.badly(&format!("report merge 1-3.{kind} 3-3.{kind} -o merged"));
        assert!(code == Some(2) && said.contains("no report of shard 2/3"), "{said}");
        let (code, said) = merge(["1-3", "2-3", "2-3"]);
        assert!(code == Some(2) && said.contains("both of shard 2/3"), "{said}");
        let (code, said) = merge(["1-3", "2-3", "2-2"]);
        assert!(code == Some(2) && said.contains("of 3 shards") && said.contains("of 2"), "{said}");
        assert!(!bench.0.path().join("merged").exists());
        bench.well(&format!("report merge 1-3.{kind} 2-3.{kind} 3-3.{kind}"));
    }
    let (code, said) = bench.badly("report merge 1-3.json 2-3.json 3-3.xml");
    assert!(code == Some(2) && said.contains("of one kind"), "{said}");
    bench.well("lab test article --on sim --report json=whole.json");
    let (code, said) = bench.badly("report merge whole.json");
    assert!(code == Some(2) && said.contains("no report of a shard"), "{said}");
}

#[test]
fn what_failed_in_a_shard_fails_the_whole() {
    let bench = Bench::new();
    let open = "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
    fs::write(bench.0.path().join("open.rules"), open).unwrap();
    for kind in ["json", "junit"] {
        for k in 1..=2 {
            let line = format!(
                "lab test invalid article --on sim --rules open.rules --shard {k}/2 --report {kind}={k}.{kind}"
            );
            assert_eq!(bench.badly(&line).0, Some(1));
        }
        let (code, said) = bench.badly(&format!("report merge 1.{kind} 2.{kind} -o merged.{kind}"));
        assert_eq!(code, Some(1), "{said}");
        assert!(
            bench.read(&format!("merged.{kind}")).contains("article with open.rules"),
            "it is written all the same"
        );
    }
}

#[test]
fn a_pod_of_a_kubernetes_job_takes_the_part_of_its_index() {
    let bench = Bench::new();
    let line = "lab test article invalid --on sim --shard 2 --format json";
    let said = |index| {
        let output = bench.run(line, &[("JOB_COMPLETION_INDEX", index)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said("0").contains("\"article\"") && !said("0").contains("\"invalid\""));
    assert!(said("1").contains("\"invalid\"") && !said("1").contains("\"article\""));
    let (code, said) = bench.badly(line);
    assert!(code == Some(2) && said.contains("JOB_COMPLETION_INDEX"), "{said}");
}

#[test]
fn the_job_for_kubernetes_is_one_that_runs() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/labs.yaml"))
            .unwrap();
    let job = manifest.split("---\n").nth(1).unwrap();
    let job: serde_json::Value = serde_yaml::from_str(job).unwrap();
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let line: Vec<&str> = args.iter().map(|arg| arg.as_str().unwrap()).collect();
    let of = job["spec"]["completions"].as_u64().unwrap();
    let bench = Bench::new();
    for index in 0..of {
        let index = index.to_string();
        let line = line.join(" ").replace("/reports/", "").replace("$(JOB_COMPLETION_INDEX)", &index);
        let output = bench.run(&line, &[("JOB_COMPLETION_INDEX", &index)]);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let files: Vec<String> = (0..of).map(|index| format!("{index}.json")).collect();
    bench.well(&format!("report merge {}", files.join(" ")));
}
