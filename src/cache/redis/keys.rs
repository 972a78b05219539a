//! The spelling of each key, and of the fields, that the cache has in Redis. Pure.
//!
//! | key | type | contents |
//! | --- | --- | --- |
//! | `PREFIX:c4:ACCOUNT:FIELD:BOUND:STREAM:AGENTIC:HASH:START:SECONDS` | hash | the chunks of a series in one cell, each with its filter of ids in a field beside it |
//! | `PREFIX:c4:ACCOUNT:FIELD:BOUND:wrong` | string | `window.field` was found wrong for streams of the account |
//! | the series without a cell, then `:wrong` | string | items of the series lie outside of the requested time |
//! | `PREFIX:r1:{ACCOUNT}:sweep` | string | a replica deletes what is too old, or has done so within the hour |
//! | `PREFIX:p1:{ACCOUNT}:purges` | hash | the tombstones of the account, by epoch |
//! | `PREFIX:p1:{ACCOUNT}:epoch` | string | the marker that changes with each purge |
//! | `PREFIX:f1:passing:REPLICA:ID:ATTEMPT` | hash | chunks that are handed over and stand in no cell |
//!
//! `AGENTIC` is `rich` or `plain`. Names are percent-encoded, so that no name contains a separator. The keys of one
//! account's purges share a slot of a Cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use crate::cache::chunk::Chunk;
use crate::cache::window_field::FieldScope;
use crate::config::{SeriesSettings, WindowSettings};
use crate::redis_client::key_segment;
use crate::replicas::ReplicaId;
use crate::request::Series;
use crate::window::{Grid, Interval, IntervalSet, Timestamp, UpperBound};

/// The version of chunks in Redis, which is a part of their keys.
const CHUNK_FORMAT: &str = "c4";
/// The version of purges in Redis.
const PURGE_FORMAT: &str = "p1";
/// The version of the sweep of what is too old in Redis.
const RETENTION_FORMAT: &str = "r1";

/// The keys of chunks, which depend on how time is divided into them.
#[derive(Debug)]
pub(in crate::cache) struct ChunkKeys {
    prefix: String,
    series_settings: SeriesSettings,
    grid: Grid,
}

impl ChunkKeys {
    pub(in crate::cache) fn new(prefix: &str, series_settings: &SeriesSettings) -> Self {
        let grid = Grid::new(series_settings.chunk());
        Self { prefix: prefix.to_owned(), series_settings: series_settings.clone(), grid }
    }

    /// The settings of a series.
    pub(super) fn settings_of(&self, series: &Series) -> Arc<WindowSettings> {
        self.series_settings.for_series(&series.account, &series.stream)
    }

    /// The series whose `window.field` is checked together with that of a stream.
    pub(super) fn field_scope(&self, account: &Arc<str>, stream: &str) -> FieldScope {
        FieldScope::new(account, &self.series_settings.for_series(account, stream))
    }

    /// The settings by which time of a stream is divided into chunks and kept, as text: replicas with equal ones can use
    /// each other's chunks, and fetch for each other.
    pub(super) fn settings(&self, account: &str, stream: &str) -> String {
        let settings = self.series_settings.for_series(account, stream);
        let cell = self.grid.cell(Timestamp::from_nanos(0));
        let bounds = bounds(&settings.field, settings.upper_bound);
        let retention = settings.retention.map(|kept| format!(":{}", kept.0.as_secs())).unwrap_or_default();
        format!("{bounds}:{}{retention}", cell.length().as_secs())
    }

    /// How long a chunk that begins at `start` stays in Redis at `now`: at most `ttl`, and until its cell is older than
    /// the retention.
    pub(super) fn ttl(&self, account: &str, stream: &str, start: Timestamp, now: Timestamp, ttl: Duration) -> Duration {
        let Some(since) = self.series_settings.retained_since(account, stream, now) else { return ttl };
        self.grid.cell(start).end.since(since).min(ttl)
    }

