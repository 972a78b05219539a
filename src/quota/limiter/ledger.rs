//! Ledger: whether each rolling limit has room for a call, by an exact sliding-window log of the calls that count
//! against it. Pure: time is an argument.

mod forecast;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::adaptive::AdaptiveLimit;
use crate::config::QuotaLimit;
use crate::upstream::{RateLimitHeader, SpentLimit};

/// Time that is added to each window, for upstreams that count by the coarse ticks of their own clock.
pub(in crate::quota) const GUARD: Duration = Duration::from_millis(20);

/// Calls in a window up to which the pace is computed from each of them. Among more, one call makes no difference.
const MAX_CALLS_FOR_EXACT_PACE: usize = 4096;

/// A point in monotonic time: the time since the epoch of its ledger.
///
/// No time lies before the epoch, so the epoch of a ledger with restored calls is at least its longest window before
/// now.
pub type MonotonicTime = Duration;

/// Log of every call that may still count in one of the rolling windows.
///
/// The upstream counts a call at some time between its start and its end. So a call in flight takes a place in every
/// window, and one that has ended is logged at its end: whenever it really counted, no rolling window holds more calls
/// than its limit.
///
/// Each limit has a budget: the part of it that other clients leave.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// In the order of the configuration.
    budgets: Vec<AdaptiveLimit>,
    in_flight: u32,
    /// Calls that have ended, in the order of their ends; only those that the longest window still holds.
    ended: VecDeque<EndedCall>,
}

#[derive(Clone, Debug)]
struct EndedCall {
    /// Time at which it counts.
    at: MonotonicTime,
    /// The caller that is charged for it.
    caller: Arc<str>,
}

/// Usage of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// The limit.
    pub limit: QuotaLimit,
    /// Calls that its window may hold now: the limit, or fewer while another client uses the same quota.
    pub budget: u32,
    /// Calls of the budget that are left.
    pub remaining: u32,
    /// Time until one more call is left, if none is made meanwhile; at most about the length of the window. `None` if the
    /// whole limit is left. A call in flight is taken to end now.
    pub more_in: Option<Duration>,
}

/// Usage of the shortest limit, from which the pacer computes its pace.
#[derive(Clone, Copy, Debug)]
pub struct PacingWindow {
    /// The shortest limit.
    pub limit: QuotaLimit,
    /// Calls that its window holds, those in flight included.
    pub spent: u32,
    /// Calls that it may hold: the budget less the reserve.
    pub usable: u32,
    /// The shortest interval at which calls can follow each other for a whole window without the ledger holding one
    /// back.
    pub even_interval: Duration,
}

