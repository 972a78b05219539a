//! The bytes of an index file, which lists the records of one full segment.
//!
//! Version 1, all numbers little-endian:
//!
//! ```text
//! magic "kgi1"
//! salt            u64, that of the segment
//! segment_len     u32, bytes of the segment file
//! count           u32
//! a live record:  offset u32, payload_len u32, meta_len u8, meta
//! checksum        u64, XXH3 of all bytes before it, seeded with the salt
//! ```
//!
//! The records are in the order of their offsets. A segment in which records are damaged when it becomes full has no
//! index file, so that whatever lies outside of the listed records of an index was erased.

use bytes::{Buf as _, BufMut as _};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::{CHECKSUM_BYTES, SEGMENT_HEADER_BYTES, record_bytes};

const MAGIC: &[u8; 4] = b"kgi1";
/// Bytes from the magic to the count.
const HEADER_BYTES: usize = 4 + 8 + 4 + 4;
/// Bytes by which an index file is longer than its segment file, at most: an entry is shorter than its record.
pub(super) const MAX_SURPLUS_BYTES: u64 = (HEADER_BYTES + CHECKSUM_BYTES) as u64;

/// A record in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry<'a> {
    pub(super) offset: u32,
    pub(super) payload_len: u32,
    pub(super) meta: &'a [u8],
}

impl IndexEntry<'_> {
    /// Offset of the end of the record in the segment.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset) + record_bytes(self.meta.len(), 0) as u64 + u64::from(self.payload_len)
    }
}

/// Index file in the making.
#[derive(Debug)]
pub(super) struct IndexBuilder {
    salt: u64,
    segment_len: u32,
    count: u32,
    entries: Vec<u8>,
}

impl IndexBuilder {
    /// An index without records.
    pub(super) fn new(salt: u64, segment_len: u32) -> Self {
        Self { salt, segment_len, count: 0, entries: Vec::new() }
    }

    /// Adds a record, whose offset is behind that of the last.
    pub(super) fn push(&mut self, entry: IndexEntry<'_>) {
        let meta_len = u8::try_from(entry.meta.len()).unwrap_or(u8::MAX);
        self.entries.put_u32_le(entry.offset);
        self.entries.put_u32_le(entry.payload_len);
        self.entries.put_u8(meta_len);
        self.entries.put_slice(&entry.meta[..usize::from(meta_len)]);
        self.count += 1;
    }

    /// The bytes of the file.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.entries.len() + CHECKSUM_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u64_le(self.salt);
        bytes.put_u32_le(self.segment_len);
        bytes.put_u32_le(self.count);
        bytes.put_slice(&self.entries);
        bytes.put_u64_le(xxh3_64_with_seed(&bytes, self.salt));
        bytes
    }
}

/// A valid index.
#[derive(Clone, Debug)]
pub(super) struct Index<'a> {
    /// Bytes of the segment file when the index was made.
    pub(super) segment_len: u32,
    entries: Entries<'a>,
}

impl<'a> Index<'a> {
    /// Decodes the index of the segment with this salt; `None` for other bytes, and if records overlap or do not lie in
    /// the segment.
    pub(super) fn decode(bytes: &'a [u8], salt: u64) -> Option<Self> {
        let (covered, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        (u64::from_le_bytes(*checksum) == xxh3_64_with_seed(covered, salt)).then_some(())?;
        let mut rest = covered.strip_prefix(MAGIC)?;
        (rest.len() >= HEADER_BYTES - MAGIC.len() && rest.get_u64_le() == salt).then_some(())?;
        let (segment_len, count) = (rest.get_u32_le(), rest.get_u32_le());
        let mut entries = Entries(rest);
        let mut end = SEGMENT_HEADER_BYTES as u64;
        for _ in 0..count {
            let entry = entries.next().filter(|entry| u64::from(entry.offset) >= end)?;
            end = entry.end();
        }
        let is_consistent = entries.0.is_empty() && end <= u64::from(segment_len);
        is_consistent.then_some(Self { segment_len, entries: Entries(rest) })
    }

    /// The live records, in the order of their offsets.
    pub(super) fn entries(&self) -> Entries<'a> {
        self.entries.clone()
    }
}

/// The entries of an index.
#[derive(Clone, Debug)]
pub(super) struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = IndexEntry<'a>;

    fn next(&mut self) -> Option<IndexEntry<'a>> {
        let (offset, rest) = self.0.split_first_chunk()?;
        let (payload_len, rest) = rest.split_first_chunk()?;
        let (meta_len, rest) = rest.split_first()?;
        let (meta, rest) = rest.split_at_checked(usize::from(*meta_len))?;
        self.0 = rest;
        Some(IndexEntry { offset: u32::from_le_bytes(*offset), payload_len: u32::from_le_bytes(*payload_len), meta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 77;
    const ENTRIES: [IndexEntry<'_>; 2] =
        [IndexEntry { offset: 16, payload_len: 5, meta: b"one" }, IndexEntry { offset: 49, payload_len: 0, meta: b"" }];

    fn build(entries: &[IndexEntry<'_>], segment_len: u32) -> Vec<u8> {
        let mut builder = IndexBuilder::new(SALT, segment_len);
        for entry in entries {
            builder.push(*entry);
        }
        builder.finish()
    }

    #[test]
    fn index_has_the_documented_bytes() {
        let mut wanted = b"kgi1\x4d\0\0\0\0\0\0\0\x4a\0\0\0\x02\0\0\0".to_vec();
        wanted.extend(b"\x10\0\0\0\x05\0\0\0\x03one\x31\0\0\0\0\0\0\0\0");
        wanted.extend(xxh3_64_with_seed(&wanted, SALT).to_le_bytes());
        assert_eq!(build(&ENTRIES, 74), wanted);
        let index = Index::decode(&wanted, SALT).unwrap();
        assert_eq!(index.segment_len, 74);
        assert_eq!(index.entries().collect::<Vec<_>>(), ENTRIES);
    }

    #[test]
    fn changed_or_cut_index_and_that_of_another_segment_are_invalid() {
        let bytes = build(&ENTRIES, 74);
        assert!(Index::decode(&bytes, SALT + 1).is_none());
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 4;
            assert!(Index::decode(&changed, SALT).is_none(), "byte {place}");
            assert!(Index::decode(&bytes[..place], SALT).is_none(), "cut at {place}");
        }
    }

    #[test]
    fn records_that_overlap_or_leave_the_segment_are_invalid() {
        assert!(Index::decode(&build(&ENTRIES, 73), SALT).is_none());
        assert!(Index::decode(&build(&[ENTRIES[1], ENTRIES[0]], 74), SALT).is_none());
        assert!(Index::decode(&build(&[IndexEntry { offset: 15, ..ENTRIES[0] }], 74), SALT).is_none());
        let huge = IndexEntry { offset: u32::MAX, payload_len: u32::MAX, meta: b"" };
        assert!(Index::decode(&build(&[huge], u32::MAX), SALT).is_none());
        assert!(Index::decode(&build(&[], 16), SALT).is_some());
    }
}
