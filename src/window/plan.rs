//! The window plan: what of a window can be served from copies, and what is missing.

use super::{FreshnessPolicy, Interval, IntervalMap, IntervalSet, Timestamp};

/// What the plan needs to know of a copy.
pub trait PlanEntry {
    /// When the fetch that made it began.
    fn fetched_at(&self) -> Timestamp;
}

/// How a window is going to be answered.
#[derive(Clone, Debug)]
pub struct Plan<V> {
    /// Parts of the window with what serves each, in no promised order; they do not overlap.
    pub hits: Vec<(Interval, V)>,
    /// What nothing may serve.
    pub missing: IntervalSet,
    /// Whether a part is missing although there is a copy, because the copy is too old.
    pub stale: bool,
}

impl<V> Plan<V> {
    /// A plan in which all of `window` is still missing.
    pub fn new(window: Interval) -> Self {
        Self { hits: Vec::new(), missing: window.into(), stale: false }
    }

    /// Takes from `copies` what may be served at `now`, where the plan has nothing yet. `open` gives what a copy stands
    /// for, or `None` if that is gone.
    ///
    /// A copy fetched at or after `fresh_since` is always good enough: whoever asked before it was fetched cannot
    /// want a newer one.
    pub fn take<'c, C: Clone + PlanEntry>(
        &mut self,
        copies: &'c IntervalMap<C>,
        freshness_policy: &FreshnessPolicy,
        now: Timestamp,
        fresh_since: Timestamp,
        mut open: impl FnMut(&'c C) -> Option<V>,
    ) where
        V: Clone,
    {
        for gap in std::mem::take(&mut self.missing).intervals() {
            let mut left = IntervalSet::from(*gap);
            for (part, copy) in copies.within(*gap) {
                let mut servable = IntervalSet::from(part);
                if copy.fetched_at() < fresh_since {
                    for due in freshness_policy.due(part, copy.fetched_at(), now) {
                        servable.remove(due);
                        self.stale = true;
                    }
                }
                let Some(value) = (if servable.is_empty() { None } else { open(copy) }) else { continue };
                for interval in servable.intervals() {
                    left.remove(*interval);
                    self.hits.push((*interval, value.clone()));
                }
            }
            left.intervals().iter().for_each(|interval| self.missing.insert(*interval));
        }
    }

    /// `asked`, with those of its spans joined between which there are hits of less than `most` items only.
    ///
    /// Each span is a run, and a run costs a call however little it brings: where copies of many ages lie side by side,
    /// fetching the few items between two gaps again is cheaper than leaving them out. `items` gives how many lie in a
    /// part of a hit, or `None` where it must not be fetched again.
    pub fn bridge(
        &self,
        asked: &IntervalSet,
        most: usize,
        items: impl Fn(Interval, &V) -> Option<usize>,
    ) -> IntervalSet {
        let mut bridged = asked.clone();
        for pair in asked.intervals().windows(2) {
            let between = Interval::new(pair[0].end, pair[1].start);
            let mut uncovered = IntervalSet::from(between);
            let mut weight = Some(0);
            for (interval, value) in self.hits.iter().filter(|(interval, _)| interval.overlaps(between)) {
                let part = interval.intersection(between);
                uncovered.remove(part);
                weight = weight.zip(items(part, value)).map(|(weight, items)| weight + items);
            }
            if uncovered.is_empty() && weight.is_some_and(|weight| weight < most) {
                bridged.insert(between);
            }
        }
        bridged
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Fetched(i64);

    impl PlanEntry for Fetched {
        fn fetched_at(&self) -> Timestamp {
            Timestamp::from_seconds(self.0)
        }
    }

    fn seconds(start: i64, end: i64) -> Interval {
        Interval::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end))
    }

    #[test]
    fn gaps_are_joined_across_few_items_that_may_be_fetched_again() {
        let hits = vec![
            (seconds(10, 20), Some(3)),
            (seconds(30, 35), Some(2)),
            (seconds(35, 40), Some(2)),
            (seconds(50, 60), None),
            (seconds(70, 80), Some(5)),
            // From 90 to 95 somebody else is fetching.
            (seconds(95, 100), Some(1)),
        ];
        let plan = Plan { hits, missing: seconds(0, 200).into(), stale: true };
        let gaps = [(0, 10), (20, 30), (40, 50), (60, 70), (80, 90), (100, 110)];
        let asked: IntervalSet = gaps.map(|(start, end)| seconds(start, end)).into_iter().collect();
        let bridged = plan.bridge(&asked, 5, |_, items| *items);
        assert_eq!(bridged.intervals(), [seconds(0, 50), seconds(60, 70), seconds(80, 90), seconds(100, 110)]);
    }

    proptest! {
        /// Every second is served by a copy that covers it and is not due, or it is missing; never both, never neither.
        #[test]
        fn a_plan_tiles_its_window(
            copies in prop::collection::vec((0i64..100, 1i64..30, 0i64..150), 0..12),
            start in 0i64..100, length in 1i64..60, now in 100i64..200, since in 90i64..200, settle in 1u64..90
        ) {
            let freshness_policy = FreshnessPolicy::new(Duration::from_secs(settle), vec![]);
            let mut coverage = IntervalMap::default();
            for (start, length, fetched) in copies {
                coverage.insert(seconds(start, start + length), Fetched(fetched.min(now)));
            }
            let window = seconds(start, start + length);
            let mut plan = Plan::new(window);
            plan.take(&coverage, &freshness_policy, Timestamp::from_seconds(now), Timestamp::from_seconds(since), |copy| Some(copy.clone()));
            for second in start..start + length {
                let moment = Timestamp::from_seconds(second);
                let hits: Vec<_> = plan.hits.iter().filter(|(interval, _)| interval.contains(moment)).collect();
                let missing = plan.missing.intervals().iter().any(|interval| interval.contains(moment));
                prop_assert_eq!(hits.len() + usize::from(missing), 1);
                let one = Interval::new(moment, moment.next_tick());
                let servable = coverage.within(one).next().map(|(_, copy)| copy).filter(|copy| {
                    copy.0 >= since || freshness_policy.due(one, copy.fetched_at(), Timestamp::from_seconds(now)).next().is_none()
                });
                prop_assert_eq!(hits.first().map(|(_, copy)| copy), servable);
            }
        }
    }
}
