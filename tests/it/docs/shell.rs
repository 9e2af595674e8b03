//! A checkout of its own, and a shell in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What must not happen here, though a page says so: the program is built already, and nothing is installed.
const STAND_INS: [(&str, &str); 3] = [
    ("cargo", concat!("[ \"$1\" = build ] && exit 0\nexec ", env!("CARGO"), " \"$@\"")),
    ("apt-get", "echo \"apt-get $*: a test installs nothing\" >&2\nexit 1"),
    ("sudo", "while [ \"${1#-}\" != \"$1\" ]; do shift; done\nexec env \"$@\""),
];
/// Runs its arguments one after the other in one shell, and marks where each ends, with its exit code.
const EACH: &str = r#"for command; do eval "$command" </dev/null 2>&1; printf '\036%s\036' "$?"; done"#;
/// Whatever a page starts ends with it: processes, namespaces, files below /run.
const ISOLATED: [&str; 9] = [
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation=private",
    // The process group as well begins in there, as in a container.
    "setsid",
    "sh",
    "-c",
];
const OWN_RUN: &str = "mount -t tmpfs -o mode=755 tmpfs /run && exec \"$@\"";
/// Longer than any page takes on a busy machine.
const PATIENCE: &str = "1500";

/// What came of a command.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) printed: String,
    pub(super) code: String,
}

/// The repository's files, and the program where `scripts/run` would have built it. What a page writes stays here.
pub(super) struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "target" {
                symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        let built = folder.path().join("target/release");
        fs::create_dir_all(&built).unwrap();
        symlink(env!("CARGO_BIN_EXE_stateway"), built.join("stateway")).unwrap();
        let checkout = Self { folder };
        fs::create_dir(checkout.stand_ins()).unwrap();
        for (name, script) in STAND_INS {
            let file = checkout.stand_ins().join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        checkout
    }

    fn stand_ins(&self) -> PathBuf {
        self.folder.path().join("target/stand-ins")
    }

    /// Runs commands; those that were not come to are missing in what is given back.
    pub(super) fn run(&self, commands: &[&str], is_isolated: bool, is_installed: bool) -> Vec<Outcome> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("timeout");
        shell.args(["--kill-after=5", PATIENCE]);
        if is_isolated {
            shell.arg("unshare").args(ISOLATED).args([OWN_RUN, "sh"]);
        }
        shell.args(["bash", "-c", EACH, "bash"]).args(commands).current_dir(self.folder.path());
        for name in ["CARGO_TARGET_DIR", "STATEWAY_PROFILE", "XDG_RUNTIME_DIR", "UPDATE_EXPECT"] {
            shell.env_remove(name);
        }
        shell.env("LC_ALL", "C.UTF-8");
        let installed =
            if is_installed { self.folder.path().join("target/release") } else { self.stand_ins() };
        let (first, second) = (self.stand_ins(), installed);
        shell.env("PATH", format!("{}:{}:{path}:/usr/sbin:/sbin", first.display(), second.display()));
        let output = shell.output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let said = self.elsewhere(&said);
        let parts: Vec<&str> = said.split('\u{1e}').collect();
        parts
            .chunks_exact(2)
            .map(|pair| Outcome { printed: pair[0].to_owned(), code: pair[1].to_owned() })
            .collect()
    }

    /// The reader's checkout lies elsewhere.
    fn elsewhere(&self, said: &str) -> String {
        let own = [self.folder.path(), Path::new(env!("CARGO_MANIFEST_DIR"))];
        own.iter().fold(said.to_owned(), |said, path| {
            said.replace(&path.display().to_string(), "/home/you/stateway")
        })
    }
}
