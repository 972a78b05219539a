//! The memory tier: chunks in moka, weighed in bytes. The one file that names moka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::chunk::Chunk;

/// The name of a chunk in memory; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(u64);

/// Chunks up to a weight in bytes; the one not used for longest goes first.
#[derive(Clone, Debug)]
pub struct Memory {
    chunks: Cache<ChunkId, Arc<Chunk>>,
    next: Arc<AtomicU64>,
}

impl Memory {
    /// Room for `bytes`.
    pub fn new(bytes: u64) -> Self {
        let chunks = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, chunk: &Arc<Chunk>| u32::try_from(chunk.weight()).unwrap_or(u32::MAX))
            // moka's default would keep what was used often before and turn newcomers away. Every chunk is a newcomer
            // once, under a name of its own, and it has just been paid for.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { chunks, next: Arc::default() }
    }

    /// Keeps a chunk, and names it.
    pub fn keep(&self, chunk: Arc<Chunk>) -> ChunkId {
        let id = ChunkId(self.next.fetch_add(1, Ordering::Relaxed));
        self.chunks.insert(id, chunk);
        id
    }

    /// The chunk, if it is still there; it counts as used.
    pub fn get(&self, id: ChunkId) -> Option<Arc<Chunk>> {
        self.chunks.get(&id)
    }

    /// Whether the chunk is still there; it does not count as used.
    pub fn holds(&self, id: ChunkId) -> bool {
        self.chunks.contains_key(&id)
    }

    /// Lets a chunk go.
    pub fn drop_chunk(&self, id: ChunkId) {
        self.chunks.invalidate(&id);
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.chunks.run_pending_tasks();
        self.chunks.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::chunk::Settled;
    use crate::window::{Moment, Span};

    #[test]
    fn the_weight_is_bounded_and_newcomers_are_let_in() {
        let memory = Memory::new(10_000);
        let chunk = || Arc::new(Chunk::new(Span::default(), Moment::from_nanos(0), Settled::Yes, &[]));
        let ids: Vec<ChunkId> = (0..1000).map(|_| memory.keep(chunk())).collect();
        assert!(memory.bytes() <= 10_000);
        assert!(memory.get(ids[999]).is_some());
        assert!(memory.get(ids[0]).is_none());
    }
}
