//! What kind of text rules come in, and what is said of text that is none.

#![forbid(unsafe_code)]

use crate::filter::RuleError;
use crate::filter::text::lex::{column, tokens};
use crate::filter::text::options::Problem;
use crate::filter::text::save::{Reader, SECTIONS, program, unclosed_quote};
use crate::filter::text::shell::{self, Typed};

/// How a text gives its rules.
pub(in crate::filter) enum Form {
    /// Tables have sections, as iptables-save prints them; commands may stand between.
    Sections,
    /// A script of commands, as they are typed into a shell.
    Typed,
    /// The commands of one table, as `iptables -S` prints them.
    Listed,
    /// No rules at all: what it is instead.
    Foreign(RuleError),
}

/// iptables-restore reads no line of more than 10,240 bytes; a command in a script may be a longer one.
const MAX_LINE: usize = 1 << 16;
/// The rules of half a gigabyte of memory.
const MAX_RULES: usize = 500_000;
/// Commands of a script: more than the rules that fit in its file's bound.
const MAX_COMMANDS: usize = 500_000;
/// Commands, and bytes, that are looked at to tell what a text is.
const LOOKED_AT: usize = 1000;
const BYTES_LOOKED_AT: usize = 1 << 16;
/// Behind a script there is always a ruleset that it makes.
const RUN_IT: &str = "`iptables-save` after running it gives a ruleset; in a network of its own: \
     `unshare -n sh -c '. ./SCRIPT; iptables-save'`";

pub(in crate::filter) fn form_of(text: &str) -> Form {
    if let Some(error) = out_of_bounds(text) {
        return Form::Foreign(error);
    }
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines().any(|line| line.starts_with('*')) {
        return Form::Sections;
    }
    if lines().any(|line| line.contains("tables") && program(&tokens(line, 0)).is_some()) {
        return Form::Typed;
    }
    let mut others = lines().filter(|line| !is_of_set(line)).peekable();
    if others.peek().is_none() {
        return Form::Sections;
    }
    let is_listed = |line: &str| ["-P ", "-N ", "-A "].iter().any(|letter| line.starts_with(letter));
    if others.all(is_listed) {
        return Form::Listed;
    }
    Form::Foreign(what_it_is(text))
}

/// What no ruleset has, of whatever form: it is not read further, however long it is.
fn out_of_bounds(text: &str) -> Option<RuleError> {
    let error = |line: usize, column: usize, message: String| {
        Some(RuleError { line: line + 1, column, message, hint: Some(SECTIONS.to_owned()) })
    };
    let mut rules = 0;
    for (number, line) in text.split('\n').enumerate() {
        if line.len() > MAX_LINE {
            return error(number, 1, format!("a line of {} bytes, which no ruleset has", line.len()));
        }
        if let Some(at) = line.bytes().position(|byte| byte == 0) {
            return error(number, column(line, at), "byte 0x00, which no ruleset has".to_owned());
        }
        rules += usize::from(line.starts_with("-A") || line.starts_with("-I"));
        if rules > MAX_RULES {
            return error(number, 1, format!("more than {MAX_RULES} rules, which no ruleset has"));
        }
    }
    None
}

fn is_of_set(line: &str) -> bool {
    line.starts_with("create ") || line.starts_with("add ")
}

/// Names text that holds no rules for what it is, and says what to do.
fn what_it_is(text: &str) -> RuleError {
    let is_stray = |line: &str| !line.is_empty() && !line.starts_with('#') && !is_of_set(line);
    let beginning = &text[..text.floor_char_boundary(BYTES_LOOKED_AT)];
    let found = text.lines().enumerate().find(|(_, line)| is_stray(line.trim()));
    let (number, line) = found.unwrap_or((0, ""));
    let start = line.len() - line.trim_start().len();
    let word = line.trim_start();
    let is_nft = [
        "table ip",
        "table inet",
        "table arp",
        "table bridge",
        "table netdev",
        "flush ruleset",
        "add table",
        "nft ",
    ];
    let asks = |typed: &Typed| {
        typed.words.iter().skip(1).any(|word| ["-A", "-I", "-P", "-F", "-N", "-t"].contains(&&*word.text))
    };
    let (message, hint) =
        if word.starts_with("Chain ") && (word.contains("(policy ") || word.contains(" references)")) {
            (
                "this is what `iptables -L` prints, which leaves half of each rule out",
                "`iptables-save` prints all of it",
            )
        } else if is_nft.iter().any(|begin| word.starts_with(begin)) {
            (
                "this is a ruleset of nft, not of iptables",
                "`iptables-save` prints rules that `iptables-nft` made; others have no iptables text",
            )
        } else if shell::commands(beginning, LOOKED_AT)
            .iter()
            .any(|typed| typed.expansion.is_some() && asks(typed))
        {
            ("this is a shell script: its variables are not expanded here", RUN_IT)
        } else {
            ("this is no ruleset: no line begins a table's section", SECTIONS)
        };
    RuleError {
        line: number + 1,
        column: column(line, start),
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    }
}

