//! The schemas of single values and tables, and the schema that readers put together of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde_json::{Value, json};

use crate::config::{CacheControlGrants, CacheDirective, NamePatterns};
use crate::window::Bound;

/// A type of values whose schema follows from the type.
pub(in crate::config) trait Described {
    /// JSON Schema of the values in TOML or JSON.
    fn schema() -> Value;
}

impl Described for Duration {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

impl Described for bool {
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// A size in bytes.
impl Described for u64 {
    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB|TiB)?$" },
        ] })
    }
}

/// A size in bytes that is in memory at once.
impl Described for usize {
    fn schema() -> Value {
        u64::schema()
    }
}

impl Described for SocketAddr {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$" })
    }
}

impl Described for Uri {
    fn schema() -> Value {
        json!({ "type": "string", "format": "uri", "pattern": "^[hH][tT][tT][pP][sS]?://" })
    }
}

/// A date, or a date and a time, in UTC.
impl Described for Bound {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}" })
    }
}

impl Described for PathBuf {
    fn schema() -> Value {
        String::schema()
    }
}

impl Described for Arc<str> {
    fn schema() -> Value {
        String::schema()
    }
}

impl Described for String {
    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Described for Vec<String> {
    fn schema() -> Value {
        json!({ "type": "array", "items": String::schema() })
    }
}

impl Described for NamePatterns {
    fn schema() -> Value {
        json!({ "type": "array", "items": String::schema(), "minItems": 1 })
    }
}

impl Described for CacheControlGrants {
    fn schema() -> Value {
        let names = CacheDirective::ALL.map(CacheDirective::name);
        json!({ "type": "array", "items": { "enum": names }, "uniqueItems": true })
    }
}

/// One or more SHA-256 digests.
impl Described for Vec<[u8; 32]> {
    fn schema() -> Value {
        let digest = json!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" });
        json!({ "anyOf": [digest, { "type": "array", "items": digest, "minItems": 1, "uniqueItems": true }] })
    }
}

/// Schema of a table whose keys are added later.
pub(in crate::config) fn table() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

/// Schema of a list of tables whose keys are added later.
pub(in crate::config) fn list_of_tables() -> Value {
    json!({ "type": "array", "items": table() })
}

/// Schema of a reference to a secret.
pub(in crate::config) fn secret() -> Value {
    let mut secret = table();
    secret["properties"] = json!({ "file": String::schema(), "env": String::schema() });
    secret["minProperties"] = 1.into();
    secret["maxProperties"] = 1.into();
    secret
}

/// Schema of a literal or a reference to a secret.
pub(in crate::config) fn text_or_secret() -> Value {
    json!({ "anyOf": [String::schema(), secret()] })
}

/// A schema that is being made. The path of a key is as in error messages: `accounts[0].token.jti`; each list of
/// tables has one item, which stands for all.
#[derive(Debug)]
pub(in crate::config) struct SchemaTree(pub(super) Value);

impl Default for SchemaTree {
    fn default() -> Self {
        Self(table())
    }
}

impl SchemaTree {
    /// Adds the schema of the key at `path`, whose table has been added before.
    pub(in crate::config) fn insert(&mut self, path: &str, schema: Value) {
        let (table, key) = self.parent(path);
        table["properties"][key] = schema;
    }

    /// Marks the key at `path` as required, whose table has been added before.
    pub(in crate::config) fn require(&mut self, path: &str) {
        let (table, key) = self.parent(path);
        let keys = table.as_object_mut().map(|table| table.entry("required").or_insert_with(|| json!([])));
        if let Some(Value::Array(keys)) = keys {
            keys.push(key.into());
        }
    }

    /// The schema of the table of `path`, and the last key of `path`.
    fn parent<'a>(&mut self, path: &'a str) -> (&mut Value, &'a str) {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut schema = &mut self.0;
        for table in tables.split('.').filter(|table| !table.is_empty()) {
            schema = match table.strip_suffix("[0]") {
                Some(list) => &mut schema["properties"][list]["items"],
                None => &mut schema["properties"][table],
            };
        }
        (schema, key)
    }
}
