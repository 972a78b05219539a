//! Keys, defaults and checks of `[window]`, and of what accounts and streams set over it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::parse::Keyword;
use super::table_reader::TableReader;
use super::value_tree::ConfigNode;
use super::{FreshnessTier, NamePatterns, StreamConfig, UpperBound, WindowConfig, WindowOverrides, parse};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

impl Keyword for UpperBound {
    const KEYWORDS: &'static [(&'static str, Self)] = &[("inclusive", Self::Inclusive), ("exclusive", Self::Exclusive)];
}

/// `[window]`
pub(super) fn global(mut table: TableReader<'_>) -> WindowConfig {
    let WindowOverrides { field, upper_bound, settle_after, freshness, retention: _ } = settings(&mut table);
    let window = WindowConfig {
        field: field.unwrap_or_else(|| "segmentStartTime".into()),
        upper_bound: upper_bound.unwrap_or(UpperBound::Inclusive),
        settle_after: settle_after.unwrap_or(DAY),
        freshness: freshness.unwrap_or_else(default_freshness),
        chunk: table.value_or("chunk", HOUR, |node: &ConfigNode| {
            let chunk = parse::whole_seconds(node)?;
            // Chunks are aligned to midnight, so a day must consist of whole chunks.
            if chunk > DAY || !DAY.as_secs().is_multiple_of(chunk.as_secs()) {
                return Err("must divide a day into equal parts, such as \"15m\", \"1h\" or \"24h\"".to_owned());
            }
            Ok(chunk)
        }),
        max_span: table.value_or("max_span", 366 * DAY, parse::positive_duration),
    };
    table.finish();
    window
}

/// `retention` and the table `window` of an account or of a stream.
pub(super) fn overrides(table: &mut TableReader<'_>) -> WindowOverrides {
    let retention = table.optional("retention", parse::whole_seconds);
    let mut window = table.table("window");
    let overrides = WindowOverrides { retention, ..settings(&mut window) };
    window.finish();
    overrides
}

/// `stream_settings` of an account that serves `streams`.
pub(super) fn streams(account: &mut TableReader<'_>, streams: &NamePatterns) -> Vec<StreamConfig> {
    let mut seen = HashSet::new();
    let tables = account.tables("stream_settings").unwrap_or_default();
    tables.into_iter().filter_map(|table| stream(table, streams, &mut seen)).collect()
}

fn stream(mut table: TableReader<'_>, allowed: &NamePatterns, seen: &mut HashSet<String>) -> Option<StreamConfig> {
    let stream = table.required("stream", parse::name);
    if let Some(name) = &stream {
        if !seen.insert(name.clone()) {
            table.report("stream", format!("{name:?} has settings in another entry too"));
        } else if name == "*" {
            table.report("stream", "must be one stream; what holds for all of them is set for the account");
        } else if !allowed.allow(name) {
            table.report("stream", format!("{name:?} is none of the `streams` of the account"));
        }
    }
    let window = overrides(&mut table);
    table.finish();
    stream.map(|name| StreamConfig { stream: Arc::from(name), window })
}

/// The keys that `[window]` and the table `window` of an account or of a stream share.
fn settings(table: &mut TableReader<'_>) -> WindowOverrides {
    WindowOverrides {
        field: table.optional("field", |node: &ConfigNode| parse::label(node).map(Arc::from)),
        upper_bound: table.optional("upper_bound", parse::keyword),
        settle_after: table.optional("settle_after", parse::duration),
        freshness: freshness(table),
        retention: None,
    }
}

fn default_freshness() -> Vec<FreshnessTier> {
    vec![
        FreshnessTier { younger_than: HOUR, max_age: 30 * SECOND },
        FreshnessTier { younger_than: 6 * HOUR, max_age: 5 * MINUTE },
        FreshnessTier { younger_than: DAY, max_age: HOUR },
    ]
}

fn freshness(table: &mut TableReader<'_>) -> Option<Vec<FreshnessTier>> {
    let mut tiers: Vec<FreshnessTier> = Vec::new();
    for mut item in table.tables("freshness")? {
        let younger_than = item.required("younger_than", parse::positive_duration);
        let max_age = item.required("max_age", parse::duration);
        if let (Some(younger_than), Some(max_age)) = (younger_than, max_age) {
            if let Some(last) = tiers.last() {
                if younger_than <= last.younger_than {
                    item.report("younger_than", "must be more than that of the entry before it");
                }
                if max_age < last.max_age {
                    item.report("max_age", "must not be less than that of the entry before it");
                }
            }
            tiers.push(FreshnessTier { younger_than, max_age });
        }
        item.finish();
    }
    Some(tiers)
}
