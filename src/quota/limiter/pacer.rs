//! Pacer: spreads the calls of an account over the window of its shortest limit. Pure: time is an argument.

use std::time::Duration;

use super::ledger::{MonotonicTime, PacingWindow, usable};
use crate::config::QuotaLimit;
use crate::request::Priority;

/// Calls in a window below which they are not paced.
const MIN_PACED_REQUESTS: u32 = 6;
/// Calls that may begin together although they are paced, to make up for one that began late.
const BURST_WHILE_PACED: u32 = 2;

/// Pacer of one class of calls.
///
/// The first calls of a window begin at once. The others begin as evenly as the ledger allows, so that it never holds
/// all of them back until a burst leaves the window: no call waits long, and a single call gets a permit soon.
#[derive(Clone, Copy, Debug)]
pub(in crate::quota) struct Pacer {
    limit: QuotaLimit,
    /// Calls in a window that begin without being paced.
    burst: u32,
    /// Time at which the next call is due, if all come evenly.
    due: MonotonicTime,
    /// Calls that may begin without being paced, because they were due while no call could be made.
    missed: u32,
}

impl Pacer {
    /// Pacer of the shortest of `limits`; `None` if pacing is of no use: the limit allows too few calls to spread, or
    /// one call's share of the window is longer than two thirds of `queue_timeout`.
    ///
    /// The burst at the start of a window is as many calls as an even pace would make in two thirds of `queue_timeout`.
    pub(in crate::quota) fn new(limits: &[QuotaLimit], queue_timeout: Duration) -> Option<Self> {
        let limit =
            *limits.iter().min_by_key(|limit| limit.per).filter(|limit| limit.requests >= MIN_PACED_REQUESTS)?;
        let burst_time = limit.per.min(queue_timeout * 2 / 3);
        let burst = u128::from(limit.requests) * burst_time.as_nanos() / limit.per.as_nanos().max(1);
        // A burst of more than half of the limit would repeat in each window, with a long silence after it.
        let burst = u32::try_from(burst).unwrap_or(u32::MAX).min(limit.requests.div_ceil(2));
        (burst > 0).then_some(Self { limit, burst, due: MonotonicTime::ZERO, missed: 0 })
    }

    /// Time at which the next call may begin; one that has passed if it may begin now.
    pub(in crate::quota) fn admits_at(&self, window: PacingWindow) -> MonotonicTime {
        if window.spent < self.burst_of(window) || self.missed > 0 {
            return MonotonicTime::ZERO;
        }
        self.due.saturating_sub(window.even_interval * (BURST_WHILE_PACED - 1))
    }

    /// Records that a call begins at `now`. `window` includes this call.
    pub(in crate::quota) fn begin(&mut self, now: MonotonicTime, window: PacingWindow) {
        if self.missed > 0 {
            // The call was due long ago, and does not delay the calls that are due now.
            self.missed -= 1;
            self.due = self.due.max(now);
            return;
        }
        let is_paced = window.spent > self.burst_of(window);
        self.due = if is_paced { self.due.max(now) + window.even_interval } else { now };
    }

    /// Lets the calls that were due during `idle`, while none could be made, begin at once. The ledger still bounds
    /// them.
    pub(in crate::quota) fn catch_up(&mut self, idle: Duration) {
        let interval = (self.limit.per / self.limit.requests.max(1)).as_nanos().max(1);
        self.missed = u32::try_from(idle.as_nanos().div_ceil(interval)).unwrap_or(u32::MAX).min(self.burst);
    }

    /// Shortest time from now until the `nth` call, counted from 0, may begin.
    pub(in crate::quota) fn offset(&self, nth: u32, window: PacingWindow) -> Duration {
        let not_paced = self.burst_of(window).saturating_sub(window.spent).saturating_add(BURST_WHILE_PACED);
        let paced = nth.saturating_add(1).saturating_sub(not_paced);
        (window.limit.per / window.usable.max(1)).saturating_mul(paced)
    }

    /// The burst, in proportion to the usable part of the limit.
    fn burst_of(&self, window: PacingWindow) -> u32 {
        let part = u64::from(self.burst) * u64::from(window.usable) / u64::from(self.limit.requests.max(1));
        u32::try_from(part).unwrap_or(u32::MAX)
    }
}

/// Pacers of an account. Background calls have one of their own, so that they use none of the bursts of other calls.
#[derive(Clone, Copy, Debug)]
pub(in crate::quota) struct Pacers {
    foreground: Option<Pacer>,
    background: Option<Pacer>,
}

impl Pacers {
    /// Pacers of calls that may use all of `limits`, and of background calls, which leave the share `reserve` free.
    pub(in crate::quota) fn new(limits: &[QuotaLimit], reserve: f64, queue_timeout: Duration) -> Self {
        let reduced = limits.iter().map(|limit| QuotaLimit { requests: usable(limit.requests, reserve), ..*limit });
        let reduced: Vec<_> = reduced.collect();
        Self { foreground: Pacer::new(limits, queue_timeout), background: Pacer::new(&reduced, queue_timeout) }
    }

