//! A chunk as bytes, for a tier outside of this process.
//!
//! Version 3, all numbers little-endian:
//!
//! ```text
//! magic "kgc3"
//! span.start  span.end  fetched_at          i64 nanoseconds
//! epoch                                     u64
//! settled                                   u8, 0 or 1
//! rows  blocks                              u32 each
//! a row:    at i64, sum u64, end u32, packed_end u32, crc u32
//! a block:  first_row u32, text_len u32, len u32
//! a name:   u64; one a row if it is not settled, none if it is
//! the blocks' bytes, one after the other
//! checksum  of all that stands before, and of the name that it is kept under
//! ```
//!
//! The text of a block is its items, each behind a comma. Its bytes are deflate blocks (RFC 1951): the first comma, stored
//! (six bytes); the rest, which does not refer to that comma, with a byte boundary behind some items, the last one
//! included; and an empty block that says that it is the last (two bytes). Of a row: `sum` is XXH3-64 of each item up to
//! here, added up over the chunk; `end` is where it ends in the text of its block, `packed_end` where the bytes come to
//! the boundary behind it, or 0, and `crc` CRC-32 of the block's text up to its end.
//!
//! Whatever does not read back exactly is a miss: the checksum covers each byte, and the name, so that a value that was
//! put under another name is none.

use std::sync::OnceLock;

use bytes::{Buf as _, BufMut as _, Bytes};
use xxhash_rust::xxh3::Xxh3;

use super::access_counter::AccessCounter;
use super::builder::{COMMA, LAST};
use super::{Block, Chunk, Row, Settled, Text};
use crate::window::{Interval, Timestamp};

const MAGIC: &[u8; 4] = b"kgc3";
/// From the magic to the count of blocks.
const HEAD: usize = 4 + 3 * 8 + 8 + 1 + 2 * 4;
const ROW: usize = 8 + 8 + 3 * 4;
const BLOCK: usize = 3 * 4;
const CHECKSUM: usize = 16;

impl Chunk {
    /// The chunk as bytes that are kept under `name`; `None` for one that lives for one answer only.
    pub fn to_bytes(&self, name: &[u8]) -> Option<Vec<u8>> {
        let Text::Deflated(text) = &self.text else { return None };
        let index = HEAD + self.rows.len() * ROW + self.blocks.len() * BLOCK + self.names.len() * 8;
        let mut bytes = Vec::with_capacity(index + text.len() + CHECKSUM);
        bytes.put_slice(MAGIC);
        for moment in [self.interval.start, self.interval.end, self.fetched_at] {
            bytes.put_i64_le(moment.as_nanos());
        }
        bytes.put_u64_le(self.epoch);
        bytes.put_u8(u8::from(self.settled() == Settled::Yes));
        bytes.put_u32_le(u32::try_from(self.rows.len()).ok()?);
        bytes.put_u32_le(u32::try_from(self.blocks.len()).ok()?);
        for row in &self.rows {
            bytes.put_i64_le(row.at.as_nanos());
            bytes.put_u64_le(row.sum);
            for number in [row.end, row.packed_end, row.crc] {
                bytes.put_u32_le(number);
            }
        }
        for (number, block) in self.blocks.iter().enumerate() {
            for number in [block.first_row, block.text_len, self.bytes_of(number).len()] {
                bytes.put_u32_le(u32::try_from(number).ok()?);
            }
        }
        self.names.iter().for_each(|name| bytes.put_u64_le(*name));
        bytes.put_slice(text);
        let checksum = checksum(&bytes, name);
        bytes.put_u128_le(checksum);
        Some(bytes)
    }

    /// Reads what [`Chunk::to_bytes`] wrote under the same name; `None` for anything else, and for a chunk whose items do
    /// not lie in its span, one after the other.
    pub fn from_bytes(bytes: &Bytes, name: &[u8]) -> Option<Self> {
        Self::from_bytes_unplaced(bytes, name).filter(Self::is_placed)
    }

