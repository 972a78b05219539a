//! State of the quota for other stages, operators and callers: what is used, how long calls would wait, who competes.

use std::time::Duration;

use super::call_scheduler::CallScheduler;
use crate::config::QuotaLimit;
use crate::quota::limiter::{LimitUsage, MonotonicTime};
use crate::request::Priority;

impl CallScheduler {
    /// Usage of each limit, in the order of the configuration. Nothing remains during a pause of the upstream.
    pub fn limit_usage(&self) -> Vec<LimitUsage> {
        let (state, now) = (self.lock(), self.clock.now());
        let paused_for = state.gates.backoff.until().saturating_sub(now);
        let usage = |usage: LimitUsage| match (paused_for.is_zero(), usage) {
            (true, usage) => usage,
            // The calls that are left now can be made when the pause has ended.
            (false, LimitUsage { remaining: 1.., .. }) => {
                LimitUsage { remaining: 0, more_in: Some(paused_for), ..usage }
            }
            (false, LimitUsage { more_in, .. }) => LimitUsage { more_in: more_in.max(Some(paused_for)), ..usage },
        };
        state.gates.ledger.limit_usage(now).map(usage).collect()
    }

    /// Time until the upstream's pause ends, if it is longer than `quota.queue_timeout`, so that calls fail meanwhile.
    pub fn closed_for(&self) -> Option<Duration> {
        let (state, now) = (self.lock(), self.clock.now());
        let (_, left) = state.gates.backoff.pause(now).filter(|(pause, _)| *pause > self.queue_timeout)?;
        Some(left)
    }

    /// Number of calls that were made and charged to `caller`: since the start, and in each limit's window.
    pub fn spent_by(&self, caller: &str) -> (u64, Vec<(QuotaLimit, u32)>) {
        let (state, now) = (self.lock(), self.clock.now());
        (state.calls_made.of(caller), state.gates.ledger.spent_by(now, caller))
    }

    /// Number of calls in the queue.
    pub fn queue_length(&self) -> usize {
        self.lock().queue.len()
    }

    /// Number of calls in the queue whose waiters have this priority.
    pub fn queue_length_of(&self, priority: Priority) -> u32 {
        self.lock().queue.count(|rank| rank.priority == priority)
    }

    /// Whether callers compete: a call that came now would not begin at once.
    pub fn is_contended(&self) -> bool {
        let (state, now) = (self.lock(), self.clock.now());
        let gates = &state.gates;
        let paced = gates.paced_at(now, Priority::Interactive);
        !state.queue.is_empty() || gates.ledger.free_at(now, 0, 0.0).max(gates.backoff.until()).max(paced) > now
    }

    /// Time that `calls` further calls of this priority would take, if no others came.
    pub fn forecast(&self, calls: u32, priority: Priority) -> Duration {
        if calls == 0 {
            return Duration::ZERO;
        }
        let (state, now) = (self.lock(), self.clock.now());
        let gates = &state.gates;
        let ahead = state.queue.count(|rank| rank.priority <= priority);
        let (reserve, window) = (gates.reserve(priority), gates.pacing_window(now, priority));
        let pacer = gates.pacers.get(priority).copied();
        let (ledger, paused_until) = (gates.ledger.clone(), gates.backoff.until());
        // The simulation of thousands of calls takes longer than the queue may wait for this lock.
        drop(state);
        let pace = |nth| pacer.map_or(Duration::ZERO, |pacer| pacer.offset(nth, window));
        let forecast = ledger.forecast(now, calls.saturating_add(ahead), reserve, pace);
        forecast.max(paused_until.saturating_sub(now))
    }

    /// Time until a permit could come for a queued call, which is about to give up.
    pub(super) fn estimated_wait(&self, ticket: u64, now: MonotonicTime) -> Duration {
        let state = self.lock();
        let Some(own) = state.queue.rank(ticket) else { return Duration::ZERO };
        let (gates, ahead) = (&state.gates, state.queue.count(|rank| *rank < own));
        let free = gates.ledger.free_at(now, ahead, gates.reserve(own.priority)).max(gates.backoff.opens_at());
        // The calls ahead are paced by the shortest limit even where the ledger has room.
        let interval = gates.limits.iter().map(|limit| limit.per / limit.requests).min().unwrap_or_default();
        free.saturating_sub(now).max(interval.saturating_mul(ahead))
    }
}
