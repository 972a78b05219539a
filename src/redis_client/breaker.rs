//! When Redis is left alone. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row open it: one is bad luck, and a burst that a single hiccup delays costs a probe only.
const FAILURES: u32 = 5;
/// The least time between two probes.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Keeps calls from a Redis that does not answer.
///
/// Each of them would wait for its whole timeout, to learn what the one before it has learnt. So after some failures in
/// a row no call is let through until a probe, or a call that was under way already, succeeds. No caller pays for a
/// probe: the lane makes them by itself, the first at once and then one each [`PAUSE`].
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    /// When it was probed last, since it opened.
    probed: Option<Instant>,
}

impl Breaker {
    /// Whether calls are let through.
    pub(super) fn is_closed(&self) -> bool {
        self.failures < FAILURES
    }

    /// When the failures began that have opened it; `None` while it is closed.
    pub(super) fn down_since(&self) -> Option<Instant> {
        self.since.filter(|_| !self.is_closed())
    }

    /// A call or a probe has failed; returns whether that has opened it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let was_closed = self.is_closed();
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        was_closed && !self.is_closed()
    }

    /// A call or a probe has succeeded; returns whether that has closed it.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_open = !self.is_closed();
        *self = Self::default();
        was_open
    }

    /// When the next probe may be made; `None` while it is closed.
    pub(super) fn probe_at(&self, now: Instant) -> Option<Instant> {
        (!self.is_closed()).then(|| self.probed.map_or(now, |probed| probed + PAUSE))
    }

    /// Whether a probe is to be made now. If so, it counts as made.
    pub(super) fn take_probe(&mut self, now: Instant) -> bool {
        let due = self.probe_at(now).is_some_and(|at| at <= now);
        if due {
            self.probed = Some(now);
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
        fn it_is_open_while_the_last_calls_have_failed_and_lets_one_probe_through_each_pause(
            steps in prop::collection::vec(
                (0u64..700, prop_oneof![4 => Just(Step::Failed), 1 => Just(Step::Succeeded), 4 => Just(Step::Probe)]),
                1..200,
            ),
        ) {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            // The naive model: all that has failed since the last success, and the last probe since it opened.
            let mut failures: Vec<Instant> = Vec::new();
            let mut probed: Option<Instant> = None;
            for (milliseconds, step) in steps {
                now += Duration::from_millis(milliseconds);
                let was_open = failures.len() >= FAILURES as usize;
                match step {
                    Step::Failed => {
                        failures.push(now);
                        prop_assert_eq!(breaker.failed(now), !was_open && failures.len() >= FAILURES as usize);
                    }
                    Step::Succeeded => {
                        failures.clear();
                        probed = None;
                        prop_assert_eq!(breaker.succeeded(), was_open);
                    }
                    Step::Probe => {
                        let due = was_open && probed.is_none_or(|probed| now - probed >= PAUSE);
                        prop_assert_eq!(breaker.take_probe(now), due);
                        if due {
                            probed = Some(now);
                        }
                    }
                }
                let open = failures.len() >= FAILURES as usize;
                prop_assert_eq!(breaker.is_closed(), !open);
                prop_assert_eq!(breaker.down_since(), failures.first().copied().filter(|_| open));
                // It never stays open without a probe to come: a probe whose end nobody told of is followed by another.
                prop_assert_eq!(breaker.probe_at(now).is_some(), open);
                prop_assert!(breaker.probe_at(now).is_none_or(|at| at <= now + PAUSE));
            }
        }
    }
}
