//! The inputs that fuzzing keeps, through the same functions that it calls, without a fuzzer: nothing panics.

#[allow(unreachable_pub, reason = "it is a library as well")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn every_input_of_the_corpus_goes_through_its_target() {
    for (target, run) in fuzz::TARGETS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 10, "`{target}` has {} inputs", inputs.len());
        for path in inputs {
            let input = fs::read(&path).unwrap();
            assert!(catch_unwind(|| run(&input)).is_ok(), "{target}: {}", path.display());
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::TARGETS.iter().any(|(target, _)| *target == name), "`{name}`");
    }
}
