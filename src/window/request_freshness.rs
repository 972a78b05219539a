//! Freshness for one request: the freshness policy, changed by what the request demands of the age of cached data
//! (`Cache-Control` of a request, RFC 9111, 5.2.1).

use std::time::Duration;

use super::{FreshnessPolicy, Interval, Timestamp};

/// What a request demands of the age of cached data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessDemand {
    /// `no-cache`: nothing that was fetched before the request serves it, settled or not.
    Refetch,
    /// The freshness policy, with other bounds for open data.
    Bounded {
        /// `max-age`: the greatest age of an entry of open data. It can only shorten that of the policy.
        max_age: Duration,
        /// `max-stale`: how long an entry still serves after it has become stale.
        max_stale: Duration,
    },
}

impl FreshnessDemand {
    /// No demand: the policy alone decides.
    pub const POLICY: Self = Self::Bounded { max_age: Duration::MAX, max_stale: Duration::ZERO };
}

impl Default for FreshnessDemand {
    fn default() -> Self {
        Self::POLICY
    }
}

/// A freshness policy with the demand of one request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFreshness<'a> {
    policy: &'a FreshnessPolicy,
    demand: FreshnessDemand,
}

impl<'a> From<&'a FreshnessPolicy> for RequestFreshness<'a> {
    fn from(policy: &'a FreshnessPolicy) -> Self {
        Self::new(policy, FreshnessDemand::POLICY)
    }
}

impl<'a> RequestFreshness<'a> {
    /// The policy, changed by `demand`.
    pub fn new(policy: &'a FreshnessPolicy, demand: FreshnessDemand) -> Self {
        Self { policy, demand }
    }

    /// See [`FreshnessPolicy::settle_after`], which no demand changes.
    pub fn settle_after(self) -> Duration {
        self.policy.settle_after()
    }

    /// See [`FreshnessPolicy::settled_before`], which no demand changes.
    pub fn settled_before(self, fetched_at: Timestamp) -> Timestamp {
        self.policy.settled_before(fetched_at)
    }

    /// See [`FreshnessPolicy::fresh_until`], which no demand changes.
    pub fn fresh_until(self, entry: Interval, fetched_at: Timestamp) -> Option<Timestamp> {
        self.policy.fresh_until(entry, fetched_at)
    }

    /// The parts of an entry that must not serve the request at `now`, ascending. An entry that was fetched for the
    /// request is not to be asked about.
    pub fn stale(
        self,
        entry: Interval,
        fetched_at: Timestamp,
        now: Timestamp,
    ) -> impl Iterator<Item = Interval> + use<> {
        let nothing = Interval::default();
        let parts = match self.demand {
            FreshnessDemand::Refetch => [entry, nothing, nothing, nothing],
            FreshnessDemand::Bounded { max_age, max_stale } => {
                let [first, second] = self.policy.stale_parts(entry, fetched_at, now, max_age);
                if max_stale.is_zero() {
                    [first, second, nothing, nothing]
                } else {
                    // Stale for longer than `max_stale`: stale now, and so long ago too.
                    let then = self.policy.stale_parts(entry, fetched_at, now - max_stale, max_age);
                    let both = |part: Interval| then.map(|earlier| part.intersection(earlier));
                    let ([a, b], [c, d]) = (both(first), both(second));
                    [a, b, c, d]
                }
            }
        };
        parts.into_iter().filter(|interval| !interval.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::FreshnessTier;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn policy(settle_after: u64, tiers: &[(u64, u64)]) -> FreshnessPolicy {
        let seconds = Duration::from_secs;
        let tier =
            |(younger, age): &(u64, u64)| FreshnessTier { younger_than: seconds(*younger), max_age: seconds(*age) };
        FreshnessPolicy::new(seconds(settle_after), tiers.iter().map(tier).collect())
    }

    fn stale(policy: &FreshnessPolicy, demand: FreshnessDemand, fetched_at: i64, now: i64) -> Vec<Interval> {
        let entry = Interval::new(at(0), at(100));
        RequestFreshness::new(policy, demand).stale(entry, at(fetched_at), at(now)).collect()
    }

    #[test]
    fn refetch_accepts_nothing_settled_either() {
        let policy = policy(50, &[(50, 30)]);
        let all = [Interval::new(at(0), at(100))];
        assert_eq!(stale(&policy, FreshnessDemand::Refetch, 1000, 1001), all);
        assert_eq!(stale(&policy, FreshnessDemand::POLICY, 1000, 1001), []);
    }

    #[test]
    fn max_age_expires_open_data_and_not_settled() {
        let policy = policy(50, &[(50, 30)]);
        let max_age =
            |seconds| FreshnessDemand::Bounded { max_age: Duration::from_secs(seconds), max_stale: Duration::ZERO };
        // At 110, the entry is 10 s old; what lies before 50 was settled when it was fetched, before 60 by now.
        assert_eq!(stale(&policy, max_age(10), 100, 110), [Interval::new(at(50), at(60))]);
        assert_eq!(
            stale(&policy, max_age(9), 100, 110),
            [Interval::new(at(50), at(60)), Interval::new(at(60), at(100))]
        );
    }

    #[test]
    fn max_stale_extends_the_age_of_each_tier() {
        let policy = policy(1000, &[(1000, 30)]);
        let max_stale =
            |seconds| FreshnessDemand::Bounded { max_age: Duration::MAX, max_stale: Duration::from_secs(seconds) };
        let all = [Interval::new(at(0), at(100))];
        assert_eq!(stale(&policy, max_stale(0), 100, 131), all);
        assert_eq!(stale(&policy, max_stale(1), 100, 131), []);
        assert_eq!(stale(&policy, max_stale(1), 100, 132), all);
        assert_eq!(
            stale(&policy, FreshnessDemand::Bounded { max_age: Duration::MAX, max_stale: Duration::MAX }, 100, 9000),
            []
        );
    }

    proptest! {
        /// The naive model judges one second at a time: a second is too stale if it was stale at both times.
        #[test]
        fn each_second_may_be_stale_for_so_long(
            settle in 1u64..50, young in 1u64..20, age in 0u64..20, fetched in 0i64..150, waited in 0i64..80,
            max_age in 0u64..20, max_stale in 0u64..40,
        ) {
            let policy = policy(settle, &[(young, age.min(5)), (young + 10, age)]);
            let now = fetched + waited;
            let capped = |seconds| FreshnessDemand::Bounded {
                max_age: Duration::from_secs(max_age), max_stale: Duration::from_secs(seconds),
            };
            let found = stale(&policy, capped(max_stale), fetched, now);
            let is_in = |intervals: &[Interval], second| intervals.iter().any(|interval| interval.contains(at(second)));
            for second in 0..100 {
                let is_stale_at = |now| is_in(&stale(&policy, capped(0), fetched, now), second);
                let expected = is_stale_at(now) && is_stale_at(now - max_stale.cast_signed());
                prop_assert_eq!(is_in(&found, second), expected, "second {}", second);
            }
        }
    }
}
