//! Lookup in memory: what serves a window, and which runs would bring the rest. Starts nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::chunk::{Chunk, json_strip};
use crate::cache::disk::DiskHit;
use crate::cache::fetch::Fetcher;
use crate::cache::series::{SeriesMap, SeriesState, SharedSeriesState};
use crate::cache::store::{CacheEntry, Memory};
use crate::config::WindowSettings;
use crate::request::{Filter, KnownFilter, Series};
use crate::sync::MutexGuard;
use crate::upstream::PAGE_LIMIT;
use crate::window::{FreshnessDemand, Interval, IntervalSet, Plan, RequestFreshness, Timestamp};

/// The number of cached items between two gaps from which on two runs are fetched instead of one: then leaving these
/// items out saves as much, on average, as the last page of a run wastes.
const MAX_BRIDGED_ITEMS: usize = PAGE_LIMIT as usize / 2;
/// The member by which items with `includeAgenticData` differ from those without.
const AGENTIC_MEMBER: &str = "agenticActivities";

/// A chunk that serves a part of the window.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Hit {
    pub(in crate::cache) chunk: Arc<Chunk>,
    pub(in crate::cache) conversion: ItemConversion,
    /// Whether it was cached before the request.
    pub(in crate::cache) is_cached: bool,
}

/// The conversion of another series' items into those of the requested series.
#[derive(Clone, Debug)]
pub(in crate::cache) struct ItemConversion {
    /// Whether `agenticActivities` is removed.
    pub(in crate::cache) strips_agentic: bool,
    pub(in crate::cache) filter: Option<KnownFilter>,
}

impl ItemConversion {
    /// Whether items stay as they are.
    pub(in crate::cache) fn is_identity(&self) -> bool {
        !self.strips_agentic && self.filter.is_none()
    }

    /// The converted item; `None` if the filter leaves it out.
    pub(in crate::cache) fn apply(&self, item: Bytes) -> Option<Bytes> {
        if self.filter.as_ref().is_some_and(|filter| !filter.passes(&item)) {
            return None;
        }
        let stripped = || json_strip::without(&item, AGENTIC_MEMBER);
        Some(self.strips_agentic.then(stripped).flatten().unwrap_or(item))
    }
}

/// The parts of the cache, and the settings, that a lookup depends on.
#[derive(Clone, Copy)]
pub(in crate::cache) struct LookupPolicy<'a> {
    pub(in crate::cache) memory: &'a Memory,
    pub(in crate::cache) series_map: &'a SeriesMap,
    pub(in crate::cache) freshness: RequestFreshness<'a>,
    /// The time before which data has settled, by the clock of this machine or of the upstream, whichever is earlier.
    pub(in crate::cache) settled_before: Timestamp,
}

impl<'a> LookupPolicy<'a> {
    /// The policy of a cache for a request for a series with these settings at this time, with this demand.
    pub(in crate::cache) fn new(
        fetcher: &'a Fetcher,
        settings: &'a WindowSettings,
        asked_at: Timestamp,
        demand: FreshnessDemand,
    ) -> Self {
        Self {
            memory: &fetcher.memory,
            series_map: &fetcher.series_map,
            freshness: RequestFreshness::new(&settings.freshness_policy, demand),
            settled_before: fetcher.settled_before(settings, asked_at),
        }
    }
}

/// A lookup for one series.
pub(in crate::cache) struct Lookup<'a> {
    pub(in crate::cache) policy: LookupPolicy<'a>,
    pub(in crate::cache) series: &'a Series,
    pub(in crate::cache) asked_at: Timestamp,
    /// Entries that were fetched since then are fresh.
    pub(in crate::cache) fresh_since: Timestamp,
    /// [`CacheEntry::use_chunk`] or [`CacheEntry::peek`]: whether the chunks count as used.
    pub(in crate::cache) open: fn(&CacheEntry, &Memory) -> Option<Arc<Chunk>>,
}

