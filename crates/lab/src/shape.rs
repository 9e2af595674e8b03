//! Does a file have the shape that its schema asks for? Every place where it does not, at once.
//!
//! The schema is made from the types in [`super::spec`], so that the parser, the errors and `stateway lab schema`
//! cannot differ. What needs more than one value to judge (does that host exist?) is left to [`super::resolve`].

#![forbid(unsafe_code)]

use super::error::hint;
use super::locate::{item, key};
use core::fmt;
use serde_json::{Map, Value};

/// Stands where an item was taken out of a list.
pub(crate) const HOLE: &str = "\0";

/// One place where the value is not as the schema says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) path: Path,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// The way from the root of a tree to one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Item(usize),
}

impl Path {
    fn key(&self, name: &str) -> Self {
        self.then(Segment::Key(name.to_owned()))
    }

    fn item(&self, index: usize) -> Self {
        self.then(Segment::Item(index))
    }

    fn then(&self, segment: Segment) -> Self {
        Self(self.0.iter().cloned().chain([segment]).collect())
    }

    /// Takes the value out of `tree`. False if that is the tree itself. An item leaves a [`HOLE`], so that those
    /// behind it keep their numbers.
    pub(crate) fn prune(&self, tree: &mut Value) -> bool {
        let Some((last, way)) = self.0.split_last() else { return false };
        let parent = way.iter().try_fold(tree, |value, segment| match segment {
            Segment::Key(name) => value.get_mut(name),
            Segment::Item(index) => value.get_mut(index),
        });
        match (parent, last) {
            (Some(Value::Object(object)), Segment::Key(name)) => drop(object.shift_remove(name)),
            (Some(Value::Array(array)), Segment::Item(index)) if *index < array.len() => {
                array[*index] = HOLE.into();
            }
            _ => {}
        }
        true
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.iter().fold(String::new(), |path, segment| match segment {
            Segment::Key(name) => key(&path, name),
            Segment::Item(index) => item(&path, *index),
        });
        f.write_str(&text)
    }
}

/// Everything in `value` that `schema` does not allow.
pub(crate) fn check(schema: &Value, value: &Value) -> Vec<Misfit> {
    let mut shape = Shape { root: schema, found: Vec::new() };
    shape.value(schema, value, &Path::default());
    shape.found
}

struct Shape<'a> {
    root: &'a Value,
    found: Vec<Misfit>,
}

impl<'a> Shape<'a> {
    fn misfit(&mut self, path: &Path, message: String, hint: Option<String>) {
        self.found.push(Misfit { path: path.clone(), message, hint });
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &Path) {
        let schema = self.follow(schema);
        if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
            return self.choice(choices, value, path);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return self.word(words.iter().filter_map(Value::as_str).collect(), value, path);
        }
        if !self.accepts_kind(schema, value) {
            let wanted = self.kinds(schema).join(" or ");
            let hint = remedy(schema, &wanted, value);
            return self.misfit(path, format!("expected {wanted}, found {}", kind(value)), hint);
        }
        match value {
            Value::Object(object) => self.object(schema, object, path),
            Value::Array(array) => {
                if let Some(items) = schema.get("items") {
                    for (i, value) in array.iter().enumerate().filter(|(_, value)| *value != HOLE) {
                        self.value(items, value, &path.item(i));
                    }
                }
            }
            Value::Number(number) => self.bounds(schema, number, path),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }

    fn follow(&self, schema: &'a Value) -> &'a Value {
        match schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|r| self.root.pointer(r.trim_start_matches('#')))
        {
            Some(target) => self.follow(target),
            None => schema,
        }
    }

    /// The first choice of the value's own kind is the one that was meant.
    fn choice(&mut self, choices: &'a [Value], value: &Value, path: &Path) {
        let words: Vec<&str> = choices
            .iter()
            .filter_map(|choice| self.follow(choice).get("const"))
            .filter_map(Value::as_str)
            .collect();
        if !words.is_empty() {
            return self.word(words, value, path);
        }
        if let Some(meant) = choices.iter().find(|choice| self.accepts_kind(choice, value)) {
            return self.value(meant, value, path);
        }
        let wanted: Vec<&str> =
            choices.iter().flat_map(|choice| self.kinds(choice)).filter(|kind| *kind != "nothing").collect();
        self.misfit(path, format!("expected {}, found {}", wanted.join(" or "), kind(value)), None);
    }

