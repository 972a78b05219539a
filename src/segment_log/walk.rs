//! Finds the records of a segment by their heads, and what lies between them.

use std::io;

use super::codec::{Head, MAX_HEAD_BYTES, RECORD_MAGIC, RecordState, SEGMENT_HEADER_BYTES};

/// Bytes that are read at a head. Records are mostly longer, so that the rest is skipped.
const HEAD_READ_BYTES: usize = 4 << 10;
/// Bytes that are read at once while the next head is searched for.
const SEARCH_READ_BYTES: usize = 256 << 10;

/// Reads bytes at an offset, as `read_at` of a file does.
pub(super) type ReadAt<'a> = &'a mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>;

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent<'a> {
    /// A record with a valid head. Its payload was not read.
    Live { offset: u32, meta: &'a [u8], payload_len: u32 },
    /// An erased record.
    Erased,
    /// Bytes without a valid head, up to the next one or to the end.
    Gap { start: u32, end: u32 },
}

/// Visits all parts of a segment of `len` bytes in their order. Returns the end of its last record.
///
/// # Errors
/// An error of `read`.
pub(super) fn walk(read: ReadAt<'_>, len: u32, salt: u64, visit: &mut dyn FnMut(Extent<'_>)) -> io::Result<u32> {
    let mut window = Window { read, limit: len, start: 0, bytes: Vec::new() };
    let mut offset = u32::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u32::MAX);
    let mut end = offset;
    while offset < window.limit {
        if let Some((head, next)) = window.record_at(offset, HEAD_READ_BYTES, salt)? {
            visit(match head.state {
                RecordState::Live => Extent::Live { offset, meta: head.meta, payload_len: head.payload_len },
                RecordState::Erased => Extent::Erased,
            });
            (offset, end) = (next, next);
        } else {
            let next = window.search(offset + 1, salt)?;
            visit(Extent::Gap { start: offset, end: next });
            offset = next;
        }
    }
    Ok(end)
}

