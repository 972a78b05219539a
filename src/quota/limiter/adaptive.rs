//! What one limit is worth while somebody else spends the same quota. Pure: time is an argument.

use std::time::Duration;

use super::ledger::MonotonicTime;
use crate::config::QuotaLimit;

/// How long a budget takes to grow by the whole limit, in windows of the limit,
const GROWTH_WINDOWS: u32 = 20;
/// but never longer than this, or than one window if that is longer still.
const GROWTH: Duration = Duration::from_mins(20);

/// How many calls a window of one limit has for us.
///
/// All of the limit, until the upstream refuses a call that the limit had room for: then somebody else spends it too.
/// How much they spend nobody says, so it is found out by giving way and coming back. A refusal takes a tenth of what
/// we had; what was taken grows back with the square of the time, first slowly, where we have just been refused, then
/// faster the longer nobody refuses. So what another client leaves is used but for a few calls, and is all ours soon
/// after it has gone.
#[derive(Clone, Debug)]
pub(in crate::quota) struct AdaptiveLimit {
    limit: QuotaLimit,
    /// What it was at `since`,
    base: u32,
    /// from when on it grows; `None` if it was always the whole limit.
    since: Option<MonotonicTime>,
    /// The last refusal that told something new.
    shrunk: Option<MonotonicTime>,
}

impl AdaptiveLimit {
    /// The whole limit.
    pub(in crate::quota) fn new(limit: QuotaLimit) -> Self {
        Self { limit, base: limit.requests, since: None, shrunk: None }
    }

    /// The limit that it is a part of.
    pub(in crate::quota) fn limit(&self) -> QuotaLimit {
        self.limit
    }

    /// How many calls the window may hold at `now`: at least 1, so that we ever find out more, and at most the limit.
    pub(in crate::quota) fn at(&self, now: MonotonicTime) -> u32 {
        let Some(since) = self.since else { return self.limit.requests };
        let (time, all) = (now.saturating_sub(since).as_micros(), self.growth());
        let grown = if time >= all { u128::MAX } else { u128::from(self.limit.requests) * time * time / (all * all) };
        let grown = u32::try_from(grown).unwrap_or(u32::MAX);
        self.base.saturating_add(grown).min(self.limit.requests).max(1)
    }

    /// The earliest time at which [`AdaptiveLimit::at`] is `wanted` or more, if nobody refuses; `wanted` is at most the limit.
    pub(in crate::quota) fn reaches(&self, wanted: u32) -> MonotonicTime {
        let Some(since) = self.since else { return MonotonicTime::ZERO };
        let missing = wanted.min(self.limit.requests).saturating_sub(self.base);
        if missing == 0 {
            return MonotonicTime::ZERO;
        }
        let all = self.growth();
        let square = (u128::from(missing) * all * all).div_ceil(u128::from(self.limit.requests));
        let root = square.isqrt();
        let time = if root * root < square { root + 1 } else { root };
        since + Duration::from_micros(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// Whether it is the whole limit.
    pub(in crate::quota) fn is_whole(&self, now: MonotonicTime) -> bool {
        self.at(now) >= self.limit.requests
    }

    /// The upstream refused, at `now`, a call that began at `began`, when the window held `own` other calls of ours.
    ///
    /// What we had was too much: nine tenths of it are left. But a refusal that finds the window nearly empty of our
    /// calls says little of what we may have, so the budget never falls by more than three tenths at once.
    ///
    /// Returns whether that was news. Several calls under way meet the same wall: what began before the last refusal
    /// was weighed has been weighed with it.
    pub(in crate::quota) fn shrink(&mut self, now: MonotonicTime, began: MonotonicTime, own: u32) -> bool {
        if self.shrunk.is_some_and(|last| began < last) {
            return false;
        }
        let before = self.at(now);
        self.base = tenths(own, 9).max(tenths(before, 7)).min(before).max(1);
        self.since = Some(now);
        self.shrunk = Some(now);
        true
    }

    /// The upstream itself said, at `now`, how many calls are left, when the window held `own` calls of ours.
    ///
    /// It knows, and we only guess: the budget is what it said, be that more or less. From there it grows, for the
    /// calls of others leave the window too.
    pub(in crate::quota) fn told(&mut self, now: MonotonicTime, own: u32, remaining: u32) {
        self.base = own.saturating_add(remaining).min(self.limit.requests).max(1);
        self.since = Some(now);
    }

    /// How long it takes to grow by the whole limit, in microseconds, which cannot overflow when squared.
    fn growth(&self) -> u128 {
        let per = self.limit.per;
        per.saturating_mul(GROWTH_WINDOWS).min(per.max(GROWTH)).as_micros().max(1)
    }
}

/// So many tenths of `number`, rounded down.
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
    fn a_refusal_costs_a_tenth_and_the_first_steps_back_are_the_slowest() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        assert!(budget.is_whole(seconds(100)));
        assert!(budget.shrink(seconds(100), seconds(99), 50));
        assert_eq!(budget.at(seconds(100)), 45);
        let steps: Vec<u64> = (46..=60).map(|calls| budget.reaches(calls).as_secs()).collect();
        assert!(steps.windows(3).all(|times| times[2] - times[1] <= times[1] - times[0] + 1), "{steps:?}");
        assert_eq!((steps[0], steps[14]), (254, 700));
        assert!(budget.is_whole(seconds(701)) && !budget.is_whole(seconds(699)));
    }

