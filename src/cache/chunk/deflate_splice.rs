//! Splicing of deflated text: pieces for a gzip body, from the bytes that were deflated when the chunks were
//! made. `api/body.rs` puts the body together.
//!
//! Deflate blocks that end on a byte boundary can be concatenated. A block may refer to text up to 32 KiB before it. So
//! an answer that begins in the middle of a block is deflated anew for its first 32 KiB, and from there on the stored
//! bytes are valid. The checksum is computed from the stored checksums of prefixes, without reading the text.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;

use super::builder::Deflater;
use super::layout::{COMMA_BLOCK, Chunk, Damaged, Text};

/// How far back deflated text refers, in bytes.
const DEFLATE_WINDOW_BYTES: usize = 32 << 10;

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater::for_an_answer());
}

/// Deflated text of rows of one block.
#[derive(Clone, Debug)]
pub struct DeflateSplice {
    /// Deflate blocks, each ending on a byte boundary; none is marked as the last.
    pub pieces: Vec<Bytes>,
    /// CRC-32 of the inflated text.
    pub crc: u32,
    /// Bytes of the inflated text.
    pub len: u64,
}

impl Chunk {
    /// The text of `rows`, deflated, block by block: each item follows a comma, except the first item if `is_first`.
    pub fn splices(
        self: Arc<Self>,
        rows: Range<usize>,
        mut is_first: bool,
    ) -> impl Iterator<Item = Result<DeflateSplice, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        blocks.into_iter().map(move |(block, rows)| {
            let with_comma = !std::mem::take(&mut is_first);
            self.splice(block, rows, with_comma)
        })
    }

    fn splice(&self, block: usize, rows: Range<usize>, with_comma: bool) -> Result<DeflateSplice, Damaged> {
        let range = self.text_range(block, &rows);
        let before = rows.start.checked_sub(1).filter(|_| range.start > 0).map_or(0, |row| self.rows[row].crc);
        let mut crc = crc_of_suffix(self.rows[rows.end - 1].crc, before, range.len());
        let mut len = range.len();
        if !with_comma {
            len -= 1;
            crc = crc_of_suffix(crc, crc32fast::hash(b","), len);
        }
        let pieces = self.pieces(block, rows, with_comma)?;
        Ok(DeflateSplice { pieces, crc, len: len as u64 })
    }

    fn pieces(&self, block: usize, rows: Range<usize>, with_comma: bool) -> Result<Vec<Bytes>, Damaged> {
        let skip = usize::from(!with_comma);
        if let Text::Plain(_) = self.text {
            return Ok(vec![self.deflate_anew(block, rows, skip)?]);
        }
        let (mut pieces, mut from) = (Vec::new(), rows.start);
        let mut start = if with_comma { 0 } else { COMMA_BLOCK.len() };
        if rows.start > self.blocks[block].first_row {
            let begin = self.text_start(block, rows.start) + 1;
            let reaches = |row: &usize| {
                self.rows[*row].deflated_end > 0 && self.rows[*row].end as usize - begin >= DEFLATE_WINDOW_BYTES
            };
            let Some(last) = rows.clone().find(reaches) else {
                return Ok(vec![self.deflate_anew(block, rows, skip)?]);
            };
            from = last + 1;
            start = self.rows[last].deflated_end as usize;
            pieces.push(self.deflate_anew(block, rows.start..from, skip)?);
        }
        let boundary = (from..rows.end).rev().find(|row| self.rows[*row].deflated_end > 0);
        if let Some(last) = boundary {
            pieces.push(self.block_bytes(block).slice(start..self.rows[last].deflated_end as usize));
            from = last + 1;
        }
        if from < rows.end {
            let skip = if from == rows.start { skip } else { 0 };
            pieces.push(self.deflate_anew(block, from..rows.end, skip)?);
        }
        Ok(pieces)
    }

    /// Deflates the text of `rows` without its first `skip` bytes.
    fn deflate_anew(&self, block: usize, rows: Range<usize>, skip: usize) -> Result<Bytes, Damaged> {
        let cache = self.block_cache.get();
        // The same rows begin or end the answers to repeated requests.
        if let Some(piece) = cache.and_then(|cache| cache.edge(block, &rows, skip)) {
            return Ok(piece);
        }
        let text = self.block_text(block, rows.end)?;
        let range = self.text_range(block, &rows);
        let piece =
            DEFLATER.with_borrow_mut(|deflater| deflater.deflate_independently(&text[range.start + skip..range.end]));
        let piece = Bytes::from(piece.into_boxed_slice());
        if let Some(cache) = cache {
            cache.insert_edge(block, &rows, skip, piece.clone());
        }
        Ok(piece)
    }
}

/// The CRC-32 of the last `len` bytes of a text, from the CRC-32 of the whole text and of the bytes before them.
fn crc_of_suffix(whole: u32, before: u32, len: usize) -> u32 {
    let mut shifted = Hasher::new_with_initial_len(before, 0);
    shifted.combine(&Hasher::new_with_initial_len(0, len as u64));
    shifted.finalize() ^ whole
}
