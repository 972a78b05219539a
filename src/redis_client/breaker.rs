//! The circuit breaker. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the breaker. A burst of calls that a short delay fails costs one probe only.
const FAILURES_TO_OPEN: u32 = 5;
/// The least time between two probes.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A circuit breaker, which is closed or open.
///
/// After several failures in a row it opens: no call is made until a probe, or a call that was in flight already,
/// succeeds, because each call would wait for its whole timeout. No caller waits for a probe: the connection makes them
/// in the background, the first at once and then one each [`PROBE_INTERVAL`].
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// When the first of them was.
    failing_since: Option<Instant>,
    /// When the last probe was made since the breaker opened.
    probed_at: Option<Instant>,
}

impl Breaker {
    /// Whether calls are made.
    pub(super) fn is_closed(&self) -> bool {
        self.failures < FAILURES_TO_OPEN
    }

    /// When the failures began that have opened the breaker; `None` while it is closed.
    pub(super) fn down_since(&self) -> Option<Instant> {
        self.failing_since.filter(|_| !self.is_closed())
    }

    /// Records the failure of a call or a probe. Returns whether that has opened the breaker.
    pub(super) fn record_failure(&mut self, now: Instant) -> bool {
        let was_closed = self.is_closed();
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        was_closed && !self.is_closed()
    }

    /// Records the success of a call or a probe. Returns whether that has closed the breaker.
    pub(super) fn record_success(&mut self) -> bool {
        let was_open = !self.is_closed();
        *self = Self::default();
        was_open
    }

    /// When the next probe may be made; `None` while the breaker is closed.
    pub(super) fn next_probe_at(&self, now: Instant) -> Option<Instant> {
        (!self.is_closed()).then(|| self.probed_at.map_or(now, |probed| probed + PROBE_INTERVAL))
    }

    /// Takes the next probe, if it is due. Returns whether it is to be made.
    pub(super) fn take_probe(&mut self, now: Instant) -> bool {
        let due = self.next_probe_at(now).is_some_and(|at| at <= now);
        if due {
            self.probed_at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Failed,
        Succeeded,
        Probe,
    }

    proptest! {
        #[test]
        fn breaker_is_open_after_failures_and_takes_one_probe_an_interval(
            steps in prop::collection::vec(
                (0u64..700, prop_oneof![4 => Just(Step::Failed), 1 => Just(Step::Succeeded), 4 => Just(Step::Probe)]),
                1..200,
            ),
        ) {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            // The naive model: the failures since the last success, and the last probe since the breaker opened.
            let mut failures: Vec<Instant> = Vec::new();
            let mut probed: Option<Instant> = None;
            for (milliseconds, step) in steps {
                now += Duration::from_millis(milliseconds);
                let was_open = failures.len() >= FAILURES_TO_OPEN as usize;
                match step {
                    Step::Failed => {
                        failures.push(now);
                        let opens = !was_open && failures.len() >= FAILURES_TO_OPEN as usize;
                        prop_assert_eq!(breaker.record_failure(now), opens);
                    }
                    Step::Succeeded => {
                        failures.clear();
                        probed = None;
                        prop_assert_eq!(breaker.record_success(), was_open);
                    }
                    Step::Probe => {
                        let due = was_open && probed.is_none_or(|probed| now - probed >= PROBE_INTERVAL);
                        prop_assert_eq!(breaker.take_probe(now), due);
                        if due {
                            probed = Some(now);
                        }
                    }
                }
                let open = failures.len() >= FAILURES_TO_OPEN as usize;
                prop_assert_eq!(breaker.is_closed(), !open);
                prop_assert_eq!(breaker.down_since(), failures.first().copied().filter(|_| open));
                // A probe always follows while the breaker is open, even if the last one was never recorded.
                prop_assert_eq!(breaker.next_probe_at(now).is_some(), open);
                prop_assert!(breaker.next_probe_at(now).is_none_or(|at| at <= now + PROBE_INTERVAL));
            }
        }
    }
}
