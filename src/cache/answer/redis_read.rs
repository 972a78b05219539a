//! Reads a long window from Redis: first the names of its chunks, then the chunks, piece by piece.

use std::sync::Arc;

use super::session::Session;
use crate::cache::error::CacheError;
use crate::cache::fetch::is_sane;
use crate::cache::redis::RedisTier;
use crate::cache::series::RedisHit;
use crate::request::{Filter, Series};
use crate::window::IntervalSet;

impl Session {
    /// Asks Redis for the names of the chunks that it has of `intervals`.
    pub(super) async fn list_redis(&mut self, intervals: &IntervalSet) {
        let Some(tier) = self.fetcher.redis.clone() else { return };
        let (mut there, mut left) = (Vec::new(), intervals.clone());
        if tier.is_usable(&self.query.series).await {
            for (series, _) in self.sources() {
                let now = self.fetcher.clock.now();
                for (interval, fetched_at) in tier.list(&series, &left).await {
                    if is_sane(fetched_at, now) {
                        let fresh =
                            self.fetcher.fresh_part(&series, interval, fetched_at, self.gathered.fresh_since, now);
                        there.extend(fresh.intervals().iter().map(|interval| (*interval, fetched_at)));
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
        if let Some(listing) = &mut self.progress.listing {
            listing.add(intervals, there);
        }
    }

    /// Reads a piece that Redis has by name.
    ///
    /// # Errors
    /// If windows of the account are found not to be cut meanwhile.
    pub(super) async fn read_redis(&mut self, piece: &IntervalSet) -> Result<(), CacheError> {
        let (fetcher, series) = (self.fetcher.clone(), self.query.series.clone());
        let (Some(tier), Some(mut listing)) = (&fetcher.redis, self.progress.listing.take()) else { return Ok(()) };
        // The chunks of an account may be found to be cut wrongly at any time.
        let (is_good, bytes) = tokio::join!(tier.is_usable(&series), self.read_chunks(tier, piece));
        match bytes.filter(|_| is_good) {
            Some(bytes) => listing.record_read(piece, bytes),
            None => listing.record_failure(&fetcher.settings.grid),
        }
        self.progress.listing = Some(listing);
        // Each piece is read or given up once, so this cannot go on for ever.
        self.progress.count_event();
        self.check_window_field().await
    }

    /// Reads a piece and keeps it until it is sent. Its size in bytes; `None` if Redis does not answer.
    async fn read_chunks(&mut self, tier: &RedisTier, piece: &IntervalSet) -> Option<usize> {
        let (mut left, mut bytes) = (piece.clone(), 0);
        for (series, is_unfiltered) in self.sources() {
            let found = tier.read(&series, &left).await?;
            let (now, series_state) = (self.fetcher.clock.now(), self.fetcher.series_map.get_or_insert(&series));
            let found = self.fetcher.insert_from_redis(&series, &series_state, found, now);
            self.fetcher.series_map.remove_if_idle(&series, &series_state);
            for chunk in found {
                bytes += chunk.weight();
                let fresh_since = self.gathered.fresh_since;
                let fresh = self.fetcher.fresh_part(&series, chunk.interval(), chunk.fetched_at(), fresh_since, now);
                for interval in fresh.intervals().iter().flat_map(|interval| piece.within(*interval)) {
                    left.remove(interval);
                    let (chunk, agentic) = (chunk.clone(), series.agentic);
                    self.gathered.add_from_redis(RedisHit { interval, chunk, agentic, is_unfiltered });
                }
            }
            if left.is_empty() {
                break;
            }
        }
        Some(bytes)
    }

    /// The series whose chunks serve the window, those first whose items need no conversion; and whether the filter is
    /// still to be applied to them.
    fn sources(&self) -> Vec<(Arc<Series>, bool)> {
        let Series { filter, agentic, .. } = &*self.query.series;
        let with = |agentic, filter: &Filter| {
            Arc::new(Series { agentic, filter: filter.clone(), ..Series::clone(&self.query.series) })
        };
        let filters = match filter {
            Filter::Known(_) => vec![(filter.clone(), false), (Filter::None, true)],
            filter => vec![(filter.clone(), false)],
        };
        let agentic: &[bool] = if *agentic { &[true] } else { &[false, true] };
        let sources = filters.iter().flat_map(|(filter, is_unfiltered)| {
            agentic.iter().map(move |agentic| (with(*agentic, filter), *is_unfiltered))
        });
        sources.collect()
    }
}
