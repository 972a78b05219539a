//! The memory tier: chunks in moka, weighed in bytes, and beside them what is hot. The one file that names moka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::hot_blocks::{HotBlockId, HotBlocks};
use crate::cache::chunk::Chunk;
use crate::cache::chunk::PinnedBytes;
use crate::cache::{CacheError, WindowAnswer};

/// Of so many bytes, one is for blocks that are hot,
const HOT_SHARE: u64 = 16;
/// one for whole answers that are,
const ANSWERS_SHARE: u64 = 16;
/// and one for the pages of fetches under way, and for the holes that chunks leave where they lay.
const PASSING_SHARE: u64 = 8;
/// A page is as large where the cache is small: so much at least is for them, but no more than half.
const PASSING_LEAST: u64 = 8 << 20;
/// What nobody has asked for for so long is not hot any more.
const HOT_FOR: Duration = Duration::from_secs(30);
/// For so long an answer is given again before its chunks count as used once more.
const RECALL_FOR: Duration = Duration::from_secs(30);
/// An answer of fewer bytes of chunks than this may begin however much other answers hold.
const LARGE_ANSWER: usize = 1 << 20;
/// What a hot piece costs besides its bytes.
const HOT_OVERHEAD: usize = 256;

/// The name of a chunk in memory; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(u64);

/// Chunks up to a weight in bytes; the one not used for longest goes first.
#[derive(Clone, Debug)]
pub struct Memory {
    chunks: Cache<ChunkId, Arc<Chunk>>,
    hot: HotBlockCache,
    pinned: PinnedBytes,
    next: Arc<AtomicU64>,
    /// The room for what is fetched ahead of those who stream.
    ahead: Arc<Ahead>,
}

/// Bytes that are held, or expected, ahead of those who stream. They are a part of the room for passing pages.
#[derive(Debug)]
struct Ahead {
    most: u64,
    held: AtomicU64,
}

/// Room that was set aside; free again when dropped.
#[derive(Debug)]
pub(in crate::cache) struct ReadAheadPermit {
    ahead: Arc<Ahead>,
    bytes: u64,
}

impl Drop for ReadAheadPermit {
    fn drop(&mut self) {
        self.ahead.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Copies of what lies deflated in the chunks, or follows from it. They go when they are not used, and with their chunk.
#[derive(Clone, Debug)]
pub(in crate::cache) struct HotBlockCache(Cache<HotBlockId, Bytes>);

impl HotBlockCache {
    fn new(bytes: u64) -> Self {
        let weight = |piece: &Bytes| u32::try_from(piece.len() + HOT_OVERHEAD).unwrap_or(u32::MAX);
        let pieces = Cache::builder().max_capacity(bytes).weigher(move |_, piece: &Bytes| weight(piece));
        // moka's default keeps what is used often, and one who takes a year does not push that out.
        Self(pieces.time_to_idle(HOT_FOR).build())
    }

    pub(in crate::cache) fn get(&self, id: &HotBlockId) -> Option<Bytes> {
        self.0.get(id)
    }

    pub(in crate::cache) fn keep(&self, id: HotBlockId, piece: Bytes) {
        self.0.insert(id, piece);
    }

    fn forget(&self, chunk: ChunkId, blocks: usize) {
        for block in 0..blocks {
            self.0.invalidate(&HotBlockId::text(chunk, block));
        }
    }
}

/// Whole answers that are given again and again, by a number. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct AnswerStore<T: Clone + Send + Sync + 'static>(Cache<u64, (T, u32)>);

impl<T: Clone + Send + Sync + 'static> AnswerStore<T> {
    /// The room for them in a cache of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let answers = Cache::builder().max_capacity(bytes / ANSWERS_SHARE).weigher(|_, (_, weight)| *weight);
        Self(answers.time_to_live(RECALL_FOR).build())
    }

    /// What goes by this number.
    pub fn get(&self, number: u64) -> Option<T> {
        self.0.get(&number).map(|(answer, _)| answer)
    }

    /// Whether an answer of so many bytes would push out most of the others.
    pub fn is_too_large(&self, bytes: u64) -> bool {
        bytes > self.0.policy().max_capacity().unwrap_or_default() / 4
    }

    /// Keeps an answer of so many bytes.
    pub fn keep(&self, number: u64, bytes: usize, answer: T) {
        self.0.insert(number, (answer, u32::try_from(bytes + HOT_OVERHEAD).unwrap_or(u32::MAX)));
    }

    /// Lets one go.
    pub fn forget(&self, number: u64) {
        self.0.invalidate(&number);
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }
}

