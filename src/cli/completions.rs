//! `stateway completions SHELL`.

use super::{Result, render};
use clap::Command;
use stateway_runtime::terminal::Output;
use std::io::Write as _;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args) -> Result {
    let script = script(args.shell);
    let mut stdout = Output::stdout();
    render::finish(stdout.write_all(&script).and_then(|()| stdout.flush()));
    Ok(())
}

fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&super::command()), "stateway", &mut script);
    script
}

/// The command with what its `--help` shows: what it runs itself by is nobody's to complete.
fn shown(command: &Command) -> Command {
    let shown = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(shown))
        .visible_aliases(command.get_visible_aliases().map(str::to_owned));
    match command.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use clap_complete::Shell;

    #[test]
    fn what_is_for_people_is_completed_and_nothing_else() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).expect("a script");
            for word in ["watch", "reload", "explain", "restart", "interval", "list"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            for word in ["keeper", "init-process", "probe", "attempt"] {
                assert!(!script.contains(word), "{shell}: {word}");
            }
        }
    }
}
