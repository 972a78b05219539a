//! How many chunks each of the last purges has removed from memory. A purge is applied by the first sweep after it was
//! learned, which may precede the message that asks for the number.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Purges of an account whose chunks are counted.
const COUNTED_PURGES: usize = 100;

/// The chunks that were removed from memory, by account and epoch of the purge.
#[derive(Default)]
pub(super) struct RemovedChunks(Mutex<HashMap<Arc<str>, BTreeMap<u64, u64>>>);

impl RemovedChunks {
    /// Counts removed chunks, each by the epoch of its purge. Returns how many there are.
    pub(super) fn add(&self, account: &Arc<str>, removed: impl Iterator<Item = u64>) -> usize {
        let removed: Vec<u64> = removed.collect();
        if !removed.is_empty() {
            let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = accounts.entry(account.clone()).or_default();
            for epoch in &removed {
                *counts.entry(*epoch).or_default() += 1;
            }
            while counts.len() > COUNTED_PURGES {
                counts.pop_first();
            }
        }
        removed.len()
    }

    /// The number of chunks that a purge has removed.
    pub(super) fn count(&self, account: &str, epoch: u64) -> u64 {
        let accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(account).and_then(|counts| counts.get(&epoch)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_counted_by_purge_and_first_purges_forgotten() {
        let (removed, account) = (RemovedChunks::default(), Arc::from("a"));
        assert_eq!(removed.add(&account, [7, 9, 7].into_iter()), 3);
        removed.add(&account, [7].into_iter());
        assert_eq!((removed.count("a", 7), removed.count("a", 9), removed.count("b", 7)), (3, 1, 0));
        removed.add(&account, 10..10 + COUNTED_PURGES as u64 - 1);
        assert_eq!((removed.count("a", 7), removed.count("a", 9)), (0, 1));
    }
}
