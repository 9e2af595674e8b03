//! From a lab file as written to a checked [`Lab`], or to everything that is wrong with it.
//!
//! Every check goes on after an error: what depends on a part that is wrong already is left out silently, so that
//! one mistake is reported once.

#![forbid(unsafe_code)]

mod hosts;
pub mod packets;
mod router;
mod steps;

use super::builtin;
use super::error::{LabErrors, Problem, near};
use super::locate::Places;
use super::model::{Lab, RuleText, Source};
use super::spec::{self, LabSpec, RouterSpec};
use serde_json::Value;
use stateway_core::config::{RouterConfig, RunOptions};
use stateway_core::filter::{RuleError, text_of};
use stateway_core::packet::{Addr, Family, Prefix};
use stateway_trace::input;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use steps::{Ends, StepPlace};

/// Reads a lab: a folder with a `lab.yaml`, or the file itself.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Lab, LabErrors> {
    load_with(path, None)
}

/// As [`load`], with other rules in place of the lab's own.
///
/// # Errors
/// Everything that is wrong with it, the rules apart, which were looked at before.
pub fn load_with(path: &Path, other: Option<&OtherRules>) -> Result<Lab, LabErrors> {
    let file = find(path);
    let text = read(&file, &input::read)?;
    load_text_with(&text, &file, &input::read, other)
}

/// Rules that stand in the place of a lab's own. A family that is `None` keeps those of the lab.
#[derive(Clone, Debug, Default)]
pub struct OtherRules {
    pub v4: Option<OtherText>,
    pub v6: Option<OtherText>,
}

/// The text of a ruleset, behind that of the sets it names.
#[derive(Clone, Debug)]
pub struct OtherText {
    /// As it is loaded.
    pub whole: String,
    /// The files that it was made of, the rules last.
    pub files: Vec<Source>,
}

impl OtherRules {
    const fn of(&self, family: Family) -> Option<&OtherText> {
        match family {
            Family::Ipv4 => self.v4.as_ref(),
            Family::Ipv6 => self.v6.as_ref(),
        }
    }
}

/// How a lab's files are read: the bytes of one that has at most so many.
pub type Read<'a> = &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>;

/// Reads a lab from text; `file` is where other files are looked for, and what errors are led by.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_text(text: &str, file: &Path) -> Result<Lab, LabErrors> {
    load_text_with(text, file, &input::read, None)
}

/// As [`load_text`], with every other file read by `read`, and with other rules in place of the lab's own.
///
/// # Errors
/// Everything that is wrong with it, the other rules apart.
pub fn load_text_with(
    text: &str,
    file: &Path,
    read: Read<'_>,
    other: Option<&OtherRules>,
) -> Result<Lab, LabErrors> {
    let errors = |problems| LabErrors { file: file.to_owned(), problems, text: Some(text.to_owned()) };
    let document = spec::parse(text).map_err(|problem| errors(vec![problem]))?;
    let reading = document.read::<LabSpec>(&document.tree, "");
    let mut check = Check::new(&document.places, file, read, reading.problems, reading.pruned);
    check.other = other;
    let lab = reading.spec.and_then(|spec| check.lab(&spec, &document.tree));
    match lab {
        Some(lab) if check.problems.is_empty() => {
            let own = Source { path: file.to_owned(), text: text.to_owned() };
            let sources = std::iter::once(own).chain(check.sources).collect();
            let Check { warnings, rule_texts, .. } = check;
            let places = Arc::new(document.places);
            Ok(Lab { file: file.to_owned(), warnings, sources, places, rule_texts, ..lab })
        }
        _ => Err(errors(check.in_order())),
    }
}

/// Reads the router of a lab file, or of a file that is just its `router:` part. Hosts and tests are ignored.
///
/// # Errors
/// Everything that is wrong with the router.
pub fn load_router(path: &Path) -> Result<(RouterConfig, RunOptions), LabErrors> {
    load_router_with(path, &input::read)
}

/// How a file is opened: a router that gave up its privileges has its keeper do it.
pub type Open<'a> = &'a dyn Fn(&Path) -> io::Result<File>;

/// As [`load_router`]; the lab file, and whatever files it names, are opened by `open`.
///
/// # Errors
/// Everything that is wrong with the router.
pub fn load_router_through(path: &Path, open: Open<'_>) -> Result<(RouterConfig, RunOptions), LabErrors> {
    load_router_with(path, &|path, most| input::read_through(open, path, most))
}

