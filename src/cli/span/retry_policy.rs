//! Which failures of a request are waited for, and how long: pure.

use std::time::Duration;

/// The pause after the first of several failures; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The most failures of the upstream in a row. Each costs calls, and a refused credential does not pass.
const MAX_UPSTREAM_FAILURES: u32 = 8;

/// A failure that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The gateway asks to come again (429, 503).
    Busy {
        /// `Retry-After`, if there is one.
        retry_after: Option<Duration>,
    },
    /// The gateway cannot be reached, or the answer broke off.
    Disconnected,
    /// The upstream failed, or the gateway did (500, 502, 504).
    Upstream,
}

/// The failures since the last progress.
#[derive(Clone, Debug)]
pub(super) struct RetryPolicy {
    /// The longest time without progress.
    limit: Duration,
    failures: u32,
    upstream_failures: u32,
}

impl RetryPolicy {
    /// No failures yet.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, failures: 0, upstream_failures: 0 }
    }

    /// The pause after which to repeat the request, `waited` after the last progress; `None` if the stall timeout is over.
    pub(super) fn pause(&mut self, trouble: Trouble, waited: Duration) -> Option<Duration> {
        let growing = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        let pause = match trouble {
            Trouble::Busy { retry_after } => retry_after.unwrap_or(growing).max(FIRST_PAUSE),
            Trouble::Disconnected => growing,
            Trouble::Upstream => {
                self.upstream_failures += 1;
                growing
            }
        };
        let left = self.limit.checked_sub(waited).filter(|left| !left.is_zero())?;
        (self.upstream_failures <= MAX_UPSTREAM_FAILURES).then_some(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(10);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        let mut policy = RetryPolicy::new(LIMIT);
        let pauses: Vec<u64> =
            (0..8).map(|_| policy.pause(Trouble::Disconnected, seconds(0)).unwrap().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn retry_after_is_waited_for_within_the_limit() {
        let mut policy = RetryPolicy::new(LIMIT);
        let mut pause =
            |after: u64, waited| policy.pause(Trouble::Busy { retry_after: Some(seconds(after)) }, seconds(waited));
        assert_eq!(pause(30, 0), Some(seconds(30)));
        assert_eq!(pause(0, 0), Some(seconds(1)), "no storm of requests");
        assert_eq!(pause(3600, 590), Some(seconds(10)));
        assert_eq!(pause(1, 600), None);
    }

    #[test]
    fn failing_upstream_is_given_up_before_the_limit() {
        let mut policy = RetryPolicy::new(Duration::from_hours(10));
        let given_up = (1..=20).find(|_| policy.pause(Trouble::Upstream, seconds(0)).is_none());
        assert_eq!(given_up, Some(MAX_UPSTREAM_FAILURES + 1));
    }
}