    /// The beginning of a series' keys, unique for the series. Filters and parameters, which callers choose, are
    /// hashed.
    pub(in crate::cache) fn series(&self, series: &Series) -> String {
        // Destructured, so that a new member is a compile error here.
        let Series { account, stream, filter, parameters, agentic } = series;
        let mut hash = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(&filter.body().unwrap_or_default());
        for (name, value) in parameters {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        let hash = hash.finish();
        let hash = u128::from_be_bytes(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"));
        let [account, stream] = [account, stream].map(|name| key_segment(name));
        let agentic = if *agentic { "rich" } else { "plain" };
        let settings = self.settings_of(series);
        let WindowSettings { field, upper_bound, .. } = &*settings;
        let bounds = bounds(field, *upper_bound);
        format!("{}:{CHUNK_FORMAT}:{account}:{bounds}:{stream}:{agentic}:{hash:032x}", self.prefix)
    }

    /// The key of the cell of a series that a time lies in; `series` is of [`ChunkKeys::series`].
    pub(super) fn cell(&self, series: &str, at: Timestamp) -> String {
        let cell = self.grid.cell(at);
        format!("{series}:{}:{}", cell.start.as_seconds(), cell.length().as_secs())
    }

    /// The keys of all cells of a series that intervals overlap, ascending.
    pub(in crate::cache) fn cells(&self, series: &Series, intervals: &IntervalSet) -> Vec<String> {
        let mut cells = BTreeSet::new();
        for interval in intervals.intervals() {
            let mut at = interval.start;
            while at < interval.end {
                let cell = self.grid.cell(at);
                cells.insert(cell.start);
                at = cell.end;
            }
        }
        let series = self.series(series);
        cells.into_iter().map(|start| self.cell(&series, start)).collect()
    }

    /// The marker that the `window.field` of a scope is wrong.
    pub(super) fn wrong_field(&self, scope: &FieldScope) -> String {
        let FieldScope { account, field, upper_bound } = scope;
        format!("{}:{CHUNK_FORMAT}:{}:{}:wrong", self.prefix, key_segment(account), bounds(field, *upper_bound))
    }

    /// The marker that items of a series lie outside of the requested time; the same with and without agentic data.
    pub(super) fn shifted_series(&self, series: &Series) -> String {
        format!("{}:wrong", self.series(&Series { agentic: false, ..series.clone() }))
    }
}

/// `window.field` and `window.upper_bound`, as they stand in keys.
fn bounds(field: &str, upper_bound: UpperBound) -> String {
    let bound = match upper_bound {
        UpperBound::Inclusive => "inclusive",
        UpperBound::Exclusive => "exclusive",
    };
    format!("{}:{bound}", key_segment(field))
}
/// Suffix of the name of the field that holds a chunk's filter of ids, behind the name of the chunk's field.
const IDS_SUFFIX: &str = "_ids";

/// The name of a chunk's field, by which the chunk is listed, and found purged, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct ChunkField {
    pub(in crate::cache) interval: Interval,
    pub(in crate::cache) fetched_at: Timestamp,
    /// The last purge that was known when the chunk's run began; 0 in fields of earlier versions, which lack it.
    pub(in crate::cache) epoch: u64,
}

impl ChunkField {
    pub(super) fn of(chunk: &Chunk) -> Self {
        Self { interval: chunk.interval(), fetched_at: chunk.fetched_at(), epoch: chunk.epoch() }
    }

    /// The name of the field: start, end and time of the fetch in nanoseconds since 1970, and the epoch.
    pub(in crate::cache) fn name(&self) -> String {
        let Self { interval: Interval { start, end }, fetched_at, epoch } = self;
        format!("{}_{}_{}_{epoch}", start.as_nanos(), end.as_nanos(), fetched_at.as_nanos())
    }

    /// The name of the field that holds the chunk's filter of ids.
    pub(in crate::cache) fn ids_name(&self) -> String {
        self.name() + IDS_SUFFIX
    }

    /// Parses the name of a chunk's filter of ids, as that of the chunk; `None` for other names.
    pub(in crate::cache) fn parse_ids(name: &[u8]) -> Option<Self> {
        Self::parse(name.strip_suffix(IDS_SUFFIX.as_bytes())?)
    }

