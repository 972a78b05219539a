//! Forecast of the time that many calls will take, by simulation.

use std::sync::Arc;
use std::time::Duration;

use super::{Ledger, MonotonicTime};
use crate::config::QuotaLimit;

/// Calls that are simulated one by one; more would take longer than an answer may.
const MAX_SIMULATED_CALLS: u32 = 20_000;

impl Ledger {
    /// Time from `now` until `calls` calls could have begun one after another, the last one included.
    ///
    /// Each call ends at once, those in flight end now, and none is refused. `pace` is the shortest time after `now` at
    /// which a call, counted from 0, may begin; `reserve` is the share of each budget that stays free. From the
    /// 20,000th call on, the time is estimated by the slowest limit.
    pub fn forecast(&self, now: MonotonicTime, calls: u32, reserve: f64, pace: impl Fn(u32) -> Duration) -> Duration {
        let Some(last) = calls.checked_sub(1) else { return Duration::ZERO };
        let mut ledger = self.clone();
        let caller: Arc<str> = "".into();
        for _ in 0..ledger.in_flight {
            ledger.end(now, &caller);
        }
        let mut begins = now;
        for call in 0..calls.min(MAX_SIMULATED_CALLS) {
            begins = ledger.free_at(begins.max(now + pace(call)), 0, reserve);
            ledger.begin();
            ledger.end(begins, &caller);
        }
        let seconds_per_call = |limit: QuotaLimit| limit.per.as_secs_f64() / f64::from(limit.requests.max(1));
        let slowest = self.budgets.iter().map(|budget| seconds_per_call(budget.limit())).fold(0.0, f64::max);
        let rest = slowest * f64::from(calls.saturating_sub(MAX_SIMULATED_CALLS));
        let simulated = begins.saturating_sub(now);
        simulated.saturating_add(Duration::try_from_secs_f64(rest).unwrap_or(Duration::MAX)).max(pace(last))
    }
}
