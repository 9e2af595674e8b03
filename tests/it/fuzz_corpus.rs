//! The inputs that fuzzing keeps, and a bounded number of others made from them, through the same functions that a fuzzer
//! calls, without a fuzzer: nothing panics. Each run makes the same inputs.
//!
//! `STATEWAY_FUZZ=10` makes ten times as many, as `scripts/test` does.

#[allow(unreachable_pub, reason = "it is a library as well")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
#[path = "fuzz_corpus/mutate.rs"]
mod mutate;

use mutate::Mutator;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = folder().join("corpus").join(target);
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    inputs
}

/// Gives a target every input of its corpus, and then so many others made from them.
fn check(target: &str, mutants: usize) {
    let (_, run) = fuzz::TARGETS.iter().find(|(name, _)| *name == target).expect("it is a target");
    let paths = corpus(target);
    assert!(paths.len() >= 10, "`{target}` has {} inputs", paths.len());
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    for (path, input) in paths.iter().zip(&inputs) {
        assert!(catch_unwind(|| run(input)).is_ok(), "{target}: {}", path.display());
    }
    let times = std::env::var("STATEWAY_FUZZ").map_or(1, |times| times.parse().expect("a number"));
    let mut mutator = Mutator::new(target, &inputs);
    for number in 0..mutants * times {
        let input = mutator.next();
        if catch_unwind(|| run(&input)).is_err() {
            let found = folder().join("artifacts").join(target);
            fs::create_dir_all(&found).unwrap();
            let path = found.join(format!("mutant-{number}"));
            fs::write(&path, &input).unwrap();
            panic!("{target}: {}", path.display());
        }
    }
}

/// A test for each target. The numbers make about a second each in a debug build.
macro_rules! targets {
    ($($target:ident $mutants:literal)*) => {
        $(
            #[test]
            fn $target() {
                check(stringify!($target), $mutants);
            }
        )*

        #[test]
        fn every_target_has_its_test_and_every_folder_of_the_corpus_its_target() {
            let tests = [$(stringify!($target)),*];
            let mut targets = fuzz::TARGETS.map(|(target, _)| target);
            targets.sort_unstable();
            assert_eq!(tests[..], targets[..]);
            for (kind, ending) in [("corpus", ""), ("fuzz_targets", ".rs")] {
                let names = fs::read_dir(folder().join(kind)).unwrap().map(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    name.strip_suffix(ending).expect("nothing else lies there").to_owned()
                });
                let mut names: Vec<String> = names.collect();
                names.sort_unstable();
                assert_eq!(names, tests, "{kind}");
            }
        }
    };
}

targets! {
    capture 60
    control 300
    explain 200
    flow 80
    frames 400
    lab 60
    nat 500
    offload 400
    rules 60
    state 2000
}
