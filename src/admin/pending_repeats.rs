//! The purges that wait to be repeated.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most purges that wait to be repeated. Each holds up to 4 KB of hashed ids.
const MAX_PENDING_REPEATS: usize = 1_000;

/// The places of purges that wait to be repeated.
pub(super) struct PendingRepeats(Arc<Semaphore>);

impl Default for PendingRepeats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_PENDING_REPEATS)))
    }
}

impl PendingRepeats {
    /// Reserves a place; `None` if too many purges wait.
    pub(super) fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_free_again_after_the_repeat() {
        let repeats = PendingRepeats::default();
        let mut places: Vec<_> = (0..MAX_PENDING_REPEATS).map(|_| repeats.reserve().unwrap()).collect();
        assert!(repeats.reserve().is_none());
        places.pop();
        assert!(repeats.reserve().is_some());
    }
}
