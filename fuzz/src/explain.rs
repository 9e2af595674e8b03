//! The arguments of `stateway explain`, one a line: nothing panics, and whatever is answered can be printed.

use super::routers;
use stateway::cli::explain_packet;
use stateway_trace::explain;

pub fn run(data: &[u8]) {
    let Some((&pick, text)) = data.split_first() else { return };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let arguments: Vec<&str> = text.lines().collect();
    if let Ok(account) = explain_packet(&arguments, &routers::pick(pick)) {
        explain::render(&account);
        serde_json::to_string(&account).expect("it is made of text and numbers");
    }
}