/// As [`load_router`], with every file read by `read`.
///
/// # Errors
/// Everything that is wrong with the router.
pub fn load_router_with(path: &Path, read: Read) -> Result<(RouterConfig, RunOptions), LabErrors> {
    let file = find(path);
    let text = self::read(&file, read)?;
    let errors = |problems| LabErrors { file: file.clone(), problems, text: Some(text.clone()) };
    let document = spec::parse(&text).map_err(|problem| errors(vec![problem]))?;
    let (tree, below) = match document.tree.get("router") {
        Some(router) => (router, "router"),
        None => (&document.tree, ""),
    };
    let reading = document.read::<RouterSpec>(tree, below);
    let mut check = Check::new(&document.places, &file, read, reading.problems, reading.pruned);
    if below == "router" {
        check.only_lab_keys(&document.tree);
    }
    check.empty_rules(tree, below);
    let router = reading.spec.map(|spec| check.router(&spec, below));
    match router {
        Some(router) if check.problems.is_empty() => Ok(router),
        _ => Err(errors(check.in_order())),
    }
}

/// The file that a user means by a lab: where nothing of that name is there, one that is built in.
pub fn find(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.join("lab.yaml");
    }
    let built_in = if path.exists() { None } else { builtin::file(path) };
    built_in.unwrap_or_else(|| path.to_owned())
}

fn read(file: &Path, read: Read) -> Result<String, LabErrors> {
    if let Some(text) = builtin::read(file) {
        return Ok(text.to_owned());
    }
    let bytes = read(file, input::MAX_YAML).map_err(|error| {
        let hint = (error.kind() == io::ErrorKind::NotFound).then(|| {
            const WHAT: &str =
                "a lab is a folder with a `lab.yaml` in it, such a file, or a name that `stateway lab builtin` lists";
            match near(&file.to_string_lossy(), builtin::names()) {
                Some(name) => format!("did you mean `{name}`? {WHAT}"),
                None => WHAT.to_owned(),
            }
        });
        LabErrors::unreadable(file.to_owned(), &error, hint)
    })?;
    text_of(bytes).map_err(|RuleError { line, column, message, .. }| {
        let hint = Some("is this a text file? if so, save it as UTF-8".to_owned());
        let problem = Problem { path: String::new(), place: Some((line, column)), message, hint };
        LabErrors { file: file.to_owned(), problems: vec![problem], text: None }
    })
}

/// The work in progress on one file: what was found so far.
pub(crate) struct Check<'a> {
    places: &'a Places,
    /// Where other files are looked for.
    folder: &'a Path,
    read: Read<'a>,
    /// The other files that were read.
    sources: Vec<Source>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Paths of what the shape check left out.
    pruned: Vec<String>,
    /// The sessions that steps keep, by kind and name.
    kept: BTreeMap<(&'static str, String), Ends>,
    /// The comments of rules that tests expect, each with the path of who does.
    comments: Vec<(String, String)>,
    /// Every ruleset that was read.
    rule_texts: Vec<RuleText>,
    /// Rules in the place of the lab's own.
    other: Option<&'a OtherRules>,
}

impl<'a> Check<'a> {
    fn new(
        places: &'a Places,
        file: &'a Path,
        read: Read<'a>,
        problems: Vec<Problem>,
        pruned: Vec<String>,
    ) -> Self {
        let folder = file.parent().unwrap_or(Path::new("."));
        Self {
            places,
            folder,
            read,
            sources: Vec::new(),
            problems,
            warnings: Vec::new(),
            pruned,
            kept: BTreeMap::new(),
            comments: Vec::new(),
            rule_texts: Vec::new(),
            other: None,
        }
    }

    pub(crate) fn problem(&mut self, path: &str, message: impl Into<String>, hint: Option<String>) {
        let place = self.places.find(path);
        self.problems.push(Problem { path: path.to_owned(), place, message: message.into(), hint });
    }

