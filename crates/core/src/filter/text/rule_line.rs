//! One line of a ruleset: a command of iptables with its conditions and its target.

#![forbid(unsafe_code)]

use crate::filter::kept::shared::Shared;
use crate::filter::matches::{self, Match, Setting};
use crate::filter::rule::{AddrMatch, Count, IfaceMatch, Matches, ProtoMatch, Rule};
use crate::filter::targets::{self, Target};
use crate::filter::text::base::{self, LETTERS};
use crate::filter::text::lex::Token;
use crate::filter::text::options::{
    Args, Found, Given, Opt, Options, Problem, did_you_mean, find, meant_option, split_long,
};
use crate::filter::text::value::{Network, number};
use crate::filter::text::{hints, names, value};
use crate::packet::Family;
use core::cell::RefCell;
use core::iter::repeat_n;
use std::borrow::Cow;

/// What a line of a table asks for.
#[derive(Debug)]
pub(in crate::filter) enum Command {
    Append {
        rules: Vec<DraftRule>,
    },
    /// In front of the rule at this place, from 0.
    Insert {
        place: usize,
        rules: Vec<DraftRule>,
    },
    Replace {
        place: usize,
        rules: Vec<DraftRule>,
    },
    Delete {
        place: usize,
    },
    DeleteSame {
        rules: Vec<DraftRule>,
    },
    Flush,
    /// Of one rule, from 0, or of the whole chain.
    Zero {
        place: Option<usize>,
    },
    NewChain,
    DeleteChain,
    Rename {
        to: String,
    },
    Policy {
        policy: String,
        count: Count,
        at: usize,
    },
}

/// A command and the chain that it is for; `None` stands for all chains.
#[derive(Debug)]
pub(in crate::filter) struct Line {
    pub(in crate::filter) command: Command,
    pub(in crate::filter) chain: Option<String>,
    pub(in crate::filter) chain_at: usize,
}

/// A rule whose jump is still a name.
#[derive(Clone, Debug)]
pub(in crate::filter) struct DraftRule {
    pub(in crate::filter) rule: Rule,
    pub(in crate::filter) jump: Option<Jump>,
    /// Where `-j` and its target stand: what a complaint about the target points at.
    pub(in crate::filter) target_at: usize,
}

#[derive(Clone, Debug)]
pub(in crate::filter) struct Jump {
    pub(in crate::filter) to: String,
    pub(in crate::filter) goto: bool,
}

/// What a line is read in.
pub(in crate::filter) struct Surroundings<'a> {
    pub(in crate::filter) family: Family,
    pub(in crate::filter) ifaces: &'a [String],
    pub(in crate::filter) line: usize,
    /// The line begins with `iptables`: it names its table itself.
    pub(in crate::filter) is_typed: bool,
    /// Whether a user chain of that name exists at this line.
    pub(in crate::filter) has_chain: &'a dyn Fn(&str) -> bool,
    /// Names that a jump may have meant.
    pub(in crate::filter) chain_names: &'a dyn Fn() -> Vec<String>,
    /// What the counters in front of the line say.
    pub(in crate::filter) count: Option<Count>,
    pub(in crate::filter) shared: &'a Shared<'a>,
}

/// What was found wrong, and what deserves a second look, in one line.
#[derive(Default)]
pub(in crate::filter) struct Findings {
    pub(in crate::filter) problems: Vec<Problem>,
    pub(in crate::filter) warnings: Vec<Problem>,
    /// The line says itself that it is not for this family.
    pub(in crate::filter) is_for_other_family: bool,
}

/// The base and so many matches and targets fit a list that does not grow.
const USUAL_EXTENSIONS: usize = 6;

/// Reads the words of one command, which begin at `from`. `None` if there is nothing to do; what is wrong is in the
/// findings.
pub(in crate::filter) fn parse(
    words: Vec<Token<'_>>,
    from: usize,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Line> {
    let (mut given, mut is_target) =
        (Vec::with_capacity(USUAL_EXTENSIONS), Vec::with_capacity(USUAL_EXTENSIONS));
    given.push(Options::new("iptables", base::known(around.family), from));
    is_target.push(false);
    let mut reader = Reader {
        words,
        next: 0,
        negated: None,
        given,
        is_target,
        command: None,
        proto: None,
        proto_match: false,
        around,
        findings,
    };
    reader.read();
    reader.finish()
}

/// The command letter with its chain and place.
struct Asked<'a> {
    name: &'static str,
    chain: Option<Token<'a>>,
    /// A rule number or a second name.
    second: Option<Token<'a>>,
    at: usize,
}

