//! Generation of the entries of a series: whether an answer that was made earlier is still valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counter of the removals and replacements of entries that time alone would not have changed.
#[derive(Debug, Default)]
pub(in crate::cache) struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Invalidates all tokens.
    pub(in crate::cache) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// A token that is valid until the next [`Generation::increment`]. Must be taken under the lock under which the
    /// answer is made.
    pub(in crate::cache) fn token(&self) -> ValidityToken {
        ValidityToken { generation: self.0.clone(), issued_at: self.0.load(Ordering::Acquire) }
    }
}

impl Drop for Generation {
    /// The entries are dropped as a whole.
    fn drop(&mut self) {
        self.increment();
    }
}

/// Token of an answer that is valid as long as nothing it was made of is purged, replaced or removed.
#[derive(Clone, Debug)]
pub struct ValidityToken {
    generation: Arc<AtomicU64>,
    issued_at: u64,
}

impl ValidityToken {
    /// Whether the answer is still valid.
    pub fn is_valid(&self) -> bool {
        self.generation.load(Ordering::Acquire) == self.issued_at
    }
}
