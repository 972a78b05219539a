//! Chunks that one request has received from fetches, from disk and from Redis.

use std::sync::Arc;

use crate::cache::chunk::Chunk;
use crate::cache::series::{InFlightFetch, TierHit};
use crate::cache::store::ReadAheadPermit;
use crate::window::{Interval, IntervalMap, IntervalSet, PlanEntry, Timestamp};

/// A chunk that was fetched or read from a lower tier for this request. Memory may be too small to keep it until it is sent.
#[derive(Clone, Debug)]
pub(super) struct GatheredChunk {
    pub(super) chunk: Arc<Chunk>,
    pub(super) agentic: bool,
    /// Whether the filter of the series is still to be applied.
    pub(super) is_unfiltered: bool,
    /// Whether it was cached before the request.
    pub(super) is_cached: bool,
}

impl PlanEntry for GatheredChunk {
    fn fetched_at(&self) -> Timestamp {
        self.chunk.fetched_at()
    }
}

impl From<TierHit> for (Interval, GatheredChunk) {
    fn from(TierHit { interval, chunk, agentic, is_unfiltered }: TierHit) -> Self {
        (interval, GatheredChunk { chunk, agentic, is_unfiltered, is_cached: true })
    }
}

/// The chunks that a request has received, and the fetches that they come from.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) chunks: IntervalMap<GatheredChunk>,
    /// Memory that is reserved for chunks which were fetched ahead of a streamed answer.
    permits: Vec<(Interval, ReadAheadPermit)>,
    /// Finished fetches whose calls are not reported yet.
    fetches: Vec<Arc<InFlightFetch>>,
}

impl Gathered {
    /// Adds a chunk that was read from disk or Redis.
    pub(super) fn add_from_tier(&mut self, hit: TierHit) {
        let (interval, chunk) = hit.into();
        self.chunks.insert(interval, chunk);
    }

    /// Adds those parts of a fetched chunk that may serve the request.
    pub(super) fn add_chunk(&mut self, parts: &IntervalSet, chunk: &Arc<Chunk>, agentic: bool) {
        for interval in parts.intervals() {
            let chunk = chunk.clone();
            self.chunks.insert(*interval, GatheredChunk { chunk, agentic, is_unfiltered: false, is_cached: false });
        }
    }

    /// Adds a finished fetch of `interval`, whose chunks are added by [`Gathered::add_chunk`].
    pub(super) fn add_fetch(&mut self, fetch: Arc<InFlightFetch>, interval: Interval) {
        self.permits.extend(fetch.take_read_ahead().map(|permit| (interval, permit)));
        self.fetches.push(fetch);
    }

    /// Adds a finished fetch of which only the calls are reported.
    pub(super) fn add_calls(&mut self, fetch: Arc<InFlightFetch>) {
        self.fetches.push(fetch);
    }

    /// Drops what lies before `timestamp`, and the memory that was reserved for it.
    pub(super) fn discard_before(&mut self, window: Interval, timestamp: Timestamp) {
        self.chunks.remove(window.split_at(timestamp).0);
        self.permits.retain(|(interval, _)| interval.end > timestamp);
    }

    /// The weight of all chunks in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.within(Interval::EVER).map(|(_, gathered)| gathered.chunk.weight()).sum()
    }

    /// Whether no fetch has finished whose calls are still to be reported.
    pub(super) fn is_without_fetch(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Whether other answers have reported the calls of all fetches.
    pub(super) fn are_calls_charged(&self) -> bool {
        self.fetches.iter().all(|fetch| fetch.is_charged())
    }

    /// The calls of the fetches that no other answer has reported; from now on they count as reported.
    pub(super) fn charge(&self) -> u32 {
        self.fetches.iter().filter_map(|fetch| fetch.charge()).sum()
    }

    /// Forgets the fetches.
    pub(super) fn clear_fetches(&mut self) {
        self.fetches.clear();
    }
}
