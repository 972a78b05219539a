//! The JSON Schema of the configuration (`koregate schema`), for editors and other checkers.
//!
//! It is no second list of the keys: [`validate`] reads an empty tree in a context in which each reader describes the
//! key that it reads, and takes every table as present. Defaults are those of the effective configuration, and
//! descriptions the comments of `config/koregate.toml`.

pub(super) mod described;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use self::described::SchemaTree;
use super::error::Origin;
use super::table_reader::LoadContext;
use super::value_tree::ConfigNode;
use super::{Config, validate};

const DOCUMENTED: &str = include_str!("../../../config/koregate.toml");

/// A configuration in which every table with defaults is present, and in each only what has no default.
const SMALLEST: &str = r#"
accounts = [{ account_id = "a", client_id = "c", client_secret = { env = "SECRET" } }]
callers = [{ name = "c", api_key_sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }]
cache = { disk = { path = "/" }, redis = { url = "redis://127.0.0.1" } }
"#;

/// Tables that override another one, so that their keys have no default of their own.
const OVERRIDES: &str = "accounts[0].window";

impl Config {
    /// JSON Schema (2020-12) of the configuration file. It accepts every configuration that loads, but for values that
    /// only a check between keys or a look into a file can refuse.
    pub fn schema() -> Value {
        let context = LoadContext::describing();
        validate::config(&context, ConfigNode::empty(Origin::Nowhere));
        let SchemaTree(mut schema) = context.into_schema();
        let (defaults, given) = (defaults(), parse_toml(SMALLEST));
        annotate(&mut schema, "", Some(&defaults), Some(&given), &descriptions(DOCUMENTED));
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["title"] = "Configuration of koregate".into();
        schema
    }
}

/// Adds the descriptions and the defaults of all keys below `path`. `given` is what [`SMALLEST`] sets there, which is
/// no default.
fn annotate(
    schema: &mut Value,
    path: &str,
    defaults: Option<&Value>,
    given: Option<&Value>,
    descriptions: &BTreeMap<String, String>,
) {
    if let Some(text) = descriptions.get(path) {
        schema["description"] = text.as_str().into();
    }
    let is_table = schema["type"] == "object" && defaults.is_none_or(Value::is_object);
    if let (Some(default), None, false, false) = (defaults, given, is_table, path.starts_with(OVERRIDES)) {
        schema["default"] = default.clone();
    }
    if let Some(Value::Object(keys)) = schema.get_mut("properties") {
        for (key, schema) in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let within = |value: Option<&Value>| value.and_then(|value| value.get(key)).cloned();
            annotate(schema, &path, within(defaults).as_ref(), within(given).as_ref(), descriptions);
        }
    }
    if let Some(items) = schema.get_mut("items").filter(|items| items["type"] == "object") {
        // Only a list that SMALLEST sets has an item whose keys have defaults.
        let first = given.and(defaults).and_then(|list| list.get(0));
        annotate(items, &format!("{path}[0]"), first, given.and_then(|list| list.get(0)), descriptions);
    }
}

/// The effective values of [`SMALLEST`].
fn defaults() -> Value {
    let context = LoadContext::new(BTreeMap::from([("SECRET".to_owned(), "secret".to_owned())]));
    let tree = ConfigNode::from_file(&Arc::from("smallest"), SMALLEST).map_err(Into::into);
    let config = tree.and_then(|tree| Config::from_tree(Some(tree), &context));
    config.expect("SMALLEST is a valid configuration, as the tests of this file show").to_json()
}

/// A TOML text as JSON; an empty object if it cannot be parsed.
pub(super) fn parse_toml(text: &str) -> Value {
    let table = text.parse::<toml::Table>().ok();
    table.and_then(|table| serde_json::to_value(table).ok()).unwrap_or_else(|| json!({}))
}

/// The comments of a configuration file, by the path of the key or table that follows them. A key without a comment of
/// its own has that of the key in the line before it.
fn descriptions(documented: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut table, mut comment, mut is_pending) = (String::new(), String::new(), false);
    for line in documented.lines() {
        if let Some(text) = line.strip_prefix("# ").or_else(|| line.strip_prefix("#").filter(|text| text.is_empty())) {
            if !is_pending {
                comment.clear();
            }
            is_pending = true;
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(text.trim());
            continue;
        }
        is_pending = false;
        let line = line.trim_start_matches('#');
        let header = line.trim_start_matches('[');
        if header.len() < line.len() {
            let suffix = if line.starts_with("[[") { "[0]" } else { "" };
            let name = header.trim_end_matches(']');
            if !comment.is_empty() {
                found.insert(name.to_owned(), comment.clone());
            }
            table = format!("{name}{suffix}");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with(' ')) {
            if !comment.is_empty() {
                found.insert(format!("{table}.{key}"), comment.clone());
            }
            continue;
        }
        comment.clear();
    }
    found
}

#[cfg(test)]
mod tests;
