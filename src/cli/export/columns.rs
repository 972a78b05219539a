//! The columns of CSV and Parquet: which they are without `--fields` and `--schema`, and the cells of an item.
//!
//! No member of an item is lost: the column `*` has, as a JSON object, all members that have no column of their own, and
//! those whose value is not of the type of their column.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The path of the column with all members that have no column of their own.
const REST: &str = "*";
/// The usual name of that column.
const REST_NAME: &str = "_other";

/// The members of an item that Kore documents, and those that real items have.
const DEFAULTS: [(&str, ColumnKind); 21] = [
    ("segmentID", ColumnKind::Text),
    ("conversationID", ColumnKind::Text),
    ("botSessionID", ColumnKind::Text),
    ("channel", ColumnKind::Text),
    ("segmentStartTime", ColumnKind::Timestamp),
    ("segmentEndTime", ColumnKind::Timestamp),
    ("agent", ColumnKind::Json),
    ("queueInfo", ColumnKind::Json),
    ("tags", ColumnKind::Json),
    ("countScrollUp", ColumnKind::Int),
    ("countScrollDn", ColumnKind::Int),
    ("isWelcomeMsgRead", ColumnKind::Bool),
    ("linksClicked", ColumnKind::Json),
    ("agentActions", ColumnKind::Json),
    ("proActiveSuggestions", ColumnKind::Json),
    ("playbookRuntimeData", ColumnKind::Json),
    ("coachingRuntimeData", ColumnKind::Json),
    ("agenticActivities", ColumnKind::Json),
    ("summary", ColumnKind::Text),
    ("appInfo", ColumnKind::Json),
    (REST, ColumnKind::Json),
];

/// The type of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ColumnKind {
    /// The characters of a string; any other value as JSON.
    #[default]
    Text,
    /// Any value as JSON.
    Json,
    /// A number without a fraction, of 64 bits.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// A string with an RFC 3339 time, exact to the microsecond.
    Timestamp,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// Names of members from the outside in, joined by dots; or `*`.
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: ColumnKind,
}

/// All columns of an export.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    list: Vec<Column>,
    /// Whether there is a column `*`.
    has_rest: bool,
}

/// The value of a column in one item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// The member is absent or null.
    Null,
    Text(Cow<'a, str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Micros(i64),
}

/// Reason why an item has no cells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CellError {
    /// The item is not a JSON object.
    #[error("an item is not a JSON object")]
    NotAnObject,
    /// A value is not of the type of its column, and there is no column `*` for it.
    #[error("the value of column {0} has another type: use the type text or json, or add a column with the path *")]
    OtherType(String),
}

impl Column {
    /// The column of a path, with its usual name and type.
    pub(super) fn at(path: &str) -> Self {
        let kind = DEFAULTS.iter().find(|(default, _)| *default == path).map_or(ColumnKind::Text, |(_, kind)| *kind);
        let name = if path == REST { REST_NAME } else { path };
        Self { name: name.to_owned(), path: path.to_owned(), kind }
    }

    /// The columns without `--fields` and `--schema`.
    pub(super) fn defaults() -> Vec<Self> {
        DEFAULTS.iter().map(|(path, _)| Self::at(path)).collect()
    }
}

impl Columns {
    /// Checks a list of columns.
    ///
    /// # Errors
    /// A sentence, if there is no column, or a path or a name is empty or given twice.
    pub(super) fn new(list: Vec<Column>) -> Result<Self, String> {
        if list.is_empty() {
            return Err("no column is named".to_owned());
        }
        let (mut names, mut paths) = (HashSet::new(), HashSet::new());
        for Column { name, path, .. } in &list {
            if name.is_empty() || path.split('.').any(str::is_empty) {
                return Err(format!("the column {name:?} has no name or no path"));
            }
            if !names.insert(name) || !paths.insert(path) {
                return Err(format!("the column {name} is there twice"));
            }
        }
        let has_rest = list.iter().any(|column| column.path == REST);
        Ok(Self { list, has_rest })
    }

    /// The same columns with text instead of numbers, truth values and times.
    pub(super) fn into_text(mut self) -> Self {
        for column in &mut self.list {
            column.kind = ColumnKind::Text;
        }
        self
    }

    pub(super) fn list(&self) -> &[Column] {
        &self.list
    }

    /// The cells of an item, one for each column.
    ///
    /// # Errors
    /// [`CellError`], if the item is no object, or a value is not of the type of its column and would be lost.
    pub(super) fn cells<'a>(&self, item: &'a str) -> Result<Vec<Cell<'a>>, CellError> {
        let members = Members::read(item).ok_or(CellError::NotAnObject)?;
        // Members whose value is the cell of a column.
        let mut taken = HashSet::new();
        let mut cells = Vec::with_capacity(self.list.len());
        for Column { name, path, kind } in &self.list {
            let Some(value) = members.find(path).filter(|_| path != REST) else {
                cells.push(Cell::Null);
                continue;
            };
            match cell(value, *kind) {
                Some(cell) => {
                    if !path.contains('.') {
                        taken.insert(path.as_str());
                    }
                    cells.push(cell);
                }
                None if self.has_rest => cells.push(Cell::Null),
                None => return Err(CellError::OtherType(name.clone())),
            }
        }
        if let Some(index) = self.list.iter().position(|column| column.path == REST) {
            cells[index] = members.rest(&taken);
        }
        Ok(cells)
    }
}

