//! `[log]`: how much is logged, and the audit log.

use serde_json::json;
use tracing::level_filters::LevelFilter;

use super::types::{AuditTarget, LogConfig, STDOUT};
use crate::config::parse;
use crate::config::parse::Keyword;
use crate::config::schema::described::Described;
use crate::config::table_reader::TableReader;
use crate::config::value_tree::ConfigNode;

impl Described for AuditTarget {
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Keyword for LevelFilter {
    const KEYWORDS: &'static [(&'static str, Self)] = &[
        ("off", Self::OFF),
        ("error", Self::ERROR),
        ("warn", Self::WARN),
        ("info", Self::INFO),
        ("debug", Self::DEBUG),
        ("trace", Self::TRACE),
    ];
}

/// Reads `[log]`.
pub(in crate::config) fn log(mut table: TableReader<'_>) -> LogConfig {
    let level = table.value_or("level", LevelFilter::INFO, parse::keyword);
    let audit = table.optional("audit", |node: &ConfigNode| {
        let path = parse::path(node)?;
        Ok(if path.as_os_str() == STDOUT { AuditTarget::Stdout } else { AuditTarget::File(path) })
    });
    table.finish();
    LogConfig { level, audit }
}