impl Lookup<'_> {
    /// Takes all that serves the plan. Returns the series of the request, still locked.
    pub(in crate::cache) fn take<'s>(
        &self,
        plan: &mut Plan<Hit>,
        own: &'s SharedSeriesState,
    ) -> MutexGuard<'s, SeriesState> {
        self.take_filterable(plan, own);
        let own = own.lock();
        self.take_entries(plan, &own, None);
        own
    }

    /// Takes entries of the unfiltered series, to which the filter is applied here, for the time of which the filtered
    /// series `own` has none.
    pub(in crate::cache) fn take_filterable(&self, plan: &mut Plan<Hit>, own: &SharedSeriesState) {
        if !plan.missing.is_empty()
            && let Filter::Known(filter) = &self.series.filter
        {
            self.take_entries(plan, &own.lock(), None);
            if let Some(unfiltered) = self.unfiltered() {
                self.take_entries(plan, &unfiltered.lock(), Some(filter));
            }
        }
    }

    /// The same series without its filter.
    pub(in crate::cache) fn unfiltered(&self) -> Option<SharedSeriesState> {
        self.policy.series_map.find(&Series { filter: Filter::None, ..self.series.clone() })
    }

    /// Takes the entries of a locked series, to which `filter` is to be applied.
    pub(in crate::cache) fn take_entries(
        &self,
        plan: &mut Plan<Hit>,
        series: &SeriesState,
        filter: Option<&KnownFilter>,
    ) {
        self.take_each(plan, series, |entry, agentic| {
            let chunk = (self.open)(entry, self.policy.memory)?;
            let conversion =
                ItemConversion { strips_agentic: agentic && !self.series.agentic, filter: filter.cloned() };
            Some(Hit { chunk, conversion, is_cached: true })
        });
    }

    /// Takes what chunks on disk serve of a locked series, to which the filter of the request is to be applied if it
    /// `is_unfiltered`.
    fn take_on_disk(&self, plan: &mut Plan<DiskHit>, series: &SeriesState, is_unfiltered: bool) {
        self.take_each(plan, series, |entry, agentic| {
            Some(DiskHit { slot: entry.slot?, facts: entry.facts(), agentic, is_unfiltered })
        });
    }

    /// Takes what `open` makes of the entries of a locked series, given whether they have agentic data. Data with it
    /// serves requests without it too.
    fn take_each<T: Clone>(
        &self,
        plan: &mut Plan<T>,
        series: &SeriesState,
        open: impl Fn(&CacheEntry, bool) -> Option<T>,
    ) {
        let (freshness, asked_at, fresh_since) = (self.policy.freshness, self.asked_at, self.fresh_since);
        if !self.series.agentic {
            plan.take(series.entries.by_agentic(false), freshness, asked_at, fresh_since, |entry| open(entry, false));
        }
        plan.take(series.entries.by_agentic(true), freshness, asked_at, fresh_since, |entry| open(entry, true));
    }

    /// The parts of `missing` that chunks on disk of the unfiltered series serve.
    pub(in crate::cache) fn filterable_on_disk(&self, missing: &IntervalSet) -> Plan<DiskHit> {
        let mut plan = Plan { hits: Vec::new(), missing: missing.clone(), stale: false };
        if let Filter::Known(_) = &self.series.filter
            && let Some(unfiltered) = self.unfiltered()
        {
            self.take_on_disk(&mut plan, &unfiltered.lock(), true);
        }
        plan
    }

    /// The parts of `missing` that chunks on disk serve, ascending: those of the locked series of the request, and where
    /// it has none, those of [`Lookup::filterable_on_disk`].
    pub(in crate::cache) fn on_disk(
        &self,
        missing: &IntervalSet,
        own: &SeriesState,
        filterable: &Plan<DiskHit>,
    ) -> Vec<(Interval, DiskHit)> {
        let mut plan = Plan { hits: Vec::new(), missing: missing.clone(), stale: false };
        self.take_on_disk(&mut plan, own, false);
        for (interval, hit) in &filterable.hits {
            plan.hits.extend(plan.missing.within(*interval).map(|part| (part, *hit)).collect::<Vec<_>>());
        }
        plan.hits.sort_unstable_by_key(|(interval, _)| interval.start);
        plan.hits
    }

    /// The intervals to fetch for `unclaimed`, which is missing in `plan`.
    pub(in crate::cache) fn runs(&self, plan: &Plan<Hit>, unclaimed: &IntervalSet) -> IntervalSet {
        let bridged = plan.coalesce_gaps(unclaimed, MAX_BRIDGED_ITEMS, |interval, hit| self.open_items(interval, hit));
        let widened = |interval: &Interval| {
            // An entry that ends with the tick of an inclusive `to` includes that second only if the upstream's bound
            // is as configured. A run from the beginning of that second on brings it in any case.
            let interval = Interval::new(interval.start.floor_second(), interval.end);
            // The rest of the last minute is fetched too, so that another spelling of the same day does not cost a call
            // for less than a second. Open time is cut at now, and is not rounded.
            Some(interval.to_full_minute()).filter(|full| full.end <= self.policy.settled_before).unwrap_or(interval)
        };
        bridged.intervals().iter().map(widened).collect()
    }

    /// The number of a hit's items in `interval`, if they may be fetched again before they are stale: settled items
    /// must not, and items that were fetched just now need not.
    fn open_items(&self, interval: Interval, hit: &Hit) -> Option<usize> {
        let fetched_at = hit.chunk.fetched_at();
        let is_open = interval.start >= self.policy.freshness.settled_before(fetched_at);
        (hit.is_cached && is_open && fetched_at < self.fresh_since).then(|| hit.chunk.rows_within(interval).len())
    }
}
