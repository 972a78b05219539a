//! `[log]`: the audit log.

use serde_json::json;

use super::types::{AuditTarget, LogConfig, STDOUT};
use crate::config::parse;
use crate::config::schema::described::Described;
use crate::config::table_reader::TableReader;
use crate::config::value_tree::ConfigNode;

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
