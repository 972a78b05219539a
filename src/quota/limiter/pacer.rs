//! The pace of an account. Pure: time is an argument.

use std::time::Duration;

use super::ledger::{MonotonicTime, PacingWindow, usable};
use crate::config::QuotaLimit;

/// Fewer calls than this in a window are not spread.
const FEW: u32 = 6;
/// So many calls may go at once where they were slower before.
const RIPPLE: u32 = 2;

/// Spreads the calls of an account over the window of its shortest limit.
///
/// The first calls of a window go at once. The rest go as evenly as the ledger allows, so that it never has to hold all
/// of them back until a burst leaves the window: nobody waits long, and who comes with a single call finds a turn soon.
#[derive(Clone, Copy, Debug)]
pub(in crate::quota) struct Pacer {
    limit: QuotaLimit,
    /// So many calls in a window go at once.
    at_once: u32,
    /// When the next call is due, if all come evenly.
    due: MonotonicTime,
    /// So many calls may go at once all the same: nobody could call for a while, and they were due then.
    missed: u32,
}

impl Pacer {
    /// The pace of the shortest of `limits`.
    ///
    /// So many calls go at once as could go in two thirds of `queue_timeout`. Where even one call's share of the window
    /// is longer than that, no pace could help, and there is none; and so few calls that there is nothing to spread have
    /// none either.
    pub(in crate::quota) fn bearable(limits: &[QuotaLimit], queue_timeout: Duration) -> Option<Self> {
        let limit = *limits.iter().min_by_key(|limit| limit.per).filter(|limit| limit.requests >= FEW)?;
        let bearable = limit.per.min(queue_timeout * 2 / 3);
        let at_once = u128::from(limit.requests) * bearable.as_nanos() / limit.per.as_nanos().max(1);
        // With more than half of them, each window would be as the one before: a burst, and a long silence.
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX).min(limit.requests.div_ceil(2));
        (at_once > 0).then_some(Self { limit, at_once, due: MonotonicTime::ZERO, missed: 0 })
    }

    /// The pace of calls that may use all of `limits`, and of those that leave `reserve` alone.
    pub(in crate::quota) fn both(
        limits: &[QuotaLimit],
        reserve: f64,
        queue_timeout: Duration,
    ) -> (Option<Self>, Option<Self>) {
        let left_over = limits.iter().map(|limit| QuotaLimit { requests: usable(limit.requests, reserve), ..*limit });
        let left_over: Vec<_> = left_over.collect();
        (Self::bearable(limits, queue_timeout), Self::bearable(&left_over, queue_timeout))
    }

    /// When the next call may go.
    pub(in crate::quota) fn admits_at(&self, outlook: PacingWindow) -> MonotonicTime {
        if outlook.spent < self.at_once(outlook) || self.missed > 0 {
            return MonotonicTime::ZERO;
        }
        self.due.saturating_sub(outlook.even * (RIPPLE - 1))
    }

    /// A call goes at `now`; `outlook` is how it looks with this call under way.
    pub(in crate::quota) fn begin(&mut self, now: MonotonicTime, outlook: PacingWindow) {
        if self.missed > 0 {
            // It was due long ago, and does not delay those that are due now.
            self.missed -= 1;
            self.due = self.due.max(now);
            return;
        }
        let paced = outlook.spent > self.at_once(outlook);
        self.due = if paced { self.due.max(now) + outlook.even } else { now };
    }

    /// For so long nobody could call: what would have gone then may go at once, as far as the ledger has room.
    pub(in crate::quota) fn make_up_for(&mut self, time: Duration) {
        let evenly = (self.limit.per / self.limit.requests.max(1)).as_nanos().max(1);
        self.missed = u32::try_from(time.as_nanos().div_ceil(evenly)).unwrap_or(u32::MAX).min(self.at_once);
    }

    /// How long from now the `nth` call may go at the earliest, counted from 0.
    pub(in crate::quota) fn offset(&self, nth: u32, outlook: PacingWindow) -> Duration {
        let unhindered = self.at_once(outlook).saturating_sub(outlook.spent).saturating_add(RIPPLE);
        let paced = nth.saturating_add(1).saturating_sub(unhindered);
        (outlook.limit.per / outlook.usable.max(1)).saturating_mul(paced)
    }

    /// With half of the limit, half of the burst.
    fn at_once(&self, outlook: PacingWindow) -> u32 {
        let part = u64::from(self.at_once) * u64::from(outlook.usable) / u64::from(self.limit.requests.max(1));
        u32::try_from(part).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::Ledger;

    /// When calls go if somebody always waits, each taking 200 ms, until `end`.
    fn standing_demand(limit: QuotaLimit, queue_timeout: Duration, end: MonotonicTime) -> Vec<MonotonicTime> {
        let mut ledger = Ledger::new(vec![limit]);
        let mut pace = Pacer::bearable(&[limit], queue_timeout).unwrap();
        let (mut now, mut begun) = (MonotonicTime::ZERO, Vec::new());
        let caller: Arc<str> = "c".into();
        loop {
            let free = ledger.free_at(now, 0, 0.0).max(pace.admits_at(ledger.outlook(now, 0.0)));
            if free > end {
                return begun;
            }
            now = now.max(free);
            if free <= now && ledger.free_at(now, 0, 0.0) <= now {
                ledger.begin();
                pace.begin(now, ledger.outlook(now, 0.0));
                begun.push(now);
                now += Duration::from_millis(200).min(limit.per / limit.requests / 2);
                ledger.end(now, &caller);
            }
        }
    }

    #[test]
    fn what_could_not_go_is_made_up_for_once() {
        let limit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };
        let mut pace = Pacer::bearable(&[limit], Duration::from_secs(30)).unwrap();
        let outlook = PacingWindow { limit, spent: 40, usable: 60, even: Duration::from_secs(1) };
        let now = Duration::from_secs(100);
        pace.begin(now, outlook);
        pace.begin(now, outlook);
        assert!(pace.admits_at(outlook) > now);
        pace.make_up_for(Duration::from_millis(2500));
        for _ in 0..3 {
            assert!(pace.admits_at(outlook) <= now);
            pace.begin(now, outlook);
        }
        assert!(pace.admits_at(outlook) > now);
        // And what is due now is not put off by it.
        assert!(pace.admits_at(outlook) <= now + Duration::from_secs(2));
    }

    #[test]
    fn what_a_dead_replica_may_still_spend_slows_nobody_down() {
        let limit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };
        let (mut ledger, caller) = (Ledger::new(vec![limit]), Arc::from("c"));
        let now = Duration::from_secs(100);
        for ago in 3..60 {
            ledger.restore(now.saturating_sub(Duration::from_secs(ago)), &caller);
        }
        for ahead in 5..7 {
            ledger.restore(now + Duration::from_secs(ahead), &caller);
        }
        assert!(ledger.outlook(now, 0.0).even < Duration::from_millis(1050), "{:?}", ledger.outlook(now, 0.0).even);
    }

    #[test]
    fn after_a_burst_calls_go_evenly() {
        let minute = Duration::from_mins(1);
        let begun = standing_demand(QuotaLimit { requests: 60, per: minute }, Duration::from_secs(30), minute * 10);
        let at_once =
            begun.windows(2).take_while(|pair| pair[1].saturating_sub(pair[0]).as_millis() == 200).count() + 1;
        assert!((20..=22).contains(&at_once), "{at_once} at the beginning");
        let longest = begun.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        assert!(longest <= Duration::from_secs(2), "nobody calls for {longest:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// It costs no quota.
        #[test]
        fn standing_demand_uses_the_quota(requests in 6u32..50, queue in 5u64..120) {
            let limit = QuotaLimit { requests, per: Duration::from_mins(1) };
            prop_assume!(Pacer::bearable(&[limit], Duration::from_secs(queue)).is_some());
            let begun = standing_demand(limit, Duration::from_secs(queue), limit.per * 20);
            let calls = u32::try_from(begun.len()).unwrap();
            prop_assert!(f64::from(calls) >= 0.95 * 20.0 * f64::from(requests), "{} calls", calls);
        }
    }
}
