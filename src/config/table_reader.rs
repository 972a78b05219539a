//! Reading one table key by key: what is missing, of a wrong type or unknown is noted, and reading goes on, so that
//! all faults come to light in one go.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::error::{Origin, Problem};
use super::keys;
use super::keys::variable;
use super::value_tree::{ConfigNode, Table, Value};

/// What reading needs and what it finds.
pub(super) struct Reader {
    /// The variables that `{ env = "…" }` may name.
    pub(super) environment: BTreeMap<String, String>,
    problems: RefCell<Vec<Problem>>,
}

impl Reader {
    pub(super) fn new(environment: BTreeMap<String, String>) -> Self {
        Self { environment, problems: RefCell::default() }
    }

    pub(super) fn note(&self, origin: Origin, key: String, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { origin, key, message: message.into() });
    }

    /// How many faults were found so far: a check between two keys is skipped when one of them is already at fault.
    pub(super) fn faults(&self) -> usize {
        self.problems.borrow().len()
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// A table that is being read: each key that is asked for leaves it, and what is left in the end is unknown.
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader,
    path: String,
    origin: Origin,
    table: Table,
    asked: Vec<(&'static str, Option<Origin>)>,
    /// Whether it is a table at all: of one that is not, nothing is said to be missing.
    is_table: bool,
    faults_before: usize,
}

impl<'a> Section<'a> {
    /// `node` as a table. Anything else is noted, and read as an empty table of which nothing is missing.
    pub(super) fn new(reader: &'a Reader, path: String, node: ConfigNode) -> Self {
        let faults_before = reader.faults();
        let origin = node.origin.clone();
        let table = match node.structured() {
            Ok(ConfigNode { value: Value::Table(table), .. }) => Ok(table),
            Ok(other) => Err(format!("is {}; it must be a table", other.kind())),
            Err(message) => Err(message),
        };
        let is_table = table.is_ok();
        let table = table.unwrap_or_else(|message| {
            reader.note(origin.clone(), path.clone(), message);
            Table::new()
        });
        Self { reader, path, origin, table, asked: Vec::new(), is_table, faults_before }
    }

    /// The value of `key`, or `default` where it is not written.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&ConfigNode) -> Result<T, String>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The value of `key`, if it is written and well.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&ConfigNode) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.take(key)?;
        read(&node).map_err(|message| self.reader.note(node.origin, self.path_of(key), message)).ok()
    }

    /// The value of `key`; that it is not written is a fault.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&ConfigNode) -> Result<T, String>,
    ) -> Option<T> {
        self.demand(key);
        self.optional(key, read)
    }

    /// Notes that `key` is missing, if it is.
    pub(super) fn demand(&self, key: &'static str) {
        if self.is_table && !self.table.contains_key(key) {
            self.fail(key, "is missing");
        }
    }

    /// The table under `key`; one that is not written is empty.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.optional_section(key)
            .unwrap_or_else(|| Section::new(self.reader, self.path_of(key), ConfigNode::empty(self.origin_of(key))))
    }

    /// The table under `key`, if it is written.
    pub(super) fn optional_section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let node = self.take(key)?;
        Some(Section::new(self.reader, self.path_of(key), node))
    }

    /// The tables of the list under `key`; `None` if it is not written.
    pub(super) fn sections(&mut self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let node = self.take(key)?;
        let origin = node.origin.clone();
        let items = match node.structured() {
            Ok(ConfigNode { value: Value::Array(items), .. }) => Ok(items),
            Ok(other) => Err(format!("is {}; it must be a list of tables", other.kind())),
            Err(message) => Err(message),
        };
        let items = items.map_err(|message| self.reader.note(origin, self.path_of(key), message)).ok()?;
        let section = |(i, item)| Section::new(self.reader, format!("{}[{i}]", self.path_of(key)), item);
        Some(items.into_iter().enumerate().map(section).collect())
    }

    /// The node under `key`, which is known from now on.
    pub(super) fn take(&mut self, key: &'static str) -> Option<ConfigNode> {
        debug_assert!(keys::KEYS.contains(&key), "{key} is not among the keys");
        let node = self.table.remove(key);
        self.asked.push((key, node.as_ref().map(|node| node.origin.clone())));
        node
    }

    /// Notes a fault of `key`, at the place where it is written or ought to be.
    pub(super) fn fail(&self, key: &str, message: impl Into<String>) {
        self.reader.note(self.origin_of(key), self.path_of(key), message);
    }

    /// Notes a fault of the table as a whole.
    pub(super) fn fail_whole(&self, message: impl Into<String>) {
        self.reader.note(self.origin.clone(), self.path.clone(), message);
    }

    /// Whether nothing was found wrong since this section was opened.
    pub(super) fn is_clean(&self) -> bool {
        self.reader.faults() == self.faults_before
    }

    /// Where `key` is written; where it is not, where one would write it.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        match self.asked.iter().rev().find(|(asked, _)| *asked == key) {
            Some((_, Some(origin))) => origin.clone(),
            _ => match &self.origin {
                file @ Origin::File { .. } => file.clone(),
                Origin::Variable(_) | Origin::Nowhere => Origin::Variable(variable(&self.path_of(key)).into()),
            },
        }
    }

    /// Ends the reading: what nobody asked for is unknown.
    pub(super) fn done(self) {
        for (key, node) in &self.table {
            let known = self.asked.iter().map(|(known, _)| *known);
            let message = match keys::nearest(key, known) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => "unknown key".to_owned(),
            };
            self.reader.note(node.origin.clone(), self.path_of(key), message);
        }
    }

    /// The whole name of `key`, as errors tell it.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
