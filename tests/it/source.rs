//! The sources of the workspace as the compiler takes them: without comments, and without what is built for tests alone.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, File, Item, Meta};

/// One file.
pub(crate) struct Source {
    /// From the root of the workspace.
    pub(crate) path: String,
    /// The folder of its crate in `crates/`; none for the program.
    pub(crate) krate: Option<String>,
    /// The module of the crate's root that it is part of.
    pub(crate) module: String,
    /// As it stands on disk.
    pub(crate) text: String,
    code: TokenStream,
    /// The code without blanks.
    squeezed: String,
}

impl Source {
    fn read(path: &Path) -> (Self, Vec<PathBuf>) {
        let text = fs::read_to_string(path).expect("a source can be read");
        let mut file: File = syn::parse_file(&text).expect("a source that compiles can be parsed");
        let mut tests = Vec::new();
        file.items = built(file.items, &folder_of(path), &mut tests);
        let code = without_docs(file.into_token_stream());
        let squeezed = code.to_string().replace(' ', "");
        let path =
            path.strip_prefix(root()).expect("a source is in the workspace").to_string_lossy().into_owned();
        let (place, below) = path.split_once("src/").expect("a source is below src");
        let krate = place.strip_prefix("crates/").map(|krate| krate.trim_end_matches('/').to_owned());
        let first = below.split('/').next().unwrap_or(below);
        let module = first.trim_end_matches(".rs").to_owned();
        (Self { path, krate, module, text, code, squeezed }, tests)
    }

    /// Whether the code contains these words, however they are spaced.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.squeezed.contains(&words.replace(' ', ""))
    }

    /// The modules of the crate's root that it names: `crate::NAME` and `crate::{NAME, …}`.
    pub(crate) fn named_modules(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        find_named(self.code.clone(), &mut names);
        names
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source of the crates and the program, in the order of their names.
pub(crate) fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    for krate in fs::read_dir(root().join("crates")).expect("crates can be listed") {
        folders.push(krate.expect("crates can be listed").path().join("src"));
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let (mut all, mut tests) = (Vec::new(), Vec::<PathBuf>::new());
    for path in files {
        let (source, of_tests) = Source::read(&path);
        all.push((path, source));
        tests.extend(of_tests);
    }
    all.retain(|(path, _)| {
        !tests.iter().any(|test| path.starts_with(test) || *path == test.with_extension("rs"))
    });
    all.into_iter().map(|(_, source)| source).collect()
}

/// Where the modules that a file declares have their files.
fn folder_of(path: &Path) -> PathBuf {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => path.with_file_name(""),
        _ => path.with_extension(""),
    }
}

/// The items that are built into the library; of modules that are not, `tests` gets the files.
fn built(items: Vec<Item>, folder: &Path, tests: &mut Vec<PathBuf>) -> Vec<Item> {
    let mut kept = Vec::new();
    for mut item in items {
        if attributes(&item).iter().any(is_test) {
            if let Item::Mod(module) = &item {
                tests.push(folder.join(module.ident.to_string()));
            }
            continue;
        }
        if let Item::Mod(module) = &mut item
            && let Some((_, content)) = &mut module.content
        {
            *content = built(std::mem::take(content), &folder.join(module.ident.to_string()), tests);
        }
        kept.push(item);
    }
    kept
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`
fn is_test(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
}

/// Comments for the documentation are attributes to the compiler.
fn without_docs(code: TokenStream) -> TokenStream {
    let is_doc = |tree: &TokenTree| {
        matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket
            && group.stream().into_iter().next().is_some_and(|first| first.to_string() == "doc"))
    };
    let mut kept: Vec<TokenTree> = Vec::new();
    for tree in code {
        if is_doc(&tree)
            && matches!(kept.last(), Some(TokenTree::Punct(hash)) if hash.as_char() == '#' || hash.as_char() == '!')
        {
            kept.pop();
            continue;
        }
        kept.push(match tree {
            TokenTree::Group(group) => {
                TokenTree::Group(proc_macro2::Group::new(group.delimiter(), without_docs(group.stream())))
            }
            other => other,
        });
    }
    kept.into_iter().collect()
}

/// Looks for `crate::` and takes the names behind it, in macros as well.
fn find_named(code: TokenStream, names: &mut BTreeSet<String>) {
    let trees: Vec<TokenTree> = code.into_iter().collect();
    for (at, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            find_named(group.stream(), names);
        }
        if !matches!(tree, TokenTree::Ident(word) if word == "crate") {
            continue;
        }
        match trees.get(at + 3) {
            Some(TokenTree::Ident(name)) => {
                names.insert(name.to_string());
            }
            Some(TokenTree::Group(group)) => {
                let list: Vec<TokenTree> = group.stream().into_iter().collect();
                let begins =
                    |n: usize| n == 0 || matches!(&list[n - 1], TokenTree::Punct(p) if p.as_char() == ',');
                let firsts = list
                    .iter()
                    .enumerate()
                    .filter(|(n, tree)| begins(*n) && matches!(tree, TokenTree::Ident(_)));
                names.extend(firsts.map(|(_, tree)| tree.to_string()));
            }
            _ => {}
        }
    }
}
