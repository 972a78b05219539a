//! Mappings that come and go in many schedules (see [`crate::sync`]). The kernel gives the address of a mapping that
//! was just removed to the next of the same size, so a registry that is late or early by one step is noticed.

use shuttle::thread;

use super::*;
use crate::sync::explore;

const LENGTH: usize = 2 * MIN_MAPPED_BYTES;

/// Maps bytes, and drops them in two parts.
fn map_and_drop() {
    let mapped = map(vec![7; LENGTH].into());
    let part = mapped.slice(MIN_MAPPED_BYTES..);
    assert!(is_mapped(&mapped));
    drop(mapped);
    assert!(is_mapped(&part), "registered until the last part is dropped");
}

/// Memory of another owner at an address that a mapping may have had.
fn use_other_memory() {
    let other = MmapMut::map_anon(LENGTH).unwrap();
    assert!(!is_mapped(&other), "the kernel must not send memory that may still be written to");
}

#[test]
fn bytes_are_recognised_exactly_while_they_are_mapped() {
    explore(|| {
        let threads = [thread::spawn(map_and_drop), thread::spawn(map_and_drop), thread::spawn(use_other_memory)];
        use_other_memory();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(MAPPED_RANGES.read().unwrap().is_empty());
    });
}