impl Memory {
    /// Room for `bytes`.
    pub fn new(bytes: u64) -> Self {
        let hot = HotBlockCache::new(bytes / HOT_SHARE);
        let (hot_of, pinned) = (hot.clone(), PinnedBytes::new(bytes));
        let kept = pinned.clone();
        let passing = (bytes / PASSING_SHARE).max(PASSING_LEAST.min(bytes / 2));
        let chunks = Cache::builder()
            .max_capacity(bytes - bytes / HOT_SHARE - bytes / ANSWERS_SHARE - passing)
            .weigher(|_, chunk: &Arc<Chunk>| u32::try_from(chunk.weight()).unwrap_or(u32::MAX))
            // moka's default would keep what was used often before and turn newcomers away. Every chunk is a newcomer
            // once, under a name of its own, and it has just been paid for.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |id: Arc<ChunkId>, chunk, _| {
                kept.let_go(chunk.weight());
                hot_of.forget(*id, chunk.blocks());
            })
            .build();
        let ahead = Arc::new(Ahead { most: passing / 2, held: AtomicU64::new(0) });
        Self { chunks, hot, pinned, next: Arc::default(), ahead }
    }

    /// The most bytes of chunks that are kept.
    pub(in crate::cache) fn capacity(&self) -> u64 {
        self.chunks.policy().max_capacity().unwrap_or_default()
    }

    /// Sets room aside for so many bytes ahead of somebody who streams; `None` if there is none left.
    pub(in crate::cache) fn reserve_ahead(&self, bytes: u64) -> Option<ReadAheadPermit> {
        let fits = |held: u64| Some(held + bytes).filter(|held| *held <= self.ahead.most);
        self.ahead.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(ReadAheadPermit { ahead: self.ahead.clone(), bytes })
    }

    /// Keeps a chunk, and names it.
    pub fn keep(&self, chunk: Arc<Chunk>) -> ChunkId {
        let id = ChunkId(self.next.fetch_add(1, Ordering::Relaxed));
        chunk.attach_block_cache(HotBlocks::new(id, self.hot.clone()));
        chunk.attach_guard(self.pinned.keep(chunk.weight()));
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
    pub fn remove(&self, id: ChunkId) {
        self.chunks.invalidate(&id);
    }

    /// Lets an answer begin, unless it is large or streamed and others hold too much already.
    ///
    /// # Errors
    /// [`CacheError::PinnedMemoryFull`]
    pub(in crate::cache) fn admit_answer(&self, answer: WindowAnswer) -> Result<WindowAnswer, CacheError> {
        let bytes = || answer.items.slices.iter().map(|slice| slice.chunk.weight()).sum::<usize>();
        if self.pinned.is_full() && (answer.rest.is_some() || bytes() >= LARGE_ANSWER) {
            return Err(CacheError::PinnedMemoryFull);
        }
        Ok(answer)
    }

    /// Bytes of chunks that memory has let go of and answers under way still hold.
    pub fn pinned_bytes(&self) -> u64 {
        self.chunks.run_pending_tasks();
        self.pinned.bytes()
    }

    /// Bytes of chunks that are held.
    pub fn bytes(&self) -> u64 {
        self.chunks.run_pending_tasks();
        self.chunks.weighted_size()
    }

    /// Bytes of hot copies that are held.
    pub fn hot_bytes(&self) -> u64 {
        self.hot.0.run_pending_tasks();
        self.hot.0.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::chunk::Settled;
    use crate::window::{Interval, Timestamp};

    #[test]
    fn the_weight_is_bounded_and_newcomers_are_let_in() {
        let memory = Memory::new(10_000);
        let chunk = || Arc::new(Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &[]));
        let ids: Vec<ChunkId> = (0..1000).map(|_| memory.keep(chunk())).collect();
        assert!(memory.bytes() <= 10_000);
        assert!(memory.get(ids[999]).is_some());
        assert!(memory.get(ids[0]).is_none());
    }

    #[test]
    fn chunks_that_answers_hold_are_counted_until_they_are_dropped() {
        let memory = Memory::new(10_000);
        let chunk = || Arc::new(Chunk::new(Interval::default(), Timestamp::from_nanos(0), Settled::Yes, &[]));
        let weight = chunk().weight() as u64;
        let held: Vec<_> = (0..500).map(|_| chunk()).collect();
        for chunk in &held {
            memory.keep(chunk.clone());
        }
        assert_eq!(memory.pinned_bytes() + memory.bytes(), 500 * weight);
        drop(held);
        for _ in 0..2000 {
            memory.keep(chunk());
        }
        assert!(memory.pinned_bytes() < 300 * weight, "{} of {weight}", memory.pinned_bytes());
    }

    #[test]
    fn room_ahead_is_bounded_and_given_back() {
        let memory = Memory::new(64 << 20);
        let permit = memory.reserve_ahead(4 << 20);
        assert!(permit.is_some() && memory.reserve_ahead(1).is_none());
        drop(permit);
        assert!(memory.reserve_ahead(1).is_some());
    }
}
