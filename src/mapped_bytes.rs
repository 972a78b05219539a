//! Bytes that stay as they are until they are gone, in memory pages of their own.
//!
//! The kernel can send such pages themselves where it copies all others, see [`crate::server`]. It may still be sending one
//! when nobody here has it any more; so it must never be written to again, not even for something else. The heap writes to
//! what is freed. A mapping of its own is read-only from when it is filled, and then goes back to the system, which keeps
//! its pages for as long as they are being sent.

use std::collections::BTreeMap;
use std::io;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use memmap2::{Mmap, MmapMut};

/// Fewer bytes than this are copied in the time that the calls take which pass them on.
const WORTH_PASSING: usize = 32 << 10;

/// Where such bytes lie: their first address, and the one behind their last.
static FIXED: RwLock<BTreeMap<usize, usize>> = RwLock::new(BTreeMap::new());

/// A read-only mapping that stands in [`FIXED`] for as long as it is there.
struct Fixed(Mmap);

impl Fixed {
    fn copy(bytes: &[u8]) -> io::Result<Self> {
        let mut map = MmapMut::map_anon(bytes.len())?;
        map.copy_from_slice(bytes);
        let map = map.make_read_only()?;
        let (start, end) = ends(&map);
        FIXED.write().unwrap_or_else(PoisonError::into_inner).insert(start, end);
        Ok(Self(map))
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        FIXED.write().unwrap_or_else(PoisonError::into_inner).remove(&ends(&self.0).0);
    }
}

impl AsRef<[u8]> for Fixed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The same bytes in pages of their own, if that is worth it and the system has any to give.
pub(crate) fn fix(bytes: Bytes) -> Bytes {
    if bytes.len() < WORTH_PASSING {
        return bytes;
    }
    Fixed::copy(&bytes).map_or(bytes, Bytes::from_owner)
}

/// Whether these bytes were fixed, and are enough.
pub(crate) fn are_worth_passing(bytes: &[u8]) -> bool {
    if bytes.len() < WORTH_PASSING {
        return false;
    }
    let (start, end) = ends(bytes);
    let fixed = FIXED.read().unwrap_or_else(PoisonError::into_inner);
    fixed.range(..=start).next_back().is_some_and(|(_, behind)| end <= *behind)
}

fn ends(bytes: &[u8]) -> (usize, usize) {
    let start = bytes.as_ptr().addr();
    (start, start + bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_copied_to_a_place_of_its_own_is_passed_on() {
        let heap = Bytes::from(vec![7; 3 * WORTH_PASSING]);
        let one = fix(heap.clone());
        let two = fix(heap.clone());
        assert_eq!(one, heap);
        assert!(!are_worth_passing(&heap));
        assert!(are_worth_passing(&one) && are_worth_passing(&two));
        assert!(are_worth_passing(&one[WORTH_PASSING..]) && are_worth_passing(&two[5..][..WORTH_PASSING]));
        assert!(!are_worth_passing(&one[2 * WORTH_PASSING + 1..]));
        let few = heap.slice(..WORTH_PASSING - 1);
        assert_eq!(fix(few.clone()).as_ptr(), few.as_ptr());
    }

    #[test]
    fn it_is_fixed_for_as_long_as_a_part_of_it_is_there() {
        // Of a length that no other test has: what lies at its place when it is gone does not end where it ended.
        let fixed = fix(vec![7; 2 * WORTH_PASSING + 4711].into());
        let (start, end) = ends(&fixed);
        let part = fixed.slice(WORTH_PASSING..);
        drop(fixed);
        assert!(are_worth_passing(&part));
        assert_eq!(FIXED.read().unwrap().get(&start), Some(&end));
        drop(part);
        assert_ne!(FIXED.read().unwrap().get(&start), Some(&end));
    }
}
