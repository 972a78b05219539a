//! The bytes of a filter of ids. All numbers are little-endian.
//!
//! ```text
//! in a chunk:      count u32, then each hash, u32, strictly ascending; a count of 0xffffffff stands for any id
//! as a value:      magic "kgi1", then as in a chunk
//!                  checksum u128, XXH3 of the name of the value and of all bytes before it
//! ```
//!
//! The value stands beside the chunk, and is read in its place to find out whether the chunk may hold an id.

use bytes::{Buf as _, BufMut as _, Bytes};

use super::codec::{CHECKSUM_LEN, checksum};
use crate::request::{IdFilter, IdHashes};

const MAGIC: &[u8; 4] = b"kgi1";
/// The count of a filter that may hold any id.
const ANY: u32 = u32::MAX;

/// Bytes of a filter in a chunk.
pub(super) fn encoded_len(filter: &IdFilter) -> usize {
    size_of::<u32>() + filter.weight()
}

/// Appends a filter.
pub(super) fn put(bytes: &mut Vec<u8>, filter: &IdFilter) {
    let IdFilter::Hashes(hashes) = filter else { return bytes.put_u32_le(ANY) };
    let Some(count) = u32::try_from(hashes.len()).ok().filter(|count| *count != ANY) else {
        return bytes.put_u32_le(ANY);
    };
    bytes.put_u32_le(count);
    hashes.as_slice().iter().for_each(|hash| bytes.put_u32_le(*hash));
}

/// Takes a filter from the beginning of `rest`; `None` if there is none.
pub(super) fn take(rest: &mut &[u8]) -> Option<IdFilter> {
    let count = rest.try_get_u32_le().ok()?;
    if count == ANY {
        return Some(IdFilter::Any);
    }
    let count = count as usize;
    (rest.len() / size_of::<u32>() >= count).then_some(())?;
    let hashes = (0..count).map(|_| rest.get_u32_le()).collect();
    IdHashes::from_ascending(hashes).map(IdFilter::Hashes)
}

/// Encodes a filter as the value of `name`.
pub(in crate::cache) fn to_bytes(filter: &IdFilter, name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + encoded_len(filter) + CHECKSUM_LEN);
    bytes.put_slice(MAGIC);
    put(&mut bytes, filter);
    let checksum = checksum(&bytes, name);
    bytes.put_u128_le(checksum);
    bytes
}

/// Decodes the value of `name` that [`to_bytes`] encoded; `None` for other bytes.
pub(in crate::cache) fn from_bytes(bytes: &Bytes, name: &[u8]) -> Option<IdFilter> {
    let (covered, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_LEN)?)?;
    (checksum(covered, name).to_le_bytes() == *sum).then_some(())?;
    let mut rest = covered.strip_prefix(MAGIC)?;
    take(&mut rest).filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"a name";

    fn filters() -> [IdFilter; 3] {
        [IdFilter::default(), IdFilter::Any, IdFilter::Hashes([7, 1 << 31, 70_000].into_iter().collect())]
    }

    #[test]
    fn value_of_a_filter_decodes_to_the_same() {
        for filter in filters() {
            assert_eq!(from_bytes(&to_bytes(&filter, NAME).into(), NAME), Some(filter));
        }
    }

    #[test]
    fn changed_value_of_a_filter_does_not_decode() {
        for bytes in filters().map(|filter| to_bytes(&filter, NAME)) {
            for place in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1;
                assert_eq!(from_bytes(&damaged.into(), NAME), None, "byte {place}");
                assert_eq!(from_bytes(&bytes[..place].to_vec().into(), NAME), None, "cut at {place}");
            }
            assert_eq!(from_bytes(&bytes.into(), b"another name"), None);
        }
    }

    #[test]
    fn filter_that_is_cut_or_out_of_order_is_not_taken() {
        for bytes in [
            &[1, 0, 0][..],
            &[1, 0, 0, 0, 1, 1, 1],
            &[0xfe, 0xff, 0xff, 0xff, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(take(&mut &*bytes), None, "{bytes:?}");
        }
    }
}