    /// Parses the name of a field; `None` if it is not the name of a chunk.
    pub(in crate::cache) fn parse(name: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(name).ok()?.split('_');
        let mut timestamp = || numbers.next()?.parse().ok().map(Timestamp::from_nanos);
        let (interval, fetched_at) = (Interval::new(timestamp()?, timestamp()?), timestamp()?);
        let epoch = numbers.next().map_or(Some(0), |epoch| epoch.parse().ok())?;
        numbers.next().is_none().then_some(())?;
        Some(Self { interval, fetched_at, epoch })
    }
}

/// The name under which a value is sealed: its key and field.
pub(in crate::cache) fn value_name(cell: &[u8], field: &[u8]) -> Vec<u8> {
    [cell, b"\0", field].concat()
}

/// The key of a handover to a replica; `prefix` is that of its mailbox.
pub(in crate::cache) fn handover(prefix: &str, to: &ReplicaId, id: u64, attempt: u8) -> String {
    format!("{prefix}:passing:{to}:{id}:{attempt}")
}

/// The hash of the tombstones of an account.
pub(in crate::cache) fn tombstones(prefix: &str, account: &str) -> String {
    format!("{prefix}:{PURGE_FORMAT}:{{{}}}:purges", key_segment(account))
}

/// The marker that changes with each purge of an account.
pub(in crate::cache) fn purge_marker(prefix: &str, account: &str) -> String {
    format!("{prefix}:{PURGE_FORMAT}:{{{}}}:epoch", key_segment(account))
}

/// The lock of the replica that deletes what of an account is too old.
pub(in crate::cache) fn retention_lock(prefix: &str, account: &str) -> String {
    format!("{prefix}:{RETENTION_FORMAT}:{{{}}}:sweep", key_segment(account))
}

/// The cells of an account, of all versions and settings, as a literal prefix and a glob-style pattern behind it.
pub(in crate::cache) fn all_cells(prefix: &str, account: &str) -> (String, String) {
    (format!("{prefix}:c"), format!("[0-9]*:{}:*", key_segment(account)))
}

/// The key of a cell, of any version. Names are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct CellKey<'a> {
    pub(in crate::cache) account: &'a str,
    pub(in crate::cache) stream: &'a str,
    pub(in crate::cache) interval: Interval,
    /// Whether chunks of this version are in the cell, with their filters of ids.
    pub(in crate::cache) is_current: bool,
}

impl<'a> CellKey<'a> {
    /// Parses the key of a cell; `None` for all other keys.
    pub(in crate::cache) fn parse(prefix: &str, key: &'a [u8]) -> Option<Self> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
        let parts: Vec<&str> = rest.split(':').collect();
        let ["", format, account, _, _, stream, _, _, start, length] = parts[..] else { return None };
        format.strip_prefix('c').and_then(|number| number.parse::<u8>().ok())?;
        let start = Timestamp::from_seconds(start.parse().ok()?);
        let interval = Interval::new(start, start + Duration::from_secs(length.parse().ok()?));
        Some(Self { account, stream, interval, is_current: format == CHUNK_FORMAT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        AccountConfig, JtiMode, NamePatterns, StreamConfig, TokenConfig, TokenScheme, WindowConfig, WindowOverrides,
    };
    use crate::request::Filter;

    fn window() -> WindowConfig {
        WindowConfig {
            field: "segment-start".into(),
            upper_bound: UpperBound::Inclusive,
            settle_after: Duration::from_hours(24),
            freshness: Vec::new(),
            chunk: Duration::from_hours(1),
            max_span: Duration::MAX,
        }
    }

    fn account() -> AccountConfig {
        let (lifetime, refresh_ahead) = (Duration::from_hours(1), Duration::from_mins(5));
        AccountConfig {
            account_id: "a".into(),
            client_id: "cs-1".to_owned(),
            client_secret: "secret".into(),
            streams: NamePatterns::All,
            token: TokenConfig { lifetime, refresh_ahead, scheme: TokenScheme::Bare, jti: JtiMode::Off },
            limits: Vec::new(),
            window: WindowOverrides::default(),
            stream_settings: Vec::new(),
        }
    }

    fn keys() -> ChunkKeys {
        ChunkKeys::new("kore", &SeriesSettings::new(&window(), &[]))
    }

    fn series(agentic: bool) -> Series {
        let (filter, parameters) = (Filter::None, vec![("x".to_owned(), "y".to_owned())]);
        Series { account: "a:1".into(), stream: "st-1".into(), filter, parameters, agentic }
    }

    fn hours(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start * 3600), Timestamp::from_seconds(end * 3600))
    }

    #[test]
    fn keys_are_spelled_as_other_replicas_spell_them() {
        let (keys, account) = (keys(), "a:1");
        let hash = "bebd947c5e63cad46807b157824a6f17";
        let [rich, plain] = [true, false].map(|agentic| keys.series(&series(agentic)));
        assert_eq!(rich, format!("kore:c4:a%3A1:segment%2Dstart:inclusive:st%2D1:rich:{hash}"));
        assert_eq!(plain, format!("kore:c4:a%3A1:segment%2Dstart:inclusive:st%2D1:plain:{hash}"));
        assert_eq!(keys.settings(account, "st-1"), "segment%2Dstart:inclusive:3600");
        assert_eq!(keys.cell(&rich, Timestamp::from_seconds(7300)), format!("{rich}:7200:3600"));
        let intervals = [hours(0, 2), hours(1, 2), hours(5, 6)].into_iter().collect();
        let cells = ["0:3600", "3600:3600", "18000:3600"].map(|cell| format!("{rich}:{cell}"));
        assert_eq!(keys.cells(&series(true), &intervals), cells);
        assert_eq!(
            keys.wrong_field(&keys.field_scope(&account.into(), "st-1")),
            "kore:c4:a%3A1:segment%2Dstart:inclusive:wrong"
        );
        assert_eq!(keys.shifted_series(&series(true)), format!("{plain}:wrong"));
        assert_eq!(tombstones("kore", account), "kore:p1:{a%3A1}:purges");
        assert_eq!(retention_lock("kore", account), "kore:r1:{a%3A1}:sweep");
        assert_eq!(purge_marker("kore", account), "kore:p1:{a%3A1}:epoch");
        let replica = ReplicaId::parse(b"0123456789abcdef").unwrap();
        assert_eq!(handover("kore:f1", &replica, 7, 1), "kore:f1:passing:0123456789abcdef:7:1");
    }

