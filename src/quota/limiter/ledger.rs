//! The exact account of calls against all rolling limits. Pure: time is an argument.

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

/// Added to each window, for upstreams that count in coarse ticks of a clock of their own.
pub(in crate::quota) const GUARD: Duration = Duration::from_millis(20);

/// In a window with more calls than this, one call more or less makes no difference to the pace.
const MOST_LOOKED_AT: usize = 4096;

/// A point in monotonic time: how long after the ledger's own beginning.
///
/// It cannot lie before that, so a ledger that is to be restored must begin its longest limit before now.
pub type MonotonicTime = Duration;

/// Knows every call that may still count in one of the rolling windows.
///
/// When the upstream counts a call is not known, only that it does so between the call's beginning and its end. So a
/// call that is under way takes a place in every window, and one that has ended is taken to have counted at its end:
/// whenever it really counted, no rolling window can hold more calls than its limit.
///
/// Each limit has a budget, which is what others leave of it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// In the order of the configuration.
    budgets: Vec<AdaptiveLimit>,
    under_way: u32,
    /// The calls that have ended, by their end, ascending; only those that the longest window still holds.
    ended: VecDeque<Stamp>,
}

/// A call that has ended.
#[derive(Clone, Debug)]
struct Stamp {
    at: MonotonicTime,
    /// The caller that caused it.
    by: Arc<str>,
}

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// The limit.
    pub limit: QuotaLimit,
    /// How many calls its window may hold now: the limit, or less while somebody else spends it too.
    pub budget: u32,
    /// How many of them are left.
    pub remaining: u32,
}

/// What the shortest limit has in store for one who leaves some of it alone.
#[derive(Clone, Copy, Debug)]
pub struct PacingWindow {
    /// The shortest limit.
    pub limit: QuotaLimit,
    /// Calls that its window holds, those under way included.
    pub spent: u32,
    /// Calls that it may hold.
    pub usable: u32,
    /// The shortest interval at which calls can go on for a whole window without being held back in between.
    pub even: Duration,
}

/// A limit of which we may have less than we thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReducedLimit {
    /// The limit.
    pub limit: QuotaLimit,
    /// How many calls its window may hold now.
    pub budget: u32,
}

impl Ledger {
    /// An empty ledger: nothing has been spent.
    pub fn new(limits: Vec<QuotaLimit>) -> Self {
        Self { budgets: limits.into_iter().map(AdaptiveLimit::new).collect(), under_way: 0, ended: VecDeque::new() }
    }

    /// A call that ended at `at`, before this ledger was made; or that may have counted until then, which may lie ahead.
    /// They may come in any order.
    pub fn restore(&mut self, at: MonotonicTime, by: &Arc<str>) {
        let place = self.ended.partition_point(|stamp| stamp.at <= at);
        self.ended.insert(place, Stamp { at, by: by.clone() });
    }

