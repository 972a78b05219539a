//! Puts the deflated text of an answer together from what was deflated when its chunks were made.
//!
//! Deflate blocks that end on a byte boundary can be put one behind the other. They may refer to text up to 32 KiB before
//! them. So an answer that begins in the middle of a block is deflated anew until it holds so much of it, and from there
//! on the block's own bytes fit; and their checksum is worked out from those of the block's beginnings, not read.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;

use super::builder::{COMMA, Deflater};
use super::{Chunk, Damaged, Text};

/// How far back deflated text refers.
const REACH: usize = 32 << 10;

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater::for_an_answer());
}

/// Deflated text, each piece of which ends on a byte boundary.
#[derive(Clone, Debug)]
pub struct DeflateSplice {
    /// Deflate blocks; none says that it is the last.
    pub pieces: Vec<Bytes>,
    /// CRC-32 of the text,
    pub crc: u32,
    /// and its length in bytes.
    pub len: u64,
}

impl Chunk {
    /// The text of `rows`, deflated: for each block that they touch, its items, each behind a comma, but for the first if
    /// `is_first`.
    pub fn splices(
        self: Arc<Self>,
        rows: Range<usize>,
        mut is_first: bool,
    ) -> impl Iterator<Item = Result<DeflateSplice, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        blocks.into_iter().map(move |(block, rows)| {
            let with_comma = !std::mem::take(&mut is_first);
            self.joint(block, rows, with_comma)
        })
    }

    fn joint(&self, block: usize, rows: Range<usize>, with_comma: bool) -> Result<DeflateSplice, Damaged> {
        let range = self.text_range(block, &rows);
        let before = rows.start.checked_sub(1).filter(|_| range.start > 0).map_or(0, |row| self.rows[row].crc);
        let mut crc = without(self.rows[rows.end - 1].crc, before, range.len());
        let mut len = range.len();
        if !with_comma {
            len -= 1;
            crc = without(crc, crc32fast::hash(b","), len);
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
        let mut start = if with_comma { 0 } else { COMMA.len() };
        if rows.start > self.blocks[block].first_row {
            let begin = self.text_start(block, rows.start) + 1;
            let reaches = |row: &usize| self.rows[*row].packed_end > 0 && self.rows[*row].end as usize - begin >= REACH;
            let Some(last) = rows.clone().find(reaches) else {
                return Ok(vec![self.deflate_anew(block, rows, skip)?]);
            };
            from = last + 1;
            start = self.rows[last].packed_end as usize;
            pieces.push(self.deflate_anew(block, rows.start..from, skip)?);
        }
        let boundary = (from..rows.end).rev().find(|row| self.rows[*row].packed_end > 0);
        if let Some(last) = boundary {
            pieces.push(self.bytes_of(block).slice(start..self.rows[last].packed_end as usize));
            from = last + 1;
        }
        if from < rows.end {
            let skip = if from == rows.start { skip } else { 0 };
            pieces.push(self.deflate_anew(block, from..rows.end, skip)?);
        }
        Ok(pieces)
    }

    /// Deflates the text of `rows`, but for its first bytes.
    fn deflate_anew(&self, block: usize, rows: Range<usize>, skip: usize) -> Result<Bytes, Damaged> {
        let hot = self.hot.get();
        // Without its comma it is the beginning of an answer, which somebody else may begin likewise.
        if let Some(piece) = hot.and_then(|hot| hot.edge(block, &rows, skip)) {
            return Ok(piece);
        }
        let text = self.text_of(block, rows.end)?;
        let range = self.text_range(block, &rows);
        let piece = DEFLATER.with_borrow_mut(|deflater| deflater.piece(&text[range.start + skip..range.end]));
        let piece = Bytes::from(piece.into_boxed_slice());
        if let Some(hot) = hot {
            hot.keep_edge(block, &rows, skip, piece.clone());
        }
        Ok(piece)
    }
}

/// The CRC-32 of the last `len` bytes of a text, of its own and of that of what stands before them.
fn without(whole: u32, before: u32, len: usize) -> u32 {
    let mut shifted = Hasher::new_with_initial_len(before, 0);
    shifted.combine(&Hasher::new_with_initial_len(0, len as u64));
    shifted.finalize() ^ whole
}
