//! How much memory chunks, hot blocks and the response cache take: each is bounded in bytes. The only file that names
//! moka.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::hot_blocks::{HotBlockId, HotBlocks};
use crate::cache::chunk::{Chunk, PinnedBytes};
use crate::window::Timestamp;

/// Divisor of `cache.memory` that gives the share of hot blocks.
const HOT_BLOCKS_DIVISOR: u64 = 16;
/// Divisor of `cache.memory` that gives the share of the response cache.
const ANSWERS_DIVISOR: u64 = 16;
/// Divisor of `cache.memory` that gives the share of pages of fetches in flight, and of holes in the heap.
const FETCHES_DIVISOR: u64 = 8;
/// The least bytes for fetches in flight, but at most half of the cache: a page is as large where the cache is small.
const MIN_FETCHES_BYTES: u64 = 8 << 20;
/// How long a hot block is cached after its last use.
const HOT_BLOCK_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer is repeated before its chunks are used, and so moved to the front of the LRU, again.
const ANSWER_LIFETIME: Duration = Duration::from_secs(30);
/// Bytes of chunks below which an answer may begin however much other answers hold.
const LARGE_ANSWER_BYTES: usize = 1 << 20;
/// Bytes that a cached block or answer takes besides its content.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Key of a chunk in memory; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(u64);

impl ChunkId {
    /// The key of no chunk.
    pub(in crate::cache) const NONE: Self = Self(u64::MAX);
}

/// Chunks up to a weight in bytes; the least recently used one is evicted first. Cheap to clone; clones share their
/// state.
#[derive(Clone, Debug)]
pub struct Memory {
    chunks: Cache<ChunkId, Arc<Chunk>>,
    hot_blocks: HotBlockCache,
    pinned: PinnedBytes,
    next_id: Arc<AtomicU64>,
    /// When the latest of the chunks was fetched, in nanoseconds since the epoch.
    latest_fetch: Arc<AtomicI64>,
    read_ahead: Arc<ReadAhead>,
}

/// Bytes that are reserved for what is fetched ahead of streamed answers: a part of the room for fetches in flight.
#[derive(Debug)]
struct ReadAhead {
    limit: u64,
    reserved: AtomicU64,
}

/// Reservation of bytes for a fetch ahead of a streamed answer; released when dropped.
#[derive(Debug)]
pub(in crate::cache) struct ReadAheadPermit {
    read_ahead: Arc<ReadAhead>,
    bytes: u64,
}

