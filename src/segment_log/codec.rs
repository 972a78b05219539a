//! The bytes of a segment file, which holds records on disk.
//!
//! Version 1, all numbers little-endian:
//!
//! ```text
//! magic "kgs1"
//! unused     u32, 0
//! salt       u64, random
//! a record:  magic "kgr"
//!            state             u8, 1 live, 0 erased
//!            meta_len          u8
//!            payload_len       u32
//!            meta
//!            checksum          u64, XXH3 of the record's bytes before it, seeded with the salt plus the record's offset
//!            payload
//!            checksum          u64, XXH3 of the payload, seeded with the checksum before it
//! ```
//!
//! Records follow each other without a gap. The part of a record up to its first checksum is its head. The second
//! checksum depends on the first, so it covers the meta bytes and the payload together. An erased record keeps its
//! lengths; its meta bytes, its payload and its second checksum are zeros.
//!
//! Where a head is damaged, the next one is searched for by its magic and its checksum. The salt keeps the text of a
//! payload from being taken for a record, whoever wrote it, and so does the offset for a record that was moved.

use std::ops::Range;

use bytes::BufMut as _;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Magic of a segment file with the version of the format.
const SEGMENT_MAGIC: &[u8; 4] = b"kgs1";
/// Bytes before the first record.
pub(super) const SEGMENT_HEADER_BYTES: usize = 16;
/// Largest segment file.
pub(super) const MAX_SEGMENT_BYTES: u32 = 1 << 30;

/// Magic of a record.
pub(super) const RECORD_MAGIC: &[u8; 3] = b"kgr";
/// Bytes of a record before its meta bytes.
const FIXED_BYTES: usize = 3 + 1 + 1 + 4;
/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 8;
/// Largest number of meta bytes.
pub(super) const MAX_META_BYTES: usize = 255;
/// Bytes of the largest head.
pub(super) const MAX_HEAD_BYTES: usize = FIXED_BYTES + MAX_META_BYTES + CHECKSUM_BYTES;
/// Bytes of a record with neither meta bytes nor a payload.
pub(super) const MIN_RECORD_BYTES: usize = record_bytes(0, 0);

/// Bytes of a record.
pub(super) const fn record_bytes(meta_len: usize, payload_len: usize) -> usize {
    head_bytes(meta_len) + payload_len + CHECKSUM_BYTES
}

/// Bytes of the head of a record.
pub(super) const fn head_bytes(meta_len: usize) -> usize {
    FIXED_BYTES + meta_len + CHECKSUM_BYTES
}

/// Encodes the header of a segment file.
pub(super) fn encode_segment_header(salt: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..4].copy_from_slice(SEGMENT_MAGIC);
    header[8..].copy_from_slice(&salt.to_le_bytes());
    header
}

/// The salt in the header of a segment file; `None` for a file of another version or content.
pub(super) fn decode_segment_header(bytes: &[u8]) -> Option<u64> {
    let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?;
    let salt = header.last_chunk::<8>()?;
    header.starts_with(SEGMENT_MAGIC).then_some(u64::from_le_bytes(*salt))
}

/// Whether a record may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordState {
    Live = 1,
    Erased = 0,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) state: RecordState,
    pub(super) meta: &'a [u8],
    pub(super) payload_len: u32,
    checksum: u64,
}

impl<'a> Head<'a> {
    /// Decodes the head that `bytes` begin with, of a record at `offset`; `None` if it is damaged or cut off.
    pub(super) fn decode(bytes: &'a [u8], salt: u64, offset: u32) -> Option<Self> {
        let rest = bytes.strip_prefix(RECORD_MAGIC)?;
        let (&[state, meta_len, ref payload_len @ ..], _) = rest.split_first_chunk::<6>()?;
        let covered_len = FIXED_BYTES + usize::from(meta_len);
        let (covered, rest) = bytes.split_at_checked(covered_len)?;
        let checksum = u64::from_le_bytes(*rest.first_chunk()?);
        (checksum == head_checksum(covered, salt, offset)).then_some(())?;
        let state = match state {
            1 => RecordState::Live,
            0 => RecordState::Erased,
            _ => return None,
        };
        Some(Self { state, meta: &covered[FIXED_BYTES..], payload_len: u32::from_le_bytes(*payload_len), checksum })
    }

    /// Bytes of the record.
    pub(super) fn record_bytes(&self) -> u64 {
        (head_bytes(self.meta.len()) + CHECKSUM_BYTES) as u64 + u64::from(self.payload_len)
    }
}

/// Encodes a record at `offset` of a segment. `None` if the meta bytes or the payload are too long.
pub(super) fn encode_record(meta: &[u8], payload: &[u8], salt: u64, offset: u32) -> Option<Vec<u8>> {
    let payload_len = u32::try_from(payload.len()).ok()?;
    let mut bytes = Vec::with_capacity(record_bytes(meta.len(), payload.len()));
    let checksum = put_head(&mut bytes, RecordState::Live, meta, payload_len, (salt, offset))?;
    bytes.put_slice(payload);
    bytes.put_u64_le(xxh3_64_with_seed(payload, checksum));
    Some(bytes)
}

