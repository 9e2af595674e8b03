//! README and guides are run, not remembered: every command is taken out of the pages and run, and what it prints is
//! compared with what the page shows. `UPDATE_EXPECT=1` writes into the pages what was printed.
//!
//! A block says what it is: `console` has commands behind `$` and what they print, `sh` commands that print nothing of
//! interest, `iptables` rules of the lab, `yaml` a lab file or a part of one, `text` a picture.

mod output;
mod page;
mod reference;
mod shell;

use page::{Block, Page, Shown};
use shell::{Checkout, Outcome};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const PARALLEL: &str = "parallel --sshloginfile machines --return {}.json --cleanup \\
    'stateway lab test article invalid tcp-flags --on sim --shard {}/3 --report json={}.json' ::: 1 2 3";
const SLURM: &str = "sbatch --array=1-4 --wrap \
    'stateway lab test topologies --on sim --shard $SLURM_ARRAY_TASK_ID/4 --report json=$SLURM_ARRAY_TASK_ID.json'";

/// Commands that pages show and this test does not run, each with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("scripts/test", "it runs this test"),
    ("scripts/package", "it builds for minutes, and tries what it made with `--try`"),
    ("cargo install --locked cargo-fuzz", "it installs"),
    ("scripts/fuzz", "it takes minutes; tests/it/fuzz_corpus.rs runs what it found"),
    ("scripts/fuzz 600 frames offload", "as above"),
    ("scripts/fuzz-long 8", "as above"),
    ("cargo test --test it fuzz_corpus", "it is this test's neighbour"),
    ("scripts/run", "README.md shows it a second time, with the lab that it tests and what it prints"),
    (
        "stateway conform --frames 1000000 --profile mixed",
        "it takes minutes; tests/it/kernel.rs runs less of the same",
    ),
    ("stateway conform --seed 7 --frames 20000 --profile tcp", "as above"),
    ("stateway conform --profile rules --frames 200000", "as above"),
    ("stateway conform --mode bridge --frames 100000", "as above"),
    ("stateway conform --profile nat --frames 100000", "as above"),
    ("stateway lab web article", "it goes on until Ctrl-C; web/e2e/live.test.mjs begins it"),
    ("scripts/conform-long 8", "it takes a night"),
    ("scripts/conform-long --for 60", "scripts/test runs it"),
    ("stateway conform capture.pcapng --rules rules.v4", "the reader's own capture and rules"),
    (PARALLEL, "it takes machines that are reached by ssh"),
    (SLURM, "it takes a cluster"),
    ("stateway conform tests/scenarios/tcp/*.flow", "tests/it/kernel.rs takes all scenarios to the kernel"),
];

/// Pages that are run at the same time. They wait most of the time: for an answer that never comes.
const AT_ONCE: usize = 6;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that has a reader who may try what it says.
fn pages() -> Vec<Page> {
    let list = |folder: PathBuf| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let labs = list(root().join("topologies")).into_iter().filter(|path| path.is_dir()).flat_map(list);
    let all = list(root().to_owned()).into_iter().chain(list(root().join("docs"))).chain(labs);
    all.filter(|file| file.extension().is_some_and(|e| e == "md"))
        .filter(|file| !file.ends_with("CHANGELOG.md"))
        .map(|file| Page::read(&file))
        .collect()
}

fn is_translation(page: &Page) -> bool {
    page.file.to_string_lossy().ends_with(".zh-CN.md")
}

fn name(page: &Page) -> String {
    page.file.strip_prefix(root()).unwrap().display().to_string()
}

/// The page in English that this one says in Chinese.
fn original(page: &Page) -> PathBuf {
    PathBuf::from(page.file.to_string_lossy().replace(".zh-CN.md", ".md"))
}

/// The blocks that say something to a program.
fn spoken(page: &Page) -> impl Iterator<Item = (usize, &Block)> {
    page.blocks.iter().enumerate().filter(|(_, block)| block.language != "text")
}

