//! A chunk as it is kept: all items of a span, deflated, with an index that finds each without parsing.
//!
//! The text of a chunk is cut into blocks of whole items. In a block the items stand as they came, each behind a comma,
//! so a piece of a block is a piece of an answer's `data`. Each block is deflated (RFC 1951) by itself, and behind
//! almost each item its deflated bytes come to a byte boundary: so a page inflates no more than it touches, and one that
//! is wanted with gzip is put together from what was deflated when the chunk was made.

mod access_counter;
mod builder;
mod codec;
mod deflate_splice;
pub(super) mod json_strip;
mod page_range;
mod pinned;
mod reader;
#[cfg(test)]
mod tests;

pub use self::access_counter::AccessCounter;
pub use self::page_range::{ItemSlice, PageRange};
pub(in crate::cache) use self::pinned::PinnedBytes;

use std::convert::Infallible;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use self::builder::Packer;
pub use self::deflate_splice::DeflateSplice;
use self::pinned::LiveChunkGuard;
use super::store::HotBlocks;
use crate::paging::Item;
use crate::window::{Interval, Timestamp};

/// What a chunk costs besides its index and its blocks: itself, its entries in the tables, their slack.
const OVERHEAD: usize = 512;

/// All items of a span, in the order of the contract.
#[derive(Debug)]
pub struct Chunk {
    interval: Interval,
    fetched_at: Timestamp,
    /// The last purge of its account that was known when its run began.
    epoch: u64,
    rows: Box<[Row]>,
    blocks: Box<[Block]>,
    text: Text,
    /// The hashes of the items' names, one a row; only of a chunk that is not settled, whose items may still move.
    names: Box<[u64]>,
    /// Whether it is known to stand where all replicas find it.
    shared: AtomicBool,
    /// Where copies of its blocks lie that are wanted again and again; set when it is kept in memory.
    hot: OnceLock<HotBlocks>,
    /// Counts it as long as it is held; set when it is kept in memory.
    alive: OnceLock<LiveChunkGuard>,
}

/// One item of a chunk.
#[derive(Clone, Copy, Debug)]
struct Row {
    at: Timestamp,
    /// The hashes of the bytes of all items up to here, this one included, added up.
    sum: u64,
    /// Where it ends in the text of its block.
    end: u32,
    /// Where the deflated bytes of its block come to a byte boundary behind it; 0 if they do not.
    packed_end: u32,
    /// CRC-32 of the text of its block up to its end.
    crc: u32,
}

#[derive(Debug)]
struct Block {
    first_row: usize,
    /// Where it begins in [`Text`]; it ends where the next one begins.
    start: usize,
    text_len: usize,
    reads: AccessCounter,
}

/// What the blocks are made of, one after the other.
#[derive(Debug)]
enum Text {
    /// Each begins with the comma, in a stored block, and ends with an empty block that says that it is the last.
    Deflated(Bytes),
    /// Of a chunk that lives for one answer only.
    Plain(Bytes),
}

/// A block that does not inflate to what it was made from. Memory is not expected to rot; an answer that meets this is
/// broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chunk is damaged")]
pub struct Damaged;

/// Whether the items of a chunk may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// They may not.
    Yes,
    /// They may.
    No,
}

impl Chunk {
    /// A chunk of `items`, which are in order and lie in `interval`.
    pub fn new(interval: Interval, fetched_at: Timestamp, settled: Settled, items: &[Item]) -> Self {
        let filled = Packer::deflate::<Infallible>(interval, fetched_at, |packer| {
            for item in items {
                packer.push(item.at, &item.json);
            }
            Ok(())
        });
        let Ok(chunk) = filled;
        let names: Vec<u64> = match settled {
            Settled::Yes => Vec::new(),
            Settled::No => items.iter().map(|item| xxh3_64(&item.id)).collect(),
        };
        Self { names: names.into(), ..chunk }
    }

    /// A chunk for one answer: what `change` makes of each item of this one, `None` leaving it out. It is not deflated.
    ///
    /// # Errors
    /// [`Damaged`] if a block does not inflate.
    pub fn derive<F>(&self, mut change: F) -> Result<Self, Damaged>
    where
        F: FnMut(Bytes) -> Option<Bytes>,
    {
        let mut derived = Packer::plain();
        let mut names = Vec::new();
        for row in self.read(0..self.rows.len()) {
            let (row, json) = row?;
            if let Some(json) = change(json) {
                derived.push(self.rows[row].at, &json);
                names.extend(self.names.get(row));
            }
        }
        Ok(Self { names: names.into(), epoch: self.epoch, ..derived.left_as_it_is(self.interval, self.fetched_at) })
    }

