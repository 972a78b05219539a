//! Fuzz targets of chunks, and of what is cut out of items.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{CHECKSUM_LEN, checksum};
use super::json_strip;
use super::{Chunk, PageRange, Slice};
use crate::fuzz_targets::{Input, chunk_of, items, members};
use crate::paging::Item;
use crate::window::{Interval, Timestamp};

const NAME: &[u8] = b"a name";
/// The most bytes that a byte of deflated text inflates to.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// A chunk of items is compared with the list of them, before and after it was encoded. A changed encoding is a miss,
/// and one whose checksum was made right is read within its bounds.
///
/// # Panics
/// If a property does not hold.
pub fn chunk(data: &[u8]) {
    let mut input = Input::new(data);
    let items = items(&mut input);
    let chunk = chunk_of(&items, &mut input);
    let encoded = chunk.to_bytes(NAME).expect("a deflated chunk");
    let decoded = Chunk::from_bytes(&encoded.clone().into(), NAME).expect("its own encoding");
    assert_eq!(decoded.to_bytes(NAME).expect("a decoded chunk"), encoded);
    for chunk in [Arc::new(chunk), Arc::new(decoded)] {
        compare(&chunk, &items, &mut Input::new(data));
    }
    change(encoded, input);
}

fn compare(chunk: &Arc<Chunk>, items: &[Item], input: &mut Input<'_>) {
    assert_eq!(chunk.len(), items.len());
    let (one, other) = (input.below(items.len() + 1), input.below(items.len() + 1));
    let rows = one.min(other)..one.max(other);
    let wanted: Vec<&Bytes> = items[rows.clone()].iter().map(|item| &item.json).collect();
    let read: Vec<Bytes> = chunk.read(rows.clone()).map(|row| row.expect("a sound block").1).collect();
    assert!(read.iter().eq(wanted.iter().copied()), "{rows:?} of {}", items.len());
    let text: Vec<Bytes> = chunk.clone().text(rows.clone(), true).map(|text| text.expect("a sound block")).collect();
    assert!(text.concat() == read.join(&b','), "{rows:?} of {}", items.len());
    assert_eq!(chunk.text_len(rows.clone()), wanted.iter().map(|json| json.len() as u64).sum::<u64>());

    let (start, length) = (input.below(100), input.below(100));
    let [start, end] = [start, start + length].map(|nanos| Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(0)));
    let within = chunk.rows_within(Interval::new(start, end));
    for (row, item) in items.iter().enumerate() {
        assert_eq!(within.contains(&row), start <= item.at && item.at < end);
    }

    let page = PageRange { offset: input.below(80) as u64, limit: input.flag().then(|| input.below(80) as u64) };
    let slices = [0..one, one..items.len()].map(|rows| Slice { chunk: chunk.clone(), rows });
    let selected = page.of(slices.into());
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = page.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let wanted = items.iter().skip(skip).take(take).map(|item| &item.json);
    let slices = selected.slices.iter();
    let found: Vec<Bytes> = slices
        .flat_map(|slice| slice.chunk.read(slice.rows.clone()))
        .map(|row| row.expect("a sound block").1)
        .collect();
    assert!(found.iter().eq(wanted));
    assert_eq!(selected.count, found.len() as u64);
    assert_eq!(selected.has_more, skip.saturating_add(take) < items.len());
}

/// Changes an encoding as the rest of the input says.
fn change(mut encoded: Vec<u8>, mut input: Input<'_>) {
    let original = encoded.clone();
    let is_summed = input.flag();
    while !input.is_at_end() {
        let (operation, place) = (input.byte(), input.below(encoded.len().clamp(1, 1 << 16)));
        match operation % 4 {
            0 => encoded.truncate(place),
            1 => encoded.insert(place.min(encoded.len()), input.byte()),
            2 => encoded.get_mut(place..).into_iter().flatten().zip(input.part(4)).for_each(|(to, byte)| *to = *byte),
            _ => encoded.get_mut(place).into_iter().for_each(|byte| *byte ^= input.byte()),
        }
    }
    if encoded == original {
        return;
    }
    if !is_summed {
        return assert!(Chunk::from_bytes(&encoded.into(), NAME).is_none(), "a changed encoding");
    }
    let covered = encoded.len().saturating_sub(CHECKSUM_LEN);
    let sum = checksum(&encoded[..covered], NAME).to_le_bytes();
    encoded.truncate(covered);
    encoded.extend(sum);
    if let Some(chunk) = Chunk::from_bytes(&encoded.clone().into(), NAME) {
        read_all(&Arc::new(chunk), encoded.len() as u64);
    }
}

/// Reads a chunk in all ways, each of which ends with data or an error. `size` is that of its encoding.
fn read_all(chunk: &Arc<Chunk>, size: u64) {
    let (all, tail) = (0..chunk.len(), chunk.len() / 2..chunk.len());
    assert!(chunk.text_len(all.clone()) <= size * MAX_DEFLATE_RATIO, "more text than so many bytes inflate to");
    for rows in [all, tail] {
        let _ = chunk.read(rows.clone()).count();
        let _ = chunk.clone().text(rows.clone(), true).count();
        let _ = chunk.clone().lines(rows.clone()).count();
        let _ = chunk.clone().splices(rows.clone(), true).count();
        let _ = (chunk.sum(rows.clone()), chunk.id_hashes(rows));
    }
    let _ = chunk.rows_within(chunk.interval());
    let _ = chunk.derive(Some);
}

/// A member is removed from a JSON object, and all other bytes stay. The first byte of the input is the member's name.
///
/// # Panics
/// If a property does not hold.
pub fn json_strip(data: &[u8]) {
    let Some((name, item)) = data.split_first() else { return };
    let (name, item) = (char::from(*name).to_string(), Bytes::copy_from_slice(item));
    let rest = json_strip::without(&item, &name);
    let text = std::str::from_utf8(&item).ok();
    let Some(all) = text.and_then(members) else {
        // An object may be followed by bytes that are none of it; no page has such an item.
        return;
    };
    let rest = rest.expect("an object");
    let rest = std::str::from_utf8(&rest).expect("text");
    let kept: Vec<_> = all.iter().filter(|member| member.0 != name).collect();
    let left = members(rest).expect("an object");
    let same = |(one, other): (&(String, _), &&(String, _))| one.0 == other.0;
    assert!(left.len() == kept.len() && left.iter().zip(&kept).all(same), "{rest}");
    assert!(left.iter().zip(&kept).all(|(one, other)| one.1.get() == other.1.get()), "{rest}");
    assert!(kept.len() < all.len() || rest.as_bytes() == &item[..], "{rest}");
    let mut bytes = item.iter();
    assert!(rest.bytes().all(|byte| bytes.any(|original| *original == byte)), "bytes that the item does not have");
}
