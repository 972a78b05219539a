//! The exact account of calls against all rolling limits. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Limit;

/// Added to each window, for upstreams that count in coarse ticks of a clock of their own.
const GUARD: Duration = Duration::from_millis(20);

/// A point in monotonic time: how long after the ledger's own beginning.
pub type Tick = Duration;

/// Knows every call that may still count in one of the rolling windows.
///
/// When the upstream counts a call is not known, only that it does so between the call's beginning and its end. So a
/// call that is under way takes a place in every window, and one that has ended is taken to have counted at its end:
/// whenever it really counted, no rolling window can hold more calls than its limit.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Vec<Limit>,
    under_way: u32,
    /// When each ended call ended, ascending; only those that the longest window still holds.
    ended: VecDeque<Tick>,
}

impl Ledger {
    /// An empty ledger: nothing has been spent.
    pub fn new(limits: Vec<Limit>) -> Self {
        Self { limits, under_way: 0, ended: VecDeque::new() }
    }

    /// The earliest time, not before `now`, at which one more call may begin after `ahead` others have begun.
    ///
    /// A lower bound while calls are under way, for nobody knows when they end; exact otherwise.
    pub fn free_at(&self, now: Tick, ahead: u32) -> Tick {
        self.limits.iter().map(|limit| self.limit_free_at(limit, now, ahead)).max().unwrap_or(now)
    }

    fn limit_free_at(&self, limit: &Limit, now: Tick, ahead: u32) -> Tick {
        let window = limit.per + GUARD;
        let counted = self.counted(window, now);
        let wanted = counted + self.under_way as usize + ahead as usize + 1;
        let must_leave = wanted.saturating_sub(limit.requests as usize);
        match must_leave.checked_sub(1) {
            None => now,
            Some(last) => self
                .ended
                .get(self.ended.len() - counted + last)
                .filter(|_| last < counted)
                .map_or(now + window, |ended| *ended + window),
        }
    }

    /// How many ended calls a window of this length, ending at `now`, still holds.
    fn counted(&self, window: Duration, now: Tick) -> usize {
        self.ended.len() - self.ended.partition_point(|ended| *ended + window <= now)
    }

    /// Whether [`Ledger::free_at`] is exact: no call is under way that could yet be refunded.
    pub fn is_exact(&self) -> bool {
        self.under_way == 0
    }

    /// How many calls each limit leaves at `now`, with the limit, in the order of the configuration.
    pub fn remaining(&self, now: Tick) -> impl Iterator<Item = (Limit, u32)> + '_ {
        self.limits.iter().map(move |limit| {
            let counted = u32::try_from(self.counted(limit.per + GUARD, now)).unwrap_or(u32::MAX);
            (*limit, limit.requests.saturating_sub(counted.saturating_add(self.under_way)))
        })
    }

    /// A call begins. The caller has made sure that [`Ledger::free_at`] is now.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// A call ended at `now`: it has counted at some time since it began.
    pub fn end(&mut self, now: Tick) {
        self.under_way = self.under_way.saturating_sub(1);
        let now = self.ended.back().map_or(now, |last| now.max(*last));
        self.ended.push_back(now);
        let longest = self.limits.iter().map(|limit| limit.per).max().unwrap_or_default() + GUARD;
        while self.ended.front().is_some_and(|ended| *ended + longest <= now) {
            self.ended.pop_front();
        }
    }

    /// A call that began never reached the upstream, so it has not counted.
    pub fn refund(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(requests: u32, seconds: u64) -> Limit {
        Limit { requests, per: Duration::from_secs(seconds) }
    }

    #[test]
    fn an_hour_that_is_spent_says_when_it_clears() {
        let mut ledger = Ledger::new(vec![limit(2, 60), limit(3, 3600)]);
        for second in [0, 1, 100] {
            ledger.begin();
            ledger.end(Duration::from_secs(second));
        }
        let free = |ahead| ledger.free_at(Duration::from_secs(170), ahead).saturating_sub(GUARD);
        assert_eq!([free(0), free(1), free(2)], [3600, 3601, 3700].map(Duration::from_secs));
    }

    #[derive(Clone, Debug)]
    struct Call {
        wait: u64,
        travel: u64,
        counts_after: u64,
        refused: bool,
    }

    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let call = (0u64..4000, 0u64..9000, any::<prop::sample::Index>(), prop::bool::weighted(0.1)).prop_map(
            |(wait, travel, at, refused)| Call {
                wait,
                travel,
                counts_after: at.index(usize::try_from(travel).unwrap() + 1) as u64,
                refused,
            },
        );
        prop::collection::vec(call, 1..160)
    }

    proptest! {
        /// The naive model is the list of times at which the upstream counted; every window that ends at one is checked.
        #[test]
        fn no_rolling_window_is_ever_passed(calls in calls(), few in 1u32..6, many in 4u32..20, lanes in 1usize..5) {
            let limits = vec![limit(few, 10), limit(many, 60)];
            let mut ledger = Ledger::new(limits.clone());
            let millis = Duration::from_millis;
            let mut now = Duration::ZERO;
            // (end, refunded), of those under way.
            let mut under_way: Vec<(Tick, bool)> = Vec::new();
            let mut counted: Vec<Tick> = Vec::new();
            for call in calls {
                now += millis(call.wait);
                loop {
                    under_way.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
                    while under_way.last().is_some_and(|(end, _)| *end <= now) {
                        match under_way.pop() {
                            Some((_, true)) => ledger.refund(),
                            Some((end, false)) => ledger.end(end),
                            None => {}
                        }
                    }
                    let free = ledger.free_at(now, 0);
                    if free <= now && under_way.len() < lanes {
                        break;
                    }
                    let next_end = under_way.last().map_or(Tick::MAX, |(end, _)| *end);
                    now = if free > now { free.min(next_end) } else { next_end };
                }
                ledger.begin();
                under_way.push((now + millis(call.travel), call.refused));
                if !call.refused {
                    counted.push(now + millis(call.counts_after));
                }
            }
            counted.sort();
            for limit in limits {
                for end in &counted {
                    let held = counted.iter().filter(|at| **at <= *end && **at + limit.per > *end).count();
                    prop_assert!(held <= limit.requests as usize, "{} in {:?}", held, limit);
                }
            }
        }

        /// With standing demand and quick answers at least 95 % of the tightest limit is used.
        #[test]
        fn standing_demand_uses_the_quota(requests in 1u32..80, travel in 0u64..400) {
            let mut ledger = Ledger::new(vec![limit(requests, 60)]);
            let (mut now, mut calls) = (Duration::ZERO, 0u32);
            let horizon = Duration::from_mins(20);
            while now < horizon {
                now = ledger.free_at(now, 0);
                ledger.begin();
                calls += 1;
                now += Duration::from_millis(travel).min(Duration::from_mins(1) / requests / 2);
                ledger.end(now);
            }
            prop_assert!(f64::from(calls) >= 0.95 * 20.0 * f64::from(requests), "{} calls", calls);
        }
    }
}
