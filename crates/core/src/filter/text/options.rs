//! The options of one rule: which extension each belongs to, as getopt and iptables decide it.
//!
//! An option belongs to the extension named last that knows it; a protocol brings its own match along when the first
//! option is met that nobody else knows.

#![forbid(unsafe_code)]

use crate::filter::text::lex::Token;
use arrayvec::ArrayVec;
use std::borrow::Cow;

/// An option that an extension takes.
#[derive(Debug)]
pub struct Opt {
    /// The name that iptables-save prints, without dashes.
    pub name: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// How many words follow.
    pub args: u8,
    /// `! --name` is allowed.
    pub negatable: bool,
    /// May stand more than once.
    pub repeats: bool,
    /// Why it is not honoured.
    pub refused: Option<&'static str>,
}

impl Opt {
    /// An option with one value.
    pub const fn value(name: &'static str) -> Self {
        Self { name, aliases: &[], args: 1, negatable: false, repeats: false, refused: None }
    }

    /// An option without a value.
    pub const fn flag(name: &'static str) -> Self {
        Self { args: 0, ..Self::value(name) }
    }

    /// An option with two values.
    pub const fn pair(name: &'static str) -> Self {
        Self { args: 2, ..Self::value(name) }
    }

    #[must_use]
    pub const fn or_not(self) -> Self {
        Self { negatable: true, ..self }
    }

    #[must_use]
    pub const fn again(self) -> Self {
        Self { repeats: true, ..self }
    }

    #[must_use]
    pub const fn refused(self, reason: &'static str) -> Self {
        Self { refused: Some(reason), ..self }
    }

    #[must_use]
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// Whether it is spelled so, in full.
    pub(in crate::filter) fn is(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        core::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// What is wrong at one place of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::filter) struct Problem {
    /// Byte offset in the line.
    pub(in crate::filter) at: usize,
    pub(in crate::filter) message: String,
    pub(in crate::filter) hint: Option<String>,
}

impl Problem {
    pub(in crate::filter) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(in crate::filter) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The words behind an option: none has more than two.
pub(in crate::filter) type Args<'a> = ArrayVec<Token<'a>, 2>;

/// One option as it was written.
#[derive(Clone, Debug)]
pub(in crate::filter) struct Given<'a> {
    pub(in crate::filter) opt: &'static Opt,
    pub(in crate::filter) negated: bool,
    pub(in crate::filter) args: Args<'a>,
    /// Where the option stands.
    pub(in crate::filter) at: usize,
}

impl Given<'_> {
    /// The value of an option that takes one; empty for a flag.
    pub(in crate::filter) fn text(&self) -> &str {
        self.args.first().map_or("", |t| &t.text)
    }

    /// Where the value stands.
    pub(in crate::filter) fn value_at(&self) -> usize {
        self.args.first().map_or(self.at, |t| t.at)
    }

    /// A complaint about the value.
    pub(in crate::filter) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.value_at(), message)
    }

    /// The value, read by `read`; its complaint gets the place of the value.
    pub(in crate::filter) fn read<T>(
        &self,
        read: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Result<T, Problem> {
        self.read_arg(0, read)
    }

    /// The value number `n` of an option that takes several.
    pub(in crate::filter) fn read_arg<T>(
        &self,
        n: usize,
        read: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Result<T, Problem> {
        let token = self.args.get(n);
        let (text, at) = token.map_or(("", self.at), |t| (&*t.text, t.at));
        read(text).map_err(|Complaint { message, hint }| Problem { at, message, hint })
    }
}

/// What is wrong with a value, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::filter) struct Complaint {
    pub(in crate::filter) message: String,
    pub(in crate::filter) hint: Option<String>,
}

impl Complaint {
    pub(in crate::filter) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(in crate::filter) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<String> for Complaint {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// An extension that a rule named, and what it was given.
#[derive(Clone, Debug)]
pub(in crate::filter) struct Options<'a> {
    pub(in crate::filter) name: &'static str,
    pub(in crate::filter) known: &'static [Opt],
    pub(in crate::filter) given: Vec<Given<'a>>,
    /// Where the extension was named, or where its protocol was.
    pub(in crate::filter) at: usize,
}

impl<'a> Options<'a> {
    pub(in crate::filter) const fn new(name: &'static str, known: &'static [Opt], at: usize) -> Self {
        Self { name, known, given: Vec::new(), at }
    }

    pub(in crate::filter) fn get(&self, name: &str) -> Option<&Given<'a>> {
        self.given.iter().find(|g| g.opt.name == name)
    }

    pub(in crate::filter) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A complaint about the extension as a whole.
    pub(in crate::filter) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.at, message)
    }

    /// The extension needs this option.
    pub(in crate::filter) fn require(&self, name: &str) -> Result<&Given<'a>, Problem> {
        self.get(name).ok_or_else(|| self.problem(format!("`{}` needs `--{name}`", self.name)))
    }

    /// At most one of these options.
    pub(in crate::filter) fn exclusive(&self, names: &[&str]) -> Result<(), Problem> {
        let mut these = self.given.iter().filter(|g| names.contains(&g.opt.name));
        match (these.next(), these.next()) {
            (Some(first), Some(second)) => Err(Problem::new(
                second.at,
                format!("only one of `--{}` and `--{}` is allowed", first.opt.name, second.opt.name),
            )),
            _ => Ok(()),
        }
    }

    /// At least one of the options that it knows.
    pub(in crate::filter) fn require_any(&self) -> Result<(), Problem> {
        if !self.given.is_empty() {
            return Ok(());
        }
        let honoured = self.known.iter().filter(|o| o.refused.is_none());
        let names: Vec<String> = honoured.map(|o| format!("`--{}`", o.name)).collect();
        Err(self
            .problem(format!("`-m {}` without options does nothing", self.name))
            .hint(format!("it takes {}", names.join(", "))))
    }
}