/// Sorts the words of a line into the options of the base and of each extension.
struct Reader<'a, 'e> {
    words: Vec<Token<'a>>,
    next: usize,
    /// Where the `!` stands that waits for its option.
    negated: Option<usize>,
    /// The base's options first, then each extension's in the order in which they were named.
    given: Vec<Options<'a>>,
    /// Which of `given` is the target.
    is_target: Vec<bool>,
    command: Option<Asked<'a>>,
    proto: Option<(ProtoMatch, usize)>,
    /// The protocol has brought its match along.
    proto_match: bool,
    around: &'e Surroundings<'e>,
    findings: &'e mut Findings,
}

impl<'a> Reader<'a, '_> {
    fn problem(&mut self, problem: Problem) {
        self.findings.problems.push(problem);
    }

    fn take(&mut self) -> Option<Token<'a>> {
        let word = self.words.get(self.next).cloned();
        self.next += usize::from(word.is_some());
        word
    }

    fn read(&mut self) {
        while let Some(word) = self.take() {
            if word.text == "!" {
                if self.negated.replace(word.at).is_some() {
                    self.problem(Problem::new(word.at, "`!` stands twice"));
                }
                continue;
            }
            if word.text == "--" {
                self.end_of_options();
                break;
            }
            let negated = self.negated.take();
            if let Some(long) = word.text.strip_prefix("--") {
                let (name, value) = split_long(long);
                let value = value
                    .map(|v| Token { text: Cow::Owned(v.into_owned()), at: word.at + 2 + name.len() + 1 });
                self.long(name, value, word.at, negated);
            } else if self.is_long_with_one_dash(&word.text) || !word.text.starts_with('-') {
                self.stray(&word);
            } else {
                self.letters(&word, negated);
            }
        }
        if let Some(at) = self.negated {
            self.problem(Problem::new(at, "`!` stands in front of nothing"));
        }
    }

    /// `--`: options end here, and the tools take nothing else.
    fn end_of_options(&mut self) {
        if let Some(word) = self.take() {
            let message = format!("`{}` stands behind `--`, which ends the options", word.text);
            self.problem(Problem::new(word.at, message));
        }
    }

    /// Options of one letter in one word: flags first, and the value of the last one behind it, as getopt has it.
    fn letters(&mut self, word: &Token<'a>, negated: Option<usize>) {
        for (place, letter) in word.text.char_indices().skip(1) {
            let Some(opt) = base::of_letter(letter) else { return self.stray(word) };
            let rest = place + letter.len_utf8();
            let glued = base::takes_rest(opt) && rest < word.text.len();
            if glued && base::stands_alone(opt) {
                let problem = Problem::new(word.at, format!("`{}` belongs to no option", word.text));
                let hint = format!("`-{letter} {}`, with a blank between", &word.text[rest..]);
                return self.problem(problem.hint(hint));
            }
            let value =
                glued.then(|| Token { text: Cow::Owned(word.text[rest..].to_owned()), at: word.at + rest });
            let at = if place == 1 { word.at } else { word.at + place };
            self.base(opt, value, at, negated);
            if base::takes_rest(opt) {
                return;
            }
        }
        if word.text == "-" {
            self.stray(word);
        }
    }

    /// `-dport`: read as letters it would be an address that nobody has.
    fn is_long_with_one_dash(&self, text: &str) -> bool {
        let Some(name) = text.strip_prefix('-').filter(|n| n.len() > 1) else { return false };
        let of_matches = matches::SPECS.iter().flat_map(|s| s.options);
        let of_targets = targets::SPECS.iter().flat_map(|s| s.options);
        let of_line = self.given.iter().flat_map(|g| g.known);
        of_line.chain(of_matches).chain(of_targets).any(|o| o.is(name))
    }

    /// A word that is no option.
    fn stray(&mut self, word: &Token<'_>) {
        let text = &*word.text;
        let problem = Problem::new(word.at, format!("`{text}` belongs to no option"));
        let before = &self.words[..self.next.saturating_sub(1)];
        let problem = match text.strip_prefix('-') {
            Some(name) if self.is_long_with_one_dash(text) => {
                self.skip_values();
                problem.hint(format!("`--{name}`, with two dashes"))
            }
            _ => match hints::of_stray(text, before, self.around.has_chain) {
                Some(hint) => problem.hint(hint),
                None => problem,
            },
        };
        self.problem(problem);
    }

    /// Passes over what follows an option that nobody knows, up to the next one.
    fn skip_values(&mut self) {
        while self.words.get(self.next).is_some_and(|w| !w.text.starts_with('-') && w.text != "!") {
            self.next += 1;
        }
    }

    fn long(&mut self, name: &str, value: Option<Token<'a>>, at: usize, negated: Option<usize>) {
        loop {
            match find(&self.given, name) {
                Found::One(0, opt) => return self.base(opt, value, at, negated),
                Found::One(place, opt) => return self.give(place, opt, value, at, negated),
                Found::Ambiguous(names) => {
                    self.skip_values();
                    let names: Vec<String> = names.iter().map(|n| format!("`--{n}`")).collect();
                    let problem = Problem::new(at, format!("`--{name}` is the beginning of several options"));
                    return self.problem(problem.hint(format!("one of {}", names.join(", "))));
                }
                Found::None if self.bring_protocol_match(name) => {}
                Found::None => match base::named(name).filter(|opt| opt.name == "fragments") {
                    Some(opt) => return self.base(opt, value, at, negated),
                    None => return self.unknown(name, at),
                },
            }
        }
    }

    /// An option that nobody knows.
    fn unknown(&mut self, name: &str, at: usize) {
        self.skip_values();
        let own = self.proto.and_then(|(p, _)| names::protocol_name(p.proto));
        if let Some((own, reason)) = own.and_then(|own| Some((own, matches::refused(own)?))) {
            let message = format!("options of match `{own}` are not honoured: {reason}");
            return self.problem(Problem::new(at, message));
        }
        // The protocol's own options count as known, even if none has been used so far.
        let of_proto = |s: &&matches::Spec| self.proto.is_some_and(|(p, _)| s.implied_by(p.proto));
        let of_proto = matches::SPECS.iter().filter(of_proto).flat_map(|s| s.options);
        let known = self.given.iter().flat_map(|g| g.known).chain(of_proto).map(|o| o.name);
        let elsewhere = matches::SPECS.iter().flat_map(|s| s.options).map(|o| o.name);
        let alike = hints::same_word(name, known.clone()).map(|meant| format!("did you mean `--{meant}`?"));
        let others = || hints::needed_for(name).or_else(|| hints::of_other_targets(name));
        let hint = alike.or_else(others).or_else(|| {
            if let Some(meant) = meant_option(name, known) {
                return Some(format!("did you mean `--{meant}`?"));
            }
            let meant = meant_option(name, elsewhere)?;
            Some(format!("did you mean `--{meant}`? {}", hints::needed_for(meant)?))
        });
        let problem = Problem::new(at, format!("no option `--{name}` here"));
        self.problem(match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }

    /// Loads the match of the protocol, once, when an option is met that it alone knows.
    fn bring_protocol_match(&mut self, option: &str) -> bool {
        let Some((proto, at)) = self.proto.filter(|_| !self.proto_match) else { return false };
        let family = self.around.family;
        let of_proto = |s: &&matches::Spec| s.implied_by(proto.proto) && s.family.is_none_or(|f| f == family);
        let Some(spec) = matches::SPECS.iter().find(of_proto) else { return false };
        let is_there = self.given.iter().any(|g| g.name == spec.name);
        if is_there || matches!(find(&[Options::new(spec.name, spec.options, at)], option), Found::None) {
            return false;
        }
        self.proto_match = true;
        self.extend(spec.name, spec.options, at, false);
        true
    }

    fn extend(&mut self, name: &'static str, known: &'static [Opt], at: usize, is_target: bool) {
        self.given.push(Options::new(name, known, at));
        self.is_target.push(is_target);
    }

    /// Notes an option with its values.
    fn give(
        &mut self,
        place: usize,
        opt: &'static Opt,
        value: Option<Token<'a>>,
        at: usize,
        negated: Option<usize>,
    ) {
        let mut args = Args::new();
        args.extend(value);
        split_counters(opt, &mut args);
        if args.len() > usize::from(opt.args) {
            return self.problem(Problem::new(at, format!("`--{}` takes no value", opt.name)));
        }
        while args.len() < usize::from(opt.args) {
            // The second of two values cannot be an option; a single one may begin with a dash.
            let is_value = |w: &&Token<'_>| args.is_empty() || !w.text.starts_with('-');
            let Some(word) = self.words.get(self.next).filter(is_value).cloned() else {
                let needs = if opt.args == 1 { "a value" } else { "two values" };
                let problem = Problem::new(at, format!("`--{}` needs {needs}", opt.name));
                return self.problem(match hints::of_values(opt.name) {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
            };
            self.next += 1;
            args.push(word);
            split_counters(opt, &mut args);
        }
        if let Some(reason) = opt.refused {
            return self.problem(Problem::new(at, format!("`--{}` is not honoured: {reason}", opt.name)));
        }
        if let Some(at) = negated.filter(|_| !opt.negatable) {
            return self
                .problem(Problem::new(at, format!("`--{}` cannot be turned round with `!`", opt.name)));
        }
        if !opt.repeats && self.given[place].has(opt.name) {
            let problem = Problem::new(at, format!("`--{}` stands twice", opt.name));
            let (owner, last) = (self.given[place].name, &self.given[self.given.len() - 1]);
            let is_meant_for_last = last.name != owner && last.known.iter().any(|o| o.name == opt.name);
            let hint = if is_meant_for_last {
                Some(format!(
                    "it belongs to `-m {owner}`: in front of that, all of `-m {}` must stand",
                    last.name
                ))
            } else {
                hints::of_second(opt.name).map(str::to_owned)
            };
            return self.problem(match hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        }
        // What is searched for may be a `!`.
        let is_text = matches!(opt.name, "string" | "hex-string" | "helper")
            && self.words.get(self.next).is_none_or(|next| next.text.starts_with('-') || next.text == "!");
        if args.iter().any(|a| a.text == "!") && opt.negatable && !is_text {
            let problem = Problem::new(args[0].at, "`!` stands behind its option");
            let letter = LETTERS.iter().find(|(_, name)| *name == opt.name);
            let name = letter.map_or_else(|| format!("--{}", opt.name), |(letter, _)| (*letter).to_owned());
            let value = self.take().map_or_else(|| "…".to_owned(), |w| w.text.into_owned());
            return self.problem(problem.hint(format!("`! {name} {value}`")));
        }
        self.given[place].given.push(Given { opt, negated: negated.is_some(), args, at });
    }

    fn base(&mut self, opt: &'static Opt, value: Option<Token<'a>>, at: usize, negated: Option<usize>) {
        let name = opt.name;
        match name {
            "append" | "insert" | "replace" | "delete" | "flush" | "zero" | "new-chain" | "delete-chain"
            | "rename-chain" | "policy" | "check" | "list" | "list-rules" => self.command(name, value, at),
            _ => {
                let before = self.given[0].given.len();
                self.give(0, opt, value, at, negated);
                if self.given[0].given.len() > before {
                    self.act(name);
                }
            }
        }
    }

    fn command(&mut self, name: &'static str, value: Option<Token<'a>>, at: usize) {
        let is_word = |w: &Token<'_>| !w.text.starts_with('-') && w.text != "!";
        let word = |reader: &mut Self| {
            reader.words.get(reader.next).filter(|w| is_word(w)).cloned().inspect(|_| reader.next += 1)
        };
        let chain = value.or_else(|| word(self));
        let second = match name {
            "insert" | "replace" | "delete" | "zero" | "rename-chain" | "policy" => word(self),
            _ => None,
        };
        if self.command.is_some() {
            return self.problem(Problem::new(at, "a line can have only one command"));
        }
        self.command = Some(Asked { name, chain, second, at });
    }

    /// What an option of the base means for those that follow it.
    fn act(&mut self, name: &str) {
        // It is taken out while others are asked about it.
        let Some(given) = self.given[0].given.pop() else { return };
        match name {
            "protocol" => match given.read(|text| parse_protocol(text, given.negated)) {
                Ok(proto) => self.proto = proto.map(|proto| (proto, given.at)),
                Err(problem) => self.problem(problem),
            },
            "match" => self.name_match(&given),
            "jump" => self.name_target(&given),
            "goto" => {
                if let Some(jump) = self.given[0].get("jump") {
                    let at = jump.at.max(given.at);
                    self.problem(Problem::new(at, "only one of `-j` and `-g` is allowed"));
                }
            }
            "table" | "wait" if self.around.is_typed => {}
            "table" => self.problem(
                Problem::new(given.at, "`-t` cannot stand in a table's section")
                    .hint("the table is named by `*NAME`"),
            ),
            "numeric" | "exact" | "wait" | "wait-interval" | "help" | "version" | "line-numbers" => {
                self.problem(Problem::new(given.at, format!("`--{name}` has no meaning in a ruleset")));
            }
            _ => {}
        }
        self.given[0].given.push(given);
    }

    fn name_match(&mut self, given: &Given<'_>) {
        let name = match given.text() {
            "icmpv6" | "ipv6-icmp" => "icmp6",
            name => name,
        };
        let family = self.around.family;
        let spec = matches::SPECS.iter().filter(|s| s.name == name);
        let Some(spec) = spec.clone().find(|s| s.family.is_none_or(|f| f == family)) else {
            if spec.clone().next().is_some() {
                let other = if family == Family::Ipv4 { "IPv6" } else { "IPv4" };
                return self.problem(given.problem(format!("match `{name}` is for {other} only")));
            }
            let honoured = matches::SPECS.iter().map(|s| s.name);
            let problem = match matches::refused(name) {
                Some(reason) => given.problem(format!("match `{name}` is not honoured: {reason}")),
                None => given.problem(format!("no match named `{name}`")),
            };
            self.skip_extension();
            return self.problem(match did_you_mean(name, honoured) {
                Some(hint) if matches::refused(name).is_none() => problem.hint(hint),
                _ => problem,
            });
        };
        self.extend(spec.name, spec.options, given.value_at(), false);
    }

    fn name_target(&mut self, given: &Given<'_>) {
        let name = given.text();
        if self.given[0].has("goto") {
            return self.problem(Problem::new(given.at, "only one of `-j` and `-g` is allowed"));
        }
        if targets::standard(name).is_some() || (self.around.has_chain)(name) {
            return;
        }
        let family = self.around.family;
        let spec = targets::SPECS.iter().find(|s| s.name == name);
        let Some(spec) = spec else {
            let chains = (self.around.chain_names)();
            let known = targets::SPECS.iter().map(|s| s.name).chain(["ACCEPT", "DROP", "RETURN"]);
            let known = known.chain(chains.iter().map(String::as_str));
            let problem = if let Some(reason) = targets::refused(name) {
                given.problem(format!("target `{name}` is not honoured: {reason}"))
            } else {
                let declare = || format!("a chain is declared before it is used: `:{name} - [0:0]`");
                let problem = given.problem(format!("no chain or target named `{name}`"));
                problem.hint(did_you_mean(name, known).unwrap_or_else(declare))
            };
            self.skip_extension();
            return self.problem(problem);
        };
        if spec.family.is_some_and(|f| f != family) {
            let other = if family == Family::Ipv4 { "IPv6" } else { "IPv4" };
            return self.problem(given.problem(format!("target `{name}` is for {other} only")));
        }
        self.extend(spec.name, spec.options, given.value_at(), true);
    }

    /// Passes over the options of an extension that is not there, so that they are not complained about as well.
    fn skip_extension(&mut self) {
        while let Some(word) = self.words.get(self.next) {
            if LETTERS.iter().any(|(letter, _)| *letter == word.text) {
                let behind_not = self.next > 0 && self.words[self.next - 1].text == "!";
                self.next -= usize::from(behind_not);
                return;
            }
            self.next += 1;
        }
    }

    fn finish(mut self) -> Option<Line> {
        let Some(Asked { name, chain, second, at }) = self.command.take() else {
            if self.findings.problems.is_empty() {
                let at = self.words.first().map_or(0, |w| w.at);
                self.problem(
                    Problem::new(at, "the line has no command").hint("a rule begins with `-A CHAIN`"),
                );
            }
            return None;
        };
        if self.is_for_other_family() {
            return None;
        }
        let (chain_at, second_at) =
            (chain.as_ref().map_or(at, |c| c.at), second.as_ref().map_or(at, |s| s.at));
        let chain_name = chain.map(|c| c.text.into_owned());
        let takes_all = matches!(name, "flush" | "zero" | "delete-chain");
        if matches!(name, "check" | "list" | "list-rules") {
            let problem = Problem::new(at, format!("`--{name}` does not change a ruleset"));
            self.problem(problem.hint("leave the line out"));
            return None;
        }
        if chain_name.is_none() && !takes_all {
            self.problem(Problem::new(at, format!("`--{name}` needs the name of a chain")));
            return None;
        }
        let mut place = || match second.as_ref().map(|s| number(&s.text, u64::from(u32::MAX))) {
            None => Some(0),
            Some(Ok(n)) if n > 0 => Some(n as usize - 1),
            Some(_) => {
                let problem = Problem::new(second_at, "a rule number is expected here");
                let is_number = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
                let hint = match (chain_name.as_deref(), second.as_ref()) {
                    (Some(chain), Some(second)) if is_number(chain) && !is_number(&second.text) => {
                        format!("the chain comes first: `{} {chain}`", second.text)
                    }
                    _ => "rules count from 1".to_owned(),
                };
                self.findings.problems.push(problem.hint(hint));
                None
            }
        };
        let command = match name {
            "append" => Command::Append { rules: self.rules()? },
            "insert" => Command::Insert { place: place()?, rules: self.rules()? },
            "replace" if second.is_none() => {
                let problem = Problem::new(at, "`--replace` needs the number of a rule behind the chain");
                self.problem(problem.hint(format!("`-R {} 1 …`", chain_name.as_deref().unwrap_or("CHAIN"))));
                return None;
            }
            "replace" => Command::Replace { place: place()?, rules: self.rules()? },
            "delete" if second.is_some() => {
                let place = place()?;
                if let Some(given) = self.given[0].given.first() {
                    let problem =
                        Problem::new(given.at, "a rule is deleted by its number or by what it says");
                    self.problem(problem.hint("leave out one of the two"));
                    return None;
                }
                Command::Delete { place }
            }
            "delete" => Command::DeleteSame { rules: self.rules()? },
            "flush" => Command::Flush,
            "zero" => Command::Zero { place: second.as_ref().map_or(Some(None), |_| place().map(Some))? },
            "new-chain" => Command::NewChain,
            "delete-chain" => Command::DeleteChain,
            "rename-chain" => {
                let Some(second) = second else {
                    self.problem(Problem::new(at, "`--rename-chain` needs the old and the new name"));
                    return None;
                };
                Command::Rename { to: second.text.into_owned() }
            }
            "policy" => {
                let base = self.given.remove(0);
                Command::Policy {
                    policy: second.map_or_else(String::new, |s| s.text.into_owned()),
                    count: self.counters(&base),
                    at: second_at,
                }
            }
            _ => return None,
        };
        self.findings.problems.is_empty().then_some(Line { command, chain: chain_name, chain_at })
    }

    /// `-4` in IPv6 rules and `-6` in IPv4 rules: the line is meant for the other family.
    fn is_for_other_family(&mut self) -> bool {
        let other = if self.around.family == Family::Ipv4 { "ipv6" } else { "ipv4" };
        let Some(at) = self.given[0].get(other).map(|g| g.at) else { return false };
        let warning = Problem::new(at, format!("the line is for {other} and is passed over here"));
        self.findings.warnings.push(warning);
        self.findings.problems.clear();
        self.findings.is_for_other_family = true;
        true
    }

    /// Builds the rules of the line: several addresses make several rules.
    fn rules(&mut self) -> Option<Vec<DraftRule>> {
        let problems_before = self.findings.problems.len();
        let base = self.given.remove(0);
        self.is_target.remove(0);
        let sources = self.addresses(&base, "source");
        let destinations = self.addresses(&base, "destination");
        let in_iface = self.iface(&base, "in-interface");
        let out_iface = self.iface(&base, "out-interface");
        let fragment = self.fragment(&base);
        let initial = self.counters(&base);
        let (listed, target, target_at) = self.extensions(&base);
        let jump = self.jump(&base);
        if self.findings.problems.len() > problems_before {
            return None;
        }
        let proto = self.proto.map(|(proto, _)| proto);
        let matches = Matches { src: None, dst: None, in_iface, out_iface, proto, fragment, listed };
        let rule = Rule { matches, target, initial, line: self.around.line as u32 };
        let draft = DraftRule { rule, jump, target_at };
        let ends = sources.iter().flat_map(|src| destinations.iter().map(move |dst| (*src, *dst)));
        let count = sources.len() * destinations.len();
        let mut rules = Vec::with_capacity(count);
        rules.extend(ends.zip(repeat_n(draft, count)).map(|(ends, mut draft)| {
            (draft.rule.matches.src, draft.rule.matches.dst) = ends;
            draft
        }));
        Some(rules)
    }

    fn addresses(&mut self, base: &Options<'_>, option: &str) -> Vec<Option<AddrMatch>> {
        let Some(given) = base.get(option) else { return vec![None] };
        let negated = given.negated;
        if negated && given.text().contains(',') {
            let problem = given.problem("`!` cannot turn round a list of addresses");
            self.problem(problem.hint(
                "each address would let the others in: write one rule for each with RETURN, or use a set",
            ));
            return vec![None];
        }
        let mut nets = Vec::new();
        for text in given.text().split(',') {
            match given.read(|_| Network::parse(text.trim_start(), self.around.family)) {
                // `-s 0.0.0.0/0` says nothing, and iptables-save leaves it out.
                Ok(net) if net.mask == 0 && !negated => nets.push(None),
                Ok(net) => nets.push(Some(AddrMatch { net, negated })),
                Err(problem) => self.problem(problem),
            }
        }
        nets
    }

    fn iface(&mut self, base: &Options<'_>, option: &str) -> Option<IfaceMatch> {
        let given = base.get(option)?;
        let name = given.text();
        if name.is_empty() {
            self.problem(given.problem("the name of the interface is empty"));
            return None;
        }
        if let Err(problem) = given.read(value::iface_name) {
            self.problem(problem);
            return None;
        }
        let matcher = IfaceMatch::new(name, given.negated, self.around.ifaces);
        if matcher.is_empty() && !self.around.ifaces.is_empty() {
            let names = self.around.ifaces.iter().map(String::as_str);
            let warning = given.problem(format!("no interface named `{name}`"));
            let list: Vec<String> = names.clone().map(|n| format!("`{n}`")).collect();
            let hint =
                did_you_mean(name, names).unwrap_or_else(|| format!("the router has {}", list.join(", ")));
            self.findings.warnings.push(warning.hint(hint));
        }
        Some(matcher)
    }

    fn fragment(&mut self, base: &Options<'_>) -> Option<bool> {
        let given = base.get("fragments")?;
        if self.around.family == Family::Ipv6 {
            self.problem(Problem::new(given.at, "`-f` is for IPv4 only").hint("`-m frag --fragid …`"));
        }
        Some(!given.negated)
    }

    fn counters(&mut self, base: &Options<'_>) -> Count {
        let Some(given) = base.get("set-counters") else { return self.around.count.unwrap_or_default() };
        let mut read = |n| match given.read_arg(n, |text| number(text, u64::MAX)) {
            Ok(value) => value,
            Err(problem) => {
                self.findings.problems.push(problem);
                0
            }
        };
        Count { packets: read(0), bytes: read(1) }
    }

    fn extensions(&mut self, base: &Options<'_>) -> (Vec<Match>, Target, usize) {
        let jump = base.get("jump");
        let mut target = jump.and_then(|j| targets::standard(j.text())).unwrap_or(Target::None);
        let target_at = jump.or_else(|| base.get("goto")).map_or(0, Given::value_at);
        let mut listed = Vec::with_capacity(self.is_target.iter().filter(|is_target| !**is_target).count());
        let family = self.around.family;
        let setting = Setting {
            family,
            proto: self.proto.map(|(p, _)| p),
            proto_at: self.proto.map(|(_, at)| at),
            ifaces: self.around.ifaces,
            shared: self.around.shared,
            warnings: RefCell::default(),
        };
        for (options, is_target) in core::mem::take(&mut self.given).iter().zip(&self.is_target) {
            let protos = if *is_target {
                targets::SPECS.iter().find(|s| s.name == options.name).map_or(&[][..], |s| s.protos)
            } else {
                matches::SPECS.iter().find(|s| s.is(options.name, family)).map_or(&[][..], |s| s.protos)
            };
            let proto_at = self.proto.map(|(_, at)| at);
            if let Err(problem) = needs_protocol(options, protos, setting.proto.zip(proto_at), *is_target) {
                self.findings.problems.push(problem);
                continue;
            }
            let built = if *is_target {
                Target::build(options, &setting).map(|built| target = built)
            } else {
                Match::build(options, &setting).map(|built| listed.push(built))
            };
            if let Err(problem) = built {
                self.findings.problems.push(problem);
            }
        }
        if matches!(target, Target::Tcpmss(_)) && targets::Tcpmss::needs_syn(&listed) {
            let problem = Problem::new(target_at, "target `TCPMSS` needs a match on SYN in the same rule");
            self.findings.problems.push(problem.hint("`-p tcp --tcp-flags SYN,RST SYN`"));
        }
        self.findings.warnings.append(&mut setting.warnings.borrow_mut());
        (listed, target, target_at)
    }

    fn jump(&mut self, base: &Options<'_>) -> Option<Jump> {
        if let Some(given) = base.get("goto") {
            let to = given.text();
            if (self.around.has_chain)(to) {
                return Some(Jump { to: to.to_owned(), goto: true });
            }
            let chains = (self.around.chain_names)();
            let problem = given.problem(format!("no chain named `{to}` to go to"));
            self.problem(match did_you_mean(to, chains.iter().map(String::as_str)) {
                Some(hint) => problem.hint(hint),
                None if targets::standard(to).is_some() => problem.hint(format!("`-j {to}`")),
                None => problem.hint(format!("a chain is declared before it is used: `:{to} - [0:0]`")),
            });
            return None;
        }
        let to = base.get("jump")?.text();
        (targets::standard(to).is_none() && (self.around.has_chain)(to))
            .then(|| Jump { to: to.to_owned(), goto: false })
    }
}

/// `-c 1,2` is as good as `-c 1 2`.
fn split_counters(opt: &Opt, args: &mut Args<'_>) {
    let [word] = &args[..] else { return };
    if opt.name != "set-counters" {
        return;
    }
    let Some((packets, bytes)) = word.text.split_once(',') else { return };
    let second = Token { text: Cow::Owned(bytes.to_owned()), at: word.at + packets.len() + 1 };
    let first = Token { text: Cow::Owned(packets.to_owned()), at: word.at };
    *args = Args::from([first, second]);
}

/// `tcp`, `6`, `all`; `None` stands for any protocol.
fn parse_protocol(
    text: &str,
    negated: bool,
) -> Result<Option<ProtoMatch>, crate::filter::text::options::Complaint> {
    use super::options::Complaint;
    let proto = match number(text, 255) {
        Ok(proto) => proto as u8,
        Err(_) => names::protocol_number(text).ok_or_else(|| {
            let complaint = Complaint::new(format!("no protocol named `{text}`"));
            match did_you_mean(text, names::protocol_names()) {
                Some(hint) => complaint.hint(hint),
                None if text == "!" => complaint.hint("`!` stands in front of the option: `! -p tcp`"),
                None => complaint.hint("a number up to 255 will do"),
            }
        })?,
    };
    match (proto, negated) {
        (0, true) => Err(Complaint::new("a rule for no protocol at all never holds")),
        (0, false) => Ok(None),
        _ => Ok(Some(ProtoMatch { proto, negated })),
    }
}

/// The kernel takes a protocol's extension only behind that protocol.
fn needs_protocol(
    options: &Options<'_>,
    protos: &[u8],
    given: Option<(ProtoMatch, usize)>,
    is_target: bool,
) -> Result<(), Problem> {
    let fits = given.is_some_and(|(p, _)| !p.negated && protos.contains(&p.proto));
    // This one is read by what the protocol calls its ports.
    let first = options.given.first().filter(|_| options.name == "multiport");
    if let Some((first, (_, at))) = first.zip(given).filter(|(first, (_, at))| fits && first.at < *at) {
        let problem = Problem::new(at, format!("`-p` must stand in front of `--{}`", first.opt.name));
        return Err(problem.hint("`-p tcp -m multiport …`"));
    }
    if protos.is_empty() || fits {
        return Ok(());
    }
    let kind = if is_target { "target" } else { "match" };
    let wanted = protos.iter().filter_map(|p| names::protocol_name(*p)).map(|p| format!("`-p {p}`"));
    let wanted: Vec<String> = wanted.collect();
    let wanted = match wanted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => wanted.concat(),
    };
    Err(options.problem(format!("{kind} `{}` needs {wanted} in the same rule", options.name)))
}
