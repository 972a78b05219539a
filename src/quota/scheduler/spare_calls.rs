//! Spare quota: whether further runs of one window may start beside the first, and the wait that each call expects.

use std::time::Duration;

use super::call_scheduler::CallScheduler;
use crate::quota::role::Role;
use crate::request::Priority;

/// Share of each limit that parallel runs of one window leave free, from 0 to 1. Each of them costs half a call more
/// than a single run, on average, and where little quota is left, none is to be wasted.
const PARALLEL_RUN_RESERVE: f64 = 0.2;

impl CallScheduler {
    /// Number of calls of this priority, at most `max`, that could begin at once: no call is queued, the pacer is open,
    /// and a fifth of each limit stays free. None on a follower.
    pub fn spare_calls(&self, priority: Priority, max: u32) -> u32 {
        let (state, now) = (self.lock(), self.clock.now());
        let gates = &state.gates;
        if matches!(gates.lease.role(now), Role::Follower(_)) {
            return 0;
        }
        if !state.queue.is_empty() || gates.backoff.until().max(gates.paced_at(now, priority)) > now {
            return 0;
        }
        let reserve = gates.reserve(priority);
        let fits = |calls: &u32| gates.ledger.free_at(now, calls - 1, reserve.max(PARALLEL_RUN_RESERVE)) <= now;
        u32::try_from((1..=max.min(gates.idle_concurrency(priority))).take_while(fits).count()).unwrap_or(max)
    }

    /// Time that each call waits for its permit while callers compete; zero while they do not.
    pub fn expected_wait(&self) -> Duration {
        if !self.is_contended() {
            return Duration::ZERO;
        }
        let state = self.lock();
        let limits = state.gates.limits.iter();
        limits.min_by_key(|limit| limit.per).map_or(Duration::ZERO, |limit| limit.per / limit.requests.max(1))
    }
}
