//! Lookup of a batch in Redis, before it is fetched from the upstream.

use std::sync::Arc;

use super::fetcher::Fetcher;
use crate::cache::chunk::Chunk;
use crate::cache::redis::RedisTier;
use crate::cache::series::{SharedSeriesState, TierHit};
use crate::cache::store::{ByAgentic, CacheEntry};
use crate::clock::SKEW;
use crate::request::{Filter, Series};
use crate::window::{FreshnessDemand, Interval, IntervalSet, RequestFreshness, Timestamp};

impl Fetcher {
    /// Hands to the waiters of the pending batch what Redis has of it, and removes that from the batch. What is added
    /// to the batch meanwhile is looked up, too, so that nothing is fetched that was not looked up.
    pub(super) async fn look_up_batch(&self, redis: &RedisTier, series: &Arc<Series>, shared: &SharedSeriesState) {
        if !redis.is_usable(series).await {
            return;
        }
        while let Some(ByAgentic { non_agentic, mut agentic }) = take_unchecked(shared) {
            // Agentic data serves the other requests as well.
            non_agentic.intervals().iter().for_each(|interval| agentic.insert(*interval));
            for (is_agentic, intervals) in [(true, &agentic), (false, &non_agentic)] {
                if !intervals.is_empty() {
                    let own = Series { agentic: is_agentic, ..Series::clone(series) };
                    self.look_up(redis, &own, intervals, shared, shared).await;
                    if let Filter::Known(_) = series.filter {
                        let unfiltered = Series { filter: Filter::None, ..own };
                        let state = self.series_map.get_or_insert(&unfiltered);
                        self.look_up(redis, &unfiltered, intervals, &state, shared).await;
                        self.series_map.remove_if_idle(&unfiltered, &state);
                    }
                }
            }
        }
    }

    /// Inserts what Redis has of `intervals` into `state`, hands it to the waiters of the batch that is pending in
    /// `batch_of`, and removes it from the batch.
    async fn look_up(
        &self,
        redis: &RedisTier,
        series: &Series,
        intervals: &IntervalSet,
        state: &SharedSeriesState,
        batch_of: &SharedSeriesState,
    ) {
        let found = redis.look_up(series, intervals).await;
        let now = self.clock.now();
        let found = self.insert_from_redis(series, state, found, now);
        let is_unfiltered = !state.is_same(batch_of);
        let mut state = batch_of.lock();
        let Some(batch) = &mut state.pending else { return };
        let served = |agentic: bool| series.agentic || !agentic;
        for request in batch.requests.iter_mut().filter(|request| request.redis_checked && served(request.agentic)) {
            // The newest first, since two of them may overlap.
            for chunk in found.iter().rev() {
                let accepted = (request.fresh_since, request.freshness);
                let fresh = self.fresh_part(series, chunk.interval(), chunk.fetched_at(), accepted, now);
                let parts = fresh.intervals().iter().flat_map(|interval| request.intervals.within(*interval));
                for interval in parts.collect::<Vec<_>>() {
                    request.intervals.remove(interval);
                    if let Some(waiter) = request.waiter.upgrade() {
                        let (chunk, agentic) = (chunk.clone(), series.agentic);
                        waiter.add_redis_hit(TierHit { interval, chunk, agentic, is_unfiltered });
                    }
                }
            }
        }
    }

    /// Inserts chunks of a series that were read from Redis into memory; returns those that may be used.
    pub(in crate::cache) fn insert_from_redis(
        &self,
        series: &Series,
        state: &SharedSeriesState,
        found: Vec<Chunk>,
        now: Timestamp,
    ) -> Vec<Arc<Chunk>> {
        let (sane, future): (Vec<_>, Vec<_>) = found.into_iter().partition(|chunk| is_sane(chunk.fetched_at(), now));
        if let Some(redis) = self.redis.as_ref().filter(|_| !future.is_empty()) {
            redis.delete(series, &future);
        }
        let sane: Vec<_> = sane.into_iter().map(Arc::new).collect();
        let mut found: Vec<_> = self.join_gaps(series, &sane).into_iter().map(|joined| joined.chunk).collect();
        let series = Arc::new(series.clone());
        found.retain(|chunk| {
            let mut state = state.lock();
            // Under the lock: the chunk may have been purged since it was read.
            if self.purges.is_purged(&series, chunk) {
                return false;
            }
            let entry = CacheEntry::insert(chunk, &self.memory);
            let id = entry.id;
            if !state.insert(series.agentic, entry, &self.memory) {
                self.memory.remove(id);
            } else if let Some(disk) = &self.disk {
                disk.queue_write(&series, chunk, id);
            }
            true
        });
        found
    }

    /// The part of a chunk of a series that is fresh enough for a request that accepts data fetched since `fresh_since`,
    /// and earlier data by its `demand`.
    pub(in crate::cache) fn fresh_part(
        &self,
        series: &Series,
        interval: Interval,
        fetched_at: Timestamp,
        (fresh_since, demand): (Timestamp, FreshnessDemand),
        now: Timestamp,
    ) -> IntervalSet {
        let mut fresh = IntervalSet::from(interval);
        if fetched_at < fresh_since {
            let settings = self.settings.of(series);
            let freshness = RequestFreshness::new(&settings.freshness_policy, demand);
            freshness.stale(interval, fetched_at, now).for_each(|stale| fresh.remove(stale));
        }
        fresh
    }
}

/// The intervals of the pending batch that were not looked up yet, which are marked as looked up; `None` if there are
/// none.
fn take_unchecked(shared: &SharedSeriesState) -> Option<ByAgentic<IntervalSet>> {
    let mut unchecked = ByAgentic::<IntervalSet>::default();
    let mut state = shared.lock();
    for request in state.pending.as_mut()?.requests.iter_mut().filter(|request| !request.redis_checked) {
        request.redis_checked = true;
        let intervals = unchecked.get_mut(request.agentic);
        request.intervals.intervals().iter().for_each(|interval| intervals.insert(*interval));
    }
    let is_empty = unchecked.non_agentic.is_empty() && unchecked.agentic.is_empty();
    (!is_empty).then_some(unchecked)
}

/// Whether a chunk was not fetched in the future. One that was comes from a replica whose clock is wrong, and which may
/// have taken for settled what was not.
pub(in crate::cache) fn is_sane(fetched_at: Timestamp, now: Timestamp) -> bool {
    fetched_at <= now + SKEW
}
