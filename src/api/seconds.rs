//! Durations in answers.

use std::time::Duration;

/// Seconds with milliseconds, for people.
pub(super) fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}
