//! Reader of one table, key by key. A key that is missing, unknown or of a wrong type is reported, and reading goes on,
//! so that one run finds all problems.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use super::error::{ConfigProblem, KeyOrigins, Origin};
use super::keys;
use super::keys::variable_name;
use super::parse::ValueParser;
use super::schema::described::{self, SchemaTree};
use super::value_tree::{ConfigNode, Table, Value};

/// The environment that secrets may come from, and the problems that were found.
pub(super) struct LoadContext {
    /// The variables that `{ env = "…" }` may name, by their names.
    pub(super) environment: BTreeMap<String, String>,
    /// Reads a file that `{ file = "…" }` names.
    pub(super) read_file: fn(&str) -> io::Result<String>,
    problems: RefCell<Vec<ConfigProblem>>,
    /// The places of the keys that were read.
    origins: RefCell<KeyOrigins>,
    /// The files of secrets that were read, or could not be read.
    secret_files: RefCell<Vec<PathBuf>>,
    /// The schema of the keys that are read; `None` outside of [`Config::schema`](super::Config::schema).
    schema: Option<RefCell<SchemaTree>>,
}

impl LoadContext {
    /// A context without problems.
    pub(super) fn new(environment: BTreeMap<String, String>) -> Self {
        Self {
            environment,
            read_file: |path| fs::read_to_string(path),
            problems: RefCell::default(),
            origins: RefCell::default(),
            secret_files: RefCell::default(),
            schema: None,
        }
    }

    /// A context in which readers describe the keys that they read, and take every table as present.
    pub(super) fn describing() -> Self {
        Self { schema: Some(RefCell::default()), ..Self::new(BTreeMap::new()) }
    }

    /// The schema of the keys that were read; empty unless the context is [`describing`](Self::describing).
    pub(super) fn into_schema(self) -> SchemaTree {
        self.schema.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Adds a problem of `key`, written at `origin`.
    pub(super) fn report(&self, origin: Origin, key: String, message: impl Into<String>) {
        self.problems.borrow_mut().push(ConfigProblem { origin, key, message: message.into() });
    }

    /// The places of the keys that were read so far.
    pub(super) fn origins(&self) -> KeyOrigins {
        self.origins.borrow().clone()
    }

    /// Notes the file, and the place of each key that is read.
    fn note_origin(&self, key: String, origin: &Origin) {
        let mut origins = self.origins.borrow_mut();
        if let Origin::File { path, .. } = origin {
            origins.file.get_or_insert_with(|| path.clone());
        }
        if !key.is_empty() {
            origins.written.insert(key, origin.clone());
        }
    }

    /// Reads a file of a secret, and notes its name.
    pub(super) fn read_secret_file(&self, path: &str) -> io::Result<String> {
        self.secret_files.borrow_mut().push(path.into());
        (self.read_file)(path)
    }

    /// The files of secrets that were read, or could not be read.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        self.secret_files.borrow().clone()
    }

    /// The number of problems found so far.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.borrow().len()
    }

    /// All problems, in the order in which they were found.
    pub(super) fn take_problems(&self) -> Vec<ConfigProblem> {
        self.problems.take()
    }
}

/// A table that is being read. Each key that is read is removed, so that the rest at the end are unknown keys.
pub(super) struct TableReader<'a> {
    pub(super) context: &'a LoadContext,
    /// The dotted key of the table; empty for the root.
    path: String,
    origin: Origin,
    table: Table,
    /// The keys that were read, each with the origin of its value if it is present.
    read_keys: Vec<(&'static str, Option<Origin>)>,
    /// Whether the node is a table. In place of another node, no key is reported as missing.
    is_table: bool,
    /// [`LoadContext::problem_count`] when the reader was made.
    problems_before: usize,
}

impl<'a> TableReader<'a> {
    /// A reader of `node`. A node that is no table is reported, and read as an empty table without missing keys.
    pub(super) fn new(context: &'a LoadContext, path: String, node: ConfigNode) -> Self {
        let problems_before = context.problem_count();
        let origin = node.origin.clone();
        context.note_origin(path.clone(), &origin);
        let table = match node.structured() {
            Ok(ConfigNode { value: Value::Table(table), .. }) => Ok(table),
            Ok(other) => Err(format!("is {}; it must be a table", other.kind())),
            Err(message) => Err(message),
        };
        let is_table = table.is_ok();
        let table = table.unwrap_or_else(|message| {
            context.report(origin.clone(), path.clone(), message);
            Table::new()
        });
        Self { context, path, origin, table, read_keys: Vec::new(), is_table, problems_before }
    }

    /// The value of `key`, or `default` if the key is absent or its value is reported as a problem.
    pub(super) fn value_or<T>(&mut self, key: &'static str, default: T, parser: impl ValueParser<T>) -> T {
        self.optional(key, parser).unwrap_or(default)
    }

