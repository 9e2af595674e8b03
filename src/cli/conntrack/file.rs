//! `-R FILE`: commands of `conntrack`, a line each, all read before the first is carried out.

use super::{Failure, Line, check};
use anyhow::anyhow;
use clap::Parser;
use stateway_trace::input;
use std::path::Path;

/// Nobody mends more faults at once: the rest of the file is not looked at.
const MAX_ERRORS: usize = 100;
/// Three times the longest command that `-o save` writes.
const MAX_LINE: usize = 4096;

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Typed {
    #[command(flatten)]
    line: Line,
}

/// Reads a file of commands; `-` is standard input.
///
/// # Errors
/// It cannot be read, or what is wrong in it: all of it, each with its line.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let text = input::read_text(path, input::MAX_RULES);
    let text = text.map_err(|error| Failure::Input(anyhow!("cannot read {}: {error}", path.display())))?;
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse(line) {
            Ok(line) => lines.push(line),
            Err(problem) => errors.push(format!("{}:{}: {problem}", path.display(), number + 1)),
        }
        if errors.len() == MAX_ERRORS {
            errors.push(format!("{}: there may be more problems behind line {}", path.display(), number + 1));
            break;
        }
    }
    if errors.is_empty() { Ok(lines) } else { Err(Failure::Input(anyhow!("{}", errors.join("\n")))) }
}

fn parse(text: &str) -> Result<Line, String> {
    if text.len() > MAX_LINE {
        return Err(format!("more than {MAX_LINE} bytes, which no command has"));
    }
    let words = text.split_whitespace().skip_while(|word| *word == "conntrack");
    let line = match Typed::try_parse_from(words) {
        Ok(typed) => typed.line,
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            return Err(first.trim_start_matches("error: ").to_owned());
        }
    };
    let Line { list, events, load, .. } = &line;
    if list.is_some() || events.is_some() || load.is_some() {
        return Err("a file makes, changes and deletes connections: `-I`, `-A`, `-U`, `-D`, `-F`".to_owned());
    }
    check(&line).map_err(|problem| format!("{problem:#}"))?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_save_writes_is_read_and_everything_else_refused() {
        let saved = "-A -t 29 -u SEEN_REPLY -s 192.0.2.104 -d 192.0.2.77 -r 192.0.2.77 -q 192.0.2.104 -p udp --sport 5005 --dport 53 --reply-port-src 53 --reply-port-dst 5005";
        assert!(parse(saved).is_ok());
        assert!(parse("conntrack -D -p udp").is_ok());
        assert!(parse("-L").unwrap_err().contains("`-A`"));
        assert!(parse("-X").unwrap_err().contains("-X"));
        assert!(parse("-A -p udp").unwrap_err().contains("--src"));
    }

    #[test]
    fn every_wrong_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        std::fs::write(&path, "# what was\n-X\n\n-D -p udp\n-I -p udp\n").unwrap();
        let Err(Failure::Input(error)) = read(&path) else { panic!("it is wrong") };
        let text = error.to_string();
        assert!(text.contains("entries:2: ") && text.contains("entries:5: "), "{text}");
    }

    #[test]
    fn what_is_no_file_of_commands_is_soon_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        for (text, told) in [("y\n".repeat(1 << 20), MAX_ERRORS + 1), ("y".repeat(1 << 20), 1)] {
            std::fs::write(&path, text).unwrap();
            let Err(Failure::Input(error)) = read(&path) else { panic!("it is wrong") };
            assert_eq!(error.to_string().lines().count(), told);
        }
        let Err(Failure::Input(error)) = read(Path::new("/dev/zero")) else { panic!("it never ends") };
        assert!(error.to_string().contains("more than 32 MiB"), "{error}");
    }
}
