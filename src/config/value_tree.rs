//! Tree of raw values with their origins: file and environment are merged into it before values are interpreted.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigProblem, Origin};
use super::keys;

/// The entries of a table.
pub(super) type Table = BTreeMap<String, ConfigNode>;

/// A value and the place where it was written.
#[derive(Clone, Debug)]
pub(super) struct ConfigNode {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value of TOML, or the text of a variable, whose type depends on the key that it sets.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// The text of a variable.
    Raw(String),
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A value that no key takes, by its kind: a date, an integer out of range.
    Other(&'static str),
    Array(Vec<ConfigNode>),
    Table(Table),
}

impl ConfigNode {
    /// An empty table.
    pub(super) fn empty(origin: Origin) -> Self {
        Self { origin, value: Value::Table(Table::new()) }
    }

    /// A list of one empty table, written nowhere.
    pub(super) fn list_of_one_empty_table() -> Self {
        Self { origin: Origin::Nowhere, value: Value::Array(vec![Self::empty(Origin::Nowhere)]) }
    }

    /// Parses the TOML `text` of the file that errors name `path`.
    pub(super) fn from_file(path: &Arc<str>, text: &str) -> Result<Self, ConfigProblem> {
        let at = |offset: Option<usize>| Origin::File {
            path: Arc::clone(path),
            line: offset.map(|offset| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()),
        };
        let table = DeTable::parse(text).map_err(|error| {
            // Only `message` is safe to show. The full rendering quotes the line, which may contain a secret.
            let start = error.span().map(|span| span.start);
            let key = start.and_then(|start| keys::key_before(text, start)).unwrap_or_default();
            ConfigProblem { origin: at(start), key, message: error.message().to_owned() }
        })?;
        Ok(Self { origin: at(None), value: convert_table(table.get_ref(), &|offset| at(Some(offset))) })
    }

    /// Parses the text of a variable as a TOML value, for keys that take a list or a table. Other nodes are returned
    /// unchanged. The error does not quote the text.
    pub(super) fn structured(self) -> Result<Self, String> {
        let Value::Raw(text) = &self.value else { return Ok(self) };
        let value = DeValue::parse(text.trim()).map_err(|error| format!("is not a TOML value: {}", error.message()))?;
        let value = convert(value.get_ref(), &|_| self.origin.clone());
        Ok(Self { origin: self.origin, value })
    }

    /// The kind of the value with an article, for errors that expected another kind. Never the value itself.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Raw(_) => "a text",
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Other(kind) => kind,
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

fn convert_table(table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) -> Value {
    Value::Table(table.iter().map(|(key, value)| (key.get_ref().to_string(), node(value, at))).collect())
}

fn node(value: &Spanned<DeValue<'_>>, at: &dyn Fn(usize) -> Origin) -> ConfigNode {
    ConfigNode { origin: at(value.span().start), value: convert(value.get_ref(), at) }
}

fn convert(value: &DeValue<'_>, at: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Other("a number out of range"),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(float) => Value::Float(float),
            Err(_) => Value::Other("a number out of range"),
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| node(item, at)).collect()),
        DeValue::Table(table) => convert_table(table, at),
    }
}
