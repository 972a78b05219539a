//! Construction of chunks: items are appended to blocks, and blocks are deflated.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use xxhash_rust::xxh3::xxh3_64;

use super::access_counter::AccessCounter;
use super::layout::{Block, COMMA_BLOCK, Chunk, Damaged, LAST_BLOCK, Row, Settled, Text};
use crate::paging::Item;
use crate::request::IdFilter;
use crate::window::{Interval, Timestamp};

/// Bytes of text at which a block is closed: longer blocks deflate little better, and cost more to inflate.
const MAX_BLOCK_TEXT_BYTES: usize = 128 << 10;
/// Bytes of text after which the deflated bytes come to a byte boundary at the end of an item. Each boundary costs some
/// ten bytes, and the tables of a new deflate block.
const BOUNDARY_INTERVAL_BYTES: usize = 2 << 10;
/// Deflate level of chunks, which are deflated once and sent for as long as they are cached. Higher levels gain nothing
/// more.
const CHUNK_DEFLATE_LEVEL: u32 = 6;
/// Deflate level of what is deflated for a single answer while its client waits.
const ANSWER_DEFLATE_LEVEL: u32 = 1;

/// Builder of one chunk: appends items to blocks.
pub(super) struct ChunkBuilder<'a> {
    /// `None` leaves the text as it is.
    deflater: Option<&'a mut Deflater>,
    rows: Vec<Row>,
    blocks: Vec<Block>,
    buffers: Buffers,
}

/// Buffers that are reused for each chunk: the result is copied to an allocation of its exact size, and temporary data
/// leaves no holes between those allocations.
#[derive(Debug, Default)]
struct Buffers {
    /// The bytes of closed blocks.
    blocks: Vec<u8>,
    /// The text of the open block.
    text: Vec<u8>,
}

impl Chunk {
    /// A chunk of `items`, which are in order and lie in `interval`.
    pub fn new(interval: Interval, fetched_at: Timestamp, settled: Settled, items: &[Item]) -> Self {
        let filled = ChunkBuilder::deflate::<Infallible>(interval, fetched_at, |builder| {
            for item in items {
                builder.push(item.at, &item.json);
            }
            Ok(())
        });
        let Ok(chunk) = filled;
        let id_hashes: Vec<u64> = match settled {
            Settled::Yes => Vec::new(),
            Settled::No => items.iter().map(|item| xxh3_64(&item.id)).collect(),
        };
        let ids = IdFilter::of_items(items.iter().map(|item| &*item.json));
        Self { id_hashes: id_hashes.into(), ids, ..chunk }
    }

    /// A chunk for a single answer, of what `change` returns for each item; `None` omits the item. The text is not
    /// deflated.
    ///
    /// # Errors
    /// [`Damaged`] if a block does not inflate.
    pub fn derive<F>(&self, mut change: F) -> Result<Self, Damaged>
    where
        F: FnMut(Bytes) -> Option<Bytes>,
    {
        let mut derived = ChunkBuilder::plain();
        let mut id_hashes = Vec::new();
        for row in self.read(0..self.rows.len()) {
            let (row, json) = row?;
            if let Some(json) = change(json) {
                derived.push(self.rows[row].timestamp, &json);
                id_hashes.extend(self.id_hashes.get(row));
            }
        }
        let derived = derived.finish(self.interval, self.fetched_at).0;
        Ok(Self { id_hashes: id_hashes.into(), ids: self.ids.clone(), epoch: self.epoch, ..derived })
    }

    /// The same chunk with deflated text, to be stored.
    ///
    /// # Errors
    /// [`Damaged`] if a block does not inflate.
    pub fn deflated(&self) -> Result<Self, Damaged> {
        let deflated = ChunkBuilder::deflate(self.interval, self.fetched_at, |builder| {
            self.read(0..self.rows.len()).try_for_each(|row| {
                let (row, json) = row?;
                builder.push(self.rows[row].timestamp, &json);
                Ok(())
            })
        })?;
        let (id_hashes, ids) = (self.id_hashes.clone(), self.ids.clone());
        Ok(Self { id_hashes, ids, epoch: self.epoch, ..deflated })
    }
}