    #[test]
    fn cell_expires_with_the_retention_at_the_latest() {
        let (hour, ttl) = (Duration::from_hours(1), Duration::from_hours(100));
        let stream = |stream: &str, retention| StreamConfig {
            stream: stream.into(),
            window: WindowOverrides {
                retention,
                upper_bound: Some(UpperBound::Exclusive),
                ..WindowOverrides::default()
            },
        };
        let streams = vec![stream("kept", None), stream("dropped", Some(48 * hour))];
        let account = AccountConfig { stream_settings: streams, ..account() };
        let keys = ChunkKeys::new("kore", &SeriesSettings::new(&window(), &[account]));
        let at = |hours: i64| Timestamp::from_seconds(hours * 3600);
        let ttl_of = |stream, start, now| keys.ttl("a", stream, start, at(now), ttl).as_secs() / 3600;
        assert_eq!(ttl_of("kept", at(1000), 1024), 100);
        assert_eq!(ttl_of("dropped", at(1000), 1024), 25, "the cell ends an hour after its beginning");
        assert_eq!(ttl_of("dropped", at(1000), 1049), 0);
        assert_eq!(ttl_of("dropped", at(1000), 900), 100);
        // Replicas with another retention do not fetch for each other.
        let settings = ["other", "kept", "dropped"].map(|stream| keys.settings("a", stream));
        let exclusive = "segment%2Dstart:exclusive:3600";
        let expected = ["segment%2Dstart:inclusive:3600", exclusive, &format!("{exclusive}:172800")];
        assert_eq!(settings, expected);
        let series = |stream: &str| Series { stream: stream.into(), account: "a".into(), ..series(false) };
        assert!(keys.series(&series("kept")).contains(":segment%2Dstart:exclusive:kept:"));
        assert!(keys.series(&series("other")).contains(":segment%2Dstart:inclusive:other:"));
    }

    #[test]
    fn key_of_a_cell_is_parsed_and_others_are_not() {
        let cell = keys().cell(&keys().series(&series(true)), Timestamp::from_seconds(7300));
        let parsed = CellKey { account: "a%3A1", stream: "st%2D1", interval: hours(2, 3), is_current: true };
        assert_eq!(CellKey::parse("kore", cell.as_bytes()), Some(parsed));
        let earlier = cell.replace(":c4:", ":c1:");
        assert_eq!(CellKey::parse("kore", earlier.as_bytes()), Some(CellKey { is_current: false, ..parsed }));
        for other in [
            keys().wrong_field(&keys().field_scope(&"a:1".into(), "s")),
            cell.replace(":c4:", ":p1:"),
            format!("{cell}:1"),
            format!("x{cell}"),
        ] {
            assert_eq!(CellKey::parse("kore", other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn name_of_a_field_is_parsed_back() {
        let field = ChunkField { interval: hours(-1, 2), fetched_at: Timestamp::from_seconds(9), epoch: 7 };
        assert_eq!(field.name(), "-3600000000000_7200000000000_9000000000_7");
        assert_eq!(ChunkField::parse(field.name().as_bytes()), Some(field));
        assert_eq!(ChunkField::parse(b"0_1_2").map(|field| field.epoch), Some(0), "of an earlier version");
        assert_eq!(field.ids_name(), "-3600000000000_7200000000000_9000000000_7_ids");
        assert_eq!(ChunkField::parse_ids(field.ids_name().as_bytes()), Some(field));
        for other in ["", "0_1", "0_1_x", "0_1_2_x", "0_1_2_3_ids", "0_1_2_3_4"] {
            assert_eq!(ChunkField::parse(other.as_bytes()), None, "{other}");
            assert_eq!(ChunkField::parse_ids(format!("{other}_").as_bytes()), None, "{other}");
        }
    }
}