    fn word(&mut self, words: Vec<&str>, value: &Value, path: &Path) {
        match value.as_str() {
            Some(word) if words.contains(&word) => {}
            Some(word) => {
                self.misfit(path, format!("`{word}` is not known here"), hint(word, words, "known words"));
            }
            None => self.misfit(
                path,
                format!("expected a word, found {}", kind(value)),
                hint("", words, "known words"),
            ),
        }
    }

    fn object(&mut self, schema: &'a Value, object: &Map<String, Value>, path: &Path) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, value) in object {
            match (properties.and_then(|p| p.get(name)), schema.get("additionalProperties")) {
                (Some(property), _) => self.value(property, value, &path.key(name)),
                (None, Some(Value::Bool(false))) => {
                    let known = properties.unwrap_or(&none).keys().map(String::as_str);
                    let hint = if name == "<<" {
                        Some("merge keys are not read: a whole value is marked with `&name`, and repeated with `*name`".to_owned())
                    } else {
                        hint(name, known, "known keys")
                    };
                    self.misfit(&path.key(name), format!("unknown key `{name}`"), hint);
                }
                (None, Some(any)) => self.value(any, value, &path.key(name)),
                (None, None) => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str).filter(|name| !object.contains_key(*name)) {
            self.misfit(path, format!("`{name}` is missing"), None);
        }
    }

    fn bounds(&mut self, schema: &Value, number: &serde_json::Number, path: &Path) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let n = number.as_f64().unwrap_or(f64::NAN);
        let (low, high) = (bound("minimum"), bound("maximum"));
        if low.is_some_and(|low| n < low) || high.is_some_and(|high| n > high) {
            let range = match (low, high) {
                (Some(low), Some(high)) => format!("between {low} and {high}"),
                (Some(low), None) => format!("at least {low}"),
                (None, high) => format!("at most {}", high.unwrap_or_default()),
            };
            self.misfit(path, format!("{number} must be {range}"), None);
        }
    }

    fn accepts_kind(&self, schema: &'a Value, value: &Value) -> bool {
        let schema = self.follow(schema);
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            return value.is_string();
        }
        if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
            return choices.iter().any(|choice| self.accepts_kind(choice, value));
        }
        let of_type = |name: &Value| match name.as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("null") => value.is_null(),
            _ => true,
        };
        match schema.get("type") {
            Some(Value::Array(names)) => names.iter().any(of_type),
            Some(name) => of_type(name),
            None => true,
        }
    }

    /// What the schema takes, in words.
    fn kinds(&self, schema: &'a Value) -> Vec<&'static str> {
        let schema = self.follow(schema);
        let word = |name: &Value| match name.as_str() {
            Some("object") => "a mapping",
            Some("array") => "a list",
            Some("string") => "text",
            Some("integer") => "a whole number",
            Some("number") => "a number",
            Some("boolean") => "true or false",
            _ => "nothing",
        };
        match schema.get("type") {
            Some(Value::Array(names)) => names.iter().map(word).filter(|word| *word != "nothing").collect(),
            Some(name) => vec![word(name)],
            None => vec!["something else"],
        }
    }
}

