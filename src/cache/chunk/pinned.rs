//! Counts the bytes of chunks that memory has let go of and answers under way still hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the cache is small, answers may hold as much as this all the same, in bytes.
const LIMIT_LEAST: u64 = 32 << 20;

/// Counts the chunks of one cache. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub(in crate::cache) struct PinnedBytes(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// Bytes of all chunks that were ever kept and are still in use.
    alive: AtomicU64,
    /// Bytes of those among them that memory keeps.
    kept: AtomicU64,
    limit: u64,
}

/// A chunk that was kept, as long as anything holds it.
#[derive(Debug)]
pub(in crate::cache) struct LiveChunkGuard {
    counts: Arc<Counts>,
    bytes: u64,
}

impl PinnedBytes {
    /// Of a cache of so many bytes: answers may hold as much again.
    pub(in crate::cache) fn new(cache: u64) -> Self {
        let (alive, kept) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Counts { alive, kept, limit: cache.max(LIMIT_LEAST) }))
    }

    /// A chunk of so many bytes is kept from now on.
    pub(in crate::cache) fn keep(&self, bytes: usize) -> LiveChunkGuard {
        let bytes = bytes as u64;
        self.0.kept.fetch_add(bytes, Ordering::Relaxed);
        self.0.alive.fetch_add(bytes, Ordering::Relaxed);
        LiveChunkGuard { counts: self.0.clone(), bytes }
    }

    /// Memory has let go of a chunk of so many bytes.
    pub(in crate::cache) fn let_go(&self, bytes: usize) {
        self.0.kept.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that are held though memory has let go of them.
    pub(in crate::cache) fn bytes(&self) -> u64 {
        self.0.alive.load(Ordering::Relaxed).saturating_sub(self.0.kept.load(Ordering::Relaxed))
    }

    /// Whether they are so many that no more large answers may begin.
    pub(in crate::cache) fn is_full(&self) -> bool {
        self.bytes() >= self.0.limit
    }
}

impl Drop for LiveChunkGuard {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