    /// Pacer of the calls of this priority; `None` if they are not paced.
    pub(in crate::quota) fn get(&self, priority: Priority) -> Option<&Pacer> {
        match priority {
            Priority::Interactive | Priority::Refresh => self.foreground.as_ref(),
            Priority::Background => self.background.as_ref(),
        }
    }

    /// See [`Pacers::get`].
    pub(in crate::quota) fn get_mut(&mut self, priority: Priority) -> Option<&mut Pacer> {
        match priority {
            Priority::Interactive | Priority::Refresh => self.foreground.as_mut(),
            Priority::Background => self.background.as_mut(),
        }
    }

    /// See [`Pacer::catch_up`].
    pub(in crate::quota) fn catch_up(&mut self, idle: Duration) {
        self.foreground.iter_mut().chain(&mut self.background).for_each(|pacer| pacer.catch_up(idle));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::Ledger;

    /// Start times of calls until `end`, if one always waits and each takes 200 ms.
    fn standing_demand(limit: QuotaLimit, queue_timeout: Duration, end: MonotonicTime) -> Vec<MonotonicTime> {
        let mut ledger = Ledger::new(vec![limit]);
        let mut pacer = Pacer::new(&[limit], queue_timeout).unwrap();
        let (mut now, mut begins) = (MonotonicTime::ZERO, Vec::new());
        let caller: Arc<str> = "c".into();
        loop {
            let free = ledger.free_at(now, 0, 0.0).max(pacer.admits_at(ledger.pacing_window(now, 0.0)));
            if free > end {
                return begins;
            }
            now = now.max(free);
            if free <= now && ledger.free_at(now, 0, 0.0) <= now {
                ledger.begin();
                pacer.begin(now, ledger.pacing_window(now, 0.0));
                begins.push(now);
                now += Duration::from_millis(200).min(limit.per / limit.requests / 2);
                ledger.end(now, &caller);
            }
        }
    }

    #[test]
    fn pacer_after_idle_time_lets_missed_calls_begin_once() {
        let limit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };
        let mut pacer = Pacer::new(&[limit], Duration::from_secs(30)).unwrap();
        let window = PacingWindow { limit, spent: 40, usable: 60, even_interval: Duration::from_secs(1) };
        let now = Duration::from_secs(100);
        pacer.begin(now, window);
        pacer.begin(now, window);
        assert!(pacer.admits_at(window) > now);
        pacer.catch_up(Duration::from_millis(2500));
        for _ in 0..3 {
            assert!(pacer.admits_at(window) <= now);
            pacer.begin(now, window);
        }
        assert!(pacer.admits_at(window) > now);
        // The calls that are due now are not delayed by them.
        assert!(pacer.admits_at(window) <= now + Duration::from_secs(2));
    }

    #[test]
    fn pacing_window_with_calls_ahead_keeps_even_interval() {
        let limit = QuotaLimit { requests: 60, per: Duration::from_mins(1) };
        let (mut ledger, caller) = (Ledger::new(vec![limit]), Arc::from("c"));
        let now = Duration::from_secs(100);
        for ago in 3..60 {
            ledger.restore(now.saturating_sub(Duration::from_secs(ago)), &caller);
        }
        for ahead in 5..7 {
            ledger.restore(now + Duration::from_secs(ahead), &caller);
        }
        let interval = ledger.pacing_window(now, 0.0).even_interval;
        assert!(interval < Duration::from_millis(1050), "{interval:?}");
    }

    #[test]
    fn standing_demand_after_burst_is_spread_evenly() {
        let minute = Duration::from_mins(1);
        let begins = standing_demand(QuotaLimit { requests: 60, per: minute }, Duration::from_secs(30), minute * 10);
        let burst = begins.windows(2).take_while(|pair| pair[1].saturating_sub(pair[0]).as_millis() == 200).count() + 1;
        assert!((20..=22).contains(&burst), "{burst} at the start");
        let longest = begins.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        assert!(longest <= Duration::from_secs(2), "no call for {longest:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Pacing costs at most 5 % of the quota.
        #[test]
        fn standing_demand_paced_uses_the_quota(requests in 6u32..50, queue in 5u64..120) {
            let limit = QuotaLimit { requests, per: Duration::from_mins(1) };
            prop_assume!(Pacer::new(&[limit], Duration::from_secs(queue)).is_some());
            let begins = standing_demand(limit, Duration::from_secs(queue), limit.per * 20);
            let calls = u32::try_from(begins.len()).unwrap();
            prop_assert!(f64::from(calls) >= 0.95 * 20.0 * f64::from(requests), "{} calls", calls);
        }
    }
}
