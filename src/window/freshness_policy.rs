//! Freshness of cached data: which data is settled, and when a cached entry of open data is too old and is fetched
//! again.

use std::time::Duration;

use super::{Interval, Timestamp};

/// A tier: data younger than `younger_than` may be served from an entry that is at most `max_age` old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshnessTier {
    /// Upper bound of the data's age.
    pub younger_than: Duration,
    /// Upper bound of the entry's age.
    pub max_age: Duration,
}

/// The freshness rules: data older than `settle_after` is settled, and the tiers say how long an entry of younger data
/// is fresh.
#[derive(Clone, Debug)]
pub struct FreshnessPolicy {
    settle_after: Duration,
    /// Ascending in both fields.
    tiers: Vec<FreshnessTier>,
}

impl FreshnessPolicy {
    /// A policy of `tiers` that ascend in both fields. Open data older than the last tier is held to the last tier's
    /// `max_age`; without any tier, open data is always fetched again.
    pub fn new(settle_after: Duration, mut tiers: Vec<FreshnessTier>) -> Self {
        if let Some(last) = tiers.last().copied().filter(|last| last.younger_than < settle_after) {
            tiers.push(FreshnessTier { younger_than: settle_after, max_age: last.max_age });
        }
        if tiers.is_empty() {
            tiers.push(FreshnessTier { younger_than: settle_after, max_age: Duration::ZERO });
        }
        Self { settle_after, tiers }
    }

    /// The age from which on data is settled.
    pub fn settle_after(&self) -> Duration {
        self.settle_after
    }

    /// End of the settled data in an entry that was fetched at `fetched_at`, on a whole second.
    pub fn settled_before(&self, fetched_at: Timestamp) -> Timestamp {
        (fetched_at - self.settle_after).floor_second()
    }

    /// The stale parts of an entry at `now`: at most two intervals, ascending.
    ///
    /// Data that was settled when it was fetched is never stale. Data that has settled since is stale once, for its
    /// last fetch. Open data is stale where the entry is older than its tier allows.
    pub fn stale(
        &self,
        entry: Interval,
        fetched_at: Timestamp,
        now: Timestamp,
    ) -> impl Iterator<Item = Interval> + use<> {
        let parts = self.stale_parts(entry, fetched_at, now, Duration::MAX);
        parts.into_iter().filter(|interval| !interval.is_empty())
    }

    /// The same, with `max_age` as a further bound of the age of open data. Each of the two may be empty.
    pub(super) fn stale_parts(
        &self,
        entry: Interval,
        fetched_at: Timestamp,
        now: Timestamp,
        max_age: Duration,
    ) -> [Interval; 2] {
        let open_then = Interval::new(self.settled_before(fetched_at), entry.end).intersection(entry);
        let (settled_since, open_now) = open_then.split_at(self.settled_before(now));
        let entry_age = now.since(fetched_at);
        let is_expired = |tier: &&FreshnessTier| tier.max_age.min(max_age) < entry_age;
        let too_old_for = self.tiers.iter().filter(is_expired).map(|tier| tier.younger_than).max();
        let expired = too_old_for
            .map(|younger_than| open_now.split_at((now - younger_than).floor_second()).1)
            .unwrap_or_default();
        [settled_since, expired]
    }

    /// The greatest age that an entry of open data in `interval` may have at `now`; zero where all of it has settled.
    pub fn longest_age(&self, interval: Interval, now: Timestamp) -> Duration {
        let open = Interval::new(self.settled_before(now), interval.end).intersection(interval);
        if open.is_empty() {
            return Duration::ZERO;
        }
        let data_age = now.since(open.start);
        let tier = self.tiers.iter().find(|tier| data_age <= tier.younger_than).or(self.tiers.last());
        tier.map(|tier| tier.max_age).unwrap_or_default()
    }

