//! Lines that are longer than the terminal is wide. In pipes and files every line stays whole.

use std::io::{self, IsTerminal as _};

/// How wide standard output is; `None` if it is no terminal.
pub(super) fn columns() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(stdout).ok());
    size.flatten().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Breaks a line at blanks, so that it fits; what goes on below begins with `indent` blanks. A word that fits nowhere stays whole.
pub(super) fn fold(line: &str, columns: Option<usize>, indent: usize) -> String {
    let Some(columns) = columns else { return line.to_owned() };
    // Where hardly anything would fit behind the indent, it is no help.
    let indent = indent.min(columns / 2);
    let (mut folded, mut room) = (String::new(), columns);
    let mut rest = line;
    while rest.chars().count() > room {
        let beyond = rest.char_indices().nth(room).map_or(rest.len(), |(at, _)| at);
        let begin = rest.len() - rest.trim_start().len();
        let end = rest[..beyond].rfind(' ').filter(|at| *at > begin);
        // What just fits may be followed by a blank.
        let end = if rest[beyond..].starts_with(' ') { Some(beyond) } else { end };
        let Some(end) = end.or_else(|| rest[beyond..].find(' ').map(|at| beyond + at)) else { break };
        folded.push_str(rest[..end].trim_end());
        folded.push('\n');
        folded.extend(std::iter::repeat_n(' ', indent));
        rest = rest[end..].trim_start();
        room = columns - indent;
    }
    folded + rest
}

/// Breaks a line that is indented already: what goes on below stands deeper.
pub(super) fn fold_deeper(line: &str, columns: Option<usize>) -> String {
    let indent = line.len() - line.trim_start().len();
    fold(line, columns, indent + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_at_blanks_and_only_on_a_terminal() {
        let line = "  accept what was asked for";
        for (columns, folded) in [
            (None, line),
            (Some(27), line),
            (Some(26), "  accept what was asked\n      for"),
            (Some(23), "  accept what was asked\n      for"),
            (Some(22), "  accept what was\n      asked for"),
            // Words that fit nowhere are not cut.
            (Some(5), "  accept\n  what\n  was\n  asked\n  for"),
        ] {
            assert_eq!(fold_deeper(line, columns), folded, "{columns:?}");
        }
        assert_eq!(fold("→→→ →→→", Some(4), 2), "→→→\n  →→→", "columns, not bytes");
    }
}
