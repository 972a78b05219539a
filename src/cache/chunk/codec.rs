//! The bytes of a chunk on disk and in Redis.
//!
//! Version 4, all numbers little-endian:
//!
//! ```text
//! magic "kgc4"
//! start  end  fetched_at                    i64 nanoseconds
//! epoch                                     u64
//! settled                                   u8, 0 or 1
//! rows  blocks                              u32 each
//! a row:    timestamp i64, sum u64, end u32, deflated_end u32, crc u32
//! a block:  first_row u32, text_len u32, len u32
//! a hash of a segmentID: u64; one a row if the chunk is not settled, none if it is
//! the filter of ids; see `ids_codec`
//! the blocks' bytes, one after the other
//! checksum  u128, XXH3 of the name of the value and of all bytes before it
//! ```
//!
//! The text of a block is its items, each after a comma. Its bytes are deflate blocks (RFC 1951): the first comma,
//! stored (six bytes); the rest, which does not refer to that comma, with a byte boundary after some items, the last
//! one included; and an empty block that is marked as the last (two bytes). In a row, `sum` is the sum of the XXH3-64
//! of the items of the chunk up to this one, `end` is where the item ends in the text of its block, `deflated_end` is
//! where the bytes come to the boundary after it, or 0, and `crc` is the CRC-32 of the text of the block up to its end.
//!
//! Bytes that do not decode exactly are a miss. The checksum covers each byte, and the name, so that a value that was
//! moved to another name is a miss, too.

use std::sync::OnceLock;

use bytes::{Buf as _, BufMut as _, Bytes};
use xxhash_rust::xxh3::Xxh3;

use super::access_counter::AccessCounter;
use super::ids_codec;
use super::layout::{Block, COMMA_BLOCK, Chunk, LAST_BLOCK, Row, Settled, Text};
use crate::window::{Interval, Timestamp};

const MAGIC: &[u8; 4] = b"kgc4";
/// Bytes from the magic to the count of blocks.
const HEADER_LEN: usize = 4 + 3 * 8 + 8 + 1 + 2 * 4;
/// Bytes of a row.
const ROW_LEN: usize = 8 + 8 + 3 * 4;
/// Bytes of a block in the index.
const BLOCK_LEN: usize = 3 * 4;
/// Most bytes that one byte of a deflate block inflates to: two bits stand for at most 258 bytes.
const MAX_DEFLATE_RATIO: usize = 258 * 8 / 2;
/// Bytes of the checksum.
pub(super) const CHECKSUM_LEN: usize = 16;

impl Chunk {
    /// Encodes the chunk as the value of `name`; `None` if it was derived for a single answer.
    pub fn to_bytes(&self, name: &[u8]) -> Option<Vec<u8>> {
        let Text::Deflated(text) = &self.text else { return None };
        let hashes = self.id_hashes.len() * 8 + ids_codec::encoded_len(&self.ids);
        let index = HEADER_LEN + self.rows.len() * ROW_LEN + self.blocks.len() * BLOCK_LEN + hashes;
        let mut bytes = Vec::with_capacity(index + text.len() + CHECKSUM_LEN);
        bytes.put_slice(MAGIC);
        for timestamp in [self.interval.start, self.interval.end, self.fetched_at] {
            bytes.put_i64_le(timestamp.as_nanos());
        }
        bytes.put_u64_le(self.epoch);
        bytes.put_u8(u8::from(self.settled() == Settled::Yes));
        bytes.put_u32_le(u32::try_from(self.rows.len()).ok()?);
        bytes.put_u32_le(u32::try_from(self.blocks.len()).ok()?);
        for row in &self.rows {
            bytes.put_i64_le(row.timestamp.as_nanos());
            bytes.put_u64_le(row.sum);
            for number in [row.end, row.deflated_end, row.crc] {
                bytes.put_u32_le(number);
            }
        }
        for (number, block) in self.blocks.iter().enumerate() {
            for number in [block.first_row, block.text_len, self.block_bytes(number).len()] {
                bytes.put_u32_le(u32::try_from(number).ok()?);
            }
        }
        self.id_hashes.iter().for_each(|hash| bytes.put_u64_le(*hash));
        ids_codec::put(&mut bytes, &self.ids);
        bytes.put_slice(text);
        let checksum = checksum(&bytes, name);
        bytes.put_u128_le(checksum);
        Some(bytes)
    }