    fn in_order(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.place);
        self.problems
    }

    /// Whether the part at `path`, or something in it, was wrong already.
    fn was_pruned(&self, path: &str) -> bool {
        let within = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.pruned.iter().any(|pruned| pruned.strip_prefix(path).is_some_and(within))
    }

    /// The number in the file of the item at `index` of what is left of a list.
    fn number(&self, list: &str, index: usize) -> usize {
        let mut number = 0;
        let mut left = index;
        loop {
            let hole = format!("{list}[{number}]");
            match (self.pruned.contains(&hole), left) {
                (true, _) => {}
                (false, 0) => return number,
                (false, _) => left -= 1,
            }
            number += 1;
        }
    }

    /// A lab file may have hosts and tests around its router, and nothing else.
    fn only_lab_keys(&mut self, tree: &Value) {
        const KEYS: [&str; 5] = ["name", "description", "router", "hosts", "tests"];
        for key in
            tree.as_object().into_iter().flat_map(|o| o.keys()).filter(|key| !KEYS.contains(&key.as_str()))
        {
            let hint = super::error::hint(key, KEYS, "known keys");
            self.problem(key, format!("unknown key `{key}`"), hint);
        }
    }

    fn lab(&mut self, spec: &LabSpec, tree: &Value) -> Option<Lab> {
        self.name("name", &spec.name, MAX_LAB_NAME);
        if let Some(router) = tree.get("router") {
            self.empty_rules(router, "router");
        }
        let (router, options) = self.router(&spec.router, "router");
        let hosts = self.hosts(spec, &router, tree);
        let tests = self.tests(spec, &router, &hosts);
        Some(Lab {
            name: spec.name.clone(),
            description: spec.description.clone().unwrap_or_default(),
            file: PathBuf::new(),
            router,
            options,
            hosts,
            tests,
            warnings: Vec::new(),
            sources: Vec::new(),
            places: Arc::default(),
            rule_texts: Vec::new(),
        })
    }

    /// Names become parts of the names of namespaces, and of hosts.
    fn name(&mut self, path: &str, name: &str, longest: usize) {
        if name.is_empty() || name.len() > longest {
            self.problem(path, format!("`{name}` must have 1 to {longest} characters"), None);
        } else if !is_name(name) {
            let hint = "use small letters, digits and `-` within".to_owned();
            self.problem(path, format!("`{name}` cannot be a name"), Some(hint));
        }
    }

    fn addr(&mut self, path: &str, text: &str) -> Option<IpAddr> {
        let addr = text.trim().parse().ok();
        if addr.is_none() {
            let hint = text.contains('/').then(|| "without the length of a network".to_owned());
            self.problem(path, format!("`{text}` is not an IP address"), hint);
        }
        addr
    }

    /// An address with the length of its network, host bits kept.
    fn prefix(&mut self, path: &str, text: &str, example: &str) -> Option<Prefix> {
        match parse_prefix(text) {
            Ok(prefix) => Some(prefix),
            Err(why) => {
                self.problem(path, format!("`{text}` {why}"), Some(format!("such as {example}")));
                None
            }
        }
    }

    fn mac(&mut self, path: &str, text: Option<&str>) -> Option<stateway_core::packet::Mac> {
        let text = text?;
        match text.parse::<stateway_core::packet::Mac>() {
            Ok(mac) if !mac.is_group() && mac.0 != [0; 6] => Some(mac),
            Ok(_) => {
                let hint = "its first byte must be even, such as 02:00:00:00:00:01".to_owned();
                self.problem(path, format!("`{text}` cannot be the link address of one station"), Some(hint));
                None
            }
            Err(()) => {
                let hint = "such as \"02:00:00:00:00:01\"".to_owned();
                self.problem(path, format!("`{text}` is not a link address"), Some(hint));
                None
            }
        }
    }
}

/// Together with a host's name it still fits the name of a namespace and of a Unix socket.
const MAX_LAB_NAME: usize = 32;

/// Whether a lab can be called so.
pub fn is_lab_name(name: &str) -> bool {
    name.len() <= MAX_LAB_NAME && is_name(name)
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with('-') && !name.ends_with('-')
}

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    let Some((addr, len)) = text.trim().split_once('/') else {
        return Err("lacks the length of its network".into());
    };
    let addr: IpAddr = addr.parse().map_err(|_| "is not an IP address with a length".to_owned())?;
    let family = Family::from(addr);
    let len: u8 = len.parse().map_err(|_| "is not an IP address with a length".to_owned())?;
    if len > family.bits() {
        return Err(format!("has a length above {}", family.bits()));
    }
    Ok(Prefix::new(Addr::from(addr), len, family))
}

/// The part of a network that all its addresses share.
fn network(prefix: Prefix) -> Prefix {
    Prefix::new(Addr::from_bits(prefix.addr.bits() & prefix.mask()), prefix.len, prefix.family)
}