    /// When each call that has ended counts, ascending.
    pub(in crate::quota) fn stamps(&self) -> impl Iterator<Item = MonotonicTime> + '_ {
        self.ended.iter().map(|stamp| stamp.at)
    }

    /// Other calls are known, and perhaps other limits count, than before; `calls` are all that have ended, ascending, with
    /// whom each is charged to. Gives whether the limits are others.
    pub(in crate::quota) fn replace(&mut self, limits: &[QuotaLimit], calls: Vec<(MonotonicTime, Arc<str>)>) -> bool {
        self.ended = calls.into_iter().map(|(at, by)| Stamp { at, by }).collect();
        let others = !self.budgets.iter().map(AdaptiveLimit::limit).eq(limits.iter().copied());
        if others {
            self.budgets = limits.iter().copied().map(AdaptiveLimit::new).collect();
        }
        others
    }

    /// The earliest time, not before `now`, at which one more call may begin after `ahead` others have begun.
    ///
    /// `reserve`, from 0 to 1, is the share of each budget that the call leaves alone: more than 0 for background work.
    /// One call is left to it in any case. A lower bound while calls are under way, for nobody knows when they end, and
    /// while budgets grow, for a refusal may come between; exact otherwise.
    pub fn free_at(&self, now: MonotonicTime, ahead: u32, reserve: f64) -> MonotonicTime {
        self.budgets.iter().map(|budget| self.budget_free_at(budget, now, ahead, reserve)).max().unwrap_or(now)
    }

    fn budget_free_at(&self, budget: &AdaptiveLimit, now: MonotonicTime, ahead: u32, reserve: f64) -> MonotonicTime {
        let window = budget.limit().per + GUARD;
        let counted = self.counted(window, now);
        let wanted = counted + self.under_way as usize + ahead as usize + 1;
        // The more calls leave the window, the less the budget must have grown.
        let left = |leaving: usize| match leaving {
            0 => now,
            _ if leaving <= counted => self.ended[self.ended.len() - counted + leaving - 1].at + window,
            // One of those that have not ended yet.
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
        // With so many leaving, the budget is there first; with one less, the budget is what is waited for.
        enough.checked_sub(1).map_or(now, |one_less| left(enough).min(grown(one_less)))
    }

    /// What the shortest limit has in store for one who leaves `reserve` of it alone.
    pub fn outlook(&self, now: MonotonicTime, reserve: f64) -> PacingWindow {
        let Some(budget) = self.budgets.iter().min_by_key(|budget| budget.limit().per) else {
            let limit = QuotaLimit { requests: u32::MAX, per: Duration::from_secs(1) };
            return PacingWindow { limit, spent: 0, usable: u32::MAX, even: Duration::ZERO };
        };
        let limit = budget.limit();
        let usable = usable(budget.at(now), reserve);
        let spent = self.own(budget, now).saturating_add(self.under_way);
        PacingWindow {
            limit,
            spent,
            usable,
            even: self.even(limit.per + GUARD, now, usable, usable.saturating_sub(spent)),
        }
    }

    /// Until the next ended call leaves the window there are `left` calls to make, and another one when it leaves; until
    /// the one after it there is one more, and so on. The slowest pace that any of these stretches asks for is one that
    /// all of them allow. None looks further ahead than a window: what may count later than now is not waited for.
    fn even(&self, window: Duration, now: MonotonicTime, usable: u32, left: u32) -> Duration {
        let evenly = window / usable.max(1);
        let counted = self.counted(window, now);
        if counted > MOST_LOOKED_AT {
            return evenly;
        }
        let leave = self
            .ended
            .range(self.ended.len() - counted..)
            .map(|stamp| (stamp.at.min(now) + window).saturating_sub(now));
        leave.zip(left.saturating_add(1)..).map(|(until, calls)| until / calls).fold(evenly, Duration::max)
    }

    /// How many ended calls a window of this length, ending at `now`, still holds.
    fn counted(&self, window: Duration, now: MonotonicTime) -> usize {
        self.ended.len() - self.ended.partition_point(|stamp| stamp.at + window <= now)
    }

    /// How many ended calls the window of `budget` holds at `now`.
    fn own(&self, budget: &AdaptiveLimit, now: MonotonicTime) -> u32 {
        u32::try_from(self.counted(budget.limit().per + GUARD, now)).unwrap_or(u32::MAX)
    }

    /// Whether [`Ledger::free_at`] is exact: no call is under way that could yet be refunded, and no budget grows.
    pub fn is_exact(&self, now: MonotonicTime) -> bool {
        self.under_way == 0 && self.budgets.iter().all(|budget| budget.is_whole(now))
    }

    /// How many calls have begun and not ended.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// How each limit stands at `now`, in the order of the configuration.
    pub fn remaining(&self, now: MonotonicTime) -> impl Iterator<Item = LimitUsage> + '_ {
        self.budgets.iter().map(move |own| {
            let (limit, budget) = (own.limit(), own.at(now));
            let spent = self.own(own, now).saturating_add(self.under_way);
            LimitUsage { limit, budget, remaining: budget.saturating_sub(spent) }
        })
    }

    /// How many ended calls of `caller` the window of each limit holds at `now`, in the order of the configuration.
    pub fn spent_by(&self, now: MonotonicTime, caller: &str) -> Vec<(QuotaLimit, u32)> {
        let spent = |limit: QuotaLimit| {
            let held = self.ended.range(self.ended.len() - self.counted(limit.per + GUARD, now)..);
            u32::try_from(held.filter(|stamp| *stamp.by == *caller).count()).unwrap_or(u32::MAX)
        };
        self.budgets.iter().map(AdaptiveLimit::limit).map(|limit| (limit, spent(limit))).collect()
    }

    /// A call begins. The caller has made sure that [`Ledger::free_at`] is now.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// A call that was made for `by` ended at `now`: it has counted at some time since it began.
    pub fn end(&mut self, now: MonotonicTime, by: &Arc<str>) {
        self.under_way = self.under_way.saturating_sub(1);
        self.restore(now, by);
        let longest = self.budgets.iter().map(|budget| budget.limit().per).max().unwrap_or_default() + GUARD;
        while self.ended.front().is_some_and(|stamp| stamp.at + longest <= now) {
            self.ended.pop_front();
        }
    }

    /// A call that began never reached the upstream, so it has not counted.
    pub fn refund(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The upstream refused a call for its quota. The call began at `began` and has ended, as the last one.
    ///
    /// `None`: that is no news, for the call began before the last refusal was weighed.
    pub fn refused(&mut self, now: MonotonicTime, began: MonotonicTime, named: SpentLimit) -> Option<ReducedLimit> {
        let place = match named {
            SpentLimit::Minute => self.by_length().next(),
            SpentLimit::Hour => self.by_length().last(),
            SpentLimit::Unnamed => self.likeliest(now),
        }?;
        // Without the refused call itself, which `end` has counted.
        let own = self.own(&self.budgets[place], now).saturating_sub(1);
        let budget = &mut self.budgets[place];
        budget.shrink(now, began, own).then(|| ReducedLimit { limit: budget.limit(), budget: budget.at(now) })
    }

    /// The places of the budgets, the shortest limit first.
    fn by_length(&self) -> impl Iterator<Item = usize> + use<> {
        let mut places: Vec<usize> = (0..self.budgets.len()).collect();
        places.sort_by_key(|place| self.budgets[*place].limit().per);
        places.into_iter()
    }

    /// The budget that a refusal which names none most likely concerns: the one that we have used most of.
    ///
    /// One that is down to a single call cannot be it: were that the wall, we had stopped meeting it. Then it is the
    /// next longer one.
    fn likeliest(&self, now: MonotonicTime) -> Option<usize> {
        let used = |place: usize| {
            let budget = &self.budgets[place];
            f64::from(self.own(budget, now)) / f64::from(budget.limit().requests.max(1))
        };
        // Of two that are used alike the shorter one, which costs less if it is the wrong one.
        let most = self.by_length().reduce(|most, place| if used(place) > used(most) { place } else { most })?;
        let longer = || self.by_length().skip_while(|place| *place != most);
        longer().find(|place| self.budgets[*place].at(now) > 1).or(Some(most))
    }

    /// The upstream said, with the answer to a call that has ended, how many calls are left.
    ///
    /// It means the limit of which it named the calls, or else the shortest. Calls that are under way are not added to
    /// what we have: whether it had counted them is not known.
    pub fn told(&mut self, now: MonotonicTime, allowance: &RateLimitHeader) {
        let named = self.budgets.iter().position(|budget| Some(budget.limit().requests) == allowance.limit);
        if let Some(place) = named.or_else(|| self.by_length().next()) {
            let own = self.own(&self.budgets[place], now);
            self.budgets[place].told(now, own, allowance.remaining);
        }
    }
}

/// When `budget`, less its reserve, has room for `wanted` calls; never, if even the whole limit has not.
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

/// What is left of a budget without its reserve, rounded down, but at least one call.
pub(in crate::quota) fn usable(budget: u32, reserve: f64) -> u32 {
    // So that 60 less a tenth is 54, however the tenth is rounded.
    const ROUNDING: f64 = 1e-6;
    if reserve <= 0.0 {
        return budget.max(1);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `budget`")]
    let usable = (f64::from(budget) * (1.0 - reserve.min(1.0)) + ROUNDING) as u32;
    usable.max(1)
}
