//! Accounting of pinned bytes: chunks that memory has evicted and that answers still hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The least limit of pinned bytes, where the cache is smaller.
const MIN_LIMIT_BYTES: u64 = 32 << 20;

/// Bytes of the chunks of one cache that are alive, and that memory holds. Cheap to clone; clones share their state.
#[derive(Clone, Debug)]
pub(in crate::cache) struct PinnedBytes(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// Bytes of all chunks that were ever inserted and are still referenced.
    alive: AtomicU64,
    /// Bytes of the chunks that memory holds.
    in_memory: AtomicU64,
    limit: u64,
}

/// Guard that counts a chunk as alive until it is dropped.
#[derive(Debug)]
pub(in crate::cache) struct LiveChunkGuard {
    counts: Arc<Counts>,
    bytes: u64,
}

impl PinnedBytes {
    /// Counters for a cache of `capacity` bytes: answers may hold as much again.
    pub(in crate::cache) fn new(capacity: u64) -> Self {
        let (alive, in_memory) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Counts { alive, in_memory, limit: capacity.max(MIN_LIMIT_BYTES) }))
    }

    /// Counts a chunk that is inserted into memory.
    pub(in crate::cache) fn on_insert(&self, bytes: usize) -> LiveChunkGuard {
        let bytes = bytes as u64;
        self.0.in_memory.fetch_add(bytes, Ordering::Relaxed);
        self.0.alive.fetch_add(bytes, Ordering::Relaxed);
        LiveChunkGuard { counts: self.0.clone(), bytes }
    }

    /// Counts a chunk that memory has evicted.
    pub(in crate::cache) fn on_evict(&self, bytes: usize) {
        self.0.in_memory.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that are held though memory has evicted them.
    pub(in crate::cache) fn bytes(&self) -> u64 {
        self.0.alive.load(Ordering::Relaxed).saturating_sub(self.0.in_memory.load(Ordering::Relaxed))
    }

    /// Whether the limit is reached, so that no more large answers may begin.
    pub(in crate::cache) fn is_full(&self) -> bool {
        self.bytes() >= self.0.limit
    }
}

impl Drop for LiveChunkGuard {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
