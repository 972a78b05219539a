//! Reads the text of a chunk.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use libdeflater::Decompressor;

use super::builder::LAST;
use super::{Chunk, Damaged, Text};

impl Chunk {
    /// The text of `rows`: for each block that they touch, its items, each behind a comma, but for the very first if
    /// `is_first`.
    pub fn text(self: Arc<Self>, rows: Range<usize>, is_first: bool) -> impl Iterator<Item = Result<Bytes, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        let mut skip = usize::from(is_first);
        blocks.into_iter().map(move |(block, rows)| {
            let mut range = self.text_range(block, &rows);
            range.start += std::mem::take(&mut skip);
            Ok(self.text_of(block, rows.end)?.slice(range))
        })
    }

    /// The lines of `rows`: for each block that they touch, its items, each ended by a line feed and free of others.
    ///
    /// A line break inside of an item is white space between its tokens, for no JSON string can hold one; it becomes a
    /// blank.
    pub fn lines(self: Arc<Self>, rows: Range<usize>) -> impl Iterator<Item = Result<Bytes, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        blocks.into_iter().map(move |(block, rows)| {
            let range = self.text_range(block, &rows);
            let mut lines = BytesMut::with_capacity(range.len());
            lines.extend_from_slice(&self.text_of(block, rows.end)?[range.start + 1..range.end]);
            for byte in lines.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
                *byte = b' ';
            }
            lines.extend_from_slice(b"\n");
            // What stands between two items is one byte, here as there.
            for row in rows {
                lines[self.rows[row].end as usize - range.start - 1] = b'\n';
            }
            Ok(lines.freeze())
        })
    }

    /// The items of `rows`, each with its row.
    pub fn read(&self, rows: Range<usize>) -> impl Iterator<Item = Result<(usize, Bytes), Damaged>> {
        self.blocks_of(rows).flat_map(move |(block, rows)| {
            let (text, damaged) = match self.text_of(block, rows.end) {
                Ok(text) => (Some(text), None),
                Err(damaged) => (None, Some(Err(damaged))),
            };
            let item = move |row| self.text_start(block, row) + 1..self.rows[row].end as usize;
            let items = text.map(|text| rows.map(move |row| Ok((row, text.slice(item(row))))));
            items.into_iter().flatten().chain(damaged)
        })
    }

    /// The text of a block, at least up to the row before `end`.
    pub(super) fn text_of(&self, block: usize, end: usize) -> Result<Bytes, Damaged> {
        let bytes = self.bytes_of(block);
        if let Text::Plain(_) = self.text {
            return Ok(bytes);
        }
        let text_len = self.blocks[block].text_len;
        let Some(hot) = self.hot.get() else { return self.inflate_up_to(block, &bytes, end) };
        if let Some(text) = hot.text(block) {
            return Ok(text);
        }
        if !self.blocks[block].reads.record() {
            return self.inflate_up_to(block, &bytes, end);
        }
        let text = inflate(&bytes, text_len)?;
        hot.keep_text(block, text.clone());
        Ok(text)
    }

    fn inflate_up_to(&self, block: usize, bytes: &Bytes, end: usize) -> Result<Bytes, Damaged> {
        let mut rest = self.rows[end - 1..self.rows_end(block)].iter();
        let boundary = rest.find(|row| row.packed_end > 0).ok_or(Damaged)?;
        if boundary.end as usize == self.blocks[block].text_len {
            return inflate(bytes, self.blocks[block].text_len);
        }
        let part = [bytes.get(..boundary.packed_end as usize).ok_or(Damaged)?, &LAST].concat();
        inflate(&part, boundary.end as usize)
    }
}

fn inflate(deflated: &[u8], text_len: usize) -> Result<Bytes, Damaged> {
    let mut text = vec![0; text_len];
    match Decompressor::new().deflate_decompress(deflated, &mut text) {
        Ok(length) if length == text_len => Ok(text.into()),
        _ => Err(Damaged),
    }
}
