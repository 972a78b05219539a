//! How long many calls will take, found out by making them on paper.

use std::sync::Arc;
use std::time::Duration;

use super::{Ledger, MonotonicTime};
use crate::config::QuotaLimit;

/// More calls than this are not played one by one: it would take longer than an answer may.
const PLAYED: u32 = 20_000;

impl Ledger {
    /// How long from `now` until `calls` calls could have begun one after another, the last one included.
    ///
    /// Each ends at once, those under way end now, and nobody refuses. `pace` says how long after `now` a call, counted
    /// from 0, may begin at the earliest; `reserve` is what they leave alone. Beyond 20,000 calls the rest is estimated by the slowest limit.
    pub fn forecast(&self, now: MonotonicTime, calls: u32, reserve: f64, pace: impl Fn(u32) -> Duration) -> Duration {
        let Some(last) = calls.checked_sub(1) else { return Duration::ZERO };
        let mut ledger = self.clone();
        let nobody: Arc<str> = "".into();
        for _ in 0..ledger.under_way {
            ledger.end(now, &nobody);
        }
        let mut begins = now;
        for call in 0..calls.min(PLAYED) {
            begins = ledger.free_at(begins.max(now + pace(call)), 0, reserve);
            ledger.begin();
            ledger.end(begins, &nobody);
        }
        let share = |limit: QuotaLimit| limit.per.as_secs_f64() / f64::from(limit.requests.max(1));
        let slowest = self.budgets.iter().map(|budget| share(budget.limit())).fold(0.0, f64::max);
        let rest = slowest * f64::from(calls.saturating_sub(PLAYED));
        let played = begins.saturating_sub(now);
        played.saturating_add(Duration::try_from_secs_f64(rest).unwrap_or(Duration::MAX)).max(pace(last))
    }
}
