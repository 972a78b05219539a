//! Adaptive limit: the part of one limit that other clients of the same quota leave. Pure: time is an argument.

use std::time::Duration;

use super::ledger::MonotonicTime;
use crate::config::QuotaLimit;

/// Windows of the limit in which a budget grows by the whole limit.
const GROWTH_WINDOWS: u32 = 20;
/// Longest time in which a budget grows by the whole limit, unless one window is longer.
const MAX_GROWTH_TIME: Duration = Duration::from_mins(20);

/// Budget of one limit: the calls that its window has for this gateway.
///
/// The budget is the whole limit until the upstream refuses a call for which the limit had room, because another client
/// uses the same quota. How much that client uses is not stated, so the budget adapts as the window of a congestion
/// control does (multiplicative decrease, convex growth; compare CUBIC, RFC 9438): a refusal takes a tenth of the calls
/// made; the budget grows back with the square of the time, slowly near the size that was refused, then faster. So all
/// but a few of the calls that the other client leaves are used, and the whole limit soon after that client has
/// stopped.
#[derive(Clone, Debug)]
pub(in crate::quota) struct AdaptiveLimit {
    limit: QuotaLimit,
    /// The budget at `growing_since`.
    base: u32,
    /// Start of its growth; `None` if it was always the whole limit.
    growing_since: Option<MonotonicTime>,
    /// Time of the last refusal that reduced it.
    reduced_at: Option<MonotonicTime>,
}

impl AdaptiveLimit {
    /// A budget of the whole limit.
    pub(in crate::quota) fn new(limit: QuotaLimit) -> Self {
        Self { limit, base: limit.requests, growing_since: None, reduced_at: None }
    }

    /// The limit, as configured.
    pub(in crate::quota) fn limit(&self) -> QuotaLimit {
        self.limit
    }

    /// Calls that the window may hold at `now`: at most the limit, and at least 1, so that a larger budget is ever
    /// found.
    pub(in crate::quota) fn at(&self, now: MonotonicTime) -> u32 {
        let Some(since) = self.growing_since else { return self.limit.requests };
        let (time, all) = (now.saturating_sub(since).as_micros(), self.growth_micros());
        let grown = if time >= all { u128::MAX } else { u128::from(self.limit.requests) * time * time / (all * all) };
        let grown = u32::try_from(grown).unwrap_or(u32::MAX);
        self.base.saturating_add(grown).min(self.limit.requests).max(1)
    }

    /// The earliest time at which [`AdaptiveLimit::at`] is `wanted` or more, if no call is refused. `wanted` is at most
    /// the limit.
    pub(in crate::quota) fn reaches(&self, wanted: u32) -> MonotonicTime {
        let Some(since) = self.growing_since else { return MonotonicTime::ZERO };
        let missing = wanted.min(self.limit.requests).saturating_sub(self.base);
        if missing == 0 {
            return MonotonicTime::ZERO;
        }
        let all = self.growth_micros();
        let square = (u128::from(missing) * all * all).div_ceil(u128::from(self.limit.requests));
        let root = square.isqrt();
        let time = if root * root < square { root + 1 } else { root };
        since + Duration::from_micros(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// Whether the budget is the whole limit.
    pub(in crate::quota) fn is_whole(&self, now: MonotonicTime) -> bool {
        self.at(now) >= self.limit.requests
    }

    /// Reduces the budget after a refusal at `now` of a call that began at `began`, when the window held `own` other
    /// calls of this gateway.
    ///
    /// Those calls were too many: the budget becomes nine tenths of them. A refusal that comes while the window holds
    /// few of them says little about the budget, so it never falls by more than three tenths at once.
    ///
    /// Returns whether the refusal was news. A call that began before the last reduction is refused for the same
    /// reason.
    pub(in crate::quota) fn reduce(&mut self, now: MonotonicTime, began: MonotonicTime, own: u32) -> bool {
        if self.reduced_at.is_some_and(|last| began < last) {
            return false;
        }
        let before = self.at(now);
        self.base = tenths(own, 9).max(tenths(before, 7)).min(before).max(1);
        self.growing_since = Some(now);
        self.reduced_at = Some(now);
        true
    }

    /// Sets the budget to what the upstream stated at `now`: `remaining` calls, besides the `own` calls of this gateway
    /// in the window. From there it grows, because the calls of other clients leave the window, too.
    pub(in crate::quota) fn set_remaining(&mut self, now: MonotonicTime, own: u32, remaining: u32) {
        self.base = own.saturating_add(remaining).min(self.limit.requests).max(1);
        self.growing_since = Some(now);
    }

    /// Time in which the budget grows by the whole limit: in microseconds, whose square fits a `u128`.
    fn growth_micros(&self) -> u128 {
        let per = self.limit.per;
        per.saturating_mul(GROWTH_WINDOWS).min(per.max(MAX_GROWTH_TIME)).as_micros().max(1)
    }
}

/// `tenths` tenths of `number`, rounded down.
fn tenths(number: u32, tenths: u32) -> u32 {
    number / 10 * tenths + number % 10 * tenths / 10
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: QuotaLimit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };

    fn seconds(seconds: u64) -> MonotonicTime {
        Duration::from_secs(seconds)
    }

    #[test]
    fn budget_refused_loses_a_tenth_and_grows_back_slowly_first() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        assert!(budget.is_whole(seconds(100)));
        assert!(budget.reduce(seconds(100), seconds(99), 50));
        assert_eq!(budget.at(seconds(100)), 45);
        let steps: Vec<u64> = (46..=60).map(|calls| budget.reaches(calls).as_secs()).collect();
        assert!(steps.windows(3).all(|times| times[2] - times[1] <= times[1] - times[0] + 1), "{steps:?}");
        assert_eq!((steps[0], steps[14]), (254, 700));
        assert!(budget.is_whole(seconds(701)) && !budget.is_whole(seconds(699)));
    }

