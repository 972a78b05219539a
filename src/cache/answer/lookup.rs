//! What of a window is there, and which runs would bring the rest. It only looks: nothing is begun here.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use super::super::chunk::json_strip;
use crate::cache::chunk::Chunk;
use crate::cache::fetch::Fetcher;
use crate::cache::series::{SeriesState, SharedSeriesState};
use crate::cache::store::CacheEntry;
use crate::cache::store::Memory;
use crate::request::{Filter, KnownFilter, Series};
use crate::upstream::PAGE_LIMIT;
use crate::window::{Interval, IntervalSet, Plan, Timestamp};

/// A run is ended by a gap of this many items, at which leaving them out saves as much, on the average, as the last page
/// of a run wastes.
const WORTH_A_RUN: usize = PAGE_LIMIT as usize / 2;
/// What a rich item has and a plain one has not.
const RICH_MEMBER: &str = "agenticActivities";

/// What serves a part of the window.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Hit {
    pub(in crate::cache) chunk: Arc<Chunk>,
    /// What must be done to its items first.
    pub(in crate::cache) change: ItemConversion,
    /// Whether it was there before this window was asked for.
    pub(in crate::cache) copy: bool,
}

/// How the items of another series become those of the one that was asked for.
#[derive(Clone, Debug)]
pub(in crate::cache) struct ItemConversion {
    pub(in crate::cache) strip: bool,
    pub(in crate::cache) filter: Option<KnownFilter>,
}

impl ItemConversion {
    pub(in crate::cache) fn is_none(&self) -> bool {
        !self.strip && self.filter.is_none()
    }

    pub(in crate::cache) fn apply(&self, item: Bytes) -> Option<Bytes> {
        if self.filter.as_ref().is_some_and(|filter| !filter.passes(&item)) {
            return None;
        }
        if self.strip { Some(json_strip::without(&item, RICH_MEMBER).unwrap_or(item)) } else { Some(item) }
    }
}

/// One look at what is there of a series.
pub(in crate::cache) struct Lookup<'a> {
    pub(in crate::cache) fetcher: &'a Fetcher,
    pub(in crate::cache) series: &'a Series,
    pub(in crate::cache) asked_at: Timestamp,
    /// Copies fetched since then are good enough.
    pub(in crate::cache) fresh_since: Timestamp,
    /// Whether what is seen counts as used.
    pub(in crate::cache) open: fn(&CacheEntry, &Memory) -> Option<Arc<Chunk>>,
}

impl Lookup<'_> {
    /// Takes what the shelves have for the plan. The series' own is still locked then.
    pub(in crate::cache) fn take<'s>(
        &self,
        plan: &mut Plan<Hit>,
        own: &'s SharedSeriesState,
    ) -> MutexGuard<'s, SeriesState> {
        self.take_filterable(plan, own);
        let own = own.lock();
        self.take_copies(plan, &own, None);
        own
    }

    /// Takes what the filter of the series can be applied to, where nothing is kept filtered.
    pub(in crate::cache) fn take_filterable(&self, plan: &mut Plan<Hit>, own: &SharedSeriesState) {
        if !plan.missing.is_empty()
            && let Filter::Known(filter) = &self.series.filter
        {
            self.take_copies(plan, &own.lock(), None);
            if let Some(unfiltered) = self.unfiltered() {
                self.take_copies(plan, &unfiltered.lock(), Some(filter));
            }
        }
    }

    /// The shelf of all items that the filter chooses from.
    pub(in crate::cache) fn unfiltered(&self) -> Option<SharedSeriesState> {
        self.fetcher.series_map.find(&Series { filter: Filter::None, ..self.series.clone() })
    }

    /// Takes the copies of a shelf, to which `filter` is to be applied.
    pub(in crate::cache) fn take_copies(
        &self,
        plan: &mut Plan<Hit>,
        shelf: &SeriesState,
        filter: Option<&KnownFilter>,
    ) {
        let open = |copy: &CacheEntry, strip| {
            let chunk = (self.open)(copy, &self.fetcher.memory)?;
            Some(Hit { chunk, change: ItemConversion { strip, filter: filter.cloned() }, copy: true })
        };
        let (freshness_policy, agentic) = (&self.fetcher.freshness_policy, self.series.agentic);
        if !agentic {
            plan.take(shelf.entries.of(false), freshness_policy, self.asked_at, self.fresh_since, |copy| {
                open(copy, false)
            });
        }
        plan.take(shelf.entries.of(true), freshness_policy, self.asked_at, self.fresh_since, |copy| {
            open(copy, !agentic)
        });
    }

    /// The runs that bring `unasked`, which is missing in `plan`.
    pub(in crate::cache) fn runs(&self, plan: &Plan<Hit>, unasked: &IntervalSet) -> IntervalSet {
        let bridged = plan.coalesce_gaps(unasked, WORTH_A_RUN, |interval, held| self.open_items(interval, held));
        let settled = self.fetcher.settled_before(self.asked_at);
        let full = |interval: &Interval| {
            // A copy that ends with the tick of an inclusive `to` has it only if the upstream's bound is what the
            // configuration says. The query from that second on brings it in any case, so it is taken from there.
            let interval = Interval::new(interval.start.floor_second(), interval.end);
            // The rest of a last second is fetched along, so that whoever spells the same day otherwise does not pay a
            // call for less than a second. What is open is cut at now, and no second of it is rounded.
            Some(interval.to_full_minute()).filter(|full| full.end <= settled).unwrap_or(interval)
        };
        bridged.intervals().iter().map(full).collect()
    }

    /// How many items of a copy lie in `interval`, if they may be fetched again before they are due: what has settled may
    /// not, and what has just been fetched need not.
    fn open_items(&self, interval: Interval, held: &Hit) -> Option<usize> {
        let fetched_at = held.chunk.fetched_at();
        let open = interval.start >= self.fetcher.freshness_policy.settled_before(fetched_at);
        (held.copy && open && fetched_at < self.fresh_since).then(|| held.chunk.rows_within(interval).len())
    }
}