    /// The same, of a run that began when the last purge of its account that was known had this epoch. Without it, the
    /// epoch is 0: any purge is later.
    #[must_use]
    pub fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// See [`Chunk::with_epoch`].
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The same as one that lives longer: all its text is deflated.
    ///
    /// # Errors
    /// [`Damaged`] if a block does not inflate.
    pub fn packed(&self) -> Result<Self, Damaged> {
        let packed = Packer::deflate(self.interval, self.fetched_at, |packer| {
            self.read(0..self.rows.len()).try_for_each(|row| {
                let (row, json) = row?;
                packer.push(self.rows[row].at, &json);
                Ok(())
            })
        })?;
        Ok(Self { names: self.names.clone(), epoch: self.epoch, ..packed })
    }

    /// Whether it is known to have been written where all replicas find it. It may have been evicted there since.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// It has been written, or read, where all replicas find it.
    pub fn set_shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// From now on, what is read of it again and again is kept there.
    pub(super) fn attach_block_cache(&self, hot: HotBlocks) {
        // It may lie in memory twice; either will do.
        let _ = self.hot.set(hot);
    }

    /// From now on, it is counted until it is dropped.
    pub(super) fn attach_guard(&self, alive: LiveChunkGuard) {
        // One that lies in memory twice is held once.
        let _ = self.alive.set(alive);
    }

    /// Of which time.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// When the fetch that brought it began.
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// The bytes of memory that it takes, index included.
    pub fn weight(&self) -> usize {
        let index = size_of_val(&*self.rows) + size_of_val(&*self.names) + size_of_val(&*self.blocks);
        OVERHEAD + index + self.text.bytes().len()
    }

    /// Hashes of the names of those items of `rows` that may still move.
    pub fn id_hashes(&self, rows: Range<usize>) -> &[u64] {
        self.names.get(rows).unwrap_or_default()
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many blocks its text is cut into.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it holds no item.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose items lie in `interval`.
    pub fn rows_within(&self, interval: Interval) -> Range<usize> {
        let start = self.rows.partition_point(|row| row.at < interval.start);
        let end = self.rows.partition_point(|row| row.at < interval.end);
        start..end.max(start)
    }

    /// A number that depends on the items of `rows` and nothing else, and adds up over chunks however they are cut.
    pub fn sum(&self, rows: Range<usize>) -> u64 {
        let up_to = |end: usize| end.checked_sub(1).map_or(0, |last| self.rows[last].sum);
        if rows.is_empty() { 0 } else { up_to(rows.end).wrapping_sub(up_to(rows.start)) }
    }

    /// The length of the items of `rows` in bytes, without anything between them.
    pub fn text_len(&self, rows: Range<usize>) -> u64 {
        let with_commas = |(block, rows): (usize, Range<usize>)| self.text_range(block, &rows).len() - rows.len();
        self.blocks_of(rows).map(|run| with_commas(run) as u64).sum()
    }

    /// The blocks that `rows` touch, each with those of the rows that lie in it.
    fn blocks_of(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let first = self.blocks.partition_point(|block| block.first_row <= rows.start).saturating_sub(1);
        (first..self.blocks.len()).map_while(move |block| {
            let within = self.blocks[block].first_row.max(rows.start)..self.rows_end(block).min(rows.end);
            (!within.is_empty()).then_some((block, within))
        })
    }

    /// The row behind the last one of a block.
    fn rows_end(&self, block: usize) -> usize {
        self.blocks.get(block + 1).map_or(self.rows.len(), |next| next.first_row)
    }

    /// Where `rows`, which are some, lie in the text of their block, with the comma before the first.
    fn text_range(&self, block: usize, rows: &Range<usize>) -> Range<usize> {
        self.text_start(block, rows.start)..self.rows[rows.end - 1].end as usize
    }

    fn text_start(&self, block: usize, row: usize) -> usize {
        if row == self.blocks[block].first_row { 0 } else { self.rows[row - 1].end as usize }
    }

    /// Where a block lies in what all are made of.
    fn bytes_of(&self, block: usize) -> Bytes {
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

/// A part of a chunk, for an answer.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The chunk.
    pub chunk: Arc<Chunk>,
    /// Which of its rows.
    pub rows: Range<usize>,
}