    /// The value of `key`; `None` if the key is absent or its value is reported as a problem.
    pub(super) fn optional<T>(&mut self, key: &'static str, parser: impl ValueParser<T>) -> Option<T> {
        self.describe(key, || parser.schema());
        let node = self.take(key)?;
        parser.parse(&node).map_err(|message| self.context.report(node.origin, self.path_of(key), message)).ok()
    }

    /// The value of `key`, whose absence is reported.
    pub(super) fn required<T>(&mut self, key: &'static str, parser: impl ValueParser<T>) -> Option<T> {
        self.require_key(key);
        self.optional(key, parser)
    }

    /// Reports `key` as missing if it is absent.
    pub(super) fn require_key(&self, key: &'static str) {
        if let Some(schema) = &self.context.schema {
            schema.borrow_mut().require(&self.path_of(key));
        }
        self.report_if_absent(key);
    }

    /// Reports `key` as missing if it is absent, without the schema's knowledge: for a key that others can stand for.
    pub(super) fn report_if_absent(&self, key: &'static str) {
        if self.is_table && !self.table.contains_key(key) {
            self.report(key, "is missing");
        }
    }

    /// A reader of the table under `key`, which is empty if the key is absent.
    pub(super) fn table(&mut self, key: &'static str) -> TableReader<'a> {
        self.optional_table(key).unwrap_or_else(|| {
            TableReader::new(self.context, self.path_of(key), ConfigNode::empty(self.origin_of(key)))
        })
    }

    /// A reader of the table under `key`; `None` if the key is absent.
    pub(super) fn optional_table(&mut self, key: &'static str) -> Option<TableReader<'a>> {
        let described_node = self.describe(key, described::table).then(|| ConfigNode::empty(Origin::Nowhere));
        let node = self.take(key).or(described_node)?;
        Some(TableReader::new(self.context, self.path_of(key), node))
    }

    /// Readers of the tables in the list under `key`; `None` if the key is absent or not a list.
    pub(super) fn tables(&mut self, key: &'static str) -> Option<Vec<TableReader<'a>>> {
        let described_node = self.describe(key, described::list_of_tables).then(ConfigNode::list_of_one_empty_table);
        let node = self.take(key).or(described_node)?;
        let origin = node.origin.clone();
        let items = match node.structured() {
            Ok(ConfigNode { value: Value::Array(items), .. }) => Ok(items),
            Ok(other) => Err(format!("is {}; it must be a list of tables", other.kind())),
            Err(message) => Err(message),
        };
        let items = items.map_err(|message| self.context.report(origin, self.path_of(key), message)).ok()?;
        let reader = |(i, item)| TableReader::new(self.context, format!("{}[{i}]", self.path_of(key)), item);
        Some(items.into_iter().enumerate().map(reader).collect())
    }

    /// Adds `key` to the schema, if the context makes one; returns whether it does.
    pub(super) fn describe(&self, key: &'static str, schema: impl FnOnce() -> serde_json::Value) -> bool {
        let Some(tree) = &self.context.schema else { return false };
        tree.borrow_mut().insert(&self.path_of(key), schema());
        true
    }

    /// Removes and returns the node under `key`, and marks the key as known.
    pub(super) fn take(&mut self, key: &'static str) -> Option<ConfigNode> {
        debug_assert!(keys::ALL_KEYS.contains(&key), "{key} is missing in ALL_KEYS");
        let node = self.table.remove(key);
        if let Some(node) = &node {
            self.context.note_origin(self.path_of(key), &node.origin);
        }
        self.read_keys.push((key, node.as_ref().map(|node| node.origin.clone())));
        node
    }

    /// Reports a problem of `key`, at the place where the key is written or would be written.
    pub(super) fn report(&self, key: &str, message: impl Into<String>) {
        self.context.report(self.origin_of(key), self.path_of(key), message);
    }

    /// Reports a problem of the table as a whole.
    pub(super) fn report_table(&self, message: impl Into<String>) {
        self.context.report(self.origin.clone(), self.path.clone(), message);
    }

    /// Whether no problem was reported since this reader was made. A check between two keys is skipped when one of them
    /// is faulty already.
    pub(super) fn is_faultless(&self) -> bool {
        self.context.problem_count() == self.problems_before
    }

    /// The place where `key` is written, or where it would be written if it is absent.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        match self.read_keys.iter().rev().find(|(read, _)| *read == key) {
            Some((_, Some(origin))) => origin.clone(),
            _ => match &self.origin {
                file @ Origin::File { .. } => file.clone(),
                Origin::Variable(_) | Origin::Nowhere => Origin::Variable(variable_name(&self.path_of(key)).into()),
            },
        }
    }

    /// Reports the keys that were not read as unknown, each with the closest known key.
    pub(super) fn finish(self) {
        for (key, node) in &self.table {
            let known = self.read_keys.iter().map(|(known, _)| *known);
            let message = match keys::suggestion(key, known) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => "unknown key".to_owned(),
            };
            self.context.report(node.origin.clone(), self.path_of(key), message);
        }
    }

    /// The dotted name of `key` from the root, as in error messages.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