/// The bytes that were read last.
struct Window<'a> {
    read: ReadAt<'a>,
    /// The end of the segment.
    limit: u32,
    /// Offset of `bytes`.
    start: u32,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The head of the record at `offset` and the offset behind the record; `None` if the head is damaged or the record
    /// is cut off at the end of the segment.
    fn record_at(&mut self, offset: u32, read_len: usize, salt: u64) -> io::Result<Option<(Head<'_>, u32)>> {
        self.load(offset, MAX_HEAD_BYTES, read_len)?;
        let limit = self.limit;
        Ok(Head::decode(self.loaded(offset), salt, offset).and_then(|head| {
            let next = u32::try_from(u64::from(offset) + head.record_bytes()).ok()?;
            (next <= limit).then_some((head, next))
        }))
    }

    /// Offset of the first record at `offset` or behind; the end of the segment if there is none.
    fn search(&mut self, mut offset: u32, salt: u64) -> io::Result<u32> {
        loop {
            self.load(offset, RECORD_MAGIC.len(), SEARCH_READ_BYTES)?;
            let bytes = self.loaded(offset);
            let found = bytes.windows(RECORD_MAGIC.len()).position(|part| part == RECORD_MAGIC);
            let Some(place) = found else {
                // The last bytes may be the beginning of a magic.
                let without = u32::try_from((bytes.len() + 1).saturating_sub(RECORD_MAGIC.len())).unwrap_or(u32::MAX);
                if without == 0 {
                    return Ok(self.limit);
                }
                offset += without;
                continue;
            };
            offset += u32::try_from(place).unwrap_or(u32::MAX);
            if self.record_at(offset, SEARCH_READ_BYTES, salt)?.is_some() {
                return Ok(offset);
            }
            offset += 1;
        }
    }

    /// Reads `read_len` bytes unless `wanted` bytes from `offset` on are there, or all up to the end.
    fn load(&mut self, offset: u32, wanted: usize, read_len: usize) -> io::Result<()> {
        let left = usize::try_from(self.limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        if offset >= self.start && self.loaded(offset).len() >= wanted.min(left) {
            return Ok(());
        }
        self.start = offset;
        self.bytes.resize(read_len.min(left), 0);
        let filled = read_full(self.read, &mut self.bytes, u64::from(offset))?;
        if filled < self.bytes.len() {
            // The file is shorter than was said.
            self.limit = offset.saturating_add(u32::try_from(filled).unwrap_or(u32::MAX));
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// The bytes from `offset` on that are there.
    fn loaded(&self, offset: u32) -> &[u8] {
        let place = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.get(place..).unwrap_or_default()
    }
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes.
pub(super) fn read_full(read: ReadAt<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::super::codec::{encode_record, encode_segment_header, record_bytes};
    use super::*;

    const SALT: u64 = 5;

    /// A segment with one record for each payload, and the offsets of the records.
    fn segment(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = encode_segment_header(SALT).to_vec();
        let append = |payload: &Vec<u8>| {
            let offset = bytes.len();
            bytes.extend(encode_record(b"meta", payload, SALT, u32::try_from(offset).unwrap()).unwrap());
            offset
        };
        let offsets = payloads.iter().map(append).collect();
        (bytes, offsets)
    }

    /// The live offsets, the gaps, and the end.
    fn found(bytes: &[u8]) -> (Vec<usize>, Vec<(usize, usize)>, usize) {
        let (mut live, mut gaps) = (Vec::new(), Vec::new());
        let mut read = |buffer: &mut [u8], offset: u64| {
            let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            // Short reads are allowed.
            let count = rest.len().min(buffer.len()).min(10_000);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        let len = u32::try_from(bytes.len()).unwrap();
        let end = walk(&mut read, len, SALT, &mut |extent| match extent {
            Extent::Live { offset, .. } => live.push(offset as usize),
            Extent::Erased => {}
            Extent::Gap { start, end } => gaps.push((start as usize, end as usize)),
        });
        (live, gaps, end.unwrap() as usize)
    }

    #[test]
    fn records_around_damaged_heads_are_found() {
        let (bytes, offsets) = segment(&[vec![1; 10], vec![2; 700_000], b"kgrkgrkgr".to_vec(), vec![], vec![3; 5000]]);
        assert_eq!(found(&bytes), (offsets.clone(), vec![], bytes.len()));
        for damaged in 0..offsets.len() {
            let mut changed = bytes.clone();
            changed[offsets[damaged] + 10] ^= 1;
            let mut rest = offsets.clone();
            let start = rest.remove(damaged);
            let end = offsets.get(damaged + 1).copied().unwrap_or(bytes.len());
            let last_end = if end == bytes.len() { start } else { bytes.len() };
            assert_eq!(found(&changed), (rest, vec![(start, end)], last_end), "record {damaged}");
        }
    }

    #[test]
    fn record_that_is_cut_off_is_a_gap() {
        let (bytes, offsets) = segment(&[vec![1; 10], vec![2; 50]]);
        for cut in offsets[1] + 1..bytes.len() {
            assert_eq!(found(&bytes[..cut]), (vec![16], vec![(offsets[1], cut)], offsets[1]), "cut at {cut}");
        }
        assert_eq!(found(&bytes[..offsets[1]]), (vec![16], vec![], offsets[1]));
        assert_eq!(found(&bytes[..16]), (vec![], vec![], 16));
        assert_eq!(found(&[]), (vec![], vec![], 16));
    }

    #[test]
    fn copy_of_a_record_in_a_payload_is_no_record() {
        let (inner, _) = segment(&[vec![7; 20]]);
        let (mut bytes, offsets) = segment(&[inner, vec![1; 10]]);
        bytes[offsets[0]] ^= 1;
        assert_eq!(found(&bytes).0, [offsets[1]]);
        assert_eq!(bytes.len(), offsets[1] + record_bytes(4, 10));
    }
}
