//! Makes a chunk of its items.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use xxhash_rust::xxh3::xxh3_64;

use super::access_counter::AccessCounter;
use super::{Block, Chunk, Row, Text};
use crate::window::{Interval, Timestamp};

/// A block is closed when its text has grown to this: longer blocks deflate little better, and cost more to open.
const BLOCK_TEXT: usize = 128 << 10;
/// Deflated bytes come to a boundary behind an item when so much text lies between it and the last one. Each costs some
/// ten bytes, and the tables of a new deflate block.
const PIECE_TEXT: usize = 2 << 10;
/// A comma as a stored deflate block.
pub(super) const COMMA: [u8; 6] = [0, 1, 0, 0xfe, 0xff, b','];
/// An empty deflate block that says that it is the last.
pub(super) const LAST: [u8; 2] = [3, 0];
/// Chunks are deflated once, and then sent for as long as they are kept: it is worth some time. Higher levels gain
/// nothing more.
const FOR_CHUNKS: u32 = 6;
/// What is deflated for one answer only, its caller waits for.
const FOR_AN_ANSWER: u32 = 1;

/// Puts items into blocks.
pub(super) struct Packer<'a> {
    /// `None` leaves them as they are.
    deflater: Option<&'a mut Deflater>,
    rows: Vec<Row>,
    blocks: Vec<Block>,
    scratch: Scratch,
}

/// Where a chunk is put together. It is used again and again: what is kept for long is copied out of it to where it fits,
/// and what is needed for a moment leaves no holes between.
#[derive(Debug, Default)]
struct Scratch {
    /// Closed blocks.
    packed: Vec<u8>,
    /// The text of the block that is not closed yet.
    text: Vec<u8>,
}

impl Packer<'_> {
    /// One that leaves the items as they are.
    pub(super) fn plain() -> Self {
        Self { deflater: None, rows: Vec::new(), blocks: Vec::new(), scratch: Scratch::default() }
    }

    /// Deflates what `fill` puts into it.
    ///
    /// # Errors
    /// What `fill` fails with.
    pub(super) fn deflate<E>(
        interval: Interval,
        fetched_at: Timestamp,
        fill: impl FnOnce(&mut Packer<'_>) -> Result<(), E>,
    ) -> Result<Chunk, E> {
        thread_local! {
            static ROOM: RefCell<(Deflater, Scratch)> = RefCell::new((Deflater::new(FOR_CHUNKS), Scratch::default()));
        }
        ROOM.with_borrow_mut(|(deflater, room)| {
            let scratch = std::mem::take(room);
            let mut packer = Packer { deflater: Some(deflater), scratch, ..Packer::plain() };
            let filled = fill(&mut packer);
            let (chunk, scratch) = packer.finish(interval, fetched_at);
            *room = scratch;
            filled.map(|()| chunk)
        })
    }

    /// Adds an item behind the others.
    pub(super) fn push(&mut self, at: Timestamp, json: &[u8]) {
        let is_full = self.scratch.text.len() + json.len() > BLOCK_TEXT;
        if self.blocks.is_empty() || is_full {
            self.close();
            let (first_row, start) = (self.rows.len(), self.scratch.packed.len());
            self.blocks.push(Block { first_row, start, text_len: 0, reads: AccessCounter::default() });
        }
        self.scratch.text.push(b',');
        self.scratch.text.extend_from_slice(json);
        let sum = self.rows.last().map_or(0, |row| row.sum).wrapping_add(xxh3_64(json));
        // A block holds one item, or at most BLOCK_TEXT bytes; an item is at most an upstream body, which is limited.
        let end = u32::try_from(self.scratch.text.len()).unwrap_or(u32::MAX);
        self.rows.push(Row { at, sum, end, packed_end: 0, crc: 0 });
    }

    /// Closes the block that is open.
    fn close(&mut self) {
        let Some(block) = self.blocks.last_mut() else { return };
        let Scratch { packed, text } = &mut self.scratch;
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
            Some(deflater) => deflater.block(text, rows, packed),
            None => packed.extend_from_slice(text),
        }
        text.clear();
    }

    /// The chunk for one answer.
    pub(super) fn left_as_it_is(self, interval: Interval, fetched_at: Timestamp) -> Chunk {
        self.finish(interval, fetched_at).0
    }

    fn finish(mut self, interval: Interval, fetched_at: Timestamp) -> (Chunk, Scratch) {
        self.close();
        let bytes = Bytes::copy_from_slice(&self.scratch.packed);
        let chunk = Chunk {
            interval,
            fetched_at,
            epoch: 0,
            rows: self.rows.into(),
            blocks: self.blocks.into(),
            text: if self.deflater.is_some() { Text::Deflated(bytes) } else { Text::Plain(bytes) },
            names: Box::default(),
            shared: false.into(),
            hot: std::sync::OnceLock::new(),
            alive: std::sync::OnceLock::new(),
        };
        self.scratch.packed.clear();
        (chunk, self.scratch)
    }
}

/// Deflates, one thing after the other.
///
/// Its state is a quarter of a mebibyte. Made anew for each block, and let go, it would leave holes between the blocks
/// that stay, and a process that keeps thousands of small ones would take a hundred times what they hold.
pub(super) struct Deflater {
    level: u32,
    /// Made when it is first needed: many chunks are empty.
    state: Option<Compress>,
}

impl Deflater {
    fn new(level: u32) -> Self {
        Self { level, state: None }
    }

    /// For what is sent and forgotten.
    pub(super) fn for_an_answer() -> Self {
        Self::new(FOR_AN_ANSWER)
    }

    fn begin(&mut self) -> &mut Compress {
        let state = self.state.get_or_insert_with(|| Compress::new(Compression::new(self.level), false));
        state.reset();
        state
    }

    /// Deflates a block, and notes in its rows where the bytes come to a boundary.
    fn block(&mut self, text: &[u8], rows: &mut [Row], to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&COMMA);
        let state = self.begin();
        // The comma at its beginning is not what anything else refers to: an answer may begin without it.
        let mut done = 1;
        let count = rows.len();
        for (row, is_last) in rows.iter_mut().enumerate().map(|(nth, row)| (row, nth + 1 == count)) {
            let end = row.end as usize;
            if end - done >= PIECE_TEXT || is_last {
                deflate(state, &text[done..end], to);
                row.packed_end = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
                done = end;
            }
        }
        to.extend_from_slice(&LAST);
    }

    /// Deflate blocks that hold `text`, refer to nothing before it and end on a byte boundary.
    pub(super) fn piece(&mut self, text: &[u8]) -> Vec<u8> {
        let mut piece = Vec::new();
        deflate(self.begin(), text, &mut piece);
        piece
    }
}

/// Deflates `text` up to a byte boundary.
fn deflate(state: &mut Compress, mut text: &[u8], to: &mut Vec<u8>) {
    loop {
        // Deflate hardly ever needs more than this; if it does, there is another round.
        to.reserve(text.len() + text.len() / 1000 + 64);
        let before = state.total_in();
        // Into memory that is there, with a state that was not finished: it cannot fail.
        let result = state.compress_vec(text, to, FlushCompress::Sync);
        debug_assert!(result.is_ok());
        let taken = usize::try_from(state.total_in() - before).unwrap_or(usize::MAX);
        text = text.get(taken..).unwrap_or_default();
        // With room left, all has come out.
        if text.is_empty() && to.len() < to.capacity() {
            return;
        }
    }
}