    /// The same for a chunk that nobody is going to cut: its items may lie anywhere.
    pub fn from_bytes_unplaced(bytes: &Bytes, name: &[u8]) -> Option<Self> {
        let (mut rest, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        (checksum(rest, name).to_le_bytes() == *sum).then_some(())?;
        (rest.len() >= HEAD && rest.copy_to_bytes(4) == MAGIC[..]).then_some(())?;
        let mut moment = || Timestamp::from_nanos(rest.get_i64_le());
        let (interval, fetched_at) = (Interval::new(moment(), moment()), moment());
        let epoch = rest.get_u64_le();
        let settled = rest.get_u8() == 1;
        let (rows, blocks) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
        let names = if settled { 0 } else { rows };
        let index = rows.checked_mul(ROW)?.checked_add(blocks.checked_mul(BLOCK)?)?.checked_add(names * 8)?;
        (rest.len() >= index).then_some(())?;
        let rows: Box<[Row]> = (0..rows)
            .map(|_| Row {
                at: Timestamp::from_nanos(rest.get_i64_le()),
                sum: rest.get_u64_le(),
                end: rest.get_u32_le(),
                packed_end: rest.get_u32_le(),
                crc: rest.get_u32_le(),
            })
            .collect();
        let mut start = 0;
        let blocks: Box<[Block]> = (0..blocks)
            .map(|_| {
                let [first_row, text_len, len] = [(); 3].map(|()| rest.get_u32_le() as usize);
                let block = Block { first_row, start, text_len, reads: AccessCounter::default() };
                start += len;
                block
            })
            .collect();
        let names = (0..names).map(|_| rest.get_u64_le()).collect();
        // What it was read from is let go of, index and all.
        let text = (rest.len() == start).then(|| Text::Deflated(Bytes::copy_from_slice(rest)))?;
        let (shared, hot, alive) = (false.into(), OnceLock::new(), OnceLock::new());
        let chunk = Self { interval, fetched_at, epoch, rows, blocks, text, names, shared, hot, alive };
        chunk.makes_sense().then_some(chunk)
    }

    /// Whether its items can be found by their time.
    fn is_placed(&self) -> bool {
        let in_order = self.rows.is_sorted_by_key(|row| row.at);
        in_order && self.rows.iter().all(|row| self.interval.contains(row.at))
    }

    /// Whether the index can be used without a look beyond its bounds.
    fn makes_sense(&self) -> bool {
        let mut first_rows = self.blocks.iter().map(|block| block.first_row);
        let starts = first_rows.next() == (!self.rows.is_empty()).then_some(0);
        let ascend = self.blocks.windows(2).all(|pair| pair[0].first_row < pair[1].first_row);
        let within = self.blocks.last().is_none_or(|last| last.first_row < self.rows.len());
        starts && ascend && within && (0..self.blocks.len()).all(|block| self.ends_fit(block))
    }

    /// Whether the items of a block fill its text, each behind a comma, and its bytes.
    fn ends_fit(&self, block: usize) -> bool {
        let rows = &self.rows[self.blocks[block].first_row..self.rows_end(block)];
        let ascend = rows.is_sorted_by(|one, next| one.end < next.end) && rows.first().is_some_and(|row| row.end > 0);
        let mut boundaries = rows.iter().map(|row| row.packed_end as usize).filter(|end| *end > 0);
        let bytes_end = self.bytes_of(block).len().checked_sub(LAST.len());
        let fits = boundaries.clone().is_sorted_by(|one, next| one < next)
            && boundaries.next().is_some_and(|first| first >= COMMA.len());
        let last = rows.last();
        ascend
            && fits
            && last.is_some_and(|last| last.end as usize == self.blocks[block].text_len)
            && last.map(|last| last.packed_end as usize) == bytes_end
    }

    fn settled(&self) -> Settled {
        if self.names.is_empty() && !self.rows.is_empty() { Settled::Yes } else { Settled::No }
    }
}

fn checksum(bytes: &[u8], name: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(name);
    hash.update(bytes);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::paging::Item;

    const NAME: &[u8] = b"a name";

    fn chunk(count: usize, settled: Settled) -> Chunk {
        let item = |n: usize| Item {
            at: Timestamp::from_nanos(i64::try_from(n / 2).unwrap()),
            id: format!("{n}").into(),
            json: format!(r#"{{"n":{n},"text":"{}"}}"#, "words and words ".repeat(n * 100)).into(),
        };
        let items: Vec<Item> = (0..count).map(item).collect();
        let interval = Interval::new(Timestamp::from_nanos(0), Timestamp::from_nanos(1000));
        Chunk::new(interval, Timestamp::from_nanos(77), settled, &items).with_epoch(1_789_000_000_000)
    }

    fn read(chunk: &Chunk) -> Vec<Bytes> {
        chunk.read(0..chunk.len()).map(|row| row.unwrap().1).collect()
    }

    #[test]
    fn a_chunk_comes_back_as_it_was() {
        for (count, settled) in
            [(0, Settled::No), (0, Settled::Yes), (1, Settled::Yes), (30, Settled::No), (30, Settled::Yes)]
        {
            let chunk = chunk(count, settled);
            let back = Chunk::from_bytes(&chunk.to_bytes(NAME).unwrap().into(), NAME).unwrap();
            assert_eq!((back.interval(), back.fetched_at(), back.len()), (chunk.interval(), chunk.fetched_at(), count));
            assert_eq!(back.epoch(), 1_789_000_000_000);
            assert_eq!(read(&back), read(&chunk));
            assert_eq!(back.id_hashes(0..count), chunk.id_hashes(0..count));
            assert_eq!((back.sum(0..count), back.weight()), (chunk.sum(0..count), chunk.weight()));
        }
    }

    #[test]
    fn a_derived_chunk_is_kept_only_when_it_is_packed() {
        let derived = chunk(30, Settled::No).derive(Some).unwrap();
        assert!(derived.to_bytes(NAME).is_none());
        let back = Chunk::from_bytes(&derived.packed().unwrap().to_bytes(NAME).unwrap().into(), NAME).unwrap();
        assert_eq!((read(&back), back.id_hashes(0..30)), (read(&derived), derived.id_hashes(0..30)));
    }

    #[test]
    fn every_byte_counts_and_so_does_the_name() {
        let bytes = chunk(12, Settled::No).to_bytes(NAME).unwrap();
        for place in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] ^= flip;
                assert!(Chunk::from_bytes(&damaged.into(), NAME).is_none(), "byte {place} of {}", bytes.len());
            }
            assert!(Chunk::from_bytes(&bytes[..place].to_vec().into(), NAME).is_none(), "cut at {place}");
        }
        assert!(Chunk::from_bytes(&bytes.into(), b"another name").is_none());
    }

    proptest! {
        /// Even a value with a right checksum cannot make an answer look beyond its bounds.
        #[test]
        fn nonsense_with_a_right_checksum_is_a_miss_or_harmless(place in any::<prop::sample::Index>(), byte in any::<u8>(), settled in any::<bool>()) {
            let chunk = chunk(12, if settled { Settled::Yes } else { Settled::No });
            let mut bytes = chunk.to_bytes(NAME).unwrap();
            let covered = bytes.len() - CHECKSUM;
            bytes[place.index(covered)] = byte;
            let sum = checksum(&bytes[..covered], NAME).to_le_bytes();
            bytes[covered..].copy_from_slice(&sum);
            if let Some(back) = Chunk::from_bytes(&bytes.into(), NAME) {
                let _ = back.read(0..back.len()).count();
                let _ = back.text_len(0..back.len());
                let _ = back.rows_within(back.interval());
            }
        }
    }
}
