//! iptables-save text ⇄ rules.
//!
//! Reading follows iptables-restore: a table's section begins with `*NAME`, declares its chains with `:NAME POLICY`,
//! gives commands, and takes effect with `COMMIT`. Printing follows iptables-save to the byte, but for its comments.

#![forbid(unsafe_code)]

use crate::filter::check::validate;
use crate::filter::kept::shared::{Named, Shared};
use crate::filter::rule::{Count, Rule};
use crate::filter::text::foreign::{self, Form};
use crate::filter::text::hints;
use crate::filter::text::ipset::{self, Found};
use crate::filter::text::lex::{self, Token, column, tokens};
use crate::filter::text::options::{Problem, did_you_mean};
use crate::filter::text::rule_line::{self, Command, DraftRule, Findings, Line, Surroundings};
use crate::filter::{Hook, Loaded, Policy, RuleError, Ruleset, Table, Target};
use crate::packet::Family;
use core::fmt::{self, Write as _};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

/// The kernel's bound on the name of a chain, without the final zero.
const MAX_CHAIN_NAME: usize = 28;
const TABLES: &str = "the tables are raw, mangle, nat, filter, security";

pub(in crate::filter) const NOT_FOR_FILTERING: &str =
    "`DROP` cannot stand in table `nat`, which is not meant for filtering";

/// Tables as they are written down, before jumps are chains.
#[derive(Debug, Default)]
pub(in crate::filter) struct Draft {
    pub(in crate::filter) tables: [Option<DraftTable>; Table::COUNT],
    /// In the order in which the text first names them.
    pub(in crate::filter) order: Vec<Table>,
}

/// Something for each chain, by its name: of thousands of chains, every line of a ruleset asks for one or two. Nothing
/// that is said or built depends on their order in here.
#[expect(clippy::disallowed_types, reason = "the hasher has fixed keys, and the order is not used")]
pub(in crate::filter) type ByName<T> =
    std::collections::HashMap<String, T, BuildHasherDefault<DefaultHasher>>;

/// One table: base chains in the order of the hooks, and the others.
#[derive(Clone, Debug)]
pub(in crate::filter) struct DraftTable {
    pub(in crate::filter) base: Vec<DraftChain>,
    pub(in crate::filter) user: ByName<DraftChain>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::filter) struct DraftChain {
    pub(in crate::filter) policy: Option<Policy>,
    pub(in crate::filter) count: Count,
    /// `-I` puts rules in front as often as `-A` puts them behind.
    pub(in crate::filter) rules: VecDeque<DraftRule>,
    /// Where it is declared.
    pub(in crate::filter) line: usize,
}

impl DraftTable {
    fn new(table: Table) -> Self {
        let base = DraftChain { policy: Some(Policy::Accept), ..DraftChain::default() };
        Self { base: vec![base; table.hooks().len()], user: ByName::default() }
    }

    /// What `*NAME` does to a table that was there: policies stay, all else goes.
    fn flush(&mut self) {
        self.user.clear();
        for chain in &mut self.base {
            chain.rules.clear();
            chain.count = Count::default();
        }
    }

    /// Names of the chains that are no base chains, in order.
    fn user_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.user.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    fn chain_mut(&mut self, table: Table, name: &str) -> Option<&mut DraftChain> {
        match table.hooks().iter().position(|h| h.word() == name) {
            Some(place) => self.base.get_mut(place),
            None => self.user.get_mut(name),
        }
    }
}

pub(in crate::filter) fn load(
    text: &str,
    family: Family,
    ifaces: &[String],
    counters: bool,
    before: Option<&Named>,
) -> Result<Loaded, Vec<RuleError>> {
    let mut reader = Reader {
        family,
        ifaces,
        counters,
        draft: Draft::default(),
        open: None,
        shared: Shared::new(before),
        line: 0,
        errors: Vec::new(),
        warnings: Vec::new(),
        passed_over: None,
        read: 0,
    };
    match foreign::form_of(text) {
        Form::Sections => reader.sections(text),
        Form::Typed => reader.script(text),
        Form::Listed => reader.listed(text),
        Form::Foreign(error) => return Err(vec![error]),
    }
    reader.refuse_what_is_all_passed_over();
    let passed_over = reader.passed_over.is_some();
    let Reader { draft, shared, mut errors, mut warnings, .. } = reader;
    match validate::build(draft, family, &mut errors, &mut warnings).map(|r| r.naming(shared)) {
        Some(ruleset) if errors.is_empty() => Ok(Loaded { ruleset, warnings, passed_over }),
        _ => {
            errors.sort_by_key(|e| (e.line, e.column));
            Err(said_once(errors))
        }
    }
}

