//! A chunk as it is kept: all items of a span, deflated, with an index that finds each without parsing.
//!
//! The text of a chunk is cut into blocks of whole items. In a block the items stand as they came, with one comma
//! between two of them, so a piece of a block is a piece of an answer's `data`. Each block is deflated (RFC 1951) on its
//! own, so a page inflates no more than it touches.

mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use xxhash_rust::xxh3::xxh3_64;

use crate::repage::Item;
use crate::window::{Moment, Span};

/// A block is closed when its text has grown to this: longer blocks deflate little better, and cost more to open.
const BLOCK_TEXT: usize = 128 << 10;
/// What a chunk costs besides its index and its blocks: itself, its entries in the tables, their slack.
const OVERHEAD: usize = 512;

/// All items of a span, in the order of the contract.
#[derive(Debug)]
pub struct Chunk {
    span: Span,
    fetched_at: Moment,
    /// The last purge of its account that was known when its run began.
    epoch: u64,
    rows: Box<[Row]>,
    blocks: Box<[Block]>,
    /// The hashes of the items' names, one a row; only of a chunk that is not settled, whose items may still move.
    names: Box<[u64]>,
    /// Whether it is known to stand where all replicas find it.
    shared: AtomicBool,
}

/// One item of a chunk.
#[derive(Clone, Copy, Debug)]
struct Row {
    at: Moment,
    /// Hash of the item's bytes.
    sum: u64,
    /// Where it ends in the text of its block.
    end: u32,
}

#[derive(Debug)]
struct Block {
    first_row: usize,
    text_len: usize,
    text: Text,
}

#[derive(Debug)]
enum Text {
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
    /// A chunk of `items`, which are in order and lie in `span`.
    pub fn new(span: Span, fetched_at: Moment, settled: Settled, items: &[Item]) -> Self {
        Self::deflated(span, fetched_at, settled, items, &mut Deflater::default())
    }

    /// The same for one of many: they share a deflater.
    pub fn deflated(span: Span, fetched_at: Moment, settled: Settled, items: &[Item], deflater: &mut Deflater) -> Self {
        let mut chunk = Builder::default();
        for item in items {
            chunk.push(item.at, &item.json);
        }
        let names: Vec<u64> = match settled {
            Settled::Yes => Vec::new(),
            Settled::No => items.iter().map(|item| xxh3_64(&item.id)).collect(),
        };
        Self { names: names.into(), ..chunk.finish(span, fetched_at, |text| deflater.text(text)) }
    }

    /// A chunk for one answer: what `change` makes of each item of this one, `None` leaving it out. It is not deflated.
    ///
    /// # Errors
    /// [`Damaged`] if a block does not inflate.
    pub fn derive<F>(&self, mut change: F) -> Result<Self, Damaged>
    where
        F: FnMut(Bytes) -> Option<Bytes>,
    {
        let mut derived = Builder::default();
        let mut names = Vec::new();
        for row in self.read(0..self.rows.len()) {
            let (row, json) = row?;
            if let Some(json) = change(json) {
                derived.push(self.rows[row].at, &json);
                names.extend(self.names.get(row));
            }
        }
        let derived = derived.finish(self.span, self.fetched_at, |text| Text::Plain(text.into()));
        Ok(Self { names: names.into(), epoch: self.epoch, ..derived })
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
        let mut packed = Builder::default();
        for row in self.read(0..self.rows.len()) {
            let (row, json) = row?;
            packed.push(self.rows[row].at, &json);
        }
        let mut deflater = Deflater::default();
        let packed = packed.finish(self.span, self.fetched_at, |text| deflater.text(text));
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

    /// Of which time.
    pub fn span(&self) -> Span {
        self.span
    }

    /// When the fetch that brought it began.
    pub fn fetched_at(&self) -> Moment {
        self.fetched_at
    }

    /// The bytes of memory that it takes, index included.
    pub fn weight(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|block| block.text.len() + size_of::<Block>()).sum();
        OVERHEAD + size_of_val(&*self.rows) + size_of_val(&*self.names) + blocks
    }

    /// Hashes of the names of those items of `rows` that may still move.
    pub fn names(&self, rows: Range<usize>) -> &[u64] {
        self.names.get(rows).unwrap_or_default()
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it holds no item.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose items lie in `span`.
    pub fn rows_within(&self, span: Span) -> Range<usize> {
        let start = self.rows.partition_point(|row| row.at < span.start);
        let end = self.rows.partition_point(|row| row.at < span.end);
        start..end.max(start)
    }

    /// A number that depends on the items of `rows` and nothing else, and adds up over chunks however they are cut.
    pub fn sum(&self, rows: Range<usize>) -> u64 {
        self.rows[rows].iter().fold(0, |sum, row| sum.wrapping_add(row.sum))
    }

    /// The length of the items of `rows` in bytes, without anything between them.
    pub fn text_len(&self, rows: Range<usize>) -> u64 {
        let mut total = 0;
        for (block, rows) in self.blocks_of(rows) {
            let text = self.text_range(block, &rows);
            total += (text.len() - (rows.len() - 1)) as u64;
        }
        total
    }

    /// The text of `rows`: for each block that they touch, its items with commas between them.
    pub fn text(self: Arc<Self>, rows: Range<usize>) -> impl Iterator<Item = Result<Bytes, Damaged>> {
        let blocks: Vec<_> = self.blocks_of(rows).collect();
        blocks.into_iter().map(move |(block, rows)| {
            let text = self.blocks[block].inflate()?;
            Ok(text.slice(self.text_range(block, &rows)))
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
            let mut lines = BytesMut::with_capacity(range.len() + 1);
            lines.extend_from_slice(&self.blocks[block].inflate()?[range.clone()]);
            for byte in lines.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
                *byte = b' ';
            }
            lines.put_u8(b'\n');
            // What stands between two items is one byte, here as there.
            for row in rows {
                lines[self.rows[row].end as usize - range.start] = b'\n';
            }
            Ok(lines.freeze())
        })
    }

