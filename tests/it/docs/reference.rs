//! The reference of the lab file and its schema, as they are checked in; every lab names the schema to editors.

use expect_test::expect_file;
use std::fs;
use std::path::Path;
use std::process::Command;

fn printed(args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_stateway")).args(["lab", "schema"]).args(args).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_is_what_the_program_prints() {
    expect_file!["../../../docs/LAB.md"].assert_eq(&printed(&["--markdown"]));
}

#[test]
fn the_schema_is_what_the_program_prints() {
    expect_file!["../../../docs/lab.schema.json"].assert_eq(&printed(&[]));
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut schema = Command::new(env!("CARGO_BIN_EXE_stateway"));
    let output = schema.args(["lab", "schema"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot write: "));
}

#[test]
fn every_lab_names_its_schema_to_editors() {
    for folder in ["topologies", "tests/labs"] {
        for lab in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let file = lab.unwrap().path().join("lab.yaml");
            let text = fs::read_to_string(&file).unwrap();
            let named =
                text.lines().next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
            let named = named.unwrap_or_else(|| panic!("{}: no schema in its first line", file.display()));
            let schema = file.with_file_name(named);
            assert!(
                schema.ends_with("docs/lab.schema.json") && schema.exists(),
                "{}: {named}",
                file.display()
            );
        }
    }
}