/// Encodes the head of an erased record of the same lengths; `None` if the meta bytes are too many.
pub(super) fn encode_erased_head(meta_len: usize, payload_len: u32, salt: u64, offset: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(head_bytes(meta_len));
    put_head(&mut bytes, RecordState::Erased, &vec![0; meta_len], payload_len, (salt, offset))?;
    Some(bytes)
}

/// Appends a head to `bytes`, which are empty, and returns its checksum. `place` is salt and offset.
fn put_head(
    bytes: &mut Vec<u8>,
    state: RecordState,
    meta: &[u8],
    payload_len: u32,
    (salt, offset): (u64, u32),
) -> Option<u64> {
    bytes.put_slice(RECORD_MAGIC);
    bytes.put_u8(state as u8);
    bytes.put_u8(u8::try_from(meta.len()).ok()?);
    bytes.put_u32_le(payload_len);
    bytes.put_slice(meta);
    let checksum = head_checksum(bytes, salt, offset);
    bytes.put_u64_le(checksum);
    Some(checksum)
}

fn head_checksum(covered: &[u8], salt: u64, offset: u32) -> u64 {
    xxh3_64_with_seed(covered, salt.wrapping_add(u64::from(offset)))
}

/// Where the parts of a record lie in its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordParts {
    pub(super) meta: Range<usize>,
    pub(super) payload: Range<usize>,
}

/// Finds the parts of the record that `bytes` begin with, of a record at `offset`; `None` if it is erased, damaged or
/// cut off.
pub(super) fn decode_record(bytes: &[u8], salt: u64, offset: u32) -> Option<RecordParts> {
    let head = Head::decode(bytes, salt, offset).filter(|head| head.state == RecordState::Live)?;
    let start = head_bytes(head.meta.len());
    let end = start.checked_add(usize::try_from(head.payload_len).ok()?)?;
    let payload = bytes.get(start..end)?;
    let checksum = u64::from_le_bytes(*bytes[end..].first_chunk()?);
    let parts = RecordParts { meta: FIXED_BYTES..FIXED_BYTES + head.meta.len(), payload: start..end };
    (checksum == xxh3_64_with_seed(payload, head.checksum)).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0xfeed_0000_1111_2222;

    #[test]
    fn record_has_the_documented_bytes() {
        let bytes = encode_record(b"me", b"payload", SALT, 16).unwrap();
        let mut wanted = b"kgr\x01\x02\x07\0\0\0me".to_vec();
        let head = xxh3_64_with_seed(&wanted, SALT + 16);
        wanted.extend(head.to_le_bytes());
        wanted.extend(b"payload");
        wanted.extend(xxh3_64_with_seed(b"payload", head).to_le_bytes());
        assert_eq!(bytes, wanted);
        assert_eq!(bytes.len(), record_bytes(2, 7));
        assert_eq!(encode_segment_header(7), *b"kgs1\0\0\0\0\x07\0\0\0\0\0\0\0");
    }

    #[test]
    fn changed_cut_or_moved_record_is_damaged() {
        let bytes = encode_record(b"me", b"payload", SALT, 16).unwrap();
        let parts = decode_record(&bytes, SALT, 16).unwrap();
        assert_eq!((&bytes[parts.meta], &bytes[parts.payload]), (&b"me"[..], &b"payload"[..]));
        for place in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[place] ^= flip;
                assert_eq!(decode_record(&changed, SALT, 16), None, "byte {place}");
            }
            assert_eq!(decode_record(&bytes[..place], SALT, 16), None, "cut at {place}");
        }
        assert_eq!(decode_record(&bytes, SALT, 17), None);
        assert_eq!(decode_record(&bytes, SALT + 1, 16), None);
    }

    #[test]
    fn erased_head_keeps_the_lengths_alone() {
        let erased = encode_erased_head(2, 7, SALT, 16).unwrap();
        let head = Head::decode(&erased, SALT, 16).unwrap();
        assert_eq!((head.state, head.meta, head.payload_len), (RecordState::Erased, &[0, 0][..], 7));
        assert_eq!(head.record_bytes(), record_bytes(2, 7) as u64);
        assert_eq!(decode_record(&[&erased[..], &[0; 15]].concat(), SALT, 16), None);
    }

    #[test]
    fn meta_bytes_over_255_are_refused() {
        assert!(encode_record(&[1; MAX_META_BYTES], b"", SALT, 16).is_some());
        assert!(encode_record(&[1; MAX_META_BYTES + 1], b"", SALT, 16).is_none());
    }

    #[test]
    fn segment_header_of_another_version_is_refused() {
        let header = encode_segment_header(SALT);
        assert_eq!(decode_segment_header(&header), Some(SALT));
        assert_eq!(decode_segment_header(&header[..15]), None);
        let mut other = header;
        other[3] = b'2';
        assert_eq!(decode_segment_header(&other), None);
    }
}
