//! Reading of a range of rows: as text, as lines, or item by item.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use libdeflater::Decompressor;

use super::layout::{Chunk, Damaged, LAST_BLOCK, Text};

impl Chunk {
    /// The text of `rows`, block by block: each item follows a comma, except the first item if `is_first`.
    pub fn text(self: Arc<Self>, rows: Range<usize>, is_first: bool) -> impl Iterator<Item = Result<Bytes, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        let mut skip = usize::from(is_first);
        blocks.into_iter().map(move |(block, rows)| {
            let mut range = self.text_range(block, &rows);
            range.start += std::mem::take(&mut skip);
            Ok(self.block_text(block, rows.end)?.slice(range))
        })
    }

    /// The lines of `rows`, block by block: each item is ended by a line feed and contains none.
    ///
    /// A line break inside of an item is white space between its tokens, as no JSON string can hold one; it is replaced
    /// by a space.
    pub fn lines(self: Arc<Self>, rows: Range<usize>) -> impl Iterator<Item = Result<Bytes, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        blocks.into_iter().map(move |(block, rows)| {
            let range = self.text_range(block, &rows);
            let mut lines = BytesMut::with_capacity(range.len());
            lines.extend_from_slice(&self.block_text(block, rows.end)?[range.start + 1..range.end]);
            for byte in lines.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
                *byte = b' ';
            }
            lines.extend_from_slice(b"\n");
            // The separator of two items is one byte in both forms.
            for row in rows {
                lines[self.rows[row].end as usize - range.start - 1] = b'\n';
            }
            Ok(lines.freeze())
        })
    }

    /// The items of `rows`, each with its row number.
    pub fn read(&self, rows: Range<usize>) -> impl Iterator<Item = Result<(usize, Bytes), Damaged>> {
        self.blocks_of(rows).flat_map(move |(block, rows)| {
            let (text, damaged) = match self.block_text(block, rows.end) {
                Ok(text) => (Some(text), None),
                Err(damaged) => (None, Some(Err(damaged))),
            };
            let item = move |row| self.text_start(block, row) + 1..self.rows[row].end as usize;
            let items = text.map(|text| rows.map(move |row| Ok((row, text.slice(item(row))))));
            items.into_iter().flatten().chain(damaged)
        })
    }

    /// The inflated text of a block, at least up to the row before `end`.
    pub(super) fn block_text(&self, block: usize, end: usize) -> Result<Bytes, Damaged> {
        let bytes = self.block_bytes(block);
        if let Text::Plain(_) = self.text {
            return Ok(bytes);
        }
        let text_len = self.blocks[block].text_len;
        let Some(cache) = self.block_cache.get() else { return self.inflate_up_to(block, &bytes, end) };
        if let Some(text) = cache.text(block) {
            return Ok(text);
        }
        if !self.blocks[block].reads.record() {
            return self.inflate_up_to(block, &bytes, end);
        }
        let text = inflate(&bytes, text_len)?;
        cache.insert_text(block, text.clone());
        Ok(text)
    }

    fn inflate_up_to(&self, block: usize, bytes: &Bytes, end: usize) -> Result<Bytes, Damaged> {
        let mut rest = self.rows[end - 1..self.rows_end(block)].iter();
        let boundary = rest.find(|row| row.deflated_end > 0).ok_or(Damaged)?;
        if boundary.end as usize == self.blocks[block].text_len {
            return inflate(bytes, self.blocks[block].text_len);
        }
        let prefix = [bytes.get(..boundary.deflated_end as usize).ok_or(Damaged)?, &LAST_BLOCK].concat();
        inflate(&prefix, boundary.end as usize)
    }
}

fn inflate(deflated: &[u8], text_len: usize) -> Result<Bytes, Damaged> {
    let mut text = vec![0; text_len];
    match Decompressor::new().deflate_decompress(deflated, &mut text) {
        Ok(length) if length == text_len => Ok(text.into()),
        _ => Err(Damaged),
    }
}
