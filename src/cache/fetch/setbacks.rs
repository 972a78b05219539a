//! Spans that cannot be fetched as usual for a while: remembered, so that the next request does not find out again at
//! full cost.

use std::time::Duration;

use tokio::time::Instant;

use crate::window::Interval;

/// So many at most; then the oldest is forgotten.
const MOST: usize = 64;

/// Spans with what has come of them last time.
#[derive(Debug, Default)]
pub(in crate::cache) struct NegativeCache(Vec<Setback>);

#[derive(Debug)]
struct Setback {
    interval: Interval,
    until: Instant,
    pause: Duration,
}

impl NegativeCache {
    /// Remembers a span for `first`, and for twice as long each time that it happens again soon after, up to `most`.
    pub(in crate::cache) fn add(&mut self, interval: Interval, first: Duration, most: Duration) {
        self.expire();
        let before = self.0.iter().position(|setback| setback.interval == interval).map(|place| self.0.remove(place));
        let pause = before.map_or(first, |setback| setback.pause * 2).min(most);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Setback { interval, until: Instant::now() + pause, pause });
    }

    /// Whether one of them overlaps `interval`.
    pub(in crate::cache) fn overlap(&self, interval: Interval) -> bool {
        self.0.iter().any(|setback| setback.interval.overlaps(interval) && Instant::now() < setback.until)
    }

    /// Whether all of one of them lies in `interval`.
    pub(in crate::cache) fn lie_in(&self, interval: Interval) -> bool {
        self.0.iter().any(|setback| {
            setback.interval.intersection(interval) == setback.interval && Instant::now() < setback.until
        })
    }

    /// Forgets those that are over for as long as they lasted.
    pub(in crate::cache) fn expire(&mut self) {
        self.0.retain(|setback| Instant::now() < setback.until + setback.pause);
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
    async fn setback_lasts_longer_each_time_and_is_forgotten() {
        let interval = |start, end| Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end));
        let seconds = Duration::from_secs;
        let mut setbacks = NegativeCache::default();
        for pause in [10, 20, 30, 30] {
            setbacks.add(interval(0, 10), seconds(10), seconds(30));
            tokio::time::advance(seconds(pause - 1)).await;
            assert!(setbacks.overlap(interval(5, 6)) && !setbacks.overlap(interval(10, 20)));
            assert!(setbacks.lie_in(interval(0, 11)) && !setbacks.lie_in(interval(0, 9)));
            tokio::time::advance(seconds(2)).await;
            assert!(!setbacks.overlap(interval(5, 6)));
        }
        tokio::time::advance(seconds(30)).await;
        setbacks.expire();
        assert!(setbacks.is_empty());
        (0..100).for_each(|n| setbacks.add(interval(n, n + 1), seconds(10), seconds(30)));
        assert!(setbacks.overlap(interval(99, 100)) && !setbacks.overlap(interval(0, 36)));
    }
}
