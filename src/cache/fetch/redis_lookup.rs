//! What is about to be asked of the upstream is looked for in the second tier first: all at once, or, of a long window, by
//! name, and then piece by piece.

use std::sync::Arc;

use super::Fetcher;
use super::waiter::RedisHit;
use crate::cache::CacheError;
use crate::cache::answer::{Fetched, Session};
use crate::cache::chunk::Chunk;
use crate::cache::redis::RedisTier;
use crate::cache::series::SharedSeriesState;
use crate::cache::store::ByAgentic;
use crate::clock::SKEW;
use crate::request::{Filter, Series};
use crate::window::{Interval, IntervalSet, Timestamp};

impl Fetcher {
    /// Takes from the second tier what is there of what is being gathered. What comes to be wanted meanwhile is looked for
    /// too, so that nothing is asked of the upstream that has not been looked for.
    pub(in crate::cache) async fn look_in(&self, tier: &RedisTier, series: &Arc<Series>, of: &SharedSeriesState) {
        if !tier.is_usable(series).await {
            return;
        }
        loop {
            let mut wanted = ByAgentic::<IntervalSet>::default();
            {
                let mut shelf = of.lock();
                let Some(gathering) = &mut shelf.pending else { return };
                for want in gathering.requests.iter_mut().filter(|want| !want.redis_checked) {
                    want.redis_checked = true;
                    want.intervals.intervals().iter().for_each(|interval| wanted.of(want.agentic).insert(*interval));
                }
            }
            if wanted.plain.is_empty() && wanted.agentic.is_empty() {
                return;
            }
            // What is rich serves those who want none as well.
            wanted.plain.intervals().to_vec().into_iter().for_each(|interval| wanted.agentic.insert(interval));
            for (agentic, intervals) in [(true, &wanted.agentic), (false, &wanted.plain)] {
                if !intervals.is_empty() {
                    self.take_from(tier, &Series { agentic, ..Series::clone(series) }, intervals, of, of).await;
                    if let Filter::Known(_) = series.filter {
                        let unfiltered = Series { filter: Filter::None, agentic, ..Series::clone(series) };
                        let shelf = self.series_map.of(&unfiltered);
                        self.take_from(tier, &unfiltered, intervals, &shelf, of).await;
                        self.series_map.remove_if_idle(&unfiltered, &shelf);
                    }
                }
            }
        }
    }

    /// Puts what the second tier has of `intervals` onto `shelf`, and takes it out of what is wanted of `gathering_of`.
    async fn take_from(
        &self,
        tier: &RedisTier,
        series: &Series,
        intervals: &IntervalSet,
        shelf: &SharedSeriesState,
        gathering_of: &SharedSeriesState,
    ) {
        let found = tier.look_up(series, intervals).await;
        let now = self.clock.now();
        let found = self.keep_found(series, shelf, found, now);
        let is_unfiltered = !shelf.is_same(gathering_of);
        let mut shelf = gathering_of.lock();
        let Some(gathering) = &mut shelf.pending else { return };
        for want in gathering.requests.iter_mut().filter(|want| want.redis_checked && (series.agentic || !want.agentic))
        {
            for chunk in &found {
                let servable = self.servable(chunk.interval(), chunk.fetched_at(), want.fresh_since, now);
                let serves = servable
                    .intervals()
                    .iter()
                    .flat_map(|interval| want.intervals.within(*interval))
                    .collect::<Vec<_>>();
                for interval in serves {
                    want.intervals.remove(interval);
                    if let Some(seat) = want.waiter.upgrade() {
                        let (chunk, agentic) = (chunk.clone(), series.agentic);
                        seat.find(RedisHit { interval, chunk, agentic, is_unfiltered });
                    }
                }
            }
        }
    }
    /// Puts what was found of a series in the second tier onto its shelf, and leaves out what may not be used.
    pub(in crate::cache) fn keep_found(
        &self,
        series: &Series,
        shelf: &SharedSeriesState,
        found: Vec<Chunk>,
        now: Timestamp,
    ) -> Vec<Arc<Chunk>> {
        let (sane, future): (Vec<_>, Vec<_>) = found.into_iter().partition(|chunk| is_sane(chunk.fetched_at(), now));
        if let Some(tier) = self.redis.as_ref().filter(|_| !future.is_empty()) {
            tier.delete(series, &future);
        }
        let mut found: Vec<Arc<Chunk>> = sane.into_iter().map(Arc::new).collect();
        found.retain(|chunk| {
            let mut shelf = shelf.lock();
            // Under the lock: it may have been purged since it was read.
            if self.purges.is_purged(series, chunk) {
                return false;
            }
            let copy = self.insert_entry(chunk);
            let id = copy.id;
            if !shelf.put(series.agentic, copy, &self.memory) {
                self.memory.remove(id);
            }
            true
        });
        found
    }