    #[test]
    fn one_odd_refusal_early_in_a_window_does_not_shut_us_out() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        assert!(budget.shrink(seconds(1), seconds(0), 0));
        assert_eq!(budget.at(seconds(1)), 42);
        assert!(budget.shrink(seconds(2), seconds(1), 2));
        assert_eq!(budget.at(seconds(2)), 29);
    }

    #[test]
    fn calls_that_meet_the_same_wall_count_once() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        assert!(budget.shrink(seconds(10), seconds(9), 40));
        assert!(!budget.shrink(seconds(11), seconds(9), 20));
        assert_eq!(budget.at(seconds(11)), 42);
    }

    #[test]
    fn what_the_upstream_says_wins_over_the_guess() {
        let mut budget = AdaptiveLimit::new(MINUTE);
        budget.told(seconds(10), 20, 5);
        assert_eq!(budget.at(seconds(10)), 25);
        budget.told(seconds(11), 20, 35);
        assert_eq!(budget.at(seconds(11)), 55);
        budget.told(seconds(12), 40, 35);
        assert!(budget.is_whole(seconds(12)));
        budget.told(seconds(13), 0, 0);
        assert_eq!(budget.at(seconds(13)), 1, "one call, to find out more");
    }

    /// An event, and how long after the one before it comes.
    #[derive(Clone, Debug)]
    enum Event {
        Shrink { before: u64, own: u32 },
        Told { own: u32, remaining: u32 },
    }

    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let event = prop_oneof![
            (0u64..3000, 0u32..100).prop_map(|(before, own)| Event::Shrink { before, own }),
            (0u32..100, 0u32..100).prop_map(|(own, remaining)| Event::Told { own, remaining }),
        ];
        prop::collection::vec((0u64..400_000, event), 0..12)
    }

    proptest! {
        #[test]
        fn it_lies_within_the_limit_and_only_a_refusal_or_the_upstream_makes_it_less(
            requests in 1u32..100, per in 1u64..5000, events in events(), looks in prop::collection::vec(0u64..300_000, 1..8),
        ) {
            let mut budget = AdaptiveLimit::new(QuotaLimit { requests, per: seconds(per) });
            let mut now = MonotonicTime::ZERO;
            for (wait, event) in events {
                let mut last = budget.at(now);
                let mut looks: Vec<_> = looks.iter().map(|look| look % (wait + 1)).collect();
                looks.sort_unstable();
                for look in looks {
                    let held = budget.at(now + Duration::from_millis(look));
                    prop_assert!(last <= held && (1..=requests).contains(&held));
                    last = held;
                }
                now += Duration::from_millis(wait);
                let before = budget.at(now);
                match event {
                    Event::Shrink { before: ago, own } => {
                        let news = budget.shrink(now, now.saturating_sub(Duration::from_millis(ago)), own);
                        prop_assert!(budget.at(now) <= before);
                        prop_assert!(news || budget.at(now) == before);
                    }
                    Event::Told { own, remaining } => {
                        budget.told(now, own, remaining);
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