    /// The items of `rows`, each with its row.
    pub fn read(&self, rows: Range<usize>) -> impl Iterator<Item = Result<(usize, Bytes), Damaged>> {
        self.blocks_of(rows).flat_map(move |(block, rows)| {
            let (text, damaged) = match self.blocks[block].inflate() {
                Ok(text) => (Some(text), None),
                Err(damaged) => (None, Some(Err(damaged))),
            };
            let items =
                text.map(|text| rows.map(move |row| Ok((row, text.slice(self.text_range(block, &(row..row + 1)))))));
            items.into_iter().flatten().chain(damaged)
        })
    }

    /// The blocks that `rows` touch, each with those of the rows that lie in it.
    fn blocks_of(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let first = self.blocks.partition_point(|block| block.first_row <= rows.start).saturating_sub(1);
        (first..self.blocks.len()).map_while(move |block| {
            let end = self.blocks.get(block + 1).map_or(self.rows.len(), |next| next.first_row);
            let within = self.blocks[block].first_row.max(rows.start)..end.min(rows.end);
            (!within.is_empty()).then_some((block, within))
        })
    }

    fn text_range(&self, block: usize, rows: &Range<usize>) -> Range<usize> {
        let start = match rows.start {
            row if row == self.blocks[block].first_row => 0,
            row => self.rows[row - 1].end as usize + 1,
        };
        start..self.rows[rows.end - 1].end as usize
    }
}

/// Deflates blocks, one after the other.
///
/// Its state is a quarter of a mebibyte. Made anew for each block, and let go, it would leave holes between the blocks
/// that stay, and a process that keeps thousands of small ones would take a hundred times what they hold.
#[derive(Default)]
pub struct Deflater {
    /// Made when it is first needed: many chunks are empty.
    state: Option<Compress>,
    /// What a block deflates into, before it is known how long that is.
    room: Vec<u8>,
}

impl Deflater {
    fn text(&mut self, text: Vec<u8>) -> Text {
        // A fast level: the text is large, repetitive JSON, where slower ones gain little.
        let state = self.state.get_or_insert_with(|| Compress::new(Compression::new(4), false));
        state.reset();
        self.room.clear();
        // Deflate never needs more than this: five bytes for each block that is stored as it is, and some for the end.
        self.room.reserve(text.len() + text.len() / 1000 + 64);
        match state.compress_vec(&text, &mut self.room, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => Text::Deflated(Bytes::copy_from_slice(&self.room)),
            // Writing to memory does not fail; were it to, the text itself is as good.
            _ => Text::Plain(text.into()),
        }
    }
}

impl Text {
    fn len(&self) -> usize {
        match self {
            Self::Deflated(bytes) | Self::Plain(bytes) => bytes.len(),
        }
    }
}

impl Block {
    fn inflate(&self) -> Result<Bytes, Damaged> {
        match &self.text {
            Text::Plain(text) => Ok(text.clone()),
            Text::Deflated(deflated) => {
                let mut text = Vec::with_capacity(self.text_len);
                let status = Decompress::new(false).decompress_vec(deflated, &mut text, FlushDecompress::Finish);
                match status {
                    Ok(Status::StreamEnd) if text.len() == self.text_len => Ok(text.into()),
                    _ => Err(Damaged),
                }
            }
        }
    }
}

#[derive(Default)]
struct Builder {
    rows: Vec<Row>,
    /// Closed blocks: the first row and the text of each.
    blocks: Vec<(usize, Vec<u8>)>,
}

