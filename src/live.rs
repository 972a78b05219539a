//! Values that a reload of the configuration replaces while requests read them.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// An immutable value that can be replaced as a whole. A reader takes the present one, and keeps it for as long as it
/// needs one consistent version. Cheap to clone; all clones hold the same value.
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// Holds `value` until it is replaced.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The present value.
    pub fn load(&self) -> Arc<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value. Readers that hold the old one keep it.
    pub fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_keeps_the_version_that_it_has_taken() {
        let live = Live::new(1);
        let (clone, before) = (live.clone(), live.load());
        clone.replace(2);
        assert_eq!((*before, *live.load()), (1, 2));
    }
}