    /// Decodes the value of `name` that [`Chunk::to_bytes`] encoded; `None` for other bytes, and for a chunk whose
    /// items are not in order or do not lie in its interval.
    pub fn from_bytes(bytes: &Bytes, name: &[u8]) -> Option<Self> {
        Self::from_bytes_unplaced(bytes, name).filter(Self::is_placed)
    }

    /// Decodes a chunk of a window that is not cut by time: its items may lie anywhere.
    pub fn from_bytes_unplaced(bytes: &Bytes, name: &[u8]) -> Option<Self> {
        let (mut rest, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_LEN)?)?;
        (checksum(rest, name).to_le_bytes() == *sum).then_some(())?;
        (rest.len() >= HEADER_LEN && rest.copy_to_bytes(4) == MAGIC[..]).then_some(())?;
        let mut timestamp = || Timestamp::from_nanos(rest.get_i64_le());
        let (interval, fetched_at) = (Interval::new(timestamp(), timestamp()), timestamp());
        let epoch = rest.get_u64_le();
        let settled = rest.get_u8() == 1;
        let (rows, blocks) = (rest.get_u32_le() as usize, rest.get_u32_le() as usize);
        let hash_count = if settled { 0 } else { rows };
        let index =
            rows.checked_mul(ROW_LEN)?.checked_add(blocks.checked_mul(BLOCK_LEN)?)?.checked_add(hash_count * 8)?;
        (rest.len() >= index).then_some(())?;
        let rows: Box<[Row]> = (0..rows)
            .map(|_| Row {
                timestamp: Timestamp::from_nanos(rest.get_i64_le()),
                sum: rest.get_u64_le(),
                end: rest.get_u32_le(),
                deflated_end: rest.get_u32_le(),
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
        let id_hashes = (0..hash_count).map(|_| rest.get_u64_le()).collect();
        let ids = ids_codec::take(&mut rest)?;
        // A copy, so that the buffer that holds the index as well is freed.
        let text = (rest.len() == start).then(|| Text::Deflated(Bytes::copy_from_slice(rest)))?;
        let (shared, block_cache, guard) = (false.into(), OnceLock::new(), OnceLock::new());
        let chunk =
            Self { interval, fetched_at, epoch, rows, blocks, text, id_hashes, ids, shared, block_cache, guard };
        chunk.is_consistent().then_some(chunk)
    }

    /// Whether the items are in order and lie in the interval.
    fn is_placed(&self) -> bool {
        let in_order = self.rows.is_sorted_by_key(|row| row.timestamp);
        in_order && self.rows.iter().all(|row| self.interval.contains(row.timestamp))
    }

    /// Whether the index refers to nothing outside of its bounds.
    fn is_consistent(&self) -> bool {
        let mut first_rows = self.blocks.iter().map(|block| block.first_row);
        let starts = first_rows.next() == (!self.rows.is_empty()).then_some(0);
        let ascend = self.blocks.windows(2).all(|pair| pair[0].first_row < pair[1].first_row);
        let within = self.blocks.last().is_none_or(|last| last.first_row < self.rows.len());
        starts && ascend && within && (0..self.blocks.len()).all(|block| self.is_block_consistent(block))
    }

    /// Whether the items of a block fill its text and its bytes.
    fn is_block_consistent(&self, block: usize) -> bool {
        let rows = &self.rows[self.blocks[block].first_row..self.rows_end(block)];
        let ascend = rows.is_sorted_by(|one, next| one.end < next.end) && rows.first().is_some_and(|row| row.end > 0);
        let mut boundaries = rows.iter().map(|row| row.deflated_end as usize).filter(|end| *end > 0);
        let bytes_end = self.block_bytes(block).len().checked_sub(LAST_BLOCK.len());
        let fits = boundaries.clone().is_sorted_by(|one, next| one < next)
            && boundaries.next().is_some_and(|first| first >= COMMA_BLOCK.len());
        let last = rows.last();
        ascend
            && fits
            && last.is_some_and(|last| last.end as usize == self.blocks[block].text_len)
            // So much memory is allocated before the block is inflated.
            && self.blocks[block].text_len <= self.block_bytes(block).len() * MAX_DEFLATE_RATIO
            && last.map(|last| last.deflated_end as usize) == bytes_end
    }

    fn settled(&self) -> Settled {
        if self.id_hashes.is_empty() && !self.rows.is_empty() { Settled::Yes } else { Settled::No }
    }
}

pub(super) fn checksum(bytes: &[u8], name: &[u8]) -> u128 {
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
            json: format!(r#"{{"n":{n},"segmentID":"{n}","text":"{}"}}"#, "words and words ".repeat(n * 100)).into(),
        };
        let items: Vec<Item> = (0..count).map(item).collect();
        let interval = Interval::new(Timestamp::from_nanos(0), Timestamp::from_nanos(1000));
        Chunk::new(interval, Timestamp::from_nanos(77), settled, &items).with_epoch(1_789_000_000_000)
    }

