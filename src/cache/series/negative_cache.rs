//! Negative cache of intervals: a failure is remembered for a while, so that the next request does not pay for it
//! again.

use std::time::Duration;

use tokio::time::Instant;

use crate::window::Interval;

/// The most intervals; beyond that the oldest is removed.
const MAX_INTERVALS: usize = 64;

/// Intervals that cannot be fetched as usual, each for a time that doubles with each failure in a row.
#[derive(Debug, Default)]
pub(in crate::cache) struct NegativeCache(Vec<Failure>);

#[derive(Debug)]
struct Failure {
    interval: Interval,
    expires_at: Instant,
    lifetime: Duration,
}

impl NegativeCache {
    /// Inserts an interval for `first`, or for twice as long as the last time if that was not long ago, up to `max`.
    pub(in crate::cache) fn insert(&mut self, interval: Interval, first: Duration, max: Duration) {
        self.remove_expired();
        let before = self.0.iter().position(|failure| failure.interval == interval).map(|place| self.0.remove(place));
        let lifetime = before.map_or(first, |failure| failure.lifetime * 2).min(max);
        if self.0.len() >= MAX_INTERVALS {
            self.0.remove(0);
        }
        self.0.push(Failure { interval, expires_at: Instant::now() + lifetime, lifetime });
    }

    /// Whether a cached interval overlaps `interval`.
    pub(in crate::cache) fn any_overlapping(&self, interval: Interval) -> bool {
        self.0.iter().any(|failure| failure.interval.overlaps(interval) && Instant::now() < failure.expires_at)
    }

    /// Whether a cached interval lies within `interval`.
    pub(in crate::cache) fn any_within(&self, interval: Interval) -> bool {
        self.0.iter().any(|failure| {
            failure.interval.intersection(interval) == failure.interval && Instant::now() < failure.expires_at
        })
    }

    /// Removes the intervals that expired at least one lifetime ago. Until then, the next failure doubles the lifetime.
    pub(in crate::cache) fn remove_expired(&mut self) {
        self.0.retain(|failure| Instant::now() < failure.expires_at + failure.lifetime);
    }

    pub(in crate::cache) fn clear(&mut self) {
        self.0.clear();
    }

    pub(in crate::cache) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn repeated_failure_lasts_longer_and_expires() {
        let interval = |start, end| Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end));
        let seconds = Duration::from_secs;
        let mut cache = NegativeCache::default();
        for lifetime in [10, 20, 30, 30] {
            cache.insert(interval(0, 10), seconds(10), seconds(30));
            tokio::time::advance(seconds(lifetime - 1)).await;
            assert!(cache.any_overlapping(interval(5, 6)) && !cache.any_overlapping(interval(10, 20)));
            assert!(cache.any_within(interval(0, 11)) && !cache.any_within(interval(0, 9)));
            tokio::time::advance(seconds(2)).await;
            assert!(!cache.any_overlapping(interval(5, 6)));
        }
        tokio::time::advance(seconds(30)).await;
        cache.remove_expired();
        assert!(cache.is_empty());
        (0..100).for_each(|n| cache.insert(interval(n, n + 1), seconds(10), seconds(30)));
        assert!(cache.any_overlapping(interval(99, 100)) && !cache.any_overlapping(interval(0, 36)));
    }
}
