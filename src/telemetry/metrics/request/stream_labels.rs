//! Streams that have a label of their own in metrics: those in the configuration, and a limited number of others.
//! Callers that may request any stream can invent names, and a label lasts as long as the process.

use std::collections::HashSet;
use std::sync::{LazyLock, PoisonError, RwLock};

/// The label of all streams without one of their own.
pub(super) const OTHER_STREAMS: &str = "other";

static STREAM_LABELS: LazyLock<RwLock<StreamLabels>> = LazyLock::new(RwLock::default);

/// The streams that have labels.
#[derive(Debug, Default)]
struct StreamLabels {
    configured: HashSet<String>,
    others: HashSet<String>,
    /// Maximum number of `others`.
    max_others: usize,
}

impl StreamLabels {
    fn contains(&self, stream: &str) -> bool {
        self.configured.contains(stream) || self.others.contains(stream)
    }

    fn has_room(&self) -> bool {
        self.others.len() < self.max_others
    }

    /// Whether `stream` has a label of its own. A stream that is not configured gets one, while there is room, with
    /// its first answer that has items, which an invented name never has.
    fn admit(&mut self, stream: &str, has_items: bool) -> bool {
        if self.contains(stream) {
            return true;
        }
        let is_admitted = has_items && self.has_room();
        if is_admitted {
            self.others.insert(stream.to_owned());
        }
        is_admitted
    }
}

/// Gives the `configured` streams labels from now on, and at most `max_others` other streams.
pub fn label_streams<'a>(configured: impl IntoIterator<Item = &'a str>, max_others: usize) {
    let mut labels = STREAM_LABELS.write().unwrap_or_else(PoisonError::into_inner);
    labels.configured.extend(configured.into_iter().map(ToOwned::to_owned));
    labels.max_others = max_others;
}

/// Whether `stream` has a label of its own; see [`StreamLabels::admit`].
pub(super) fn admit(stream: &str, has_items: bool) -> bool {
    let labels = STREAM_LABELS.read().unwrap_or_else(PoisonError::into_inner);
    if labels.contains(stream) {
        return true;
    }
    if !has_items || !labels.has_room() {
        return false;
    }
    drop(labels);
    STREAM_LABELS.write().unwrap_or_else(PoisonError::into_inner).admit(stream, has_items)
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