#[test]
fn every_block_says_what_it_is() {
    let mut wrong = String::new();
    for page in pages() {
        for block in &page.blocks {
            let first = block.code.lines().next().unwrap_or_default();
            if !["console", "sh", "iptables", "yaml", "text"].contains(&block.language.as_str()) {
                _ = writeln!(wrong, "{}: a block of `{}`: {first}", name(&page), block.language);
            }
            let hidden =
                |line: &str| ["$ ", "scripts/", "stateway "].iter().any(|word| line.starts_with(word));
            if block.language == "text" && block.code.lines().any(hidden) {
                _ = writeln!(wrong, "{}: a command in a picture: {first}", name(&page));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = String::new();
    for page in pages() {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let path = link.split('#').next().unwrap_or_default();
            if !page.file.parent().unwrap().join(path).exists() {
                _ = writeln!(wrong, "{}: {link}", name(&page));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_translation_has_the_same_blocks() {
    for page in pages().iter().filter(|page| is_translation(page)) {
        let original = Page::read(&original(page));
        let bare = |page: &Page| -> Vec<(String, String)> {
            spoken(page).map(|(_, block)| (block.language.clone(), block.bare())).collect()
        };
        assert_eq!(bare(page), bare(&original), "{}", name(page));
    }
}

#[test]
fn every_guide_quotes_the_rules_of_its_lab() {
    for page in pages() {
        let lab = fs::read_to_string(page.file.with_file_name("lab.yaml"));
        for block in page.blocks.iter().filter(|block| block.language == "iptables") {
            let lab = lab.as_ref().unwrap_or_else(|_| panic!("{}: rules of no lab", name(&page)));
            let lines: BTreeSet<&str> = lab.lines().map(str::trim).collect();
            for line in block.code.lines().filter(|line| *line != "…") {
                assert!(lines.contains(line), "{}: not in lab.yaml: {line}", name(&page));
            }
        }
    }
}

/// What a page says within its lines has other people's files in it, so it is not run; but what it names must be there.
#[test]
fn every_command_and_option_that_is_named_exists() {
    let mut wrong = BTreeSet::new();
    for page in pages() {
        for code in page.inline.iter().filter(|code| code.starts_with("stateway ")) {
            let is_word = |word: &&str| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
            };
            let words: Vec<&str> = code.split_whitespace().skip(1).collect();
            // `stateway lab test`: two words; `stateway run`: one, whatever follows.
            let path: Vec<&str> = words.iter().copied().take_while(is_word).collect();
            let depth = if path.first().is_some_and(|word| ["lab", "rules"].contains(word)) { 2 } else { 1 };
            let path = &path[..path.len().min(depth)];
            let output =
                Command::new(env!("CARGO_BIN_EXE_stateway")).args(path).arg("--help").output().unwrap();
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            let options = words.iter().filter(|word| word.starts_with("--") && word.len() > 2);
            let options = options.map(|word| word.split(['=', '[', ',']).next().unwrap_or_default());
            if !output.status.success() || options.into_iter().any(|option| !help.contains(option)) {
                wrong.insert(format!("{}: {code}", name(&page)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a command needs neither root nor namespaces.
fn is_simulated(command: &str) -> bool {
    let words = [
        "PATH=",
        "cargo build",
        "stateway explain",
        "stateway replay",
        "stateway rules",
        "stateway lab schema",
        "stateway lab graph",
        "stateway lab new",
        "sed -i",
    ];
    words.iter().any(|word| command.starts_with(word)) || command.contains("--on sim")
}

#[test]
fn what_the_pages_show_is_what_happens() {
    let is_sim_only = std::env::var_os("STATEWAY_SIM_ONLY").is_some();
    let waiting = Mutex::new(pages().into_iter().filter(|page| !is_translation(page)).collect::<Vec<_>>());
    let wrong = Mutex::new(BTreeSet::new());
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(page) = waiting.lock().unwrap().pop() else { break };
                    seen.lock().unwrap().extend(shown(&page).into_iter().map(|(_, shown)| shown.command));
                    // Nobody waits while a page is tried.
                    let found = try_page(&page, is_sim_only);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let (wrong, seen) = (wrong.into_inner().unwrap(), seen.into_inner().unwrap());
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(
        wrong.is_empty(),
        "{} commands do otherwise than the page says\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let gone: Vec<_> =
        NOT_RUN.iter().filter(|(command, _)| !seen.iter().any(|s| is_command(s, command))).collect();
    assert!(gone.is_empty(), "no page shows them any more: {gone:?}");
}

/// Every command of a page, with the number of its block.
fn shown(page: &Page) -> Vec<(usize, Shown)> {
    let is_pipeline = page.file.ends_with("docs/CI.md");
    let commands = |block: &Block| match block.language.as_str() {
        "console" | "sh" => block.commands(),
        "yaml" if is_pipeline => block.pipeline(),
        _ => Vec::new(),
    };
    let all = page.blocks.iter().enumerate();
    all.flat_map(|(at, block)| commands(block).into_iter().map(move |shown| (at, shown))).collect()
}

/// Whether a line of a page is this command, whatever comment stands behind it.
fn is_command(line: &str, command: &str) -> bool {
    line.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.trim_start().starts_with('#'))
}

/// Runs the commands of a page; says what came out otherwise than shown.
fn try_page(page: &Page, is_sim_only: bool) -> Vec<String> {
    let is_run = |shown: &Shown| {
        !NOT_RUN.iter().any(|(command, _)| is_command(&shown.command, command))
            && (!is_sim_only || is_simulated(&shown.command))
    };
    let mut commands = shown(page);
    let run: Vec<usize> = (0..commands.len()).filter(|at| is_run(&commands[*at].1)).collect();
    if run.is_empty() {
        return Vec::new();
    }
    let words: Vec<&str> = run.iter().map(|at| commands[*at].1.command.as_str()).collect();
    let checkout = Checkout::new();
    // Guides say themselves how the program is found; the other pages speak of one that is installed.
    let is_installed = page.file.parent().is_some_and(|folder| folder.ends_with("docs"));
    let outcomes = checkout.run(&words, !is_sim_only, is_installed);
    let mut wrong = Vec::new();
    for (number, at) in run.into_iter().enumerate() {
        let (block, shown) = &mut commands[at];
        let Some(outcome) = outcomes.get(number) else {
            wrong.push(format!("{}: never came to: {}", name(page), shown.command));
            continue;
        };
        let is_console = page.blocks[*block].language == "console";
        if let Some(why) = judge(shown, outcome, is_console) {
            wrong.push(format!("{}: $ {}\n{why}", name(page), shown.command));
            shown.output = output::results(&outcome.printed);
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        rewrite(page, &commands);
    }
    wrong
}

/// Why the outcome is not what the page shows.
fn judge(shown: &Shown, outcome: &Outcome, is_console: bool) -> Option<String> {
    let mut printed = output::results(&outcome.printed);
    let mut page = shown.output.clone();
    if shown.command.contains("conntrack -L") {
        (printed, page) = (output::sorted(printed), output::sorted(page));
    }
    let is_silent = !is_console || shown.output.is_empty();
    if is_silent && outcome.code != "0" {
        return Some(format!("it ends with exit code {}:\n{}", outcome.code, outcome.printed));
    }
    if is_console && !output::shows(&page, &printed) {
        return Some(format!("shown:\n{}\nprinted:\n{}", shown.output.join("\n"), printed.join("\n")));
    }
    None
}

/// Writes into a page, and into its translation, what was printed.
fn rewrite(page: &Page, commands: &[(usize, Shown)]) {
    let changes: Vec<(usize, String)> = spoken(page)
        .filter(|(_, block)| block.language == "console")
        .map(|(at, _)| {
            let own: Vec<Shown> =
                commands.iter().filter(|(b, _)| *b == at).map(|(_, shown)| shown.clone()).collect();
            (at, Block::written(&own))
        })
        .collect();
    fs::write(&page.file, page.with(&changes)).unwrap();
    let translation = PathBuf::from(page.file.to_string_lossy().replace(".md", ".zh-CN.md"));
    if translation.exists() {
        let other = Page::read(&translation);
        let places: Vec<usize> = spoken(&other).map(|(at, _)| at).collect();
        let at = |block: usize| {
            spoken(page).position(|(at, _)| at == block).and_then(|nth| places.get(nth).copied())
        };
        let moved: Vec<(usize, String)> =
            changes.into_iter().filter_map(|(block, code)| Some((at(block)?, code))).collect();
        fs::write(&translation, other.with(&moved)).unwrap();
    }
}
