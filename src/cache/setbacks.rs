//! Spans that cannot be fetched as usual for a while: remembered, so that the next request does not find out again at
//! full cost.

use std::time::Duration;

use tokio::time::Instant;

use crate::window::Span;

/// So many at most; then the oldest is forgotten.
const MOST: usize = 64;

/// Spans with what has come of them last time.
#[derive(Debug, Default)]
pub(super) struct Setbacks(Vec<Setback>);

#[derive(Debug)]
struct Setback {
    span: Span,
    until: Instant,
    pause: Duration,
}

impl Setbacks {
    /// Remembers a span for `first`, and for twice as long each time that it happens again soon after, up to `most`.
    pub(super) fn add(&mut self, span: Span, first: Duration, most: Duration) {
        self.expire();
        let before = self.0.iter().position(|setback| setback.span == span).map(|place| self.0.remove(place));
        let pause = before.map_or(first, |setback| setback.pause * 2).min(most);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Setback { span, until: Instant::now() + pause, pause });
    }

    /// Whether one of them overlaps `span`.
    pub(super) fn overlap(&self, span: Span) -> bool {
        self.0.iter().any(|setback| setback.span.overlaps(span) && Instant::now() < setback.until)
    }

    /// Whether all of one of them lies in `span`.
    pub(super) fn lie_in(&self, span: Span) -> bool {
        self.0.iter().any(|setback| setback.span.intersection(span) == setback.span && Instant::now() < setback.until)
    }

    /// Forgets those that are over for as long as they lasted.
    pub(super) fn expire(&mut self) {
        self.0.retain(|setback| Instant::now() < setback.until + setback.pause);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Moment;

    #[tokio::test(start_paused = true)]
    async fn setback_lasts_longer_each_time_and_is_forgotten() {
        let span = |start, end| Span::new(Moment::from_seconds(start), Moment::from_seconds(end));
        let seconds = Duration::from_secs;
        let mut setbacks = Setbacks::default();
        for pause in [10, 20, 30, 30] {
            setbacks.add(span(0, 10), seconds(10), seconds(30));
            tokio::time::advance(seconds(pause - 1)).await;
            assert!(setbacks.overlap(span(5, 6)) && !setbacks.overlap(span(10, 20)));
            assert!(setbacks.lie_in(span(0, 11)) && !setbacks.lie_in(span(0, 9)));
            tokio::time::advance(seconds(2)).await;
            assert!(!setbacks.overlap(span(5, 6)));
        }
        tokio::time::advance(seconds(30)).await;
        setbacks.expire();
        assert!(setbacks.is_empty());
        (0..100).for_each(|n| setbacks.add(span(n, n + 1), seconds(10), seconds(30)));
        assert!(setbacks.overlap(span(99, 100)) && !setbacks.overlap(span(0, 36)));
    }
}