/// A limit whose budget was reduced after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReducedLimit {
    /// The limit.
    pub limit: QuotaLimit,
    /// Calls that its window may hold now.
    pub budget: u32,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Vec<QuotaLimit>) -> Self {
        Self { budgets: limits.into_iter().map(AdaptiveLimit::new).collect(), in_flight: 0, ended: VecDeque::new() }
    }

    /// Adds a call that ended at `at` without having begun in this ledger. `at` may lie ahead: the latest time at which
    /// a call of another process or replica may count. Calls may be added in any order.
    pub fn restore(&mut self, at: MonotonicTime, caller: &Arc<str>) {
        let index = self.ended.partition_point(|call| call.at <= at);
        self.ended.insert(index, EndedCall { at, caller: caller.clone() });
    }

    /// Time at which each ended call counts, ascending.
    pub(in crate::quota) fn stamps(&self) -> impl Iterator<Item = MonotonicTime> + '_ {
        self.ended.iter().map(|call| call.at)
    }

    /// Replaces the ended calls by `calls`, which are in ascending order and each with the caller that is charged for
    /// it, and the limits: see [`Ledger::set_limits`].
    pub(in crate::quota) fn replace(&mut self, limits: &[QuotaLimit], calls: Vec<(MonotonicTime, Arc<str>)>) -> bool {
        self.ended = calls.into_iter().map(|(at, caller)| EndedCall { at, caller }).collect();
        self.set_limits(limits)
    }

    /// Replaces the limits, and returns whether they differ. A limit that stays keeps its budget. The calls of a window
    /// that is longer than all before are known only as far back as the longest one reached.
    pub(in crate::quota) fn set_limits(&mut self, limits: &[QuotaLimit]) -> bool {
        if self.budgets.iter().map(AdaptiveLimit::limit).eq(limits.iter().copied()) {
            return false;
        }
        let known = std::mem::take(&mut self.budgets);
        let budget = |limit: &QuotaLimit| known.iter().find(|budget| budget.limit() == *limit).cloned();
        self.budgets = limits.iter().map(|limit| budget(limit).unwrap_or_else(|| AdaptiveLimit::new(*limit))).collect();
        true
    }

    /// The earliest time, not before `now`, at which one more call may begin after `ahead` others have begun.
    ///
    /// `reserve`, from 0 to 1, is the share of each budget that the call leaves free; one call of the budget is usable
    /// in any case. The result is exact if [`Ledger::is_exact`]. Otherwise it is a lower bound: the ends of calls in
    /// flight are not known, and a refusal may come while a budget grows.
    pub fn free_at(&self, now: MonotonicTime, ahead: u32, reserve: f64) -> MonotonicTime {
        self.budgets.iter().map(|budget| self.budget_free_at(budget, now, ahead, reserve)).max().unwrap_or(now)
    }

    fn budget_free_at(&self, budget: &AdaptiveLimit, now: MonotonicTime, ahead: u32, reserve: f64) -> MonotonicTime {
        let window = budget.limit().per + GUARD;
        let counted = self.counted(window, now);
        let wanted = counted + self.in_flight as usize + ahead as usize + 1;
        // The more calls leave the window, the less the budget must have grown: binary search for the number of leaving
        // calls at which waiting for them takes as long as waiting for the budget.
        let left = |leaving: usize| match leaving {
            0 => now,
            _ if leaving <= counted => self.ended[self.ended.len() - counted + leaving - 1].at + window,
            // A call in flight has to leave, too.
            _ => now + window,
        };
        let grown = |leaving: usize| match wanted - leaving {
            _ if leaving > counted => MonotonicTime::ZERO,
            staying => grown_to(budget, u32::try_from(staying).unwrap_or(u32::MAX), reserve),
        };
        let (mut fewest, mut enough) = (0, counted + 1);
        while fewest < enough {
            let middle = fewest.midpoint(enough);
            if left(middle) < grown(middle) { fewest = middle + 1 } else { enough = middle }
        }
        // With `enough` calls leaving, the budget has grown before they leave; with one call less, it grows after.
        enough.checked_sub(1).map_or(now, |one_less| left(enough).min(grown(one_less)))
    }

    /// Usage of the shortest limit by calls that leave the share `reserve` of it free.
    pub fn pacing_window(&self, now: MonotonicTime, reserve: f64) -> PacingWindow {
        let Some(budget) = self.budgets.iter().min_by_key(|budget| budget.limit().per) else {
            let limit = QuotaLimit { requests: u32::MAX, per: Duration::from_secs(1) };
            return PacingWindow { limit, spent: 0, usable: u32::MAX, even_interval: Duration::ZERO };
        };
        let limit = budget.limit();
        let usable = usable(budget.at(now), reserve);
        let spent = self.own(budget, now).saturating_add(self.in_flight);
        let even_interval = self.even_interval(limit.per + GUARD, now, usable, usable.saturating_sub(spent));
        PacingWindow { limit, spent, usable, even_interval }
    }

    /// The interval that the scarcest part of the coming window asks for.
    ///
    /// `left` calls may begin until the next ended call leaves the window, one more until the second leaves, and so on.
    /// Each of these times, divided by its calls, is an interval that must not be undercut; the longest satisfies all.
    /// Calls that count later than now are taken to leave a window after now.
    fn even_interval(&self, window: Duration, now: MonotonicTime, usable: u32, left: u32) -> Duration {
        let evenly = window / usable.max(1);
        let counted = self.counted(window, now);
        if counted > MAX_CALLS_FOR_EXACT_PACE {
            return evenly;
        }
        let counting = self.ended.range(self.ended.len() - counted..);
        let leaving_after = counting.map(|call| (call.at.min(now) + window).saturating_sub(now));
        leaving_after.zip(left.saturating_add(1)..).map(|(time, calls)| time / calls).fold(evenly, Duration::max)
    }

    /// Number of ended calls in a window of this length that ends at `now`.
    fn counted(&self, window: Duration, now: MonotonicTime) -> usize {
        self.ended.len() - self.ended.partition_point(|call| call.at + window <= now)
    }

    /// Number of ended calls in the window of `budget` at `now`.
    fn own(&self, budget: &AdaptiveLimit, now: MonotonicTime) -> u32 {
        u32::try_from(self.counted(budget.limit().per + GUARD, now)).unwrap_or(u32::MAX)
    }

    /// Whether [`Ledger::free_at`] is exact: no call is in flight, which could be refunded, and no budget grows.
    pub fn is_exact(&self, now: MonotonicTime) -> bool {
        self.in_flight == 0 && self.budgets.iter().all(|budget| budget.is_whole(now))
    }

    /// Number of calls that have begun and not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Usage of each limit at `now`, in the order of the configuration.
    pub fn limit_usage(&self, now: MonotonicTime) -> impl Iterator<Item = LimitUsage> + '_ {
        self.budgets.iter().map(move |adaptive| {
            let (limit, budget) = (adaptive.limit(), adaptive.at(now));
            let spent = self.own(adaptive, now).saturating_add(self.in_flight);
            let remaining = budget.saturating_sub(spent);
            let more_in = || self.budget_free_at(adaptive, now, remaining, 0.0).saturating_sub(now);
            LimitUsage { limit, budget, remaining, more_in: (remaining < limit.requests).then(more_in) }
        })
    }

    /// Number of ended calls of `caller` in the window of each limit at `now`, in the order of the configuration.
    pub fn spent_by(&self, now: MonotonicTime, caller: &str) -> Vec<(QuotaLimit, u32)> {
        let spent = |limit: QuotaLimit| {
            let counting = self.ended.range(self.ended.len() - self.counted(limit.per + GUARD, now)..);
            u32::try_from(counting.filter(|call| *call.caller == *caller).count()).unwrap_or(u32::MAX)
        };
        self.budgets.iter().map(AdaptiveLimit::limit).map(|limit| (limit, spent(limit))).collect()
    }

    /// Begins a call. [`Ledger::free_at`] must have returned the present time.
    pub fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// Ends a call that is charged to `caller`: it has counted at some time since it began.
    pub fn end(&mut self, now: MonotonicTime, caller: &Arc<str>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.restore(now, caller);
        let longest = self.budgets.iter().map(|budget| budget.limit().per).max().unwrap_or_default() + GUARD;
        while self.ended.front().is_some_and(|call| call.at + longest <= now) {
            self.ended.pop_front();
        }
    }

    /// Ends a call that did not reach the upstream, so that it has not counted.
    pub fn refund(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Reduces the budget of the limit for which the upstream refused a call: the `named` one, or the one most used.
    /// The call began at `began`, and is the last one that has ended.
    ///
    /// `None` if the refusal is no news: the call began before an earlier refusal reduced the same budget.
    pub fn refused(&mut self, now: MonotonicTime, began: MonotonicTime, named: SpentLimit) -> Option<ReducedLimit> {
        let index = match named {
            SpentLimit::Minute => self.by_length().next(),
            SpentLimit::Hour => self.by_length().last(),
            SpentLimit::Unnamed => self.likeliest(now),
        }?;
        // Without the refused call itself, which `end` has counted.
        let own = self.own(&self.budgets[index], now).saturating_sub(1);
        let budget = &mut self.budgets[index];
        budget.reduce(now, began, own).then(|| ReducedLimit { limit: budget.limit(), budget: budget.at(now) })
    }

    /// Indexes of the budgets, the shortest limit first.
    fn by_length(&self) -> impl Iterator<Item = usize> + use<> {
        let mut indexes: Vec<usize> = (0..self.budgets.len()).collect();
        indexes.sort_by_key(|index| self.budgets[*index].limit().per);
        indexes.into_iter()
    }

    /// Index of the budget that most likely caused a refusal which names none: the one with the largest used share.
    ///
    /// A budget that is down to a single call is not the cause: calls that keep to it are still refused. Then the cause
    /// is the next longer limit.
    fn likeliest(&self, now: MonotonicTime) -> Option<usize> {
        let used_share = |index: usize| {
            let budget = &self.budgets[index];
            f64::from(self.own(budget, now)) / f64::from(budget.limit().requests.max(1))
        };
        // Of two that are equally used, the shorter one: reducing the wrong one costs less there.
        let most_used =
            self.by_length().reduce(|most, index| if used_share(index) > used_share(most) { index } else { most })?;
        let longer = || self.by_length().skip_while(|index| *index != most_used);
        longer().find(|index| self.budgets[*index].at(now) > 1).or(Some(most_used))
    }

    /// Applies the number of remaining calls that the upstream stated in the answer to a call that has ended.
    ///
    /// It concerns the limit whose number of calls the upstream named, or else the shortest one. Calls in flight are
    /// not added to the calls of the window: whether the upstream had counted them is not known.
    pub fn apply_rate_limit(&mut self, now: MonotonicTime, rate_limit: &RateLimitHeader) {
        let named = self.budgets.iter().position(|budget| Some(budget.limit().requests) == rate_limit.limit);
        if let Some(index) = named.or_else(|| self.by_length().next()) {
            let own = self.own(&self.budgets[index], now);
            self.budgets[index].set_remaining(now, own, rate_limit.remaining);
        }
    }
}

/// Time at which `budget`, less its reserve, has room for `wanted` calls; never, if the whole limit has not.
fn grown_to(budget: &AdaptiveLimit, wanted: u32, reserve: f64) -> MonotonicTime {
    let limit = budget.limit().requests;
    if wanted > usable(limit, reserve) {
        return MonotonicTime::MAX;
    }
    let (mut fewest, mut enough) = (1, limit);
    while fewest < enough {
        let middle = fewest.midpoint(enough);
        if usable(middle, reserve) < wanted { fewest = middle + 1 } else { enough = middle }
    }
    budget.reaches(enough)
}

/// The part of a budget that calls may use which leave the share `reserve` of it free: rounded down, but at least 1.
pub(in crate::quota) fn usable(budget: u32, reserve: f64) -> u32 {
    // 60 less a tenth is 54, however the tenth is rounded in binary.
    const ROUNDING: f64 = 1e-6;
    if reserve <= 0.0 {
        return budget.max(1);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `budget`")]
    let usable = (f64::from(budget) * (1.0 - reserve.min(1.0)) + ROUNDING) as u32;
    usable.max(1)
}