    /// The time up to which an entry that was fetched at `fetched_at` is fresh in all its parts: the last before
    /// [`FreshnessPolicy::stale`] has any. May lie in the past. `None` if the entry never becomes stale.
    pub fn fresh_until(&self, entry: Interval, fetched_at: Timestamp) -> Option<Timestamp> {
        let open = Interval::new(self.settled_before(fetched_at), entry.end).intersection(entry);
        if open.is_empty() {
            return None;
        }
        let first_settles_at = open.start.floor_second() + Duration::from_secs(1) + self.settle_after;
        // When a tier allows the entry no longer, the data that is still young enough for the tier is stale.
        let expires = self.tiers.iter().filter_map(|tier| {
            let expires_at = fetched_at + tier.max_age;
            (open.end > (expires_at - tier.younger_than).floor_second()).then_some(expires_at)
        });
        Some(expires.fold(first_settles_at, Timestamp::min))
    }

    /// The interval ahead of `now` for which an empty answer is fresh, as long as an entry of the youngest data is.
    /// Empty without tiers.
    pub fn ahead_of(&self, now: Timestamp) -> Interval {
        let youngest = self.tiers.first().map(|tier| tier.max_age).unwrap_or_default();
        Interval::new(now, now + youngest)
    }

    /// Whether an entry fetched at `fetched_at` can serve a later request: false for open data that is always fetched
    /// again.
    pub fn worth_keeping(&self, entry: Interval, fetched_at: Timestamp) -> bool {
        entry.start < self.settled_before(fetched_at) || self.tiers.iter().any(|tier| !tier.max_age.is_zero())
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

    fn tier(younger_than: u64, max_age: u64) -> FreshnessTier {
        FreshnessTier { younger_than: Duration::from_secs(younger_than), max_age: Duration::from_secs(max_age) }
    }

    fn default_policy() -> FreshnessPolicy {
        FreshnessPolicy::new(Duration::from_hours(24), vec![tier(3600, 30), tier(6 * 3600, 300), tier(24 * 3600, 3600)])
    }

    #[test]
    fn data_settled_when_fetched_is_never_stale() {
        let freshness_policy = default_policy();
        let day = Interval::new(at(0), at(24 * HOUR));
        let year_later = at(366 * 24 * HOUR);
        assert_eq!(freshness_policy.stale(day, at(48 * HOUR), year_later).count(), 0);
        assert_eq!(freshness_policy.stale(day, at(48 * HOUR - 1), year_later).count(), 1);
    }

    #[test]
    fn young_entry_expires_from_its_open_end() {
        let freshness_policy = default_policy();
        let (fetched, entry) = (at(100 * HOUR), Interval::new(at(90 * HOUR), at(100 * HOUR)));
        let stale = |seconds| {
            freshness_policy.stale(entry, fetched, fetched + Duration::from_secs(seconds)).collect::<Vec<_>>()
        };
        assert_eq!(stale(30), vec![]);
        assert_eq!(stale(31), vec![Interval::new(at(99 * HOUR + 31), entry.end)]);
        assert_eq!(stale(301), vec![Interval::new(at(94 * HOUR + 301), entry.end)]);
        assert_eq!(stale(3601), vec![entry]);
    }

    #[test]
    fn empty_time_ahead_is_fresh_for_a_while() {
        let freshness_policy = default_policy();
        let fetched = at(100 * HOUR);
        let ahead = freshness_policy.ahead_of(fetched);
        assert_eq!(ahead, Interval::new(fetched, fetched + Duration::from_secs(30)));
        assert_eq!(freshness_policy.stale(ahead, fetched, ahead.end).count(), 0);
        assert!(FreshnessPolicy::new(Duration::from_mins(15), vec![]).ahead_of(fetched).is_empty());
    }

    #[test]
    fn without_tiers_open_data_is_always_stale() {
        let freshness_policy = FreshnessPolicy::new(Duration::from_mins(15), vec![]);
        let entry = Interval::new(at(0), at(HOUR));
        let stale: Vec<_> = freshness_policy.stale(entry, at(HOUR), at(HOUR) + Duration::from_nanos(1)).collect();
        assert_eq!(stale, vec![Interval::new(at(HOUR - 900), entry.end)]);
        assert!(!freshness_policy.worth_keeping(Interval::new(at(HOUR - 900), at(HOUR)), at(HOUR)));
    }

    #[test]
    fn open_entry_is_fresh_as_long_as_its_youngest_part() {
        let freshness_policy = default_policy();
        let fresh_for = |start, end, fetched: i64| {
            let until = freshness_policy.fresh_until(Interval::new(at(start), at(end)), at(fetched))?;
            Some(until.since(at(fetched)).as_secs())
        };
        let now = 100 * HOUR;
        assert_eq!(fresh_for(90 * HOUR, now, now), Some(30));
        assert_eq!(fresh_for(90 * HOUR, 98 * HOUR, now), Some(300));
        assert_eq!(fresh_for(90 * HOUR, 91 * HOUR, now), Some(3600));
        assert_eq!(fresh_for(76 * HOUR + 9, 78 * HOUR, now), Some(10), "its beginning settles");
        assert_eq!(fresh_for(0, 76 * HOUR, now), None);
    }

    /// Tiers of which each adds these seconds to both bounds of the one before.
    fn rising_tiers(steps: &[(u64, u64)]) -> Vec<FreshnessTier> {
        let rise = |(younger, age): &mut (u64, u64), step: &(u64, u64)| {
            (*younger, *age) = (*younger + step.0, *age + step.1);
            Some(tier(*younger, *age))
        };
        steps.iter().scan((0, 0), rise).collect()
    }

    proptest! {
        /// The naive model asks for the stale parts at each second.
        #[test]
        fn entry_has_no_stale_part_before_fresh_until(
            settle in 1u64..50, steps in prop::collection::vec((1u64..12, 0u64..8), 0..4),
            start in 0i64..60, length in 1i64..60, fetched in 0i64..120
        ) {
            let tiers = rising_tiers(&steps);
            let freshness_policy = FreshnessPolicy::new(Duration::from_secs(settle), tiers);
            let entry = Interval::new(at(start), at(start + length));
            let is_stale = |now| freshness_policy.stale(entry, at(fetched), now).next().is_some();
            match freshness_policy.fresh_until(entry, at(fetched)) {
                Some(until) => {
                    let seconds = (fetched..300).map(at).take_while(|now| *now < until);
                    prop_assert!(seconds.clone().all(|now| !is_stale(now)), "fresh until {until:?}");
                    prop_assert!(is_stale(until.max(at(fetched)) + Duration::from_nanos(1)), "fresh after {until:?}");
                }
                None => prop_assert!((fetched..300).map(at).all(|now| !is_stale(now))),
            }
        }

        /// The naive model judges one second at a time.
        #[test]
        fn each_second_expires_by_its_own_age(
            settle in 1u64..50, steps in prop::collection::vec((1u64..12, 0u64..8), 0..4),
            start in 0i64..60, length in 1i64..60, fetched in 0i64..120, waited in 0i64..80
        ) {
            let tiers = rising_tiers(&steps);
            let freshness_policy = FreshnessPolicy::new(Duration::from_secs(settle), tiers.clone());
            let (entry, now) = (Interval::new(at(start), at(start + length)), fetched + waited);
            let stale: Vec<Interval> = freshness_policy.stale(entry, at(fetched), at(now)).collect();
            for second in start..start + length {
                let settled_then = second < fetched - settle.cast_signed();
                let settled_now = second < now - settle.cast_signed();
                let data_age = now - second;
                // The first tier that holds this age; a second exactly on a tier's edge belongs to the younger one.
                let max_age = tiers.iter().find(|r| data_age <= r.younger_than.as_secs().cast_signed())
                    .or(tiers.last()).map_or(0, |r| r.max_age.as_secs().cast_signed());
                let expected = !settled_then && (settled_now || waited > max_age);
                let found = stale.iter().any(|interval| interval.contains(at(second)));
                prop_assert_eq!(found, expected, "second {} of {:?} in {:?}", second, entry, stale);
            }
        }
    }
}
