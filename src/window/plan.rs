//! The window plan: which parts of a window can be served from cache entries, and which are missing.

use super::{Interval, IntervalMap, IntervalSet, RequestFreshness, Timestamp};

/// A cache entry as the plan sees it.
pub trait PlanEntry {
    /// When the fetch of the entry began.
    fn fetched_at(&self) -> Timestamp;
}

/// The parts of a window by how they are answered.
#[derive(Clone, Debug)]
pub struct Plan<V> {
    /// Parts of the window with the value that serves each, in no promised order; they do not overlap.
    pub hits: Vec<(Interval, V)>,
    /// Parts that no entry may serve.
    pub missing: IntervalSet,
    /// Whether a part is missing because its entry is stale.
    pub stale: bool,
}

impl<V> Plan<V> {
    /// A plan in which all of `window` is missing.
    pub fn new(window: Interval) -> Self {
        Self { hits: Vec::new(), missing: window.into(), stale: false }
    }

    /// Adds the hits that `entries` may serve at `now` where the plan has none yet. `open` returns the value of an
    /// entry, or `None` if the entry was evicted.
    ///
    /// An entry fetched at or after `fresh_since` always counts as fresh, because a request from before that fetch
    /// cannot want a newer one.
    pub fn take<'c, 'p, C: Clone + PlanEntry>(
        &mut self,
        entries: &'c IntervalMap<C>,
        freshness: impl Into<RequestFreshness<'p>>,
        now: Timestamp,
        fresh_since: Timestamp,
        mut open: impl FnMut(&'c C) -> Option<V>,
    ) where
        V: Clone,
    {
        let freshness = freshness.into();
        for gap in std::mem::take(&mut self.missing).intervals() {
            let mut left = IntervalSet::from(*gap);
            for (part, entry) in entries.within(*gap) {
                let mut servable = IntervalSet::from(part);
                if entry.fetched_at() < fresh_since {
                    for stale in freshness.stale(part, entry.fetched_at(), now) {
                        servable.remove(stale);
                        self.stale = true;
                    }
                }
                let Some(value) = (if servable.is_empty() { None } else { open(entry) }) else { continue };
                for interval in servable.intervals() {
                    left.remove(*interval);
                    self.hits.push((*interval, value.clone()));
                }
            }
            left.intervals().iter().for_each(|interval| self.missing.insert(*interval));
        }
    }

    /// Joins those intervals of `asked` between which there are only hits of less than `most` items together.
    ///
    /// Each interval is a run, and each run costs at least one call. Where entries of many ages lie side by side,
    /// fetching the few items between two gaps again is cheaper than leaving them out. `items` returns the number of
    /// items in a part of a hit, or `None` if that part must not be fetched again.
    pub fn coalesce_gaps(
        &self,
        asked: &IntervalSet,
        most: usize,
        items: impl Fn(Interval, &V) -> Option<usize>,
    ) -> IntervalSet {
        let mut coalesced = asked.clone();
        for pair in asked.intervals().windows(2) {
            let between = Interval::new(pair[0].end, pair[1].start);
            let mut unserved = IntervalSet::from(between);
            let mut weight = Some(0);
            for (interval, value) in self.hits.iter().filter(|(interval, _)| interval.overlaps(between)) {
                let part = interval.intersection(between);
                unserved.remove(part);
                weight = weight.zip(items(part, value)).map(|(weight, items)| weight + items);
            }
            if unserved.is_empty() && weight.is_some_and(|weight| weight < most) {
                coalesced.insert(between);
            }
        }
        coalesced
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::window::FreshnessPolicy;

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
    fn gaps_are_joined_across_few_open_items() {
        let hits = vec![
            (seconds(10, 20), Some(3)),
            (seconds(30, 35), Some(2)),
            (seconds(35, 40), Some(2)),
            (seconds(50, 60), None),
            (seconds(70, 80), Some(5)),
            // From 90 to 95 another request is fetching.
            (seconds(95, 100), Some(1)),
        ];
        let plan = Plan { hits, missing: seconds(0, 200).into(), stale: true };
        let gaps = [(0, 10), (20, 30), (40, 50), (60, 70), (80, 90), (100, 110)];
        let asked: IntervalSet = gaps.map(|(start, end)| seconds(start, end)).into_iter().collect();
        let coalesced = plan.coalesce_gaps(&asked, 5, |_, items| *items);
        assert_eq!(coalesced.intervals(), [seconds(0, 50), seconds(60, 70), seconds(80, 90), seconds(100, 110)]);
    }

    proptest! {
        /// Every second is served by a fresh entry that covers it, or is missing; never both, never neither.
        #[test]
        fn plan_tiles_its_window(
            entries in prop::collection::vec((0i64..100, 1i64..30, 0i64..150), 0..12),
            start in 0i64..100, length in 1i64..60, now in 100i64..200, since in 90i64..200, settle in 1u64..90
        ) {
            let freshness_policy = FreshnessPolicy::new(Duration::from_secs(settle), vec![]);
            let mut map = IntervalMap::default();
            for (start, length, fetched) in entries {
                map.insert(seconds(start, start + length), Fetched(fetched.min(now)));
            }
            let window = seconds(start, start + length);
            let mut plan = Plan::new(window);
            plan.take(&map, &freshness_policy, Timestamp::from_seconds(now), Timestamp::from_seconds(since), |entry| Some(entry.clone()));
            for second in start..start + length {
                let timestamp = Timestamp::from_seconds(second);
                let hits: Vec<_> = plan.hits.iter().filter(|(interval, _)| interval.contains(timestamp)).collect();
                let missing = plan.missing.intervals().iter().any(|interval| interval.contains(timestamp));
                prop_assert_eq!(hits.len() + usize::from(missing), 1);
                let one = Interval::new(timestamp, timestamp.next_tick());
                let servable = map.within(one).next().map(|(_, entry)| entry).filter(|entry| {
                    entry.0 >= since || freshness_policy.stale(one, entry.fetched_at(), Timestamp::from_seconds(now)).next().is_none()
                });
                prop_assert_eq!(hits.first().map(|(_, entry)| entry), servable);
            }
        }
    }
}