    #[test]
    fn budget_refused_early_in_window_keeps_seven_tenths() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        assert!(budget.reduce(seconds(1), seconds(0), 0));
        assert_eq!(budget.at(seconds(1)), 42);
        assert!(budget.reduce(seconds(2), seconds(1), 2));
        assert_eq!(budget.at(seconds(2)), 29);
    }

    #[test]
    fn budget_refused_for_concurrent_calls_is_reduced_once() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        assert!(budget.reduce(seconds(10), seconds(9), 40));
        assert!(!budget.reduce(seconds(11), seconds(9), 20));
        assert_eq!(budget.at(seconds(11)), 42);
    }

    #[test]
    fn budget_stated_by_upstream_replaces_estimate() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        budget.set_remaining(seconds(10), 20, 5);
        assert_eq!(budget.at(seconds(10)), 25);
        budget.set_remaining(seconds(11), 20, 35);
        assert_eq!(budget.at(seconds(11)), 55);
        budget.set_remaining(seconds(12), 40, 35);
        assert!(budget.is_whole(seconds(12)));
        budget.set_remaining(seconds(13), 0, 0);
        assert_eq!(budget.at(seconds(13)), 1, "one call, to find a larger budget");
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// A refusal of a call that began `age_ms` ago.
        Reduce {
            age_ms: u64,
            own: u32,
        },
        SetRemaining {
            own: u32,
            remaining: u32,
        },
    }

    /// Events, each with the milliseconds since the one before.
    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let event = prop_oneof![
            (0u64..3000, 0u32..100).prop_map(|(age_ms, own)| Event::Reduce { age_ms, own }),
            (0u32..100, 0u32..100).prop_map(|(own, remaining)| Event::SetRemaining { own, remaining }),
        ];
        prop::collection::vec((0u64..400_000, event), 0..12)
    }

    proptest! {
        #[test]
        fn budget_stays_within_limit_and_only_events_reduce_it(
            requests in 1u32..100, per in 1u64..5000, events in events(),
            samples in prop::collection::vec(0u64..300_000, 1..8),
        ) {
            let mut budget = AdaptiveLimit::new(QuotaLimit { requests, per: seconds(per) });
            let mut now = MonotonicTime::ZERO;
            for (wait, event) in events {
                let mut last = budget.at(now);
                let mut samples: Vec<_> = samples.iter().map(|sample| sample % (wait + 1)).collect();
                samples.sort_unstable();
                for sample in samples {
                    let sampled = budget.at(now + Duration::from_millis(sample));
                    prop_assert!(last <= sampled && (1..=requests).contains(&sampled));
                    last = sampled;
                }
                now += Duration::from_millis(wait);
                let before = budget.at(now);
                match event {
                    Event::Reduce { age_ms, own } => {
                        let news = budget.reduce(now, now.saturating_sub(Duration::from_millis(age_ms)), own);
                        prop_assert!(budget.at(now) <= before);
                        prop_assert!(news || budget.at(now) == before);
                    }
                    Event::SetRemaining { own, remaining } => {
                        budget.set_remaining(now, own, remaining);
                        prop_assert_eq!(budget.at(now), (own + remaining).min(requests).max(1));
                    }
                }
                prop_assert!((1..=requests).contains(&budget.at(now)));
                for wanted in 1..=requests {
                    let reached = budget.reaches(wanted);
                    prop_assert!(budget.at(reached.max(now)) >= wanted);
                    if reached > now {
                        prop_assert!(budget.at(reached.saturating_sub(Duration::from_micros(1))) < wanted);
                    }
                }
            }
        }
    }
}