impl ChunkBuilder<'_> {
    /// A builder that does not deflate.
    fn plain() -> Self {
        Self { deflater: None, rows: Vec::new(), blocks: Vec::new(), buffers: Buffers::default() }
    }

    /// Builds a deflated chunk of the items that `fill` pushes.
    ///
    /// # Errors
    /// The error of `fill`.
    fn deflate<E>(
        interval: Interval,
        fetched_at: Timestamp,
        fill: impl FnOnce(&mut ChunkBuilder<'_>) -> Result<(), E>,
    ) -> Result<Chunk, E> {
        thread_local! {
            static STATE: RefCell<(Deflater, Buffers)> =
                RefCell::new((Deflater::new(CHUNK_DEFLATE_LEVEL), Buffers::default()));
        }
        STATE.with_borrow_mut(|(deflater, reused)| {
            let buffers = std::mem::take(reused);
            let mut builder = ChunkBuilder { deflater: Some(deflater), buffers, ..ChunkBuilder::plain() };
            let filled = fill(&mut builder);
            let (chunk, buffers) = builder.finish(interval, fetched_at);
            *reused = buffers;
            filled.map(|()| chunk)
        })
    }

    /// Appends an item.
    fn push(&mut self, timestamp: Timestamp, json: &[u8]) {
        let is_full = self.buffers.text.len() + json.len() > MAX_BLOCK_TEXT_BYTES;
        if self.blocks.is_empty() || is_full {
            self.close_block();
            let (first_row, start) = (self.rows.len(), self.buffers.blocks.len());
            self.blocks.push(Block { first_row, start, text_len: 0, reads: AccessCounter::default() });
        }
        self.buffers.text.push(b',');
        self.buffers.text.extend_from_slice(json);
        let sum = self.rows.last().map_or(0, |row| row.sum).wrapping_add(xxh3_64(json));
        // A block holds one item, or at most MAX_BLOCK_TEXT_BYTES; an item is at most an upstream body, which is
        // limited.
        let end = u32::try_from(self.buffers.text.len()).unwrap_or(u32::MAX);
        self.rows.push(Row { timestamp, sum, end, deflated_end: 0, crc: 0 });
    }

    /// Closes the open block, if there is one.
    fn close_block(&mut self) {
        let Some(block) = self.blocks.last_mut() else { return };
        let Buffers { blocks, text } = &mut self.buffers;
        block.text_len = text.len();
        let rows = &mut self.rows[block.first_row..];
        let mut crc = crc32fast::Hasher::new();
        let mut start = 0;
        for row in &mut *rows {
            crc.update(&text[start..row.end as usize]);
            row.crc = crc.clone().finalize();
            start = row.end as usize;
        }
        match &mut self.deflater {
            Some(deflater) => deflater.deflate_block(text, rows, blocks),
            None => blocks.extend_from_slice(text),
        }
        text.clear();
    }

    fn finish(mut self, interval: Interval, fetched_at: Timestamp) -> (Chunk, Buffers) {
        self.close_block();
        let bytes = Bytes::copy_from_slice(&self.buffers.blocks);
        let chunk = Chunk {
            interval,
            fetched_at,
            epoch: 0,
            rows: self.rows.into(),
            blocks: self.blocks.into(),
            text: if self.deflater.is_some() { Text::Deflated(bytes) } else { Text::Plain(bytes) },
            id_hashes: Box::default(),
            ids: IdFilter::default(),
            shared: false.into(),
            block_cache: OnceLock::new(),
            guard: OnceLock::new(),
        };
        self.buffers.blocks.clear();
        (chunk, self.buffers)
    }
}

/// A deflate compressor that is reused.
///
/// Its state takes 256 KiB. If it were allocated for each block, it would leave holes between the blocks that stay, and
/// a process that keeps thousands of small chunks would take a hundred times their size.
pub(super) struct Deflater {
    level: u32,
    /// Allocated on first use: many chunks are empty.
    state: Option<Compress>,
}

impl Deflater {
    fn new(level: u32) -> Self {
        Self { level, state: None }
    }

    /// A compressor of text that is sent once.
    pub(super) fn for_an_answer() -> Self {
        Self::new(ANSWER_DEFLATE_LEVEL)
    }

    fn reset(&mut self) -> &mut Compress {
        let state = self.state.get_or_insert_with(|| Compress::new(Compression::new(self.level), false));
        state.reset();
        state
    }

    /// Deflates a block, and sets the byte boundaries of its rows.
    fn deflate_block(&mut self, text: &[u8], rows: &mut [Row], to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&COMMA_BLOCK);
        let state = self.reset();
        // Nothing refers back to the comma at the beginning, so that an answer may begin without it.
        let mut done = 1;
        let count = rows.len();
        for (row, is_last) in rows.iter_mut().enumerate().map(|(nth, row)| (row, nth + 1 == count)) {
            let end = row.end as usize;
            if end - done >= BOUNDARY_INTERVAL_BYTES || is_last {
                deflate(state, &text[done..end], to);
                row.deflated_end = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
                done = end;
            }
        }
        to.extend_from_slice(&LAST_BLOCK);
    }

    /// Deflates `text` into blocks that refer to nothing before it and end on a byte boundary.
    pub(super) fn deflate_independently(&mut self, text: &[u8]) -> Vec<u8> {
        let mut deflated = Vec::new();
        deflate(self.reset(), text, &mut deflated);
        deflated
    }
}

/// Deflates `text` up to a byte boundary.
fn deflate(state: &mut Compress, mut text: &[u8], to: &mut Vec<u8>) {
    loop {
        // Deflate hardly ever needs more; if it does, there is another round.
        to.reserve(text.len() + text.len() / 1000 + 64);
        let before = state.total_in();
        // The output is memory and the state is not finished: the call cannot fail.
        let result = state.compress_vec(text, to, FlushCompress::Sync);
        debug_assert!(result.is_ok());
        let taken = usize::try_from(state.total_in() - before).unwrap_or(usize::MAX);
        text = text.get(taken..).unwrap_or_default();
        // The output is complete if room is left.
        if text.is_empty() && to.len() < to.capacity() {
            return;
        }
    }
}
