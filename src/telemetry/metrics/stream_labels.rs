//! Streams that have a label of their own in metrics: those in the configuration, and a limited number of others.
//! Callers that may request any stream can invent names, and a label lasts as long as the process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The label of all streams without one of their own.
pub(super) const OTHER_STREAMS: &str = "other";

static STREAM_LABELS: LazyLock<Mutex<StreamLabels>> = LazyLock::new(Mutex::default);
/// [`StreamLabels::has_room`], which can be read without the lock.
static HAS_ROOM: AtomicBool = AtomicBool::new(false);

/// The streams that have labels.
#[derive(Debug, Default)]
struct StreamLabels {
    configured: HashSet<String>,
    others: HashSet<String>,
    /// Maximum number of `others`.
    max_others: usize,
}

impl StreamLabels {
    /// Whether `stream` has a label of its own. A stream that is not configured gets one, while there is room, with its
    /// first answer that has items, which an invented name never has.
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

/// Gives the `configured` streams labels from now on, and at most `max_others` other streams.
pub fn label_streams<'a>(configured: impl IntoIterator<Item = &'a str>, max_others: usize) {
    let mut labels = STREAM_LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    labels.configured.extend(configured.into_iter().map(ToOwned::to_owned));
    labels.max_others = max_others;
    HAS_ROOM.store(labels.has_room(), Ordering::Relaxed);
}

/// Whether `stream` has a label of its own; see [`StreamLabels::admit`].
pub(super) fn admit(stream: &str, has_items: bool) -> bool {
    let mut labels = STREAM_LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_admitted = labels.admit(stream, has_items);
    HAS_ROOM.store(labels.has_room(), Ordering::Relaxed);
    is_admitted
}

/// Whether a stream without a label could get one.
pub(super) fn has_room() -> bool {
    HAS_ROOM.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_beyond_the_bound_get_no_label() {
        let configured = HashSet::from(["st-1".to_owned()]);
        let mut labels = StreamLabels { configured, max_others: 2, ..StreamLabels::default() };
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
            assert_eq!(labels.admit(stream, has_items), expected, "{stream}");
        }
        assert_eq!(labels.others.len(), 2);
    }
}
