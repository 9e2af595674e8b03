//! Text of lab files: nothing panics, and whatever is wrong with it can be printed.

use stateway_lab::resolve;
use std::path::Path;

pub fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    // Files that it names are looked for where there are none.
    if let Err(errors) = resolve::load_text(text, Path::new("/nowhere/lab.yaml")) {
        let _ = errors.to_string();
    }
}
