//! The bytes of a chunk in memory, and where its rows lie in them.
//!
//! The text of a chunk is cut into blocks of whole items. In a block the items stand as they came, each after a comma,
//! so a part of a block is a part of an answer's `data` array. Each block is deflated (RFC 1951) separately, and after
//! almost each item the deflated bytes come to a byte boundary. So a page inflates no more than it touches, and a gzip
//! answer is spliced from bytes that were deflated when the chunk was made.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::access_counter::AccessCounter;
use super::block_cache::BlockCache;
use super::pinned::LiveChunkGuard;
use crate::request::IdFilter;
use crate::window::{Interval, Timestamp};

/// Bytes that a chunk takes besides its index and its blocks: the struct, its entries in the caches, allocator slack.
pub(super) const OVERHEAD_BYTES: usize = 512;
/// The comma at the beginning of each deflated block, as a stored deflate block.
pub(super) const COMMA_BLOCK: [u8; 6] = [0, 1, 0, 0xfe, 0xff, b','];
/// The end of each deflated block: an empty deflate block that is marked as the last.
pub(super) const LAST_BLOCK: [u8; 2] = [3, 0];

/// All items of an interval, ordered by timestamp, then `segmentID`, then bytes.
#[derive(Debug)]
pub struct Chunk {
    pub(super) interval: Interval,
    pub(super) fetched_at: Timestamp,
    /// The last purge of the account that was known when the run began.
    pub(super) epoch: u64,
    pub(super) rows: Box<[Row]>,
    pub(super) blocks: Box<[Block]>,
    pub(super) text: Text,
    /// A hash of the `segmentID` of each row. Empty if the chunk is settled: its items cannot move to another chunk.
    pub(super) id_hashes: Box<[u64]>,
    /// The ids that the items may have, by which an erasure finds the chunk. Of a derived chunk, those of the chunk that
    /// it was derived from.
    pub(super) ids: IdFilter,
    /// Whether the chunk is known to be in Redis.
    pub(super) shared: AtomicBool,
    /// Cache of hot blocks; set when the chunk is inserted into memory.
    pub(super) block_cache: OnceLock<Box<dyn BlockCache>>,
    /// Counts the chunk's bytes as long as it is alive; set when the chunk is inserted into memory.
    pub(super) guard: OnceLock<LiveChunkGuard>,
}

/// Index entry of one item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) timestamp: Timestamp,
    /// Sum of the hashes of the bytes of all items up to this one, included.
    pub(super) sum: u64,
    /// Where the item ends in the text of its block.
    pub(super) end: u32,
    /// Where the deflated bytes of the block come to a byte boundary after the item; 0 if they do not.
    pub(super) deflated_end: u32,
    /// CRC-32 of the text of the block up to the end of the item.
    pub(super) crc: u32,
}

/// Index entry of one block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) first_row: usize,
    /// Where the block begins in [`Text`]; it ends where the next one begins.
    pub(super) start: usize,
    /// Bytes of inflated text.
    pub(super) text_len: usize,
    pub(super) reads: AccessCounter,
}

/// The bytes of all blocks, in order.
#[derive(Debug)]
pub(super) enum Text {
    /// Each block begins with [`COMMA_BLOCK`] and ends with [`LAST_BLOCK`].
    Deflated(Bytes),
    /// The text of a chunk that is derived for a single answer.
    Plain(Bytes),
}

/// A block does not inflate to what it was made from. Memory is not expected to rot; the answer is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chunk is damaged")]
pub struct Damaged;

/// Whether the items of a chunk may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Immutable.
    Yes,
    /// Items may still be added, change, or move to another chunk.
    No,
}

impl Chunk {
    /// The same chunk, of a run that began when the last known purge of the account had this epoch. Without it, the
    /// epoch is 0, and any purge is later.
    #[must_use]
    pub fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// See [`Chunk::with_epoch`].
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the chunk is known to have been written to Redis. Redis may have evicted it since.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Marks the chunk as written to, or read from, Redis.
    pub fn set_shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Caches hot blocks in `cache` from now on.
    pub(in crate::cache) fn attach_block_cache(&self, cache: Box<dyn BlockCache>) {
        // A chunk may be in memory under two ids; either cache will do.
        let _ = self.block_cache.set(cache);
    }