pub(in crate::filter) const SECTIONS: &str = "a section begins with `*filter` and ends with `COMMIT`";

/// A text with so many faults is something else: the rest of it is not looked at.
const MAX_ERRORS: usize = 10_000;
/// So many lines with the same fault are told one by one; of more, the first with their number.
const MAX_ALIKE: usize = 4;

/// A fault that thousands of lines share is said once.
fn said_once(errors: Vec<RuleError>) -> Vec<RuleError> {
    let mut counts: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    let key = |error: &RuleError| (error.message.clone(), error.hint.clone());
    for error in &errors {
        *counts.entry(key(error)).or_default() += 1;
    }
    let mut kept = Vec::new();
    for mut error in errors {
        let Some(count) = counts.get_mut(&key(&error)) else { continue };
        match std::mem::take(count) {
            0 => continue,
            n if n > MAX_ALIKE => {
                error.message = format!("{} (and {} more lines like this one)", error.message, n - 1);
            }
            n => *count = n,
        }
        kept.push(error);
    }
    kept
}

/// A command as people type it, `sudo iptables -t mangle -A …`: its family, and how many words come before its options.
pub(in crate::filter) fn program(words: &[Token<'_>]) -> Option<(Family, usize)> {
    let skipped = usize::from(words.first()?.text == "sudo");
    // `IPT=/sbin/iptables` is none.
    let path = words.get(skipped).filter(|word| !word.text.contains('='))?;
    // `/etc/init.d/iptables save`
    if path.text.contains("/init.d/") {
        return None;
    }
    let name = path.text.rsplit('/').next()?;
    let name = name.strip_suffix("-legacy").or_else(|| name.strip_suffix("-nft")).unwrap_or(name);
    match name {
        "iptables" => Some((Family::Ipv4, skipped + 1)),
        "ip6tables" => Some((Family::Ipv6, skipped + 1)),
        _ => None,
    }
}

pub(in crate::filter) struct Reader<'a> {
    family: Family,
    ifaces: &'a [String],
    /// Counters in the text are taken over.
    counters: bool,
    draft: Draft,
    /// The table whose section is open, and where it began.
    open: Option<(Table, usize)>,
    shared: Shared<'a>,
    pub(in crate::filter) line: usize,
    pub(in crate::filter) errors: Vec<RuleError>,
    pub(in crate::filter) warnings: Vec<RuleError>,
    /// Lines for the other family, and the first of them.
    passed_over: Option<(usize, usize)>,
    /// Lines for this one.
    read: usize,
}