impl Builder {
    fn push(&mut self, at: Moment, json: &[u8]) {
        match self.blocks.last_mut() {
            Some((_, text)) if text.len() + json.len() <= BLOCK_TEXT => {
                text.push(b',');
                text.extend_from_slice(json);
            }
            _ => self.blocks.push((self.rows.len(), json.to_vec())),
        }
        // A block holds one item, or at most BLOCK_TEXT bytes; an item is at most an upstream body, which is limited.
        let end = self.blocks.last().map_or(0, |(_, text)| u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.rows.push(Row { at, sum: xxh3_64(json), end });
    }

    fn finish(self, span: Span, fetched_at: Moment, mut text_of: impl FnMut(Vec<u8>) -> Text) -> Chunk {
        let mut block =
            |(first_row, text): (usize, Vec<u8>)| Block { first_row, text_len: text.len(), text: text_of(text) };
        Chunk {
            span,
            fetched_at,
            epoch: 0,
            rows: self.rows.into(),
            blocks: self.blocks.into_iter().map(&mut block).collect(),
            names: Box::default(),
            shared: AtomicBool::default(),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(sizes: &[usize]) -> Vec<Item> {
        let json = |n: usize, size: usize| Bytes::from(format!(r#"{{"n":{n},"x":"{}"}}"#, "é,\\\"".repeat(size)));
        let item = |(n, size): (usize, &usize)| Item {
            at: Moment::from_nanos(i64::try_from(n / 2).unwrap()),
            id: format!("{n}").into(),
            json: json(n, *size),
        };
        sizes.iter().enumerate().map(item).collect()
    }

    fn chunk(items: &[Item]) -> Arc<Chunk> {
        let span = Span::new(Moment::from_nanos(0), Moment::from_nanos(1000));
        Arc::new(Chunk::new(span, Moment::from_nanos(0), Settled::No, items))
    }

    proptest! {
        #[test]
        fn any_rows_read_back_as_they_were(
            sizes in prop::collection::vec(prop_oneof![0usize..50, 5_000usize..40_000], 0..24), a: prop::sample::Index, b: prop::sample::Index
        ) {
            let items = items(&sizes);
            let chunk = chunk(&items);
            let (a, b) = (a.index(items.len() + 1), b.index(items.len() + 1));
            let rows = a.min(b)..a.max(b);
            let wanted: Vec<&[u8]> = items[rows.clone()].iter().map(|item| item.json.as_ref()).collect();
            let read: Vec<_> = chunk.read(rows.clone()).map(|row| row.unwrap().1).collect();
            prop_assert_eq!(&read, &wanted);
            let texts: Vec<_> = chunk.clone().text(rows.clone()).map(|text| text.unwrap()).collect();
            prop_assert_eq!(texts.join(&b","[..]), wanted.join(&b","[..]));
            let lines: Vec<_> = chunk.clone().lines(rows.clone()).map(|lines| lines.unwrap()).collect();
            prop_assert_eq!(lines.concat(), wanted.iter().flat_map(|json| [*json, b"\n"]).collect::<Vec<_>>().concat());
            prop_assert_eq!(chunk.text_len(rows.clone()), wanted.iter().map(|json| json.len() as u64).sum::<u64>());
            let part = rows.start + rows.len() / 2;
            prop_assert_eq!(chunk.sum(rows.clone()), chunk.sum(rows.start..part).wrapping_add(chunk.sum(part..rows.end)));
        }

        #[test]
        fn rows_are_found_by_time(count in 0usize..30, start in 0i64..20, length in 0i64..20) {
            let items = items(&vec![1; count]);
            let span = Span::new(Moment::from_nanos(start), Moment::from_nanos(start + length));
            let rows = chunk(&items).rows_within(span);
            for (row, item) in items.iter().enumerate() {
                prop_assert_eq!(rows.contains(&row), span.contains(item.at));
            }
        }
    }

    #[test]
    fn an_item_of_several_lines_becomes_one_line() {
        let json = Bytes::from_static(b"{\"a\":\"\\n\",\r\n \"b\":1\n}");
        let several = |n| Item { at: Moment::from_nanos(n), id: format!("{n}").into(), json: json.clone() };
        let lines: Vec<_> = chunk(&[several(0), several(1)]).lines(0..2).map(|lines| lines.unwrap()).collect();
        let line = r#"{"a":"\n",   "b":1 }"#;
        assert_eq!(lines.concat(), format!("{line}\n{line}\n").as_bytes());
    }

    #[test]
    fn a_derived_chunk_keeps_times_and_names() {
        let items = items(&[1, 2, 3, 4]);
        let derived = chunk(&items).derive(|json| (json != items[1].json).then(|| Bytes::from_static(b"{}"))).unwrap();
        let (third, fourth) = (items[2].at, items[3].at.next_tick());
        assert_eq!(derived.rows_within(Span::new(third, fourth)), 1..3);
        let whole = chunk(&items);
        assert_eq!(derived.names(1..3), whole.names(2..4), "items that may still move keep their names");
        assert!(derived.read(0..3).all(|row| row.unwrap().1 == "{}"));
    }

    #[test]
    fn a_damaged_block_is_never_served() {
        let mut broken = Chunk::new(Span::default(), Moment::from_nanos(0), Settled::Yes, &items(&[500]));
        let Text::Deflated(good) = &broken.blocks[0].text else { panic!("not deflated") };
        let cut = good.slice(..good.len() / 2);
        broken.blocks[0].text = Text::Deflated(cut);
        assert_eq!(Arc::new(broken).text(0..1).next(), Some(Err(Damaged)));
    }

    #[test]
    fn weight_covers_text_and_index() {
        let many = chunk(&items(&[100; 200]));
        assert!(many.weight() > 200 * size_of::<Row>() + OVERHEAD);
        assert!(chunk(&[]).weight() >= OVERHEAD);
    }
}
