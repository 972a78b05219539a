//! Which time of each stream is cached in memory and on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::disk::DiskTier;
use crate::cache::handles::CacheHandles;
use crate::cache::series::SharedSeriesState;
use crate::cache::store::{CacheEntry, Memory};
use crate::config::SeriesSettings;
use crate::window::{Interval, IntervalSet, Timestamp};

/// The cached time of one stream, of requests without a filter. The sets may overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCoverage {
    /// Kore's account.
    pub account: Arc<str>,
    /// Kore's stream.
    pub stream: Arc<str>,
    /// Settled time in memory.
    pub memory: IntervalSet,
    /// Settled time on disk.
    pub disk: IntervalSet,
    /// Cached time that was not settled when it was fetched, in any tier.
    pub open: IntervalSet,
    /// Number of other series of the stream, with a filter or with parameters of their own.
    pub filtered_series: usize,
}

/// The covered streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheCoverage {
    /// The first streams by account and name.
    pub streams: Vec<StreamCoverage>,
    /// Number of streams with anything in the cache, those that were left out included.
    pub total: usize,
}

/// The selection of streams and time.
#[derive(Clone, Copy, Debug)]
pub struct CoverageQuery<'a> {
    /// The only account, if any.
    pub account: Option<&'a str>,
    /// The only stream, if any.
    pub stream: Option<&'a str>,
    /// The time that is looked at.
    pub interval: Interval,
    /// Maximum number of streams.
    pub max_streams: usize,
}

/// An account and a stream.
type StreamName = (Arc<str>, Arc<str>);
/// Whether a series has no filter and no parameters, and its state.
type SeriesOfStream = (bool, SharedSeriesState);

impl CacheHandles {
    /// The cached time of the selected streams in memory and on disk. Looks at each chunk of the interval, so it is not
    /// for a thread of the runtime.
    pub fn coverage(&self, settings: &SeriesSettings, query: CoverageQuery<'_>) -> CacheCoverage {
        let CoverageQuery { account, stream, interval, max_streams } = query;
        let is_selected = |of: &str, name: &str| {
            account.is_none_or(|account| account == of) && stream.is_none_or(|stream| stream == name)
        };
        let mut by_stream: BTreeMap<StreamName, Vec<SeriesOfStream>> = BTreeMap::new();
        for (of, name, is_plain, state) in self.series_map.all_series() {
            if is_selected(&of, &name) {
                by_stream.entry((of, name)).or_default().push((is_plain, state));
            }
        }
        let total = by_stream.len();
        let look = |((account, stream), series): (StreamName, Vec<SeriesOfStream>)| {
            let policy = &settings.for_series(&account, &stream).freshness_policy;
            let mut coverage = StreamCoverage { account, stream, ..StreamCoverage::default() };
            for (is_plain, state) in series {
                if !is_plain {
                    coverage.filtered_series += 1;
                    continue;
                }
                // Cloned, so that lookups of requests do not wait for the tiers.
                let entries: Vec<(Interval, CacheEntry)> = {
                    let state = state.lock();
                    state.entries.within(interval).map(|(part, entry)| (part, entry.clone())).collect()
                };
                for (part, entry) in entries {
                    let settled_before = policy.settled_before(entry.fetched_at);
                    coverage.add(part, settled_before, tier_of(&entry, &self.memory, self.disk.as_ref()));
                }
            }
            coverage
        };
        CacheCoverage { streams: by_stream.into_iter().take(max_streams).map(look).collect(), total }
    }
}

/// A tier that a chunk is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadTier {
    Memory,
    Disk,
    /// The chunk was evicted.
    None,
}

fn tier_of(entry: &CacheEntry, memory: &Memory, disk: Option<&DiskTier>) -> ReadTier {
    if memory.contains(entry.id) {
        ReadTier::Memory
    } else if disk.is_some_and(|disk| disk.has(entry)) {
        ReadTier::Disk
    } else {
        ReadTier::None
    }
}

impl StreamCoverage {
    /// Adds a part of a chunk, whose data before `settled_before` is settled.
    fn add(&mut self, part: Interval, settled_before: Timestamp, tier: ReadTier) {
        let (settled, open) = part.split_at(settled_before);
        match tier {
            ReadTier::Memory => self.memory.insert(settled),
            ReadTier::Disk => self.disk.insert(settled),
            ReadTier::None => return,
        }
        self.open.insert(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: i64, to: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(from * 3600), Timestamp::from_seconds(to * 3600))
    }

    #[test]
    fn part_after_the_settling_time_counts_as_open() {
        let mut coverage = StreamCoverage::default();
        let settled_before = Timestamp::from_seconds(10 * 3600);
        coverage.add(hours(8, 12), settled_before, ReadTier::Memory);
        coverage.add(hours(4, 6), settled_before, ReadTier::Disk);
        coverage.add(hours(0, 4), settled_before, ReadTier::None);
        assert_eq!(coverage.memory.intervals(), [hours(8, 10)]);
        assert_eq!(coverage.disk.intervals(), [hours(4, 6)]);
        assert_eq!(coverage.open.intervals(), [hours(10, 12)]);
    }
}
