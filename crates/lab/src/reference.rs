//! The reference of the lab file, as a page in Markdown: made from the types in [`super::spec`], so that it cannot
//! differ from what is read.
//!
//! Its examples are parts of two labs that stand beside this file. Tests take both through the simulator, and insist
//! that every key is explained, is used in an example, and has the default that it is said to have.

#![forbid(unsafe_code)]

use super::spec;
use serde_json::Value;
use std::fmt::Write as _;

/// A lab with every kind of step, and one in route mode.
const EXAMPLES: [&str; 2] = [include_str!("reference/bridge.yaml"), include_str!("reference/route.yaml")];

const HEAD: &str = "# The lab file

A lab is one YAML file, usually `lab.yaml` in a folder of its own: a router, hosts around it, and tests of what must be
observed. This page is made from the types that read it, by `stateway lab schema --markdown`; `stateway lab schema` prints
the same as JSON Schema, which is also in [lab.schema.json](lab.schema.json). An editor that knows the YAML language server
completes and checks a file that begins with this line:

```yaml
# yaml-language-server: $schema=https://…/docs/lab.schema.json
```

The labs of this repository name it by its place, `../../docs/lab.schema.json`.

- Where one of something is enough, a list may stand: `from: a`, `from: [a, b]`. A step repeats over lists.
- A **time** is `500ms`, `5s`, `2m`, `5days`; a bare number counts seconds. A **share** is `10%`, or `10`.
- Addresses with the length of a network are written `192.0.2.77/24`. IPv6 addresses and link addresses stand in quotes,
  since YAML has uses of its own for colons.
- Everything that is wrong with a file is told at once, each with its line: unknown keys, missing hosts, clashing
  addresses, bad rules.
- `stateway run FILE` takes the same file and looks at its `router:` alone; a file may also be just that part.
";

/// The part of an example, by its number, that stands below a key of the file.
type Part = (usize, &'static str);

/// Sections of the page: title, type, and the part of an example that shows it.
const SECTIONS: [(&str, &str, Option<Part>); 11] = [
    ("The file", "", None),
    ("The router: `router`", "RouterSpec", Some((1, "router"))),
    ("A port: `router.ports.NAME`", "PortSpec", None),
    ("A route: `router.routes`", "RouteSpec", None),
    ("A neighbour: `router.neighbours`", "NeighbourSpec", None),
    ("A host: `hosts.NAME`", "HostSpec", Some((1, "hosts"))),
    ("A route of a host: `hosts.NAME.routes`", "HostRouteSpec", None),
    ("A service: `hosts.NAME.services`", "ServiceDetailSpec", Some((0, "hosts"))),
    ("A test: `tests`", "TestSpec", None),
    ("What must come of a step: `expect`", "ExpectSpec", None),
    ("Bad links: `impair.PORT`", "ImpairSpec", None),
];

/// Keys that a test and a step have beside what the step does.
const AROUND: [&str; 7] = ["name", "on", "steps", "expect", "within", "timeout", "impair"];

/// The whole page.
#[must_use]
pub fn markdown() -> String {
    let schema = spec::schema();
    let page = Reference { schema: &schema };
    let mut text = HEAD.to_owned();
    for (title, kind, example) in SECTIONS {
        _ = write!(text, "\n## {title}\n\n");
        page.section(&mut text, kind);
        if let Some((lab, key)) = example {
            _ = write!(text, "\n```yaml\n{}```\n", part(EXAMPLES[lab], key));
        }
        if kind == "TestSpec" {
            page.steps(&mut text);
        }
        if kind == "ImpairSpec" {
            _ = write!(text, "\n```yaml\n{}```\n", example_of("impair"));
        }
    }
    text
}

struct Reference<'a> {
    schema: &'a Value,
}

