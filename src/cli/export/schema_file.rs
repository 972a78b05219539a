//! The file of `--schema`: the columns of Parquet, with their types.

use serde::Deserialize;

use super::columns::{Column, ColumnKind};

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaFile {
    columns: Vec<ColumnTable>,
}

/// One `[[columns]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnTable {
    path: String,
    /// The name; without one, that of the path.
    name: Option<String>,
    /// The type; without one, the usual type of the path.
    #[serde(rename = "type")]
    kind: Option<ColumnKind>,
}

/// Reads the text of the file.
///
/// # Errors
/// A sentence with line and key, if it is not such a file.
pub(super) fn parse(text: &str) -> Result<Vec<Column>, String> {
    let file: SchemaFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let column = |table: ColumnTable| {
        let usual = Column::at(&table.path);
        Column { name: table.name.unwrap_or(usual.name), kind: table.kind.unwrap_or(usual.kind), path: usual.path }
    };
    Ok(file.columns.into_iter().map(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_names_and_types_of_their_own_or_the_usual_ones() {
        let text = r#"
            [[columns]]
            path = "agent.agentId"
            name = "agent_id"
            type = "text"

            [[columns]]
            path = "segmentStartTime"
        "#;
        let expected = [
            Column { name: "agent_id".to_owned(), path: "agent.agentId".to_owned(), kind: ColumnKind::Text },
            Column::at("segmentStartTime"),
        ];
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(expected[1].kind, ColumnKind::Timestamp);
    }

    #[test]
    fn other_keys_and_types_are_named() {
        assert!(parse("[[columns]]\npath = \"a\"\ntype = \"date\"").unwrap_err().contains("date"));
        assert!(parse("[[columns]]\npath = \"a\"\nkind = \"text\"").unwrap_err().contains("kind"));
    }
}