    fn read(chunk: &Chunk) -> Vec<Bytes> {
        chunk.read(0..chunk.len()).map(|row| row.unwrap().1).collect()
    }

    #[test]
    fn encoded_chunk_decodes_to_the_same() {
        for (count, settled) in
            [(0, Settled::No), (0, Settled::Yes), (1, Settled::Yes), (30, Settled::No), (30, Settled::Yes)]
        {
            let chunk = chunk(count, settled);
            let back = Chunk::from_bytes(&chunk.to_bytes(NAME).unwrap().into(), NAME).unwrap();
            assert_eq!((back.interval(), back.fetched_at(), back.len()), (chunk.interval(), chunk.fetched_at(), count));
            assert_eq!(back.epoch(), 1_789_000_000_000);
            assert_eq!(read(&back), read(&chunk));
            assert_eq!((back.id_hashes(0..count), back.ids()), (chunk.id_hashes(0..count), chunk.ids()));
            assert_eq!((back.sum(0..count), back.weight()), (chunk.sum(0..count), chunk.weight()));
        }
    }

    #[test]
    fn derived_chunk_encodes_only_after_deflating() {
        let derived = chunk(30, Settled::No).derive(Some).unwrap();
        assert!(derived.to_bytes(NAME).is_none());
        let back = Chunk::from_bytes(&derived.deflated().unwrap().to_bytes(NAME).unwrap().into(), NAME).unwrap();
        assert_eq!((read(&back), back.id_hashes(0..30)), (read(&derived), derived.id_hashes(0..30)));
        assert_eq!(back.ids(), chunk(30, Settled::No).ids());
    }

    #[test]
    fn changed_byte_or_name_is_a_miss() {
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

    #[test]
    fn text_longer_than_its_bytes_inflate_to_is_a_miss() {
        let bytes = chunk(1, Settled::Yes).to_bytes(NAME).unwrap();
        let text_len = HEADER_LEN + ROW_LEN + 4;
        let decode = |len: u32| {
            let mut changed = bytes.clone();
            for place in [HEADER_LEN + 16, text_len] {
                changed[place..place + 4].copy_from_slice(&len.to_le_bytes());
            }
            let covered = changed.len() - CHECKSUM_LEN;
            let sum = checksum(&changed[..covered], NAME).to_le_bytes();
            changed[covered..].copy_from_slice(&sum);
            Chunk::from_bytes(&changed.into(), NAME)
        };
        assert!(decode(100).is_some_and(|chunk| chunk.read(0..1).any(|row| row.is_err())));
        assert!(decode(u32::MAX).is_none(), "it would take 4 GiB");
    }

    proptest! {
        /// A value with a right checksum cannot make an answer read out of bounds.
        #[test]
        fn corrupt_value_with_right_checksum_is_a_miss_or_harmless(
            place in any::<prop::sample::Index>(), byte in any::<u8>(), settled in any::<bool>(),
        ) {
            let chunk = chunk(12, if settled { Settled::Yes } else { Settled::No });
            let mut bytes = chunk.to_bytes(NAME).unwrap();
            let covered = bytes.len() - CHECKSUM_LEN;
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