/// What a long option may mean among the options of several extensions.
pub(in crate::filter) enum Found {
    /// The extension's place in the list, and the option.
    One(usize, &'static Opt),
    /// An abbreviation of several.
    Ambiguous(Vec<&'static str>),
    None,
}

/// Finds `name` as getopt does: an exact name wins, later extensions before earlier ones, then an abbreviation that
/// only one option has.
pub(in crate::filter) fn find(extensions: &[Options<'_>], name: &str) -> Found {
    let first_of = |name: &str| extensions.iter().position(|e| e.name == name);
    let exact = extensions.iter().enumerate().filter_map(|(place, extension)| {
        let opt = extension.known.iter().find(|o| o.is(name))?;
        Some((first_of(extension.name), place, opt))
    });
    // An option of several extensions belongs to the one whose name came last for the first time, however often
    // others come again; and there to its last use.
    if let Some((_, place, opt)) = exact.max_by_key(|(first, place, _)| (*first, *place)) {
        return Found::One(place, opt);
    }
    let mut candidates: Vec<(usize, &'static Opt)> = Vec::new();
    for (place, extension) in extensions.iter().enumerate() {
        // An extension that comes again takes the place of its first use.
        candidates.retain(|(before, _)| extensions[*before].name != extension.name);
        let starts = |o: &&Opt| o.names().any(|n| n.starts_with(name));
        candidates.extend(extension.known.iter().filter(starts).map(|o| (place, o)));
    }
    match candidates[..] {
        [] => Found::None,
        [(place, opt)] => Found::One(place, opt),
        _ => Found::Ambiguous(candidates.iter().map(|(_, o)| o.name).collect()),
    }
}

/// The name in `names` that `wrong` most likely meant.
pub fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let limit = (wrong.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits that turn one word into the other, capital letters aside: insert, delete, replace, swap neighbours.
fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_lowercase(), &b.to_lowercase())
}

/// `did you mean …?`, if something is near enough.
pub(in crate::filter) fn did_you_mean<'n>(
    wrong: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<String> {
    nearest(wrong, names).map(|name| format!("did you mean `{name}`?"))
}

/// The option in `names` that `wrong` most likely meant; letters in its middle may be left out, as in `--dpt`.
pub(in crate::filter) fn meant_option<'n>(
    wrong: &str,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Option<&'n str> {
    let short_for = |name: &&str| {
        let mut letters = name.chars();
        name.len() <= 2 * wrong.len()
            && name.chars().next() == wrong.chars().next()
            && name.chars().next_back() == wrong.chars().next_back()
            && wrong.chars().all(|c| letters.any(|l| l == c))
    };
    nearest(wrong, names.clone()).or_else(|| names.filter(short_for).min_by_key(|name| name.len()))
}

/// Splits `--name=value`.
pub(in crate::filter) fn split_long(word: &str) -> (&str, Option<Cow<'_, str>>) {
    match word.split_once('=') {
        Some((name, value)) => (name, Some(Cow::Borrowed(value))),
        None => (word, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TCP: [Opt; 2] = [Opt::value("dport").also(&["destination-port"]), Opt::value("sport")];
    static MULTIPORT: [Opt; 2] = [Opt::value("dports"), Opt::value("sports")];

    #[test]
    fn an_exact_name_wins_over_an_abbreviation_and_late_over_early() {
        let list = |known| Options::new("x", known, 0);
        let both = [list(&TCP), Options::new("y", &MULTIPORT, 0)];
        assert!(matches!(find(&both, "dport"), Found::One(0, _)));
        assert!(matches!(find(&both, "dports"), Found::One(1, _)));
        assert!(matches!(find(&both, "dpor"), Found::Ambiguous(_)));
        assert!(matches!(find(&both, "dest"), Found::One(0, _)));
        assert!(matches!(find(&[list(&TCP), list(&TCP)], "sport"), Found::One(1, _)));
        assert!(matches!(find(&[list(&TCP), list(&TCP)], "destin"), Found::One(1, _)));
        assert!(matches!(find(&both, "mark"), Found::None));
    }

    #[test]
    fn hints_name_what_is_near() {
        assert_eq!(nearest("FOWARD", ["INPUT", "FORWARD", "OUTPUT"]), Some("FORWARD"));
        assert_eq!(nearest("conntrakc", ["connmark", "conntrack"]), Some("conntrack"));
        assert_eq!(nearest("zzz", ["INPUT", "FORWARD"]), None);
        let options = ["destination", "dport", "sport", "ctstate"].into_iter();
        assert_eq!(meant_option("dpt", options.clone()), Some("dport"));
        assert_eq!(meant_option("ctstat", options.clone()), Some("ctstate"));
        assert_eq!(meant_option("dxt", options.clone()), None);
        assert_eq!(meant_option("", options), None);
    }
}
