//! Reads what the tiers below memory have of a window: chunks on disk, whose places the entries tell; and for a long window
//! in Redis, first the names of its chunks, then the chunks, piece by piece.

use std::sync::Arc;

use super::session::Session;
use crate::cache::chunk::Chunk;
use crate::cache::disk::{DiskHit, DiskTier};
use crate::cache::error::CacheError;
use crate::cache::fetch::{Fetcher, is_sane};
use crate::cache::redis::{READ_BYTES, RedisTier};
use crate::cache::series::TierHit;
use crate::request::{Filter, Series};
use crate::traces::{Span, SpanKind};
use crate::window::{FreshnessDemand, Interval, IntervalSet, Timestamp};

/// The first of the ascending hits, up to about [`READ_BYTES`] of chunks, that follow each other from the beginning of
/// `missing` on.
pub(super) fn first_piece(hits: Vec<(Interval, DiskHit)>, missing: &IntervalSet) -> Vec<(Interval, DiskHit)> {
    let (mut bytes, mut end) = (0, None);
    let is_next = |(interval, hit): &(Interval, DiskHit)| {
        let start = end.map_or_else(|| missing.intervals().first().map(|missing| missing.start), Some);
        let is_included = start == Some(interval.start) && bytes < READ_BYTES;
        end = Some(interval.end);
        bytes += hit.slot.len as usize;
        is_included
    };
    hits.into_iter().take_while(is_next).collect()
}

impl Session {
    /// Reads a piece and keeps it until it is sent. What cannot be read is missing from then on.
    pub(super) async fn read_disk(&mut self, piece: &[(Interval, DiskHit)]) {
        let Some(disk) = self.fetcher.disk.clone() else { return };
        for is_unfiltered in [false, true] {
            for agentic in [false, true] {
                let is_own =
                    |(_, hit): &&(Interval, DiskHit)| (hit.is_unfiltered, hit.agentic) == (is_unfiltered, agentic);
                let own: Vec<_> = piece.iter().filter(is_own).copied().collect();
                if own.is_empty() {
                    continue;
                }
                let filter = if is_unfiltered { Filter::None } else { self.query.series.filter.clone() };
                let series = Arc::new(Series { filter, agentic, ..Series::clone(&self.query.series) });
                let hits: Vec<_> = own.iter().map(|(_, hit)| *hit).collect();
                let chunks = read_into_memory(&self.fetcher, &disk, &series, &hits).await;
                for ((interval, _), chunk) in own.into_iter().zip(chunks) {
                    if let Some(chunk) = chunk {
                        self.gathered.add_from_tier(TierHit { interval, chunk, agentic, is_unfiltered });
                    }
                }
            }
        }
        // Each piece is read or found missing, so this cannot go on for ever.
        self.progress.count_event();
    }

    /// Asks Redis for the names of the chunks that it has of `intervals`.
    pub(super) async fn list_redis(&mut self, intervals: &IntervalSet) {
        let Some(tier) = self.fetcher.redis.clone() else { return };
        let (mut there, mut left) = (Vec::new(), intervals.clone());
        if tier.is_usable(&self.query.series).await {
            for (series, _) in self.sources() {
                let now = self.fetcher.clock.now();
                for (interval, fetched_at) in tier.list(&series, &left).await {
                    if is_sane(fetched_at, now) {
                        let fresh = self.fetcher.fresh_part(&series, interval, fetched_at, self.accepted(), now);
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
                let (interval, fetched_at) = (chunk.interval(), chunk.fetched_at());
                let fresh = self.fetcher.fresh_part(&series, interval, fetched_at, self.accepted(), now);
                for interval in fresh.intervals().iter().flat_map(|interval| piece.within(*interval)) {
                    left.remove(interval);
                    let (chunk, agentic) = (chunk.clone(), series.agentic);
                    self.gathered.add_from_tier(TierHit { interval, chunk, agentic, is_unfiltered });
                }
            }
            if left.is_empty() {
                break;
            }
        }
        Some(bytes)
    }

    /// Since when fetched data is accepted, and the demand on earlier data.
    fn accepted(&self) -> (Timestamp, FreshnessDemand) {
        (self.query.asked_at, self.demand())
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

/// Reads chunks of a series into memory. `None` for those that cannot be read, whose entries forget the disk, and for
/// those that were purged meanwhile.
pub(super) async fn read_into_memory(
    fetcher: &Arc<Fetcher>,
    disk: &DiskTier,
    series: &Arc<Series>,
    hits: &[DiskHit],
) -> Vec<Option<Arc<Chunk>>> {
    let span = Span::current().child(SpanKind::Internal, "disk read");
    span.set("koregate.chunks", hits.len());
    let mut chunks = disk.read(series, hits).await;
    drop(span);
    let Some(state) = fetcher.series_map.find(series) else { return vec![None; hits.len()] };
    let mut state = state.lock();
    for (hit, chunk) in hits.iter().zip(&mut chunks) {
        // Under the lock: the chunk may have been purged since it was read.
        chunk.take_if(|chunk| fetcher.purges.is_purged(series, chunk));
        match chunk {
            Some(chunk) => {
                if state.entries.attach(series.agentic, hit.slot, chunk, &fetcher.memory) {
                    fetcher.count_insert();
                }
            }
            None => state.entries.detach(series.agentic, hit.facts.interval, hit.slot),
        }
    }
    chunks
}
