//! Hot blocks: what repeated requests read, inflated or in the form in which it is sent.

use std::ops::Range;

use bytes::Bytes;

use super::memory::{ChunkId, HotBlockCache};
use crate::cache::chunk::BlockCache;

/// The block cache of one chunk.
#[derive(Clone, Debug)]
pub(in crate::cache) struct HotBlocks {
    chunk: ChunkId,
    cache: HotBlockCache,
}

/// Key of a hot block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cache) struct HotBlockId {
    chunk: ChunkId,
    block: u32,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// The inflated text of a whole block.
    Text,
    /// Some rows of a block without their first `skip` bytes, deflated anew because an answer begins or ends there.
    Edge { rows: (u32, u32), skip: u8 },
}

impl HotBlockId {
    /// Key of the text of a whole block.
    pub(in crate::cache) fn text(chunk: ChunkId, block: usize) -> Self {
        Self { chunk, block: saturating_u32(block), form: Form::Text }
    }

    fn edge(chunk: ChunkId, block: usize, rows: &Range<usize>, skip: usize) -> Self {
        let rows = (saturating_u32(rows.start), saturating_u32(rows.end));
        Self { chunk, block: saturating_u32(block), form: Form::Edge { rows, skip: u8::from(skip > 0) } }
    }
}

impl HotBlocks {
    /// The blocks of `chunk` in `cache`.
    pub(in crate::cache) fn new(chunk: ChunkId, cache: HotBlockCache) -> Self {
        Self { chunk, cache }
    }
}

impl BlockCache for HotBlocks {
    fn text(&self, block: usize) -> Option<Bytes> {
        self.cache.get(&HotBlockId::text(self.chunk, block))
    }

    fn insert_text(&self, block: usize, text: Bytes) {
        self.cache.insert(HotBlockId::text(self.chunk, block), text);
    }

    fn edge(&self, block: usize, rows: &Range<usize>, skip: usize) -> Option<Bytes> {
        self.cache.get(&HotBlockId::edge(self.chunk, block, rows, skip))
    }

    fn insert_edge(&self, block: usize, rows: &Range<usize>, skip: usize, deflated: Bytes) {
        self.cache.insert(HotBlockId::edge(self.chunk, block, rows, skip), deflated);
    }
}

/// Rows and blocks are numbered with 32 bits wherever they are stored.
fn saturating_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