impl Reader<'_> {
    /// A script of typed commands. What in it is not one of them is said once, and spoils none of the others.
    pub(in crate::filter) fn script(&mut self, text: &str) {
        let (mut expanded, mut shell, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let commands = shell::commands(text, MAX_COMMANDS + 1);
        if let Some(beyond) = commands.get(MAX_COMMANDS) {
            self.line = beyond.line;
            let message = format!("more than {MAX_COMMANDS} commands, which no script has");
            return self.error(beyond.text, Problem::new(0, message));
        }
        for typed in commands {
            self.line = typed.line;
            let Some(first) = typed.words.first() else { continue };
            if let Some(at) = typed.unclosed {
                self.error(typed.text, unclosed_quote(at));
            } else if let Some((family, options)) = program(&typed.words) {
                match typed.expansion {
                    Some(at) => expanded.push((typed, at)),
                    None => self.typed(typed.text, first.at, family, typed.words[options..].to_vec()),
                }
            } else if is_of_set(typed.text.trim_start()) {
                self.read_line(typed.text);
            } else if is_shell(&typed) {
                shell.push((typed, 0));
            } else {
                others.push((typed, 0));
            }
        }
        self.say_once(&expanded, "variables of the shell are not expanded", RUN_IT);
        self.say_once(&shell, "this is shell, which is not run here", RUN_IT);
        self.say_once(&others, "this is no iptables command; lines are commands here", "leave it out");
    }

    /// Says of the first of several commands what is wrong with all of them.
    fn say_once(&mut self, all: &[(Typed<'_>, usize)], message: &str, hint: &str) {
        let Some((typed, at)) = all.first() else { return };
        self.line = typed.line;
        let at = (*at).max(typed.words.first().map_or(0, |word| word.at));
        let more = match all.len() - 1 {
            0 => String::new(),
            1 => "; one more is like that".to_owned(),
            n => format!("; {n} more are like that"),
        };
        self.error(typed.text, Problem::new(at, format!("{message}{more}")).hint(hint));
    }
}

/// Words and assignments that only a shell understands.
fn is_shell(typed: &Typed) -> bool {
    const WORDS: [&str; 24] = [
        "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "in",
        "function", "{", "}", "set", "exit", "return", "export", "local", "source", ".", "[",
    ];
    let word = typed.words.first().map_or("", |word| &*word.text);
    let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    typed.expansion == typed.words.first().map(|word| word.at) && typed.expansion.is_some()
        || is_assignment
        || WORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Family;

    /// The first thing that is wrong with a text.
    fn wrong(text: &str) -> String {
        super::super::save::load(text, Family::Ipv4, &[], false, None).unwrap_err()[0].to_string()
    }

    #[test]
    fn what_no_ruleset_has_is_refused_before_it_is_read() {
        let rules = |count: usize| format!("*filter\n{}COMMIT\n", "-A FORWARD\n".repeat(count));
        let long = |len: usize| format!("*filter\n# {}\nCOMMIT\n", "x".repeat(len - 2));
        assert!(
            wrong(&rules(MAX_RULES + 1))
                .starts_with("500002:1: more than 500000 rules, which no ruleset has")
        );
        assert!(form_of(&rules(MAX_RULES)).is_sections());
        assert!(wrong(&long(MAX_LINE + 1)).starts_with("2:1: a line of 65537 bytes, which no ruleset has"));
        assert!(form_of(&long(MAX_LINE)).is_sections());
        assert!(wrong("*filter\nCOMM\0IT\n").starts_with("2:5: byte 0x00, which no ruleset has"));
        // Neither as commands of a shell, nor in a file that holds nothing else.
        assert!(wrong("iptables -A FORWARD \0").starts_with("1:21: byte 0x00"));
        assert!(wrong(&"\0".repeat(100)).starts_with("1:1: byte 0x00"));
    }

    impl Form {
        fn is_sections(&self) -> bool {
            matches!(self, Self::Sections)
        }
    }
}
