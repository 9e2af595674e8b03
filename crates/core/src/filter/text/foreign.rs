//! What kind of text rules come in, and what is said of text that is none.

#![forbid(unsafe_code)]

use crate::filter::RuleError;
use crate::filter::text::lex::{Token, column, tokens};
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
    // `*)` is a pattern of a shell.
    let begins_table = |line: &str| line.strip_prefix('*').is_some_and(|name| !name.starts_with(')'));
    if lines().any(begins_table) {
        if let Some(embedded) = ruleset_in_script(text, begins_table) {
            return Form::Foreign(embedded);
        }
        return Form::Sections;
    }
    let is_typed = |line: &str| program(&tokens(line, 0)).is_some() || ipset(&tokens(line, 0)).is_some();
    // Text of millions of short lines is searched as a whole.
    let may_be_typed = text.contains("tables") || text.contains("ipset");
    if may_be_typed && lines().any(is_typed) {
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
    if let Some(at) = text.find('\0') {
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let number = text[..start].matches('\n').count();
        return error(
            number,
            column(&text[start..], at - start),
            "byte 0x00, which no ruleset has".to_owned(),
        );
    }
    if text.starts_with('\u{feff}') {
        return Some(RuleError {
            line: 1,
            column: 1,
            message: "a byte order mark, which cannot be seen, stands in front of the text".to_owned(),
            hint: Some("save the file as UTF-8 without it: `sed -i '1s/^\\xef\\xbb\\xbf//' FILE`".to_owned()),
        });
    }
    let mut rules = 0;
    for (number, line) in text.split('\n').enumerate() {
        if line.len() > MAX_LINE {
            return error(number, 1, format!("a line of {} bytes, which no ruleset has", line.len()));
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

/// A ruleset within a script: `iptables-restore <<EOF`, `cat >FILE <<EOF`, a text in quotes.
fn ruleset_in_script(text: &str, begins_table: impl Fn(&str) -> bool) -> Option<RuleError> {
    let begins_document = |line: &str| line.contains("<<") && !line.starts_with('#');
    let lines = || text.lines().map(str::trim).enumerate();
    let restored = lines().find(|(_, line)| line.contains("tables-restore") && begins_document(line));
    // What stands in front of the first table is no text of a rule.
    let before = || lines().take_while(|(_, line)| !begins_table(line));
    let number = restored
        .or_else(|| before().find(|(_, line)| begins_document(line)))
        .or_else(|| before().last().filter(|_| interpreter(text).is_some()))?
        .0;
    Some(RuleError {
        line: number + 1,
        column: 1,
        message: "this is a shell script with a ruleset in it".to_owned(),
        hint: Some("give the lines from `*TABLE` to `COMMIT` as a file of their own".to_owned()),
    })
}

/// What a script is run by, if its first line says so: `sh`, `perl`; not what reads rulesets itself.
fn interpreter(text: &str) -> Option<&str> {
    let mut words = text.lines().next()?.strip_prefix("#!")?.split_whitespace();
    let name = words.next()?.rsplit('/').next()?;
    let name = if name == "env" { words.find(|word| !word.starts_with('-'))? } else { name };
    (!name.ends_with("tables-restore") && name != "nft").then_some(name)
}

/// `ipset create …`, also behind `sudo`: how many words come before what it is to do.
fn ipset(words: &[Token<'_>]) -> Option<usize> {
    let skipped = usize::from(words.first()?.text == "sudo");
    (words.get(skipped)?.text.rsplit('/').next()? == "ipset").then_some(skipped + 1)
}

/// Text in which no line begins with a command of iptables, though one holds such a command.
fn behind_something(text: &str) -> Option<RuleError> {
    let commands = shell::commands(text, LOOKED_AT);
    let is_command = |pair: &[Token<'_>]| {
        let name = pair[0].text.rsplit('/').next().unwrap_or_default();
        ["iptables", "ip6tables"].contains(&name) && pair[1].text.starts_with('-')
    };
    commands.iter().find_map(|typed| {
        let at = typed.words.windows(2).position(is_command).filter(|at| *at > 0)?;
        let before = typed.words[at].at;
        Some(RuleError {
            line: typed.line,
            column: column(typed.text, before),
            message: format!("`{}` does not begin this line", typed.words[at].text),
            hint: Some("leave out what stands in front of it: a prompt, another command".to_owned()),
        })
    })
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
    if let Some(error) = behind_something(beginning) {
        return error;
    }
    let begins = |names: &[&str]| {
        let name = word.trim_start_matches("sudo ").split_whitespace().next().unwrap_or_default();
        names.contains(&name.rsplit('/').next().unwrap_or_default())
    };
    let (message, hint) = if word.starts_with("Chain ")
        && (word.contains("(policy ") || word.contains(" references)"))
    {
        (
            "this is what `iptables -L` prints, which leaves half of each rule out",
            "`iptables-save` prints all of it",
        )
    } else if is_nft.iter().any(|begin| word.starts_with(begin)) {
        (
            "this is a ruleset of nft, not of iptables",
            "`iptables-save` prints rules that `iptables-nft` made; others have no iptables text",
        )
    } else if begins(&["ufw", "firewall-cmd", "shorewall", "csf", "fail2ban-client"]) {
        (
            "these are commands of another program, not of iptables",
            "`iptables-save` prints the rules that it made",
        )
    } else if begins(&["iptables-restore", "ip6tables-restore"]) {
        ("the rules are in another file", "give the file that it reads")
    } else if shell::commands(beginning, LOOKED_AT)
        .iter()
        .any(|typed| typed.expansion.is_some() && asks(typed))
    {
        ("this is a shell script: its variables are not expanded here", RUN_IT)
    } else if let Some(name) = interpreter(text) {
        let hint =
            if name.ends_with("sh") { RUN_IT } else { "`iptables-save` after running it gives a ruleset" };
        ("this is a script, which is not run here", hint)
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
        let functions: Vec<String> = commands.iter().filter_map(function).map(str::to_owned).collect();
        let last = commands.last().map_or(0, |typed| typed.line);
        for typed in commands {
            self.line = typed.line;
            let Some(first) = typed.words.first() else { continue };
            if let Some(at) = typed.unclosed {
                self.error(typed.text, unclosed_quote(at));
            } else if let Some(at) = blank_behind_backslash(&typed) {
                let problem =
                    Problem::new(at, "a blank stands behind the `\\`, so that the line does not go on");
                self.error(typed.text, problem.hint("the `\\` comes last in its line"));
            } else if let Some((family, options)) = program(&typed.words) {
                match typed.expansion {
                    Some(at) => expanded.push((typed, at)),
                    None => self.typed(typed.text, first.at, family, typed.words[options..].to_vec()),
                }
            } else if let Some(options) = ipset(&typed.words) {
                match typed.expansion {
                    Some(at) => expanded.push((typed, at)),
                    None if self.ipset(typed.text, &typed.words[options..]) => {}
                    None => others.push((typed, 0)),
                }
            } else if is_of_set(typed.text.trim_start()) {
                self.read_line(typed.text);
            } else if is_shell(&typed) || functions.iter().any(|name| *name == first.text) {
                if !says_nothing(&typed, typed.line == last) {
                    shell.push((typed, 0));
                }
            } else {
                others.push((typed, 0));
            }
        }
        self.say_once(&expanded, "variables of the shell are not expanded", RUN_IT);
        self.say_once(&shell, "this is shell, which is not run here", RUN_IT);
        self.say_once(&others, "this is no iptables command; lines are commands here", "leave it out");
    }

    /// What `ipset` is told to do; `false` if that is nothing that a ruleset can say.
    fn ipset(&mut self, line: &str, words: &[Token<'_>]) -> bool {
        const ASIDE: [&str; 4] = ["-exist", "-!", "-quiet", "-q"];
        let is_lenient = words.iter().any(|word| ["-exist", "-!"].contains(&&*word.text));
        let words: Vec<_> = words.iter().filter(|word| !ASIDE.contains(&&*word.text)).cloned().collect();
        match words.first().map_or("", |word| &*word.text) {
            "create" | "-N" | "n"
                if is_lenient && words.get(1).is_some_and(|name| self.has_set(&name.text)) => {}
            "create" | "-N" | "n" => self.create_set(line, &words),
            "add" | "-A" => self.add_to_set(line, &words),
            // Its sets are new, and empty.
            "flush" | "-F" | "destroy" | "-X" => {}
            _ => return false,
        }
        true
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

/// What follows on the first word of a command, in the script.
fn behind_first<'a>(typed: &Typed<'a>) -> &'a str {
    let rest = typed.words.first().and_then(|word| typed.text.get(word.at + word.text.len()..));
    rest.unwrap_or_default().trim_start()
}

/// The name of the function that begins here: `block() {`.
fn function<'a>(typed: &'a Typed<'_>) -> Option<&'a str> {
    let [first, second, ..] = &typed.words[..] else {
        return typed.words.first().filter(|_| behind_first(typed).starts_with("()")).map(|word| &*word.text);
    };
    (first.text == "function").then_some(&*second.text)
}

/// `\` and a blank at the end of a line, which was meant to go on.
fn blank_behind_backslash(typed: &Typed) -> Option<usize> {
    let blank = typed.words.iter().find(|word| {
        let rest = typed.text.get(word.at..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        line.strip_prefix('\\').is_some_and(|behind| !behind.is_empty() && behind.trim().is_empty())
    })?;
    Some(blank.at)
}

/// `exit 0` at the end, `set -e`: without it the rules are the same.
fn says_nothing(typed: &Typed, is_last: bool) -> bool {
    let words: Vec<&str> = typed.words.iter().map(|word| &*word.text).collect();
    match words[..] {
        ["exit"] | ["exit", "0"] => is_last,
        ["set", ref options @ ..] => {
            options.iter().all(|option| option.starts_with(['-', '+']) || *option == "pipefail")
        }
        _ => false,
    }
}

/// Words and assignments that only a shell understands.
fn is_shell(typed: &Typed) -> bool {
    // A function, a pattern of `case`.
    if behind_first(typed).starts_with("()") || behind_first(typed).starts_with(')') {
        return true;
    }
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