/// A value as a cell of type `kind`; `None` if it is of another type.
fn cell(value: &str, kind: ColumnKind) -> Option<Cell<'_>> {
    if value == "null" {
        return Some(Cell::Null);
    }
    match kind {
        ColumnKind::Text => Some(Cell::Text(text(value).unwrap_or(Cow::Borrowed(value)))),
        ColumnKind::Json => Some(Cell::Text(Cow::Borrowed(value))),
        ColumnKind::Int => value.parse().ok().map(Cell::Int),
        ColumnKind::Float => {
            let is_number = value.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            value.parse().ok().filter(|number: &f64| is_number && number.is_finite()).map(Cell::Float)
        }
        ColumnKind::Bool => value.parse().ok().map(Cell::Bool),
        ColumnKind::Timestamp => {
            let time: jiff::Timestamp = text(value)?.parse().ok()?;
            (time.subsec_nanosecond() % 1000 == 0).then(|| Cell::Micros(time.as_microsecond()))
        }
    }
}

/// The characters of a JSON string; `None` for another value, and for half of a surrogate pair.
fn text(value: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value).ok().map(|text| text.0)
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// `None` if the text is not an object.
    fn read(object: &'a str) -> Option<Self> {
        serde_json::from_str(object).ok()
    }

    /// The value at a path. The last one of several members with one name counts.
    fn find(&self, path: &str) -> Option<&'a str> {
        let (name, inner) = path.split_once('.').map_or((path, None), |(name, inner)| (name, Some(inner)));
        let (_, value) = self.0.iter().rfind(|(member, _)| member == name)?;
        match inner {
            None => Some(value),
            Some(inner) => Members::read(value)?.find(inner),
        }
    }

    /// An object of all members but those that are taken, of several with one name the last.
    fn rest(&self, taken: &HashSet<&str>) -> Cell<'a> {
        let is_taken = |index: usize, name: &str| {
            taken.contains(name) && self.0.iter().rposition(|(member, _)| member == name) == Some(index)
        };
        let left = self.0.iter().enumerate().filter(|(index, (name, _))| !is_taken(*index, name));
        let members: Vec<String> =
            left.map(|(_, (name, value))| format!("{}:{value}", serde_json::Value::from(&**name))).collect();
        if members.is_empty() { Cell::Null } else { Cell::Text(Cow::Owned(format!("{{{}}}", members.join(",")))) }
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((Cow::Owned(name), value.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(list: &[(&str, ColumnKind)]) -> Columns {
        Columns::new(list.iter().map(|(path, kind)| Column { kind: *kind, ..Column::at(path) }).collect()).unwrap()
    }

    fn text(text: &str) -> Cell<'_> {
        Cell::Text(text.into())
    }

    const ITEM: &str = r#"{"s":"a\"ü","n": 12,"f":1e2,"b":true,"t":"2026-02-25T12:00:00.123Z","o":{"x":{"y":[1, 2]},"z":null},
        "extra":[ ],"e":null}"#;

    #[test]
    fn cells_have_the_types_of_their_columns() {
        let columns = columns(&[
            ("s", ColumnKind::Text),
            ("n", ColumnKind::Int),
            ("f", ColumnKind::Float),
            ("b", ColumnKind::Bool),
            ("t", ColumnKind::Timestamp),
            ("o.x.y", ColumnKind::Json),
            ("o.z", ColumnKind::Json),
            ("absent", ColumnKind::Json),
            ("e", ColumnKind::Text),
            ("*", ColumnKind::Json),
        ]);
        let micros = "2026-02-25T12:00:00.123Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let expected = [
            text("a\"ü"),
            Cell::Int(12),
            Cell::Float(100.0),
            Cell::Bool(true),
            Cell::Micros(micros),
            text("[1, 2]"),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            text(r#"{"o":{"x":{"y":[1, 2]},"z":null},"extra":[ ]}"#),
        ];
        assert_eq!(columns.cells(ITEM).unwrap(), expected);
    }

    #[test]
    fn value_of_another_type_is_kept_or_refused() {
        for (value, kind) in [
            ("\"12\"", ColumnKind::Int),
            ("1.5", ColumnKind::Int),
            ("12345678901234567890", ColumnKind::Int),
            ("\"1\"", ColumnKind::Float),
            ("1e999", ColumnKind::Float),
            ("\"true\"", ColumnKind::Bool),
            ("\"soon\"", ColumnKind::Timestamp),
            ("\"2026-02-25T12:00:00.0000001Z\"", ColumnKind::Timestamp),
            ("7", ColumnKind::Timestamp),
        ] {
            let item = format!(r#"{{"a":{value}}}"#);
            let kept = columns(&[("a", kind), ("*", ColumnKind::Json)]);
            assert_eq!(kept.cells(&item).unwrap(), [Cell::Null, text(&item)], "{value}");
            assert_eq!(columns(&[("a", kind)]).cells(&item), Err(CellError::OtherType("a".to_owned())), "{value}");
        }
        let surrogate = r#"{"a":"\ud800"}"#;
        assert_eq!(columns(&[("a", ColumnKind::Text)]).cells(surrogate).unwrap(), [text(r#""\ud800""#)]);
    }

    #[test]
    fn member_that_is_there_twice_is_not_lost() {
        let columns = columns(&[("a", ColumnKind::Int), ("*", ColumnKind::Json)]);
        assert_eq!(columns.cells(r#"{"a":1,"a":2}"#).unwrap(), [Cell::Int(2), text(r#"{"a":1}"#)]);
    }

    #[test]
    fn default_columns_are_valid_and_lose_nothing() {
        let columns = Columns::new(Column::defaults()).unwrap();
        assert!(columns.has_rest);
        assert_eq!(columns.list().last().unwrap().name, "_other");
    }

    #[test]
    fn columns_without_or_with_equal_names_are_refused() {
        for paths in [&[][..], &["a", "a"], &["a."], &["."], &[""]] {
            let list = paths.iter().map(|path| Column::at(path)).collect();
            assert!(Columns::new(list).is_err(), "{paths:?}");
        }
    }
}
