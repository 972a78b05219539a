//! Which streams have a label of their own in metrics: those that are configured, and a bounded number of others. Anybody who
//! may ask for any stream can invent names, and a label lasts as long as the process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// What all other streams share.
pub(super) const OTHER: &str = "other";

static LABELED: LazyLock<Mutex<Labeled>> = LazyLock::new(Mutex::default);
/// Whether another stream could still get a label; read without the lock.
static HAS_ROOM: AtomicBool = AtomicBool::new(false);

/// The streams that have labels.
#[derive(Debug, Default)]
struct Labeled {
    configured: HashSet<String>,
    others: HashSet<String>,
    /// How many others there may be.
    max_others: usize,
}

impl Labeled {
    /// Whether `stream` has a label of its own. One that is not configured gets it with its first answer that holds items,
    /// which no name has that is made up.
    fn admit(&mut self, stream: &str, has_items: bool) -> bool {
        if self.configured.contains(stream) || self.others.contains(stream) {
            return true;
        }
        let is_admitted = has_items && self.has_room();
        if is_admitted {
            self.others.insert(stream.to_owned());
        }
        is_admitted
    }

    fn has_room(&self) -> bool {
        self.others.len() < self.max_others
    }
}

/// Labels these streams from now on, and at most so many others.
pub fn label_streams<'a>(configured: impl IntoIterator<Item = &'a str>, max_others: usize) {
    let mut labeled = LABELED.lock().unwrap_or_else(PoisonError::into_inner);
    labeled.configured.extend(configured.into_iter().map(ToOwned::to_owned));
    labeled.max_others = max_others;
    HAS_ROOM.store(labeled.has_room(), Ordering::Relaxed);
}

/// Whether `stream` has a label of its own; see [`Labeled::admit`].
pub(super) fn is_labeled(stream: &str, has_items: bool) -> bool {
    let mut labeled = LABELED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_labeled = labeled.admit(stream, has_items);
    HAS_ROOM.store(labeled.has_room(), Ordering::Relaxed);
    is_labeled
}

/// Whether a stream that has no label might get one.
pub(super) fn has_room() -> bool {
    HAS_ROOM.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_beyond_the_bound_share_a_label() {
        let configured = HashSet::from(["st-1".to_owned()]);
        let mut labeled = Labeled { configured, max_others: 2, ..Labeled::default() };
        for (stream, has_items, expected) in [
            ("st-1", false, true),
            ("made-up", false, false),
            ("a", true, true),
            ("a", false, true),
            ("b", true, true),
            ("c", true, false),
            ("b", true, true),
            ("st-1", true, true),
        ] {
            assert_eq!(labeled.admit(stream, has_items), expected, "{stream}");
        }
        assert_eq!(labeled.others.len(), 2);
    }
}
