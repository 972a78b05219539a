//! Trait of the cache of hot blocks. Chunks use it; the store implements it.

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

/// Cache of what is derived from the blocks of one chunk. Entries may be evicted at any time.
pub(in crate::cache) trait BlockCache: Debug + Send + Sync {
    /// The inflated text of a block.
    fn text(&self, block: usize) -> Option<Bytes>;

    /// Caches the inflated text of a block.
    fn insert_text(&self, block: usize, text: Bytes);

    /// The text of `rows` of a block without its first `skip` bytes, deflated.
    fn edge(&self, block: usize, rows: &Range<usize>, skip: usize) -> Option<Bytes>;

    /// Caches what [`BlockCache::edge`] returns.
    fn insert_edge(&self, block: usize, rows: &Range<usize>, skip: usize, deflated: Bytes);
}
