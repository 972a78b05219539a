//! What is closed, and how old a copy of what is still open may be.

use std::time::Duration;

use super::{Interval, Timestamp};

/// One rung of the ladder: a copy of what is younger than `younger_than` may be served until it is `max_age` old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshnessTier {
    /// Age of the data.
    pub younger_than: Duration,
    /// Age of the copy.
    pub max_age: Duration,
}

/// The rules of age: data older than `settle_after` is closed, and the rungs say how long a copy of younger data is
/// fresh.
#[derive(Clone, Debug)]
pub struct FreshnessPolicy {
    settle_after: Duration,
    /// Ascending in both members.
    rungs: Vec<FreshnessTier>,
}

impl FreshnessPolicy {
    /// A ladder of `rungs` that ascend in both members. What is older than the last rung, and still open, is kept to
    /// the last rung's `max_age`; with no rung at all, what is open is always asked for afresh.
    pub fn new(settle_after: Duration, mut rungs: Vec<FreshnessTier>) -> Self {
        if let Some(last) = rungs.last().copied().filter(|last| last.younger_than < settle_after) {
            rungs.push(FreshnessTier { younger_than: settle_after, max_age: last.max_age });
        }
        if rungs.is_empty() {
            rungs.push(FreshnessTier { younger_than: settle_after, max_age: Duration::ZERO });
        }
        Self { settle_after, rungs }
    }

    /// The line before which data is settled in a copy that was fetched at `fetched_at`, on a whole second.
    pub fn settled_before(&self, fetched_at: Timestamp) -> Timestamp {
        (fetched_at - self.settle_after).floor_second()
    }

    /// Which moments of a copy are due to be fetched again at `now`: at most two spans, ascending.
    ///
    /// What was settled when it was fetched is never due. What has settled since is due for one last fetch. The rest
    /// is due where the copy is older than its rung allows.
    pub fn due(&self, copy: Interval, fetched_at: Timestamp, now: Timestamp) -> impl Iterator<Item = Interval> + use<> {
        let open_then = Interval::new(self.settled_before(fetched_at), copy.end).intersection(copy);
        let (settled_since, open_now) = open_then.split_at(self.settled_before(now));
        let copy_age = now.since(fetched_at);
        let too_old_for = self.rungs.iter().filter(|rung| rung.max_age < copy_age).map(|rung| rung.younger_than).max();
        let expired = too_old_for
            .map(|younger_than| open_now.split_at((now - younger_than).floor_second()).1)
            .unwrap_or_default();
        [settled_since, expired].into_iter().filter(|interval| !interval.is_empty())
    }

    /// The time that lies ahead of `now`: nothing is there yet, and that may be served for as long as a copy of the
    /// youngest data may. Empty where that is always asked for afresh.
    pub fn ahead_of(&self, now: Timestamp) -> Interval {
        let youngest = self.rungs.first().map(|rung| rung.max_age).unwrap_or_default();
        Interval::new(now, now + youngest)
    }

    /// Whether a copy fetched at `fetched_at` can serve anybody later: false for open data that is always asked for
    /// afresh.
    pub fn worth_keeping(&self, copy: Interval, fetched_at: Timestamp) -> bool {
        copy.start < self.settled_before(fetched_at) || self.rungs.iter().any(|rung| !rung.max_age.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn rung(younger_than: u64, max_age: u64) -> FreshnessTier {
        FreshnessTier { younger_than: Duration::from_secs(younger_than), max_age: Duration::from_secs(max_age) }
    }

    fn default_ladder() -> FreshnessPolicy {
        FreshnessPolicy::new(Duration::from_hours(24), vec![rung(3600, 30), rung(6 * 3600, 300), rung(24 * 3600, 3600)])
    }

    #[test]
    fn what_was_settled_when_fetched_is_never_due() {
        let freshness_policy = default_ladder();
        let day = Interval::new(at(0), at(24 * HOUR));
        let year_later = at(366 * 24 * HOUR);
        assert_eq!(freshness_policy.due(day, at(48 * HOUR), year_later).count(), 0);
        assert_eq!(freshness_policy.due(day, at(48 * HOUR - 1), year_later).count(), 1);
    }

    #[test]
    fn a_young_copy_expires_from_its_open_end() {
        let freshness_policy = default_ladder();
        let (fetched, copy) = (at(100 * HOUR), Interval::new(at(90 * HOUR), at(100 * HOUR)));
        let due =
            |seconds| freshness_policy.due(copy, fetched, fetched + Duration::from_secs(seconds)).collect::<Vec<_>>();
        assert_eq!(due(30), vec![]);
        assert_eq!(due(31), vec![Interval::new(at(99 * HOUR + 31), copy.end)]);
        assert_eq!(due(301), vec![Interval::new(at(94 * HOUR + 301), copy.end)]);
        assert_eq!(due(3601), vec![copy]);
    }

    #[test]
    fn that_nothing_was_there_yet_is_known_for_a_while() {
        let freshness_policy = default_ladder();
        let fetched = at(100 * HOUR);
        let ahead = freshness_policy.ahead_of(fetched);
        assert_eq!(ahead, Interval::new(fetched, fetched + Duration::from_secs(30)));
        assert_eq!(freshness_policy.due(ahead, fetched, ahead.end).count(), 0);
        assert!(FreshnessPolicy::new(Duration::from_mins(15), vec![]).ahead_of(fetched).is_empty());
    }

    #[test]
    fn without_rungs_what_is_open_is_always_due() {
        let freshness_policy = FreshnessPolicy::new(Duration::from_mins(15), vec![]);
        let copy = Interval::new(at(0), at(HOUR));
        let due: Vec<_> = freshness_policy.due(copy, at(HOUR), at(HOUR) + Duration::from_nanos(1)).collect();
        assert_eq!(due, vec![Interval::new(at(HOUR - 900), copy.end)]);
        assert!(!freshness_policy.worth_keeping(Interval::new(at(HOUR - 900), at(HOUR)), at(HOUR)));
    }

    proptest! {
        /// The naive model judges one second at a time.
        #[test]
        fn each_second_is_judged_by_its_own_age(
            settle in 1u64..50, steps in prop::collection::vec((1u64..12, 0u64..8), 0..4),
            start in 0i64..60, length in 1i64..60, fetched in 0i64..120, waited in 0i64..80
        ) {
            let mut rungs = Vec::new();
            let (mut younger, mut age) = (0, 0);
            for (y, a) in steps {
                younger += y;
                age += a;
                rungs.push(rung(younger, age));
            }
            let freshness_policy = FreshnessPolicy::new(Duration::from_secs(settle), rungs.clone());
            let (copy, now) = (Interval::new(at(start), at(start + length)), fetched + waited);
            let due: Vec<Interval> = freshness_policy.due(copy, at(fetched), at(now)).collect();
            for second in start..start + length {
                let settled_then = second < fetched - settle.cast_signed();
                let settled_now = second < now - settle.cast_signed();
                let data_age = now - second;
                // The rungs up to the one that holds this age; a second exactly on a rung's edge is judged as younger.
                let max_age = rungs.iter().find(|r| data_age <= r.younger_than.as_secs().cast_signed())
                    .or(rungs.last()).map_or(0, |r| r.max_age.as_secs().cast_signed());
                let expected = !settled_then && (settled_now || waited > max_age);
                let found = due.iter().any(|interval| interval.contains(at(second)));
                prop_assert_eq!(found, expected, "second {} of {:?} in {:?}", second, copy, due);
            }
        }
    }
}
