//! Whether what an answer was made of still lies where it lay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what was taken from a shelf, or replaced there, though time alone would not have changed it.
#[derive(Debug, Default)]
pub(in crate::cache) struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Something is gone.
    pub(in crate::cache) fn add(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Holds until something is gone. To be asked for under the lock under which the answer is made.
    pub(in crate::cache) fn none_since_now(&self) -> ValidityToken {
        ValidityToken { losses: self.0.clone(), then: self.0.load(Ordering::Acquire) }
    }
}

impl Drop for Generation {
    /// The whole shelf is gone.
    fn drop(&mut self) {
        self.add();
    }
}

/// Of an answer that is true as long as nothing is purged, replaced or dropped of what it was made of.
#[derive(Clone, Debug)]
pub struct ValidityToken {
    losses: Arc<AtomicU64>,
    then: u64,
}

impl ValidityToken {
    /// Whether it is still true.
    pub fn is_valid(&self) -> bool {
        self.losses.load(Ordering::Acquire) == self.then
    }
}
