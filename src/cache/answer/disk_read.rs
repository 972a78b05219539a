//! Reads chunks from disk, piece by piece where a window is long, into memory and for the request that waits for them.

use std::sync::Arc;

use super::session::Session;
use crate::cache::chunk::Chunk;
use crate::cache::disk::{DiskHit, DiskTier};
use crate::cache::fetch::Fetcher;
use crate::cache::redis::READ_BYTES;
use crate::cache::series::TierHit;
use crate::request::{Filter, Series};
use crate::window::{Interval, IntervalSet};

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
}

/// Reads chunks of a series into memory. `None` for those that cannot be read, whose entries forget the disk, and for
/// those that were purged meanwhile.
pub(super) async fn read_into_memory(
    fetcher: &Fetcher,
    disk: &DiskTier,
    series: &Arc<Series>,
    hits: &[DiskHit],
) -> Vec<Option<Arc<Chunk>>> {
    let mut chunks = disk.read(series, hits).await;
    let Some(state) = fetcher.series_map.find(series) else { return vec![None; hits.len()] };
    let mut state = state.lock();
    for (hit, chunk) in hits.iter().zip(&mut chunks) {
        // Under the lock: the chunk may have been purged since it was read.
        chunk.take_if(|chunk| fetcher.purges.is_purged(series, chunk));
        match chunk {
            Some(chunk) => {
                state.entries.attach(series.agentic, hit.slot, chunk, &fetcher.memory);
            }
            None => state.entries.detach(series.agentic, hit.facts.interval, hit.slot),
        }
    }
    chunks
}
