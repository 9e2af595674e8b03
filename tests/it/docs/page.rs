//! A page of Markdown: its blocks of code, and where its links lead.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(super) struct Page {
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) blocks: Vec<Block>,
    pub(super) links: Vec<String>,
    /// Code within lines.
    pub(super) inline: Vec<String>,
}

/// A block of code between fences.
#[derive(Clone)]
pub(super) struct Block {
    /// The word after the fence; empty if there is none, or no fence.
    pub(super) language: String,
    pub(super) code: String,
    /// Where `code` stands in the page.
    range: Range<usize>,
}

/// A command of a page, and what it is shown to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) command: String,
    pub(super) output: Vec<String>,
}

impl Page {
    pub(super) fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let (mut blocks, mut links, mut inline) = (Vec::new(), Vec::new(), Vec::new());
        let mut open: Option<Block> = None;
        for (event, range) in Parser::new(&text).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(word) => word.to_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    open = Some(Block { language, code: String::new(), range: range.end..range.end });
                }
                Event::Text(part) => {
                    if let Some(block) = &mut open {
                        block.range.start = block.range.start.min(range.start);
                        block.range.end = range.end;
                        block.code.push_str(&part);
                    }
                }
                Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
                Event::Code(code) => inline.push(code.to_string()),
                Event::Start(Tag::Link { dest_url, .. }) => links.push(dest_url.to_string()),
                _ => {}
            }
        }
        Self { file: file.to_owned(), text, blocks, links, inline }
    }

    /// The page with other code in one of its blocks.
    pub(super) fn with(&self, changes: &[(usize, String)]) -> String {
        let mut text = self.text.clone();
        for (block, code) in changes.iter().rev() {
            text.replace_range(self.blocks[*block].range.clone(), code);
        }
        text
    }
}

impl Block {
    /// The commands of a pipeline of CI: what stands below `run` or `script`.
    pub(super) fn pipeline(&self) -> Vec<Shown> {
        fn gather(value: &serde_yaml::Value, is_command: bool, found: &mut Vec<String>) {
            match value {
                serde_yaml::Value::String(line) if is_command => found.push(line.clone()),
                serde_yaml::Value::Sequence(items) => {
                    for item in items {
                        gather(item, is_command, found);
                    }
                }
                serde_yaml::Value::Mapping(keys) => keys.iter().for_each(|(key, value)| {
                    gather(value, matches!(key.as_str(), Some("run" | "script")), found);
                }),
                _ => {}
            }
        }
        let tree = serde_yaml::from_str(&self.code).unwrap_or_else(|error| panic!("{error}:\n{}", self.code));
        let mut found = Vec::new();
        gather(&tree, false, &mut found);
        found.into_iter().map(|command| Shown { command, output: Vec::new() }).collect()
    }

    /// Its commands: those behind a `$` with what they print, or, in a block without any, all its lines.
    pub(super) fn commands(&self) -> Vec<Shown> {
        let mut all: Vec<Shown> = Vec::new();
        let mut goes_on = false;
        for line in self.code.lines() {
            let command = match self.language.as_str() {
                "console" => line.strip_prefix("$ "),
                _ => Some(line).filter(|line| !line.trim().is_empty() && !line.starts_with('#')),
            };
            match (command, all.last_mut()) {
                (_, Some(last)) if goes_on => last.command = format!("{}\n{line}", last.command),
                (Some(command), _) => all.push(Shown { command: command.to_owned(), output: Vec::new() }),
                (None, Some(last)) => last.output.push(line.to_owned()),
                (None, None) => {}
            }
            goes_on = line.ends_with('\\');
        }
        all
    }

    /// The block as it would be with these commands and what they print.
    pub(super) fn written(commands: &[Shown]) -> String {
        let lines = commands.iter().flat_map(|shown| {
            [format!("$ {}", shown.command)].into_iter().chain(shown.output.iter().cloned())
        });
        lines.map(|line| line + "\n").collect()
    }

    /// The block without its comments, which are in the reader's language.
    pub(super) fn bare(&self) -> String {
        let uncommented = |line: &str| match line.split_once(" #") {
            Some((code, _)) => code.trim_end().to_owned(),
            None if line.starts_with('#') => String::new(),
            None => line.to_owned(),
        };
        self.code.lines().map(|line| uncommented(line) + "\n").collect()
    }
}
