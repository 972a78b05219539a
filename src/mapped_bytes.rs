//! Immutable bytes in memory mappings of their own, whose pages the kernel can send without a copy (see
//! [`crate::server`]).
//!
//! The kernel may still be sending a page when its last owner here has dropped it, so the page must never be written to
//! again, not even for another purpose. The heap reuses freed memory. A mapping is read-only once it is filled, and is
//! then unmapped; the kernel keeps its pages for as long as they are being sent.

use std::collections::BTreeMap;
use std::io;
use std::sync::PoisonError;

use bytes::Bytes;
use memmap2::{Mmap, MmapMut};

use crate::sync::RwLock;

/// Minimum number of bytes to map. Copying fewer takes no longer than the system calls of `splice`.
const MIN_MAPPED_BYTES: usize = 32 << 10;

/// Address ranges of all mappings: first address, and the address behind the last.
static MAPPED_RANGES: RwLock<BTreeMap<usize, usize>> = RwLock::new(BTreeMap::new());

/// A read-only mapping, which is registered in [`MAPPED_RANGES`] until it is dropped.
struct Mapping(Mmap);

impl Mapping {
    /// A mapping with a copy of `bytes`.
    fn copy(bytes: &[u8]) -> io::Result<Self> {
        let mut map = MmapMut::map_anon(bytes.len())?;
        map.copy_from_slice(bytes);
        let map = map.make_read_only()?;
        let (start, end) = address_range(&map);
        MAPPED_RANGES.write().unwrap_or_else(PoisonError::into_inner).insert(start, end);
        Ok(Self(map))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MAPPED_RANGES.write().unwrap_or_else(PoisonError::into_inner).remove(&address_range(&self.0).0);
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A mapped copy of `bytes`; `bytes` themselves if they are too few or the system refuses a mapping.
pub(crate) fn map(bytes: Bytes) -> Bytes {
    if bytes.len() < MIN_MAPPED_BYTES {
        return bytes;
    }
    Mapping::copy(&bytes).map_or(bytes, Bytes::from_owner)
}

/// Whether `bytes` are part of a mapping, and enough to be sent without a copy.
pub(crate) fn is_mapped(bytes: &[u8]) -> bool {
    if bytes.len() < MIN_MAPPED_BYTES {
        return false;
    }
    let (start, end) = address_range(bytes);
    let ranges = MAPPED_RANGES.read().unwrap_or_else(PoisonError::into_inner);
    ranges.range(..=start).next_back().is_some_and(|(_, behind)| end <= *behind)
}

/// The first address of `bytes`, and the address behind the last.
fn address_range(bytes: &[u8]) -> (usize, usize) {
    let start = bytes.as_ptr().addr();
    (start, start + bytes.len())
}

#[cfg(test)]
#[cfg(feature = "interleavings")]
mod interleavings;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_parts_of_mappings_alone_are_recognised() {
        let heap = Bytes::from(vec![7; 3 * MIN_MAPPED_BYTES]);
        let one = map(heap.clone());
        let two = map(heap.clone());
        assert_eq!(one, heap);
        assert!(!is_mapped(&heap));
        assert!(is_mapped(&one) && is_mapped(&two));
        assert!(is_mapped(&one[MIN_MAPPED_BYTES..]) && is_mapped(&two[5..][..MIN_MAPPED_BYTES]));
        assert!(!is_mapped(&one[2 * MIN_MAPPED_BYTES + 1..]));
        let few = heap.slice(..MIN_MAPPED_BYTES - 1);
        assert_eq!(map(few.clone()).as_ptr(), few.as_ptr());
    }

    #[test]
    fn mapping_is_registered_until_its_last_part_is_dropped() {
        // The length is unique among the tests, so another mapping at the same address has another end.
        let mapped = map(vec![7; 2 * MIN_MAPPED_BYTES + 4711].into());
        let (start, end) = address_range(&mapped);
        let part = mapped.slice(MIN_MAPPED_BYTES..);
        drop(mapped);
        assert!(is_mapped(&part));
        assert_eq!(MAPPED_RANGES.read().unwrap().get(&start), Some(&end));
        drop(part);
        assert_ne!(MAPPED_RANGES.read().unwrap().get(&start), Some(&end));
    }
}
