//! Fuzz target of the files of a segment log.

use super::codec::{
    Head, MAX_SEGMENT_BYTES, RecordState, SEGMENT_HEADER_BYTES, decode_record, decode_segment_header,
    encode_erased_head, encode_record, encode_segment_header,
};
use super::index::{Index, IndexBuilder, IndexEntry};
use super::walk::{Extent, walk};
use crate::fuzz_targets::Input;

/// Salt of the segments that are made from an input, and of files without a header.
const SALT: u64 = 0x5eed;
/// Bytes of a segment that is made from an input, about.
const MAX_BYTES: usize = 100_000;

/// A live record in a list: offset, meta bytes, length of the payload.
type Listed = (u32, Vec<u8>, u32);
/// Meta bytes and payload of a record.
type Written = (Vec<u8>, Vec<u8>);

/// Arbitrary bytes, or a segment or an index with changes. Its records are listed as a naive reader lists them, lie in
/// the file without an overlap, and read back as they were or not at all.
///
/// # Panics
/// If a property does not hold.
pub fn disk_record(data: &[u8]) {
    let mut input = Input::new(data);
    let (bytes, written) = match input.byte() % 3 {
        0 => (input.rest().to_vec(), Vec::new()),
        1 => changed_segment(&mut input),
        _ => (changed_index(&mut input), Vec::new()),
    };
    check_segment(&bytes, &written);
    check_index(&bytes);
}

/// A segment with changes, and the records that it had.
fn changed_segment(input: &mut Input<'_>) -> (Vec<u8>, Vec<Written>) {
    let mut bytes = encode_segment_header(SALT).to_vec();
    let mut written = Vec::new();
    for _ in 0..input.byte() % 16 {
        let offset = u32::try_from(bytes.len()).unwrap_or_default();
        let (meta_len, payload_len, fill) = (usize::from(input.byte()), input.below(9000), input.byte());
        let (meta, payload) = (vec![fill; meta_len], vec![!fill; payload_len]);
        if fill % 4 == 0 {
            let payload_len = u32::try_from(payload_len).unwrap_or_default();
            bytes.extend(encode_erased_head(meta_len, payload_len, SALT, offset).unwrap_or_default());
            bytes.extend(vec![0; payload.len() + 8]);
        } else {
            bytes.extend(encode_record(&meta, &payload, SALT, offset).unwrap_or_default());
            written.push((meta, payload));
        }
    }
    change(&mut bytes, input);
    (bytes, written)
}

/// An index with changes.
fn changed_index(input: &mut Input<'_>) -> Vec<u8> {
    let mut builder = IndexBuilder::new(SALT, u32::try_from(input.below(1 << 16)).unwrap_or_default());
    let mut offset = 16;
    for _ in 0..input.byte() % 16 {
        let payload_len = u32::try_from(input.below(5000)).unwrap_or_default();
        let meta = vec![7; usize::from(input.byte())];
        builder.push(IndexEntry { offset, payload_len, meta: &meta });
        offset += payload_len + u32::from(input.byte());
    }
    let mut bytes = builder.finish();
    change(&mut bytes, input);
    bytes
}

/// Truncates, repeats, removes and flips bytes, as the input says.
fn change(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    while !input.is_at_end() && bytes.len() < MAX_BYTES {
        let (operation, place) = (input.byte(), input.below(bytes.len().clamp(1, 1 << 16)));
        match operation % 5 {
            0 => bytes.truncate(place),
            1 => bytes.get_mut(place..).into_iter().flatten().take(input.below(300)).for_each(|byte| *byte = 0),
            2 => bytes.extend_from_within(place..),
            3 => drop(bytes.drain(place..bytes.len().min(place + input.below(300)))),
            _ => bytes.get_mut(place).into_iter().for_each(|byte| *byte ^= input.byte()),
        }
    }
}

fn check_segment(bytes: &[u8], written: &[Written]) {
    let salt = decode_segment_header(bytes).unwrap_or(SALT);
    let len = u32::try_from(bytes.len()).unwrap_or(MAX_SEGMENT_BYTES);
    let mut listed: Vec<Listed> = Vec::new();
    let mut gap_end = 0;
    let mut most_at_once = 0;
    let mut read = |buffer: &mut [u8], offset: u64| {
        most_at_once = most_at_once.max(buffer.len());
        Ok(read_slice(bytes, buffer, offset))
    };
    let end = walk(&mut read, len, salt, &mut |extent| match extent {
        Extent::Live { offset, meta, payload_len } => listed.push((offset, meta.to_vec(), payload_len)),
        Extent::Erased => {}
        Extent::Gap { start, end } => {
            assert!(start >= gap_end && start < end && end <= len, "gaps are in order");
            gap_end = end;
        }
    });
    let end = end.expect("reading a slice never fails");
    assert!(most_at_once <= bytes.len(), "a buffer is larger than the file");
    assert_eq!((listed.clone(), end), list_naively(bytes, salt));
    for (offset, meta, payload_len) in listed {
        let record = &bytes[usize::try_from(offset).unwrap_or_default()..];
        let Some(parts) = decode_record(record, salt, offset) else { continue };
        assert_eq!(record[parts.meta.clone()], meta);
        assert_eq!(parts.payload.len(), usize::try_from(payload_len).unwrap_or_default());
        let is_written = |(meta, payload): &Written| {
            record[parts.meta.clone()] == *meta && record[parts.payload.clone()] == *payload
        };
        assert!(written.is_empty() || written.iter().any(is_written), "a record that was never written");
    }
}

/// Tries each offset, and skips the records that it finds. Returns the live ones, and the end of the last.
fn list_naively(bytes: &[u8], salt: u64) -> (Vec<Listed>, u32) {
    let (mut listed, mut place, mut end) = (Vec::new(), SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES);
    while place < bytes.len() {
        let offset = u32::try_from(place).unwrap_or_default();
        let head = Head::decode(&bytes[place..], salt, offset);
        let whole = head.filter(|head| head.record_bytes() <= (bytes.len() - place) as u64);
        let Some(head) = whole else {
            place += 1;
            continue;
        };
        if head.state == RecordState::Live {
            listed.push((offset, head.meta.to_vec(), head.payload_len));
        }
        place += usize::try_from(head.record_bytes()).unwrap_or(usize::MAX);
        end = place;
    }
    (listed, u32::try_from(end).unwrap_or_default())
}

/// A valid index lists records in order and within the segment, and is the same after it was encoded again.
fn check_index(bytes: &[u8]) {
    let Some(index) = Index::decode(bytes, SALT) else { return };
    let mut builder = IndexBuilder::new(SALT, index.segment_len);
    let mut end = SEGMENT_HEADER_BYTES as u64;
    for entry in index.entries() {
        assert!(u64::from(entry.offset) >= end && entry.end() <= u64::from(index.segment_len));
        end = entry.end();
        builder.push(entry);
    }
    assert_eq!(builder.finish(), bytes, "encoded again");
}

fn read_slice(bytes: &[u8], buffer: &mut [u8], offset: u64) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let count = rest.len().min(buffer.len());
    buffer[..count].copy_from_slice(&rest[..count]);
    count
}
