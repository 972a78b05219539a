//! Secrets, which are read from a file or a variable; a literal in the configuration is refused.
//!
//! No error quotes a value from here, not even the name of the file or variable: an operator may have written the
//! secret itself into `{ env = "…" }`, and it must not appear in a log.

use std::io;

use secrecy::SecretString;

use super::error::Origin;
use super::schema::described;
use super::table_reader::{LoadContext, TableReader};
use super::value_tree::{ConfigNode, Value};
use super::{RedisUrl, parse};

const SECRET_EXPECTED: &str = "write { file = \"/path/of/the/secret\" } or { env = \"NAME_OF_A_VARIABLE\" }";

impl TableReader<'_> {
    /// The secret that `key` refers to; `None` if the key is absent. A literal is reported.
    pub(super) fn optional_secret(&mut self, key: &'static str) -> Option<SecretString> {
        self.describe(key, described::secret);
        let node = self.take(key)?;
        if is_literal(&node) {
            self.report(key, format!("a secret is not written down here; {SECRET_EXPECTED}"));
            return None;
        }
        self.resolve(key, node)
    }

    /// The secret that `key` refers to, whose absence is reported.
    pub(super) fn required_secret(&mut self, key: &'static str) -> Option<SecretString> {
        self.require_key(key);
        self.optional_secret(key)
    }

    /// The URL of Redis under `key`: a literal or, because the URL may contain a password, a reference to a secret.
    pub(super) fn required_redis_url(&mut self, key: &'static str) -> Option<SecretString> {
        self.require_key(key);
        self.describe(key, described::text_or_secret);
        let node = self.take(key)?;
        let url = if is_literal(&node) {
            match parse::text(&node, "a URL such as \"redis://127.0.0.1:6379\"") {
                Ok(text) => SecretString::from(text),
                Err(message) => {
                    self.report(key, message);
                    return None;
                }
            }
        } else {
            self.resolve(key, node)?
        };
        let checked = RedisUrl::parse(secrecy::ExposeSecret::expose_secret(&url));
        checked.map_err(|message| self.report(key, message)).ok()?;
        Some(url)
    }

    /// Resolves `{ file = "…" }` or `{ env = "…" }`.
    fn resolve(&mut self, key: &'static str, node: ConfigNode) -> Option<SecretString> {
        let mut table = TableReader::new(self.context, self.path_of(key), node);
        let mut file = table.take("file");
        let mut env = table.take("env");
        if let (Some(in_file), Some(in_env)) = (&file, &env) {
            // A source that the environment names overrides the one in the configuration file.
            match (is_variable(in_file), is_variable(in_env)) {
                (true, false) => env = None,
                (false, true) => file = None,
                _ => {
                    table.report_table(format!("names both a file and a variable; {SECRET_EXPECTED}"));
                    return None;
                }
            }
        }
        let found = match (file, env) {
            (Some(file), _) => table.read_secret("file", &file, read_file),
            (_, Some(env)) => table.read_secret("env", &env, read_variable),
            (None, None) => {
                if table.is_faultless() {
                    table.report_table(format!("names no secret; {SECRET_EXPECTED}"));
                }
                None
            }
        };
        table.finish();
        found
    }

    /// Reads the secret that `node` names with `find`, and reports one that is not usable.
    fn read_secret(
        &self,
        key: &'static str,
        node: &ConfigNode,
        find: impl FnOnce(&LoadContext, &str) -> Result<String, String>,
    ) -> Option<SecretString> {
        let text = parse::text(node, "a string").and_then(|name| find(self.context, name)).and_then(usable);
        text.map(SecretString::from).map_err(|message| self.report(key, message)).ok()
    }
}

/// Whether the node is a value rather than a table that refers to a secret.
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

/// The content of a file without one newline at its end, which editors and `kubectl` add.
fn read_file(context: &LoadContext, path: &str) -> Result<String, String> {
    let mut text = context.read_secret_file(path).map_err(|error| match error.kind() {
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

fn read_variable(context: &LoadContext, name: &str) -> Result<String, String> {
    context.environment.get(name).cloned().ok_or_else(|| "the variable that it names is not set".to_owned())
}

/// `secret`, unless it is empty or not UTF-8.
fn usable(secret: String) -> Result<String, String> {
    if secret.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    // `process_environment` replaces bytes that are not UTF-8, so such a value is not the secret.
    if secret.contains(char::REPLACEMENT_CHARACTER) {
        return Err("the secret is not UTF-8".to_owned());
    }
    Ok(secret)
}