    /// Keeps `guard` until the chunk is dropped.
    pub(in crate::cache) fn attach_guard(&self, guard: LiveChunkGuard) {
        // A chunk that is in memory under two ids is alive once.
        let _ = self.guard.set(guard);
    }

    /// The interval whose items the chunk holds.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// When the fetch of the items began.
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// Bytes of memory that the chunk takes, index included.
    pub fn weight(&self) -> usize {
        let index = size_of_val(&*self.rows) + size_of_val(&*self.id_hashes) + size_of_val(&*self.blocks);
        OVERHEAD_BYTES + index + self.ids.weight() + self.text.bytes().len()
    }

    /// The ids that the items may have.
    pub fn ids(&self) -> &IdFilter {
        &self.ids
    }

    /// Hashes of the `segmentID`s of `rows`; empty if the chunk is settled.
    pub fn id_hashes(&self, rows: Range<usize>) -> &[u64] {
        self.id_hashes.get(rows).unwrap_or_default()
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of blocks.
    pub(in crate::cache) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Whether the chunk holds no item.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose timestamps lie in `interval`.
    pub fn rows_within(&self, interval: Interval) -> Range<usize> {
        let start = self.rows.partition_point(|row| row.timestamp < interval.start);
        let end = self.rows.partition_point(|row| row.timestamp < interval.end);
        start..end.max(start)
    }

    /// Sum of the hashes of the items of `rows`. Sums add up over chunks, however the chunks are cut.
    pub fn sum(&self, rows: Range<usize>) -> u64 {
        let up_to = |end: usize| end.checked_sub(1).map_or(0, |last| self.rows[last].sum);
        if rows.is_empty() { 0 } else { up_to(rows.end).wrapping_sub(up_to(rows.start)) }
    }

    /// Bytes of the items of `rows`, without separators.
    pub fn text_len(&self, rows: Range<usize>) -> u64 {
        let with_commas = |(block, rows): (usize, Range<usize>)| self.text_range(block, &rows).len() - rows.len();
        self.blocks_of(rows).map(|part| with_commas(part) as u64).sum()
    }

    /// The blocks that `rows` touch, each with its part of `rows`.
    pub(super) fn blocks_of(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let first = self.blocks.partition_point(|block| block.first_row <= rows.start).saturating_sub(1);
        (first..self.blocks.len()).map_while(move |block| {
            let within = self.blocks[block].first_row.max(rows.start)..self.rows_end(block).min(rows.end);
            (!within.is_empty()).then_some((block, within))
        })
    }

    /// The row after the last one of a block.
    pub(super) fn rows_end(&self, block: usize) -> usize {
        self.blocks.get(block + 1).map_or(self.rows.len(), |next| next.first_row)
    }

    /// Where `rows`, which are not empty, lie in the text of their block, with the comma before the first one.
    pub(super) fn text_range(&self, block: usize, rows: &Range<usize>) -> Range<usize> {
        self.text_start(block, rows.start)..self.rows[rows.end - 1].end as usize
    }

    /// Where a row begins in the text of its block, with the comma before it.
    pub(super) fn text_start(&self, block: usize, row: usize) -> usize {
        if row == self.blocks[block].first_row { 0 } else { self.rows[row - 1].end as usize }
    }

    /// The bytes of a block as they are stored in [`Text`].
    pub(super) fn block_bytes(&self, block: usize) -> Bytes {
        let text = self.text.bytes();
        let end = self.blocks.get(block + 1).map_or(text.len(), |next| next.start);
        text.slice(self.blocks[block].start..end)
    }
}

impl Text {
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Deflated(bytes) | Self::Plain(bytes) => bytes,
        }
    }
}