impl Reader<'_> {
    /// `line` may go on over several lines of the text.
    pub(in crate::filter) fn error(&mut self, line: &str, Problem { at, message, hint }: Problem) {
        let before = line.get(..at).unwrap_or(line);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let number = self.line + before.matches('\n').count();
        let column = column(&line[start..], at - start.min(at));
        let hint = hints::of_characters(line.get(at..).unwrap_or_default()).or(hint);
        self.errors.push(RuleError { line: number, column, message, hint });
    }

    /// Text in which tables have sections, as iptables-save prints it.
    fn sections(&mut self, text: &str) {
        self.read_lines(text);
        self.end(text);
    }

    fn read_lines(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate() {
            self.line = number + 1;
            if self.errors.len() >= MAX_ERRORS {
                // Whether its section ends well was not looked at.
                self.open = None;
                return self.error(line, Problem::new(0, "there may be more problems behind this line"));
            }
            self.read_line(line);
        }
    }

    /// What `iptables -S` prints: the commands of one table, `filter` unless it was asked for another.
    fn listed(&mut self, text: &str) {
        self.line = 1;
        self.open_table(Table::Filter);
        self.read_lines(text);
        self.open = None;
    }

    /// A file that is all for the other family is no empty ruleset.
    fn refuse_what_is_all_passed_over(&mut self) {
        let Some((count, line)) = self.passed_over.filter(|_| self.read == 0 && self.errors.is_empty())
        else {
            return;
        };
        let other = if self.family == Family::Ipv4 { Family::Ipv6 } else { Family::Ipv4 };
        let hint = if other == Family::Ipv6 { "`--ipv6` reads them" } else { "leave `--ipv6` out" };
        let message = match count {
            1 => format!("the only rule is for {}: nothing was read", other.name()),
            _ => format!("all {count} lines are for {}: nothing was read", other.name()),
        };
        self.errors.push(RuleError { line, column: 1, message, hint: Some(hint.to_owned()) });
    }

    pub(in crate::filter) fn pass_over(&mut self) {
        let (count, first) = self.passed_over.unwrap_or((0, self.line));
        self.passed_over = Some((count + 1, first));
    }

    pub(in crate::filter) fn read_line(&mut self, line: &str) {
        let start = line.len() - line.trim_start().len();
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        // What a section consists of is no command that somebody typed.
        if !text.starts_with(['-', ':', '[', '*']) {
            let words = tokens(line, 0);
            if let Some((family, options)) = program(&words) {
                return self.typed(line, start, family, words[options..].to_vec());
            }
        }
        match (text.as_bytes()[0], self.open) {
            (b'*', _) => self.begin(line, start),
            _ if text == "COMMIT" => self.commit(line, start),
            (_, None) if text.starts_with("create ") => self.create_set(line, &tokens(line, start)),
            (_, None) if text.starts_with("add ") => self.add_to_set(line, &tokens(line, start)),
            (_, None) => {
                let problem = Problem::new(start, "this line stands outside of a table's section");
                self.error(line, problem.hint(SECTIONS));
                // The rest of the section would be complained about line by line.
                self.open_anyway();
            }
            (b':', Some((table, _))) => self.declare(line, start, table),
            (_, Some((table, _))) => self.command(line, start, table),
        }
    }

    /// A command as people type it: it takes effect at once, on the table that it names. `words` are its options.
    pub(in crate::filter) fn typed(
        &mut self,
        line: &str,
        start: usize,
        family: Family,
        words: Vec<Token<'_>>,
    ) {
        if family != self.family {
            let message = format!("the line is for {} and is passed over here", family.name());
            self.warnings.push(RuleError {
                line: self.line,
                column: column(line, start),
                message,
                hint: None,
            });
            return self.pass_over();
        }
        let behind = |at: usize| words.get(at + 1).map(|w| (&*w.text, w.at));
        let named = words.iter().enumerate().find_map(|(at, word)| match &*word.text {
            "-t" | "--table" => behind(at),
            text => match text.strip_prefix("--table=") {
                Some(name) => Some((name, word.at)),
                None => text.strip_prefix("-t").map(|name| (name, word.at)),
            },
        });
        let (name, at) = named.unwrap_or((Table::Filter.word(), start));
        let Some(table) = Table::ALL.into_iter().find(|t| t.word() == name) else {
            let problem = Problem::new(at, format!("no table named `{name}`"));
            return self.error(line, problem.hint(TABLES));
        };
        if let Some((open, began)) = self.open {
            let problem = Problem::new(start, format!("table `{}` is still open", open.word()));
            let hint =
                format!("its section began in line {began}; inside of it a rule begins with `-A CHAIN`");
            return self.error(line, problem.hint(hint));
        }
        if self.draft.tables[table as usize].is_none() {
            self.open_table(table);
            self.open = None;
        }
        let from = words.first().map_or(line.len(), |word| word.at);
        self.obey(line, (without_waiting(words), from), table, None, true);
    }

    fn open_anyway(&mut self) {
        self.open_table(Table::Filter);
    }

    fn open_table(&mut self, table: Table) {
        self.open = Some((table, self.line));
        if !self.draft.order.contains(&table) {
            self.draft.order.push(table);
        }
        self.draft.tables[table as usize].get_or_insert_with(|| DraftTable::new(table)).flush();
    }

    fn begin(&mut self, line: &str, start: usize) {
        let name = line[start + 1..].split_whitespace().next().unwrap_or("");
        if let Some((open, began)) = self.open {
            let problem = Problem::new(start, format!("table `{}` is still open", open.word()));
            self.error(line, problem.hint(format!("its section began in line {began}; `COMMIT` ends it")));
        }
        if let Some(table) = Table::ALL.into_iter().find(|t| t.word() == name) {
            self.open_table(table);
            return;
        }
        let known = Table::ALL.map(Table::word);
        let problem = Problem::new(start + 1, format!("no table named `{name}`"));
        self.error(line, problem.hint(did_you_mean(name, known).unwrap_or_else(|| TABLES.to_owned())));
        self.open_anyway();
    }

    fn commit(&mut self, line: &str, start: usize) {
        if self.open.take().is_none() {
            self.error(line, Problem::new(start, "`COMMIT` without a table's section"));
        }
    }

    fn end(&mut self, text: &str) {
        let Some((table, began)) = self.open else { return };
        self.line = text.lines().count().max(1);
        let last = text.lines().last().unwrap_or("");
        let problem = Problem::new(last.len(), format!("`COMMIT` is missing for table `{}`", table.word()));
        self.error(last, problem.hint(format!("its section began in line {began}")));
    }

    /// `create NAME TYPE …`, as `ipset save` writes it.
    pub(super) fn create_set(&mut self, line: &str, words: &[Token<'_>]) {
        match ipset::parse_create(words, self.family, self.ifaces) {
            Ok(None) => self.shared.pass_over_set(&words[1].text),
            Ok(Some(set)) => {
                let name = set.name.clone();
                if !self.shared.add_set(set) {
                    self.error(line, Problem::new(words[1].at, format!("set `{name}` exists already")));
                }
            }
            Err(problem) => self.error(line, problem),
        }
    }

    pub(super) fn has_set(&self, name: &str) -> bool {
        !matches!(self.shared.find_set(name), Found::None)
    }

    /// `add NAME ELEMENT`; sets of the other family are passed over.
    pub(super) fn add_to_set(&mut self, line: &str, words: &[Token<'_>]) {
        let Some(name) = words.get(1) else {
            let at = words.first().map_or(0, |word| word.at);
            let problem = Problem::new(at, "the set to add to is missing");
            return self.error(line, problem.hint("`add NAME ELEMENT`"));
        };
        let find = |name: &str| self.shared.find_set(name);
        let result = match find(&name.text) {
            Found::Set(set) => ipset::parse_add(&set, words, find),
            Found::OtherFamily => Ok(()),
            Found::None => Err(Problem::new(name.at, format!("no set named `{}`", name.text))
                .hint("`create NAME TYPE` stands in front of what is added")),
        };
        if let Err(problem) = result {
            self.error(line, problem);
        }
    }

    /// `:NAME POLICY [packets:bytes]`
    fn declare(&mut self, line: &str, start: usize, table: Table) {
        let words = tokens(line, start + 1);
        let Some(name) = words.first() else {
            return self.error(line, Problem::new(start, "the name of the chain is missing"));
        };
        let policy = words.get(1);
        // Without `-c` iptables-restore does not look at them.
        let count = match words.get(2).filter(|_| self.counters).map(|w| (w, parse_count(&w.text))) {
            Some((word, None)) => {
                let problem = Problem::new(word.at, format!("`{}` are no counters", word.text));
                return self.error(line, problem.hint("they are written `[packets:bytes]`"));
            }
            Some((_, Some(count))) => count,
            None => Count::default(),
        };
        let Some(policy) = policy else {
            let problem = Problem::new(name.at, format!("chain `{}` has no policy", name.text));
            return self
                .error(line, problem.hint("`ACCEPT` or `DROP` for a base chain, `-` for another one"));
        };
        let is_base = table.hooks().iter().any(|h| h.word() == name.text);
        if is_base && policy.text == "-" {
            // It keeps the policy that it has.
            return;
        }
        if is_base {
            let Some(policy) = self.policy(line, table, &policy.text, policy.at) else { return };
            if let Some(chain) = self.chain_mut(table, &name.text) {
                chain.policy = Some(policy);
                chain.count = count;
            }
            return;
        }
        if policy.text != "-" {
            let problem = Problem::new(policy.at, format!("chain `{}` cannot have a policy", name.text));
            return self.error(line, problem.hint(self.base_hint(table, &name.text)));
        }
        self.new_chain(line, table, &name.text, name.at, true);
    }

    /// Says which base chain was meant, or which chains can have a policy.
    fn base_hint(&self, table: Table, name: &str) -> String {
        let base = table.hooks().iter().map(|h| h.word());
        if Hook::ALL.iter().any(|h| h.word() == name) {
            let all: Vec<_> = base.collect();
            return format!("table `{}` has the chains {}", table.word(), all.join(", "));
        }
        did_you_mean(name, base)
            .unwrap_or_else(|| "only base chains can; other chains are declared with `-`".into())
    }

    fn policy(&mut self, line: &str, table: Table, text: &str, at: usize) -> Option<Policy> {
        let policy = [Policy::Accept, Policy::Drop].into_iter().find(|p| p.word() == text);
        if policy.is_none() {
            let problem = Problem::new(at, format!("no policy named `{text}`"));
            self.error(line, problem.hint("a policy is ACCEPT or DROP"));
        }
        if (table, policy) == (Table::Security, Some(Policy::Drop)) {
            let problem =
                Problem::new(at, "policy DROP of table `security` is not honoured: no packet comes there");
            self.error(line, problem.hint("ACCEPT may stay; table `filter` can drop"));
            return None;
        }
        policy
    }

    fn new_chain(&mut self, line: &str, table: Table, name: &str, at: usize, declared: bool) {
        let problem = if name.is_empty() {
            Some(Problem::new(at, "the name of the chain is empty"))
        } else if name.len() > MAX_CHAIN_NAME {
            let problem = Problem::new(at, format!("the name of the chain has {} letters", name.len()));
            Some(problem.hint(format!("at most {MAX_CHAIN_NAME}")))
        } else if crate::filter::targets::standard(name).is_some() || name == "QUEUE" {
            Some(Problem::new(at, format!("a chain cannot be named `{name}`: that is a target")))
        } else if !declared && name.starts_with('!') {
            Some(Problem::new(at, "the name of a chain cannot begin with `!`"))
        } else if !declared && crate::filter::targets::is_known(name) {
            let problem = Problem::new(at, format!("a chain cannot be named `{name}`: that is a target"));
            Some(problem.hint(format!("`:{name} - [0:0]` makes one nevertheless")))
        } else if !declared && table.hooks().iter().any(|h| h.word() == name) {
            Some(Problem::new(at, format!("chain `{name}` exists already: every table has its base chains")))
        } else if Hook::ALL.iter().any(|h| h.word() == name) {
            let problem = Problem::new(at, format!("table `{}` has no base chain `{name}`", table.word()));
            Some(problem.hint(self.base_hint(table, name)))
        } else {
            None
        };
        if let Some(problem) = problem {
            return self.error(line, problem);
        }
        let number = self.line;
        let Some(draft) = &mut self.draft.tables[table as usize] else { return };
        if let Some(chain) = draft.user.get_mut(name) {
            let first = chain.line;
            let problem = Problem::new(at, format!("chain `{name}` exists already"));
            return self.error(line, problem.hint(format!("it is declared in line {first}")));
        }
        draft.user.insert(name.to_owned(), DraftChain { line: number, ..DraftChain::default() });
    }

    fn chain_mut(&mut self, table: Table, name: &str) -> Option<&mut DraftChain> {
        self.draft.tables[table as usize].as_mut()?.chain_mut(table, name)
    }

    fn command(&mut self, line: &str, start: usize, table: Table) {
        let mut from = start;
        let mut count = None;
        if line.as_bytes().get(start) == Some(&b'[') {
            let end = line[start..].find(']').map_or(line.len(), |n| start + n + 1);
            count = parse_count(&line[start..end]);
            if count.is_none() {
                let problem = Problem::new(start, "these are no counters");
                return self.error(line, problem.hint("they are written `[packets:bytes]`"));
            }
            from = end;
        }
        let (words, unclosed) = lex::cut(line, from);
        if let Some(at) = unclosed {
            // The tools take the rest of the line for text, and so a rule without its target.
            return self.error(line, unclosed_quote(at).hint("a quote inside of a text is written `\\\"`"));
        }
        self.obey(line, (words, from), table, count, false);
    }

    /// Reads the words of a command, and does what it asks.
    fn obey(
        &mut self,
        line: &str,
        (words, from): (Vec<Token<'_>>, usize),
        table: Table,
        count: Option<Count>,
        is_typed: bool,
    ) {
        let mut findings = Findings::default();
        let parsed = {
            let draft = self.draft.tables[table as usize].as_ref();
            let has_chain = |name: &str| draft.is_some_and(|draft| draft.user.contains_key(name));
            let chain_names = || draft.iter().flat_map(|d| d.user_names()).map(str::to_owned).collect();
            let around = Surroundings {
                family: self.family,
                ifaces: self.ifaces,
                line: self.line,
                is_typed,
                has_chain: &has_chain,
                chain_names: &chain_names,
                count: count.filter(|_| self.counters),
                shared: &self.shared,
            };
            rule_line::parse(words, from, &around, &mut findings)
        };
        self.read += 1;
        if findings.is_for_other_family {
            self.read -= 1;
            self.pass_over();
        }
        for Problem { at, message, hint } in findings.warnings {
            self.warnings.push(RuleError { line: self.line, column: column(line, at), message, hint });
        }
        let failed = !findings.problems.is_empty();
        for problem in findings.problems {
            self.error(line, problem);
        }
        if let Some(parsed) = parsed.filter(|_| !failed) {
            self.carry_out(line, table, parsed, is_typed);
        }
    }

    /// Does to the table what the line asks.
    fn carry_out(
        &mut self,
        line: &str,
        table: Table,
        Line { command, chain, chain_at }: Line,
        is_typed: bool,
    ) {
        let Some(name) = chain else { return self.for_all_chains(table, &command, is_typed) };
        match command {
            Command::NewChain => return self.new_chain(line, table, &name, chain_at, false),
            Command::DeleteChain => return self.delete_chain(line, table, &name, chain_at),
            Command::Rename { to } => return self.rename(line, table, &name, &to, chain_at),
            _ => {}
        }
        if self.chain_mut(table, &name).is_none() {
            return self.no_chain(line, table, &name, chain_at);
        }
        let wrong_place =
            |rules: usize| {
                Problem::new(chain_at, format!("chain `{name}` has no rule of that number"))
                    .hint(if rules == 0 { "it is empty".into() } else { format!("it has {rules} so far") })
            };
        let mut problem = None;
        let is_base = table.hooks().iter().any(|h| h.word() == name);
        let policy = match &command {
            // The tools take such a policy in the line that declares the chain, and not here.
            Command::Policy { policy, at, .. } if (table, policy.as_str()) == (Table::Nat, "DROP") => {
                let problem = Problem::new(*at, NOT_FOR_FILTERING);
                return self.error(line, problem.hint("table `filter` can drop"));
            }
            Command::Policy { policy, at, .. } if is_base => match self.policy(line, table, policy, *at) {
                Some(policy) => Some(policy),
                None => return,
            },
            Command::Policy { .. } => {
                problem = Some(Problem::new(chain_at, format!("chain `{name}` cannot have a policy")));
                None
            }
            _ => None,
        };
        let Some(chain) = self.chain_mut(table, &name) else { return };
        let len = chain.rules.len();
        match command {
            // Most chains of a large ruleset have one rule: it takes no more room than it needs.
            Command::Append { rules } if len == 0 => chain.rules = rules.into(),
            Command::Append { rules } => chain.rules.extend(rules),
            Command::Insert { place, .. } if place > len => problem = Some(wrong_place(len)),
            // Each of several is put at the same place, so the last one stands first.
            Command::Insert { place, rules } => rules.into_iter().for_each(|r| chain.rules.insert(place, r)),
            Command::Replace { place, .. } | Command::Delete { place } if place >= len => {
                problem = Some(wrong_place(len));
            }
            Command::Replace { rules, .. } if rules.len() != 1 => {
                problem = Some(Problem::new(chain_at, "one rule cannot be replaced by several"));
            }
            Command::Replace { place, rules } => {
                chain.rules.iter_mut().skip(place).zip(rules).for_each(|(old, new)| *old = new);
            }
            Command::Delete { place } => drop(chain.rules.remove(place)),
            Command::DeleteSame { rules } => {
                for rule in rules {
                    match chain.rules.iter().position(|r| is_same(r, &rule)) {
                        Some(place) => drop(chain.rules.remove(place)),
                        None => {
                            problem =
                                Some(Problem::new(chain_at, format!("chain `{name}` has no such rule")));
                        }
                    }
                }
            }
            Command::Flush => chain.rules.clear(),
            Command::Zero { place: Some(place) } if place >= len => problem = Some(wrong_place(len)),
            Command::Zero { place: Some(place) } => {
                chain.rules.iter_mut().skip(place).take(usize::from(is_typed)).for_each(zero);
            }
            // In a section no packet has come yet, and what the text counts is kept.
            Command::Zero { place: None } if is_typed => {
                chain.count = Count::default();
                chain.rules.iter_mut().for_each(zero);
            }
            Command::Policy { count, .. } => (chain.policy, chain.count) = (policy.or(chain.policy), count),
            Command::Zero { .. } | Command::NewChain | Command::DeleteChain | Command::Rename { .. } => {}
        }
        if let Some(problem) = problem {
            self.error(line, problem);
        }
    }

    fn for_all_chains(&mut self, table: Table, command: &Command, is_typed: bool) {
        let Some(draft) = &mut self.draft.tables[table as usize] else { return };
        match command {
            Command::Flush => {
                draft.base.iter_mut().chain(draft.user.values_mut()).for_each(|c| c.rules.clear());
            }
            Command::Zero { .. } => {
                for chain in draft.base.iter_mut().chain(draft.user.values_mut()).filter(|_| is_typed) {
                    chain.count = Count::default();
                    chain.rules.iter_mut().for_each(zero);
                }
            }
            _ => draft.user.clear(),
        }
    }

    fn no_chain(&mut self, line: &str, table: Table, name: &str, at: usize) {
        let draft = self.draft.tables[table as usize].as_ref();
        let user = draft.into_iter().flat_map(DraftTable::user_names);
        let base = table.hooks().iter().map(|h| h.word());
        let problem = Problem::new(at, format!("table `{}` has no chain `{name}`", table.word()));
        let problem = match did_you_mean(name, base.clone().chain(user)) {
            _ if Hook::ALL.iter().any(|h| h.word() == name) => problem.hint(self.base_hint(table, name)),
            _ if name.bytes().all(|b| b.is_ascii_digit()) => {
                problem.hint(format!("the chain comes first: `-I FORWARD {name}`"))
            }
            Some(hint) => problem.hint(hint),
            None => problem.hint(format!("a chain is declared before it is used: `:{name} - [0:0]`")),
        };
        self.error(line, problem);
    }

    fn delete_chain(&mut self, line: &str, table: Table, name: &str, at: usize) {
        let Some(draft) = &mut self.draft.tables[table as usize] else { return };
        let problem = match draft.user.get(name) {
            None => return self.no_chain(line, table, name, at),
            Some(chain) if !chain.rules.is_empty() => Some(format!("chain `{name}` is not empty")),
            Some(_) => {
                let all = draft.base.iter().chain(draft.user.values()).flat_map(|c| &c.rules);
                let jumps_there = |r: &&DraftRule| r.jump.as_ref().is_some_and(|j| j.to == name);
                let first = all.filter(jumps_there).map(|r| r.rule.line).min();
                first.map(|line| format!("line {line} still jumps to chain `{name}`"))
            }
        };
        match problem {
            Some(message) => self.error(line, Problem::new(at, message)),
            None => drop(draft.user.remove(name)),
        }
    }

    fn rename(&mut self, line: &str, table: Table, name: &str, to: &str, at: usize) {
        let Some(draft) = &mut self.draft.tables[table as usize] else { return };
        if draft.user.contains_key(to) || table.hooks().iter().any(|h| h.word() == to) {
            return self.error(line, Problem::new(at, format!("chain `{to}` exists already")));
        }
        let Some(chain) = draft.user.remove(name) else { return self.no_chain(line, table, name, at) };
        draft.user.insert(to.to_owned(), chain);
        for rule in draft.base.iter_mut().chain(draft.user.values_mut()).flat_map(|c| &mut c.rules) {
            if let Some(jump) = rule.jump.as_mut().filter(|j| j.to == name) {
                to.clone_into(&mut jump.to);
            }
        }
    }
}

fn zero(rule: &mut DraftRule) {
    rule.rule.initial = Count::default();
}

/// `-D` with a rule: the same conditions and the same target, whatever the counters.
fn is_same(a: &DraftRule, b: &DraftRule) -> bool {
    let goes = |r: &DraftRule| r.jump.as_ref().map(|j| (j.to.clone(), j.goto));
    a.rule.matches == b.rule.matches && a.rule.target == b.rule.target && goes(a) == goes(b)
}

pub(in crate::filter) fn unclosed_quote(at: usize) -> Problem {
    Problem::new(at, "the quote is never closed")
}

/// Without what only says how long to wait for others: `-w`, `-w 5`, `-w5`, `--wait=5`, `-W 100000`.
fn without_waiting(words: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut kept = Vec::with_capacity(words.len());
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let waits = match &*word.text {
            "-w" | "--wait" | "-W" | "--wait-interval" => {
                let _seconds = words.next_if(|next| is_number(&next.text));
                true
            }
            text => ["-w", "-W", "--wait=", "--wait-interval="]
                .iter()
                .any(|option| text.strip_prefix(option).is_some_and(is_number)),
        };
        if !waits {
            kept.push(word);
        }
    }
    kept
}

/// `[packets:bytes]`
fn parse_count(text: &str) -> Option<Count> {
    let (packets, bytes) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some(Count { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}

impl Ruleset {
    /// The text that iptables-save prints, without its comments; with `counters` as `iptables-save -c` does.
    pub fn render(&self, counters: bool) -> String {
        let mut out = String::new();
        for table in &self.order {
            self.render_table(*table, counters, &mut out);
        }
        out
    }

    fn render_table(&self, table: Table, counters: bool, out: &mut String) {
        let _ = writeln!(out, "*{}", table.word());
        let id = |chain: usize, index: usize| crate::filter::RuleId {
            family: self.family,
            table,
            chain: chain as u16,
            index: index as u32,
        };
        for (place, chain) in self.chains(table).iter().enumerate() {
            let policy = chain.policy.map_or("-", Policy::word);
            let count = chain.policy.map_or(Count::default(), |_| self.count(id(place, chain.rules.len())));
            let _ = writeln!(out, ":{} {policy} {count}", chain.name);
        }
        for (place, chain) in self.chains(table).iter().enumerate() {
            for (index, rule) in chain.rules.iter().enumerate() {
                if counters {
                    let _ = write!(out, "{} ", self.count(id(place, index)));
                }
                let _ = write!(out, "-A {}", chain.name);
                let _ = self.write_rule(table, rule, out);
                out.push('\n');
            }
        }
        out.push_str("COMMIT\n");
    }

    /// The conditions and the target of a rule, with a blank in front, as iptables-save prints them.
    pub fn rule_text(&self, table: Table, rule: &Rule) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_rule(table, rule, &mut text);
        text
    }

    fn write_rule(&self, table: Table, rule: &Rule, out: &mut String) -> fmt::Result {
        let chain = |id: crate::filter::ChainId| &self.chains(table)[id.index()].name;
        write!(out, "{}", rule.matches)?;
        match &rule.target {
            Target::None => Ok(()),
            Target::Accept => out.write_str(" -j ACCEPT"),
            Target::Drop => out.write_str(" -j DROP"),
            Target::Return => out.write_str(" -j RETURN"),
            Target::Jump(to) => write!(out, " -j {}", chain(*to)),
            Target::Goto(to) => write!(out, " -g {}", chain(*to)),
            other => write!(out, " -j {}{other}", other.spec().map_or("", |s| s.name)),
        }
    }
}
