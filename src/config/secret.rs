//! Secrets: from a file or from a variable, never written in the configuration itself.
//!
//! No error quotes what stands here, not even the name of the file or of the variable: one who takes `{ env = "…" }`
//! for the place of the secret itself must not read it again in a log.

use std::io;

use secrecy::SecretString;

use super::error::Origin;
use super::table_reader::{Reader, Section};
use super::value_tree::{ConfigNode, Value};
use super::{RedisUrl, parse};

const INSTEAD: &str = "write { file = \"/path/of/the/secret\" } or { env = \"NAME_OF_A_VARIABLE\" }";

impl Section<'_> {
    /// The secret under `key`, if one is named; a literal is refused.
    pub(super) fn optional_secret(&mut self, key: &'static str) -> Option<SecretString> {
        let node = self.take(key)?;
        if is_literal(&node) {
            self.fail(key, format!("a secret is not written down here; {INSTEAD}"));
            return None;
        }
        self.reference(key, node)
    }

    /// The secret under `key`, which must name one.
    pub(super) fn required_secret(&mut self, key: &'static str) -> Option<SecretString> {
        self.demand(key);
        self.optional_secret(key)
    }

    /// The URL of Redis under `key`, literal or by reference, for it may hold a password.
    pub(super) fn required_redis_url(&mut self, key: &'static str) -> Option<SecretString> {
        self.demand(key);
        let node = self.take(key)?;
        let url = if is_literal(&node) {
            match parse::text(&node, "a URL such as \"redis://127.0.0.1:6379\"") {
                Ok(text) => SecretString::from(text),
                Err(message) => {
                    self.fail(key, message);
                    return None;
                }
            }
        } else {
            self.reference(key, node)?
        };
        let checked = RedisUrl::parse(secrecy::ExposeSecret::expose_secret(&url));
        checked.map_err(|message| self.fail(key, message)).ok()?;
        Some(url)
    }

    /// Follows `{ file = "…" }` or `{ env = "…" }`.
    fn reference(&mut self, key: &'static str, node: ConfigNode) -> Option<SecretString> {
        let mut table = Section::new(self.reader, self.path_of(key), node);
        let mut file = table.take("file");
        let mut env = table.take("env");
        if let (Some(in_file), Some(in_env)) = (&file, &env) {
            // A variable that names another source than the file does overrides it.
            match (is_variable(in_file), is_variable(in_env)) {
                (true, false) => env = None,
                (false, true) => file = None,
                _ => {
                    table.fail_whole(format!("names both a file and a variable; {INSTEAD}"));
                    return None;
                }
            }
        }
        let found = match (file, env) {
            (Some(file), _) => table.follow("file", &file, |_, path| from_file(path)),
            (_, Some(env)) => table.follow("env", &env, from_variable),
            (None, None) => {
                if table.is_clean() {
                    table.fail_whole(format!("names no secret; {INSTEAD}"));
                }
                None
            }
        };
        table.done();
        found
    }

    fn follow(
        &self,
        key: &'static str,
        node: &ConfigNode,
        find: impl FnOnce(&Reader, &str) -> Result<String, String>,
    ) -> Option<SecretString> {
        let text = parse::text(node, "a string").and_then(|name| find(self.reader, name)).and_then(usable);
        text.map(SecretString::from).map_err(|message| self.fail(key, message)).ok()
    }
}

/// Whether what stands here is the secret itself rather than where to find it.
fn is_literal(node: &ConfigNode) -> bool {
    match &node.value {
        Value::Table(_) => false,
        Value::Raw(text) => !(text.trim_start().starts_with('{') && node.clone().structured().is_ok()),
        _ => true,
    }
}

fn is_variable(node: &ConfigNode) -> bool {
    matches!(node.origin, Origin::Variable(_))
}

/// Editors and `kubectl` leave one newline at the end of a file; it is no part of the secret.
fn from_file(path: &str) -> Result<String, String> {
    let mut text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => "the file that it names is not UTF-8".to_owned(),
        _ => format!("the file that it names cannot be read: {error}"),
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn from_variable(reader: &Reader, name: &str) -> Result<String, String> {
    reader.environment.get(name).cloned().ok_or_else(|| "the variable that it names is not set".to_owned())
}

fn usable(secret: String) -> Result<String, String> {
    if secret.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    // What is not UTF-8 in the environment has been replaced on its way here, so it would not be the secret.
    if secret.contains(char::REPLACEMENT_CHARACTER) {
        return Err("the secret is not UTF-8".to_owned());
    }
    Ok(secret)
}