    /// What of a chunk serves one for whom copies fetched since `fresh_since` are good enough.
    pub(in crate::cache) fn servable(
        &self,
        interval: Interval,
        fetched_at: Timestamp,
        fresh_since: Timestamp,
        now: Timestamp,
    ) -> IntervalSet {
        let mut servable = IntervalSet::from(interval);
        if fetched_at < fresh_since {
            self.freshness_policy.stale(interval, fetched_at, now).for_each(|due| servable.remove(due));
        }
        servable
    }
}

impl Session {
    /// Looks by name what the second tier has of `intervals`.
    pub(in crate::cache) async fn list(&mut self, intervals: &IntervalSet) {
        let Some(tier) = self.fetcher.redis.clone() else { return };
        let (mut there, mut left) = (Vec::new(), intervals.clone());
        if tier.is_usable(&self.series).await {
            for (series, _) in self.sources() {
                let now = self.fetcher.clock.now();
                for (interval, fetched_at) in tier.list(&series, &left).await {
                    if is_sane(fetched_at, now) {
                        let servable = self.fetcher.servable(interval, fetched_at, self.fresh_since, now);
                        there.extend(servable.intervals().iter().map(|interval| (*interval, fetched_at)));
                    }
                }
                for (interval, _) in &there {
                    left.remove(*interval);
                }
                if left.is_empty() {
                    break;
                }
            }
        }
        if let Some(listing) = &mut self.listing {
            listing.add(intervals, there);
        }
    }

    /// Reads a piece that the second tier has by name.
    pub(in crate::cache) async fn read_piece(&mut self, piece: &IntervalSet) -> Result<(), CacheError> {
        let (fetcher, series) = (self.fetcher.clone(), self.series.clone());
        let (Some(tier), Some(mut listing)) = (&fetcher.redis, self.listing.take()) else { return Ok(()) };
        // That its account's chunks were cut wrongly may be found out at any time.
        let (is_good, bytes) = tokio::join!(tier.is_usable(&series), self.read(tier, piece));
        match bytes.filter(|_| is_good) {
            Some(bytes) => listing.record_read(piece, bytes),
            None => listing.record_failure(&fetcher.grid),
        }
        self.listing = Some(listing);
        // Each piece is read or given up once.
        self.history.progress += 1;
        self.check_field().await
    }

    /// Reads a piece from the second tier, and keeps it until it is sent: memory may be too small for that. How many bytes
    /// it was; `None` if Redis does not say.
    async fn read(&mut self, tier: &RedisTier, piece: &IntervalSet) -> Option<usize> {
        let (mut left, mut bytes) = (piece.clone(), 0);
        for (series, is_unfiltered) in self.sources() {
            let found = tier.read(&series, &left).await?;
            let (now, shelf) = (self.fetcher.clock.now(), self.fetcher.series_map.of(&series));
            let found = self.fetcher.keep_found(&series, &shelf, found, now);
            self.fetcher.series_map.remove_if_idle(&series, &shelf);
            for chunk in found {
                bytes += chunk.weight();
                let servable = self.fetcher.servable(chunk.interval(), chunk.fetched_at(), self.fresh_since, now);
                for interval in servable.intervals().iter().flat_map(|interval| piece.within(*interval)) {
                    left.remove(interval);
                    let (chunk, agentic) = (chunk.clone(), series.agentic);
                    self.in_hand.insert(interval, Fetched { chunk, agentic, is_unfiltered, copy: true });
                }
            }
            if left.is_empty() {
                break;
            }
        }
        Some(bytes)
    }

    /// The series whose chunks serve the window, those first that need not be changed for it; and whether its filter is
    /// still to be applied.
    fn sources(&self) -> Vec<(Arc<Series>, bool)> {
        let of = |agentic, filter: &Filter| {
            Arc::new(Series { agentic, filter: filter.clone(), ..Series::clone(&self.series) })
        };
        let filters: &[(Filter, bool)] = match &self.series.filter {
            Filter::Known(_) => &[(self.series.filter.clone(), false), (Filter::None, true)],
            filter => &[(filter.clone(), false)],
        };
        let richness: &[bool] = if self.series.agentic { &[true] } else { &[false, true] };
        let sources = filters.iter().flat_map(|(filter, is_unfiltered)| {
            richness.iter().map(move |agentic| (of(*agentic, filter), *is_unfiltered))
        });
        sources.collect()
    }
}

/// What was fetched in the future was fetched by a replica whose clock is wrong, and that may have taken for settled what
/// was not.
pub(in crate::cache) fn is_sane(fetched_at: Timestamp, now: Timestamp) -> bool {
    fetched_at <= now + SKEW
}
