//! `[log]`: the audit log.

use std::path::PathBuf;

use serde_json::json;

use crate::config::parse;
use crate::config::schema::described::Described;
use crate::config::table_reader::TableReader;
use crate::config::value_tree::ConfigNode;

/// The value of `audit` that names the standard output.
const STDOUT: &str = "stdout";

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Where a line is written for each answer that delivers items; `None` writes none.
    pub audit: Option<AuditTarget>,
}

/// `log.audit`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// The standard output.
    Stdout,
    /// A file, which lines are appended to.
    File(PathBuf),
}

impl Described for AuditTarget {
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Reads `[log]`.
pub(in crate::config) fn log(mut table: TableReader<'_>) -> LogConfig {
    let audit = table.optional("audit", |node: &ConfigNode| {
        let path = parse::path(node)?;
        Ok(if path.as_os_str() == STDOUT { AuditTarget::Stdout } else { AuditTarget::File(path) })
    });
    table.finish();
    LogConfig { audit }
}