impl<'a> Reference<'a> {
    /// A type by its name; the file itself has none.
    fn definition(&self, name: &str) -> &'a Value {
        if name.is_empty() { self.schema } else { &self.schema["$defs"][name] }
    }

    fn follow(&self, schema: &'a Value) -> &'a Value {
        let schema = without_null(schema);
        schema["$ref"].as_str().map_or(schema, |path| self.definition(path.trim_start_matches("#/$defs/")))
    }

    /// What a type is for, and a table of its keys. Of a test, only those that stand around its steps.
    fn section(&self, text: &mut String, name: &str) {
        let definition = self.definition(name);
        _ = write!(text, "{}\n\n", description(definition));
        let shown = |key: &str| name != "TestSpec" || AROUND.contains(&key);
        self.table(text, definition, shown, name == "ExpectSpec");
        if name == "ServiceDetailSpec" {
            let names = self.words(self.definition("ServiceNameSpec"));
            _ = write!(text, "\nThe named services: {names}\n");
        }
    }

    fn table(&self, text: &mut String, definition: &'a Value, shown: impl Fn(&str) -> bool, examples: bool) {
        let (head, rule) = if examples { (" Example |", "---|") } else { ("", "") };
        _ = write!(text, "| Key | Value | Default | What it is |{head}\n|---|---|---|---|{rule}\n");
        let required: Vec<&str> = strings(&definition["required"]).collect();
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            if !shown(key) {
                continue;
            }
            let default = match &property["default"] {
                Value::Null if required.contains(&key.as_str()) => "*required*".to_owned(),
                Value::Null => String::new(),
                Value::String(word) => format!("`{word}`"),
                other => format!("`{other}`"),
            };
            let words = self.words(self.follow(property));
            let about = format!("{} {words}", description(property));
            _ = write!(text, "| `{key}` | {} | {default} | {} |", self.kind(property), about.trim_end());
            if examples {
                _ = write!(text, " `{}` |", expectation(key).unwrap_or_default());
            }
            text.push('\n');
        }
    }

    /// The kinds of steps, each with its keys and an example.
    fn steps(&self, text: &mut String) {
        text.push_str("\nA step does one of these:\n\n| Key | What it does |\n|---|---|\n");
        let steps: Vec<(&String, &Value)> = self.definition("StepSpec")["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !AROUND.contains(&key.as_str()))
            .collect();
        for (key, property) in &steps {
            _ = writeln!(text, "| [`{key}`](#{key}) | {} |", description(property));
        }
        for (key, property) in steps {
            let definition = self.follow(property);
            _ = write!(text, "\n### `{key}`\n\n");
            if definition["properties"].is_object() {
                let about = description(definition);
                _ = write!(text, "{}\n\n", if about.is_empty() { description(property) } else { about });
                self.table(text, definition, |_| true, false);
            } else {
                _ = writeln!(text, "{} Its value is a {}.", description(property), self.kind(property));
            }
            _ = write!(text, "\n```yaml\n{}```\n", example_of(key));
        }
    }

    /// What a value looks like, in a few words.
    fn kind(&self, schema: &'a Value) -> String {
        let schema = without_null(schema);
        if let Some(title) = schema["title"].as_str().filter(|_| schema["anyOf"].is_array()) {
            return format!("a {title}");
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let is_list = |choice: &&Value| choice["type"] == "array";
            return match choices.iter().find(|choice| !is_list(choice)) {
                Some(one) if choices.iter().any(|choice| is_list(&choice)) => {
                    format!("{}, or a list", self.kind(one))
                }
                Some(one) => self.kind(one),
                None => String::new(),
            };
        }
        if schema["$ref"].is_string() {
            let target = self.follow(schema);
            return match (target["properties"].is_object(), target["anyOf"].as_array()) {
                (true, _) => "a mapping".to_owned(),
                (false, Some(_)) => "a name, or a mapping".to_owned(),
                (false, None) => "a word".to_owned(),
            };
        }
        match kind_word(schema) {
            "array" => format!("a list of {}", plural(&self.kind(&schema["items"]))),
            "object" => format!("names, each with {}", self.kind(&schema["additionalProperties"])),
            "integer" => bounds(schema),
            "boolean" => "`true` or `false`".to_owned(),
            _ => "text".to_owned(),
        }
    }

    /// The words that a value is one of, with what each means.
    fn words(&self, schema: &'a Value) -> String {
        let schema = without_null(schema);
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.first().map(|one| self.words(self.follow(one))).unwrap_or_default();
        }
        let words = schema["oneOf"].as_array().into_iter().flatten().filter_map(|word| {
            Some(format!("`{}`: {}", word["const"].as_str()?, description(word).trim_end_matches('.')))
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() { String::new() } else { format!("<br>{}", words.join("<br>")) }
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The schema of a value that may be left out, once it is there.
fn without_null(schema: &Value) -> &Value {
    let choices =
        schema["anyOf"].as_array().filter(|choices| choices.iter().any(|choice| choice["type"] == "null"));
    choices.and_then(|choices| choices.iter().find(|choice| choice["type"] != "null")).unwrap_or(schema)
}

fn kind_word(schema: &Value) -> &str {
    schema["type"]
        .as_str()
        .or_else(|| strings(&schema["type"]).find(|kind| *kind != "null"))
        .unwrap_or_default()
}

fn bounds(schema: &Value) -> String {
    let at_least = schema["minimum"].as_u64().unwrap_or(0);
    match schema["maximum"].as_u64() {
        Some(at_most) => format!("{at_least} to {at_most}"),
        None if at_least > 0 => format!("a number, at least {at_least}"),
        None => "a number".to_owned(),
    }
}

fn plural(one: &str) -> String {
    format!("{}s", one.trim_start_matches("a "))
}

/// What is said of a type or a key, on one line; a `|` would end the cell of a table.
fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// The lines of an example below a key of the file, with the key.
fn part(lab: &str, key: &str) -> String {
    let begins = |line: &str| !line.starts_with([' ', '#']);
    let mut lines = lab.lines().skip_while(|line| *line != format!("{key}:"));
    let first = lines.next().into_iter();
    first.chain(lines.take_while(|line| !begins(line))).map(|line| format!("{line}\n")).collect()
}

/// The tests of the examples, each as it stands in its file.
fn tests() -> Vec<String> {
    let mut tests: Vec<String> = Vec::new();
    for lab in EXAMPLES {
        for line in part(lab, "tests").lines().skip(1).map(|line| line.strip_prefix("  ").unwrap_or(line)) {
            match tests.last_mut() {
                Some(test) if !line.starts_with("- ") => *test += line,
                _ => tests.push(line.to_owned()),
            }
            tests.last_mut().expect("one was pushed").push('\n');
        }
    }
    tests
}

/// Every test that takes such a step.
fn example_of(step: &str) -> String {
    let takes = |test: &String| {
        test.lines().any(|line| line.trim_start().trim_start_matches("- ").starts_with(&format!("{step}:")))
    };
    let found: Vec<String> = tests().into_iter().filter(takes).collect();
    // A few are enough; those with a single step come first, since they show nothing else.
    let mut found: Vec<&String> = found.iter().collect();
    found.sort_by_key(|test| test.contains("  steps:"));
    found.iter().take(3).map(|test| test.as_str()).collect()
}

/// The first `expect` in the examples that has this key.
fn expectation(key: &str) -> Option<String> {
    let has = |line: &&str| line.starts_with("expect:") && line.contains(&format!(" {key}:"));
    let tests = tests();
    let line = tests.iter().flat_map(|test| test.lines()).map(str::trim_start).find(has)?;
    Some(line.trim_start_matches("expect: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lab;
    use crate::resolve::load_text;
    use crate::sim::Sim;
    use crate::trial::{self, Ending};
    use std::collections::BTreeSet;
    use std::path::Path;

    fn load(text: &str) -> Lab {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reference/lab.yaml");
        load_text(text, &file).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn the_examples_come_out_as_they_say() {
        for text in EXAMPLES {
            let lab = load(text);
            for test in trial::run(&lab, &mut Sim::new(lab.clone(), 1).unwrap(), |_| ()) {
                let is_well = matches!(test.ending, Ending::Passed | Ending::Skipped(_));
                assert!(is_well, "{}: {:?}", test.name, test.ending);
            }
        }
    }

    /// Every key of every type, as `RouterSpec.mode`.
    fn keys(schema: &Value) -> BTreeSet<String> {
        let types = schema["$defs"].as_object().unwrap().iter().map(|(name, kind)| (name.as_str(), kind));
        let all = types.chain([("", schema)]);
        let keys = |kind: &Value| kind["properties"].as_object().cloned().unwrap_or_default();
        all.flat_map(|(name, kind)| keys(kind).into_iter().map(move |(key, _)| format!("{name}.{key}")))
            .collect()
    }

    #[test]
    fn every_key_and_every_word_is_explained() {
        let schema = spec::schema();
        let types = schema["$defs"].as_object().unwrap();
        let keys =
            types.values().chain([&schema]).filter_map(|kind| kind["properties"].as_object()).flatten();
        let mute: Vec<&String> =
            keys.filter(|(_, property)| description(property).is_empty()).map(|(key, _)| key).collect();
        assert!(mute.is_empty(), "without a word: {mute:?}");
        let words: Vec<&String> =
            types.iter().filter(|(_, kind)| kind["enum"].is_array()).map(|(n, _)| n).collect();
        assert!(words.is_empty(), "words that are not explained: {words:?}");
        let objects =
            types.iter().filter(|(_, kind)| kind["properties"].is_object() && description(kind).is_empty());
        let objects: Vec<&String> = objects.map(|(name, _)| name).collect();
        assert!(objects.is_empty(), "types that are not explained: {objects:?}");
    }

    /// Visits every mapping of a lab with the name of its type.
    fn visit(
        page: &Reference<'_>,
        schema: &Value,
        name: &str,
        value: &mut Value,
        seen: &mut dyn FnMut(&str, &mut Value),
    ) {
        let schema = without_null(schema);
        if let Some(target) = schema["$ref"].as_str().map(|path| path.trim_start_matches("#/$defs/")) {
            return visit(page, page.definition(target), target, value, seen);
        }
        let choices = schema["anyOf"].as_array().cloned().unwrap_or_default();
        let meant = choices.iter().find(|choice| match (&*value, &choice["$ref"]) {
            (Value::Array(_), _) => choice["type"] == "array",
            (Value::Object(_), Value::String(path)) => {
                page.definition(path.trim_start_matches("#/$defs/"))["enum"].is_null()
                    && !path.ends_with("NameSpec")
            }
            _ => false,
        });
        if let Some(meant) = meant {
            return visit(page, meant, name, value, seen);
        }
        match value {
            Value::Array(items) => {
                for item in items {
                    visit(page, &schema["items"], name, item, seen);
                }
            }
            Value::Object(object) if schema["properties"].is_object() => {
                for (key, value) in object.iter_mut() {
                    visit(page, &schema["properties"][key], "", value, seen);
                }
                seen(name, value);
            }
            Value::Object(object) => {
                for value in object.values_mut() {
                    visit(page, &schema["additionalProperties"], name, value, seen);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_key_is_in_an_example() {
        let schema = spec::schema();
        let page = Reference { schema: &schema };
        let mut missing = keys(&schema);
        for text in EXAMPLES {
            let mut tree = spec::parse(text).unwrap().tree;
            visit(&page, &schema, "", &mut tree, &mut |name, value| {
                for key in value.as_object().unwrap().keys() {
                    missing.remove(&format!("{name}.{key}"));
                    // It is the same in every step.
                    missing.retain(|other| key != "family" || !other.ends_with(".family"));
                    // A test with one step is written as that step.
                    if name == "TestSpec" {
                        missing.remove(&format!("StepSpec.{key}"));
                    }
                    if name == "StepSpec" {
                        missing.remove(&format!("TestSpec.{key}"));
                    }
                }
            });
        }
        assert!(missing.is_empty(), "in no example: {missing:?}");
    }

    #[test]
    fn what_is_said_to_be_the_default_is() {
        let schema = spec::schema();
        let page = Reference { schema: &schema };
        let mut said = 0;
        for text in EXAMPLES {
            let lab = load(text);
            let mut tree = spec::parse(text).unwrap().tree;
            visit(&page, &schema, "", &mut tree, &mut |name, value| {
                let object = value.as_object_mut().unwrap();
                // In a session that is kept, the first step has said it.
                let goes_on = object.contains_key("session");
                for (key, property) in page.definition(name)["properties"].as_object().into_iter().flatten() {
                    if !property["default"].is_null() && !object.contains_key(key) && !goes_on {
                        object.insert(key.clone(), property["default"].clone());
                        said += 1;
                    }
                }
            });
            let mut told = load(&tree.to_string());
            // Only the text itself is another, and what stands where in it.
            told.sources.clone_from(&lab.sources);
            told.places.clone_from(&lab.places);
            assert_eq!(format!("{told:?}"), format!("{lab:?}"));
        }
        assert!(said > 20, "only {said} defaults were left out in the examples");
    }

    #[test]
    fn every_kind_of_step_has_an_example() {
        let schema = spec::schema();
        for key in schema["$defs"]["StepSpec"]["properties"].as_object().unwrap().keys() {
            assert!(AROUND.contains(&key.as_str()) || !example_of(key).is_empty(), "{key}");
        }
        for key in schema["$defs"]["ExpectSpec"]["properties"].as_object().unwrap().keys() {
            assert!(expectation(key).is_some(), "{key}");
        }
    }
}