/// How to write what was wanted, where something of another kind stands.
fn remedy(schema: &Value, wanted: &str, value: &Value) -> Option<String> {
    match value {
        Value::Object(_) if wanted == "a list" => Some("each item begins with `- `".to_owned()),
        Value::Array(_) | Value::Null | Value::String(_) if wanted == "a mapping" => {
            match schema.get("properties").and_then(Value::as_object) {
                Some(known) => hint("", known.keys().map(String::as_str), "known keys"),
                None => Some("each begins with its name and a colon, such as `name: {}`".to_owned()),
            }
        }
        Value::Array(_) | Value::Object(_) => None,
        value => wanted.contains("text").then(|| format!("in quotes it is text: \"{value}\"")),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("`{s}`"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{self, LabSpec};
    use serde::Deserialize as _;

    /// A value with everything in it that the schema allows, and for each choice the one numbered `choice`.
    fn sample(root: &Value, schema: &Value, choice: usize, depth: usize) -> Value {
        const DEEPEST: usize = 12;
        let schema = Shape { root, found: Vec::new() }.follow(schema).clone();
        if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
            let choices: Vec<&Value> = choices
                .iter()
                .filter(|choice| choice.get("type").is_none_or(|kind| kind != "null"))
                .collect();
            return sample(root, choices[choice % choices.len()], choice, depth + 1);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words[choice % words.len()].clone();
        }
        if let Some(word) = schema.get("const") {
            return word.clone();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds[0].clone(),
            kind => kind.clone(),
        };
        assert!(depth < DEEPEST, "the schema goes in circles");
        match kind.as_str() {
            Some("object") => {
                let mut object = Map::new();
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    object.insert(name.clone(), sample(root, property, choice, depth + 1));
                }
                if let Some(any) = schema.get("additionalProperties").filter(|any| any.is_object()) {
                    object.insert("any".to_owned(), sample(root, any, choice, depth + 1));
                }
                Value::Object(object)
            }
            Some("array") => Value::Array(vec![sample(root, &schema["items"], choice, depth + 1)]),
            Some("string") => Value::from("text"),
            Some("boolean") => Value::from(true),
            Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(Value::from(1)),
            other => panic!("{other:?} in {schema}"),
        }
    }

    /// Every object in a value, by its path.
    fn objects(value: &Value, path: &Path, found: &mut Vec<Path>) {
        match value {
            Value::Object(object) => {
                found.push(path.clone());
                object.iter().for_each(|(name, value)| objects(value, &path.key(name), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, value)| objects(value, &path.item(at), found));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn at<'a>(value: &'a mut Value, path: &Path) -> &'a mut Map<String, Value> {
        let place = path.0.iter().fold(value, |value, segment| match segment {
            Segment::Key(name) => &mut value[name],
            Segment::Item(index) => &mut value[*index],
        });
        place.as_object_mut().unwrap()
    }

    #[test]
    fn the_schema_and_the_parser_agree_on_what_is_allowed() {
        let schema = spec::schema();
        for choice in 0..6 {
            let full = sample(&schema, &schema, choice, 0);
            assert_eq!(check(&schema, &full), [], "the schema refuses its own sample");
            LabSpec::deserialize(&full).unwrap_or_else(|error| panic!("the parser refuses: {error}"));
            // The other choices differ in words only.
            if choice > 0 {
                continue;
            }
            let mut places = Vec::new();
            objects(&full, &Path::default(), &mut places);
            for place in places {
                let names: Vec<String> = at(&mut full.clone(), &place).keys().cloned().collect();
                // An unknown key is refused by both, or, where names are free, judged alike.
                let mut more = full.clone();
                at(&mut more, &place).insert("no-such-key".to_owned(), Value::from(1));
                assert_eq!(
                    check(&schema, &more).is_empty(),
                    LabSpec::deserialize(&more).is_ok(),
                    "at `{place}`"
                );
                for name in names {
                    let mut less = full.clone();
                    at(&mut less, &place).shift_remove(&name);
                    let agrees = check(&schema, &less).is_empty() == LabSpec::deserialize(&less).is_ok();
                    assert!(agrees, "without `{name}` at `{place}`");
                    let mut other = full.clone();
                    at(&mut other, &place).insert(name.clone(), Value::Array(vec![Value::Array(Vec::new())]));
                    let agrees = check(&schema, &other).is_empty() == LabSpec::deserialize(&other).is_ok();
                    assert!(agrees, "with another `{name}` at `{place}`");
                }
            }
        }
    }

    #[test]
    fn every_misfit_is_found_with_its_path() {
        let schema = spec::schema();
        let lab =
            serde_json::json!({ "name": 5, "router": { "prots": {} }, "tests": [{ "ping": { "from": 1 } }] });
        let found: Vec<String> = check(&schema, &lab)
            .into_iter()
            .map(|misfit| format!("{}: {}", misfit.path, misfit.message))
            .collect();
        assert_eq!(
            found,
            [
                "name: expected text, found the number 5",
                "router.prots: unknown key `prots`",
                "router: `ports` is missing",
                "tests[0].ping.from: expected text or a list, found the number 1",
                "tests[0].ping: `to` is missing",
            ]
        );
    }
}
