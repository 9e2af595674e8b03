//! Network namespaces of tests.

use std::process::Command;

/// A named network namespace. It goes with this value, and so also when its test fails.
pub(crate) struct Netns(pub(crate) String);

impl Netns {
    /// # Panics
    /// It cannot be made: it takes root, and a name that is free.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        ip(&format!("netns add {name}"));
        Self(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub(crate) fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}
