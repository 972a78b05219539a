//! What is sent again and again, in the form in which it is sent.

use std::ops::Range;

use bytes::Bytes;

use super::memory::{ChunkId, HotBlockCache};

/// Where a chunk's hot pieces lie: copies of what lies deflated in the chunk itself, or follows from it. They may go at
/// any time.
#[derive(Clone, Debug)]
pub(in crate::cache) struct HotBlocks {
    chunk: ChunkId,
    pieces: HotBlockCache,
}

/// The name of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cache) struct HotBlockId {
    chunk: ChunkId,
    block: u32,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// The text of a whole block.
    Text,
    /// The text of some rows of it but for its first bytes, deflated anew: an answer begins or ends there.
    Edge { rows: (u32, u32), skip: u8 },
}

impl HotBlockId {
    /// Of the text of a whole block.
    pub(in crate::cache) fn text(chunk: ChunkId, block: usize) -> Self {
        Self { chunk, block: short(block), form: Form::Text }
    }
}

impl HotBlocks {
    pub(in crate::cache) fn new(chunk: ChunkId, pieces: HotBlockCache) -> Self {
        Self { chunk, pieces }
    }

    fn id(&self, block: usize, form: Form) -> HotBlockId {
        HotBlockId { chunk: self.chunk, block: short(block), form }
    }

    /// The text of a block.
    pub(in crate::cache) fn text(&self, block: usize) -> Option<Bytes> {
        self.pieces.get(&self.id(block, Form::Text))
    }

    /// Keeps the text of a block.
    pub(in crate::cache) fn keep_text(&self, block: usize, text: Bytes) {
        self.pieces.keep(self.id(block, Form::Text), text);
    }

    /// The text of `rows` without its first `skip` bytes, deflated.
    pub(in crate::cache) fn edge(&self, block: usize, rows: &Range<usize>, skip: usize) -> Option<Bytes> {
        self.pieces.get(&self.id(block, edge(rows, skip)))
    }

    /// Keeps it.
    pub(in crate::cache) fn keep_edge(&self, block: usize, rows: &Range<usize>, skip: usize, piece: Bytes) {
        self.pieces.keep(self.id(block, edge(rows, skip)), piece);
    }
}

fn edge(rows: &Range<usize>, skip: usize) -> Form {
    Form::Edge { rows: (short(rows.start), short(rows.end)), skip: u8::from(skip > 0) }
}

/// Rows and blocks are counted in 32 bits wherever they are written down.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