impl Drop for ReadAheadPermit {
    fn drop(&mut self) {
        self.read_ahead.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Hot blocks of all chunks. They are evicted when they are not used, and with their chunk.
#[derive(Clone, Debug)]
pub(in crate::cache) struct HotBlockCache(Cache<HotBlockId, Bytes>);

impl HotBlockCache {
    fn new(capacity: u64) -> Self {
        let weight = |block: &Bytes| u32::try_from(block.len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let blocks = Cache::builder().max_capacity(capacity).weigher(move |_, block: &Bytes| weight(block));
        // moka's default policy (TinyLFU) keeps what is used often: a client that reads a year does not evict it.
        Self(blocks.time_to_idle(HOT_BLOCK_IDLE_TIMEOUT).build())
    }

    pub(in crate::cache) fn get(&self, id: &HotBlockId) -> Option<Bytes> {
        self.0.get(id)
    }

    pub(in crate::cache) fn insert(&self, id: HotBlockId, block: Bytes) {
        self.0.insert(id, block);
    }

    fn remove_texts(&self, chunk: ChunkId, blocks: usize) {
        for block in 0..blocks {
            self.0.invalidate(&HotBlockId::text(chunk, block));
        }
    }
}

/// A hasher for keys of type `u64` that are hashes already.
#[derive(Default)]
struct SameHash(u64);

impl Hasher for SameHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    // Not called for a `u64`.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

/// The response cache's answers, by a hash of the request. Cheap to clone; clones share their state.
#[derive(Clone, Debug)]
pub struct AnswerStore<T: Clone + Send + Sync + 'static>(Cache<u64, (T, u32), BuildHasherDefault<SameHash>>);

impl<T: Clone + Send + Sync + 'static> AnswerStore<T> {
    /// A store beside a cache of so many bytes.
    pub fn new(cache_bytes: u64) -> Self {
        let answers = Cache::builder().max_capacity(cache_bytes / ANSWERS_DIVISOR).weigher(|_, (_, weight)| *weight);
        Self(answers.time_to_live(ANSWER_LIFETIME).build_with_hasher(BuildHasherDefault::default()))
    }

    /// The answer with this hash.
    pub fn get(&self, hash: u64) -> Option<T> {
        self.0.get(&hash).map(|(answer, _)| answer)
    }

    /// Whether an answer of so many bytes would evict a large part of the others.
    pub fn is_too_large(&self, bytes: u64) -> bool {
        bytes > self.0.policy().max_capacity().unwrap_or_default() / 4
    }

    /// Inserts an answer of so many bytes.
    pub fn insert(&self, hash: u64, bytes: usize, answer: T) {
        self.0.insert(hash, (answer, u32::try_from(bytes + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)));
    }

    /// Removes an answer.
    pub fn remove(&self, hash: u64) {
        self.0.invalidate(&hash);
    }

    /// Bytes of all answers.
    pub fn bytes(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }
}

impl Memory {
    /// A memory tier of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let hot_blocks = HotBlockCache::new(bytes / HOT_BLOCKS_DIVISOR);
        let pinned = PinnedBytes::new(bytes);
        let (blocks_of_evicted, pinned_on_evict) = (hot_blocks.clone(), pinned.clone());
        let fetches = (bytes / FETCHES_DIVISOR).max(MIN_FETCHES_BYTES.min(bytes / 2));
        let chunks = Cache::builder()
            .max_capacity(bytes - bytes / HOT_BLOCKS_DIVISOR - bytes / ANSWERS_DIVISOR - fetches)
            .weigher(|_, chunk: &Arc<Chunk>| u32::try_from(chunk.weight()).unwrap_or(u32::MAX))
            // moka's default policy would refuse newcomers in favour of what was used often. Every chunk is a newcomer
            // under an id of its own, and has just been paid for.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |id: Arc<ChunkId>, chunk, _| {
                pinned_on_evict.on_evict(chunk.weight());
                blocks_of_evicted.remove_texts(*id, chunk.block_count());
            })
            .build();
        let read_ahead = Arc::new(ReadAhead { limit: fetches / 2, reserved: AtomicU64::new(0) });
        let latest_fetch = Arc::new(AtomicI64::new(i64::MIN));
        Self { chunks, hot_blocks, pinned, next_id: Arc::default(), latest_fetch, read_ahead }
    }

    /// The most bytes of chunks.
    pub(in crate::cache) fn capacity(&self) -> u64 {
        self.chunks.policy().max_capacity().unwrap_or_default()
    }

    /// Reserves bytes for a fetch ahead of a streamed answer; `None` if too few are left.
    pub(in crate::cache) fn reserve_ahead(&self, bytes: u64) -> Option<ReadAheadPermit> {
        let fits = |reserved: u64| Some(reserved + bytes).filter(|reserved| *reserved <= self.read_ahead.limit);
        self.read_ahead.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(ReadAheadPermit { read_ahead: self.read_ahead.clone(), bytes })
    }

    /// Inserts a chunk; returns its key.
    pub fn insert(&self, chunk: Arc<Chunk>) -> ChunkId {
        let id = ChunkId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.latest_fetch.fetch_max(chunk.fetched_at().as_nanos(), Ordering::Relaxed);
        chunk.attach_block_cache(Box::new(HotBlocks::new(id, self.hot_blocks.clone())));
        chunk.attach_guard(self.pinned.on_insert(chunk.weight()));
        self.chunks.insert(id, chunk);
        id
    }

    /// The chunk, unless it was evicted; counts as a use.
    pub fn get(&self, id: ChunkId) -> Option<Arc<Chunk>> {
        self.chunks.get(&id)
    }

    /// Whether the chunk is in memory; does not count as a use.
    pub fn contains(&self, id: ChunkId) -> bool {
        self.chunks.contains_key(&id)
    }

    /// Removes a chunk.
    pub fn remove(&self, id: ChunkId) {
        self.chunks.invalidate(&id);
    }

    /// Whether a chunk that was inserted since the last such answer was fetched after `timestamp`.
    pub(in crate::cache) fn take_fetched_after(&self, timestamp: Timestamp) -> bool {
        let is_later = self.latest_fetch.load(Ordering::Relaxed) > timestamp.as_nanos();
        if is_later {
            self.latest_fetch.store(timestamp.as_nanos(), Ordering::Relaxed);
        }
        is_later
    }

    /// Whether an answer may begin: not if it is streamed or large, and answers in progress hold too much already.
    /// `chunk_bytes` gives the weight of its chunks.
    pub(in crate::cache) fn admits_answer(&self, is_streamed: bool, chunk_bytes: impl FnOnce() -> usize) -> bool {
        !(self.pinned.is_full() && (is_streamed || chunk_bytes() >= LARGE_ANSWER_BYTES))
    }

    /// Bytes of chunks that were evicted and that answers in progress still hold.
    pub fn pinned_bytes(&self) -> u64 {
        self.chunks.run_pending_tasks();
        self.pinned.bytes()
    }

    /// Bytes of chunks in memory.
    pub fn bytes(&self) -> u64 {
        self.chunks.run_pending_tasks();
        self.chunks.weighted_size()
    }

    /// Bytes of hot blocks.
    pub fn hot_bytes(&self) -> u64 {
        self.hot_blocks.0.run_pending_tasks();
        self.hot_blocks.0.weighted_size()
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::chunk::Settled;
    use crate::window::Interval;

    fn empty_chunk() -> Arc<Chunk> {
        Arc::new(Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &[]))
    }

    #[test]
    fn full_memory_evicts_old_chunks_and_admits_new_ones() {
        let memory = Memory::new(10_000);
        let ids: Vec<ChunkId> = (0..1000).map(|_| memory.insert(empty_chunk())).collect();
        assert!(memory.bytes() <= 10_000);
        assert!(memory.get(ids[999]).is_some());
        assert!(memory.get(ids[0]).is_none());
    }

    #[test]
    fn evicted_chunks_are_pinned_until_they_are_dropped() {
        let memory = Memory::new(10_000);
        let weight = empty_chunk().weight() as u64;
        let held: Vec<_> = (0..500).map(|_| empty_chunk()).collect();
        for chunk in &held {
            memory.insert(chunk.clone());
        }
        assert_eq!(memory.pinned_bytes() + memory.bytes(), 500 * weight);
        drop(held);
        for _ in 0..2000 {
            memory.insert(empty_chunk());
        }
        assert!(memory.pinned_bytes() < 300 * weight, "{} of {weight}", memory.pinned_bytes());
    }

    #[test]
    fn read_ahead_is_bounded_and_released_on_drop() {
        let memory = Memory::new(64 << 20);
        let permit = memory.reserve_ahead(4 << 20);
        assert!(permit.is_some() && memory.reserve_ahead(1).is_none());
        drop(permit);
        assert!(memory.reserve_ahead(1).is_some());
    }
}
