//! Reading of a long window from Redis, piece by piece, by the names of the chunks that are there.

use std::sync::Arc;

use super::session::{Fetched, Session};
use crate::cache::CacheError;
use crate::cache::fetch::is_sane;
use crate::cache::redis::RedisTier;
use crate::request::{Filter, Series};
use crate::window::IntervalSet;

impl Session {
    /// Lists what Redis has of `intervals`.
    pub(in crate::cache) async fn list(&mut self, intervals: &IntervalSet) {
        let Some(tier) = self.fetcher.redis.clone() else { return };
        let (mut there, mut left) = (Vec::new(), intervals.clone());
        if tier.is_good(&self.series).await {
            for (series, _) in self.sources() {
                let now = self.fetcher.clock.now();
                for (interval, fetched_at) in tier.names(&series, &left).await {
                    if is_sane(fetched_at, now) {
                        let fresh = self.fetcher.fresh_part(interval, fetched_at, self.fresh_since, now);
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
        if let Some(listing) = &mut self.listing {
            listing.learn(intervals, there);
        }
    }

    /// Reads a listed part of the window.
    pub(in crate::cache) async fn read_piece(&mut self, piece: &IntervalSet) -> Result<(), CacheError> {
        let (fetcher, series) = (self.fetcher.clone(), self.series.clone());
        let (Some(tier), Some(mut listing)) = (&fetcher.redis, self.listing.take()) else { return Ok(()) };
        // The field of the account may be found wrong at any time.
        let (is_good, bytes) = tokio::join!(tier.is_good(&series), self.read(tier, piece));
        match bytes.filter(|_| is_good) {
            Some(bytes) => listing.read(piece, bytes),
            None => listing.fail(&fetcher.settings.grid),
        }
        self.listing = Some(listing);
        // Each piece is read, or given up, once.
        self.history.progress += 1;
        self.check_field().await
    }

    /// Reads a piece from Redis, and holds it until it is sent, as memory may be too small for it. Returns the bytes of
    /// chunks that were read; `None` if Redis does not answer.
    async fn read(&mut self, tier: &RedisTier, piece: &IntervalSet) -> Option<usize> {
        let (mut left, mut bytes) = (piece.clone(), 0);
        for (series, is_unfiltered) in self.sources() {
            let found = tier.read(&series, &left).await?;
            let (now, state) = (self.fetcher.clock.now(), self.fetcher.series_map.get_or_insert(&series));
            let found = self.fetcher.insert_from_redis(&series, &state, found, now);
            self.fetcher.series_map.remove_if_idle(&series, &state);
            for chunk in found {
                bytes += chunk.weight();
                let fresh = self.fetcher.fresh_part(chunk.interval(), chunk.fetched_at(), self.fresh_since, now);
                for interval in fresh.intervals().iter().flat_map(|interval| piece.within(*interval)) {
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

    /// The series whose chunks serve the window, and whether the filter is still to be applied to them. Those that need no
    /// conversion come first.
    fn sources(&self) -> Vec<(Arc<Series>, bool)> {
        let of = |agentic, filter: &Filter| {
            Arc::new(Series { agentic, filter: filter.clone(), ..Series::clone(&self.series) })
        };
        let filters: &[(Filter, bool)] = match &self.series.filter {
            Filter::Known(_) => &[(self.series.filter.clone(), false), (Filter::None, true)],
            filter => &[(filter.clone(), false)],
        };
        let agentic: &[bool] = if self.series.agentic { &[true] } else { &[false, true] };
        let sources = filters.iter().flat_map(|(filter, is_unfiltered)| {
            agentic.iter().map(move |agentic| (of(*agentic, filter), *is_unfiltered))
        });
        sources.collect()
    }
}
